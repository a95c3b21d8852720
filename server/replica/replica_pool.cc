// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/replica/replica_pool.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/random/random.h"
#include "absl/strings/str_cat.h"
#include "server/base/event_fd.h"
#include "server/base/log.h"
#include "server/base/status.h"
#include "server/channel/sealed_bytes.h"

namespace millrace {
namespace {

// What an output of unknown size may take. Sparse: only what is written counts.
constexpr size_t kUnknownOutputBytes = size_t{512} << 20;
// Batches gathered of requests of unknown size: so many of the largest always fit.
constexpr int64_t kLargestRequests = 8;
// How often it is asked whether there are enough replicas.
constexpr absl::Duration kScalingInterval = absl::Milliseconds(250);
// How long a batch may go on until its replica is taken away all the same; it then runs elsewhere.
constexpr absl::Duration kShrinkTimeout = absl::Seconds(10);

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

absl::Status MovesStopped() { return absl::CancelledError("the server is shutting down"); }

// What is the matter with one replica.
absl::Status OfReplica(size_t slot, const absl::Status& state) {
  if (state.ok()) return state;
  return absl::Status(state.code(), absl::StrCat("replica ", slot, ": ", state.message()));
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
  UniqueFd warmup_data;
  if (!options.warmup_data.empty()) {
    MILLRACE_ASSIGN_OR_RETURN(warmup_data, SealedBytes::Copy(options.warmup_data));
    options.warmup_data = {};  // One copy is enough.
  }
  std::unique_ptr<ReplicaPool> pool(
      new ReplicaPool(std::move(options), std::move(context), std::move(warmup_data)));
  MILLRACE_RETURN_IF_ERROR(pool->Start());
  return pool;
}

ReplicaPool::ReplicaPool(Options options, Context context, UniqueFd warmup_data)
    : options_(std::move(options)),
      context_(std::move(context)),
      warmup_data_(std::move(warmup_data)),
      limit_({.configured = options_.execution_limit, .first_runs = options_.load_timeout}),
      places_(options_.replicas),
      slots_(std::max(options_.replicas.size(), options_.most_places) + 1),
      unready_since_(context_.clock->Now()),
      planned_(options_.start) {}

absl::Status ReplicaPool::Start() {
  size_t count;
  {
    MutexLock lock(mutex_);
    count = slots_.size();
  }
  // All that will be needed, since a replica must be replaced also while descriptors are scarce.
  stop_event_ = MakeEvent();
  if (!stop_event_.valid()) return ErrnoStatus(errno, "eventfd");
  MILLRACE_RETURN_IF_ERROR(MakeStopEvents(options_.replicas.size()));
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
  const std::vector<TensorSpec>& outputs = options_.signature->outputs();
  const bool divisible = std::all_of(outputs.begin(), outputs.end(), [](const TensorSpec& output) {
    return ElementCount(output.dims).has_value();
  });
  if (options_.most_rows > 0 && options_.most_rows < options_.signature->max_batch_size() &&
      divisible) {
    dispatcher_->LimitRows(options_.most_rows);
  }
  template_thread_ = std::make_unique<Thread>("template", [this] { KeepTemplate(); });
  {
    MutexLock lock(mutex_);
    while (!loaded_once_) changed_.Wait(mutex_);
    MILLRACE_RETURN_IF_ERROR(template_state_);
  }
  for (size_t i = 0; i < static_cast<size_t>(options_.start); ++i) Add(i, options_.replicas[i]);
  MutexLock lock(mutex_);
  const auto is_starting = [](const Slot& slot) { return slot.is_starting(); };
  while (std::any_of(slots_.begin(), slots_.end(), is_starting)) changed_.Wait(mutex_);
  started_ = true;
  if (options_.scaling) {
    scaler_thread_ = std::make_unique<Thread>("scaler", [this] { KeepScaled(); });
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
    for (const Slot& slot : slots_) {
      if (slot.in_use()) slot.replica->Stop();
    }
  }
  SignalEvent(stop_event_.get());
  scaler_thread_.reset();  // Nobody grows the pool any more.
  template_thread_.reset();
  const auto count = static_cast<size_t>(replicas());
  for (size_t i = 0; i < count; ++i) Remove(i, absl::InfinitePast());
}

// ---- Growing and shrinking ----

absl::Status ReplicaPool::MakeStopEvents(size_t slots) {
  MutexLock lock(mutex_);
  while (stop_events_.size() < slots) {
    UniqueFd event = MakeEvent();
    if (!event.valid()) return ErrnoStatus(errno, "eventfd");
    stop_events_.push_back(std::move(event));
  }
  return absl::OkStatus();
}

void ReplicaPool::Add(size_t slot, const ReplicaPlacement& placement) {
  MutexLock lock(mutex_);  // The replica's thread waits for it before it tells its state.
  slots_[slot].placement = placement;
  slots_[slot].replica = std::make_unique<Replica>(
      Replica::Options{.index = static_cast<int>(slot),
                       .stop_event = stop_events_[slot].get(),
                       .placement = placement,
                       .start_timeout = options_.load_timeout,
                       .backoff = options_.backoff},
      Replica::Context{
          .signature = options_.signature.get(),
          .memory = memory_.get(),
          .dispatcher = dispatcher_.get(),
          .metrics = context_.metrics,
          .clock = context_.clock,
          .limit = &limit_,
          .fork = [this](const ForkCommand& command,
                         const std::string& name) { return Fork(command, name); },
          .on_warm = [this](const std::vector<int64_t>& warmup_ns,
                            ReplicaKind kind) { TellCosts(warmup_ns, kind); },
          .on_state = [this](int replica,
                             const absl::Status& state) { SetReplicaState(replica, state); }});
}

absl::Status ReplicaPool::WaitUntilSettled(size_t slot, absl::Time deadline) {
  MutexLock lock(mutex_);
  while (slots_[slot].is_starting() && !stopping_ && !moves_stopped_ &&
         context_.clock->Now() < deadline) {
    context_.clock->WaitUntil(changed_, mutex_, deadline);
  }
  return moves_stopped_ && slots_[slot].is_starting() ? MovesStopped() : StateOf(slots_[slot]);
}

absl::Status ReplicaPool::WaitUntilTried(size_t slot, absl::Time deadline) {
  MutexLock lock(mutex_);
  while (!slots_[slot].tried && !stopping_ && !moves_stopped_ && context_.clock->Now() < deadline) {
    context_.clock->WaitUntil(changed_, mutex_, deadline);
  }
  return moves_stopped_ && !slots_[slot].tried ? MovesStopped() : StateOf(slots_[slot]);
}

void ReplicaPool::Remove(size_t slot, absl::Time deadline) {
  Replica* replica;
  {
    MutexLock lock(mutex_);
    replica = slots_[slot].replica.get();
  }
  if (replica == nullptr) return;
  replica->Retire(absl::InfinitePast());
  {
    MutexLock lock(mutex_);
    changed_.NotifyAll();  // It may wait for a template.
  }
  replica->Retire(deadline);
  Slot removed;  // Destroyed without the lock, which the replica's thread takes.
  MutexLock lock(mutex_);
  std::swap(removed, slots_[slot]);
  NoteReadiness();
}

absl::Status ReplicaPool::Grow(size_t from, size_t to, absl::Time deadline) {
  for (size_t i = from; i < to; ++i) Add(i, PlaceOf(i));
  absl::Status failed;
  for (size_t i = from; i < to; ++i) {
    const absl::Status state = WaitUntilSettled(i, deadline);
    if (failed.ok()) failed = OfReplica(i, state);
  }
  if (failed.ok()) return failed;
  // Who can't start is given up, and those after it, since the replicas in use are the first.
  size_t served = from;
  {
    MutexLock lock(mutex_);
    while (served < to && slots_[served].state.ok()) ++served;
  }
  for (size_t i = to; i-- > served;) Remove(i, deadline);
  return failed;
}

absl::Status ReplicaPool::Resize(int count, absl::Duration timeout) {
  const absl::Time deadline = context_.clock->Now() + timeout;
  MutexLock one_at_a_time(resizing_);
  return ResizeTo(count, deadline);
}

absl::Status ReplicaPool::ResizeTo(int count, absl::Time deadline) {
  if (count < 1 || count > most_replicas()) {
    return absl::InvalidArgumentError(absl::StrCat("model '", options_.signature->model_name(),
                                                   "' can have 1 to ", most_replicas(),
                                                   " replicas; asked for ", count));
  }
  MILLRACE_RETURN_IF_ERROR(CheckMoves());
  const size_t before = static_cast<size_t>(replicas());
  const size_t after = static_cast<size_t>(count);
  const absl::Time begin = context_.clock->Now();
  for (size_t i = before; i-- > after;) Remove(i, deadline);
  const absl::Status grown = Grow(before, after, deadline);
  if (before != after) {
    LogInfo("model '", options_.signature->model_name(), "' version ",
            options_.signature->version(), " has ", replicas(), " replicas instead of ", before,
            ", after ", absl::FormatDuration(context_.clock->Now() - begin));
  }
  return grown;
}

absl::Status ReplicaPool::Restart(absl::Duration timeout) {
  const absl::Time deadline = context_.clock->Now() + timeout;
  MutexLock one_at_a_time(resizing_);
  const size_t count = static_cast<size_t>(replicas());
  for (size_t i = 0; i < count; ++i) {
    MILLRACE_RETURN_IF_ERROR(CheckMoves());
    MILLRACE_RETURN_IF_ERROR(Replace(i, deadline));
  }
  return absl::OkStatus();
}

void ReplicaPool::StopMoves() {
  MutexLock lock(mutex_);
  moves_stopped_ = true;
  changed_.NotifyAll();
}

absl::Status ReplicaPool::CheckMoves() const {
  MutexLock lock(mutex_);
  return moves_stopped_ ? MovesStopped() : absl::OkStatus();
}

absl::Status ReplicaPool::Replace(size_t slot, absl::Time deadline) {
  Remove(slot, deadline);
  Add(slot, PlaceOf(slot));
  const absl::Status state = WaitUntilSettled(slot, deadline);
  return OfReplica(slot, state);  // Where it can't start it goes on trying.
}

absl::Status ReplicaPool::Move(std::vector<ReplicaPlacement> places, int start,
                               absl::Duration timeout) {
  const absl::Time begin = context_.clock->Now();
  const absl::Time deadline = begin + timeout;
  MutexLock one_at_a_time(resizing_);
  MILLRACE_RETURN_IF_ERROR(CheckMoves());
  const int has = replicas();
  const bool keeps_number = options_.scaling || has != planned_;
  {
    MutexLock lock(mutex_);
    places.resize(std::min(places.size(), slots_.size() - 1));
  }
  // For all of them: the pool may grow to their number later.
  MILLRACE_RETURN_IF_ERROR(MakeStopEvents(places.size()));
  {
    MutexLock lock(mutex_);
    places_ = std::move(places);
  }
  const int count = std::clamp(keeps_number ? has : start, 1, most_replicas());
  const auto before = static_cast<size_t>(has);
  const auto after = static_cast<size_t>(count);
  if (!keeps_number || count != has) planned_ = count;
  for (size_t i = before; i-- > after;) Remove(i, deadline);
  const absl::StatusOr<int> moved = MoveFirst(std::min(before, after), deadline);
  for (size_t i = before; i < after; ++i) Add(i, PlaceOf(i));
  absl::Status failed = moved.status();
  for (size_t i = before; i < after; ++i) {  // Who can't start goes on trying.
    const absl::Status state = WaitUntilSettled(i, deadline);
    if (failed.ok()) failed = OfReplica(i, state);
  }
  if (options_.log_moves && (before != after || moved.value_or(0) > 0)) {
    LogInfo("model '", options_.signature->model_name(), "' version ",
            options_.signature->version(), " has ", after, " replicas instead of ", before,
            ", and has moved ", moved.value_or(0), ", after ",
            absl::FormatDuration(context_.clock->Now() - begin));
  }
  return failed;
}

bool ReplicaPool::IsInPlace(const Slot& slot, const ReplicaPlacement& place) {
  if (slot.placement != place) return false;
  const pid_t pid = slot.replica->pid();
  if (place.cpus.empty() || pid == 0) return true;
  // The kernel may have moved it when the cpuset changed.
  const std::vector<int> cpus = CpusOf(pid);
  return cpus.empty() || cpus == place.cpus;
}

absl::StatusOr<int> ReplicaPool::MoveFirst(size_t count, absl::Time deadline) {
  std::vector<size_t> elsewhere;
  {
    MutexLock lock(mutex_);
    for (size_t i = 0; i < count; ++i) {
      if (!IsInPlace(slots_[i], places_[i])) elsewhere.push_back(i);
    }
  }
  if (elsewhere.empty()) return 0;
  // One more meanwhile: it also shows that a replica can start before any is taken away.
  const size_t more = static_cast<size_t>(replicas());
  MILLRACE_RETURN_IF_ERROR(MakeStopEvents(more + 1));
  Add(more, PlaceOf(elsewhere.front()));
  absl::Status state = WaitUntilTried(more, deadline);
  for (size_t i = 0; i < elsewhere.size() && state.ok(); ++i) {
    state = CheckMoves();
    if (state.ok()) state = Replace(elsewhere[i], deadline);
  }
  Remove(more, deadline);
  if (!state.ok()) return state;
  return static_cast<int>(elsewhere.size());
}

ReplicaPlacement ReplicaPool::PlaceOf(size_t slot) const {
  MutexLock lock(mutex_);
  return places_[slot];
}

void ReplicaPool::KeepScaled() {
  ReplicaScaler scaler(*options_.scaling);
  for (;;) {
    {
      MutexLock lock(mutex_);
      const absl::Time next = context_.clock->Now() + kScalingInterval;
      while (!stopping_ && context_.clock->Now() < next) {
        context_.clock->WaitUntil(changed_, mutex_, next);
      }
      if (stopping_) return;
      if (template_ == nullptr) continue;  // None could start.
    }
    Scale(scaler);
  }
}

void ReplicaPool::Scale(ReplicaScaler& scaler) {
  MutexLock one_at_a_time(resizing_);  // What is decided holds until it is done.
  const Dispatcher::Gauges gauges = dispatcher_->gauges();
  const int now_has = replicas();
  const int wanted =
      std::min(scaler.Decide(now_has, gauges.utilisation, context_.clock->Now()), most_replicas());
  if (wanted == now_has) return;
  const absl::Duration timeout = wanted > now_has ? options_.load_timeout : kShrinkTimeout;
  const absl::Status resized = ResizeTo(wanted, context_.clock->Now() + timeout);
  if (!resized.ok() && !absl::IsCancelled(resized)) {
    LogWarning("model '", options_.signature->model_name(), "' can't have ", wanted,
               " replicas: ", std::string(resized.message()));
  }
}

// ---- The template ----

void ReplicaPool::KeepTemplate() {
  RestartBackoff backoff(options_.backoff);
  absl::BitGen random;
  for (bool first = true;; first = false) {
    LoadTemplate(first && options_.background);
    const absl::Time loaded_at = context_.clock->Now();
    std::shared_ptr<ModelTemplate> loaded;
    {
      MutexLock lock(mutex_);
      loaded_once_ = true;
      changed_.NotifyAll();
      loaded = template_;
      if (loaded == nullptr && first) return;  // The first load failed: Create() says.
    }
    if (loaded != nullptr) loaded->WatchUntilDeath(stop_event_.get());
    MutexLock lock(mutex_);
    if (stopping_) {
      template_.reset();
      return;
    }
    const absl::Time now = context_.clock->Now();
    const absl::Duration pause =
        backoff.NextPause(loaded == nullptr ? absl::ZeroDuration() : now - loaded_at, random);
    if (loaded != nullptr) {
      LoseTemplate(absl::StrCat("its template process ", loaded->Bury(), " and is loaded again"));
      ReapStrangers();
    } else {
      LoseTemplate(absl::StrCat("its template can't be loaded again: ", template_state_.message(),
                                "; the next attempt is in ",
                                absl::FormatDuration(absl::Ceil(pause, absl::Milliseconds(1)))));
    }
    LogWarning("model '", options_.signature->model_name(), "' version ",
               options_.signature->version(), ": ", std::string(template_state_.message()));
    const absl::Time until = now + pause;
    while (!stopping_ && context_.clock->Now() < until) {
      context_.clock->WaitUntil(changed_, mutex_, until);
    }
    if (stopping_) return;
  }
}

LoadCommand ReplicaPool::MakeLoadCommand(bool background) const {
  const ModelSignature& signature = *options_.signature;
  LoadCommand command = {.mode = options_.mode,
                         .model_name = signature.model_name(),
                         .version = signature.version_number(),
                         .max_batch_size = signature.max_batch_size(),
                         .inputs = signature.inputs(),
                         .outputs = signature.outputs(),
                         .optimize = options_.optimize,
                         .inference_mode = options_.inference_mode,
                         .flush_denormals = options_.flush_denormals,
                         .deterministic = options_.deterministic,
                         .inter_op_threads = options_.inter_op_threads,
                         .warmup = options_.warmup,
                         .further_batch_sizes = options_.further_batch_sizes,
                         .background = background,
                         .check_batching = options_.batch_check != BatchCheck::kUnchecked,
                         .sandbox = options_.sandbox,
                         .memory_limit_bytes = options_.memory_limit_bytes,
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
                                      .cancel_event = LoadEndsBy()},
                                     MakeLoadCommand(background),
                                     {.model = options_.model_file.get(),
                                      .memory = memory_->fd(),
                                      .warmup_data = warmup_data_.get()},
                                     &reply);
  // In the background runs stand still while others need the cores, so their times say nothing.
  if (!background) TellCosts(reply.warmup_ns, ReplicaKind::kCpu);
  for (const std::string& note : reply.notes) {
    LogInfo("model '", options_.signature->model_name(), "' version ",
            options_.signature->version(), ": ", note);
  }
  for (const std::string& warning : reply.warnings) {
    LogWarning("model '", options_.signature->model_name(), "' version ",
               options_.signature->version(), ": ", warning);
  }
  const absl::Status state = loaded.ok() ? Heed(reply.batching) : loaded.status();
  MutexLock lock(mutex_);
  template_state_ = state;
  if (!state.ok()) return;
  template_ = *std::move(loaded);
  for (Slot& slot : slots_) slot.waits = false;
}

int ReplicaPool::LoadEndsBy() const {
  MutexLock lock(mutex_);
  return loaded_once_ ? stop_event_.get() : options_.cancel_event;
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

absl::StatusOr<ForkedReplica> ReplicaPool::Fork(ForkCommand command, const std::string& name) {
  {
    MutexLock lock(mutex_);
    command.rehearses = !started_;
  }
  std::shared_ptr<ModelTemplate> from;
  for (;;) {
    MILLRACE_ASSIGN_OR_RETURN(from, WaitForTemplate(static_cast<size_t>(command.mailbox), from));
    absl::StatusOr<ForkedReplica> forked = from->Fork(command, name);
    if (forked.ok() || !from->is_lost()) return forked;
  }
}

absl::StatusOr<std::shared_ptr<ModelTemplate>> ReplicaPool::WaitForTemplate(
    size_t slot, const std::shared_ptr<ModelTemplate>& lost) {
  MutexLock lock(mutex_);
  if (lost != nullptr && template_ == lost) {
    LoseTemplate("its template process has gone, or doesn't answer");
  }
  const auto is_ending = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return !slots_[slot].in_use() || slots_[slot].replica->is_ending();
  };
  while (template_ == nullptr && !is_ending()) {
    if (!std::exchange(slots_[slot].waits, true)) {
      NoteReadiness();
      changed_.NotifyAll();
    }
    changed_.Wait(mutex_);
  }
  if (is_ending()) return absl::CancelledError("the replica is to end");
  return template_;
}

void ReplicaPool::LoseTemplate(const std::string& why) {
  template_.reset();
  template_state_ = absl::UnavailableError(why);
  NoteReadiness();
}

// ---- State ----

void ReplicaPool::SetReplicaState(int replica, const absl::Status& state) {
  {
    MutexLock lock(mutex_);
    Slot& slot = slots_[static_cast<size_t>(replica)];
    if (slot.replica == nullptr) return;  // It is being removed.
    slot.state = state;
    slot.tried = true;
    if (!state.ok()) {
      if (losses_.size() == kMostLosses) losses_.pop_front();
      losses_.push_back({context_.clock->Now(), replica, std::string(state.message())});
    }
    NoteReadiness();
    changed_.NotifyAll();
  }
  if (context_.on_change) context_.on_change();
}

void ReplicaPool::NoteReadiness() {
  const absl::Status error = FirstError();
  unready_since_ =
      error.ok() ? absl::InfiniteFuture() : std::min(unready_since_, context_.clock->Now());
  // What an operator restarts, or what is just being loaded, may take its time.
  const auto is_starting = [](const Slot& slot) { return slot.is_starting(); };
  if (error.ok() || !slots_.front().in_use() ||
      std::any_of(slots_.begin(), slots_.end(), is_starting)) {
    return;
  }
  dispatcher_->LackReplicas(
      absl::UnavailableError(absl::StrCat("model '", options_.signature->model_name(), "' version ",
                                          options_.signature->version(),
                                          " has no replica that can serve: ", error.message())),
      unready_since_ + options_.unhealthy_after);
}

absl::Status ReplicaPool::FirstError() const {
  absl::Status first = absl::UnavailableError("has no replicas");
  for (auto slot = slots_.rbegin(); slot != slots_.rend(); ++slot) {
    if (!slot->in_use()) continue;
    if (slot->state.ok()) return absl::OkStatus();
    first = StateOf(*slot);
  }
  return first;
}

int ReplicaPool::replicas() const {
  MutexLock lock(mutex_);
  return static_cast<int>(std::count_if(slots_.begin(), slots_.end(),
                                        [](const Slot& slot) { return slot.replica != nullptr; }));
}

int ReplicaPool::most_replicas() const {
  MutexLock lock(mutex_);
  return static_cast<int>(places_.size());
}

int ReplicaPool::ready_replicas() const {
  MutexLock lock(mutex_);
  return static_cast<int>(std::count_if(slots_.begin(), slots_.end(),
                                        [](const Slot& slot) { return slot.state.ok(); }));
}

std::string ReplicaPool::single_rows() const {
  MutexLock lock(mutex_);
  return single_rows_;
}

absl::Status ReplicaPool::readiness() const {
  const Dispatcher::Gauges gauges = dispatcher_->gauges();
  ModelSigns signs = {.replicas = absl::OkStatus(),
                      .unready_for = absl::ZeroDuration(),
                      .oldest_age = gauges.oldest_age,
                      .silence = context_.clock->Now() - gauges.last_finish,
                      .replica_due = gauges.replica_due};
  for (const ReplicaInfo& replica : List()) signs.replica_due |= replica.overdue;
  const absl::Duration stalled_after = limit_.Usual() + options_.dispatch.policy.max_queue_delay;
  MutexLock lock(mutex_);
  signs.replicas = FirstError();
  signs.unready_for = context_.clock->Now() - unready_since_;
  return HealthOf(signs,
                  {.unhealthy_after = options_.unhealthy_after, .stalled_after = stalled_after});
}

absl::Time ReplicaPool::unready_from() const {
  MutexLock lock(mutex_);
  return unready_since_ + options_.unhealthy_after;
}

std::vector<ReplicaPool::ReplicaInfo> ReplicaPool::List() const {
  MutexLock lock(mutex_);
  std::vector<ReplicaInfo> list;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    if (slot.replica == nullptr) continue;
    const pid_t pid = slot.replica->pid();  // 0 for a moment before its state says so.
    list.push_back({.index = static_cast<int>(i),
                    .pid = pid,
                    .state = pid > 0 || !slot.state.ok()
                                 ? StateOf(slot)
                                 : absl::UnavailableError("its process has ended"),
                    .busy_for = slot.replica->busy_for(),
                    .overdue = slot.replica->overdue(),
                    .placement = slot.placement});
  }
  return list;
}

