// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/replica/replica.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/event_fd.h"
#include "server/base/log.h"
#include "server/base/poll.h"
#include "server/base/status.h"
#include "server/base/thread.h"

namespace millrace {
namespace {

// How often a process that runs is looked after: whoever posts a batch doesn't wake its thread.
constexpr absl::Duration kMostSleep = absl::Milliseconds(500);

}  // namespace

Replica::Replica(Options options, Context context)
    : options_(std::move(options)),
      context_(std::move(context)),
      mailbox_(context_.memory->mailbox(static_cast<size_t>(options_.index))),
      backoff_(options_.backoff),
      thread_(absl::StrCat("replica-", options_.index), [this] { Live(); }) {
  MILLRACE_CHECK(options_.stop_event >= 0, "A replica is ended by an event.");
}

Replica::~Replica() { Stop(); }

void Replica::Stop() {
  MutexLock lock(mutex_);
  stopping_ = true;
  changed_.NotifyAll();
  SignalEvent(options_.stop_event);
}

bool Replica::Retire(absl::Time deadline) {
  MutexLock lock(mutex_);
  retiring_ = true;
  changed_.NotifyAll();
  SignalEvent(options_.stop_event);
  while (!ended_ && context_.clock->Now() < deadline) {
    context_.clock->WaitUntil(changed_, mutex_, deadline);
  }
  return ended_;
}

std::string Replica::Name() const {
  return absl::StrCat("model '", context_.signature->model_name(), "' version ",
                      context_.signature->version(), " replica ", options_.index);
}

// ---- Called by the dispatcher ----

void Replica::Run(std::unique_ptr<Batch> batch) {
  auto& buffer = static_cast<SharedBatchBuffer&>(*batch->buffer());
  buffer.WriteHeader(*context_.signature);
  MutexLock lock(mutex_);
  rows_seen_.store(batch->rows(), std::memory_order_relaxed);
  busy_since_ns_.store(absl::ToUnixNanos(batch->started), std::memory_order_relaxed);
  batch_ = std::move(batch);
  mailbox_.Post(buffer.index());  // Under the lock: whoever buries the process comes after it.
  changed_.NotifyAll();
}

pid_t Replica::pid() const {
  MutexLock lock(mutex_);
  return pid_;
}

std::optional<absl::Duration> Replica::busy_for() const {
  MutexLock lock(mutex_);
  if (batch_ == nullptr) return std::nullopt;
  return context_.clock->Now() - batch_->started;
}

std::optional<absl::Duration> Replica::busy_seen() const {
  const int64_t since = busy_since_ns_.load(std::memory_order_relaxed);
  if (since == kIdle) return std::nullopt;
  return context_.clock->Now() - absl::FromUnixNanos(since);
}

// ---- The replica's thread ----

void Replica::Live() {
  ClearEvent(options_.stop_event);  // Who was here before may have left it signalled.
  while (!is_ending()) {
    absl::Status state = StartProcess();
    if (state.ok()) {
      context_.on_state(options_.index, state);
      context_.dispatcher->AddRunner(this);
      Serve();
      state = absl::UnavailableError(absl::StrCat("its process ", BuryProcess()));
    } else {
      process_.reset();
    }
    if (is_ending()) break;
    // One that has done its work was well: what it died of came from outside.
    const absl::Duration lived =
        std::exchange(served_, false) ? absl::InfiniteDuration() : context_.clock->Now() - started_;
    const absl::Duration pause = backoff_.NextPause(lived, random_);
    const std::string next = absl::StrCat(
        "; the next start is ",
        pause > absl::ZeroDuration()
            ? absl::StrCat("in ", absl::FormatDuration(absl::Ceil(pause, absl::Milliseconds(1))))
            : "at once");
    LogWarning(Name(), ": ", std::string(state.message()), next);
    context_.on_state(options_.index,
                      absl::Status(state.code(), absl::StrCat(state.message(), next)));
    context_.metrics->RecordReplicaRestart();  // Last: who sees it sees the state, too.
    Pause(pause);
  }
  MutexLock lock(mutex_);
  ended_ = true;
  changed_.NotifyAll();
}

absl::Status Replica::StartProcess() {
  mailbox_.Reset();  // Before the fork: the new process may go to sleep on it at once.
  // One that floats does so where the server does by now, wherever its template was started.
  const std::vector<int>& pinned = options_.placement.cpus;
  absl::StatusOr<ForkedReplica> forked =
      context_.fork({.mailbox = options_.index,
                     .cpus = pinned.empty() ? CpusOf(getpid()) : pinned,
                     .threads = options_.placement.threads,
                     .device_index = options_.placement.device_index},
                    Name());
  started_ = context_.clock->Now();  // Not before: it may have waited for a template.
  MILLRACE_ASSIGN_OR_RETURN(process_, std::move(forked));
  if (!WaitForReply()) return absl::CancelledError("is to stop");
  const absl::StatusOr<ControlMessage> message = process_->control.Receive(absl::ZeroDuration());
  if (absl::IsDeadlineExceeded(message.status())) {
    return absl::DeadlineExceededError(absl::StrCat("its process was not ready within ",
                                                    absl::FormatDuration(options_.start_timeout)));
  }
  if (!message.ok()) {
    return absl::UnavailableError(absl::StrCat("its process ", End(), " before it could serve"));
  }
  MILLRACE_ASSIGN_OR_RETURN(const ReadyReply ready, FromJson<ReadyReply>(message->text));
  for (const std::string& note : ready.notes) LogInfo(Name(), ": ", note);
  MILLRACE_RETURN_IF_ERROR(ready.status);
  context_.on_warm(ready.warmup_ns, kind());
  MutexLock lock(mutex_);
  pid_ = process_->process.pid();
  pid_seen_.store(pid_, std::memory_order_relaxed);
  return absl::OkStatus();
}

bool Replica::WaitForReply() {
  const absl::Time until = context_.clock->Now() + options_.start_timeout;
  for (;;) {
    pollfd entries[] = {{.fd = process_->control.fd(), .events = POLLIN, .revents = 0},
                        {.fd = options_.stop_event, .events = POLLIN, .revents = 0},
                        {.fd = process_->output.fd(), .events = POLLIN, .revents = 0}};
    const int ready = Poll(absl::MakeSpan(entries), until - context_.clock->Now());
    if (entries[1].revents != 0) return false;
    if (ready <= 0 || entries[0].revents != 0) return true;
    process_->output.Read();
  }
}

void Replica::Serve() {
  bool just_posted = false;  // Then a result may be near, and a short spin saves a sleep.
  for (;;) {
    if (mailbox_.TakeCompletion(just_posted)) {
      if (!FinishBatch()) return;
      left_ = leaves_;
      if (left_) return;
      MutexLock lock(mutex_);
      just_posted = batch_ != nullptr;
    } else {
      just_posted = false;
      if (!WaitForEvent()) return;
    }
  }
}

bool Replica::WaitForEvent() {
  if (!mailbox_.PrepareToSleep()) return true;
  pollfd entries[] = {{.fd = process_->completion_event.get(), .events = POLLIN, .revents = 0},
                      {.fd = process_->control.fd(), .events = POLLIN, .revents = 0},
                      {.fd = options_.stop_event, .events = POLLIN, .revents = 0},
                      {.fd = process_->output.fd(), .events = POLLIN, .revents = 0},
                      {.fd = process_->process.end_fd(), .events = POLLIN, .revents = 0}};
  Poll(absl::MakeSpan(entries), std::min(kMostSleep, TimeLeft()));
  mailbox_.WokeUp();
  if (entries[3].revents != 0) process_->output.Read();
  if (entries[0].revents != 0) {
    ClearEvent(process_->completion_event.get());
    return true;  // What completed before a death still counts.
  }
  if (entries[2].revents != 0) {
    ClearEvent(options_.stop_event);
    if (stopping()) return false;
    leaves_ = true;
    left_ = context_.dispatcher->RetireRunner(this);
  }
  hangs_ = TimeLeft() < absl::ZeroDuration();
  return entries[1].revents == 0 && entries[4].revents == 0 && !hangs_ && !left_;
}

absl::Duration Replica::TimeLeft() const {
  MutexLock lock(mutex_);
  if (batch_ == nullptr) return absl::InfiniteDuration();
  const auto most_rows =
      static_cast<double>(std::max<int64_t>(1, context_.signature->max_batch_size()));
  const double share = batch_->retry ? static_cast<double>(batch_->rows()) / most_rows : 1;
  const absl::Duration limit = context_.limit->For(batch_->shape(), share);
  return limit - (context_.clock->Now() - batch_->started);
}

bool Replica::FinishBatch() {
  std::unique_ptr<Batch> batch;
  {
    MutexLock lock(mutex_);
    batch = std::move(batch_);
    busy_since_ns_.store(kIdle, std::memory_order_relaxed);
  }
  if (batch == nullptr) {  // The mailbox is the process's to scribble over.
    LogError(Name(), ": its process completed a batch that it never got");
    return false;
  }
  auto& buffer = static_cast<SharedBatchBuffer&>(*batch->buffer());
  const absl::Duration execute = context_.clock->Now() - batch->started;
  const absl::StatusOr<std::vector<OutputView>> outputs = buffer.ReadOutputs();
  if (outputs.ok()) {
    context_.limit->Ran(batch->shape(), execute);
    served_ = true;
  }
  context_.dispatcher->Finish(this, std::move(batch), outputs, execute, options_.index);
  return true;
}

std::string Replica::BuryProcess() {
  const std::string ending = End();
  process_.reset();
  {
    MutexLock lock(mutex_);
    pid_ = 0;
    pid_seen_.store(pid_, std::memory_order_relaxed);
  }
  if (!left_ && !context_.dispatcher->RetireRunner(this)) {
    context_.dispatcher->Requeue(this, TakeBatch(), ending);
  }
  return ending;
}

std::string Replica::End() {
  const std::string incident = NewIncident();
  std::string ending = process_->process.KillAndReap();
  if (hangs_) ending = "hung: its batch ran for longer than it may, and it was killed";
  hangs_ = false;
  if (!is_ending()) process_->output.LogLast(incident);
  return absl::StrCat(ending, " (incident ", incident, ")");
}

std::unique_ptr<Batch> Replica::TakeBatch() {
  MutexLock lock(mutex_);
  // Where the dispatcher has decided to run a batch here, another thread is just bringing it.
  while (batch_ == nullptr) changed_.Wait(mutex_);
  busy_since_ns_.store(kIdle, std::memory_order_relaxed);
  return std::move(batch_);
}

bool Replica::is_ending() const {
  MutexLock lock(mutex_);
  return stopping_ || retiring_;
}

bool Replica::stopping() const {
  MutexLock lock(mutex_);
  return stopping_;
}

void Replica::Pause(absl::Duration duration) {
  const absl::Time until = context_.clock->Now() + duration;
  MutexLock lock(mutex_);
  while (!stopping_ && !retiring_ && context_.clock->Now() < until) {
    context_.clock->WaitUntil(changed_, mutex_, until);
  }
}

}  // namespace millrace
