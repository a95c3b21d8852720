// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/channel/shared_batch_buffer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "server/channel/model_memory.h"

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr size_t kAreaBytes = 4096;

ModelSignature Signature(int64_t max_batch_size = 8) {
  return ModelSignature("m", 1, max_batch_size,
                        {{"a", DataType::kUint8, {3}}, {"b", DataType::kFp32, {2, 5}}},
                        {{"y", DataType::kFp32, {-1}}});
}

class SharedBatchBufferTest : public testing::Test {
 protected:
  BatchHeader& header() { return *reinterpret_cast<BatchHeader*>(memory_->buffer_begin(0)); }
  SharedBatchBuffer& buffer() { return memory_->buffer(0); }

  // One FP32 output of shape [2,3], as a good worker leaves it.
  void LeaveGoodOutput() {
    header().status_code = 0;
    header().output_count = 1;
    TensorHeader& output = header().outputs[0];
    output = {};
    output.data_type = static_cast<int32_t>(DataType::kFp32);
    output.rank = 2;
    output.dims = {2, 3};
    output.offset = kBatchHeaderBytes + 128;
    output.bytes = 24;
  }

  const std::unique_ptr<ModelMemory> memory_ = *ModelMemory::Create(
      {.mailboxes = 1, .buffers = 1, .buffer_bytes = kBatchHeaderBytes + kAreaBytes});
  const ModelSignature signature_ = Signature();
  const std::shared_ptr<const RowShape> shape_ = signature_.fixed_row_shape();
};

// ---- Inputs ----

TEST_F(SharedBatchBufferTest, AreasAreAlignedAndRowsPackedInThem) {
  ASSERT_EQ(*buffer().Open(*shape_, 8), 8);
  const auto at = [&](int input, int64_t row) {
    return buffer().InputRows(input, row, 1).data() - memory_->buffer_begin(0);
  };
  EXPECT_EQ(at(0, 0), kBatchHeaderBytes);
  EXPECT_EQ(at(0, 1) - at(0, 0), 3);
  EXPECT_EQ(at(1, 0) % kAreaAlignment, 0);
  EXPECT_GE(at(1, 0), at(0, 7) + 3);
  EXPECT_EQ(at(1, 1) - at(1, 0), 40);
  EXPECT_EQ(buffer().InputRows(1, 2, 3).size(), 120);
}

TEST_F(SharedBatchBufferTest, InputsOfSeveralRowsLeaveHalfOfTheAreasToOutputs) {
  const RowShape row = {.dims = {{1000}}, .row_bytes = {1000}};
  EXPECT_EQ(*buffer().Open(row, 8), 1);  // One of 1,000 bytes and its padding fits in 2,048.
  const RowShape small = {.dims = {{100}}, .row_bytes = {100}};
  EXPECT_EQ(*buffer().Open(small, 100), (kAreaBytes / 2 - kAreaAlignment) / 100);
}

TEST_F(SharedBatchBufferTest, SingleRowMayTakeMoreThanHalfAndTooLargeAOneIsRefused) {
  const size_t most = kAreaBytes - kAreaAlignment;
  const RowShape fits = {.dims = {{static_cast<int64_t>(most)}}, .row_bytes = {most}};
  EXPECT_EQ(*buffer().Open(fits, 8), 1);
  EXPECT_EQ(buffer().InputRows(0, 0, 1).data() + most,
            memory_->buffer_begin(0) + kBatchHeaderBytes + most);
  const RowShape too_large = {.dims = {{static_cast<int64_t>(most + 1)}}, .row_bytes = {most + 1}};
  const auto refused = buffer().Open(too_large, 8);
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("one row of input takes 4033 bytes, but a batch buffer of this model "
                        "holds 4032"));
}

TEST_F(SharedBatchBufferTest, RowsWithoutBytesFitInAnyNumber) {
  const RowShape empty = {.dims = {{0}}, .row_bytes = {0}};
  EXPECT_EQ(*buffer().Open(empty, 1000), 1000);
  EXPECT_EQ(buffer().InputRows(0, 999, 1).size(), 0);
}

