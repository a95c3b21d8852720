// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
// A pool of real worker processes: what is left of a thousand that died, and how fast one is added.
#include "server/replica/replica_pool.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/thread.h"
#include "server/base/timer_thread.h"
#include "server/metrics/metric_names.h"
#include "tests/integration/worker/worker_harness.h"

namespace millrace {
namespace {

constexpr int kCycles = 1000;

int64_t EntriesOf(const char* folder) {
  return std::distance(std::filesystem::directory_iterator(folder),
                       std::filesystem::directory_iterator());
}

// What this process has of everything that a dead replica could leave behind.
struct Belongings {
  int64_t descriptors = EntriesOf("/proc/self/fd");
  int64_t threads = EntriesOf("/proc/self/task");
  int64_t mappings = 0;
  int64_t children = 0;  // Zombies, too.
  int64_t resident_pages = 0;

  Belongings() {
    std::ifstream maps("/proc/self/maps");
    for (std::string line; std::getline(maps, line);) mappings += line.find("memfd:") != line.npos;
    for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
      std::ifstream file(task.path() / "children");
      for (int pid; file >> pid;) ++children;
    }
    int64_t total;
    std::ifstream("/proc/self/statm") >> total >> resident_pages;
  }
};

// Waits until there is no more than before: the kernel takes its time to forget a thread.
Belongings SettledTo(const Belongings& before) {
  for (int tries = 0;; ++tries) {
    const Belongings now;
    const bool settled = now.descriptors <= before.descriptors && now.threads <= before.threads &&
                         now.children <= before.children;
    if (settled || tries == 1000) return now;
    Clock::Real().SleepFor(absl::Milliseconds(5));
  }
}

class ReplicaPoolTest : public testing::Test {
 protected:
  static void SetUpTestSuite() { ASSERT_TRUE(BecomeSubreaper().ok()); }

  void StartPool(int replicas, int most,
                 RestartBackoff::Options backoff = {.first = absl::ZeroDuration(),
                                                    .most = absl::ZeroDuration()}) {
    ReplicaPool::Options options;
    options.worker_program = MILLRACE_WORKER_PROGRAM;
    options.signature = std::make_shared<const ModelSignature>(
        "identity", 1, 8, std::vector<TensorSpec>{{"INPUT__0", DataType::kFp32, {16}}},
        std::vector<TensorSpec>{{"OUTPUT__0", DataType::kFp32, {16}}});
    options.model_file =
        UniqueFd(open(TestModel("good/identity/1/model.pt").c_str(), O_RDONLY | O_CLOEXEC));
    options.replicas.resize(static_cast<size_t>(most));
    options.start = replicas;
    options.most_places = most_places_;
    options.scaling = scaling_;
    options.backoff = backoff;
    auto pool = ReplicaPool::Create(std::move(options), {.clock = &clock_,
                                                         .timer = &timer_,
                                                         .leases = &leases_,
                                                         .memory = nullptr,
                                                         .preparers = nullptr,
                                                         .metrics = &metrics_,
                                                         .on_change = nullptr});
    ASSERT_TRUE(pool.ok()) << pool.status();
    pool_ = *std::move(pool);
  }

  // Waits until replica 0 has another process than `before`, and returns it.
  pid_t NextPid(pid_t before) {
    const absl::Time latest = clock_.Now() + kPatience;
    while (clock_.Now() < latest) {
      const ReplicaPool::ReplicaInfo replica = pool_->List().front();
      EXPECT_TRUE(replica.pid > 0 || !replica.state.ok()) << "It serves without a process.";
      if (replica.state.ok() && replica.pid != before) return replica.pid;
      clock_.SleepFor(absl::Microseconds(200));
    }
    ADD_FAILURE() << "No process takes the place of " << before;
    return 0;
  }

  std::vector<pid_t> Pids() const {
    std::vector<pid_t> all;
    for (const ReplicaPool::ReplicaInfo& replica : pool_->List()) all.push_back(replica.pid);
    return all;
  }

  // Kills the only replica so often, and returns how long it took each time until another served.
  std::vector<absl::Duration> KillAndWait(int times) {
    std::vector<absl::Duration> took;
    pid_t pid = NextPid(0);
    for (int i = 0; i < times && pid != 0; ++i) {
      const absl::Time begin = clock_.Now();
      kill(pid, SIGKILL);
      pid = NextPid(pid);
      took.push_back(clock_.Now() - begin);
    }
    std::sort(took.begin(), took.end());
    return took;
  }

