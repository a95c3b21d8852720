// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/replica.h"

#include <sys/eventfd.h>

#include <utility>

#include "server/base/log.h"
#include "server/base/status.h"
#include "server/channel/mailbox.h"
#include "server/worker/batch_runner.h"
#include "server/worker/devices.h"
#include "server/worker/process.h"
#include "server/worker/threading.h"

namespace millrace {
namespace {

// The device it computes on, once it is ready.
absl::StatusOr<c10::Device> GetReady(const ReplicaParts& parts, Notes& notes) {
  if (parts.fork.mailbox < 0 ||
      static_cast<size_t>(parts.fork.mailbox) >= parts.memory.mailboxes()) {
    return absl::InternalError("The server named a mailbox that its memory doesn't have.");
  }
  MILLRACE_RETURN_IF_ERROR(PinTo(parts.fork.cpus));
  StartTeam(parts.fork.threads);
  MILLRACE_ASSIGN_OR_RETURN(const c10::Device device, UseDevice(parts.fork.device_index));
  if (parts.load.on_gpu) MILLRACE_RETURN_IF_ERROR(parts.model.Prepare(device, notes));
  if (!parts.warm) MILLRACE_RETURN_IF_ERROR(parts.model.WarmUp(notes));
  return device;
}

// Returns where the device is broken, with a batch that has not completed: the server runs it again
// elsewhere.
void Serve(const ReplicaParts& parts, c10::Device device) {
  Mailbox mailbox(parts.memory.mailbox(static_cast<size_t>(parts.fork.mailbox)));
  BatchRunner runner(parts.load, parts.model);
  for (;;) {
    const uint32_t buffer = mailbox.WaitForBatch();
    const bool ok = runner.Run({parts.memory.buffer_begin(buffer), parts.memory.buffer_bytes()});
    if (!ok && !device.is_cpu() && !StillComputes(device)) {
      return LogError("GPU ", device.index(), " fails whatever it is asked; this process ends");
    }
    if (mailbox.Complete()) eventfd_write(parts.completion.get(), 1);
  }
}

}  // namespace

void RunReplica(ReplicaParts parts) {
  NameProcess("replica");
  WriteTo(std::move(parts.output));
  if (!DieWithServer(parts.load.server_pid).ok()) return;
  VolunteerForOomKiller();
  ReadyReply reply;
  const absl::StatusOr<c10::Device> device = GetReady(parts, reply.notes);
  reply.status = device.status();
  if (!parts.warm) reply.warmup_ns = parts.model.warmup_ns();
  if (!parts.control.Send(ToJson(reply)).ok() || !reply.status.ok()) return;
  Serve(parts, *device);
}

}  // namespace millrace
