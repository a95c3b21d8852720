// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/inference/model_signature.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::ElementsAreArray;
using testing::HasSubstr;

constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

// Two inputs, one of them with a free dimension, and three outputs.
ModelSignature Batched() {
  return ModelSignature("ocr", 3, 8,
                        {{"image", DataType::kUint8, {2, -1}}, {"scale", DataType::kFp32, {}}},
                        {{"text", DataType::kInt32, {-1}},
                         {"score", DataType::kFp32, {1}},
                         {"box", DataType::kFp32, {4}}});
}

InputTensor Tensor(std::string name, std::string data_type, Shape shape, size_t bytes) {
  InputTensor tensor;
  tensor.name = std::move(name);
  tensor.data_type = std::move(data_type);
  tensor.shape = std::move(shape);
  static const std::vector<std::byte> zeros(1 << 16);
  tensor.payload.Append({zeros.data(), bytes});
  return tensor;
}

Request Fitting() {
  Request request;
  request.inputs.push_back(Tensor("image", "UINT8", {3, 2, 5}, 30));
  request.inputs.push_back(Tensor("scale", "FP32", {3}, 12));
  return request;
}

TEST(ModelSignature, TakesARequestThatFits) {
  const ModelSignature signature = Batched();
  const auto checked = signature.Check(Fitting());
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->rows, 3);
  EXPECT_THAT(checked->outputs, ElementsAre(0, 1, 2));
  EXPECT_THAT(checked->row_shape->dims, ElementsAre(Shape{2, 5}, Shape{}));
  EXPECT_THAT(checked->row_shape->row_bytes, ElementsAre(10, 4));
  EXPECT_EQ(signature.fixed_row_shape(), nullptr);
  EXPECT_EQ(signature.version(), "3");
  EXPECT_EQ(signature.version_number(), 3);
}

TEST(ModelSignature, RequestsWithFixedDimsShareTheirRowShape) {
  const ModelSignature signature("mlp", 1, 8, {{"x", DataType::kFp64, {2, 3}}},
                                 {{"y", DataType::kFp64, {1}}});
  ASSERT_NE(signature.fixed_row_shape(), nullptr);
  EXPECT_THAT(signature.fixed_row_shape()->row_bytes, ElementsAre(48));
  Request request;
  request.inputs.push_back(Tensor("x", "FP64", {1, 2, 3}, 48));
  const auto checked = signature.Check(std::move(request));
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->row_shape, signature.fixed_row_shape());
}

TEST(ModelSignature, FillsRowsInTheModelsOrderOfInputsWhateverTheRequests) {
  std::vector<uint8_t> image(30);
  std::iota(image.begin(), image.end(), uint8_t{0});
  std::vector<uint8_t> scale(12);
  std::iota(scale.begin(), scale.end(), uint8_t{100});
  const auto bytes = [](const std::vector<uint8_t>& from) {
    return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(from.data()), from.size());
  };
  Request request;
  request.inputs.push_back(Tensor("scale", "FP32", {3}, 0));
  request.inputs[0].payload.Append(bytes(scale));
  request.inputs.push_back(Tensor("image", "UINT8", {3, 2, 5}, 0));
  request.inputs[1].payload.Append(bytes(image).first(13));
  request.inputs[1].payload.Append(bytes(image).subspan(13));
  const auto checked = Batched().Check(std::move(request));
  ASSERT_TRUE(checked.ok()) << checked.status();

  std::vector<uint8_t> image_rows(20);
  std::vector<uint8_t> scale_rows(8);
  const std::vector<absl::Span<std::byte>> areas = {
      {reinterpret_cast<std::byte*>(image_rows.data()), image_rows.size()},
      {reinterpret_cast<std::byte*>(scale_rows.data()), scale_rows.size()}};
  ASSERT_TRUE(checked->filler->Fill(1, 2, areas).ok());
  EXPECT_THAT(image_rows, ElementsAreArray(image.begin() + 10, image.end()));
  EXPECT_THAT(scale_rows, ElementsAreArray(scale.begin() + 4, scale.end()));
}

TEST(ModelSignature, FillerKeepsTheReceivedBytes) {
  Request request = Fitting();
  auto owner = std::make_shared<int>();
  const std::weak_ptr<int> alive = owner;
  request.payload_owner = std::move(owner);
  auto checked = Batched().Check(std::move(request));
  EXPECT_FALSE(alive.expired());
  checked->filler.reset();
  EXPECT_TRUE(alive.expired());
}

