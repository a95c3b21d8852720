// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

// The client's names live in an inline namespace: users write `millrace::Tensor`, and the linker
// still tells them from the server's classes of the same name.
namespace millrace {
inline namespace client {

// The bytes of one element of `datatype` ("FP32" → 4), or nothing for an unknown name and for
// BYTES, whose elements have no fixed size.
std::optional<size_t> ElementSize(const std::string& datatype);

// The datatype that carries elements of the C++ type T: float → "FP32", uint8_t → "UINT8", …
template <typename T>
constexpr const char* DatatypeOf() {
  if constexpr (std::is_same_v<T, float>) return "FP32";
  if constexpr (std::is_same_v<T, double>) return "FP64";
  if constexpr (std::is_same_v<T, int8_t>) return "INT8";
  if constexpr (std::is_same_v<T, int16_t>) return "INT16";
  if constexpr (std::is_same_v<T, int32_t>) return "INT32";
  if constexpr (std::is_same_v<T, int64_t>) return "INT64";
  if constexpr (std::is_same_v<T, uint8_t>) return "UINT8";
  if constexpr (std::is_same_v<T, uint16_t>) return "UINT16";
  if constexpr (std::is_same_v<T, uint32_t>) return "UINT32";
  if constexpr (std::is_same_v<T, uint64_t>) return "UINT64";
  return nullptr;
}

// A named array, as it travels: a plain value. Thread-compatible.
//
// Whether name, datatype, shape and bytes fit the model is checked by the server, which answers
// INVALID_ARGUMENT with what came and what it expected.
struct Tensor {
  std::string name;
  // BOOL, UINT8 … UINT64, INT8 … INT64, FP16, BF16, FP32, FP64; or BYTES.
  std::string datatype;
  // With a batching model (max_batch_size > 0) the first dimension counts the rows.
  std::vector<int64_t> shape;
  // The elements, row-major and little-endian, without padding; of BYTES each is its length in
  // 4 bytes, then its bytes.
  std::string data;

  // A tensor of `values`; its datatype follows from T.
  //   Tensor::Of<float>("INPUT__0", {1, 4}, {0.1f, 0.2f, 0.3f, 0.4f})
  template <typename T>
  static Tensor Of(std::string name, std::vector<int64_t> shape, const std::vector<T>& values) {
    static_assert(DatatypeOf<T>() != nullptr, "no datatype carries this element type");
    Tensor tensor{std::move(name), DatatypeOf<T>(), std::move(shape), {}};
    tensor.data.assign(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T));
    return tensor;
  }

  // The elements as C++ values; INVALID_ARGUMENT when T is not the element type of `datatype`.
  template <typename T>
  absl::StatusOr<std::vector<T>> Values() const {
    static_assert(DatatypeOf<T>() != nullptr, "no datatype carries this element type");
    if (absl::Status status = CheckElements(DatatypeOf<T>(), sizeof(T)); !status.ok()) {
      return status;
    }
    std::vector<T> values(data.size() / sizeof(T));
    if (!values.empty()) std::memcpy(values.data(), data.data(), data.size());
    return values;
  }

  // The number of elements that `shape` names (1 for a scalar).
  int64_t ElementCount() const;

 private:
  absl::Status CheckElements(const char* wanted, size_t element_size) const;
};

// "FP32 [1,16]": how messages and tables show a tensor's type.
std::string DescribeType(const std::string& datatype, const std::vector<int64_t>& shape);

}  // namespace client
}  // namespace millrace
