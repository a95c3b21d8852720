// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/replica/model_template.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/clock.h"
#include "server/base/event_fd.h"
#include "server/base/poll.h"
#include "server/base/status.h"
#include "server/base/unique_fd.h"

namespace millrace {
namespace {

constexpr absl::Duration kForkTimeout = absl::Seconds(10);

// How long a load in the background has to do with what others leave over.
constexpr absl::Duration kBackgroundTime = absl::Minutes(1);

// Waits for the worker's word, and takes what it writes meanwhile. DEADLINE_EXCEEDED after
// `timeout`, CANCELLED where `cancel_event` (-1: none) is readable before.
absl::StatusOr<ControlMessage> ReceiveFirst(const ControlSocket& control, WorkerOutput& output,
                                            int cancel_event, absl::Duration timeout) {
  const absl::Time until = Clock::Real().Now() + timeout;
  for (;;) {
    const absl::Duration left = until - Clock::Real().Now();
    pollfd entries[] = {{.fd = control.fd(), .events = POLLIN, .revents = 0},
                        {.fd = output.fd(), .events = POLLIN, .revents = 0},
                        {.fd = cancel_event, .events = POLLIN, .revents = 0}};
    const int ready = Poll(absl::MakeSpan(entries), left);
    if (ready > 0 && entries[1].revents != 0) output.Read();
    if (ready > 0 && entries[2].revents != 0) return absl::CancelledError("loading was given up");
    if (ready <= 0 || entries[0].revents != 0) {
      return control.Receive(absl::ZeroDuration());
    }
  }
}

// Waits for the answer to a load, and sees to it that the process is in the foreground then.
absl::StatusOr<ControlMessage> ReceiveLoaded(const ControlSocket& control, WorkerOutput& output,
                                             const ChildProcess& process,
                                             const ModelTemplate::StartOptions& options) {
  if (!options.background) {
    return ReceiveFirst(control, output, options.cancel_event, options.timeout);
  }
  const absl::Duration background = std::min(kBackgroundTime, options.timeout);
  absl::StatusOr<ControlMessage> message =
      ReceiveFirst(control, output, options.cancel_event, background);
  process.BringToForeground();
  if (!absl::IsDeadlineExceeded(message.status())) return message;
  return ReceiveFirst(control, output, options.cancel_event, options.timeout - background);
}

std::string Bury(ChildProcess& process, WorkerOutput& output) {
  const std::string incident = NewIncident();
  const std::string ending = process.KillAndReap();
  output.LogLast(incident);
  return absl::StrCat(ending, " (incident ", incident, ")");
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelTemplate>> ModelTemplate::Start(const StartOptions& options,
                                                                    LoadCommand command,
                                                                    const Descriptors& descriptors,
                                                                    LoadedReply* reply) {
  MILLRACE_ASSIGN_OR_RETURN(auto loaded, StartOnce(options, command, descriptors, reply));
  if (!reply->start_over) return loaded;
  command.load_only = true;
  loaded.reset();
  return StartOnce(options, std::move(command), descriptors, reply);
}

absl::StatusOr<std::unique_ptr<ModelTemplate>> ModelTemplate::StartOnce(
    const StartOptions& options, LoadCommand command, const Descriptors& descriptors,
    LoadedReply* reply) {
  MILLRACE_ASSIGN_OR_RETURN(auto sockets, ControlSocket::CreatePair());
  auto& [ours, theirs] = sockets;
  std::unique_ptr<ScratchFolder> folder;
  if (command.mode.engine == EngineKind::kAotInductor) {
    MILLRACE_ASSIGN_OR_RETURN(folder, ScratchFolder::Create(kWorkerUid));
    command.folder = folder->path();
  }
  MILLRACE_ASSIGN_OR_RETURN(
      auto pipe, WorkerOutput::Create(absl::StrCat("model '", command.model_name, "' version ",
                                                   command.version, " template")));
  auto& [output, worker_end] = pipe;
  MILLRACE_ASSIGN_OR_RETURN(
      ChildProcess process,
      ChildProcess::Spawn(options.worker_program, {}, theirs, worker_end.get(),
                          {.background = options.background, .wait = command.mode.wait}));
  theirs.release();  // Only the worker holds these ends now, so its death can be seen.
  worker_end.reset();
  std::vector<int> fds = {descriptors.model, descriptors.memory};
  if (descriptors.warmup_data >= 0) fds.push_back(descriptors.warmup_data);
  const absl::Status sent = ours.Send(ToJson(command), fds);
  const absl::StatusOr<ControlMessage> message = sent.ok()
                                                     ? ReceiveLoaded(ours, output, process, options)
                                                     : absl::StatusOr<ControlMessage>(sent);
  if (absl::IsUnavailable(message.status())) {
    return absl::UnavailableError(absl::StrCat("the worker process that was to load the model ",
                                               millrace::Bury(process, output)));
  }
  if (absl::IsDeadlineExceeded(message.status())) {
    return absl::DeadlineExceededError(
        absl::StrCat("loading the model took longer than ", absl::FormatDuration(options.timeout)));
  }
  MILLRACE_RETURN_IF_ERROR(message.status());
  MILLRACE_ASSIGN_OR_RETURN(*reply, FromJson<LoadedReply>(message->text));
  MILLRACE_RETURN_IF_ERROR(reply->status);
  if (!command.on_gpu) folder.reset();  // What is mapped stays; a GPU's code is loaded later.
  return std::unique_ptr<ModelTemplate>(
      new ModelTemplate(std::move(process), std::move(ours), std::move(output), std::move(folder)));
}

absl::StatusOr<ForkedReplica> ModelTemplate::Fork(const ForkCommand& command, std::string name) {
  MILLRACE_ASSIGN_OR_RETURN(auto sockets, ControlSocket::CreatePair());
  auto& [ours, theirs] = sockets;
  UniqueFd event = MakeEvent();
  if (!event.valid()) return ErrnoStatus(errno, "eventfd");
  MILLRACE_ASSIGN_OR_RETURN(auto pipe, WorkerOutput::Create(std::move(name)));
  auto& [output, worker_end] = pipe;
  absl::StatusOr<ControlMessage> message = absl::UnknownError("");
  {
    MutexLock lock(mutex_);
    const absl::Status sent =
        control_.Send(ToJson(command), {theirs.fd(), event.get(), worker_end.get()});
    if (sent.ok()) message = control_.Receive(kForkTimeout);
    lost_ = sent.ok() ? !message.ok() : absl::IsUnavailable(sent);
    // A late answer must not be taken for that of the next command.
    if (lost_) shutdown(control_.fd(), SHUT_RDWR);
    MILLRACE_RETURN_IF_ERROR(sent);
  }
  MILLRACE_RETURN_IF_ERROR(message.status());
  MILLRACE_ASSIGN_OR_RETURN(const ForkedReply reply, FromJson<ForkedReply>(message->text));
  MILLRACE_RETURN_IF_ERROR(reply.status);
  MILLRACE_ASSIGN_OR_RETURN(ChildProcess process, ChildProcess::Adopt(reply.pid));
  return ForkedReplica{std::move(process), std::move(ours), std::move(event), std::move(output)};
}

bool ModelTemplate::is_lost() const {
  MutexLock lock(mutex_);
  return lost_;
}

void ModelTemplate::WatchUntilDeath(int stop_event) {
  for (;;) {
    // The socket without events: only that the other end has gone. Replies are Fork()'s to read.
    pollfd entries[] = {{.fd = control_.fd(), .events = 0, .revents = 0},
                        {.fd = stop_event, .events = POLLIN, .revents = 0},
                        {.fd = process_.end_fd(), .events = POLLIN, .revents = 0},
                        {.fd = output_.fd(), .events = POLLIN, .revents = 0}};
    if (Poll(absl::MakeSpan(entries), absl::InfiniteDuration()) <= 0) return;
    if (entries[0].revents != 0 || entries[1].revents != 0 || entries[2].revents != 0) return;
    output_.Read();
  }
}

std::string ModelTemplate::Bury() { return millrace::Bury(process_, output_); }

absl::StatusOr<WorkerDescription> DescribeWorker(const std::string& worker_program) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe2");
  const UniqueFd from(ends[0]);
  UniqueFd to(ends[1]);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_adddup2(&files, to.get(), STDOUT_FILENO);
  std::string words[] = {worker_program, "--describe"};
  char* const arguments[] = {words[0].data(), words[1].data(), nullptr};
  pid_t pid = 0;
  const int error = posix_spawn(&pid, worker_program.c_str(), &files, nullptr, arguments, environ);
  posix_spawn_file_actions_destroy(&files);
  if (error != 0) return ErrnoStatus(error, absl::StrCat("starting ", worker_program));
  to.reset();
  std::string text;
  char piece[4096];
  for (ssize_t size; (size = read(from.get(), piece, sizeof(piece))) != 0;) {
    if (size > 0) text.append(piece, static_cast<size_t>(size));
    if (size < 0 && errno != EINTR) break;
  }
  int ended = 0;
  while (waitpid(pid, &ended, 0) < 0 && errno == EINTR) {
  }
  if (ended != 0) {
    return absl::InternalError(
        absl::StrCat("'", worker_program, " --describe' failed (wait status ", ended,
                     "); is it installed beside millrace-server, with its libtorch?"));
  }
  return FromJson<WorkerDescription>(text);
}

}  // namespace millrace
