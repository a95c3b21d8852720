// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/typed_contents.h"

#include <bit>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/status.h"

namespace millrace {
namespace {

// The fields of InferTensorContents.
enum Field : uint32_t {
  kNone = 0,
  kBoolContents = 1,
  kIntContents = 2,
  kInt64Contents = 3,
  kUintContents = 4,
  kUint64Contents = 5,
  kFp32Contents = 6,
  kFp64Contents = 7,
  kBytesContents = 8,
};

constexpr const char* kFieldNames[] = {"",
                                       "bool_contents",
                                       "int_contents",
                                       "int64_contents",
                                       "uint_contents",
                                       "uint64_contents",
                                       "fp32_contents",
                                       "fp64_contents",
                                       "bytes_contents"};

static_assert(std::endian::native == std::endian::little, "Tensors travel little-endian.");

constexpr uint32_t kTensorContentsTag = 5 << 3 | 2;  // InferInputTensor.contents

Field FieldOf(DataType type) {
  switch (type) {
    case DataType::kBool:
      return kBoolContents;
    case DataType::kInt8:
    case DataType::kInt16:
    case DataType::kInt32:
      return kIntContents;
    case DataType::kInt64:
      return kInt64Contents;
    case DataType::kUint8:
    case DataType::kUint16:
    case DataType::kUint32:
      return kUintContents;
    case DataType::kUint64:
      return kUint64Contents;
    case DataType::kFp32:
      return kFp32Contents;
    case DataType::kFp64:
      return kFp64Contents;
    case DataType::kBytes:
      return kBytesContents;
    default:
      return kNone;
  }
}

// The wire type of one element.
uint32_t ElementWireType(uint32_t field) {
  return field == kFp32Contents ? 5 : field == kFp64Contents ? 1 : 0;
}

bool ReadElement(WireReader& in, uint32_t field, uint64_t* bits) {
  if (field == kFp32Contents) {
    uint32_t value = 0;
    if (!in.ReadFixed32(&value)) return false;
    *bits = value;
    return true;
  }
  if (field == kFp64Contents) return in.ReadFixed64(bits);
  if (!in.ReadVarint(bits)) return false;
  if (field == kBoolContents) *bits = *bits != 0;
  if (field == kIntContents || field == kUintContents) *bits = static_cast<uint32_t>(*bits);
  return true;
}

// Calls on_element(field, bits) for each element, packed or not, up to the limit of `in`.
template <typename OnElement>
bool WalkContents(WireReader& in, OnElement on_element) {
  while (!in.AtEnd()) {
    uint32_t tag = 0;
    if (!in.ReadTag(&tag)) return false;
    const uint32_t field = tag >> 3;
    const uint32_t wire_type = tag & 7;
    uint64_t bits = 0;
    if (field == kBytesContents && wire_type == 2) {
      on_element(field, bits);
      if (!in.SkipField(tag)) return false;
    } else if (field >= kBytesContents) {
      if (!in.SkipField(tag)) return false;
    } else if (wire_type == 2) {
      size_t outer = 0;
      if (!in.Enter(&outer)) return false;
      while (!in.AtEnd()) {
        if (!ReadElement(in, field, &bits)) return false;
        on_element(field, bits);
      }
      if (!in.Leave(outer)) return false;
    } else if (wire_type == ElementWireType(field)) {
      if (!ReadElement(in, field, &bits)) return false;
      on_element(field, bits);
    } else if (!in.SkipField(tag)) {
      return false;
    }
  }
  return true;
}

// Whether an element of int_contents or uint_contents, which hold 32 bits, fits a narrower type.
bool Fits(DataType type, uint64_t bits) {
  const auto within = [bits](auto limits) {
    const auto value = static_cast<int32_t>(static_cast<uint32_t>(bits));
    return value >= limits.min() && value <= limits.max();
  };
  switch (type) {
    case DataType::kInt8:
      return within(std::numeric_limits<int8_t>());
    case DataType::kInt16:
      return within(std::numeric_limits<int16_t>());
    case DataType::kUint8:
      return bits <= std::numeric_limits<uint8_t>::max();
    case DataType::kUint16:
      return bits <= std::numeric_limits<uint16_t>::max();
    default:
      return true;
  }
}

absl::Status CheckCounts(const TypedCounts& counts, Field wanted, size_t elements) {
  for (uint32_t field = kBoolContents; field <= kBytesContents; ++field) {
    if (field != wanted && counts[field] > 0) {
      return absl::InvalidArgumentError(absl::StrCat("its elements came in ", kFieldNames[field],
                                                     ", expected in ", kFieldNames[wanted]));
    }
  }
  if (counts[wanted] != elements) {
    return absl::InvalidArgumentError(absl::StrCat(counts[wanted], " elements came in ",
                                                   kFieldNames[wanted], ", expected ", elements,
                                                   " for its shape"));
  }
  return absl::OkStatus();
}

// Calls read(in) at each of the contents of an InferInputTensor, which were read before.
template <typename Read>
void ForEachContents(WireReader& tensor, Read read) {
  while (!tensor.AtEnd()) {
    uint32_t tag = 0;
    size_t outer = 0;
    const bool good =
        tensor.ReadTag(&tag) &&
        (tag == kTensorContentsTag ? tensor.Enter(&outer) && read(tensor) && tensor.Leave(outer)
                                   : tensor.SkipField(tag));
    MILLRACE_CHECK(good, "The contents were counted, so they can be read.");
  }
}

// Calls on_element(payload) for each of bytes_contents.
template <typename OnElement>
bool WalkBytes(WireReader& in, OnElement on_element) {
  while (!in.AtEnd()) {
    uint32_t tag = 0;
    if (!in.ReadTag(&tag)) return false;
    if (tag != (kBytesContents << 3 | 2)) {
      if (!in.SkipField(tag)) return false;
      continue;
    }
    size_t length = 0;
    Payload element;
    if (!in.ReadLength(&length) || !in.ReadPayload(length, &element)) return false;
    on_element(element);
  }
  return true;
}

// Each element behind its length, as in raw_input_contents.
TensorBytes ConvertBytes(const WireReader& tensor) {
  constexpr size_t kLengthBytes = sizeof(uint32_t);
  TensorBytes result;
  WireReader reader = tensor;
  ForEachContents(reader, [&](WireReader& in) {
    return WalkBytes(in,
                     [&](const Payload& element) { result.size += kLengthBytes + element.size(); });
  });
  result.bytes.reset(new std::byte[result.size]);
  std::byte* to = result.bytes.get();
  reader = tensor;
  ForEachContents(reader, [&](WireReader& in) {
    return WalkBytes(in, [&](const Payload& element) {
      const auto length =
          static_cast<uint32_t>(element.size());  // A message is smaller than 4 GiB.
      std::memcpy(to, &length, kLengthBytes);
      element.CopyTo(0, absl::MakeSpan(to + kLengthBytes, element.size()));
      to += kLengthBytes + element.size();
    });
  });
  return result;
}

}  // namespace

bool CountTypedContents(WireReader& in, TypedCounts* counts) {
  return WalkContents(in, [counts](uint32_t field, uint64_t) { ++(*counts)[field]; });
}

absl::StatusOr<TensorBytes> ConvertTypedContents(WireReader tensor, const TypedCounts& counts,
                                                 DataType type, size_t elements) {
  const Field wanted = FieldOf(type);
  if (wanted == kNone) {
    const absl::string_view name = WireName(type);
    return absl::InvalidArgumentError(
        absl::StrCat(name, " has no typed contents; send the tensor in raw_input_contents"));
  }
  MILLRACE_RETURN_IF_ERROR(CheckCounts(counts, wanted, elements));
  if (type == DataType::kBytes) return ConvertBytes(tensor);
  const size_t width = ElementSize(type);
  TensorBytes result{std::make_unique<std::byte[]>(elements * width), elements * width};
  std::byte* to = result.bytes.get();
  size_t misfit = elements;
  const auto append = [&](uint32_t field, uint64_t bits) {
    if (field != wanted) return;
    const size_t index = static_cast<size_t>(to - result.bytes.get()) / width;
    if (misfit == elements && !Fits(type, bits)) misfit = index;
    std::memcpy(to, &bits, width);  // The low bytes come first: the machine is little-endian.
    to += width;
  };
  ForEachContents(tensor, [&](WireReader& in) { return WalkContents(in, append); });
  if (misfit != elements) {
    return absl::InvalidArgumentError(absl::StrCat("element ", misfit, " of ", kFieldNames[wanted],
                                                   " does not fit ", WireName(type)));
  }
  return result;
}

}  // namespace millrace
