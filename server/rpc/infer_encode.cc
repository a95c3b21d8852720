// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <string>
#include <utility>
#include <variant>

#include "absl/container/inlined_vector.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "grpcpp/support/slice.h"
#include "server/base/check.h"
#include "server/inference/data_type.h"
#include "server/rpc/infer_codec.h"
#include "server/rpc/status_conversion.h"
#include "server/rpc/wire_writer.h"

namespace millrace {
namespace {

// Up to this many bytes of outputs are copied behind the head; above, each output is a slice.
constexpr size_t kMaxCopiedBytes = 4096;

// The fields of the messages.
constexpr uint32_t kStreamErrorMessage = 1;
constexpr uint32_t kStreamInferResponse = 2;
constexpr uint32_t kModelName = 1;
constexpr uint32_t kModelVersion = 2;
constexpr uint32_t kId = 3;
constexpr uint32_t kParameters = 4;
constexpr uint32_t kOutputs = 5;
constexpr uint32_t kRawOutputContents = 6;
constexpr uint32_t kOutputName = 1;
constexpr uint32_t kOutputDataType = 2;
constexpr uint32_t kOutputShape = 3;
constexpr uint32_t kEntryKey = 1;
constexpr uint32_t kEntryValue = 2;
constexpr uint32_t kBoolParam = 1;
constexpr uint32_t kInt64Param = 2;
constexpr uint32_t kStringParam = 3;
constexpr uint32_t kDoubleParam = 4;

// A parameter; `write(out)` writes its InferParameter.
template <typename Out, typename Write>
void WriteEntry(Out& out, absl::string_view key, Write write) {
  WriteMessage(out, kParameters, [&](auto& entry) {
    WriteText(entry, kEntryKey, key);
    WriteMessage(entry, kEntryValue, write);
  });
}

// A parameter whose value is the varint `value` in field `kind` of an InferParameter.
template <typename Out>
void WriteParameter(Out& out, absl::string_view key, uint32_t kind, int64_t value) {
  WriteEntry(out, key, [&](auto& parameter) {
    WriteVarintField(parameter, kind, static_cast<uint64_t>(value));
  });
}

template <typename Out>
void WriteParameter(Out& out, const Parameter& parameter) {
  const absl::string_view key = parameter.name;
  if (const bool* const flag = std::get_if<bool>(&parameter.value)) {
    WriteParameter(out, key, kBoolParam, *flag ? 1 : 0);
  } else if (const int64_t* const number = std::get_if<int64_t>(&parameter.value)) {
    WriteParameter(out, key, kInt64Param, *number);
  } else if (const double* const real = std::get_if<double>(&parameter.value)) {
    WriteEntry(out, key, [&](auto& to) { WriteDoubleField(to, kDoubleParam, *real); });
  } else {
    const std::string& text = std::get<std::string>(parameter.value);
    WriteEntry(out, key, [&](auto& to) {  // An empty one is there all the same: it is in a oneof.
      WriteLengthPrefix(to, kStringParam, text.size());
      to.Bytes(text.data(), text.size());
    });
  }
}

template <typename Out>
void WriteTimings(Out& out, const Timings& timings) {
  WriteParameter(out, "millrace_queue_us", kInt64Param, absl::ToInt64Microseconds(timings.queue));
  if (timings.prepare > absl::ZeroDuration()) {
    WriteParameter(out, "millrace_transform_us", kInt64Param,
                   absl::ToInt64Microseconds(timings.prepare));
  }
  WriteParameter(out, "millrace_fill_us", kInt64Param, absl::ToInt64Microseconds(timings.fill));
  WriteParameter(out, "millrace_execute_us", kInt64Param,
                 absl::ToInt64Microseconds(timings.execute));
  WriteParameter(out, "millrace_batch_size", kInt64Param, timings.batch_rows);
  WriteParameter(out, "millrace_replica", kInt64Param, timings.replica);
}

template <typename Out>
void WriteOutput(Out& out, const OutputTensor& output) {
  WriteMessage(out, kOutputs, [&](auto& tensor) {
    WriteText(tensor, kOutputName, output.name);
    WriteText(tensor, kOutputDataType, WireName(output.data_type));
    if (output.shape.empty()) return;
    WriteMessage(tensor, kOutputShape, [&](auto& dims) {
      for (const int64_t dim : output.shape) WriteVarint(dims, static_cast<uint64_t>(dim));
    });
  });
}

// Everything of a ModelInferResponse that comes before raw_output_contents.
template <typename Out>
void WriteHead(Out& out, const Response& response, bool streamed) {
  WriteText(out, kModelName, response.model_name);
  WriteText(out, kModelVersion, response.model_version);
  WriteText(out, kId, response.id);
  if (streamed) WriteParameter(out, "triton_final_response", kBoolParam, 1);
  for (const Parameter& parameter : response.parameters) WriteParameter(out, parameter);
  if (!response.status.ok()) {
    WriteParameter(out, "millrace_status_code", kInt64Param,
                   static_cast<int64_t>(response.status.code()));
    if (response.retry_after) {
      WriteParameter(out, "millrace_retry_after_us", kInt64Param,
                     absl::ToInt64Microseconds(*response.retry_after));
    }
    return;
  }
  if (response.wants_timings) WriteTimings(out, response.timings);
  for (const OutputTensor& output : response.outputs) WriteOutput(out, output);
}

// A slice of `size` bytes, written by write(WireWriter&).
template <typename Write>
grpc::Slice WrittenSlice(size_t size, Write write) {
  grpc::Slice slice(size);
  WireWriter out(const_cast<uint8_t*>(slice.begin()));  // Nobody else has it yet.
  write(out);
  return slice;
}

template <typename Write>
grpc::Slice WrittenSlice(Write write) {
  WireSize size;
  write(size);
  return WrittenSlice(size.size(), write);
}

// The response's memory as a slice that owns it.
grpc::Slice OwningSlice(Response& response) {
  std::byte* const memory = response.memory.release();
  return grpc::Slice(memory, response.memory_size,
                     [](void* bytes) { delete[] static_cast<std::byte*>(bytes); });
}

// The bytes of `output` as a slice that shares the ownership of `memory`.
grpc::Slice OutputSlice(const grpc::Slice& memory, const OutputTensor& output) {
  const auto* const begin = reinterpret_cast<const uint8_t*>(output.data.data());
  MILLRACE_CHECK(begin >= memory.begin() && begin + output.data.size() <= memory.end(),
                 "An output's bytes lie in the response's memory.");
  const auto offset = static_cast<size_t>(begin - memory.begin());
  return memory.sub(offset, offset + output.data.size());
}

struct RawSizes {
  size_t data = 0;      // Of the tensors alone.
  size_t prefixed = 0;  // With their tags and lengths.
};

RawSizes RawSizesOf(const Response& response) {
  RawSizes sizes;
  WireSize prefixes;
  for (const OutputTensor& output : response.outputs) {
    WriteLengthPrefix(prefixes, kRawOutputContents, output.data.size());
    sizes.data += output.data.size();
  }
  sizes.prefixed = prefixes.size() + sizes.data;
  return sizes;
}

// Writes the head with what frames it: in a stream the response is a field itself.
template <typename Out>
void WriteFramedHead(Out& out, const Response& response, bool streamed, size_t raw_bytes) {
  if (streamed) {
    WireSize head;
    WriteHead(head, response, streamed);
    WriteLengthPrefix(out, kStreamInferResponse, head.size() + raw_bytes);
  }
  WriteHead(out, response, streamed);
}

grpc::ByteBuffer EncodeOutputs(Response&& response, bool streamed) {
  const RawSizes raw = RawSizesOf(response);
  if (raw.data <= kMaxCopiedBytes) {
    const grpc::Slice all = WrittenSlice([&](auto& out) {
      WriteFramedHead(out, response, streamed, raw.prefixed);
      for (const OutputTensor& output : response.outputs) {
        WriteLengthPrefix(out, kRawOutputContents, output.data.size());
        out.Bytes(output.data.data(), output.data.size());
      }
    });
    return grpc::ByteBuffer(&all, 1);
  }
  const grpc::Slice memory = OwningSlice(response);
  absl::InlinedVector<grpc::Slice, 8> slices;
  bool first = true;
  for (const OutputTensor& output : response.outputs) {
    slices.push_back(WrittenSlice([&](auto& out) {
      if (first) WriteFramedHead(out, response, streamed, raw.prefixed);
      WriteLengthPrefix(out, kRawOutputContents, output.data.size());
    }));
    first = false;
    if (!output.data.empty()) slices.push_back(OutputSlice(memory, output));
  }
  return grpc::ByteBuffer(slices.data(), slices.size());
}

grpc::ByteBuffer EncodeError(const Response& response) {
  const std::string message = WireMessage(response.status);
  const grpc::Slice all = WrittenSlice([&](auto& out) {
    WriteText(out, kStreamErrorMessage, message);
    WriteFramedHead(out, response, /*streamed=*/true, 0);
  });
  return grpc::ByteBuffer(&all, 1);
}

}  // namespace

grpc::ByteBuffer EncodeInferResponse(Response&& response) {
  MILLRACE_CHECK(response.status.ok(), "A unary call's error travels as its status.");
  return EncodeOutputs(std::move(response), /*streamed=*/false);
}

grpc::ByteBuffer EncodeStreamResponse(Response&& response) {
  if (!response.status.ok()) return EncodeError(response);
  return EncodeOutputs(std::move(response), /*streamed=*/true);
}

grpc::ByteBuffer EncodeDrainNotice() {
  const grpc::Slice all = WrittenSlice([](auto& out) {
    WriteMessage(out, kStreamInferResponse, [](auto& response) {
      WriteParameter(response, "millrace_draining", kBoolParam, 1);
    });
  });
  return grpc::ByteBuffer(&all, 1);
}

}  // namespace millrace
