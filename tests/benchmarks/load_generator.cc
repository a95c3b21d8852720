// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "tests/benchmarks/load_generator.h"

#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "grpcpp/alarm.h"
#include "grpcpp/client_context.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/support/async_stream.h"
#include "grpcpp/support/async_unary_call.h"
#include "proto/grpc_service.pb.h"
#include "server/base/timer_thread.h"

namespace millrace {
namespace {

constexpr char kUnaryMethod[] = "/inference.GRPCInferenceService/ModelInfer";
constexpr char kStreamMethod[] = "/inference.GRPCInferenceService/ModelStreamInfer";

constexpr absl::Duration kConnectTimeout = absl::Seconds(10);
// For what is under way when the measuring ends.
constexpr absl::Duration kDrainTimeout = absl::Seconds(60);
// Of one run of an open loop, so that a wrong number of zeros is no attack.
constexpr double kMostRequests = 1e6;

// The first byte of a ModelStreamInferResponse that carries an error: field 1, error_message.
constexpr uint8_t kErrorField = 0x0a;

bool IsErrorInBand(const grpc::ByteBuffer& answer) {
  std::vector<grpc::Slice> slices;
  return answer.Dump(&slices).ok() && !slices.empty() && slices[0].size() > 0 &&
         *slices[0].begin() == kErrorField;
}

// The status of an answer that is an error in band.
absl::Status ErrorOf(const grpc::ByteBuffer& answer) {
  std::vector<grpc::Slice> slices;
  inference::ModelStreamInferResponse message;
  std::string bytes;
  if (answer.Dump(&slices).ok()) {
    for (const grpc::Slice& slice : slices) bytes.append(slice.begin(), slice.end());
  }
  if (!message.ParseFromString(bytes)) return absl::InternalError("an answer is no message");
  const auto& parameters = message.infer_response().parameters();
  const auto code = parameters.find("millrace_status_code");
  return {code == parameters.end() ? absl::StatusCode::kUnknown
                                   : static_cast<absl::StatusCode>(code->second.int64_param()),
          message.error_message()};
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
    if (load_.open_loop()) {
      load_.idle_.push_back(this);
    } else {
      Send(load_.clock_.Now());
    }
  }

  void Send(absl::Time due) {
    ++load_.open_;
    context_.emplace();
    due_ = due;
    load_.Sending(due);
    reader_ = stub_.PrepareUnaryCall(&*context_, kMethod, load_.options_.request, &load_.queue_);
    reader_->StartCall();
    reader_->Finish(&answer_, &status_, Tag(kFinish));
  }

  void Stop() override {}  // Ends by itself.
  void Cancel() override {
    if (reader_) context_->TryCancel();
  }

  void Complete(Operation /*operation*/, bool /*ok*/) override {
    --load_.open_;
    if (status_.ok()) {
      load_.Answered(due_, answer_.Length(), 0);
    } else {
      load_.Refused(due_, ToStatus(status_));
    }
    answer_.Clear();
    reader_.reset();
    if (!load_.open_loop()) {
      if (!load_.stopping_) Send(load_.clock_.Now());
    } else if (load_.waiting_.empty()) {
      load_.idle_.push_back(this);
    } else {
      const absl::Time due = load_.waiting_.front();
      load_.waiting_.pop_front();
      Send(due);
    }
  }

 private:
  static const std::string kMethod;

  grpc::GenericStub& stub_;
  std::optional<grpc::ClientContext> context_;
  std::unique_ptr<grpc::ClientAsyncResponseReader<grpc::ByteBuffer>> reader_;
  grpc::ByteBuffer answer_;
  grpc::Status status_;
  absl::Time due_;
};

const std::string LoadGenerator::Call::kMethod = kUnaryMethod;

// A stream that sends while there is room in its window; in an open loop, what is due. A Read is
// always out.
class LoadGenerator::Stream final : public Caller {
 public:
  Stream(LoadGenerator& load, grpc::GenericStub& stub, size_t number)
      : Caller(load),
        number_(number),
        stream_(stub.PrepareCall(&context_, kStreamMethod, &load.queue_)) {}

  void Start() override {
    ++load_.open_;
    context_.AddMetadata("millrace-window", std::to_string(load_.options_.window));
    writing_ = true;
    stream_->StartCall(Tag(kWrite));
  }

