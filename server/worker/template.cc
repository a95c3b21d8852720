// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/template.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"
#include "server/worker/batch_check.h"
#include "server/worker/mode_check.h"
#include "server/worker/opening.h"
#include "server/worker/process.h"
#include "server/worker/replica.h"

namespace millrace {

absl::Status Template::Run() {
  NameProcess("template");
  IgnoreStopSignals();
  VolunteerForOomKiller();
  MILLRACE_ASSIGN_OR_RETURN(ControlMessage message, control_.Receive());
  if (message.fds.size() < 2 || message.fds.size() > 3) {
    return absl::InternalError(
        "A load command must bring the model file and its memory, and perhaps warm-up data.");
  }
  MILLRACE_ASSIGN_OR_RETURN(command_, FromJson<LoadCommand>(message.text));
  sandbox_.emplace(Sandbox::Options{
      .mode = command_.sandbox, .on_gpu = command_.on_gpu, .folder = command_.folder});
  LoadedReply reply;
  reply.status = Load(message, reply);
  if (reply.status.ok() && !reply.start_over) reply.batching = CheckBatching(reply.notes);
  ReturnFreeMemory();
  if (command_.background) ComeToForeground();
  reply.warnings = sandbox_->gaps();
  if (model_ != nullptr) reply.warmup_ns = model_->warmup_ns();
  message.fds.clear();
  MILLRACE_RETURN_IF_ERROR(control_.Send(ToJson(reply)));
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

absl::Status Template::Load(const ControlMessage& message, LoadedReply& reply) {
  const int model_fd = message.fds[0].get();
  MILLRACE_ASSIGN_OR_RETURN(memory_, ModelMemory::Open(message.fds[1].get()));
  if (message.fds.size() > 2) {
    MILLRACE_ASSIGN_OR_RETURN(warmup_data_, SealedBytes::Map(message.fds[2].get()));
  }
  MILLRACE_RETURN_IF_ERROR(ShutInToOpen(command_, model_fd, *sandbox_));
  MILLRACE_ASSIGN_OR_RETURN(model_,
                            Model::Open(command_, model_fd, warmup_data_.bytes(), reply.notes));
  if (!command_.on_gpu) {
    MILLRACE_RETURN_IF_ERROR(model_->Prepare(c10::Device(c10::kCPU), reply.notes));
    MILLRACE_RETURN_IF_ERROR(WarmUp(reply));
    if (!reply.start_over) MILLRACE_RETURN_IF_ERROR(CheckMode(model_fd, reply.notes));
  }
  if (ThreadCount() <= 1 || reply.start_over) return absl::OkStatus();
  return absl::FailedPreconditionError(
      "the model starts threads while it is loaded, so replicas can't be forked from it");
}

absl::Status Template::WarmUp(LoadedReply& reply) {
  if (command_.load_only) {
    reply.notes.push_back("the model starts threads when it runs, so each replica warms itself");
    return absl::OkStatus();
  }
  MILLRACE_RETURN_IF_ERROR(model_->CheckConfig());
  MILLRACE_RETURN_IF_ERROR(model_->WarmUp(reply.notes));
  warm_ = true;
  reply.start_over = ThreadCount() > 1;
  return absl::OkStatus();
}

absl::Status Template::CheckMode(int model_fd, Notes& notes) {
  const std::string mode = ModeName(command_.mode);
  if (mode.empty()) return absl::OkStatus();
  const absl::Status status =
      warm_ ? RunInChild([&] { return CheckModeAgrees(command_, model_fd, *model_); })
            : absl::UnknownError("the model starts threads when it runs");
  if (absl::IsFailedPrecondition(status)) {
    return Annotate(status, absl::StrCat("the model can't compute in ", mode, ", so take ",
                                         command_.mode.bfloat16 ? "bfloat16" : "channels_last",
                                         command_.mode.bfloat16 && command_.mode.channels_last
                                             ? " or channels_last"
                                             : "",
                                         " away"));
  }
  if (!status.ok()) {
    notes.push_back(absl::StrCat("whether it computes the same in ", mode,
                                 " is inconclusive, so it does: ", status.message()));
  }
  return absl::OkStatus();
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

absl::StatusOr<pid_t> Template::Fork(ControlMessage message) {
  MILLRACE_ASSIGN_OR_RETURN(const ForkCommand fork, FromJson<ForkCommand>(message.text));
  if (message.fds.size() != 3 || model_ == nullptr) {
    return absl::InternalError(
        "A fork command must bring the replica's socket, event and output, after a load that "
        "succeeded.");
  }
  return ForkToSubreaper([&] {
    RunReplica({.load = command_,
                .fork = fork,
                .model = *model_,
                .memory = *memory_,
                .sandbox = *sandbox_,
                .warm = warm_,
                .control = ControlSocket(std::move(message.fds[0])),
                .completion = std::move(message.fds[1]),
                .output = std::move(message.fds[2])});
  });
}

}  // namespace millrace
