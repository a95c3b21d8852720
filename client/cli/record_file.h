// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace millrace {
inline namespace client {

// A file that grows by a record for each input file: objects with "file", and "outputs" or "error".
// Whatever interrupts the run, what is there is whole but for the last line. Thread-compatible.
class RecordFile {
 public:
  enum class Format {
    kNdjson,  // An object in each line.
    kJson,    // One array of them.
    kCsv,     // A line each: file, error, then a column for each output, elements with ';' between.
  };

  // Opens `path`, or stdout for "-". Where `resumes`, what is there of an earlier run is kept, its
  // last record is dropped where it isn't whole, and the files of its records are remembered.
  // INVALID_ARGUMENT for what isn't an earlier run's, or a CSV with other columns, and where it
  // exists and isn't to be resumed or overwritten. `outputs` are the CSV's columns.
  struct Options {
    std::string path;
    Format format = Format::kNdjson;
    bool resumes = false;
    bool overwrites = false;
    std::vector<std::string> outputs;
  };
  static absl::StatusOr<std::unique_ptr<RecordFile>> Open(Options options);

  // Completes the file.
  ~RecordFile();

  // Whether an earlier run has a record of the file.
  bool Has(const std::string& file) const { return done_.contains(std::hash<std::string>()(file)); }
  // How many files of an earlier run.
  int64_t resumed() const { return static_cast<int64_t>(done_.size()); }

  // Adds a record, on the disk's way when this returns. An error where it can't be written.
  absl::Status Add(const nlohmann::ordered_json& record);

 private:
  explicit RecordFile(Options options) : options_(std::move(options)) {}
  absl::Status Resume();
  // Cuts the file off after so many bytes.
  absl::Status Keep(std::uintmax_t bytes);
  // What comes before the first record.
  std::string Head() const;
  absl::Status Write(const std::string& text);
  std::string CsvLine(const nlohmann::ordered_json& record) const;

  const Options options_;
  std::FILE* file_ = nullptr;
  bool has_head_ = false;
  bool empty_ = true;  // No record yet.
  // By hash: a million names would take a hundred times as much.
  absl::flat_hash_set<size_t> done_;
};

}  // namespace client
}  // namespace millrace