  void Send(absl::Time due) {
    waiting_.push_back(due);
    Write();
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
    if (IsErrorInBand(answer_)) {
      load_.Refused(sent_.front(), ErrorOf(answer_));
    } else {
      load_.Answered(sent_.front(), answer_.Length(), number_);
    }
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
    const size_t ready = Ready();
    if (ready == 0 && load_.stopping_) {
      writing_ = ended_ = true;
      return stream_->WritesDone(Tag(kWrite));
    }
    if (ready == 0) return;
    grpc::WriteOptions options;
    if (ready > 1) options.set_buffer_hint();  // Another follows at once.
    writing_ = true;
    sent_.push_back(load_.clock_.Now());
    if (load_.open_loop()) {
      sent_.back() = waiting_.front();
      waiting_.pop_front();
    }
    load_.Sending(sent_.back());
    stream_->Write(load_.options_.request, options, Tag(kWrite));
  }

  // How many requests may be sent now.
  size_t Ready() const {
    if (load_.open_loop()) return waiting_.size();
    if (load_.stopping_) return 0;
    return static_cast<size_t>(load_.options_.window) - sent_.size();
  }

  void Finish() {  // It also ends too early when the server ends it: then the status says why.
    finishing_ = ended_ = true;
    stream_->Finish(&status_, Tag(kFinish));
  }

  const size_t number_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream_;
  grpc::ByteBuffer answer_;
  grpc::Status status_;
  std::deque<absl::Time> waiting_;  // When the requests of the open loop were due.
  std::deque<absl::Time> sent_;     // When those under way were due, in order.
  bool reading_ = false;
  bool writing_ = false;
  bool ended_ = false;  // Nothing more is to be written.
  bool finishing_ = false;
};

// When an open loop's requests are due, and to which stream each goes. Completes on the queue,
// since the queue's own deadlines are milliseconds.
class LoadGenerator::Arrivals final : public Caller {
 public:
  explicit Arrivals(LoadGenerator& load)
      : Caller(load),
        random_(load.options_.seed),
        gap_seconds_(load.options_.rate),
        stream_(0, std::max<size_t>(load.streams_.size(), 1) - 1),
        timer_(load.clock_) {}

  void Start() override {
    ++load_.open_;
    next_ = load_.clock_.Now();
    ScheduleNext();
  }

  void Stop() override {
    timer_.Cancel(scheduled_);
    ArriveUntil(load_.measured_until_);
    --load_.open_;
  }

  void Cancel() override { timer_.Cancel(scheduled_); }

  void Complete(Operation /*operation*/, bool /*ok*/) override {
    if (load_.stopping_) return;
    ArriveUntil(load_.clock_.Now());
    ScheduleNext();
  }

 private:
  void ArriveUntil(absl::Time end) {
    for (; next_ < end; next_ += absl::Seconds(gap_seconds_(random_))) {
      load_.Arrive(next_, stream_(random_));
    }
  }

  void ScheduleNext() {
    scheduled_ = timer_.Schedule(next_, [this] {
      alarm_.Set(&load_.queue_, gpr_inf_past(GPR_CLOCK_REALTIME), Tag(kFinish));
    });
  }

