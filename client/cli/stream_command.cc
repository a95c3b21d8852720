// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "client/cli/annotator.h"
#include "client/cli/detections.h"
#include "client/cli/frame_input.h"
#include "client/cli/frame_log.h"
#include "client/cli/interrupts.h"
#include "client/cli/session.h"
#include "client/cli/source_stream.h"
#include "client/video/source_address.h"

namespace millrace {
inline namespace client {
namespace {

using Overflow = StreamOptions::Overflow;
using Order = StreamOptions::Order;

struct StreamCommandOptions {
  std::vector<std::string> sources;
  SourceStreamOptions streams;
  double max_age_seconds = 0;  // 0: any
  double most_wait_seconds = 10;
  std::optional<FrameEncoding> encoding;
  bool bgr = false;
  bool json = false;
  Annotator::Options annotations;
  std::string labels;
};

// Whether anything is to be drawn.
bool Annotates(const StreamCommandOptions& options) {
  return !options.annotations.video.empty() || !options.annotations.sheet.empty();
}

// The name of a source's own file: of several, people.mp4 becomes people-0.mp4, people-1.mp4, …
std::string FileOf(const std::string& name, size_t source, size_t sources) {
  if (name.empty() || sources == 1) return name;
  std::filesystem::path path(name);
  return path.replace_filename(
      absl::StrCat(path.stem().string(), "-", source, path.extension().string()));
}

absl::Status CheckSources(const std::vector<SourceAddress>& sources) {
  int stdins = 0;
  for (const SourceAddress& source : sources) stdins += source.kind == SourceAddress::Kind::kStdin;
  if (stdins <= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("stdin was given ", stdins, " times"));
}

absl::Status PrepareAnnotations(const ModelMetadata& model,
                                const std::vector<SourceAddress>& sources,
                                StreamCommandOptions& options) {
  if (!Annotates(options)) return absl::OkStatus();
  if (options.streams.stream.order == Order::kCompletion) {
    return absl::InvalidArgumentError(
        "frames are drawn on in their order: not with --order completion");
  }
  Annotator::Options& annotations = options.annotations;
  if (!options.labels.empty()) {
    std::ifstream file(options.labels);
    for (std::string line; std::getline(file, line);) annotations.format.labels.push_back(line);
  }
  if (absl::Status status = Annotator::CheckNames(annotations); !status.ok()) return status;
  for (size_t i = 0; i < sources.size(); ++i) {
    const std::string file = FileOf(annotations.video, i, sources.size());
    std::error_code not_both_there;
    if (!std::filesystem::equivalent(sources[i].name, file, not_both_there)) continue;
    return absl::InvalidArgumentError(absl::StrCat("'", file, "' is a source: it isn't written"));
  }
  return CompleteFormat(model, options.streams.outputs, annotations.format);
}

// Starts the streams that there are, and returns when all have ended.
void StreamAll(Client& client, const StreamCommandOptions& options,
               const std::vector<std::unique_ptr<SourceStream>>& streams, FrameLog& log,
               sem_t& wake) {
  for (size_t i = 0; i < streams.size(); ++i) {
    if (streams[i] == nullptr) continue;
    std::unique_ptr<Annotator> annotator;
    if (Annotates(options)) {
      Annotator::Options annotations = options.annotations;
      annotations.video = FileOf(annotations.video, i, streams.size());
      annotations.sheet = FileOf(annotations.sheet, i, streams.size());
      annotations.frames_per_second = streams[i]->frames_per_second();
      annotator = std::make_unique<Annotator>(std::move(annotations));
    }
    streams[i]->Start(client, log, std::move(annotator), [&wake] { sem_post(&wake); });
  }
  const auto all_ended = [&] {
    return std::all_of(streams.begin(), streams.end(),
                       [](const auto& stream) { return stream == nullptr || stream->ended(); });
  };
  while (!all_ended()) {
    for (const auto& stream : streams) {
      if (Interrupted() && stream != nullptr) stream->Stop();
    }
    sem_wait(&wake);  // For an end, or an interrupt.
  }
}

// Streams the sources through the model; what isn't right of the arguments was told by then.
int StreamSources(const Session& session, Client& client, const StreamCommandOptions& options,
                  const std::vector<SourceAddress>& sources, const FrameInput& input) {
  sem_t wake;
  sem_init(&wake, 0, 0);
  ListenForInterrupts(&wake);
  int code = kSuccess;
  const auto fail = [&](const SourceAddress& source, const absl::Status& status, int as) {
    const std::string name = sources.size() > 1 ? absl::StrCat(source.label, ": ") : "";
    session.Fail(absl::Status(status.code(), absl::StrCat(name, status.message())), kCallFailed);
    if (code == kSuccess) code = as;
  };
  std::vector<std::string> names;
  std::vector<std::unique_ptr<SourceStream>> streams;
  int64_t total = 0;  // Of frames; 0 where a source doesn't know its own.
  bool total_is_known = true;
  for (const SourceAddress& source : sources) {
    names.push_back(source.label);
    auto stream =
        SourceStream::Open(static_cast<int>(streams.size()), source, options.streams, input);
    if (absl::IsCancelled(stream.status())) break;  // Interrupted.
    if (!stream.ok()) fail(source, stream.status(), kBadArguments);
    streams.push_back(stream.ok() ? *std::move(stream) : nullptr);
    if (streams.back() == nullptr) continue;
    const int64_t frames = streams.back()->FramesToCome();
    total += frames;
    total_is_known &= frames > 0;
  }
  FrameLog log(session, options.json, std::move(names), total_is_known ? total : 0);
  StreamAll(client, options, streams, log, wake);
  log.FinishAll();
  for (size_t i = 0; i < streams.size(); ++i) {
    if (streams[i] == nullptr) continue;
    const absl::Status& ended = streams[i]->stream_status();
    if (!ended.ok()) {
      fail(sources[i], ended, absl::IsUnavailable(ended) ? kCannotConnect : kCallFailed);
    }
    const absl::Status& read = streams[i]->source_status();
    if (!read.ok()) fail(sources[i], read, kBadArguments);
  }
  streams.clear();  // Who posts `wake` has gone, but for a signal.
  WakeNobody();
  sem_destroy(&wake);
  if (code == kSuccess && log.errors() > 0) code = kCallFailed;
  return Interrupted() && (code == kSuccess || code == kCallFailed) ? kInterrupted : code;
}

int Run(const Session& session, StreamCommandOptions& options) {
  const std::vector<SourceAddress> sources(options.sources.begin(), options.sources.end());
  if (absl::Status status = CheckSources(sources); !status.ok()) {
    return session.Fail(status, kBadArguments);
  }
  const auto client = session.Connect();
  if (absl::IsInvalidArgument(client.status())) return session.Fail(client.status(), kBadArguments);
  if (!client.ok()) return session.Fail(client.status());
  const auto metadata = (*client)->DescribeModel(options.streams.model, options.streams.version);
  if (!metadata.ok()) return session.Fail(metadata.status());
  const auto input = FrameInput::Find(*metadata, options.encoding, options.bgr);
  if (!input.ok()) return session.Fail(input.status(), kBadArguments);
  if (absl::Status status = PrepareAnnotations(*metadata, sources, options); !status.ok()) {
    return session.Fail(status, kBadArguments);
  }
  return StreamSources(session, **client, options, sources, *input);
}

// An option whose text `parse` reads; an error of it is one of the command line.
template <typename Parse>
CLI::Option* AddParsed(CLI::App& command, const std::string& name, const std::string& description,
                       Parse parse) {
  return command.add_option_function<std::string>(
      name,
      [parse, name](const std::string& text) {
        if (const absl::Status status = parse(text); !status.ok()) {
          throw CLI::ValidationError(name, std::string(status.message()));
        }
      },
      description);
}

void AddSourceOptions(CLI::App& command, StreamCommandOptions& options) {
  SourceStreamOptions& streams = options.streams;
  command.add_option("--start", streams.start, "The first frame of files to send")
      ->check(CLI::NonNegativeNumber);
  command.add_option("--frames", streams.frames, "How many frames of each source; default: all")
      ->check(CLI::PositiveNumber);
  command.add_option("--fps", streams.fps, "Send at most so many frames a second")
      ->check(CLI::PositiveNumber);
  command.add_flag("--realtime", streams.realtime,
                   "Send files as they would be played, not as fast as they are answered");
  command
      .add_option("--reconnect-max", options.most_wait_seconds,
                  "The longest wait in seconds before a live source is connected again")
      ->capture_default_str()
      ->check(CLI::Range(0.01, 1e6));
  command.add_flag("!--no-reconnect", streams.reconnects,
                   "End with a live source's first connection");
  command
      .add_option("--rtsp-transport", streams.capture.rtsp_transport,
                  "tcp or udp; default: tcp, or udp where the server asks for it")
      ->check(CLI::IsMember({"tcp", "udp"}));
  AddParsed(command, "--input-size", "WxH of raw frames on stdin, or asked of a camera",
            [&streams](const std::string& text) -> absl::Status {
              const std::pair<std::string, std::string> sides =
                  absl::StrSplit(text, absl::MaxSplits('x', 1));
              CaptureFormat& capture = streams.capture;
              if (absl::SimpleAtoi(sides.first, &capture.width) && capture.width > 0 &&
                  absl::SimpleAtoi(sides.second, &capture.height) && capture.height > 0) {
                return absl::OkStatus();
              }
              return absl::InvalidArgumentError(absl::StrCat("'", text, "' is no WIDTHxHEIGHT"));
            });
  command.add_option("--input-format", streams.capture.pixels,
                     "Theirs: rgb24, bgr24, gray8, nv12, yuv420p; of a camera e.g. mjpeg");
  command
      .add_option("--input-fps", streams.capture.frames_per_second,
                  "Theirs a second; default: 25, or as the camera likes")
      ->check(CLI::PositiveNumber);
  AddParsed(command, "--send",
            "raw, jpeg or jpeg:QUALITY; default: as the model takes them, or jpeg:85",
            [&options](const std::string& text) {
              auto encoding = ParseFrameEncoding(text);
              if (encoding.ok()) options.encoding = *encoding;
              return encoding.status();
            });
  command.add_flag("--bgr", options.bgr, "Send pixels as blue, green, red");
}

void AddStreamOptions(CLI::App& command, StreamCommandOptions& options) {
  StreamOptions& stream = options.streams.stream;
  command.add_option("--window", stream.window, "Frames under way of each source; default: 32")
      ->check(CLI::PositiveNumber);
  command
      .add_option("--overflow", stream.overflow,
                  "What becomes of a frame that finds no room; default: latest for live sources, "
                  "else as the model's config says")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, Overflow>{{"block", Overflow::kBlock},
                                          {"reject", Overflow::kReject},
                                          {"drop-oldest", Overflow::kDropOldest},
                                          {"latest", Overflow::kLatest}}));
  command.add_option("--order", stream.order, "The order of the answers; default: request")
      ->transform(CLI::CheckedTransformer(std::map<std::string, Order>{
          {"request", Order::kRequest}, {"completion", Order::kCompletion}}));
  command
      .add_option("--weight", stream.weight,
                  "Each stream's share of the server, 1 to 100; default: 1")
      ->check(CLI::Range(1, 100));
  command
      .add_option("--max-age", options.max_age_seconds,
                  "Seconds after which a frame is dropped that has not begun to run")
      ->check(CLI::Range(0.000001, 1e9));
}

void AddAnnotationOptions(CLI::App& command, StreamCommandOptions& options) {
  Annotator::Options& annotations = options.annotations;
  DetectionFormat& format = annotations.format;
  command.add_option("--annotate", annotations.video,
                     "Write a video with what was found: .mp4, .mkv or .avi");
  command.add_option("--contact-sheet", annotations.sheet,
                     "Write a grid of such frames, from all over the run: .png or .jpg");
  command.add_option("--sheet-frames", annotations.sheet_pictures, "How many")
      ->capture_default_str()
      ->check(CLI::Range(1, 400));
  AddParsed(command, "--boxes",
            "OUTPUT[:xyxy|xywh|cxcywh][,normalized]: the output with boxes; default: boxes:xyxy",
            [&format](const std::string& text) { return ParseBoxes(text, format); });
  command.add_option("--scores", format.scores, "The output with their scores; default: scores");
  command.add_option("--classes", format.classes, "With their classes; default: classes");
  command.add_option("--count", format.count, "With how many they are; default: count");
  command
      .add_option("--labels", options.labels, "A file with the classes' names, one on each line")
      ->check(CLI::ExistingFile);
  command.add_option("--threshold", format.threshold, "Draw no boxes of a lower score; default: 0");
}

}  // namespace

