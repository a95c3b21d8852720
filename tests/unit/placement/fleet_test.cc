// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// One repository on the machines of a fleet: what is read of each, and the plan that is printed.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "server/hardware/hardware.h"
#include "server/placement/placement.h"
#include "tests/unit/hardware/file_tree.h"

namespace millrace {
namespace {

// The files of a machine as its kernel shows them to a container.
class Machine {
 public:
  // So many cores in equal NUMA nodes, each with an L3 cache, of so many CPUs each. Siblings are
  // `cores` apart.
  explicit Machine(int cores, int threads = 1, int nodes = 1) {
    const int last = cores * threads - 1;
    tree_.Write("sys/devices/system/cpu/online", absl::StrCat("0-", last))
        .Write("proc/self/cgroup", "0::/kubepods/pod")
        .Write("proc/self/mountinfo",
               "30 23 0:26 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw,nsdelegate");
    Allow(absl::StrCat("0-", last));
    std::vector<std::vector<int>> cpus_of_node(static_cast<size_t>(nodes));
    for (int cpu = 0; cpu <= last; ++cpu) {
      cpus_of_node[static_cast<size_t>(cpu % cores * nodes / cores)].push_back(cpu);
    }
    for (int node = 0; node < nodes; ++node) {
      const std::string cpus = absl::StrJoin(cpus_of_node[static_cast<size_t>(node)], ",");
      tree_.Write(absl::StrCat("sys/devices/system/node/node", node, "/cpulist"), cpus);
      for (const int cpu : cpus_of_node[static_cast<size_t>(node)]) {
        std::vector<int> siblings;
        for (int one = cpu % cores; one <= last; one += cores) siblings.push_back(one);
        const std::string folder = absl::StrCat("sys/devices/system/cpu/cpu", cpu, "/");
        tree_.Write(folder + "topology/core_cpus_list", absl::StrJoin(siblings, ","))
            .Write(folder + "cache/index0/level", "3")
            .Write(folder + "cache/index0/shared_cpu_list", cpus);
      }
    }
  }

  Machine& Quota(const std::string& cpu_max) {
    tree_.Write("sys/fs/cgroup/kubepods/pod/cpu.max", cpu_max);
    return *this;
  }
  Machine& Allow(const std::string& cpus) {
    tree_.Write("proc/self/status", "Cpus_allowed_list:\t" + cpus)
        .Write("sys/fs/cgroup/kubepods/pod/cpuset.cpus.effective", cpus);
    return *this;
  }
  Machine& Gpus(int count) {
    for (int i = 0; i < count; ++i) {
      gpus_.push_back({i, "Simulated", uint64_t{80} << 30, uint64_t{79} << 30});
    }
    return *this;
  }

  Hardware Detect() const {
    Hardware hardware = DetectHardware(tree_.root());
    hardware.accelerators = gpus_;
    return hardware;
  }