TEST_F(SharedBatchBufferTest, HeaderTellsTheWorkerWhatThereIs) {
  ASSERT_EQ(*buffer().Open(*shape_, 8), 8);
  buffer().Seal(5);
  buffer().WriteHeader(signature_);
  EXPECT_EQ(header().rows, 5);
  EXPECT_EQ(header().input_count, 2);
  const TensorHeader& b = header().inputs[1];
  EXPECT_EQ(b.data_type, static_cast<int32_t>(DataType::kFp32));
  EXPECT_EQ(b.rank, 3);
  EXPECT_THAT(std::vector<int64_t>(b.dims.begin(), b.dims.begin() + 3), ElementsAre(5, 2, 5));
  EXPECT_EQ(b.bytes, 5 * 40);
  EXPECT_EQ(memory_->buffer_begin(0) + b.offset, buffer().InputRows(1, 0, 1).data());
  EXPECT_GE(header().outputs_begin, b.offset + 8 * 40);
  EXPECT_EQ(header().outputs_begin % kAreaAlignment, 0);
}

TEST_F(SharedBatchBufferTest, WithoutABatchDimensionTheHeaderHasNone) {
  const ModelSignature whole = Signature(0);
  ASSERT_EQ(*buffer().Open(*shape_, 1), 1);
  buffer().Seal(1);
  buffer().WriteHeader(whole);
  EXPECT_EQ(header().inputs[1].rank, 2);
  EXPECT_EQ(header().inputs[1].bytes, 40);
}

TEST_F(SharedBatchBufferTest, WorkerThatWritesNothingHasNotSucceeded) {
  ASSERT_TRUE(buffer().Open(*shape_, 8).ok());
  LeaveGoodOutput();
  buffer().Seal(1);
  buffer().WriteHeader(signature_);
  EXPECT_EQ(buffer().ReadOutputs().status().code(), absl::StatusCode::kInternal);
}

// ---- Outputs ----

TEST_F(SharedBatchBufferTest, OutputsAreViewsIntoTheBuffer) {
  LeaveGoodOutput();
  const float values[] = {1, 2, 3, 4, 5, 6};
  std::memcpy(memory_->buffer_begin(0) + header().outputs[0].offset, values, sizeof(values));
  const auto outputs = buffer().ReadOutputs();
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  ASSERT_EQ(outputs->size(), 1);
  EXPECT_EQ((*outputs)[0].data_type, DataType::kFp32);
  EXPECT_THAT((*outputs)[0].shape, ElementsAre(2, 3));
  ASSERT_EQ((*outputs)[0].data.size(), 24);
  EXPECT_EQ(std::memcmp((*outputs)[0].data.data(), values, sizeof(values)), 0);
}

TEST_F(SharedBatchBufferTest, OutputWithoutElementsAndAScalarAreOutputs) {
  LeaveGoodOutput();
  header().outputs[0].dims = {2, 0};
  header().outputs[0].bytes = 0;
  EXPECT_TRUE(buffer().ReadOutputs().ok());
  header().outputs[0].rank = 0;
  header().outputs[0].bytes = 4;
  EXPECT_TRUE(buffer().ReadOutputs().ok());
}

