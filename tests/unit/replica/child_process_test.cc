// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// With real child processes: a shell that this test starts and ends.
#include "server/replica/child_process.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/channel/worker_protocol.h"

namespace millrace {
namespace {

using testing::HasSubstr;

class ChildProcessTest : public testing::Test {
 protected:
  ChildProcessTest() : ends_(*ControlSocket::CreatePair()) {}

  // Starts a shell that runs `script`; file descriptor 3 is the control socket.
  ChildProcess Shell(const std::string& script, SpawnOptions options = {}) {
    auto child =
        ChildProcess::Spawn("/bin/sh", {"-c", script}, ends_.second, STDERR_FILENO, options);
    EXPECT_TRUE(child.ok()) << child.status();
    ends_.second.release();
    return *std::move(child);
  }

  // What the shell says over its control socket.
  std::string Hear() {
    const auto message = ends_.first.Receive(absl::Seconds(30));
    EXPECT_TRUE(message.ok()) << message.status();
    return message.ok() ? message->text : "";
  }

  std::pair<ControlSocket, ControlSocket> ends_;
};

// Whether `pid` is a child of this process, ended or not.
bool IsChild(pid_t pid) {
  siginfo_t info = {};
  return waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) == 0;
}

// The signals that the kernel names `which` in a process's status.
uint64_t SignalsOf(pid_t pid, const std::string& which) {
  std::ifstream status(absl::StrCat("/proc/", pid, "/status"));
  for (std::string word; status >> word;) {
    uint64_t signals = 0;
    if (word == which && status >> std::hex >> signals) return signals;
  }
  ADD_FAILURE() << "There is no " << which;
  return 0;
}

// Waits until the child has ended, without reaping it.
void WaitUntilEnded(pid_t pid) {
  siginfo_t info = {};
  ASSERT_EQ(waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT), 0);
}

TEST_F(ChildProcessTest, SpawnedProcessIsKilledAndReaped) {
  ChildProcess child = Shell("echo up >&3; exec sleep 60");
  EXPECT_EQ(Hear(), "up\n");
  const pid_t pid = child.pid();
  EXPECT_GT(pid, 0);
  EXPECT_EQ(child.KillAndReap(), "was killed by signal 9 (Killed)");
  EXPECT_EQ(child.pid(), 0);
  EXPECT_FALSE(IsChild(pid));
  EXPECT_EQ(child.KillAndReap(), "");
}

TEST_F(ChildProcessTest, TellsHowTheProcessEnded) {
  const struct {
    const char* script;
    const char* ending;
  } cases[] = {
      {"exit 7", "exited with code 7"},
      {"exit 0", "exited with code 0"},
      {"kill -SEGV $$", "was killed by signal 11 (Segmentation fault)"},
  };
  for (const auto& [script, ending] : cases) {
    ends_ = *ControlSocket::CreatePair();
    ChildProcess child = Shell(script);
    WaitUntilEnded(child.pid());
    EXPECT_EQ(child.KillAndReap(), ending);
  }
}

TEST_F(ChildProcessTest, EndsWithItsObject) {
  pid_t pid;
  {
    const ChildProcess child = Shell("exec sleep 60");
    pid = child.pid();
  }
  EXPECT_FALSE(IsChild(pid));
}

TEST_F(ChildProcessTest, MovesWithItsObject) {
  ChildProcess first = Shell("exec sleep 60");
  const pid_t pid = first.pid();
  ChildProcess second(std::move(first));
  EXPECT_EQ(first.pid(), 0);  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(second.pid(), pid);
  ends_ = *ControlSocket::CreatePair();
  ChildProcess other = Shell("exec sleep 60");
  const pid_t replaced = other.pid();
  other = std::move(second);
  EXPECT_EQ(other.pid(), pid);
  EXPECT_FALSE(IsChild(replaced));
  EXPECT_TRUE(IsChild(pid));
}

