// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <filesystem>
#include <istream>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "client/cli/bytes_tensor.h"
#include "client/cli/embedded_server.h"
#include "client/cli/file_list.h"
#include "client/cli/input_spec.h"
#include "client/cli/interrupts.h"
#include "client/cli/progress_bar.h"
#include "client/cli/record_file.h"
#include "client/cli/session.h"
#include "client/cli/standard_input.h"
#include "client/cli/tensor_file.h"
#include "client/cli/tensor_json.h"

namespace millrace {
inline namespace client {
namespace {

using Json = nlohmann::ordered_json;
using Format = RecordFile::Format;

constexpr absl::Duration kLoadTimeout = absl::Minutes(10);
// As many files as a server takes of a stream at most, unless it was told otherwise, so that there
// are enough for full batches on all replicas; of large ones, so many bytes.
constexpr int kWindow = 256;
constexpr size_t kMostBytesUnderWay = 64 << 20;

struct MapOptions {
  std::vector<std::string> sources;
  std::string model;
  std::string version;
  std::string repository;
  std::string input;
  std::vector<std::string> outputs;
  RecordFile::Options records = {
      .path = "-", .format = {}, .resumes = {}, .overwrites = {}, .outputs = {}};
  std::string save_folder;
  int top_k = 0;
  int window = kWindow;
  bool unordered = false;
};

Json ErrorRecord(const std::string& file, const absl::Status& status) {
  return {{"file", file},
          {"error",
           {{"code", absl::StatusCodeToString(status.code())},
            {"message", std::string(status.message())}}}};
}

// A file as the model's input: as an element of BYTES where the model takes these, else a .npy or
// JSON array.
absl::StatusOr<Tensor> ReadAsInput(const std::string& file, const TensorMetadata& input) {
  auto bytes = ReadFile(file);
  if (!bytes.ok()) return bytes.status();
  if (input.datatype == "BYTES") return BytesTensor(input, *bytes);
  auto tensor = ParseTensorFile(file, *bytes, input.datatype);
  if (!tensor.ok()) return tensor.status();
  if (!tensor->has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("the model takes ", DescribeType(input.datatype, input.shape),
                     "; expected a .npy or .json file, or a model that takes pictures"));
  }
  (*tensor)->name = input.name;
  AddRowDimension(input, **tensor);
  return **std::move(tensor);
}

// What becomes of the files, in the order of the records. Thread-safe: one thread sends, the
// stream's delivers.
class Results {
 public:
  Results(const Session& session, const MapOptions& options, RecordFile& records,
          std::optional<int64_t> total)
      : options_(options),
        records_(records),
        start_(absl::Now()),
        progress_(session.err, session.err_is_terminal, "files", total.value_or(0),
                  records.resumed()) {}

  // A file that is sent now, of so many bytes. Blocks while too many of them are under way.
  void Sent(std::string file, size_t bytes) {
    std::unique_lock lock(mutex_);
    answered_.wait(lock, [&] {
      return bytes_under_way_ == 0 || bytes_under_way_ + bytes <= kMostBytesUnderWay;
    });
    bytes_under_way_ += bytes;
    entries_.push_back({std::move(file), absl::Now(), bytes, std::nullopt});
    by_index_[sent_++] = first_ + entries_.size() - 1;
  }

  // A file that can't be sent.
  void Failed(const std::string& file, const absl::Status& status) {
    std::lock_guard lock(mutex_);
    entries_.push_back({file, absl::Now(), 0, ErrorRecord(file, status)});
    ++failed_;
    WriteReady(entries_.back());
  }

  void Answered(const Answer& answer) {
    std::lock_guard lock(mutex_);
    const auto place = by_index_.find(answer.index);
    Entry& entry = entries_[place->second - first_];
    by_index_.erase(place);
    bytes_under_way_ -= entry.bytes;
    answered_.notify_one();
    entry.record = RecordOf(entry, answer);
    WriteReady(entry);
  }

  int64_t written() const {
    std::lock_guard lock(mutex_);
    return written_;
  }
  int64_t failed() const {
    std::lock_guard lock(mutex_);
    return failed_;
  }
  // Files that were sent and have no record: the connection broke, say.
  int64_t unfinished() const {
    std::lock_guard lock(mutex_);
    return unfinished_;
  }
  absl::Status status() const {
    std::lock_guard lock(mutex_);
    return status_;
  }
  void Finish(std::ostream& err) {
    std::lock_guard lock(mutex_);
    progress_.Clear();
    const double seconds = absl::ToDoubleSeconds(absl::Now() - start_);
    err << absl::StrFormat("%d files in %.1f s: %.1f files/s, %d failed", written_, seconds,
                           seconds > 0 ? static_cast<double>(written_) / seconds : 0, failed_);
    if (records_.resumed() > 0) err << absl::StrFormat(", %d from before", records_.resumed());
    if (unfinished_ > 0) err << absl::StrFormat(", %d unfinished", unfinished_);
    err << "\n";
  }

 private:
  struct Entry {
    std::string file;
    absl::Time sent_at;
    size_t bytes;
    std::optional<Json> record;  // Once it is there; null where none is to be written.
  };

  Json RecordOf(const Entry& entry, const Answer& answer) {
    if (!answer.response.ok()) {
      const absl::Status& status = answer.response.status();
      if (absl::IsUnavailable(status) || absl::IsCancelled(status)) {
        ++unfinished_;  // It isn't the file's fault: --resume tries it again.
        return nullptr;
      }
      ++failed_;
      return ErrorRecord(entry.file, status);
    }
    Json record = {{"file", entry.file}, {"outputs", Json::array()}};
    for (const Tensor& output : answer.response->outputs) {
      if (options_.save_folder.empty()) {
        record["outputs"].push_back(ToJson(output));
      } else {
        auto saved = Save(entry.file, output);
        if (!saved.ok()) {
          ++failed_;
          return ErrorRecord(entry.file, saved.status());
        }
        record["outputs"].push_back(*std::move(saved));
      }
    }
    record["ms"] = absl::ToDoubleMilliseconds(absl::Now() - entry.sent_at);
    for (const auto& [name, parameter] : answer.response->parameters) {
      const auto* const number = std::get_if<int64_t>(&parameter);
      absl::string_view key = name;
      if (number == nullptr || !absl::ConsumePrefix(&key, "millrace_")) continue;
      if (key == "batch_size") record["batch_size"] = *number;
      if (absl::EndsWith(key, "_us")) record["timings"][std::string(key)] = *number;
    }
    return record;
  }

  // Files differ in their paths, and so do the names of what is saved of them.
  absl::StatusOr<Json> Save(const std::string& file, const Tensor& output) const {
    const auto escaped = [](const std::string& name) {
      return absl::StrReplaceAll(name, {{"%", "%25"}, {"/", "%2F"}});
    };
    return SaveOutput(output, absl::StrCat(options_.save_folder, "/", escaped(file), ".",
                                           escaped(output.name), ".npy"));
  }

  // Writes the records whose turn it is, now that `entry` has its own.
  void WriteReady(Entry& entry) {
    if (options_.unordered) Write(entry);
    for (; !entries_.empty() && entries_.front().record; ++first_) {
      Write(entries_.front());
      entries_.pop_front();
    }
  }

  void Write(Entry& entry) {
    const Json record = std::exchange(*entry.record, nullptr);
    if (record.is_null() || !status_.ok()) return;
    progress_.Clear();
    status_ = records_.Add(record);
    ++written_;
    const absl::Time now = absl::Now();
    const double seconds = absl::ToDoubleSeconds(now - start_);
    progress_.Show(written_, seconds > 0 ? static_cast<double>(written_) / seconds : 0, now);
  }

  const MapOptions& options_;
  RecordFile& records_;
  mutable std::mutex mutex_;
  std::condition_variable answered_;
  const absl::Time start_;
  ProgressBar progress_;
  std::deque<Entry> entries_;  // Sent or failed, and not written yet.
  size_t first_ = 0;           // The number of the first of them.
  int64_t sent_ = 0;
  size_t bytes_under_way_ = 0;
  std::map<int64_t, size_t> by_index_;  // By the request's place in the stream.
  int64_t written_ = 0;
  int64_t failed_ = 0;
  int64_t unfinished_ = 0;
  absl::Status status_;  // Of writing.
};

absl::StatusOr<TensorMetadata> InputOf(const ModelMetadata& model, const std::string& name) {
  for (const TensorMetadata& input : model.inputs) {
    if (input.name == name || (name.empty() && model.inputs.size() == 1)) return input;
  }
  return absl::InvalidArgumentError(
      name.empty() ? absl::StrCat("model '", model.name, "' has ", model.inputs.size(),
                                  " inputs; a model of one input can be mapped over files")
                   : absl::StrCat("model '", model.name, "' has no input '", name, "'"));
}

// Sends the files until they, or the run, end.
absl::Status SendFiles(const MapOptions& options, const TensorMetadata& input,
                       const std::vector<std::string>& outputs, const RecordFile& records,
                       Stream& stream, Results& results) {
  StandardInput standard_input;
  std::istream in(&standard_input);
  FileList files(options.sources, in);
  while (results.status().ok()) {
    auto file = files.Next();
    if (Interrupted()) break;  // Then a path from stdin may be cut off.
    if (!file.ok()) return file.status();
    if (!file->has_value()) break;
    if (records.Has(**file)) continue;
    auto tensor = ReadAsInput(**file, input);
    if (!tensor.ok()) {
      results.Failed(**file, tensor.status());
      continue;
    }
    Request request{.model = options.model,
                    .version = options.version,
                    .id = {},
                    .parameters = {{"millrace_timings", true}},
                    .inputs = {*std::move(tensor)},
                    .outputs = outputs,
                    .classes = options.top_k};
    results.Sent(**file, request.inputs[0].data.size());
    // When the stream has ended its status comes from Close().
    if (!stream.Send(std::move(request)).ok()) break;
  }
  return results.status();
}

int Run(Session& session, const MapOptions& options) {
  ListenForInterrupts();
  std::unique_ptr<EmbeddedServer> server;
  if (!options.repository.empty()) {
    auto started = EmbeddedServer::Start(options.repository, kLoadTimeout);
    if (absl::IsCancelled(started.status())) return kInterrupted;
    if (!started.ok()) return session.Fail(started.status());
    server = *std::move(started);
    session.url = server->address();
  }
  const auto client = session.Connect();
  if (absl::IsInvalidArgument(client.status())) return session.Fail(client.status(), kBadArguments);
  if (!client.ok()) return session.Fail(client.status());
  const auto metadata = (*client)->DescribeModel(options.model, options.version);
  if (!metadata.ok()) return session.Fail(metadata.status());
  const auto input = InputOf(*metadata, options.input);
  if (!input.ok()) return session.Fail(input.status(), kBadArguments);
  std::vector<std::string> outputs = options.outputs;
  if (outputs.empty()) {
    for (const TensorMetadata& output : metadata->outputs) outputs.push_back(output.name);
  }
  RecordFile::Options record_options = options.records;
  record_options.outputs = outputs;
  const auto records = RecordFile::Open(std::move(record_options));
  if (!records.ok()) return session.Fail(records.status(), kBadArguments);
  if (!options.save_folder.empty()) {
    std::error_code ignored;
    std::filesystem::create_directories(options.save_folder, ignored);
  }

  Results results(session, options, **records, CountFiles(options.sources));
  const auto stream = (*client)->OpenStream(
      {.window = options.window,
       .order =
           options.unordered ? StreamOptions::Order::kCompletion : StreamOptions::Order::kRequest,
       .on_answer = [&results](const Answer& answer) { results.Answered(answer); }});
  const absl::Status sent = SendFiles(options, *input, outputs, **records, *stream, results);
  const absl::Status ended = stream->Close();
  results.Finish(session.err);
  if (!sent.ok()) return session.Fail(sent, kBadArguments);
  if (!results.status().ok()) return session.Fail(results.status(), kBadArguments);
  if (Interrupted()) return kInterrupted;
  if (!ended.ok()) return session.Fail(ended);
  return results.failed() + results.unfinished() == 0 ? kSuccess : kCallFailed;
}

}  // namespace

void AddMapCommand(Session& session) {
  const auto options = std::make_shared<MapOptions>();
  CLI::App* command = session.AddCommand(
      "map", "Run a model over many files; writes a record for each, in their order",
      "  millrace map 'images/**/*.jpg' --model detector --output results.jsonl\n"
      "  millrace map images --model classifier --top-k 5 --output results.csv --format csv\n"
      "  find . -name '*.png' | millrace map - --model detector --output results.jsonl --resume\n"
      "  millrace map @files.txt --repository models --model detector --save tensors\n\n"
      "A source is a file, a folder, a pattern in quotes, @FILE with a path on each line, or - "
      "for\n"
      "such a list on stdin. A model whose input is BYTES gets the files themselves, others .npy "
      "or\n"
      ".json arrays. A file that fails is a record with an error, and the run goes on. The exit "
      "code\n"
      "is 0 when none failed, 3 when some did, 130 after an interrupt, which leaves a whole file.");
  command->add_option("sources", options->sources, "Files, folders, patterns, @FILE or -")
      ->required();
  command->add_option("-m,--model", options->model, "The model's name")->required();
  command->add_option("--model-version", options->version, "Default: the newest one ready");
  command
      ->add_option("--repository", options->repository,
                   "Serve this model repository for the run, instead of asking a server")
      ->check(CLI::ExistingDirectory);
  command->add_option("--input", options->input, "The model's input; default: its only one");
  command->add_option("-o,--output", options->records.path,
                      "Where the records go; default: stdout");
  command->add_option("--format", options->records.format, "ndjson, json or csv; default: ndjson")
      ->transform(CLI::CheckedTransformer(std::map<std::string, Format>{
          {"ndjson", Format::kNdjson}, {"json", Format::kJson}, {"csv", Format::kCsv}}));
  command->add_flag("--resume", options->records.resumes,
                    "Go on with the output of an interrupted run: what has a record is left out");
  command->add_flag("--overwrite", options->records.overwrites, "Replace the output");
  command->add_flag("--unordered", options->unordered, "Write records as answers come");
  command->add_option("--want", options->outputs, "An output of the model; default: all")
      ->take_all()
      ->allow_extra_args(false);
  command->add_option("--top-k", options->top_k, "Of each output only its k best classes")
      ->check(CLI::PositiveNumber);
  command->add_option("--save", options->save_folder,
                      "Save outputs in this folder as .npy files, and only their names in records");
  command
      ->add_option("--window", options->window,
                   "Files under way; default: as many as the server takes, of at most 64 MiB")
      ->check(CLI::PositiveNumber);
  command->callback([&session, options] { session.exit_code = Run(session, *options); });
}

}  // namespace client
}  // namespace millrace
