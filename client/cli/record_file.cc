// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/record_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "client/cli/tensor_json.h"

namespace millrace {
inline namespace client {
namespace {

using Json = nlohmann::ordered_json;

// A CSV cell (RFC 4180).
std::string Cell(const std::string& text) {
  if (text.find_first_of("\",\r\n") == std::string::npos) return text;
  return absl::StrCat("\"", absl::StrReplaceAll(text, {{"\"", "\"\""}}), "\"");
}

// The first cell of a row of cells that Cell() wrote.
std::string FirstCell(const std::string& row) {
  if (row.empty() || row[0] != '"') return row.substr(0, row.find(','));
  std::string cell;
  for (size_t at = 1; at < row.size() && (row[at] != '"' || row[++at] == '"'); ++at) {
    cell += row[at];
  }
  return cell;
}

// Reads a line with its line end, and those after it where a cell goes on there; false where what
// is left isn't whole.
bool ReadRecord(std::istream& in, RecordFile::Format format, std::string& record) {
  record.clear();
  for (std::string line; std::getline(in, line) && !in.eof();) {
    record += line + "\n";
    const bool in_cell = format == RecordFile::Format::kCsv &&
                         std::count(record.begin(), record.end(), '"') % 2 != 0;
    if (!in_cell) return true;
  }
  return false;
}

std::optional<std::string> FileOf(absl::string_view text, RecordFile::Format format) {
  if (format == RecordFile::Format::kCsv) return FirstCell(std::string(text));
  if (format == RecordFile::Format::kJson) absl::ConsumeSuffix(&text, ",");
  const Json record = Json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!record.is_object() || !record.contains("file") || !record["file"].is_string()) {
    return std::nullopt;
  }
  return record["file"].get<std::string>();
}

}  // namespace

absl::StatusOr<std::unique_ptr<RecordFile>> RecordFile::Open(Options options) {
  std::unique_ptr<RecordFile> file(new RecordFile(std::move(options)));
  const Options& o = file->options_;
  const bool to_stdout = o.path == "-";
  std::error_code ignored;
  const bool exists = !to_stdout && std::filesystem::exists(o.path, ignored);
  if (o.resumes && to_stdout) return absl::InvalidArgumentError("stdout can't be resumed");
  if (exists && !o.resumes && !o.overwrites) {
    return absl::InvalidArgumentError(absl::StrCat(
        "'", o.path, "' is there already; go on with --resume, or replace it with --overwrite"));
  }
  if (exists && o.resumes) {
    if (absl::Status status = file->Resume(); !status.ok()) return status;
  }
  file->file_ = to_stdout ? stdout : std::fopen(o.path.c_str(), o.resumes ? "ae" : "we");
  if (file->file_ == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("'", o.path, "': ", std::strerror(errno)));
  }
  if (file->has_head_) return file;
  if (absl::Status status = file->Write(file->Head()); !status.ok()) return status;
  return file;
}

RecordFile::~RecordFile() {
  if (file_ == nullptr) return;
  if (options_.format == Format::kJson) Write(empty_ ? "]\n" : "\n]\n").IgnoreError();
  if (file_ != stdout) std::fclose(file_);
}

std::string RecordFile::Head() const {
  if (options_.format == Format::kNdjson) return "";
  if (options_.format == Format::kJson) return "[";
  std::string head = "file,error";
  for (const std::string& output : options_.outputs) absl::StrAppend(&head, ",", Cell(output));
  return head + "\n";
}

absl::Status RecordFile::Resume() {
  std::ifstream in(options_.path, std::ios::binary);
  const bool is_json = options_.format == Format::kJson;
  const auto refusal = [this](int64_t number, absl::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", options_.path, "' can't be resumed: line ", number, " is ", why));
  };
  std::uintmax_t whole = 0;  // Bytes that stay: of an array without the comma or bracket behind.
  std::uintmax_t read = 0;
  std::string text;
  for (int64_t number = 1; ReadRecord(in, options_.format, text); ++number) {
    read += text.size();
    if (number == 1 && options_.format != Format::kNdjson) {
      const std::string head = is_json ? "[\n" : Head();
      if (text == "[]\n" && is_json) return Keep(1);
      if (text != head) return refusal(1, absl::StrCat("not ", head.substr(0, head.size() - 1)));
      whole = is_json ? 1 : read;
      continue;
    }
    if (is_json && text == "]\n") break;
    text.pop_back();
    const std::optional<std::string> file = FileOf(text, options_.format);
    if (!file) return refusal(number, "no record of a file");
    done_.insert(std::hash<std::string>()(*file));
    empty_ = false;
    whole = is_json ? read - 1 - (absl::EndsWith(text, ",") ? 1 : 0) : read;
  }
  return Keep(whole);
}

absl::Status RecordFile::Keep(std::uintmax_t bytes) {
  has_head_ = bytes > 0;
  std::error_code error;
  std::filesystem::resize_file(options_.path, bytes, error);
  if (!error) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("'", options_.path, "': ", error.message()));
}

absl::Status RecordFile::Add(const Json& record) {
  std::string text = options_.format == Format::kCsv ? CsvLine(record) : ToText(record);
  if (options_.format == Format::kJson) {
    text = absl::StrCat(empty_ ? "\n" : ",\n", text);
  } else {
    text += "\n";
  }
  empty_ = false;
  return Write(text);
}

absl::Status RecordFile::Write(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), file_) == text.size() && std::fflush(file_) == 0) {
    return absl::OkStatus();
  }
  return absl::DataLossError(
      absl::StrCat("'", options_.path, "' can't be written: ", std::strerror(errno)));
}

std::string RecordFile::CsvLine(const Json& record) const {
  std::string line = Cell(record["file"].get<std::string>());
  const bool failed = record.contains("error");
  absl::StrAppend(&line, ",",
                  failed ? Cell(absl::StrCat(record["error"]["code"].get<std::string>(), ": ",
                                             record["error"]["message"].get<std::string>()))
                         : "");
  for (const std::string& name : options_.outputs) {
    std::string cell;
    if (!failed) {
      for (const Json& output : record["outputs"]) {
        if (output["name"] != name) continue;
        const auto append = [](std::string* out, const Json& element) {
          *out += element.is_string() ? element.get<std::string>() : ToText(element);
        };
        cell = output.contains("data") ? absl::StrJoin(output["data"], ";", append)
                                       : output["file"].get<std::string>();
      }
    }
    absl::StrAppend(&line, ",", Cell(cell));
  }
  return line;
}

}  // namespace client
}  // namespace millrace
