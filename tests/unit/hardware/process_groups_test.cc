// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/hardware/process_groups.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "tests/fakes/fake_clock.h"
#include "tests/unit/hardware/file_tree.h"

namespace millrace {
namespace {

class ProcessGroupsTest : public testing::Test {
 protected:
  // A process that was started at `start` and has used so many seconds.
  void Write(pid_t pid, int start, double seconds, int kilobytes) {
    const auto ticks = static_cast<int64_t>(seconds * static_cast<double>(sysconf(_SC_CLK_TCK)));
    tree_.Write(absl::StrCat("proc/", pid, "/stat"),
                absl::StrCat(pid, " (w) R 1 2 3 4 5 6 7 8 9 10 ", ticks, " 0 13 14 15 16 1 18 ",
                             start, " 1 1 99"));
    tree_.Write(absl::StrCat("proc/", pid, "/status"), absl::StrCat("RssAnon: ", kilobytes, " kB"));
  }
  void End(pid_t pid) { std::filesystem::remove_all(tree_.root() / "proc" / absl::StrCat(pid)); }
  ProcessGroups::Usage Look(const std::vector<pid_t>& pids) {
    return groups_.Look({{"m/1", pids}}).front();
  }

  FileTree tree_;
  FakeClock clock_;
  ProcessGroups groups_{clock_, tree_.root()};
};

TEST_F(ProcessGroupsTest, AreWhatTheirProcessesUse) {
  Write(7, 100, 1, 10);
  Write(8, 100, 2, 20);
  EXPECT_EQ(Look({7, 8}).cpu_seconds, 3);
  EXPECT_EQ(Look({7, 8}).memory_bytes, 30 * 1024);
}

TEST_F(ProcessGroupsTest, CpuTimeOfThoseThatHaveEndedStays) {
  Write(7, 100, 1, 10);
  Write(8, 100, 2, 20);
  Look({7, 8});
  End(7);
  EXPECT_EQ(Look({7, 8}).cpu_seconds, 3);  // It is listed and has gone,
  EXPECT_EQ(Look({8}).cpu_seconds, 3);     // or isn't listed any more.
  EXPECT_EQ(Look({8}).memory_bytes, 20 * 1024);
}

TEST_F(ProcessGroupsTest, AnotherProcessOfTheSameNumberCountsAsWell) {
  Write(7, 100, 5, 10);
  Look({7});
  Write(7, 200, 1, 10);
  EXPECT_EQ(Look({7}).cpu_seconds, 6);
}

TEST_F(ProcessGroupsTest, MemoryIsLookedAtAgainOnceItIsOld) {
  Write(7, 100, 1, 10);
  Look({7});
  Write(7, 100, 1, 50);
  EXPECT_EQ(Look({7}).memory_bytes, 10 * 1024);
  clock_.Advance(absl::Seconds(10));
  EXPECT_EQ(Look({7}).memory_bytes, 50 * 1024);
}

TEST_F(ProcessGroupsTest, LookEndsWithItsBudgetAndTheNextOneGoesOn) {
  ProcessGroups groups(clock_, tree_.root(), absl::ZeroDuration());  // Over after the first.
  Write(7, 100, 1, 10);
  Write(8, 100, 1, 10);
  EXPECT_EQ(groups.Look({{"m/1", {7, 8}}}).front().memory_bytes, 10 * 1024);
  EXPECT_EQ(groups.Look({{"m/1", {7, 8}}}).front().memory_bytes, 20 * 1024);
}

TEST_F(ProcessGroupsTest, GroupThatComesBackBeginsAnew) {
  Write(7, 100, 5, 10);
  Look({7});
  groups_.Look({});
  Write(8, 100, 1, 10);
  EXPECT_EQ(Look({8}).cpu_seconds, 1);
}

}  // namespace
}  // namespace millrace