 private:
  FileTree tree_;
  std::vector<Accelerator> gpus_;
};

ModelPlacementConfig Model(const std::string& name, const std::string& engine,
                           std::vector<InstanceGroup> groups) {
  return {.model = name,
          .version = 1,
          .engine = engine,
          .groups = std::move(groups),
          .intra_op_threads = std::nullopt,
          .bfloat16 = false,
          .range = std::nullopt,
          .has_transform = false};
}

// A detector of pictures that says nothing of where it runs, a classifier of two threads, a tracker
// with a count, an embedder that is there once, and a model whose replicas come and go.
std::vector<ModelPlacementConfig> Repository() {
  ModelPlacementConfig detector = Model("detector", "torchscript", {});
  detector.has_transform = true;
  ModelPlacementConfig classifier =
      Model("classifier", "torchscript", {{DeviceKind::kCpu, std::nullopt, {}}});
  classifier.intra_op_threads = 2;
  ModelPlacementConfig elastic =
      Model("elastic", "torchscript", {{DeviceKind::kCpu, std::nullopt, {}}});
  elastic.range = {.least = 2, .most = 12};
  return {detector, classifier, Model("tracker", "torchscript", {{DeviceKind::kAuto, 2, {}}}),
          Model("embedder", "aotinductor", {{DeviceKind::kCpu, 1, {}}}), elastic};
}

// What is planned: the table, and what isn't in it.
struct Expected {
  std::string table;
  size_t spares;  // Of the model whose replicas come and go.
  size_t warnings = 0;
};

void ExpectPlan(const Machine& machine, const Expected& expected, PlacementOptions options = {}) {
  const Hardware hardware = machine.Detect();
  SCOPED_TRACE(DescribeHardware(hardware));
  const PlacementPlan plan = PlanPlacement(hardware, Repository(), options);
  EXPECT_EQ("\n" + FormatPlan(plan), expected.table);
  EXPECT_EQ(plan.models.back().spares.size(), expected.spares);
  EXPECT_EQ(plan.warnings.size(), expected.warnings);
}

// The table of a machine without GPUs whose replicas float: where the detector, the classifier and
// the transform workers are as many as fit.
std::string Floating(const std::string& detector, const std::string& classifier) {
  return absl::StrFormat(R"(
model              version  engine       replica  device  cores  threads  numbers
detector           1        torchscript  %-7s  cpu     any    1        automatic
classifier         1        torchscript  %-7s  cpu     any    2        configured
tracker            1        torchscript  0-1      cpu     any    1        configured
embedder           1        aotinductor  0        cpu     any    1        configured
elastic            1        torchscript  0-1      cpu     any    1        automatic
transform workers  -        -            %-7s  cpu     any    1        -
)",
                         detector, classifier, detector);
}

// The tracker asks for two replicas, the classifier for two threads: both get them, with a warning.
TEST(Fleet, OneCore) {
  ExpectPlan(Machine(1), {.table = Floating("0", "0"), .spares = 0, .warnings = 2});
}

TEST(Fleet, HalfACore) {
  ExpectPlan(Machine(8).Quota("50000 100000"),
             {.table = Floating("0", "0"), .spares = 0, .warnings = 2});
}

TEST(Fleet, OneAndAHalfCores) {
  ExpectPlan(Machine(8).Quota("150000 100000"),
             {.table = Floating("0", "0"), .spares = 0, .warnings = 2});
}

TEST(Fleet, TwoCores) { ExpectPlan(Machine(2), {.table = Floating("0-1", "0"), .spares = 0}); }

TEST(Fleet, QuotaOfTwoCores) {
  ExpectPlan(Machine(16).Quota("200000 100000"), {.table = Floating("0-1", "0"), .spares = 0});
}

TEST(Fleet, SixteenCoresWithSmt) {
  ExpectPlan(Machine(8, 2), {.table = Floating("0-15", "0-7"), .spares = 10});
}

TEST(Fleet, SixteenCoresWithSmtPinned) {
  ExpectPlan(Machine(8, 2),
             {.table = R"(
model              version  engine       replica  device  cores  threads  numbers
detector           1        torchscript  0        cpu     0      1        automatic
detector           1        torchscript  1        cpu     1      1        automatic
detector           1        torchscript  2        cpu     2      1        automatic
detector           1        torchscript  3        cpu     3      1        automatic
detector           1        torchscript  4        cpu     4      1        automatic
detector           1        torchscript  5        cpu     5      1        automatic
detector           1        torchscript  6        cpu     6      1        automatic
detector           1        torchscript  7        cpu     7      1        automatic
detector           1        torchscript  8        cpu     8      1        automatic
detector           1        torchscript  9        cpu     9      1        automatic
detector           1        torchscript  10       cpu     10     1        automatic
detector           1        torchscript  11       cpu     11     1        automatic
detector           1        torchscript  12       cpu     12     1        automatic
detector           1        torchscript  13       cpu     13     1        automatic
detector           1        torchscript  14       cpu     14     1        automatic
detector           1        torchscript  15       cpu     15     1        automatic
classifier         1        torchscript  0        cpu     0-1    2        configured
classifier         1        torchscript  1        cpu     2-3    2        configured
classifier         1        torchscript  2        cpu     4-5    2        configured
classifier         1        torchscript  3        cpu     6-7    2        configured
classifier         1        torchscript  4        cpu     8-9    2        configured
classifier         1        torchscript  5        cpu     10-11  2        configured
classifier         1        torchscript  6        cpu     12-13  2        configured
classifier         1        torchscript  7        cpu     14-15  2        configured
tracker            1        torchscript  0        cpu     0      1        configured
tracker            1        torchscript  1        cpu     1      1        configured
embedder           1        aotinductor  0        cpu     2      1        configured
elastic            1        torchscript  0        cpu     3      1        automatic
elastic            1        torchscript  1        cpu     4      1        automatic
transform workers  -        -            0-15     cpu     0-15   1        -
)",
              .spares = 10},
             {.pin = true});
}