void AddStreamCommand(Session& session) {
  const auto options = std::make_shared<StreamCommandOptions>();
  CLI::App* command = session.AddCommand(
      "stream",
      "Stream videos and cameras through a model; prints one line per frame, as answers come",
      "  millrace stream people.avi --model detector\n"
      "  millrace stream people.avi --model detector --start 100 --frames 50 --fps 10\n"
      "  millrace stream 'frames/*.jpg' --model detector --json > detections.jsonl\n"
      "  millrace stream north.mp4 south.mp4 --model detector --send jpeg:85 --window 64\n"
      "  millrace stream rtsp://camera/live /dev/video0 --model detector --json\n"
      "  millrace stream people.avi --model detector --annotate found.mp4 --threshold 0.6\n"
      "  ffmpeg -i talk.mp4 -f rawvideo -pix_fmt rgb24 - | millrace stream - --model detector \\\n"
      "      --input-size 640x360 --input-format rgb24\n\n"
      "A source is a video, a picture, a folder, a pattern in quotes, a numbered sequence\n"
      "(frame%04d.png), a URL (rtsp://, http://), a camera (/dev/video0) or - for stdin; each has\n"
      "a stream of its own. Frames go to the model's first input: UINT8 [height,width,3], to "
      "whose\n"
      "size they are scaled, or BYTES. URLs and cameras are live: only their newest frame waits,\n"
      "and they are connected again when they break off. Lines go to stdout; the progress and\n"
      "the summary go to stderr. An interrupt ends the run in good order, a second\n"
      "one at once.");
  command->add_option("sources", options->sources, "Videos, pictures, URLs, cameras or -")
      ->required();
  command->add_option("-m,--model", options->streams.model, "The model's name")->required();
  command->add_option("--model-version", options->streams.version, "Default: the newest one ready");
  command->add_option("-o,--output", options->streams.outputs, "An output wanted; default: all")
      ->take_all()
      ->allow_extra_args(false);
  command->add_flag("--json", options->json, "Print JSON lines, with all elements of the outputs");
  AddSourceOptions(*command, *options);
  AddStreamOptions(*command, *options);
  AddAnnotationOptions(*command, *options);
  command->callback([&session, options] {
    if (options->max_age_seconds > 0) {
      options->streams.stream.max_age = absl::Seconds(options->max_age_seconds);
    }
    options->streams.most_wait = absl::Seconds(options->most_wait_seconds);
    session.exit_code = Run(session, *options);
  });
}

}  // namespace client
}  // namespace millrace
