// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/replica/model_template.h"

#include <poll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"

namespace millrace {
namespace {

constexpr absl::Duration kForkTimeout = absl::Seconds(30);

// How long a load in the background has to do with what others leave over.
constexpr absl::Duration kBackgroundTime = absl::Minutes(1);

// Waits until `socket` has something to read. DEADLINE_EXCEEDED after `timeout`, CANCELLED where
// `cancel_event` (-1: none) is readable before.
absl::Status WaitForReply(const ControlSocket& socket, int cancel_event, absl::Duration timeout) {
  pollfd entries[] = {{.fd = socket.fd(), .events = POLLIN, .revents = 0},
                      {.fd = cancel_event, .events = POLLIN, .revents = 0}};
  const auto milliseconds =
      static_cast<int>(std::min<int64_t>(absl::ToInt64Milliseconds(timeout), INT_MAX));
  int ready;
  do {
    ready = poll(entries, 2, milliseconds);
  } while (ready < 0 && errno == EINTR);
  if (entries[1].revents != 0) return absl::CancelledError("loading was given up");
  return ready > 0 ? absl::OkStatus() : absl::DeadlineExceededError("no reply came");
}

// Waits for the answer to a load, and sees to it that the process is in the foreground then.
absl::StatusOr<ControlMessage> ReceiveLoaded(const ControlSocket& socket,
                                             const ChildProcess& process,
                                             const ModelTemplate::StartOptions& options) {
  const absl::Duration background =
      options.background ? std::min(kBackgroundTime, options.timeout) : absl::ZeroDuration();
  absl::Status ready = absl::DeadlineExceededError("");
  if (options.background) {
    ready = WaitForReply(socket, options.cancel_event, background);
    process.BringToForeground();
  }
  if (absl::IsDeadlineExceeded(ready)) {
    ready = WaitForReply(socket, options.cancel_event, options.timeout - background);
  }
  MILLRACE_RETURN_IF_ERROR(ready);
  return socket.Receive(absl::ZeroDuration());
}

}  // namespace

absl::StatusOr<std::unique_ptr<ModelTemplate>> ModelTemplate::Start(const StartOptions& options,
                                                                    const LoadCommand& command,
                                                                    int model_fd, int memory_fd,
                                                                    LoadedReply* reply) {
  MILLRACE_ASSIGN_OR_RETURN(auto sockets, ControlSocket::CreatePair());
  auto& [ours, theirs] = sockets;
  MILLRACE_ASSIGN_OR_RETURN(ChildProcess process, ChildProcess::Spawn(options.worker_program, {},
                                                                      theirs, options.background));
  theirs.release();  // Only the worker holds that end now, so its death can be seen.
  const absl::Status sent = ours.Send(ToJson(command), {model_fd, memory_fd});
  const absl::StatusOr<ControlMessage> message =
      sent.ok() ? ReceiveLoaded(ours, process, options) : absl::StatusOr<ControlMessage>(sent);
  if (absl::IsUnavailable(message.status())) {
    return absl::UnavailableError(
        absl::StrCat("the worker process that was to load the model ", process.KillAndReap()));
  }
  if (absl::IsDeadlineExceeded(message.status())) {
    return absl::DeadlineExceededError(
        absl::StrCat("loading the model took longer than ", absl::FormatDuration(options.timeout)));
  }
  MILLRACE_RETURN_IF_ERROR(message.status());
  MILLRACE_ASSIGN_OR_RETURN(*reply, FromJson<LoadedReply>(message->text));
  MILLRACE_RETURN_IF_ERROR(reply->status);
  return std::unique_ptr<ModelTemplate>(new ModelTemplate(std::move(process), std::move(ours)));
}

absl::StatusOr<ForkedReplica> ModelTemplate::Fork(const ForkCommand& command) {
  MILLRACE_ASSIGN_OR_RETURN(auto sockets, ControlSocket::CreatePair());
  auto& [ours, theirs] = sockets;
  UniqueFd event(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (!event.valid()) return ErrnoStatus(errno, "eventfd");
  absl::StatusOr<ControlMessage> message = absl::UnknownError("");
  {
    MutexLock lock(mutex_);
    MILLRACE_RETURN_IF_ERROR(control_.Send(ToJson(command), {theirs.fd(), event.get()}));
    message = control_.Receive(kForkTimeout);
  }
  MILLRACE_RETURN_IF_ERROR(message.status());
  MILLRACE_ASSIGN_OR_RETURN(const ForkedReply reply, FromJson<ForkedReply>(message->text));
  MILLRACE_RETURN_IF_ERROR(reply.status);
  MILLRACE_ASSIGN_OR_RETURN(ChildProcess process, ChildProcess::Adopt(reply.pid));
  return ForkedReplica{std::move(process), std::move(ours), std::move(event)};
}

absl::StatusOr<WorkerDescription> DescribeWorker(const std::string& worker_program) {
  FILE* const pipe = popen(absl::StrCat("'", worker_program, "' --describe").c_str(), "re");
  if (pipe == nullptr) return ErrnoStatus(errno, absl::StrCat("starting ", worker_program));
  std::string text;
  char piece[4096];
  for (size_t size; (size = fread(piece, 1, sizeof(piece), pipe)) > 0;) text.append(piece, size);
  const int ended = pclose(pipe);
  if (ended != 0) {
    return absl::InternalError(
        absl::StrCat("'", worker_program, " --describe' failed (wait status ", ended,
                     "); is it installed beside millrace-server, with its libtorch?"));
  }
  return FromJson<WorkerDescription>(text);
}

}  // namespace millrace
