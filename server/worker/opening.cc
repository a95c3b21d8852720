// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/opening.h"

#include <sys/stat.h>

#include <cstdint>

#include "server/base/status.h"
#include "server/worker/package.h"
#include "server/worker/process.h"
#include "server/worker/threading.h"

namespace millrace {
namespace {

// Where the config sets no limit, a template may take so many times the size of the model's file,
// and so much more.
constexpr uint64_t kFileSizes = 8;
constexpr uint64_t kHeadroom = uint64_t{16} << 30;

absl::Status LimitOwnMemory(const LoadCommand& command, int model_fd) {
  struct stat file = {};
  fstat(model_fd, &file);
  const auto size = static_cast<uint64_t>(file.st_size);
  const uint64_t limit =
      command.memory_limit_bytes > 0 ? command.memory_limit_bytes : size * kFileSizes + kHeadroom;
  return LimitMemory(limit, /*mapped=*/size * kFileSizes);  // A package may be packed.
}

}  // namespace

absl::Status ShutInToOpen(const LoadCommand& command, int model_fd, Sandbox& sandbox) {
  MILLRACE_RETURN_IF_ERROR(sandbox.GiveUpPrivileges());
  MILLRACE_RETURN_IF_ERROR(DieWithServer(command.server_pid));
  if (!command.on_gpu) {
    MILLRACE_RETURN_IF_ERROR(LimitOwnMemory(command, model_fd));
  }
  StaySingleThreaded(command.inter_op_threads);
  const absl::Status inspected = RunInChild([&] {
    const absl::Status confined = sandbox.Confine(Sandbox::Role::kInspector);
    return confined.ok() ? InspectModelFile(command, model_fd) : confined;
  });
  MILLRACE_RETURN_IF_ERROR(Annotate(inspected, "inspecting the model's file"));
  return sandbox.Confine(Sandbox::Role::kTemplate);
}

}  // namespace millrace
