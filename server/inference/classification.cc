// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/inference/classification.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <numeric>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

// Appends a BYTES element: its length, then its bytes.
void AppendElement(const std::string& text, std::string& to) {
  const auto length = static_cast<uint32_t>(text.size());
  char bytes[sizeof(length)];
  std::memcpy(bytes, &length, sizeof(length));
  to.append(bytes, sizeof(length));
  to.append(text);
}

template <typename T>
void AppendBest(absl::Span<const std::byte> row, size_t most, const Labels* labels,
                std::string& to) {
  std::vector<T> values(row.size() / sizeof(T));
  std::memcpy(values.data(), row.data(), values.size() * sizeof(T));  // It may lie unaligned.
  std::vector<size_t> order(values.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto is_nan = [&](size_t i) {
    if constexpr (std::is_floating_point_v<T>) return std::isnan(values[i]);
    return false;
  };
  const auto is_better = [&](size_t a, size_t b) {
    if (is_nan(a) != is_nan(b)) return is_nan(b);  // The last, in an order of their own.
    if (!is_nan(a) && values[a] != values[b]) return values[a] > values[b];
    return a < b;
  };
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(most), order.end(),
                    is_better);
  for (size_t i = 0; i < most; ++i) {
    const size_t index = order[i];
    const bool has_label = labels != nullptr && index < labels->size();
    AppendElement(absl::StrCat(std::to_string(values[index]), ":", index, has_label ? ":" : "",
                               has_label ? (*labels)[index] : ""),
                  to);
  }
}

using Append = void (*)(absl::Span<const std::byte>, size_t, const Labels*, std::string&);

// Null where the type can't be classified.
Append AppendFor(DataType type) {
  switch (type) {
    case DataType::kUint8:
      return AppendBest<uint8_t>;
    case DataType::kUint16:
      return AppendBest<uint16_t>;
    case DataType::kUint32:
      return AppendBest<uint32_t>;
    case DataType::kUint64:
      return AppendBest<uint64_t>;
    case DataType::kInt8:
      return AppendBest<int8_t>;
    case DataType::kInt16:
      return AppendBest<int16_t>;
    case DataType::kInt32:
      return AppendBest<int32_t>;
    case DataType::kInt64:
      return AppendBest<int64_t>;
    case DataType::kFp32:
      return AppendBest<float>;
    case DataType::kFp64:
      return AppendBest<double>;
    default:
      return nullptr;
  }
}

// The output's best classes as a tensor's bytes; gives the output its new shape and type.
std::string BestOf(const Classes& classes, bool batched, OutputTensor& output) {
  const int64_t rows = batched && !output.shape.empty() ? output.shape[0] : 1;
  const Append append = AppendFor(output.data_type);
  const size_t row_bytes = rows > 0 ? output.data.size() / static_cast<size_t>(rows) : 0;
  const size_t elements = row_bytes / ElementSize(output.data_type);
  const size_t most = std::min(elements, static_cast<size_t>(classes.most));
  std::string text;
  for (int64_t row = 0; row < rows; ++row) {
    append(output.data.subspan(static_cast<size_t>(row) * row_bytes, row_bytes), most,
           classes.labels.get(), text);
  }
  output.data_type = DataType::kBytes;
  output.shape.clear();
  if (batched) output.shape.push_back(rows);
  output.shape.push_back(static_cast<int64_t>(most));
  return text;
}

}  // namespace

bool CanBeClassified(DataType type) { return AppendFor(type) != nullptr; }

void Classify(absl::Span<const Classes> classes, bool batched, Response& response) {
  std::vector<std::string> texts(response.outputs.size());
  size_t size = 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    OutputTensor& output = response.outputs[i];
    if (classes[i].most > 0) {
      texts[i] = BestOf(classes[i], batched, output);
      output.data =
          absl::MakeConstSpan(reinterpret_cast<const std::byte*>(texts[i].data()), texts[i].size());
    }
    size += output.data.size();
  }
  std::unique_ptr<std::byte[]> memory(new std::byte[size]);
  std::byte* to = memory.get();
  for (OutputTensor& output : response.outputs) {
    if (!output.data.empty()) std::memcpy(to, output.data.data(), output.data.size());
    output.data = absl::MakeConstSpan(to, output.data.size());
    to += output.data.size();
  }
  response.memory = std::move(memory);
  response.memory_size = size;
}

}  // namespace millrace