TEST(ModelSignature, SelectsOutputsInTheOrderAsked) {
  Request request = Fitting();
  request.requested_outputs = {{"box"}, {"text"}};
  const auto checked = Batched().Check(std::move(request));
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_THAT(checked->outputs, ElementsAre(2, 0));
}

TEST(ModelSignature, RefusesWhatDoesNotFitAndSaysWhatCameAndWhatWasExpected) {
  using Change = std::function<void(Request&)>;
  const struct {
    const char* what;
    Change change;
    const char* message;
  } cases[] = {
      {"no inputs", [](Request& r) { r.inputs.clear(); },
       "input 'image' for model 'ocr' is missing; 0 of 2 inputs came"},
      {"a missing input", [](Request& r) { r.inputs.pop_back(); },
       "input 'scale' for model 'ocr' is missing; 1 of 2 inputs came"},
      {"an unknown name", [](Request& r) { r.inputs[0].name = "picture"; },
       "unexpected input 'picture' for model 'ocr'; it takes 'image', 'scale'"},
      {"a long name", [](Request& r) { r.inputs[0].name = std::string(5000, 'n'); },
       "nnn…' (5000 bytes) for model 'ocr'"},
      {"an extra input", [](Request& r) { r.inputs.push_back(Tensor("extra", "FP32", {3}, 12)); },
       "unexpected input 'extra'"},
      {"a duplicate", [](Request& r) { r.inputs.push_back(Tensor("scale", "FP32", {3}, 12)); },
       "input 'scale' for model 'ocr' is given more than once"},
      {"another data type", [](Request& r) { r.inputs[0].data_type = "INT8"; },
       "input 'image' for model 'ocr': data type 'INT8' came, expected 'UINT8'"},
      {"no data type", [](Request& r) { r.inputs[0].data_type = ""; },
       "data type '' came, expected 'UINT8'"},
      {"too low a rank",
       [](Request& r) {
         r.inputs[0].shape = {3, 10};
       },
       "input 'image' for model 'ocr': shape [3,10] came, expected [-1,2,-1]"},
      {"too high a rank",
       [](Request& r) {
         r.inputs[0].shape = {3, 2, 5, 1};
       },
       "shape [3,2,5,1] came, expected [-1,2,-1]"},
      {"no shape", [](Request& r) { r.inputs[0].shape.clear(); },
       "shape [] came, expected [-1,2,-1]"},
      {"a rank out of all reason", [](Request& r) { r.inputs[0].shape.assign(1000, 1); },
       "… (1000 dimensions) came, expected [-1,2,-1]"},
      {"another fixed dimension",
       [](Request& r) {
         r.inputs[0].shape = {3, 3, 5};
       },
       "shape [3,3,5] came, expected [-1,2,-1]"},
      {"a negative free dimension",
       [](Request& r) {
         r.inputs[0].shape = {3, 2, -1};
       },
       "shape [3,2,-1] came, expected [-1,2,-1]"},
      {"negative rows",
       [](Request& r) {
         r.inputs[0].shape = {-3, 2, 5};
       },
       "shape [-3,2,5] came, expected [-1,2,-1]"},
      {"no rows",
       [](Request& r) {
         r.inputs[0] = Tensor("image", "UINT8", {0, 2, 5}, 0);
       },
       "shape [0,2,5] has no rows; send at least 1"},
      {"other rows than another input",
       [](Request& r) { r.inputs[1] = Tensor("scale", "FP32", {2}, 8); },
       "input 'scale' for model 'ocr': 2 rows came, but another input of the request has 3"},
      {"too few bytes",
       [](Request& r) {
         r.inputs[0] = Tensor("image", "UINT8", {3, 2, 5}, 29);
       },
       "29 bytes came, expected 30 for shape [3,2,5] of UINT8"},
      {"too many bytes",
       [](Request& r) {
         r.inputs[0] = Tensor("image", "UINT8", {3, 2, 5}, 31);
       },
       "31 bytes came, expected 30 for shape [3,2,5] of UINT8"},
      {"no bytes", [](Request& r) { r.inputs[1] = Tensor("scale", "FP32", {3}, 0); },
       "0 bytes came, expected 12 for shape [3] of FP32"},
      {"more elements than a number holds",
       [](Request& r) {
         r.inputs[0].shape = {3, 2, kMost};
       },
       "has more elements than can be addressed"},
      {"a product that wraps to what came",
       [](Request& r) {
         r.inputs[0] = Tensor("image", "UINT8", {int64_t{1} << 62, 2, 2}, 0);
       },
       "has more elements than can be addressed"},
      {"more bytes than a number holds", [](Request& r) { r.inputs[1].shape = {int64_t{1} << 62}; },
       "4611686018427387904 rows came, but another input of the request has 3"},
      {"an unknown output", [](Request& r) { r.requested_outputs = {{"texts"}}; },
       "unexpected requested output 'texts' for model 'ocr'; it returns 'text', 'score', 'box'"},
      {"an output asked for twice",
       [](Request& r) {
         r.requested_outputs = {{"text"}, {"box"}, {"text"}};
       },
       "output 'text' of model 'ocr' is requested twice"},
  };
  const ModelSignature signature = Batched();
  for (const auto& [what, change, message] : cases) {
    Request request = Fitting();
    change(request);
    const auto checked = signature.Check(std::move(request));
    EXPECT_EQ(checked.status().code(), absl::StatusCode::kInvalidArgument) << what;
    EXPECT_THAT(std::string(checked.status().message()), HasSubstr(message)) << what;
    EXPECT_LT(checked.status().message().size(), 400) << what;
  }
}

