// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/tensor.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace millrace {
inline namespace client {

std::optional<size_t> ElementSize(const std::string& datatype) {
  static constexpr std::pair<const char*, size_t> kSizes[] = {
      {"BOOL", 1},   {"UINT8", 1}, {"INT8", 1},   {"UINT16", 2}, {"INT16", 2},
      {"FP16", 2},   {"BF16", 2},  {"UINT32", 4}, {"INT32", 4},  {"FP32", 4},
      {"UINT64", 8}, {"INT64", 8}, {"FP64", 8}};
  for (const auto& [name, size] : kSizes) {
    if (datatype == name) return size;
  }
  return std::nullopt;
}

int64_t Tensor::ElementCount() const {
  int64_t count = 1;
  for (int64_t dim : shape) count *= dim;
  return count;
}

absl::Status Tensor::CheckElements(const char* wanted, size_t element_size) const {
  if (datatype != wanted) {
    return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "' is ", datatype,
                                                   ", but its values were asked for as ", wanted));
  }
  if (data.size() % element_size != 0) {
    return absl::InvalidArgumentError(absl::StrCat("tensor '", name, "' has ", data.size(),
                                                   " bytes, no multiple of the ", element_size,
                                                   " bytes of a ", wanted));
  }
  return absl::OkStatus();
}

std::string DescribeType(const std::string& datatype, const std::vector<int64_t>& shape) {
  return absl::StrCat(datatype, " [", absl::StrJoin(shape, ","), "]");
}

}  // namespace client
}  // namespace millrace
