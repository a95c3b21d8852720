// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// benchmark-load: loads one model of a server with one shape of load, and prints what it measured
// as a line of JSON.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "proto/grpc_service.pb.h"
#include "tests/benchmarks/load_generator.h"

namespace millrace {
namespace {

struct Flags {
  std::string model = "identity";
  std::vector<int64_t> dims = {1, 16};
  double warmup_seconds = 0.3;
  double seconds = 1;
  LoadGenerator::Options load;
};

// A request of zeros for the model's one input.
grpc::ByteBuffer MakeRequest(const Flags& flags) {
  inference::ModelInferRequest request;
  request.set_model_name(flags.model);
  auto* const input = request.add_inputs();
  input->set_name("INPUT__0");
  input->set_datatype("FP32");
  size_t elements = 1;
  for (const int64_t dim : flags.dims) {
    input->add_shape(dim);
    elements *= static_cast<size_t>(dim);
  }
  request.add_raw_input_contents(std::string(elements * sizeof(float), '\0'));
  const grpc::Slice bytes(request.SerializeAsString());
  return grpc::ByteBuffer(&bytes, 1);
}

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_option("--target", flags.load.target, "The server's address")->required();
  app.add_option("--model", flags.model, "A model with one input INPUT__0 of FP32");
  app.add_option("--dims", flags.dims, "The input's shape, with the batch dimension")
      ->delimiter(',');
  auto* const calls = app.add_option("--calls", flags.load.calls, "Unary calls at a time");
  app.add_option("--streams", flags.load.streams, "Streams instead of calls")->excludes(calls);
  app.add_option("--window", flags.load.window, "Requests under way per stream");
  app.add_option(
         "--rate", flags.load.rate,
         "Requests per second at random times, whatever the answers do; --calls is then the "
         "most at a time")
      ->check(CLI::Range(0.1, 1e6));
  app.add_option("--seed", flags.load.seed, "Of these times; default: another in every run");
  app.add_flag("--count-errors", flags.load.count_errors, "Count errors instead of failing");
  app.add_option("--connections", flags.load.connections, "Connections")->check(CLI::Range(1, 64));
  app.add_option("--warmup", flags.warmup_seconds, "Seconds of load before the measuring");
  app.add_option("--seconds", flags.seconds, "Seconds to measure for");
  app.add_option("--cpu-of", flags.load.cpu_of, "Processes whose CPU time to measure")
      ->delimiter(',');
}

// Jain's index: 1 where all streams got as many answers, 1/n where one got all.
double Fairness(const std::vector<int64_t>& counts) {
  double sum = 0, squares = 0;
  for (const int64_t count : counts) {
    sum += static_cast<double>(count);
    squares += static_cast<double>(count) * static_cast<double>(count);
  }
  return squares == 0 ? 1 : sum * sum / (static_cast<double>(counts.size()) * squares);
}

nlohmann::json ToJson(const LoadGenerator::Result& result, uint64_t seed) {
  nlohmann::json errors = nlohmann::json::object();
  for (const auto& [code, count] : result.errors) errors[absl::StatusCodeToString(code)] = count;
  nlohmann::json cpu_of = nlohmann::json::array();
  for (const absl::Duration time : result.cpu_of) cpu_of.push_back(absl::ToDoubleSeconds(time));
  return {{"seed", seed},
          {"requests", result.requests},
          {"errors", errors},
          {"per_stream", result.per_stream},
          {"fairness", Fairness(result.per_stream)},
          {"late_p99_us", absl::ToDoubleMicroseconds(result.late_p99)},
          {"per_second", result.per_second},
          {"p50_us", absl::ToDoubleMicroseconds(result.p50)},
          {"p99_us", absl::ToDoubleMicroseconds(result.p99)},
          {"response_bytes", result.response_bytes},
          {"wall", absl::ToDoubleSeconds(result.wall)},
          {"own_cpu", absl::ToDoubleSeconds(result.own_cpu)},
          {"cpu_of", cpu_of}};
}

int Main(int argc, char** argv) {
  Flags flags;
  flags.load.seed = std::random_device()();
  CLI::App app("Loads one model of a server and prints what it measured.", "benchmark-load");
  AddFlags(app, flags);
  CLI11_PARSE(app, argc, argv);
  flags.load.request = MakeRequest(flags);
  flags.load.warmup = absl::Seconds(flags.warmup_seconds);
  flags.load.duration = absl::Seconds(flags.seconds);
  LoadGenerator generator(flags.load, Clock::Real());
  const auto result = generator.Run();
  if (!result.ok()) {
    std::fprintf(stderr, "benchmark-load: %s\n", result.status().ToString().c_str());
    return 1;
  }
  std::puts(ToJson(*result, flags.load.seed).dump().c_str());
  return 0;
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  return millrace::Main(argc, argv);
}
