// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/source_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "client/cli/interrupts.h"
#include "client/video/pixel_scaler.h"
#include "client/video/video_reader.h"

namespace millrace {
inline namespace client {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(5);  // With a live source that sends nothing.
constexpr char kFrame[] = "millrace_echo_frame";
constexpr char kPts[] = "millrace_echo_pts";
constexpr char kConnection[] = "millrace_echo_connection";

template <typename T>
std::optional<T> Find(const Parameters& parameters, const char* name) {
  const auto found = parameters.find(name);
  const T* const value = found == parameters.end() ? nullptr : std::get_if<T>(&found->second);
  return value == nullptr ? std::nullopt : std::optional<T>(*value);
}

}  // namespace

absl::StatusOr<std::unique_ptr<SourceStream>> SourceStream::Open(int number, SourceAddress address,
                                                                 const SourceStreamOptions& options,
                                                                 const FrameInput& input) {
  std::unique_ptr<SourceStream> stream(
      new SourceStream(number, std::move(address), options, input));
  if (stream->address_.is_live()) return stream;
  auto reader = VideoReader::Open(stream->address_, {.start_frame = options.start,
                                                     .capture = options.capture,
                                                     .waits = {.stopped = Interrupted}});
  if (!reader.ok()) return reader.status();
  stream->frame_count_ = (*reader)->frame_count();
  stream->frames_per_second_ = (*reader)->frames_per_second();
  stream->source_ = *std::move(reader);
  return stream;
}

SourceStream::SourceStream(int number, SourceAddress address, const SourceStreamOptions& options,
                           const FrameInput& input)
    : number_(number), address_(std::move(address)), options_(options), input_(input) {}

SourceStream::~SourceStream() {
  if (thread_.joinable()) thread_.join();
}

int64_t SourceStream::FramesToCome() const {
  const int64_t left = std::max<int64_t>(frame_count_ - options_.start, 0);
  return options_.frames > 0 && (left == 0 || options_.frames < left) ? options_.frames : left;
}

void SourceStream::Start(Client& client, FrameLog& log, std::unique_ptr<Annotator> annotator,
                         std::function<void()> on_end) {
  log_ = &log;
  annotator_ = std::move(annotator);
  on_end_ = std::move(on_end);
  if (address_.is_live()) {
    auto live = Connect();
    live_ = live.get();
    source_ = std::move(live);
  }
  thread_ = std::thread([this, &client] { Run(client); });
}

std::unique_ptr<LiveSource> SourceStream::Connect() {
  const auto open =
      [this](const std::function<bool()>& stopped) -> absl::StatusOr<std::unique_ptr<FrameSource>> {
    return VideoReader::Open(address_, {.capture = options_.capture,
                                        .waits = {.stopped = stopped, .patience = kPatience}});
  };
  const auto on_lost = [this](const absl::Status& why, absl::Duration wait) {
    log_->Tell(number_,
               absl::StrCat(why.message(), "; connecting again in ",
                            absl::FormatDuration(absl::Trunc(wait, absl::Milliseconds(1)))));
  };
  return std::make_unique<LiveSource>(open, LiveSource::Options{.most_wait = options_.most_wait,
                                                                .reconnects = options_.reconnects,
                                                                .on_lost = on_lost});
}

void SourceStream::Stop() {
  if (!stopped_.HasBeenNotified()) stopped_.Notify();
  if (live_ != nullptr) live_->Stop();
}

void SourceStream::Run(Client& client) {
  StreamOptions options = options_.stream;
  if (live_ != nullptr && !options.overflow) options.overflow = StreamOptions::Overflow::kLatest;
  options.on_answer = [this](Answer answer) { TakeAnswer(std::move(answer)); };
  const auto stream = client.OpenStream(std::move(options));
  source_status_ = SendFrames(*stream);
  if (live_ != nullptr) live_->Stop();
  stream_status_ = stream->Close();
  {
    std::lock_guard lock(mutex_);
    source_status_.Update(annotated_);
  }
  if (annotator_ != nullptr) source_status_.Update(annotator_->Finish());
  std::optional<LiveSource::Counts> counts;
  if (live_ != nullptr) counts = live_->counts();
  log_->Finish(number_, counts);
  ended_.Notify();
  on_end_();
}

// Sends until the source, the limit or the stream ends.
absl::Status SourceStream::SendFrames(Stream& stream) {
  PixelScaler scaler;
  absl::Time due = absl::InfinitePast();    // By --fps.
  absl::Time begin = absl::InfinitePast();  // When the first frame was there, and its timestamp,
  absl::Duration begin_timestamp;           // by --realtime.
  for (int64_t sent = 0; options_.frames == 0 || sent < options_.frames; ++sent) {
    if (options_.fps > 0) {
      if (!WaitUntil(due)) return absl::OkStatus();
      due = std::max(due, absl::Now() - absl::Milliseconds(1)) + absl::Seconds(1 / options_.fps);
    }
    auto next = source_->Next();
    if (stopped_.HasBeenNotified() || absl::IsCancelled(next.status())) return absl::OkStatus();
    if (!next.ok()) return next.status();
    if (!next->has_value()) return absl::OkStatus();
    VideoFrame frame = **std::move(next);
    if (options_.realtime && live_ == nullptr) {
      if (sent == 0) {
        begin = absl::Now();
        begin_timestamp = frame.timestamp;
      }
      if (!WaitUntil(begin + frame.timestamp - begin_timestamp)) return absl::OkStatus();
    }
    const absl::Time ready = absl::Now();
    auto encoded = input_.Encode(frame, scaler);
    if (!encoded.ok()) return encoded.status();
    Request request{.model = options_.model,
                    .version = options_.version,
                    .id = absl::StrCat(frame.index),
                    .parameters = EchoesFor(frame),
                    .outputs = options_.outputs};
    request.parameters.merge(encoded->parameters);
    log_->Sent(number_, encoded->tensor.data.size());
    request.inputs.push_back(std::move(encoded->tensor));
    if (annotator_ == nullptr) frame.picture.reset();
    {
      std::lock_guard lock(mutex_);
      if (!annotated_.ok()) return absl::OkStatus();
      under_way_.emplace(sent_++, Sent{std::move(frame), ready, encoded->width, encoded->height});
    }
    // When the stream has ended its status comes from Close().
    if (!stream.Send(std::move(request)).ok()) return absl::OkStatus();
  }
  return absl::OkStatus();
}

Parameters SourceStream::EchoesFor(const VideoFrame& frame) const {
  Parameters echoes = {{kFrame, frame.index}, {kPts, absl::ToDoubleSeconds(frame.timestamp)}};
  if (live_ != nullptr) echoes[kConnection] = frame.connection;
  return echoes;
}

void SourceStream::TakeAnswer(Answer answer) {
  std::map<int64_t, Sent>::node_type node;
  {
    std::lock_guard lock(mutex_);
    node = under_way_.extract(answer.index);
  }
  const Sent& sent = node.mapped();
  const bool ok = answer.response.ok();
  const Parameters sent_echoes = EchoesFor(sent.frame);
  // An error that isn't the server's own, since the stream ended, brings nothing back.
  const bool stream_ended = !ok && answer.error_parameters.count(kFrame) == 0;
  if (stream_ended && live_ != nullptr) live_->Stop();  // It may be waiting for a frame.
  const Parameters& came = ok             ? answer.response->parameters
                           : stream_ended ? sent_echoes
                                          : answer.error_parameters;
  FrameAnswer frame{.frame = Find<int64_t>(came, kFrame).value_or(-1),
                    .pts = Find<double>(came, kPts).value_or(-1),
                    .connection = Find<int64_t>(came, kConnection),
                    .latency = absl::Now() - sent.at,
                    .response = absl::UnknownError("")};
  for (const auto& [name, value] : sent_echoes) {
    const auto echo = came.find(name);
    if (echo != came.end() && echo->second == value) continue;
    answer.response = absl::InternalError(
        absl::StrCat("the answer to frame ", sent.frame.index, " ",
                     echo == came.end() ? "doesn't bring back " : "brings back another ", name));
    break;
  }
  frame.response = std::move(answer.response);
  log_->Answered(number_, frame);
  if (annotator_ == nullptr || absl::IsAborted(frame.response.status())) return;
  const absl::Status status = annotator_->Add(sent.frame, sent.width, sent.height, frame.response);
  if (!status.ok() && live_ != nullptr) live_->Stop();
  std::lock_guard lock(mutex_);
  annotated_.Update(status);
}

// False when it was stopped meanwhile.
bool SourceStream::WaitUntil(absl::Time due) {
  return !stopped_.WaitForNotificationWithTimeout(due - absl::Now());
}

}  // namespace client
}  // namespace millrace