TEST(ModelSignature, BytesThatOverflowAreRefusedWithoutWrapping) {
  const ModelSignature signature("wide", 1, 0, {{"x", DataType::kFp64, {-1}}},
                                 {{"y", DataType::kFp64, {-1}}});
  Request request;
  request.inputs.push_back(Tensor("x", "FP64", {int64_t{1} << 61}, 0));  // 2^64 bytes.
  EXPECT_THAT(std::string(signature.Check(std::move(request)).status().message()),
              HasSubstr("more elements than can be addressed"));
}

// Rows that hold no bytes cost the client nothing, but each is answered with a row of output.
TEST(ModelSignature, RowsWithoutBytesAreLimitedToABatch) {
  const ModelSignature signature("empty", 1, 8, {{"x", DataType::kFp32, {-1}}},
                                 {{"y", DataType::kFp32, {1}}});
  const auto check = [&](int64_t rows) {
    Request request;
    request.inputs.push_back(Tensor("x", "FP32", {rows, 0}, 0));
    return signature.Check(std::move(request)).status();
  };
  EXPECT_TRUE(check(8).ok());
  for (const int64_t rows : {int64_t{9}, int64_t{1} << 40, kMost}) {
    EXPECT_EQ(check(rows).code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(check(rows).message()), HasSubstr("at most 8"));
  }
}

TEST(ModelSignature, RequestMayHaveMoreRowsThanABatch) {
  const ModelSignature signature("mlp", 1, 2, {{"x", DataType::kInt8, {1}}},
                                 {{"y", DataType::kInt8, {1}}});
  Request request;
  request.inputs.push_back(Tensor("x", "INT8", {1000, 1}, 1000));
  const auto checked = signature.Check(std::move(request));
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_EQ(checked->rows, 1000);
}

TEST(ModelSignature, WithoutABatchDimensionTheWholeTensorIsOneRow) {
  const ModelSignature signature("whole", 1, 0, {{"x", DataType::kInt16, {-1, 2}}},
                                 {{"y", DataType::kInt16, {1}}});
  EXPECT_FALSE(signature.batched());
  for (const int64_t length : {0, 1, 7}) {
    Request request;
    request.inputs.push_back(Tensor("x", "INT16", {length, 2}, static_cast<size_t>(length) * 4));
    const auto checked = signature.Check(std::move(request));
    ASSERT_TRUE(checked.ok()) << checked.status();
    EXPECT_EQ(checked->rows, 1);
    EXPECT_THAT(checked->row_shape->dims, ElementsAre(Shape{length, 2}));
  }
}

TEST(ModelSignature, EmptyTensorIsAnInput) {
  Request request = Fitting();
  request.inputs[0] = Tensor("image", "UINT8", {3, 2, 0}, 0);
  const auto checked = Batched().Check(std::move(request));
  ASSERT_TRUE(checked.ok()) << checked.status();
  EXPECT_THAT(checked->row_shape->row_bytes, ElementsAre(0, 4));
}

}  // namespace
}  // namespace millrace
