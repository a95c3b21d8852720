// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "tests/benchmarks/load_generator.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/async_stream.h"
#include "grpcpp/support/async_unary_call.h"

namespace millrace {
namespace {

constexpr char kUnaryMethod[] = "/inference.GRPCInferenceService/ModelInfer";
constexpr char kStreamMethod[] = "/inference.GRPCInferenceService/ModelStreamInfer";

constexpr absl::Duration kConnectTimeout = absl::Seconds(10);
// For what is under way when the measuring ends.
constexpr absl::Duration kDrainTimeout = absl::Seconds(60);

// The first byte of a ModelStreamInferResponse that carries an error: field 1, error_message.
constexpr uint8_t kErrorField = 0x0a;

bool IsErrorInBand(const grpc::ByteBuffer& answer) {
  std::vector<grpc::Slice> slices;
  return answer.Dump(&slices).ok() && !slices.empty() && slices[0].size() > 0 &&
         *slices[0].begin() == kErrorField;
}

std::string TextOf(const grpc::ByteBuffer& answer) {
  std::vector<grpc::Slice> slices;
  std::string text;
  if (!answer.Dump(&slices).ok()) return text;
  for (const grpc::Slice& slice : slices) {
    for (const uint8_t byte : slice)
      text += byte >= ' ' && byte < 0x7f ? static_cast<char>(byte) : '.';
  }
  return text;
}

absl::Status ToStatus(const grpc::Status& status) {
  return {static_cast<absl::StatusCode>(status.error_code()), status.error_message()};
}

// The CPU time that a process has used, all its threads and those that ended.
absl::Duration CpuTimeOf(pid_t pid) {
  clockid_t clock;
  timespec time = {};
  if (clock_getcpuclockid(pid, &clock) == 0) clock_gettime(clock, &time);
  return absl::DurationFromTimespec(time);
}

absl::Duration Percentile(std::vector<int64_t>& nanoseconds, double fraction) {
  if (nanoseconds.empty()) return absl::ZeroDuration();
  const auto place =
      nanoseconds.begin() +
      static_cast<std::ptrdiff_t>(fraction * static_cast<double>(nanoseconds.size() - 1));
  std::nth_element(nanoseconds.begin(), place, nanoseconds.end());
  return absl::Nanoseconds(*place);
}

}  // namespace

// What the queue's tags point to, with the operation in the lowest bits.
class LoadGenerator::Caller {
 public:
  enum Operation : uintptr_t { kRead, kWrite, kFinish, kMask = 3 };

  explicit Caller(LoadGenerator& load) : load_(load) {}
  virtual ~Caller() = default;

  virtual void Start() = 0;
  // The load is over: ends once what is under way is answered.
  virtual void Stop() = 0;
  virtual void Cancel() = 0;
  virtual void Complete(Operation operation, bool ok) = 0;

  static void Dispatch(void* tag, bool ok) {
    const auto bits = reinterpret_cast<uintptr_t>(tag);
    reinterpret_cast<Caller*>(bits & ~uintptr_t{kMask})
        ->Complete(static_cast<Operation>(bits & kMask), ok);
  }

 protected:
  void* Tag(Operation operation) {
    return reinterpret_cast<void*>(reinterpret_cast<uintptr_t>(this) | operation);
  }

  LoadGenerator& load_;
};

// One unary call after the other.
class LoadGenerator::Call final : public Caller {
 public:
  Call(LoadGenerator& load, grpc::GenericStub& stub) : Caller(load), stub_(stub) {}

  void Start() override {
    context_.emplace();
    sent_ = load_.clock_.Now();
    reader_ = stub_.PrepareUnaryCall(&*context_, kMethod, load_.options_.request, &load_.queue_);
    reader_->StartCall();
    reader_->Finish(&answer_, &status_, Tag(kFinish));
  }

  void Stop() override {}  // Ends by itself.
  void Cancel() override { context_->TryCancel(); }

