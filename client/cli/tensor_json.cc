// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/tensor_json.h"

#include <bit>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/tensor_file.h"

namespace millrace {
inline namespace client {
namespace {

using Json = nlohmann::ordered_json;

// Marks the element types whose C++ type is not their own.
struct Bool {
  uint8_t value;
};
struct Half {
  uint16_t bits;
};
struct Bfloat {
  uint16_t bits;
};

// Calls `function` with a value of the datatype's element type; false for an unknown datatype.
template <typename Function>
bool WithElementType(const std::string& datatype, Function function) {
  if (datatype == "BOOL") return function(Bool{}), true;
  if (datatype == "UINT8") return function(uint8_t{}), true;
  if (datatype == "UINT16") return function(uint16_t{}), true;
  if (datatype == "UINT32") return function(uint32_t{}), true;
  if (datatype == "UINT64") return function(uint64_t{}), true;
  if (datatype == "INT8") return function(int8_t{}), true;
  if (datatype == "INT16") return function(int16_t{}), true;
  if (datatype == "INT32") return function(int32_t{}), true;
  if (datatype == "INT64") return function(int64_t{}), true;
  if (datatype == "FP16") return function(Half{}), true;
  if (datatype == "BF16") return function(Bfloat{}), true;
  if (datatype == "FP32") return function(float{}), true;
  if (datatype == "FP64") return function(double{}), true;
  return false;
}

float ToFloat(Bfloat bfloat) { return std::bit_cast<float>(uint32_t{bfloat.bits} << 16); }

float ToFloat(Half half) {
  const float sign = (half.bits & 0x8000) != 0 ? -1.0f : 1.0f;
  const int exponent = (half.bits >> 10) & 0x1f;
  const int fraction = half.bits & 0x3ff;
  if (exponent == 0x1f) {
    return fraction == 0 ? sign * std::numeric_limits<float>::infinity() : std::nanf("");
  }
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), -24);
  return sign * std::ldexp(static_cast<float>(fraction + 0x400), exponent - 25);
}

template <typename T>
Json ToJsonElement(T value) {
  return value;
}
Json ToJsonElement(Bool value) { return value.value != 0; }
Json ToJsonElement(Half value) { return ToFloat(value); }
Json ToJsonElement(Bfloat value) { return ToFloat(value); }

// Whether `json` fits T, and its value.
template <typename T>
bool FromJsonElement(const Json& json, T& value) {
  if constexpr (std::is_floating_point_v<T>) {
    if (!json.is_number()) return false;
  } else {
    if (!json.is_number_integer()) return false;
    const bool fits = json.is_number_unsigned() ? std::in_range<T>(json.get<uint64_t>())
                                                : std::in_range<T>(json.get<int64_t>());
    if (!fits) return false;
  }
  value = json.get<T>();
  return true;
}
bool FromJsonElement(const Json& json, Bool& value) {
  if (json.is_boolean()) value.value = json.get<bool>() ? 1 : 0;
  return json.is_boolean();
}
bool FromJsonElement(const Json&, Half&) { return false; }
bool FromJsonElement(const Json&, Bfloat&) { return false; }

// The shape of the nesting, judged by the first element of each level.
std::vector<int64_t> ShapeOf(const Json& json) {
  std::vector<int64_t> shape;
  for (const Json* level = &json; level->is_array(); level = &level->front()) {
    shape.push_back(static_cast<int64_t>(level->size()));
    if (level->empty()) break;
  }
  return shape;
}

absl::Status AppendElement(const Json& json, Tensor& tensor) {
  bool fits = false;
  const bool known = WithElementType(tensor.datatype, [&](auto value) {
    fits = FromJsonElement(json, value);
    tensor.data.append(reinterpret_cast<const char*>(&value), sizeof(value));
  });
  if (known && fits) return absl::OkStatus();
  if (!known || tensor.datatype == "FP16" || tensor.datatype == "BF16") {
    return absl::InvalidArgumentError(
        absl::StrCat("datatype ", tensor.datatype, " has no JSON form; give a .npy or a raw file"));
  }
  return absl::InvalidArgumentError(
      absl::StrCat("element ", json.dump(), " does not fit datatype ", tensor.datatype));
}

absl::Status Append(const Json& json, size_t depth, Tensor& tensor) {
  if (depth == tensor.shape.size()) {
    if (!json.is_array()) return AppendElement(json, tensor);
  } else if (json.is_array() && static_cast<int64_t>(json.size()) == tensor.shape[depth]) {
    for (const Json& element : json) {
      if (absl::Status status = Append(element, depth + 1, tensor); !status.ok()) return status;
    }
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "the JSON array is ragged; all arrays of a level must have one length");
}

}  // namespace

absl::StatusOr<Tensor> ParseJsonTensor(const std::string& text, const std::string& datatype) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text.substr(0, 60), "' is not JSON; expected an array such as [1, 2.5]"));
  }
  Tensor tensor{"", datatype, ShapeOf(json), ""};
  if (absl::Status status = Append(json, 0, tensor); !status.ok()) return status;
  return tensor;
}

Json ElementsToJson(const Tensor& tensor) {
  Json array = Json::array();
  if (tensor.datatype == "BYTES") {
    for (size_t at = 0; at + sizeof(uint32_t) <= tensor.data.size();) {
      uint32_t length = 0;
      std::memcpy(&length, tensor.data.data() + at, sizeof(length));
      at += sizeof(length);
      array.push_back(tensor.data.substr(at, length));
      at += length;
    }
    return array;
  }
  WithElementType(tensor.datatype, [&](auto value) {
    for (size_t at = 0; at + sizeof(value) <= tensor.data.size(); at += sizeof(value)) {
      std::memcpy(&value, tensor.data.data() + at, sizeof(value));
      array.push_back(ToJsonElement(value));
    }
  });
  return array;
}

Json ToJson(const Tensor& tensor) {
  return {{"name", tensor.name},
          {"datatype", tensor.datatype},
          {"shape", tensor.shape},
          {"data", ElementsToJson(tensor)}};
}

absl::StatusOr<Json> SaveOutput(const Tensor& tensor, const std::string& path) {
  const auto bytes = FormatNpy(tensor);
  if (!bytes.ok()) return bytes.status();
  if (absl::Status status = WriteFile(path, *bytes); !status.ok()) return status;
  return Json{{"name", tensor.name},
              {"datatype", tensor.datatype},
              {"shape", tensor.shape},
              {"file", path}};
}

std::string ToText(const nlohmann::ordered_json& json) {
  return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace client
}  // namespace millrace
