// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/replica/model_template.h"

#include <sys/eventfd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"

namespace millrace {
namespace {

constexpr absl::Duration kForkTimeout = absl::Seconds(30);

}  // namespace

absl::StatusOr<std::unique_ptr<ModelTemplate>> ModelTemplate::Start(
    const std::string& worker_program, const LoadCommand& command, int model_fd, int memory_fd,
    absl::Duration timeout, LoadedReply* reply) {
  MILLRACE_ASSIGN_OR_RETURN(auto sockets, ControlSocket::CreatePair());
  auto& [ours, theirs] = sockets;
  MILLRACE_ASSIGN_OR_RETURN(ChildProcess process, ChildProcess::Spawn(worker_program, {}, theirs));
  theirs.release();  // Only the worker holds that end now, so its death can be seen.
  const absl::Status sent = ours.Send(ToJson(command), {model_fd, memory_fd});
  const absl::StatusOr<ControlMessage> message =
      sent.ok() ? ours.Receive(timeout) : absl::StatusOr<ControlMessage>(sent);
  if (absl::IsUnavailable(message.status())) {
    return absl::UnavailableError(
        absl::StrCat("the worker process that was to load the model ", process.KillAndReap()));
  }
  if (absl::IsDeadlineExceeded(message.status())) {
    return absl::DeadlineExceededError(
        absl::StrCat("loading the model took longer than ", absl::FormatDuration(timeout)));
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
