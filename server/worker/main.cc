// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
// The worker: runs one model in processes of its own. millrace-server starts it; people only ask
// it for its version and what it sees of the machine.
#include <sys/stat.h>
#include <torch/version.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "absl/status/status.h"
#include "server/base/log.h"
#include "server/worker/devices.h"
#include "server/worker/model_inspector.h"
#include "server/worker/template.h"

namespace millrace {
namespace {

constexpr char kHelp[] =
    "millrace-worker runs one model for millrace-server, which starts it.\n"
    "\n"
    "  millrace-worker --describe   the libtorch version and the GPUs, as one line of JSON\n"
    "  millrace-worker --version\n"
    "  millrace-worker --help\n";

// Whether the server's control socket is there.
bool StartedByServer() {
  struct stat file = {};
  return fstat(kWorkerControlFd, &file) == 0 && S_ISSOCK(file.st_mode);
}

// Runs a Template or a ModelInspector.
template <typename Process>
int RunForServer() {
  if (!StartedByServer()) {
    std::fputs(kHelp, stderr);
    return 2;
  }
  Process process{ControlSocket(UniqueFd(kWorkerControlFd))};
  const absl::Status status = process.Run();
  if (status.ok() || absl::IsUnavailable(status)) return 0;  // The server has gone, or let us go.
  LogError("The worker ends: ", status.message());
  return 1;
}

int Main(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "";
  if (command == "--help") {
    std::fputs(kHelp, stdout);
  } else if (command == "--version") {
    std::printf("millrace-worker %s (libtorch %s)\n", MILLRACE_VERSION, TORCH_VERSION);
  } else if (command == "--describe") {
    std::printf("%s\n", ToJson(DescribeWorker()).c_str());
  } else if (command.empty()) {
    return RunForServer<Template>();
  } else if (command == kInspectArgument) {
    return RunForServer<ModelInspector>();
  } else {
    std::fputs(kHelp, stderr);
    return 2;
  }
  return 0;
}

}  // namespace
}  // namespace millrace

// Ends without running libtorch's destructors: they only cost time, and some wait for threads.
int main(int argc, char** argv) {
  const int code = millrace::Main(argc, argv);
  std::fflush(nullptr);
  std::_Exit(code);
}
