// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/hardware/cpu_budget.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "server/hardware/cpu_list.h"
#include "tests/unit/hardware/file_tree.h"

namespace millrace {
namespace {

using testing::HasSubstr;

constexpr double kNoQuota = std::numeric_limits<double>::infinity();

// Lines of mountinfo as the kernel writes them.
std::string UnifiedMount(const std::string& root = "/",
                         const std::string& point = "/sys/fs/cgroup") {
  return "30 23 0:26 " + root + " " + point +
         " ro,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
}

std::string ControllerMount(const std::string& controllers, const std::string& root = "/") {
  return "32 31 0:29 " + root + " /sys/fs/cgroup/" + controllers +
         " ro,nosuid,nodev,noexec,relatime master:11 - cgroup cgroup rw," + controllers + "\n";
}

class CpuBudgetTest : public testing::Test {
 protected:
  // A machine with the given CPUs, of which the process may use `allowed`.
  FileTree& Machine(const std::string& online, const std::string& allowed) {
    return tree_.Write("sys/devices/system/cpu/online", online)
        .Write("proc/self/status",
               "Name:\tmillrace-server\nCpus_allowed:\tff\nCpus_allowed_list:\t" + allowed +
                   "\nMems_allowed_list:\t0");
  }

  CpuBudget Read() { return ReadCpuBudget(tree_.root()); }

  FileTree tree_;
};

TEST_F(CpuBudgetTest, WithoutCgroupFilesTheAffinityMaskCounts) {
  Machine("0-7", "0-7");
  const CpuBudget budget = Read();
  EXPECT_EQ(FormatCpuList(budget.cpus), "0-7");
  EXPECT_EQ(budget.quota, kNoQuota);
  EXPECT_FALSE(budget.exclusive);
  EXPECT_EQ(budget.slots(), 8);
  EXPECT_EQ(budget.source, "every online CPU");
}

TEST_F(CpuBudgetTest, NarrowAffinityMaskIsExclusive) {
  Machine("0-7", "2-3,5");
  const CpuBudget budget = Read();
  EXPECT_EQ(FormatCpuList(budget.cpus), "2-3,5");
  EXPECT_TRUE(budget.exclusive);
  EXPECT_EQ(budget.slots(), 3);
  EXPECT_EQ(budget.source, "affinity mask of 3 of 8 CPUs");
}

TEST_F(CpuBudgetTest, CpusThatAreOfflineDontCount) {
  Machine("0-1", "0-127");
  const CpuBudget budget = Read();
  EXPECT_EQ(FormatCpuList(budget.cpus), "0-1");
  EXPECT_FALSE(budget.exclusive);
}

TEST_F(CpuBudgetTest, WithoutAnyFileThereIsOneCpu) {
  const CpuBudget budget = Read();
  EXPECT_EQ(FormatCpuList(budget.cpus), "0");
  EXPECT_EQ(budget.slots(), 1);
  EXPECT_FALSE(budget.exclusive);
}

TEST_F(CpuBudgetTest, WithoutTheListOfOnlineCpusTheMaskIsTheMachine) {
  tree_.Write("proc/self/status", "Cpus_allowed_list:\t4-5");
  const CpuBudget budget = Read();
  EXPECT_EQ(FormatCpuList(budget.cpus), "4-5");
  EXPECT_FALSE(budget.exclusive);
}

struct QuotaCase {
  const char* name;
  const char* cpu_max;     // cgroup v2.
  const char* cfs_quota;   // cgroup v1,
  const char* cfs_period;  // with this period.
  double quota;
  int slots;
};

class QuotaTest : public testing::TestWithParam<QuotaCase> {
 protected:
  QuotaTest() {
    tree_.Write("sys/devices/system/cpu/online", "0-3")
        .Write("proc/self/status", "Cpus_allowed_list:\t0-3");
  }

  void ExpectQuota(const CpuBudget& budget) {
    EXPECT_EQ(budget.quota, GetParam().quota);
    EXPECT_EQ(budget.slots(), GetParam().slots);
    EXPECT_FALSE(budget.exclusive);
    EXPECT_EQ(FormatCpuList(budget.cpus), "0-3");
  }

