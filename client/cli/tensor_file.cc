// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/tensor_file.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <regex>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace millrace {
inline namespace client {
namespace {

constexpr char kMagic[] = "\x93NUMPY";
constexpr size_t kMagicSize = 6;
constexpr size_t kAlignment = 64;

constexpr std::pair<const char*, const char*> kTypes[] = {
    {"BOOL", "|b1"}, {"UINT8", "|u1"}, {"UINT16", "<u2"}, {"UINT32", "<u4"}, {"UINT64", "<u8"},
    {"INT8", "|i1"}, {"INT16", "<i2"}, {"INT32", "<i4"},  {"INT64", "<i8"},  {"FP16", "<f2"},
    {"FP32", "<f4"}, {"FP64", "<f8"},  {"BF16", "<u2"}};

absl::StatusOr<std::string> DatatypeOf(const std::string& descr) {
  for (const auto& [datatype, name] : kTypes) {
    if (descr == name) return std::string(datatype);
  }
  return absl::InvalidArgumentError(absl::StrCat("the .npy file holds elements of type '", descr,
                                                 "', which no tensor carries; expected bool, "
                                                 "(u)int8 to 64 or float16 to 64, little-endian"));
}

// The bytes of the header's dictionary, and where the elements begin.
absl::StatusOr<std::pair<std::string, size_t>> SplitHeader(const std::string& bytes) {
  const auto broken = absl::InvalidArgumentError("not a .npy file, or a damaged one");
  if (bytes.size() < kMagicSize + 6 || bytes.compare(0, kMagicSize, kMagic) != 0) return broken;
  const bool is_first_version = bytes[kMagicSize] == 1;
  const size_t length_size = is_first_version ? 2 : 4;
  size_t length = 0;
  for (size_t i = 0; i < length_size; ++i) {
    length |= size_t{static_cast<uint8_t>(bytes[kMagicSize + 2 + i])} << (8 * i);
  }
  const size_t start = kMagicSize + 2 + length_size;
  if (length > bytes.size() - start) return broken;
  return std::make_pair(bytes.substr(start, length), start + length);
}

std::vector<int64_t> ParseShape(const std::string& text) {
  std::vector<int64_t> shape;
  static const std::regex kNumber("[0-9]{1,18}");
  for (std::sregex_iterator it(text.begin(), text.end(), kNumber), end; it != end; ++it) {
    shape.push_back(std::stoll(it->str()));
  }
  return shape;
}

}  // namespace

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream bytes;
  if (file) bytes << file.rdbuf();
  if (!file || file.bad()) {
    return absl::NotFoundError(absl::StrCat("can't read '", path, "': ", std::strerror(errno)));
  }
  return bytes.str();
}

absl::Status WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (file) return absl::OkStatus();
  return absl::UnknownError(absl::StrCat("can't write '", path, "': ", std::strerror(errno)));
}

absl::StatusOr<Tensor> ParseNpy(const std::string& bytes) {
  const auto header = SplitHeader(bytes);
  if (!header.ok()) return header.status();
  const auto& [dictionary, start] = *header;
  static const std::regex kDictionary(
      R"(^\{'descr': *'([^']*)', *'fortran_order': *(True|False), *'shape': *\(([0-9, ]*)\),? *\}\s*$)");
  std::smatch match;
  if (!std::regex_match(dictionary, match, kDictionary)) {
    return absl::InvalidArgumentError(
        absl::StrCat("can't use a .npy file with the header ", dictionary));
  }
  const auto datatype = DatatypeOf(match[1]);
  if (!datatype.ok()) return datatype.status();
  Tensor tensor{"", *datatype, ParseShape(match[3]), bytes.substr(start)};
  if (match[2] == "True" && tensor.shape.size() > 1) {
    return absl::InvalidArgumentError(
        "the .npy file is in Fortran order; save numpy.ascontiguousarray(array)");
  }
  const size_t expected = static_cast<size_t>(tensor.ElementCount()) * *ElementSize(*datatype);
  if (tensor.data.size() != expected) {
    return absl::InvalidArgumentError(absl::StrCat("the .npy file has ", tensor.data.size(),
                                                   " bytes of elements; its header promises ",
                                                   expected));
  }
  return tensor;
}

absl::StatusOr<std::string> FormatNpy(const Tensor& tensor) {
  const char* descr = nullptr;
  for (const auto& [datatype, name] : kTypes) {
    if (tensor.datatype == datatype) descr = name;
  }
  if (descr == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("a .npy file can't hold '", tensor.name, "' of datatype ", tensor.datatype));
  }
  std::string dictionary =
      absl::StrCat("{'descr': '", descr, "', 'fortran_order': False, 'shape': (",
                   absl::StrJoin(tensor.shape, ", "), tensor.shape.size() == 1 ? ",), }" : "), }");
  const size_t unpadded = kMagicSize + 4 + dictionary.size() + 1;
  dictionary.append((kAlignment - unpadded % kAlignment) % kAlignment, ' ');
  dictionary.push_back('\n');
  std::string bytes(kMagic, kMagicSize);
  bytes.append({'\1', '\0', static_cast<char>(dictionary.size() & 0xff),
                static_cast<char>(dictionary.size() >> 8)});
  return absl::StrCat(bytes, dictionary, tensor.data);
}

}  // namespace client
}  // namespace millrace