  std::mt19937_64 random_;
  std::exponential_distribution<double> gap_seconds_;
  std::uniform_int_distribution<size_t> stream_;
  absl::Time next_;
  grpc::Alarm alarm_;
  TimerThread timer_;
  Timer::Id scheduled_;
};

LoadGenerator::LoadGenerator(Options options, Clock& clock)
    : options_(std::move(options)), clock_(clock) {}

LoadGenerator::~LoadGenerator() {
  for (Caller* const caller : live_) caller->Cancel();
  queue_.Shutdown();
  void* tag;
  bool ok;
  while (queue_.Next(&tag, &ok)) {
  }
}

absl::StatusOr<LoadGenerator::Result> LoadGenerator::Run() {
  if (options_.rate * absl::ToDoubleSeconds(options_.warmup + options_.duration) > kMostRequests) {
    return absl::InvalidArgumentError(
        absl::StrCat("more than ", kMostRequests, " requests; lower the rate or the time"));
  }
  if (absl::Status status = Connect(); !status.ok()) return status;
  StartLoad();
  if (absl::Status status = PumpUntil(clock_.Now() + options_.warmup); !status.ok()) return status;
  Result result;
  if (absl::Status status = Measure(result); !status.ok()) return status;
  const auto answered = static_cast<int64_t>(latencies_.size());
  int64_t decided = answered;
  for (const auto& [code, count] : errors_) decided += count;
  if (open_loop() && decided != due_) {
    return absl::InternalError(
        absl::StrCat(due_, " requests were due, but ", decided, " have an answer"));
  }
  result.requests = answered;
  result.errors = errors_;
  result.p50 = Percentile(latencies_, 0.5);
  result.p99 = Percentile(latencies_, 0.99);
  result.late_p99 = Percentile(lateness_, 0.99);
  result.per_stream = answers_;
  result.response_bytes = response_bytes_;
  return result;
}

absl::Status LoadGenerator::Measure(Result& result) {
  // A closed loop is measured from the last answer of the warm-up to the last one in time: answers
  // come in batches, and so whole batches are counted.
  const absl::Time begin = measured_from_ = clock_.Now();
  const std::vector<absl::Duration> cpu_before = CpuTimes();
  const absl::Time first = last_answer_ == absl::Time() ? begin : last_answer_;
  absl::Time end = begin + options_.duration;
  if (open_loop()) measured_until_ = end;
  do {  // A slow model may need longer for its first answer.
    if (absl::Status status = PumpUntil(end); !status.ok()) return status;
    end += options_.duration;
  } while (!open_loop() && latencies_.empty() && errors_.empty() && end < begin + kDrainTimeout);
  const std::vector<absl::Duration> cpu_after = CpuTimes();
  result.wall = clock_.Now() - begin;
  for (size_t i = 0; i < options_.cpu_of.size(); ++i) {
    result.cpu_of.push_back(cpu_after[i] - cpu_before[i]);
  }
  result.own_cpu = cpu_after.back() - cpu_before.back();
  if (!open_loop()) measured_from_ = absl::InfiniteFuture();  // What follows isn't measured.
  const auto in_time = static_cast<double>(latencies_.size());
  if (!open_loop() && last_answer_ > first) {
    result.per_second = in_time / absl::ToDoubleSeconds(last_answer_ - first);
  }
  absl::Status status = Drain();
  if (open_loop()) {  // What was due in time is counted, whenever it was answered.
    result.per_second =
        static_cast<double>(latencies_.size()) / absl::ToDoubleSeconds(options_.duration);
  }
  return status;
}

absl::Status LoadGenerator::Drain() {
  stopping_ = true;
  for (Caller* const caller : live_) caller->Stop();
  if (absl::Status status = PumpUntil(clock_.Now() + kDrainTimeout); !status.ok()) return status;
  if (open_ > 0) return absl::DeadlineExceededError("requests are unanswered after the load");
  return absl::OkStatus();
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
  for (size_t i = 0; i < static_cast<size_t>(options_.calls); ++i) {
    calls_.push_back(std::make_unique<Call>(*this, *stubs_[i % stubs_.size()]));
    live_.push_back(calls_.back().get());
  }
  for (size_t i = 0; i < static_cast<size_t>(options_.streams); ++i) {
    streams_.push_back(std::make_unique<Stream>(*this, *stubs_[i % stubs_.size()], i));
    live_.push_back(streams_.back().get());
  }
  answers_.resize(streams_.size());
  if (open_loop()) {
    arrivals_ = std::make_unique<Arrivals>(*this);
    live_.insert(live_.begin(), arrivals_.get());  // Stopped first, it brings what is due by then.
  }
  for (Caller* const caller : live_) caller->Start();
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

bool LoadGenerator::Counts(absl::Time due) const {
  const absl::Time when = open_loop() ? due : clock_.Now();
  return when >= measured_from_ && when < measured_until_;
}

void LoadGenerator::Arrive(absl::Time due, size_t stream) {
  if (Counts(due)) ++due_;
  if (!streams_.empty()) return streams_[stream]->Send(due);
  if (idle_.empty()) return waiting_.push_back(due);
  Call* const call = idle_.back();
  idle_.pop_back();
  call->Send(due);
}

void LoadGenerator::Sending(absl::Time due) {
  if (!open_loop() || !Counts(due)) return;
  lateness_.push_back(absl::ToInt64Nanoseconds(clock_.Now() - due));
}

void LoadGenerator::Answered(absl::Time due, size_t bytes, size_t caller) {
  const absl::Time now = clock_.Now();
  if (Counts(due)) {
    latencies_.push_back(absl::ToInt64Nanoseconds(now - due));
    if (!answers_.empty()) ++answers_[caller];
  }
  if (!stopping_) last_answer_ = now;
  response_bytes_ = bytes;
}

void LoadGenerator::Refused(absl::Time due, absl::Status status) {
  if (!options_.count_errors) return Fail(std::move(status));
  if (Counts(due)) ++errors_[status.code()];
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
