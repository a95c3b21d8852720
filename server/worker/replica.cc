// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/replica.h"

#include <sys/eventfd.h>

#include <cstdint>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/log.h"
#include "server/base/status.h"
#include "server/channel/mailbox.h"
#include "server/worker/batch_runner.h"
#include "server/worker/devices.h"
#include "server/worker/process.h"
#include "server/worker/threading.h"

namespace millrace {
namespace {

// Where the config sets no limit, a replica may take twice what it has when it is warm, and so much
// more.
constexpr uint64_t kHeadroom = uint64_t{4} << 30;

absl::Status LimitOwnMemory(const LoadCommand& load) {
  const uint64_t needed = PrivateMemory();
  if (load.memory_limit_bytes == 0) return LimitMemory(2 * needed + kHeadroom);
  if (needed <= load.memory_limit_bytes) return LimitMemory(load.memory_limit_bytes);
  return absl::ResourceExhaustedError(
      absl::StrCat("once it is warm a replica has ", needed,
                   " bytes of private memory, but the config's memory_limit_bytes is ",
                   load.memory_limit_bytes, "; raise it"));
}

// The device it computes on, once it is ready.
absl::StatusOr<c10::Device> GetReady(const ReplicaParts& parts, Notes& notes) {
  if (parts.fork.mailbox < 0 ||
      static_cast<size_t>(parts.fork.mailbox) >= parts.memory.mailboxes()) {
    return absl::InternalError("The server named a mailbox that its memory doesn't have.");
  }
  MILLRACE_RETURN_IF_ERROR(parts.sandbox.Confine(Sandbox::Role::kReplica));
  MILLRACE_RETURN_IF_ERROR(PinTo(parts.fork.cpus));
  StartTeam(parts.fork.threads);
  MILLRACE_ASSIGN_OR_RETURN(const c10::Device device, UseDevice(parts.fork.device_index));
  if (parts.load.on_gpu) {
    MILLRACE_RETURN_IF_ERROR(parts.model.Prepare(device, notes));
    // With samples, the warm-up compares; on a CPU the template has done either.
    if (parts.load.warmup.empty()) MILLRACE_RETURN_IF_ERROR(parts.model.CheckResultKinds());
  }
  if (!parts.warm) MILLRACE_RETURN_IF_ERROR(parts.model.WarmUp(notes));
  if (parts.warm && parts.fork.rehearses) parts.model.Rehearse();
  if (!parts.load.on_gpu) MILLRACE_RETURN_IF_ERROR(LimitOwnMemory(parts.load));
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
  UniqueFd control = parts.control.release();
  KeepDescriptors({&control, &parts.completion});
  parts.control = ControlSocket(std::move(control));
  ReadyReply reply;
  const absl::StatusOr<c10::Device> device = GetReady(parts, reply.notes);
  reply.status = device.status();
  if (!parts.warm) reply.warmup_ns = parts.model.warmup_ns();
  if (!parts.control.Send(ToJson(reply)).ok() || !reply.status.ok()) return;
  Serve(parts, *device);
}

}  // namespace millrace
