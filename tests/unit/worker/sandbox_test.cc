// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// Each test shuts in a child of its own, and sees from outside what becomes of it.
#include "server/worker/sandbox.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <string>

#include "absl/strings/str_cat.h"
#include "server/worker/landlock.h"
#include "server/worker/process.h"

namespace millrace {
namespace {

using Role = Sandbox::Role;

// What `result` of a system call came to: 0, or its errno.
int Errno(int result) { return result < 0 ? errno : 0; }

absl::Status Expect(int expected, int got, const char* what) {
  if (expected == got) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(what, " brought ", got, "; expected ", expected));
}

class SandboxTest : public testing::Test {
 protected:
  SandboxTest() {
    std::string pattern = testing::TempDir() + "/sandbox-XXXXXX";
    folder_ = mkdtemp(pattern.data());
    chmod(folder_.c_str(), 0777);
  }
  void SetUp() override {
    const auto landlock = Landlock::Create();
    if (!landlock.ok()) GTEST_SKIP() << landlock.status();
    scopes_signals_ = landlock->scopes_signals();
  }
  ~SandboxTest() override { std::filesystem::remove_all(folder_); }

  // Runs `body` in a child with the sandbox of `role`.
  absl::Status In(Role role, absl::FunctionRef<absl::Status(Sandbox&)> body) {
    return RunInChild([&]() -> absl::Status {
      Sandbox sandbox({.mode = SandboxMode::kRequired, .on_gpu = false, .folder = folder_});
      absl::Status status = sandbox.GiveUpPrivileges();
      if (status.ok()) status = sandbox.Confine(role);
      return status.ok() ? body(sandbox) : status;
    });
  }

  std::string File(const char* name) const { return absl::StrCat(folder_, "/", name); }

  std::string folder_;
  bool scopes_signals_ = false;  // Kernels before 6.12 don't.
};

int Map(int flags) {
  return mmap(nullptr, 4096, PROT_READ, flags | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? errno : 0;
}

int Open(const std::string& path, int flags) { return Errno(open(path.c_str(), flags, 0600)); }

TEST_F(SandboxTest, TheInspectorFillsItsFolderAndOpensNothingElse) {
  const std::string outside = testing::TempDir() + "/outside-the-sandbox";
  const absl::Status status = In(Role::kInspector, [&](Sandbox&) {
    absl::Status result = Expect(0, Open(File("file"), O_WRONLY | O_CREAT), "a file inside");
    result.Update(Expect(EACCES, Open(outside, O_WRONLY | O_CREAT), "a file outside"));
    result.Update(Expect(EACCES, Open("/etc/hostname", O_RDONLY), "reading outside"));
    result.Update(Expect(EPERM, Errno(fork()), "a fork"));
    return result;
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_TRUE(std::filesystem::exists(File("file")));
  EXPECT_FALSE(std::filesystem::exists(outside));
}

TEST_F(SandboxTest, TheTemplateForksAndReadsItsFolder) {
  close(open(File("file").c_str(), O_WRONLY | O_CREAT, 0644));
  chmod(File("file").c_str(), 0644);
  const absl::Status status = In(Role::kTemplate, [&](Sandbox&) {
    absl::Status result = Expect(0, Open(File("file"), O_RDONLY), "reading inside");
    result.Update(Expect(EPERM, Open(File("new"), O_WRONLY | O_CREAT), "a file inside"));
    result.Update(RunInChild([] { return absl::OkStatus(); }));
    result.Update(Expect(EPERM, Errno(kill(getppid(), SIGKILL)), "killing its parent"));
    result.Update(Expect(EPERM, Errno(socket(AF_UNIX, SOCK_STREAM, 0)), "a socket"));
    result.Update(Expect(0, Map(MAP_PRIVATE), "private memory"));
    result.Update(Expect(EPERM, Map(MAP_SHARED), "shared memory"));
    result.Update(Expect(EPERM, Map(MAP_PRIVATE | MAP_GROWSDOWN), "a stack"));
    return result;
  });
  EXPECT_TRUE(status.ok()) << status;
}

// Forks a replica of a template, as it is done, and runs `body` in it.
absl::Status InReplica(Sandbox& sandbox, absl::FunctionRef<absl::Status()> body) {
  return RunInChild([&]() -> absl::Status {
    const absl::Status status = sandbox.Confine(Role::kReplica);
    return status.ok() ? body() : status;
  });
}

TEST_F(SandboxTest, AReplicaStartsThreadsAndActsOnItselfAlone) {
  const absl::Status status = In(Role::kTemplate, [&](Sandbox& sandbox) {
    return InReplica(sandbox, [this] {
      pthread_t thread;
      void* returned = nullptr;
      const int started = pthread_create(
          &thread, nullptr, [](void* to) { return to; }, &returned);
      absl::Status all = Expect(0, started, "a thread");
      if (started == 0) pthread_join(thread, &returned);
      const rlimit few = {.rlim_cur = 64, .rlim_max = 64};
      all.Update(Expect(0, setrlimit(RLIMIT_NOFILE, &few), "its own limit"));
      const int to_itself = scopes_signals_ ? 0 : EPERM;
      all.Update(Expect(to_itself, Errno(kill(getpid(), 0)), "a signal to itself"));
      all.Update(Expect(EPERM, Errno(kill(getppid(), 0)), "a signal to its parent"));
      all.Update(Expect(EPERM, Errno(fork()), "a fork"));
      return all;
    });
  });
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(SandboxTest, AReplicaThatAbortsDiesOfIt) {
  const absl::Status status = In(Role::kTemplate, [&](Sandbox& sandbox) {
    return InReplica(sandbox, []() -> absl::Status { abort(); });
  });
  const std::string how = scopes_signals_ ? "died of signal 6 (Aborted)" : "died of signal 11";
  EXPECT_NE(status.message().find(how), std::string::npos) << status;
}

TEST_F(SandboxTest, NothingHappensWhereItIsOff) {
  const absl::Status status = RunInChild([&] {
    const uid_t before = getuid();
    Sandbox sandbox({.mode = SandboxMode::kOff, .on_gpu = false, .folder = ""});
    absl::Status result = sandbox.GiveUpPrivileges();
    result.Update(sandbox.Confine(Role::kReplica));
    result.Update(Expect(0, Open("/etc/hostname", O_RDONLY), "reading"));
    result.Update(getuid() == before ? absl::OkStatus() : absl::InternalError("another user"));
    return result;
  });
  EXPECT_TRUE(status.ok()) << status;
}

}  // namespace
}  // namespace millrace