TEST_F(ChildProcessTest, OnlyTheStandardFilesAndTheControlSocketAreOpenInTheChild) {
  // One that a careless library opened without O_CLOEXEC, far up.
  const UniqueFd careless(fcntl(STDERR_FILENO, F_DUPFD, 200));
  const ChildProcess child = Shell("exec ls /proc/self/fd >&3");
  EXPECT_EQ(Hear(), "0\n1\n2\n3\n4\n");  // 4 is the folder that is being listed.
}

TEST_F(ChildProcessTest, ControlSocketThatIsAlreadyAtItsNumberIsKept) {
  const UniqueFd whatever_is_there(fcntl(kWorkerControlFd, F_DUPFD_CLOEXEC, 10));
  const ControlSocket ours{UniqueFd(fcntl(ends_.first.fd(), F_DUPFD_CLOEXEC, 10))};
  const UniqueFd theirs(fcntl(ends_.second.fd(), F_DUPFD_CLOEXEC, 10));
  ASSERT_EQ(dup3(theirs.get(), kWorkerControlFd, O_CLOEXEC), kWorkerControlFd);
  absl::StatusOr<ChildProcess> child = absl::UnknownError("");
  {
    const ControlSocket at_its_number{UniqueFd(kWorkerControlFd)};
    child = ChildProcess::Spawn("/bin/sh", {"-c", "echo here >&3; exec sleep 60"}, at_its_number,
                                STDERR_FILENO);
  }
  if (whatever_is_there.valid()) {
    ASSERT_EQ(dup3(whatever_is_there.get(), kWorkerControlFd, O_CLOEXEC), kWorkerControlFd);
  }
  ASSERT_TRUE(child.ok()) << child.status();
  EXPECT_EQ(ours.Receive(absl::Seconds(30))->text, "here\n");
}

TEST_F(ChildProcessTest, HasAProcessGroupOfItsOwnAndNoSignalsBlocked) {
  sigset_t blocked;
  sigset_t before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  sigaddset(&blocked, SIGINT);
  ASSERT_EQ(pthread_sigmask(SIG_BLOCK, &blocked, &before), 0);
  const auto handler = std::signal(SIGPIPE, SIG_IGN);
  const ChildProcess child = Shell("echo up >&3; exec sleep 60");
  std::signal(SIGPIPE, handler);
  ASSERT_EQ(pthread_sigmask(SIG_SETMASK, &before, nullptr), 0);
  EXPECT_EQ(getpgid(child.pid()), child.pid());
  EXPECT_NE(getpgid(child.pid()), getpgid(0));
  EXPECT_EQ(Hear(), "up\n");
  EXPECT_EQ(SignalsOf(child.pid(), "SigBlk:"), 0);
  EXPECT_EQ(SignalsOf(child.pid(), "SigIgn:") & (uint64_t{1} << (SIGPIPE - 1)), 0);
}

TEST_F(ChildProcessTest, OfTheServersEnvironmentAChildGetsOnlyWhatItsLibrariesNeed) {
  setenv("DATABASE_PASSWORD", "hunter2", 1);
  setenv("OMP_WAIT_POLICY", "active", 1);
  const ChildProcess child = Shell("env >&3");
  const std::string environment = Hear();
  unsetenv("DATABASE_PASSWORD");
  unsetenv("OMP_WAIT_POLICY");
  EXPECT_THAT(environment, HasSubstr("OMP_WAIT_POLICY=active"));
  EXPECT_THAT(environment, testing::Not(HasSubstr("hunter2")));
}

TEST_F(ChildProcessTest, ThreadsOfAChildWaitAsItIsToldUnlessTheServerIsToldOtherwise) {
  ASSERT_EQ(getenv("OMP_WAIT_POLICY"), nullptr);
  const ChildProcess passive = Shell("env >&3");
  EXPECT_THAT(Hear(), HasSubstr("OMP_WAIT_POLICY=passive"));
  ends_ = *ControlSocket::CreatePair();
  const ChildProcess active = Shell("env >&3", {.wait = ThreadWait::kActive});
  EXPECT_THAT(Hear(), testing::AllOf(HasSubstr("GOMP_SPINCOUNT=300000"),
                                     testing::Not(HasSubstr("OMP_WAIT_POLICY"))));
  setenv("OMP_WAIT_POLICY", "passive", 1);
  ends_ = *ControlSocket::CreatePair();
  const ChildProcess told = Shell("env >&3", {.wait = ThreadWait::kActive});
  EXPECT_THAT(Hear(), testing::AllOf(HasSubstr("OMP_WAIT_POLICY=passive"),
                                     testing::Not(HasSubstr("GOMP_SPINCOUNT"))));
  unsetenv("OMP_WAIT_POLICY");
}

