// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// benchmark-loop: what libtorch alone can do. Loads a TorchScript module and optimises it as the
// server's workers do. Then for each line of its input, "BATCH PROCESSES THREADS SECONDS", it warms
// that batch size, forks so many processes that run the module on zeros over and over, and prints
// how many rows per second they made together.
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <iostream>
#include <new>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/base/check.h"
#include "server/base/clock.h"
#include "server/worker/process.h"
#include "server/worker/threading.h"

namespace millrace {
namespace {

constexpr int kMostProcesses = 256;

struct Flags {
  std::string model;
  std::vector<int64_t> dims;  // Without the batch dimension.
  std::vector<int> cpus;
};

// One line of the input.
struct Task {
  int64_t batch = 1;
  int processes = 1;
  int threads = 1;
  double seconds = 1;
};

// What the processes share.
struct Shared {
  std::atomic<int> ready;  // They wait for each other before they begin.
  double rows_per_second[kMostProcesses];
};

void BeginTogether(Shared& shared, int processes) {
  shared.ready.fetch_add(1);
  while (shared.ready.load() < processes) Clock::Real().SleepFor(absl::Microseconds(50));
}

// The cores of one process; empty, for all of them, where there isn't one for every thread.
std::vector<int> CpusOf(const std::vector<int>& cpus, const Task& task, int process) {
  if (task.processes * task.threads > static_cast<int>(cpus.size())) return {};
  const auto first = cpus.begin() + process * task.threads;
  return {first, first + task.threads};
}

double RunLoop(torch::jit::Method& forward, const at::Tensor& input, absl::Duration duration) {
  const absl::Time begin = Clock::Real().Now();
  int64_t runs = 0;
  absl::Duration elapsed;
  do {
    forward({input});
    ++runs;
    elapsed = Clock::Real().Now() - begin;
  } while (elapsed < duration);
  return static_cast<double>(runs * input.size(0)) / absl::ToDoubleSeconds(elapsed);
}

torch::jit::Module Load(const std::string& path) {
  torch::jit::Module module = torch::jit::load(path, c10::Device(c10::kCPU));
  module.eval();
  torch::jit::Module frozen = torch::jit::freeze(module);
  return torch::jit::optimize_for_inference(frozen);
}

// Runs in a process of its own.
void RunProcess(const std::vector<int>& cpus, const Task& task, int process,
                torch::jit::Method& forward, const at::Tensor& input, Shared& shared) {
  MILLRACE_CHECK(PinTo(CpusOf(cpus, task, process)).ok(), "--cpus names cores of this machine.");
  StartTeam(task.threads);
  forward({input});  // Its own pages and threads.
  BeginTogether(shared, task.processes);
  shared.rows_per_second[process] = RunLoop(forward, input, absl::Seconds(task.seconds));
}

// Returns the rows per second of all processes together.
double Run(const Flags& flags, const Task& task, torch::jit::Method& forward) {
  std::vector<int64_t> shape = flags.dims;
  shape.insert(shape.begin(), task.batch);
  const at::Tensor input = at::zeros(shape);
  for (int run = 0; run < 2; ++run) forward({input});  // The runs that TorchScript profiles.

  void* const memory =
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  MILLRACE_CHECK(memory != MAP_FAILED, "There is memory to share.");
  auto* const shared = new (memory) Shared{};
  for (int process = 0; process < task.processes; ++process) {
    if (fork() == 0) {
      RunProcess(flags.cpus, task, process, forward, input, *shared);
      _exit(0);
    }
  }
  double rows_per_second = 0;
  for (int process = 0; process < task.processes; ++process) {
    int status = 0;
    wait(&status);
    MILLRACE_CHECK(status == 0, "A process of the loop ends well.");
  }
  for (const double rate : shared->rows_per_second) rows_per_second += rate;
  munmap(memory, sizeof(Shared));
  return rows_per_second;
}

int Main(int argc, char** argv) {
  Flags flags;
  CLI::App app("Runs a TorchScript module in a loop, as each line of its input says.",
               "benchmark-loop");
  app.add_option("model", flags.model, "The module's file")->required()->check(CLI::ExistingFile);
  app.add_option("--dims", flags.dims, "The input's dims, without the batch's")->delimiter(',');
  app.add_option("--cpus", flags.cpus, "Cores to pin to, where there is one for every thread")
      ->delimiter(',');
  CLI11_PARSE(app, argc, argv);

  StaySingleThreaded(1);
  const c10::InferenceMode inference;
  torch::jit::Module module = Load(flags.model);
  torch::jit::Method forward = module.get_method("forward");
  for (Task task; std::cin >> task.batch >> task.processes >> task.threads >> task.seconds;) {
    MILLRACE_CHECK(task.processes <= kMostProcesses, "A line asks for at most 256 processes.");
    std::cout << Run(flags, task, forward) << std::endl;
  }
  return 0;
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) { return millrace::Main(argc, argv); }
