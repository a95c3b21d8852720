// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/replica/model_inspection.h"

#include <unistd.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/clock.h"
#include "server/base/log.h"
#include "server/base/poll.h"
#include "server/base/status.h"
#include "server/channel/control_socket.h"
#include "server/channel/worker_protocol.h"
#include "server/replica/child_process.h"
#include "server/replica/scratch_folder.h"
#include "server/replica/worker_output.h"

namespace millrace {
namespace {

// Waits for the result, and takes what the worker writes meanwhile. `stage` is what the inspector
// said last that it does.
absl::StatusOr<InspectedReply> ReceiveResult(const ControlSocket& control, WorkerOutput& output,
                                             const std::vector<int>& cancel_events,
                                             absl::Time until, std::string* stage) {
  for (;;) {
    if (Clock::Real().Now() >= until) return absl::DeadlineExceededError("");  // Whatever it says.
    std::vector<pollfd> entries = {{.fd = control.fd(), .events = POLLIN, .revents = 0},
                                   {.fd = output.fd(), .events = POLLIN, .revents = 0}};
    for (const int event : cancel_events) {
      entries.push_back({.fd = event, .events = POLLIN, .revents = 0});
    }
    const int ready = Poll(absl::MakeSpan(entries), until - Clock::Real().Now());
    if (std::any_of(entries.begin() + 2, entries.end(),
                    [](const pollfd& event) { return event.revents != 0; })) {
      return absl::CancelledError("the inspection was told to end");
    }
    if (ready > 0 && entries[1].revents != 0) output.Read();
    if (ready > 0 && entries[0].revents == 0) continue;
    MILLRACE_ASSIGN_OR_RETURN(const ControlMessage message, control.Receive(absl::ZeroDuration()));
    MILLRACE_ASSIGN_OR_RETURN(InspectedReply reply, FromJson<InspectedReply>(message.text));
    if (reply.stage.empty()) return reply;
    *stage = std::move(reply.stage);
  }
}

}  // namespace

absl::StatusOr<Inspection> InspectModel(const InspectionOptions& options, EngineKind engine,
                                        const std::string& name, int model_fd) {
  InspectCommand command = {.engine = engine,
                            .inputs = options.inputs,
                            .max_batch_size = options.max_batch_size,
                            .sandbox = options.sandbox,
                            .server_pid = getpid()};
  std::unique_ptr<ScratchFolder> folder;
  if (engine == EngineKind::kAotInductor) {
    MILLRACE_ASSIGN_OR_RETURN(folder, ScratchFolder::Create(kWorkerUid));
    command.folder = folder->path();
  }
  MILLRACE_ASSIGN_OR_RETURN(auto sockets, ControlSocket::CreatePair());
  auto& [ours, theirs] = sockets;
  MILLRACE_ASSIGN_OR_RETURN(auto pipe, WorkerOutput::Create(absl::StrCat(name, " inspector")));
  auto& [output, worker_end] = pipe;
  MILLRACE_ASSIGN_OR_RETURN(
      ChildProcess process,
      ChildProcess::Spawn(options.worker_program, {kInspectArgument}, theirs, worker_end.get()));
  theirs.release();  // Only the worker holds these ends now, so its death can be seen.
  worker_end.reset();
  MILLRACE_RETURN_IF_ERROR(ours.Send(ToJson(command), {model_fd}));
  std::string stage = "starting";
  const absl::StatusOr<InspectedReply> reply = ReceiveResult(
      ours, output, options.cancel_events, Clock::Real().Now() + options.timeout, &stage);
  if (absl::IsDeadlineExceeded(reply.status())) {
    return absl::DeadlineExceededError(
        absl::StrCat("the model was not inspected within ", absl::FormatDuration(options.timeout),
                     "; it hangs, or needs longer for this: ", stage));
  }
  if (absl::IsUnavailable(reply.status())) {
    const std::string incident = NewIncident();
    const std::string ending = process.KillAndReap();
    output.LogLast(incident);
    return absl::UnavailableError(absl::StrCat("the process that inspects the model ", ending,
                                               " (incident ", incident, ") at this: ", stage));
  }
  MILLRACE_RETURN_IF_ERROR(reply.status());
  for (const std::string& warning : reply->warnings) LogWarning(name, ": ", warning);
  MILLRACE_RETURN_IF_ERROR(reply->status);
  return reply->inspection;
}

}  // namespace millrace