TEST_F(ChildProcessTest, WhatAChildHasForkedEndsWithItAndIsReaped) {
  ASSERT_TRUE(BecomeSubreaper().ok());
  ChildProcess child = Shell("(sleep 60 & echo $! >&3; sleep 60)");
  const pid_t stray = std::stoi(Hear());
  EXPECT_THAT(child.KillAndReap(), HasSubstr("killed by signal 9"));
  EXPECT_EQ(kill(stray, 0), -1);
  EXPECT_EQ(errno, ESRCH);
}

TEST_F(ChildProcessTest, DeathOfTheChildIsSeenThoughAnotherHoldsItsSocket) {
  const ChildProcess child = Shell("(sleep 60 & echo $! >&3; exit)");
  Hear();
  pollfd end = {.fd = child.end_fd(), .events = POLLIN, .revents = 0};
  EXPECT_EQ(poll(&end, 1, 30'000), 1);
}

TEST_F(ChildProcessTest, DeathOfTheChildIsSeenOnTheSocket) {
  ChildProcess child = Shell("exit 0");
  EXPECT_EQ(ends_.first.Receive(absl::Seconds(30)).status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(ChildProcessTest, ProgramThatIsMissingIsAnErrorThatNamesIt) {
  const auto child =
      ChildProcess::Spawn("/nowhere/millrace-worker", {}, ends_.second, STDERR_FILENO);
  EXPECT_FALSE(child.ok());
  EXPECT_THAT(std::string(child.status().message()), HasSubstr("/nowhere/millrace-worker"));
}

TEST_F(ChildProcessTest, ReapStrangersTakesTheUnknownDeadAndLeavesTheRest) {
  ChildProcess known = Shell("exit 5");
  WaitUntilEnded(known.pid());
  const pid_t stranger = fork();
  if (stranger == 0) _exit(3);
  const pid_t living = fork();
  if (living == 0) {
    pause();
    _exit(0);
  }
  WaitUntilEnded(stranger);
  ReapStrangers();
  EXPECT_FALSE(IsChild(stranger));
  EXPECT_TRUE(IsChild(living));
  EXPECT_EQ(known.KillAndReap(), "exited with code 5");
  auto adopted = ChildProcess::Adopt(living);
  ASSERT_TRUE(adopted.ok()) << adopted.status();
  EXPECT_EQ(adopted->KillAndReap(), "was killed by signal 9 (Killed)");
}

TEST_F(ChildProcessTest, AdoptsItsOwnChildrenOnceAndNobodyElses) {
  for (const pid_t pid : {pid_t{-1}, pid_t{0}, pid_t{1}, getpid(), getppid()}) {
    EXPECT_EQ(ChildProcess::Adopt(pid).status().code(), absl::StatusCode::kInternal) << pid;
  }
  ChildProcess child = Shell("exec sleep 60");
  EXPECT_EQ(ChildProcess::Adopt(child.pid()).status().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE(IsChild(child.pid()));
}

TEST_F(ChildProcessTest, OrphansOfChildrenBecomeChildrenOfASubreaper) {
  ASSERT_TRUE(BecomeSubreaper().ok());
  ChildProcess child = Shell("(sleep 60 & echo $! >&3)");
  const pid_t orphan = std::stoi(Hear());
  WaitUntilEnded(child.pid());
  auto adopted = ChildProcess::Adopt(orphan);
  ASSERT_TRUE(adopted.ok()) << adopted.status();
  EXPECT_EQ(adopted->KillAndReap(), "was killed by signal 9 (Killed)");
}

}  // namespace
}  // namespace millrace
