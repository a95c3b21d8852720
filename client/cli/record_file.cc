// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/record_file.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
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

// The first cell of a line that Cell() wrote; nothing where it isn't whole. Names with line ends
// stand on several lines, and aren't resumed.
std::optional<std::string> FirstCell(const std::string& line) {
  if (line.empty() || line[0] != '"') return line.substr(0, line.find(','));
  std::string cell;
  for (size_t at = 1; at < line.size(); ++at) {
    if (line[at] != '"') {
      cell += line[at];
    } else if (at + 1 < line.size() && line[at + 1] == '"') {
      cell += line[++at];
    } else {
      return cell;
    }
  }
  return std::nullopt;
}

std::optional<std::string> FileOf(const std::string& line, RecordFile::Format format) {
  if (format == RecordFile::Format::kCsv) return FirstCell(line);
  const Json record = Json::parse(line, nullptr, /*allow_exceptions=*/false);
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
  if (o.resumes && (to_stdout || o.format == Format::kJson)) {
    return absl::InvalidArgumentError(
        "only a file of JSON lines or CSV can be resumed, not stdout or a JSON array");
  }
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
  std::string head = o.format == Format::kJson ? "[" : "";
  if (o.format == Format::kCsv && file->empty_) {
    head = "file,error";
    for (const std::string& output : o.outputs) absl::StrAppend(&head, ",", Cell(output));
    head += "\n";
  }
  if (absl::Status status = file->Write(head); !status.ok()) return status;
  return file;
}

RecordFile::~RecordFile() {
  if (file_ == nullptr) return;
  if (options_.format == Format::kJson) Write(empty_ ? "]\n" : "\n]\n").IgnoreError();
  if (file_ != stdout) std::fclose(file_);
}

absl::Status RecordFile::Resume() {
  std::ifstream in(options_.path, std::ios::binary);
  std::uintmax_t whole = 0;
  std::string line;
  for (int64_t number = 1; std::getline(in, line) && !in.eof(); ++number) {
    whole += line.size() + 1;
    empty_ = false;
    if (number == 1 && options_.format == Format::kCsv) continue;
    const std::optional<std::string> file = FileOf(line, options_.format);
    if (!file) {
      return absl::InvalidArgumentError(absl::StrCat(
          "'", options_.path, "' can't be resumed: line ", number, " is no record of a file"));
    }
    done_.insert(std::hash<std::string>()(*file));
  }
  std::error_code error;
  std::filesystem::resize_file(options_.path, whole, error);
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