ReplicaPool::Glance ReplicaPool::glance() const {
  using State = ModelGauges::Replica::State;
  MutexLock lock(mutex_);
  Glance glance;
  if (template_ != nullptr) glance.pids.push_back(template_->pid());
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    if (slot.state.ok()) ++glance.ready;
    if (!slot.in_use()) continue;
    if (const pid_t pid = slot.replica->pid_seen(); pid > 0) glance.pids.push_back(pid);
    if (const auto busy = slot.replica->busy_seen()) glance.busy_for.push_back(*busy);
    const bool starts = slot.is_starting();
    glance.replicas.push_back({.index = static_cast<int>(i),
                               .device = slot.placement.device == DeviceKind::kGpu
                                             ? absl::StrCat("gpu", slot.placement.device_index)
                                             : "cpu",
                               .state = slot.state.ok() ? State::kReady
                                        : starts        ? State::kStarting
                                                        : State::kFailed});
  }
  return glance;
}

std::vector<ReplicaPool::Lane> ReplicaPool::lanes() const {
  MutexLock lock(mutex_);
  std::vector<Lane> lanes;
  for (size_t i = 0; i < slots_.size(); ++i) {
    const Slot& slot = slots_[i];
    if (!slot.in_use()) continue;
    lanes.push_back({.index = static_cast<int>(i),
                     .pid = slot.replica->pid_seen(),
                     .state = StateOf(slot),
                     .busy_for = slot.replica->busy_seen(),
                     .rows = slot.replica->rows_seen(),
                     .placement = slot.placement});
  }
  return lanes;
}

std::vector<ReplicaPool::Loss> ReplicaPool::recent_losses() const {
  MutexLock lock(mutex_);
  return {losses_.begin(), losses_.end()};
}

std::vector<pid_t> ReplicaPool::pids() const {
  MutexLock lock(mutex_);
  std::vector<pid_t> pids = {template_ == nullptr ? 0 : template_->pid()};
  for (const Slot& slot : slots_) {
    if (slot.replica != nullptr) pids.push_back(slot.replica->pid());
  }
  return pids;
}

}  // namespace millrace