  FileTree tree_;
};

TEST_P(QuotaTest, IsReadFromCgroup2) {
  tree_.Write("proc/self/cgroup", "0::/app")
      .Write("proc/self/mountinfo", UnifiedMount())
      .Write("sys/fs/cgroup/app/cpu.max", GetParam().cpu_max);
  ExpectQuota(ReadCpuBudget(tree_.root()));
}

TEST_P(QuotaTest, IsReadFromCgroup1) {
  tree_.Write("proc/self/cgroup", "5:cpu,cpuacct:/app\n4:memory:/app\n1:name=systemd:/app")
      .Write("proc/self/mountinfo", ControllerMount("memory") + ControllerMount("cpu,cpuacct"))
      .Write("sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_quota_us", GetParam().cfs_quota)
      .Write("sys/fs/cgroup/cpu,cpuacct/app/cpu.cfs_period_us", GetParam().cfs_period);
  ExpectQuota(ReadCpuBudget(tree_.root()));
}

INSTANTIATE_TEST_SUITE_P(
    CpuBudget, QuotaTest,
    testing::Values(QuotaCase{"None", "max 100000", "-1", "100000", kNoQuota, 4},
                    QuotaCase{"Half", "50000 100000", "50000", "100000", 0.5, 1},
                    QuotaCase{"One", "100000 100000", "100000", "100000", 1, 1},
                    QuotaCase{"OneAndAHalf", "150000 100000", "150000", "100000", 1.5, 1},
                    QuotaCase{"Two", "100000 50000", "100000", "50000", 2, 2},
                    QuotaCase{"AlmostThree", "299999 100000", "299999", "100000", 2.99999, 2},
                    QuotaCase{"MoreThanThereIs", "1600000 100000", "1600000", "100000", 16, 4},
                    QuotaCase{"Nonsense", "lots", "lots", "0", kNoQuota, 4},
                    QuotaCase{"ZeroPeriod", "100000 0", "100000", "0", kNoQuota, 4}),
    [](const testing::TestParamInfo<QuotaCase>& quota) { return quota.param.name; });

TEST_F(CpuBudgetTest, TightestAncestorDecides) {
  Machine("0-15", "0-15")
      .Write("proc/self/cgroup", "0::/outer.slice/middle/inner")
      .Write("proc/self/mountinfo", UnifiedMount())
      .Write("sys/fs/cgroup/outer.slice/cpu.max", "max 100000")
      .Write("sys/fs/cgroup/outer.slice/middle/cpu.max", "250000 100000")
      .Write("sys/fs/cgroup/outer.slice/middle/inner/cpu.max", "800000 100000");
  const CpuBudget budget = Read();
  EXPECT_EQ(budget.quota, 2.5);
  EXPECT_EQ(budget.slots(), 2);
  EXPECT_EQ(budget.source, "quota of 2.5 cores set in /sys/fs/cgroup/outer.slice/middle");
}

// A container of Docker on cgroup v1 without a namespace: its own cgroup stands at the mount point.
TEST_F(CpuBudgetTest, PathOfTheHostIsFoundAtTheMountPoint) {
  const std::string container = "/docker/0123456789ab";
  Machine("0-7", "0-7")
      .Write("proc/self/cgroup", "3:cpu,cpuacct:" + container + "\n2:cpuset:" + container)
      .Write("proc/self/mountinfo",
             ControllerMount("cpu,cpuacct", container) + ControllerMount("cpuset", container))
      .Write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "200000")
      .Write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000")
      .Write("sys/fs/cgroup/cpuset/cpuset.cpus", "0-7");
  EXPECT_EQ(Read().quota, 2);
}

TEST_F(CpuBudgetTest, CgroupBelowTheMountsRootIsWalkedFromThere) {
  Machine("0-7", "0-7")
      .Write("proc/self/cgroup", "0::/kubepods/pod1/container/nested")
      .Write("proc/self/mountinfo", UnifiedMount("/kubepods/pod1"))
      .Write("sys/fs/cgroup/cpu.max", "400000 100000")
      .Write("sys/fs/cgroup/container/cpu.max", "300000 100000")
      .Write("sys/fs/cgroup/container/nested/cpu.max", "500000 100000");
  EXPECT_EQ(Read().quota, 3);
}

TEST_F(CpuBudgetTest, NamespacedRootReadsTheMountPoint) {
  Machine("0-7", "0-7")
      .Write("proc/self/cgroup", "0::/")
      .Write("proc/self/mountinfo", UnifiedMount())
      .Write("sys/fs/cgroup/cpu.max", "300000 100000");
  EXPECT_EQ(Read().quota, 3);
}

TEST_F(CpuBudgetTest, PathOutsideTheNamespaceReadsTheMountPoint) {
  Machine("0-7", "0-7")
      .Write("proc/self/cgroup", "0::/../../elsewhere")
      .Write("proc/self/mountinfo", UnifiedMount())
      .Write("sys/fs/cgroup/cpu.max", "300000 100000");
  EXPECT_EQ(Read().quota, 3);
}

TEST_F(CpuBudgetTest, FoldersThatDontExistAreSkipped) {
  Machine("0-7", "0-7")
      .Write("proc/self/cgroup", "0::/kubepods/pod1/container")
      .Write("proc/self/mountinfo", UnifiedMount())
      .Write("sys/fs/cgroup/kubepods/cpu.max", "600000 100000");
  EXPECT_EQ(Read().quota, 6);
}

TEST_F(CpuBudgetTest, NeighbourWithTheSameBeginningIsNoAncestor) {
  Machine("0-7", "0-7")
      .Write("proc/self/cgroup", "0::/app2")
      .Write("proc/self/mountinfo", UnifiedMount("/app"))
      .Write("sys/fs/cgroup/2/cpu.max", "100000 100000");
  EXPECT_EQ(Read().quota, kNoQuota);
}

TEST_F(CpuBudgetTest, MountsMayBeAnywhereAndHaveBlanks) {
  Machine("0-7", "0-7")
      .Write("proc/self/cgroup", "0::/app")
      .Write("proc/self/mountinfo", UnifiedMount("/", "/mnt/my\\040groups"))
      .Write("mnt/my groups/app/cpu.max", "150000 100000");
  EXPECT_EQ(Read().quota, 1.5);
}

// systemd's hybrid layout: the controllers are on v1, and v2 only tracks processes.
TEST_F(CpuBudgetTest, HybridLayoutReadsTheControllersOfCgroup1) {
  Machine("0-7", "0-7")
      .Write("proc/self/cgroup",
             "7:cpuset:/\n6:memory:/service\n2:cpuacct:/\n1:cpu:/service\n0::/init.scope")
      .Write("proc/self/mountinfo",
             "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n" +
                 ControllerMount("cpu") + ControllerMount("cpuacct") + ControllerMount("cpuset") +
                 UnifiedMount("/", "/sys/fs/cgroup/unified"))
      .Write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1")
      .Write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
      .Write("sys/fs/cgroup/cpu/service/cpu.cfs_quota_us", "450000")
      .Write("sys/fs/cgroup/cpu/service/cpu.cfs_period_us", "100000")
      .Write("sys/fs/cgroup/cpuset/cpuset.cpus", "0-7")
      .Write("sys/fs/cgroup/unified/init.scope/cgroup.procs", "1");
  const CpuBudget budget = Read();
  EXPECT_EQ(budget.quota, 4.5);
  EXPECT_EQ(budget.slots(), 4);
  EXPECT_EQ(budget.source, "quota of 4.5 cores set in /sys/fs/cgroup/cpu/service");
}

TEST_F(CpuBudgetTest, ExclusiveCpusetOfCgroup2) {
  Machine("0-31", "4-7")
      .Write("proc/self/cgroup", "0::/kubepods/pod1")
      .Write("proc/self/mountinfo", UnifiedMount())
      .Write("sys/fs/cgroup/cpuset.cpus.effective", "0-31")
      .Write("sys/fs/cgroup/kubepods/cpuset.cpus.effective", "0-15")
      .Write("sys/fs/cgroup/kubepods/pod1/cpuset.cpus.effective", "4-7")
      .Write("sys/fs/cgroup/kubepods/pod1/cpu.max", "max 100000");
  const CpuBudget budget = Read();
  EXPECT_EQ(FormatCpuList(budget.cpus), "4-7");
  EXPECT_TRUE(budget.exclusive);
  EXPECT_EQ(budget.slots(), 4);
  EXPECT_EQ(budget.source, "cpuset of 4 of 32 CPUs set in /sys/fs/cgroup/kubepods/pod1");
}

TEST_F(CpuBudgetTest, EffectiveCpusetOfCgroup1GoesBeforeTheConfiguredOne) {
  Machine("0-7", "0-7")
      .Write("proc/self/cgroup", "2:cpuset:/app")
      .Write("proc/self/mountinfo", ControllerMount("cpuset"))
      .Write("sys/fs/cgroup/cpuset/cpuset.cpus", "0-7")
      .Write("sys/fs/cgroup/cpuset/app/cpuset.cpus", "0-15")
      .Write("sys/fs/cgroup/cpuset/app/cpuset.effective_cpus", "0-3");
  EXPECT_EQ(FormatCpuList(Read().cpus), "0-3");
}

TEST_F(CpuBudgetTest, EmptyCpusetMeansTheParents) {
  Machine("0-7", "0-7")
      .Write("proc/self/cgroup", "2:cpuset:/app")
      .Write("proc/self/mountinfo", ControllerMount("cpuset"))
      .Write("sys/fs/cgroup/cpuset/cpuset.cpus", "0-3")
      .Write("sys/fs/cgroup/cpuset/app/cpuset.cpus", "");
  EXPECT_EQ(FormatCpuList(Read().cpus), "0-3");
}

TEST_F(CpuBudgetTest, AffinityAndCpusetIntersect) {
  Machine("0-7", "2-5")
      .Write("proc/self/cgroup", "0::/app")
      .Write("proc/self/mountinfo", UnifiedMount())
      .Write("sys/fs/cgroup/app/cpuset.cpus.effective", "4-7");
  EXPECT_EQ(FormatCpuList(Read().cpus), "4-5");
}

TEST_F(CpuBudgetTest, CpusetThatLeavesNothingIsNotBelieved) {
  Machine("0-3", "0-3")
      .Write("proc/self/cgroup", "0::/app")
      .Write("proc/self/mountinfo", UnifiedMount())
      .Write("sys/fs/cgroup/app/cpuset.cpus.effective", "8-15");
  EXPECT_EQ(FormatCpuList(Read().cpus), "0-3");
}

TEST_F(CpuBudgetTest, QuotaTighterThanTheCpusetDecides) {
  Machine("0-31", "0-7")
      .Write("proc/self/cgroup", "0::/app")
      .Write("proc/self/mountinfo", UnifiedMount())
      .Write("sys/fs/cgroup/app/cpuset.cpus.effective", "0-7")
      .Write("sys/fs/cgroup/app/cpu.max", "300000 100000");
  const CpuBudget budget = Read();
  EXPECT_EQ(budget.cpus.size(), 8u);
  EXPECT_TRUE(budget.exclusive);
  EXPECT_EQ(budget.slots(), 3);
  EXPECT_THAT(budget.source, HasSubstr("quota of 3 cores"));
}

TEST_F(CpuBudgetTest, BrokenLinesAreSkipped) {
  Machine("0-3", "0-3")
      .Write("proc/self/cgroup", "\n0:\n:::\n0::/app")
      .Write("proc/self/mountinfo",
             "\nnonsense\n1 2 3 - cgroup2\n - - -\n" + UnifiedMount() + "30 23")
      .Write("sys/fs/cgroup/app/cpu.max", "200000 100000");
  EXPECT_EQ(Read().quota, 2);
}

}  // namespace
}  // namespace millrace