  void Complete(Operation /*operation*/, bool /*ok*/) override {
    if (!status_.ok()) return load_.Fail(ToStatus(status_));
    load_.Answered(sent_, answer_.Length());
    answer_.Clear();
    reader_.reset();
    if (load_.stopping_) {
      --load_.open_;
    } else {
      Start();
    }
  }

 private:
  static const std::string kMethod;

  grpc::GenericStub& stub_;
  std::optional<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientAsyncResponseReader<grpc::ByteBuffer>> reader_;
  grpc::ByteBuffer answer_;
  grpc::Status status_;
  absl::Time sent_;
};

const std::string LoadGenerator::Call::kMethod = kUnaryMethod;

// A stream that sends while there is room in its window. A Read is always out.
class LoadGenerator::Stream final : public Caller {
 public:
  Stream(LoadGenerator& load, grpc::GenericStub& stub)
      : Caller(load), stream_(stub.PrepareCall(&context_, kStreamMethod, &load.queue_)) {}

  void Start() override {
    context_.AddMetadata("millrace-window", std::to_string(load_.options_.window));
    writing_ = true;
    stream_->StartCall(Tag(kWrite));
  }

  void Stop() override { Write(); }
  void Cancel() override { context_.TryCancel(); }

  void Complete(Operation operation, bool ok) override {
    switch (operation) {
      case kRead:
        return OnRead(ok);
      case kWrite:
        return OnWritten(ok);
      default:
        --load_.open_;
        if (!status_.ok()) load_.Fail(ToStatus(status_));
    }
  }

 private:
  void OnRead(bool ok) {
    reading_ = false;
    if (!ok) return Finish();
    if (IsErrorInBand(answer_)) return load_.Fail(absl::UnknownError(TextOf(answer_)));
    load_.Answered(sent_.front(), answer_.Length());
    sent_.pop_front();
    Read();
    Write();
  }

  void OnWritten(bool ok) {
    writing_ = false;
    if (!ok) ended_ = true;  // The status, which the failing Read brings, says why.
    if (!reading_ && !finishing_) Read();
    Write();
  }

  void Read() {
    reading_ = true;
    stream_->Read(&answer_, Tag(kRead));
  }

  void Write() {
    if (writing_ || ended_) return;
    if (load_.stopping_) {
      writing_ = ended_ = true;
      return stream_->WritesDone(Tag(kWrite));
    }
    const auto room = static_cast<size_t>(load_.options_.window) - sent_.size();
    if (room == 0) return;
    grpc::WriteOptions options;
    if (room > 1) options.set_buffer_hint();  // Another follows at once.
    writing_ = true;
    sent_.push_back(load_.clock_.Now());
    stream_->Write(load_.options_.request, options, Tag(kWrite));
  }