TEST(Fleet, ThirtyTwoCoresWithSmtAndNuma) {
  ExpectPlan(Machine(16, 2, 2), {.table = Floating("0-31", "0-15"), .spares = 10});
}

// 22 and 24 are the siblings of 6 and 8.
TEST(Fleet, CpusetOfSixCoresOnTwoNodes) {
  ExpectPlan(Machine(16, 2, 2).Allow("6-9,22,24"), {.table = R"(
model              version  engine       replica  device  cores      threads  numbers
detector           1        torchscript  0        cpu     6          1        automatic
detector           1        torchscript  1        cpu     8          1        automatic
detector           1        torchscript  2        cpu     7          1        automatic
detector           1        torchscript  3        cpu     9          1        automatic
detector           1        torchscript  4        cpu     22         1        automatic
detector           1        torchscript  5        cpu     24         1        automatic
classifier         1        torchscript  0        cpu     6-7        2        configured
classifier         1        torchscript  1        cpu     8-9        2        configured
classifier         1        torchscript  2        cpu     22,24      2        configured
tracker            1        torchscript  0        cpu     7          1        configured
tracker            1        torchscript  1        cpu     9          1        configured
embedder           1        aotinductor  0        cpu     6          1        configured
elastic            1        torchscript  0        cpu     8          1        automatic
elastic            1        torchscript  1        cpu     22         1        automatic
transform workers  -        -            0-5      cpu     6-9,22,24  1        -
)",
                                                    .spares = 4});
}

TEST(Fleet, OneGpu) {
  ExpectPlan(Machine(16, 2, 2).Gpus(1), {.table = R"(
model              version  engine       replica  device  cores  threads  numbers
detector           1        torchscript  0        gpu 0   any    1        automatic
classifier         1        torchscript  0-15     cpu     any    2        configured
tracker            1        torchscript  0-1      gpu 0   any    1        configured
embedder           1        aotinductor  0        cpu     any    1        configured
elastic            1        torchscript  0-1      cpu     any    1        automatic
transform workers  -        -            0-31     cpu     any    1        -
)",
                                         .spares = 10});
}

TEST(Fleet, TwoGpus) {
  ExpectPlan(Machine(16, 2, 2).Gpus(2), {.table = R"(
model              version  engine       replica  device  cores  threads  numbers
detector           1        torchscript  0        gpu 0   any    1        automatic
detector           1        torchscript  1        gpu 1   any    1        automatic
classifier         1        torchscript  0-15     cpu     any    2        configured
tracker            1        torchscript  0        gpu 0   any    1        configured
tracker            1        torchscript  1        gpu 1   any    1        configured
tracker            1        torchscript  2        gpu 0   any    1        configured
tracker            1        torchscript  3        gpu 1   any    1        configured
embedder           1        aotinductor  0        cpu     any    1        configured
elastic            1        torchscript  0-1      cpu     any    1        automatic
transform workers  -        -            0-31     cpu     any    1        -
)",
                                         .spares = 10});
}

TEST(Fleet, FourGpusUnderAQuota) {
  ExpectPlan(Machine(16, 2, 2).Gpus(4).Quota("600000 100000"), {.table = R"(
model              version  engine       replica  device  cores  threads  numbers
detector           1        torchscript  0        gpu 0   any    1        automatic
detector           1        torchscript  1        gpu 1   any    1        automatic
detector           1        torchscript  2        gpu 2   any    1        automatic
detector           1        torchscript  3        gpu 3   any    1        automatic
classifier         1        torchscript  0-2      cpu     any    2        configured
tracker            1        torchscript  0        gpu 0   any    1        configured
tracker            1        torchscript  1        gpu 1   any    1        configured
tracker            1        torchscript  2        gpu 2   any    1        configured
tracker            1        torchscript  3        gpu 3   any    1        configured
tracker            1        torchscript  4        gpu 0   any    1        configured
tracker            1        torchscript  5        gpu 1   any    1        configured
tracker            1        torchscript  6        gpu 2   any    1        configured
tracker            1        torchscript  7        gpu 3   any    1        configured
embedder           1        aotinductor  0        cpu     any    1        configured
elastic            1        torchscript  0-1      cpu     any    1        automatic
transform workers  -        -            0-5      cpu     any    1        -
)",
                                                                .spares = 4});
}

}  // namespace
}  // namespace millrace
