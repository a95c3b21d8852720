// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/cli/progress_bar.h"
#include "client/cli/session.h"
#include "client/cli/tensor_json.h"
#include "client/video/video_reader.h"

namespace millrace {
inline namespace client {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kValuesPerOutput = 4;  // shown in a human-readable line

struct StreamCommandOptions {
  std::string video;
  std::string model;
  std::string version;
  std::vector<std::string> outputs;
  int window = 0;
  int weight = 0;
  std::optional<StreamOptions::Overflow> overflow;
  StreamOptions::Order order = StreamOptions::Order::kRequest;
  double max_age_seconds = 0;  // 0: any
  int64_t start = 0;
  int64_t frames = 0;
  double fps = 0;
  bool bgr = false;
  bool json = false;
};

// How a model takes pictures: its first input, of UINT8 [height, width, 3], perhaps in rows.
struct FrameInput {
  std::string name;
  bool batches = false;
  int height = 0;  // 0: the model takes any
  int width = 0;
};

absl::StatusOr<FrameInput> FindFrameInput(const ModelMetadata& model) {
  if (!model.inputs.empty()) {
    const TensorMetadata& input = model.inputs[0];
    const bool batches = input.shape.size() == 4 && input.shape[0] == -1;
    const std::vector<int64_t> dims(input.shape.begin() + (batches ? 1 : 0), input.shape.end());
    if (input.datatype == "UINT8" && dims.size() == 3 && dims[2] == 3) {
      return FrameInput{input.name, batches, static_cast<int>(std::max<int64_t>(dims[0], 0)),
                        static_cast<int>(std::max<int64_t>(dims[1], 0))};
    }
  }
  const std::string first = model.inputs.empty()
                                ? "nothing"
                                : DescribeType(model.inputs[0].datatype, model.inputs[0].shape);
  return absl::InvalidArgumentError(
      absl::StrCat("model '", model.name, "' takes ", first,
                   " first; streaming a video needs pictures: UINT8 [height,width,3]"));
}

Request ToRequest(VideoFrame frame, const FrameInput& input, const StreamCommandOptions& options) {
  Tensor tensor{input.name, "UINT8", {frame.height, frame.width, 3}, std::move(frame.pixels)};
  if (input.batches) tensor.shape.insert(tensor.shape.begin(), 1);
  return {.model = options.model,
          .version = options.version,
          .id = absl::StrCat(frame.index),
          .inputs = {std::move(tensor)},
          .outputs = options.outputs};
}

// What was sent and not yet answered.
struct SentFrame {
  int64_t index;
  absl::Duration timestamp;
  absl::Time sent_at;
};

std::string HumanLine(const SentFrame& frame, absl::Duration latency, const Answer& answer) {
  std::string line =
      absl::StrFormat("frame %5d  %8.3f s  %7.1f ms  ", frame.index,
                      absl::ToDoubleSeconds(frame.timestamp), absl::ToDoubleMilliseconds(latency));
  if (!answer.response.ok()) return absl::StrCat(line, answer.response.status().ToString());
  for (const Tensor& output : answer.response->outputs) {
    const Json elements = ElementsToJson(output);
    absl::StrAppend(&line, output.name, " ", DescribeType(output.datatype, output.shape), ":");
    for (size_t i = 0; i < std::min(elements.size(), kValuesPerOutput); ++i) {
      absl::StrAppend(&line, " ",
                      elements[i].is_number_float()
                          ? absl::StrFormat("%.4g", elements[i].get<double>())
                          : elements[i].dump());
    }
    absl::StrAppend(&line, elements.size() > kValuesPerOutput ? " ...  " : "  ");
  }
  return line.substr(0, line.find_last_not_of(' ') + 1);
}

std::string JsonLine(const SentFrame& frame, absl::Duration latency, const Answer& answer) {
  Json json = {{"frame", frame.index},
               {"time", absl::ToDoubleSeconds(frame.timestamp)},
               {"latency_ms", absl::ToDoubleMilliseconds(latency)}};
  if (answer.response.ok()) {
    json["outputs"] = Json::array();
    for (const Tensor& output : answer.response->outputs) json["outputs"].push_back(ToJson(output));
  } else {
    const absl::Status status = answer.response.status();
    json["error"] = {{"code", absl::StatusCodeToString(status.code())},
                     {"message", std::string(status.message())}};
  }
  return json.dump();
}

// Prints the answers as they come, and counts them. Thread-safe: one thread sends, the stream's
// delivers.
class FrameLog {
 public:
  FrameLog(const Session& session, bool json, int64_t total)
      : session_(session),
        json_(json),
        progress_(session.err, session.err_is_terminal, "frames", total) {}

  void Sent(const VideoFrame& frame) {
    std::lock_guard lock(mutex_);
    const absl::Time now = absl::Now();
    start_ = std::min(start_, now);
    under_way_.emplace(sent_++, SentFrame{frame.index, frame.timestamp, now});
  }

  void Answered(const Answer& answer) {
    std::lock_guard lock(mutex_);
    const auto sent = under_way_.find(answer.index);
    const SentFrame frame = sent->second;
    under_way_.erase(sent);
    const absl::Time now = absl::Now();
    const absl::Duration latency = now - frame.sent_at;
    latencies_.push_back(latency);
    errors_ += answer.response.ok() ? 0 : 1;
    progress_.Clear();
    session_.out << (json_ ? JsonLine(frame, latency, answer) : HumanLine(frame, latency, answer))
                 << "\n"
                 << std::flush;
    progress_.Show(static_cast<int64_t>(latencies_.size()), FramesPerSecond(now), now);
  }

  // Prints the summary; call after the last answer. Returns the number of errors.
  int64_t Finish() {
    std::lock_guard lock(mutex_);
    progress_.Clear();
    const absl::Time now = std::max(absl::Now(), start_);
    std::sort(latencies_.begin(), latencies_.end());
    session_.err << absl::StrFormat(
        "%d frames in %.1f s: %.1f frames/s, latency p50 %.1f ms, p99 %.1f ms, %d errors\n",
        latencies_.size(), latencies_.empty() ? 0.0 : absl::ToDoubleSeconds(now - start_),
        FramesPerSecond(now), Percentile(0.50), Percentile(0.99), errors_);
    return errors_;
  }

 private:
  double FramesPerSecond(absl::Time now) const {
    if (latencies_.empty() || now <= start_) return 0;
    return static_cast<double>(latencies_.size()) / absl::ToDoubleSeconds(now - start_);
  }

  // In milliseconds, of the sorted latencies.
  double Percentile(double fraction) const {
    if (latencies_.empty()) return 0;
    const size_t rank = static_cast<size_t>(fraction * static_cast<double>(latencies_.size()));
    return absl::ToDoubleMilliseconds(latencies_[std::min(rank, latencies_.size() - 1)]);
  }

  const Session& session_;
  const bool json_;
  std::mutex mutex_;
  absl::Time start_ = absl::InfiniteFuture();  // when the first frame was sent
  ProgressBar progress_;
  int64_t sent_ = 0;
  std::map<int64_t, SentFrame> under_way_;  // by the request's place in the stream
  std::vector<absl::Duration> latencies_;
  int64_t errors_ = 0;
};

// Sends the frames, at most `fps` a second, until the video, the limit or the stream ends.
absl::Status SendFrames(VideoReader& reader, const FrameInput& input,
                        const StreamCommandOptions& options, Stream& stream, FrameLog& log) {
  const absl::Time start = absl::Now();
  for (int64_t sent = 0; options.frames == 0 || sent < options.frames; ++sent) {
    auto frame = reader.Next();
    if (!frame.ok()) return frame.status();
    if (!frame->has_value()) return absl::OkStatus();
    if (options.fps > 0) {
      const absl::Duration due = absl::Seconds(static_cast<double>(sent) / options.fps);
      absl::SleepFor(start + due - absl::Now());
    }
    log.Sent(**frame);
    // When the stream has ended its status comes from Close().
    if (!stream.Send(ToRequest(**std::move(frame), input, options)).ok()) return absl::OkStatus();
  }
  return absl::OkStatus();
}

int64_t FramesToCome(const VideoReader& reader, const StreamCommandOptions& options) {
  const int64_t left = std::max<int64_t>(reader.frame_count() - options.start, 0);
  return options.frames > 0 && (left == 0 || options.frames < left) ? options.frames : left;
}

int Run(const Session& session, const StreamCommandOptions& options) {
  const auto client = session.Connect();
  if (absl::IsInvalidArgument(client.status())) return session.Fail(client.status(), kBadArguments);
  if (!client.ok()) return session.Fail(client.status());
  const auto metadata = (*client)->DescribeModel(options.model, options.version);
  if (!metadata.ok()) return session.Fail(metadata.status());
  const auto input = FindFrameInput(*metadata);
  if (!input.ok()) return session.Fail(input.status(), kBadArguments);
  using PixelFormat = VideoReaderOptions::PixelFormat;
  const auto reader = VideoReader::Open(
      options.video, {.width = input->width,
                      .height = input->height,
                      .format = options.bgr ? PixelFormat::kBgr24 : PixelFormat::kRgb24,
                      .start_frame = options.start});
  if (!reader.ok()) return session.Fail(reader.status(), kBadArguments);

  FrameLog log(session, options.json, FramesToCome(**reader, options));
  const absl::Duration max_age = options.max_age_seconds > 0
                                     ? absl::Seconds(options.max_age_seconds)
                                     : absl::InfiniteDuration();
  const auto stream =
      (*client)->OpenStream({.window = options.window,
                             .overflow = options.overflow,
                             .order = options.order,
                             .weight = options.weight,
                             .max_age = max_age,
                             .on_answer = [&log](const Answer& answer) { log.Answered(answer); }});
  const absl::Status read = SendFrames(**reader, *input, options, *stream, log);
  const absl::Status ended = stream->Close();
  const int64_t errors = log.Finish();
  if (!ended.ok()) return session.Fail(ended);
  if (!read.ok()) return session.Fail(read, kBadArguments);
  return errors == 0 ? kSuccess : kCallFailed;
}

}  // namespace

void AddStreamCommand(Session& session) {
  const auto options = std::make_shared<StreamCommandOptions>();
  CLI::App* command = session.AddCommand(
      "stream", "Stream a video through a model; prints one line per frame, as answers come",
      "  millrace stream people.avi --model detector\n"
      "  millrace stream people.avi --model detector --start 100 --frames 50 --fps 10\n"
      "  millrace stream 'frames/*.jpg' --model detector --json > detections.jsonl\n"
      "  millrace stream frame%04d.png --model detector --window 64 --output count\n"
      "  millrace stream camera.mp4 --model detector --fps 30 --overflow latest\n\n"
      "Each frame is scaled to the model's first input, UINT8 [height,width,3]. Lines go to\n"
      "stdout; the progress, on a terminal, and the summary go to stderr.");
  command
      ->add_option("video", options->video,
                   "A video, a picture, a folder, a pattern in quotes or a numbered sequence")
      ->required();
  command->add_option("-m,--model", options->model, "The model's name")->required();
  command->add_option("--model-version", options->version, "Default: the newest one ready");
  command->add_option("-o,--output", options->outputs, "An output wanted; default: all")
      ->take_all()
      ->allow_extra_args(false);
  command->add_option("--window", options->window, "Frames under way; default: 32")
      ->check(CLI::PositiveNumber);
  using Overflow = StreamOptions::Overflow;
  command
      ->add_option(
          "--overflow", options->overflow,
          "What becomes of a frame that finds no room; default: as the model's config says")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, Overflow>{{"block", Overflow::kBlock},
                                          {"reject", Overflow::kReject},
                                          {"drop-oldest", Overflow::kDropOldest},
                                          {"latest", Overflow::kLatest}}));
  using Order = StreamOptions::Order;
  command->add_option("--order", options->order, "The order of the answers; default: request")
      ->transform(CLI::CheckedTransformer(std::map<std::string, Order>{
          {"request", Order::kRequest}, {"completion", Order::kCompletion}}));
  command
      ->add_option("--weight", options->weight,
                   "The stream's share of the server, 1 to 100; default: 1")
      ->check(CLI::Range(1, 100));
  command
      ->add_option("--max-age", options->max_age_seconds,
                   "Seconds after which a frame is dropped that has not begun to run")
      ->check(CLI::Range(0.000001, 1e9));
  command->add_option("--start", options->start, "The first frame to send")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--frames", options->frames, "How many frames to send; default: all")
      ->check(CLI::PositiveNumber);
  command->add_option("--fps", options->fps, "Send at most so many frames a second")
      ->check(CLI::PositiveNumber);
  command->add_flag("--bgr", options->bgr, "Send the colours as blue, green, red");
  command->add_flag("--json", options->json, "Print JSON lines, with all elements of the outputs");
  command->callback([&session, options] { session.exit_code = Run(session, *options); });
}

}  // namespace client
}  // namespace millrace