  void Finish() {  // It also ends too early when the server ends it: then the status says why.
    finishing_ = ended_ = true;
    stream_->Finish(&status_, Tag(kFinish));
  }

  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
  grpc::ByteBuffer answer_;
  grpc::Status status_;
  std::deque<absl::Time> sent_;  // Of the requests under way, in order.
  bool reading_ = false;
  bool writing_ = false;
  bool ended_ = false;  // Nothing more is to be written.
  bool finishing_ = false;
};

LoadGenerator::LoadGenerator(Options options, Clock& clock)
    : options_(std::move(options)), clock_(clock) {}

LoadGenerator::~LoadGenerator() {
  for (const auto& caller : live_) caller->Cancel();
  queue_.Shutdown();
  void* tag;
  bool ok;
  while (queue_.Next(&tag, &ok)) {
  }
}

absl::StatusOr<LoadGenerator::Result> LoadGenerator::Run() {
  if (absl::Status status = Connect(); !status.ok()) return status;
  StartLoad();
  const absl::Time begin = clock_.Now();
  if (absl::Status status = PumpUntil(begin + options_.warmup); !status.ok()) return status;

  // From the last answer of the warm-up to the last one in time: answers come in batches, and so
  // whole batches are counted.
  measuring_ = true;
  const absl::Time cpu_begin = clock_.Now();
  const std::vector<absl::Duration> cpu_before = CpuTimes();
  const absl::Time first = last_answer_ == absl::Time() ? cpu_begin : last_answer_;
  absl::Time end = cpu_begin + options_.duration;
  do {  // A slow model may need longer for its first answer.
    if (absl::Status status = PumpUntil(end); !status.ok()) return status;
    end += options_.duration;
  } while (latencies_.empty() && end < cpu_begin + kDrainTimeout);
  const std::vector<absl::Duration> cpu_after = CpuTimes();
  measuring_ = false;
  Result result;
  result.wall = clock_.Now() - cpu_begin;
  result.requests = static_cast<int64_t>(latencies_.size());
  result.p50 = Percentile(latencies_, 0.5);
  result.p99 = Percentile(latencies_, 0.99);
  result.response_bytes = response_bytes_;
  if (last_answer_ > first) {
    result.per_second =
        static_cast<double>(result.requests) / absl::ToDoubleSeconds(last_answer_ - first);
  }
  for (size_t i = 0; i < options_.cpu_of.size(); ++i) {
    result.cpu_of.push_back(cpu_after[i] - cpu_before[i]);
  }
  result.own_cpu = cpu_after.back() - cpu_before.back();

  stopping_ = true;
  for (const auto& caller : live_) caller->Stop();
  const absl::Time give_up = clock_.Now() + kDrainTimeout;
  if (absl::Status status = PumpUntil(give_up); !status.ok()) return status;
  if (open_ > 0) return absl::DeadlineExceededError("requests are unanswered after the load");
  return result;
}

absl::Status LoadGenerator::Connect() {
  for (int i = 0; i < options_.connections; ++i) {
    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // A connection of its own.
    arguments.SetMaxReceiveMessageSize(-1);
    channels_.push_back(
        grpc::CreateCustomChannel(options_.target, grpc::InsecureChannelCredentials(), arguments));
    if (!channels_.back()->WaitForConnected(absl::ToChronoTime(WallTime() + kConnectTimeout))) {
      return absl::UnavailableError(absl::StrCat("can't connect to ", options_.target));
    }
    stubs_.push_back(std::make_unique<grpc::GenericStub>(channels_.back()));
  }
  return absl::OkStatus();
}

void LoadGenerator::StartLoad() {
  const int count = std::max(options_.calls, options_.streams);
  for (int i = 0; i < count; ++i) {
    grpc::GenericStub& stub = *stubs_[static_cast<size_t>(i) % stubs_.size()];
    if (options_.calls > 0) {
      live_.push_back(std::make_unique<Call>(*this, stub));
    } else {
      live_.push_back(std::make_unique<Stream>(*this, stub));
    }
    ++open_;
    live_.back()->Start();
  }
}

absl::Status LoadGenerator::PumpUntil(absl::Time until) {
  const auto deadline = absl::ToChronoTime(WallTime() + (until - clock_.Now()));
  void* tag;
  bool ok;
  while (open_ > 0 && failed_.ok() &&
         queue_.AsyncNext(&tag, &ok, deadline) == grpc::CompletionQueue::GOT_EVENT) {
    Caller::Dispatch(tag, ok);
    if (!stopping_ && clock_.Now() >= until) break;
  }
  return failed_;
}

void LoadGenerator::Answered(absl::Time sent, size_t bytes) {
  const absl::Time now = clock_.Now();
  if (measuring_) latencies_.push_back(absl::ToInt64Nanoseconds(now - sent));
  if (!stopping_) last_answer_ = now;
  response_bytes_ = bytes;
}

void LoadGenerator::Fail(absl::Status status) {
  if (failed_.ok()) failed_ = std::move(status);
}

// Those of Options::cpu_of, then its own.
std::vector<absl::Duration> LoadGenerator::CpuTimes() const {
  std::vector<absl::Duration> times;
  for (const pid_t pid : options_.cpu_of) times.push_back(CpuTimeOf(pid));
  times.push_back(CpuTimeOf(getpid()));
  return times;
}

}  // namespace millrace
