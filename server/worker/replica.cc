// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/replica.h"

#include <sys/eventfd.h>

#include <utility>

#include "server/base/status.h"
#include "server/channel/mailbox.h"
#include "server/worker/batch_runner.h"
#include "server/worker/devices.h"
#include "server/worker/process.h"
#include "server/worker/threading.h"

namespace millrace {
namespace {

absl::Status GetReady(const ReplicaParts& parts, Notes& notes) {
  if (parts.fork.mailbox < 0 ||
      static_cast<size_t>(parts.fork.mailbox) >= parts.memory.mailboxes()) {
    return absl::InternalError("The server named a mailbox that its memory doesn't have.");
  }
  MILLRACE_RETURN_IF_ERROR(PinTo(parts.fork.cpus));
  StartTeam(parts.fork.threads);
  if (parts.load.on_gpu) {
    MILLRACE_ASSIGN_OR_RETURN(const c10::Device device, UseDevice(parts.fork.device_index));
    MILLRACE_RETURN_IF_ERROR(parts.model.Prepare(device, notes));
  }
  return parts.warm ? absl::OkStatus() : parts.model.WarmUp(notes);
}

[[noreturn]] void ServeForever(const ReplicaParts& parts) {
  Mailbox mailbox(parts.memory.mailbox(static_cast<size_t>(parts.fork.mailbox)));
  BatchRunner runner(parts.load, parts.model);
  for (;;) {
    const uint32_t buffer = mailbox.WaitForBatch();
    runner.Run({parts.memory.buffer_begin(buffer), parts.memory.buffer_bytes()});
    if (mailbox.Complete()) eventfd_write(parts.completion.get(), 1);
  }
}

}  // namespace

void RunReplica(ReplicaParts parts) {
  NameProcess("replica");
  if (!DieWithServer(parts.load.server_pid).ok()) return;
  VolunteerForOomKiller();
  ReadyReply reply;
  reply.status = GetReady(parts, reply.notes);
  if (!parts.warm) reply.warmup_ns = parts.model.warmup_ns();
  if (!parts.control.Send(ToJson(reply)).ok() || !reply.status.ok()) return;
  ServeForever(parts);
}

}  // namespace millrace