TEST_F(SharedBatchBufferTest, HeadersThatMakeNoSenseAreErrors) {
  constexpr uint64_t kHuge = std::numeric_limits<uint64_t>::max();
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  const uint64_t end = memory_->buffer_bytes();
  const struct {
    const char* what;
    std::function<void(BatchHeader&)> change;
  } cases[] = {
      {"a negative rank", [](BatchHeader& h) { h.outputs[0].rank = -1; }},
      {"too high a rank", [](BatchHeader& h) { h.outputs[0].rank = kMostDims + 1; }},
      {"a rank out of all reason", [](BatchHeader& h) { h.outputs[0].rank = INT32_MAX; }},
      {"no data type", [](BatchHeader& h) { h.outputs[0].data_type = 0; }},
      {"a type without a size", [](BatchHeader& h) { h.outputs[0].data_type = 13; }},
      {"an unknown data type", [](BatchHeader& h) { h.outputs[0].data_type = 15; }},
      {"a negative data type", [](BatchHeader& h) { h.outputs[0].data_type = -1; }},
      {"a type that wraps", [](BatchHeader& h) { h.outputs[0].data_type = 0x100 + 11; }},
      {"a negative dimension",
       [](BatchHeader& h) {
         h.outputs[0].dims = {-2, -3};
       }},
      {"dims that overflow",
       [](BatchHeader& h) {
         h.outputs[0].dims = {kMost, 4};
       }},
      {"dims that wrap to what is there",
       [](BatchHeader& h) {
         h.outputs[0].rank = 3;
         h.outputs[0].dims = {int64_t{1} << 62, 4, 6};
         h.outputs[0].bytes = 0;
       }},
      {"bytes that wrap to what is there",
       [](BatchHeader& h) {
         h.outputs[0].dims = {2, (int64_t{1} << 61) + 3};
       }},
      {"too few bytes", [](BatchHeader& h) { h.outputs[0].bytes = 20; }},
      {"too many bytes", [](BatchHeader& h) { h.outputs[0].bytes = 28; }},
      {"part of an element", [](BatchHeader& h) { h.outputs[0].bytes = 25; }},
      {"bytes out of all reason", [](BatchHeader& h) { h.outputs[0].bytes = kHuge; }},
      {"an offset beyond the end", [=](BatchHeader& h) { h.outputs[0].offset = end; }},
      {"an area over the end", [=](BatchHeader& h) { h.outputs[0].offset = end - 23; }},
      {"an offset that wraps", [](BatchHeader& h) { h.outputs[0].offset = kHuge - 8; }},
      {"too many outputs", [](BatchHeader& h) { h.output_count = kMostTensors + 1; }},
      {"outputs out of all reason", [](BatchHeader& h) { h.output_count = UINT32_MAX; }},
  };
  for (const auto& [what, change] : cases) {
    LeaveGoodOutput();
    ASSERT_TRUE(buffer().ReadOutputs().ok());
    change(header());
    EXPECT_EQ(buffer().ReadOutputs().status().code(), absl::StatusCode::kInternal) << what;
  }
  LeaveGoodOutput();
  header().outputs[0].offset = end - 24;
  EXPECT_TRUE(buffer().ReadOutputs().ok()) << "The last bytes are part of the buffer.";
}

TEST_F(SharedBatchBufferTest, StatusOfTheWorkerIsHandedOn) {
  const auto leave = [&](int32_t code, const std::string& message, uint32_t bytes) {
    header().status_code = code;
    std::memcpy(header().message.data(), message.data(), message.size());
    header().message_bytes = bytes;
    return buffer().ReadOutputs().status();
  };
  EXPECT_EQ(leave(8, "out of memory", 13), absl::ResourceExhaustedError("out of memory"));
  EXPECT_EQ(leave(13, "", 0), absl::InternalError(""));
  for (const int32_t code : {-1, 17, INT32_MAX, INT32_MIN}) {
    EXPECT_EQ(leave(code, "?", 1), absl::InternalError("?")) << code;
  }
  EXPECT_EQ(leave(13, "", UINT32_MAX).message().size(), kMostMessageBytes);
}

TEST_F(SharedBatchBufferTest, TimeThatRunsBackwardsIsNone) {
  header().execute_nanoseconds = -5;
  EXPECT_EQ(buffer().execute_nanoseconds(), 0);
  header().execute_nanoseconds = 5;
  EXPECT_EQ(buffer().execute_nanoseconds(), 5);
}

TEST(SharedBatchBuffer, LargeBatchLeavesNoMemoryBehindOnceSmallOnesFollow) {
  constexpr size_t kLarge = size_t{64} << 20;
  const auto memory = *ModelMemory::Create(
      {.mailboxes = 1, .buffers = 1, .buffer_bytes = kBatchHeaderBytes + 2 * kLarge});
  SharedBatchBuffer& buffer = memory->buffer(0);
  const auto blocks = [&] {
    struct stat file = {};
    EXPECT_EQ(fstat(memory->fd(), &file), 0);
    return static_cast<size_t>(file.st_blocks) * 512;
  };
  const RowShape large = {.dims = {{kLarge}}, .row_bytes = {kLarge}};
  ASSERT_TRUE(buffer.Open(large, 1).ok());
  const auto area = buffer.InputRows(0, 0, 1);
  std::memset(area.data(), 1, area.size());
  EXPECT_GE(blocks(), kLarge);
  const RowShape small = {.dims = {{8}}, .row_bytes = {8}};
  ASSERT_TRUE(buffer.Open(small, 1).ok());
  EXPECT_LE(blocks(), size_t{33} << 20);
}

}  // namespace
}  // namespace millrace