  // Waits until the template has another process than `before`, which may still be loading.
  pid_t NextTemplate(pid_t before) {
    const absl::Time latest = clock_.Now() + kPatience;
    while (clock_.Now() < latest) {
      for (const auto& task : std::filesystem::directory_iterator("/proc/self/task")) {
        std::ifstream children(task.path() / "children");
        for (pid_t pid; children >> pid;) {
          // The thread that forks it has the same name, and must not be stopped with it.
          std::error_code gone;
          const auto program =
              std::filesystem::read_symlink(absl::StrCat("/proc/", pid, "/exe"), gone);
          const bool is_worker = program == std::filesystem::canonical(MILLRACE_WORKER_PROGRAM);
          if (pid != before && is_worker && ProcFile(pid, "comm") == "template") return pid;
        }
      }
      clock_.SleepFor(absl::Microseconds(200));
    }
    ADD_FAILURE() << "No template takes the place of " << before;
    return 0;
  }

  double Restarts() const {
    for (const Sample& sample : metrics_.Collect()) {
      if (sample.metric == &kReplicaRestartsTotal) return std::get<double>(sample.value);
    }
    return -1;
  }

  Clock& clock_ = Clock::Real();
  TimerThread timer_{clock_};
  CoreLeases leases_{2};
  ModelMetrics metrics_{"identity", "1", 8, clock_};
  size_t most_places_ = 0;  // See ReplicaPool::Options.
  std::optional<ReplicaScaler::Options> scaling_;
  std::unique_ptr<ReplicaPool> pool_;
};

TEST_F(ReplicaPoolTest, AThousandDeathsLeaveNothingBehind) {
  StartPool(1, 1);
  KillAndWait(20);
  const Belongings before;
  const std::vector<absl::Duration> took = KillAndWait(kCycles);
  ASSERT_EQ(took.size(), kCycles);
  const Belongings after = SettledTo(before);
  EXPECT_EQ(after.descriptors, before.descriptors);
  EXPECT_EQ(after.threads, before.threads);
  EXPECT_EQ(after.mappings, before.mappings);
  EXPECT_EQ(after.children, before.children) << "zombies, or processes that nobody needs";
  EXPECT_LT(after.resident_pages - before.resident_pages, (8 << 20) / 4096);
  std::printf("From a death to the next replica: median %s, 99 %% within %s\n",
              absl::FormatDuration(took[took.size() / 2]).c_str(),
              absl::FormatDuration(took[took.size() * 99 / 100]).c_str());
}

TEST_F(ReplicaPoolTest, GrowsByAForkAndShrinksToNothingLeft) {
  StartPool(1, 2);
  ASSERT_TRUE(pool_->Resize(2, kPatience).ok());
  ASSERT_TRUE(pool_->Resize(1, kPatience).ok());
  const Belongings before;
  std::vector<absl::Duration> took;
  for (int i = 0; i < 50; ++i) {
    const absl::Time begin = clock_.Now();
    ASSERT_TRUE(pool_->Resize(2, kPatience).ok());
    took.push_back(clock_.Now() - begin);
    EXPECT_EQ(pool_->ready_replicas(), 2);
    ASSERT_TRUE(pool_->Resize(1, kPatience).ok());
    EXPECT_EQ(pool_->List().size(), 1);
  }
  const Belongings after = SettledTo(before);
  EXPECT_EQ(after.descriptors, before.descriptors);
  EXPECT_EQ(after.threads, before.threads);
  EXPECT_EQ(after.children, before.children);
  std::sort(took.begin(), took.end());
  std::printf("From the decision to a replica more: median %s, all within %s\n",
              absl::FormatDuration(took[took.size() / 2]).c_str(),
              absl::FormatDuration(took.back()).c_str());
}

TEST_F(ReplicaPoolTest, ReplicaWaitsForATemplateThatIsBeingLoadedAndIsNoFurtherDeath) {
  StartPool(1, 2,
            {.first = absl::Hours(1), .most = absl::Hours(1)});  // Nobody tries a second time.
  const pid_t first = NextPid(0);
  const pid_t dead = pool_->pids()[0];
  kill(dead, SIGKILL);
  const pid_t loading = NextTemplate(dead);
  kill(loading, SIGSTOP);  // So it takes its time.
  kill(first, SIGKILL);
  const auto reason = [&] { return std::string(pool_->List().front().state.message()); };
  while (reason().find("is loaded again") == std::string::npos) {
    clock_.SleepFor(absl::Milliseconds(1));
  }
  EXPECT_FALSE(pool_->readiness().ok() && pool_->ready_replicas() > 0);
  EXPECT_EQ(Restarts(), 1);
  const absl::Status grown = pool_->Resize(2, kPatience);
  EXPECT_NE(grown.message().find("is loaded again"), std::string::npos) << grown;
  EXPECT_EQ(pool_->replicas(), 1);
  kill(loading, SIGCONT);
  EXPECT_GT(NextPid(first), 0);
  EXPECT_EQ(Restarts(), 1);
}

TEST_F(ReplicaPoolTest, EndsWhileAReplicaWaitsForATemplate) {
  StartPool(1, 1);
  const pid_t replica = NextPid(0);
  const pid_t dead = pool_->pids()[0];
  kill(dead, SIGKILL);
  const pid_t loading = NextTemplate(dead);
  kill(loading, SIGSTOP);
  kill(replica, SIGKILL);
  while (Restarts() < 1) clock_.SleepFor(absl::Milliseconds(1));
  kill(loading, SIGKILL);  // Or the pool would wait for it.
  pool_.reset();
}

TEST_F(ReplicaPoolTest, TemplateThatDoesNotAnswerIsReplacedAndReplicasGoOn) {
  StartPool(2, 2);
  const pid_t stopped = pool_->pids()[0];
  const pid_t lives_on = pool_->List()[1].pid;
  kill(stopped, SIGSTOP);
  const pid_t dying = NextPid(0);
  kill(dying, SIGKILL);
  EXPECT_GT(NextPid(dying), 0);  // From a new template.
  EXPECT_NE(pool_->pids()[0], stopped);
  EXPECT_EQ(pool_->List()[1].pid, lives_on);
  EXPECT_EQ(pool_->ready_replicas(), 2);
  EXPECT_EQ(kill(stopped, 0), -1);
  EXPECT_EQ(Restarts(), 1);
}

TEST_F(ReplicaPoolTest, RestartReplacesEveryProcess) {
  StartPool(2, 2);
  const std::vector<pid_t> before = Pids();
  ASSERT_TRUE(pool_->Restart(kPatience).ok());
  ASSERT_EQ(Pids().size(), 2);
  for (const pid_t pid : Pids()) EXPECT_EQ(std::count(before.begin(), before.end(), pid), 0);
  EXPECT_EQ(pool_->Resize(3, kPatience).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(pool_->Resize(0, kPatience).code(), absl::StatusCode::kInvalidArgument);
}

// So many places on these CPUs.
std::vector<ReplicaPlacement> Places(size_t count, const std::vector<int>& cpus = {}) {
  return {count, {.cpus = cpus}};
}

TEST_F(ReplicaPoolTest, FollowsAPlanAndMovesOnlyThoseThatAreElsewhere) {
  const std::vector<int> cpus = CpusOf(getpid());
  const std::vector<int> last = {cpus.back()};
  most_places_ = 4;
  StartPool(2, 2);
  const std::vector<pid_t> floating = Pids();
  ASSERT_TRUE(pool_->Move(Places(4), 3, kPatience).ok());
  ASSERT_EQ(Pids().size(), 3);
  EXPECT_EQ(pool_->most_replicas(), 4);
  EXPECT_EQ(Pids()[0], floating[0]);
  EXPECT_EQ(Pids()[1], floating[1]);
  ASSERT_TRUE(pool_->Resize(4, kPatience).ok()) << "There is a place for it since the plan.";
  ASSERT_TRUE(pool_->Move(Places(1, last), 1, kPatience).ok());
  const std::vector<pid_t> pinned = Pids();
  ASSERT_EQ(pinned.size(), 1);
  EXPECT_NE(pinned[0], floating[0]);
  EXPECT_EQ(CpusOf(pinned[0]), last);
  ASSERT_TRUE(pool_->Move(Places(1, last), 1, kPatience).ok());
  EXPECT_EQ(Pids(), pinned) << "It is there already.";
  ASSERT_TRUE(pool_->Move(Places(1), 1, kPatience).ok());
  ASSERT_EQ(Pids().size(), 1);
  EXPECT_EQ(CpusOf(Pids()[0]), cpus);
}

TEST_F(ReplicaPoolTest, NumberThatAnOperatorChoseIsKeptByEveryPlan) {
  most_places_ = 4;
  StartPool(3, 4);
  ASSERT_TRUE(pool_->Resize(2, kPatience).ok());
  for (int plan = 0; plan < 2; ++plan) {
    ASSERT_TRUE(pool_->Move(Places(4), 3, kPatience).ok());
    EXPECT_EQ(pool_->replicas(), 2);
  }
}

TEST_F(ReplicaPoolTest, PinnedReplicaThatTheKernelHasMovedIsReplaced) {
  const std::vector<int> cpus = CpusOf(getpid());
  if (cpus.size() < 2) GTEST_SKIP() << "There is one CPU.";
  const std::vector<int> first = {cpus.front()};
  StartPool(1, 1);
  ASSERT_TRUE(pool_->Move(Places(1, first), 1, kPatience).ok());
  const pid_t pid = Pids().front();
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpus.back(), &set);
  ASSERT_EQ(sched_setaffinity(pid, sizeof(set), &set), 0);
  ASSERT_TRUE(pool_->Move(Places(1, first), 1, kPatience).ok());
  EXPECT_NE(Pids().front(), pid);
  EXPECT_EQ(CpusOf(Pids().front()), first);
}

TEST_F(ReplicaPoolTest, FloatingReplicaFollowsTheServerNotItsTemplate) {
  const std::vector<int> cpus = CpusOf(getpid());
  PinThisThread({cpus.front()});
  StartPool(1, 1);
  EXPECT_EQ(CpusOf(Pids().front()), std::vector<int>{cpus.front()});
  PinThisThread(cpus);
  ASSERT_TRUE(pool_->Restart(kPatience).ok());
  EXPECT_EQ(CpusOf(Pids().front()), cpus);
}

TEST_F(ReplicaPoolTest, NumberThatAnOperatorChoseIsKeptAsFarAsItFits) {
  StartPool(4, 4);
  ASSERT_TRUE(pool_->Resize(2, kPatience).ok());
  ASSERT_TRUE(pool_->Move(Places(3), 3, kPatience).ok());
  EXPECT_EQ(pool_->replicas(), 2);
  ASSERT_TRUE(pool_->Move(Places(1), 1, kPatience).ok());
  EXPECT_EQ(pool_->replicas(), 1);
  ASSERT_TRUE(pool_->Move(Places(3), 3, kPatience).ok());
  EXPECT_EQ(pool_->replicas(), 3) << "It was cut to the plan, which it follows again.";
  ASSERT_TRUE(pool_->Move(Places(9), 9, kPatience).ok());
  EXPECT_EQ(pool_->replicas(), 4) << "There is memory for so many.";
}

TEST_F(ReplicaPoolTest, MoveWaitsForATemplateThatIsBeingLoaded) {
  const std::vector<int> last = {CpusOf(getpid()).back()};
  StartPool(1, 1);
  const pid_t dead = pool_->pids()[0];
  kill(dead, SIGKILL);
  NextTemplate(dead);
  ASSERT_TRUE(pool_->Move(Places(1, last), 1, kPatience).ok());
  EXPECT_EQ(CpusOf(Pids().front()), last);
}

// The scaler wants to take a replica away while Move() waits for a template that doesn't answer.
TEST_F(ReplicaPoolTest, TemplateIsReplacedWhileTheScalerWaitsForAMove) {
  scaling_ = {.least = 1, .most = 2, .shrink_after = absl::Seconds(1)};
  const std::vector<int> last = {CpusOf(getpid()).back()};
  StartPool(2, 2);
  kill(pool_->pids()[0], SIGSTOP);
  const absl::Status moved = pool_->Move(Places(2, last), 2, kPatience);
  ASSERT_TRUE(moved.ok()) << moved;
  EXPECT_EQ(CpusOf(Pids().front()), last);
  const absl::Time latest = clock_.Now() + kPatience;
  while (pool_->replicas() > 1 && clock_.Now() < latest) clock_.SleepFor(absl::Milliseconds(10));
  EXPECT_EQ(pool_->replicas(), 1);
}

TEST_F(ReplicaPoolTest, MoveThatWaitsEndsWhenMovesAreStopped) {
  StartPool(1, 2);
  const std::vector<pid_t> before = Pids();
  const pid_t dead = pool_->pids()[0];
  kill(dead, SIGKILL);
  const pid_t loading = NextTemplate(dead);
  kill(loading, SIGSTOP);
  const absl::Time begin = clock_.Now();
  absl::Status moved;
  {
    const Thread mover(
        "mover", [&] { moved = pool_->Move(Places(1, {CpusOf(getpid()).back()}), 1, kPatience); });
    while (pool_->replicas() < 2) clock_.SleepFor(absl::Milliseconds(1));
    pool_->StopMoves();
  }
  EXPECT_TRUE(absl::IsCancelled(moved)) << moved;
  EXPECT_LT(clock_.Now() - begin, kPatience / 2);
  EXPECT_TRUE(absl::IsCancelled(pool_->Resize(2, kPatience)));
  EXPECT_TRUE(absl::IsCancelled(pool_->Restart(kPatience)));
  EXPECT_EQ(Pids(), before) << "It serves where it was.";
  EXPECT_EQ(pool_->ready_replicas(), 1);
  kill(loading, SIGCONT);
}

TEST_F(ReplicaPoolTest, ReplicasStayWhereTheyAreWhileNoOtherCanStart) {
  StartPool(2, 2);
  const std::vector<pid_t> before = Pids();
  const absl::Status moved = pool_->Move(Places(2, {CPU_SETSIZE - 1}), 2, kPatience);
  EXPECT_FALSE(moved.ok());
  EXPECT_NE(moved.message().find("pinning"), std::string::npos) << moved;
  EXPECT_EQ(Pids(), before);
  EXPECT_EQ(pool_->ready_replicas(), 2);
  ASSERT_TRUE(pool_->Move(Places(2), 2, kPatience).ok());
  EXPECT_EQ(Pids(), before);
}

}  // namespace
}  // namespace millrace
