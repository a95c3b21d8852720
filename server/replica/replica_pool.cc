// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/replica/replica_pool.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "server/base/log.h"
#include "server/base/status.h"

namespace millrace {
namespace {

// What an output of unknown size may take. Sparse: only what is written counts.
constexpr size_t kUnknownOutputBytes = size_t{512} << 20;
// Batches gathered of requests of unknown size: so many of the largest always fit.
constexpr int64_t kLargestRequests = 8;

size_t AreaBytes(const std::vector<TensorSpec>& tensors, int64_t rows, size_t unknown) {
  size_t total = 0;
  for (const TensorSpec& tensor : tensors) {
    const std::optional<int64_t> elements = ElementCount(tensor.dims);
    total += kAreaAlignment +
             (elements ? static_cast<size_t>(*elements * rows) * ElementSize(tensor.data_type)
                       : unknown);
  }
  return total;
}

size_t BufferBytes(const ModelSignature& signature, size_t most_request_bytes) {
  const int64_t rows = std::max<int64_t>(1, signature.max_batch_size());
  const size_t unknown = most_request_bytes * static_cast<size_t>(std::min(rows, kLargestRequests));
  const size_t inputs = AreaBytes(signature.inputs(), rows, unknown);
  const size_t outputs = AreaBytes(signature.outputs(), rows, kUnknownOutputBytes);
  return kBatchHeaderBytes + std::max(2 * inputs, inputs + outputs) + kPageSize;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ReplicaPool>> ReplicaPool::Create(Options options, Context context) {
  std::unique_ptr<ReplicaPool> pool(new ReplicaPool(std::move(options), context));
  MILLRACE_RETURN_IF_ERROR(pool->Start());
  return pool;
}

ReplicaPool::ReplicaPool(Options options, Context context)
    : options_(std::move(options)),
      context_(context),
      stop_event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      limit_({.configured = options_.execution_limit, .first_runs = options_.load_timeout}),
      replica_states_(options_.replicas.size(), absl::UnavailableError("is starting")),
      replica_tried_(options_.replicas.size(), false) {}

absl::Status ReplicaPool::Start() {
  const size_t count = options_.replicas.size();
  // One running batch per replica, one staged, and one to spare for a batch that is run again.
  MILLRACE_ASSIGN_OR_RETURN(
      memory_, ModelMemory::Create({.mailboxes = count,
                                    .buffers = count + 2,
                                    .buffer_bytes = BufferBytes(*options_.signature,
                                                                options_.most_request_bytes)}));
  std::vector<BatchBuffer*> buffers;
  for (size_t i = 0; i < memory_->buffers(); ++i) buffers.push_back(&memory_->buffer(i));
  dispatcher_ =
      Dispatcher::Create(options_.dispatch, options_.signature, std::move(buffers), *context_.clock,
                         *context_.timer, *context_.leases, *context_.metrics);
  template_thread_ = std::make_unique<Thread>("template", [this] { KeepTemplate(); });
  {
    MutexLock lock(mutex_);
    while (!loaded_once_) changed_.Wait(mutex_);
    MILLRACE_RETURN_IF_ERROR(template_state_);
  }
  for (size_t i = 0; i < count; ++i) {
    replicas_.push_back(std::make_unique<Replica>(
        Replica::Options{.index = static_cast<int>(i),
                         .placement = options_.replicas[i],
                         .start_timeout = options_.load_timeout},
        Replica::Context{
            .signature = options_.signature.get(),
            .memory = memory_.get(),
            .dispatcher = dispatcher_.get(),
            .metrics = context_.metrics,
            .clock = context_.clock,
            .limit = &limit_,
            .fork = [this](const ForkCommand& command) { return Fork(command); },
            .on_warm = [this](const std::vector<int64_t>& warmup_ns,
                              ReplicaKind kind) { TellCosts(warmup_ns, kind); },
            .on_state = [this](int replica,
                               const absl::Status& state) { SetReplicaState(replica, state); }}));
  }
  MutexLock lock(mutex_);
  while (std::count(replica_tried_.begin(), replica_tried_.end(), true) <
         static_cast<std::ptrdiff_t>(count)) {
    changed_.Wait(mutex_);
  }
  return FirstError();
}

ReplicaPool::~ReplicaPool() {
  if (dispatcher_ != nullptr) {
    dispatcher_->Stop(absl::UnavailableError(
        absl::StrCat("model '", options_.signature->model_name(), "' is being unloaded")));
  }
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(stop_event_.get(), &one, sizeof(one));
  replicas_.clear();
  template_thread_.reset();
}

// ---- The template ----

void ReplicaPool::KeepTemplate() {
  RestartBackoff backoff;
  absl::BitGen random;
  for (bool first = true;; first = false) {
    const absl::Time started = context_.clock->Now();
    LoadTemplate(first && options_.background);
    std::shared_ptr<ModelTemplate> loaded;
    {
      MutexLock lock(mutex_);
      loaded_once_ = true;
      changed_.NotifyAll();
      loaded = template_;
      if (loaded == nullptr && first) return;  // The first load failed: Create() says.
    }
    if (loaded != nullptr) WatchTemplate(*loaded);
    MutexLock lock(mutex_);
    template_.reset();
    if (stopping_) return;
    if (loaded != nullptr) {
      template_state_ = absl::UnavailableError(
          absl::StrCat("its template process ", loaded->KillAndReap(), " and is loaded again"));
      LogWarning("model '", options_.signature->model_name(),
                 "': ", std::string(template_state_.message()));
      ReapStrangers();
    }
    const absl::Time until =
        context_.clock->Now() + backoff.NextPause(context_.clock->Now() - started, random);
    while (!stopping_ && context_.clock->Now() < until) {
      context_.clock->WaitUntil(changed_, mutex_, until);
    }
    if (stopping_) return;
  }
}

LoadCommand ReplicaPool::MakeLoadCommand(bool background) const {
  const ModelSignature& signature = *options_.signature;
  LoadCommand command = {.engine = options_.engine,
                         .model_name = signature.model_name(),
                         .version = signature.version_number(),
                         .max_batch_size = signature.max_batch_size(),
                         .inputs = signature.inputs(),
                         .outputs = signature.outputs(),
                         .optimize = options_.optimize,
                         .inference_mode = options_.inference_mode,
                         .inter_op_threads = options_.inter_op_threads,
                         .warmup = options_.warmup,
                         .background = background,
                         .check_batching = options_.batch_check != BatchCheck::kUnchecked,
                         .server_pid = getpid()};
  for (const ReplicaPlacement& replica : options_.replicas) {
    command.on_gpu |= replica.device == DeviceKind::kGpu;
  }
  return command;
}

void ReplicaPool::LoadTemplate(bool background) {
  LoadedReply reply;
  auto loaded = ModelTemplate::Start({.worker_program = options_.worker_program,
                                      .timeout = options_.load_timeout,
                                      .background = background,
                                      .cancel_event = options_.cancel_event},
                                     MakeLoadCommand(background), options_.model_file.get(),
                                     memory_->fd(), &reply);
  // In the background runs stand still while others need the cores, so their times say nothing.
  if (!background) TellCosts(reply.warmup_ns, ReplicaKind::kCpu);
  for (const std::string& note : reply.notes) {
    LogInfo("model '", options_.signature->model_name(), "' version ",
            options_.signature->version(), ": ", note);
  }
  const absl::Status state = loaded.ok() ? Heed(reply.batching) : loaded.status();
  MutexLock lock(mutex_);
  template_state_ = state;
  if (state.ok()) template_ = *std::move(loaded);
}

absl::Status ReplicaPool::Heed(const absl::Status& batching) {
  if (batching.ok()) return absl::OkStatus();
  if (options_.batch_check == BatchCheck::kRefuseModel) return batching;
  dispatcher_->LimitRows(1);
  MutexLock lock(mutex_);
  single_rows_ = absl::StrCat("runs one row at a time: ", batching.message());
  LogWarning("model '", options_.signature->model_name(), "' version ",
             options_.signature->version(), " ", single_rows_);
  return absl::OkStatus();
}

void ReplicaPool::TellCosts(const std::vector<int64_t>& warmup_ns, ReplicaKind kind) {
  for (size_t i = 0; i < warmup_ns.size() && i < options_.warmup.size(); ++i) {
    const WarmupSample& sample = options_.warmup[i];
    if (warmup_ns[i] <= 0) continue;
    RowShape shape;
    for (const TensorSpec& spec : options_.signature->inputs()) {
      for (const WarmupInput& input : sample.inputs) {
        if (input.name == spec.name) shape.dims.push_back(input.dims);
      }
    }
    dispatcher_->ExpectCost(shape, kind, sample.rows, absl::Nanoseconds(warmup_ns[i]));
  }
}

void ReplicaPool::WatchTemplate(const ModelTemplate& watched) {
  pollfd entries[] = {// No events: only that the other end has gone. Replies are Fork()'s to read.
                      {.fd = watched.control_fd(), .events = 0, .revents = 0},
                      {.fd = stop_event_.get(), .events = POLLIN, .revents = 0}};
  while (poll(entries, 2, -1) < 0 && errno == EINTR) {
  }
}

absl::StatusOr<ForkedReplica> ReplicaPool::Fork(const ForkCommand& command) {
  std::shared_ptr<ModelTemplate> from;
  {
    MutexLock lock(mutex_);
    if (template_ == nullptr) return template_state_;
    from = template_;
  }
  return from->Fork(command);
}

// ---- State ----

void ReplicaPool::SetReplicaState(int replica, const absl::Status& state) {
  MutexLock lock(mutex_);
  replica_states_[static_cast<size_t>(replica)] = state;
  replica_tried_[static_cast<size_t>(replica)] = true;
  changed_.NotifyAll();
}

absl::Status ReplicaPool::FirstError() const {
  for (const absl::Status& state : replica_states_) {
    if (state.ok()) return state;
  }
  return replica_states_.empty() ? absl::InternalError("has no replicas") : replica_states_.front();
}

int ReplicaPool::ready_replicas() const {
  MutexLock lock(mutex_);
  return static_cast<int>(std::count_if(replica_states_.begin(), replica_states_.end(),
                                        [](const absl::Status& state) { return state.ok(); }));
}

std::string ReplicaPool::single_rows() const {
  MutexLock lock(mutex_);
  return single_rows_;
}

absl::Status ReplicaPool::readiness() const {
  MutexLock lock(mutex_);
  return FirstError();
}

std::vector<absl::Duration> ReplicaPool::busy_for() const {
  std::vector<absl::Duration> busy;
  for (const auto& replica : replicas_) {
    if (const auto duration = replica->busy_for()) busy.push_back(*duration);
  }
  return busy;
}

std::vector<pid_t> ReplicaPool::pids() const {
  std::vector<pid_t> pids;
  {
    MutexLock lock(mutex_);
    pids.push_back(template_ == nullptr ? 0 : template_->pid());
  }
  for (const auto& replica : replicas_) pids.push_back(replica->pid());
  return pids;
}

}  // namespace millrace
