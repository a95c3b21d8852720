// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// simulate: the server's own dispatcher in virtual time, under loads of all kinds. Prints a table
// of what was found beside what was to be found. Run it with
//
//   ./dev simulate [--plot [DIR]] [ARGUMENTS BELOW]
//
// where --plot writes pictures of it, by default into docs/images.
//
//   --seed N       from which everything random follows (default 1)
//   --scale X      how long experiments are, relative to the usual (default 1)
//   --only NAME    a single scenario; an unknown name lists them
//   --json FILE    writes figures and the points of plots, too
//
// Ends with 0 where all goals are met, 1 where one is missed, 2 where it was called wrongly.
#include <chrono>
#include <cstdio>
#include <fstream>
#include <set>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tests/simulation/scenarios.h"

namespace millrace {
namespace {

struct Arguments {
  Effort effort;
  std::string only;
  std::string json;
};

// Reads the arguments; returns what is wrong with them, or nothing.
std::string Read(int argc, char** argv, Arguments& arguments) {
  std::set<std::string> given;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (!given.insert(name).second) return absl::StrCat("'", name, "' is given twice");
    if (i + 1 == argc) return absl::StrCat("'", name, "' needs a value");
    const std::string value = argv[i + 1];
    if (name == "--seed") {
      if (!absl::SimpleAtoi(value, &arguments.effort.seed)) {
        return absl::StrCat("--seed is '", value, "', expected a whole number");
      }
    } else if (name == "--scale") {
      double& scale = arguments.effort.scale;
      if (!absl::SimpleAtod(value, &scale) || !(scale >= 0.01 && scale <= 100)) {
        return absl::StrCat("--scale is '", value, "', expected a number from 0.01 to 100");
      }
    } else if (name == "--only") {
      arguments.only = value;
    } else if (name == "--json") {
      arguments.json = value;
    } else {
      return absl::StrCat("'", name, "' is no argument; expected --seed, --scale, --only, --json");
    }
  }
  return "";
}

int Main(int argc, char** argv) {
  Arguments arguments;
  if (const std::string fault = Read(argc, argv, arguments); !fault.empty()) {
    std::fprintf(stderr, "simulate: %s\n", fault.c_str());
    return 2;
  }
  Report report;
  int ran = 0;
  const auto begin = std::chrono::steady_clock::now();
  for (const Scenario& scenario : Scenarios()) {
    if (!arguments.only.empty() && arguments.only != scenario.name) continue;
    scenario.run(arguments.effort, report);
    ++ran;
  }
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  if (ran == 0) {
    std::fprintf(stderr, "simulate: there is no scenario '%s', but these:\n",
                 arguments.only.c_str());
    for (const Scenario& scenario : Scenarios()) {
      std::fprintf(stderr, "  %s\n", scenario.name.c_str());
    }
    return 2;
  }
  std::fputs(report.Table().c_str(), stdout);
  int goals = 0;
  int missed = 0;
  for (const Figure& figure : report.figures) {
    goals += figure.goal.has_value() ? 1 : 0;
    missed += figure.met() ? 0 : 1;
  }
  std::printf("\n%d of %d goals met; seed %llu; %llu requests in %.1f s, %.0f per second\n",
              goals - missed, goals, static_cast<unsigned long long>(arguments.effort.seed),
              static_cast<unsigned long long>(report.requests), took.count(),
              static_cast<double>(report.requests) / took.count());
  if (!arguments.json.empty()) {
    std::ofstream file(arguments.json);
    file << report.Json() << std::flush;
    if (!file) {
      std::fprintf(stderr, "simulate: cannot write %s\n", arguments.json.c_str());
      return 2;
    }
  }
  return missed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace millrace

int main(int argc, char** argv) { return millrace::Main(argc, argv); }
