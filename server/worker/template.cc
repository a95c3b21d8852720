// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/template.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/base/status.h"
#include "server/worker/batch_check.h"
#include "server/worker/process.h"
#include "server/worker/replica.h"
#include "server/worker/threading.h"

namespace millrace {
namespace {

absl::Status KeepOnExec(int fd) {
  if (fcntl(fd, F_SETFD, 0) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, "keeping a descriptor open");
}

}  // namespace

absl::Status Template::Run() {
  NameProcess("template");
  IgnoreStopSignals();
  MILLRACE_ASSIGN_OR_RETURN(const LoadMessage message, ReceiveLoad());
  MILLRACE_ASSIGN_OR_RETURN(command_, FromJson<LoadCommand>(message.text));
  MILLRACE_RETURN_IF_ERROR(DieWithServer(command_.server_pid));
  LoadedReply loaded;
  loaded.status = Load(message, loaded.notes);
  if (loaded.status.ok()) loaded.batching = CheckBatching(loaded.notes);
  if (command_.background) ComeToForeground();
  MILLRACE_RETURN_IF_ERROR(control_.Send(ToJson(loaded)));
  for (;;) {
    absl::StatusOr<ControlMessage> next = control_.Receive();
    if (!next.ok()) return absl::OkStatus();  // The server needs this template no longer.
    ForkedReply forked;
    const absl::StatusOr<pid_t> pid = Fork(*std::move(next));
    forked.status = pid.status();
    forked.pid = pid.ok() ? *pid : 0;
    MILLRACE_RETURN_IF_ERROR(control_.Send(ToJson(forked)));
  }
}

absl::StatusOr<LoadMessage> Template::ReceiveLoad() {
  if (again_) return *std::exchange(again_, std::nullopt);
  MILLRACE_ASSIGN_OR_RETURN(ControlMessage message, control_.Receive());
  if (message.fds.size() != 2) {
    return absl::InternalError("A load command must bring the model file and its memory.");
  }
  return LoadMessage{.text = std::move(message.text),
                     .model = std::move(message.fds[0]),
                     .memory = std::move(message.fds[1])};
}

absl::Status Template::Load(const LoadMessage& message, Notes& notes) {
  StaySingleThreaded(command_.inter_op_threads);
  MILLRACE_ASSIGN_OR_RETURN(memory_, ModelMemory::Open(message.memory.get()));
  MILLRACE_ASSIGN_OR_RETURN(model_, Model::Open(command_, message.model.get(), notes));
  if (!command_.on_gpu) {
    MILLRACE_RETURN_IF_ERROR(model_->Prepare(c10::Device(c10::kCPU), notes));
    MILLRACE_RETURN_IF_ERROR(WarmUpOrStartOver(message, notes));
  }
  if (ThreadCount() <= 1) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "the model starts threads while it is loaded, so replicas can't be forked from it");
}

absl::Status Template::WarmUpOrStartOver(const LoadMessage& message, Notes& notes) {
  if (load_only_) {
    notes.push_back("the model starts threads when it runs, so each replica warms itself");
    return absl::OkStatus();
  }
  MILLRACE_RETURN_IF_ERROR(model_->CheckConfig());
  MILLRACE_RETURN_IF_ERROR(model_->WarmUp(notes));
  warm_ = true;
  return ThreadCount() <= 1 ? absl::OkStatus() : StartOver(message);
}

absl::Status Template::CheckBatching(Notes& notes) {
  if (!command_.check_batching || command_.max_batch_size < 2) return absl::OkStatus();
  if (!warm_) {
    notes.push_back(
        "whether rows may share a batch isn't checked: it is where the template runs "
        "the model, on a CPU and without threads of the model's own");
    return absl::OkStatus();
  }
  const absl::Status status =
      RunInChild([&] { return CheckRowsAreIndependent(command_, *model_); });
  if (status.ok() || absl::IsFailedPrecondition(status)) return status;
  notes.push_back(absl::StrCat("whether rows may share a batch is inconclusive, so they do: ",
                               status.message()));
  return absl::OkStatus();
}

absl::Status Template::StartOver(const LoadMessage& message) {
  const UniqueFd command(memfd_create("millrace-load-command", 0));
  if (!command.valid()) return ErrnoStatus(errno, "memfd_create");
  if (write(command.get(), message.text.data(), message.text.size()) !=
      static_cast<ssize_t>(message.text.size())) {
    return ErrnoStatus(errno, "keeping the load command");
  }
  for (const int fd : {control_.fd(), message.model.get(), message.memory.get()}) {
    MILLRACE_RETURN_IF_ERROR(KeepOnExec(fd));
  }
  const std::string fds[] = {absl::StrCat(command.get()), absl::StrCat(message.model.get()),
                             absl::StrCat(message.memory.get())};
  const char* const arguments[] = {"millrace-worker", "--load-only",  fds[0].c_str(),
                                   fds[1].c_str(),    fds[2].c_str(), nullptr};
  execv("/proc/self/exe", const_cast<char* const*>(arguments));
  return ErrnoStatus(errno, "starting the template over");
}

absl::StatusOr<pid_t> Template::Fork(ControlMessage message) {
  MILLRACE_ASSIGN_OR_RETURN(const ForkCommand fork, FromJson<ForkCommand>(message.text));
  if (message.fds.size() != 3 || model_ == nullptr) {
    return absl::InternalError(
        "A fork command must bring the replica's socket, event and output, after a load that "
        "succeeded.");
  }
  return ForkToSubreaper([&] {
    control_.release();
    RunReplica({.load = command_,
                .fork = fork,
                .model = *model_,
                .memory = *memory_,
                .warm = warm_,
                .control = ControlSocket(std::move(message.fds[0])),
                .completion = std::move(message.fds[1]),
                .output = std::move(message.fds[2])});
  });
}

absl::StatusOr<LoadMessage> TakeOver(const std::string& command, const std::string& model,
                                     const std::string& memory) {
  int fds[3];
  if (!absl::SimpleAtoi(command, &fds[0]) || !absl::SimpleAtoi(model, &fds[1]) ||
      !absl::SimpleAtoi(memory, &fds[2])) {
    return absl::InvalidArgumentError("--load-only takes the numbers of three descriptors.");
  }
  const UniqueFd text_fd(fds[0]);
  LoadMessage message = {.text = std::string(ControlSocket::kMostBytes, '\0'),
                         .model = UniqueFd(fds[1]),
                         .memory = UniqueFd(fds[2])};
  const ssize_t size = pread(text_fd.get(), message.text.data(), message.text.size(), 0);
  if (size < 0) return ErrnoStatus(errno, "reading the load command");
  message.text.resize(static_cast<size_t>(size));
  return message;
}

}  // namespace millrace
