// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/replica/child_process.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "server/base/mutex.h"
#include "server/base/status.h"
#include "server/base/thread.h"
#include "server/channel/worker_protocol.h"

extern char** environ;

namespace millrace {
namespace {

// The children that a ChildProcess stands for. The mutex is held where a child comes or goes, so
// that nobody takes one for a stranger meanwhile.
struct KnownChildren {
  Mutex mutex;
  std::set<pid_t> pids ABSL_GUARDED_BY(mutex);
};

KnownChildren& Known() {
  static auto* const known = new KnownChildren();
  return *known;
}

std::string Ending(const siginfo_t& info) {
  if (info.si_code == CLD_EXITED) return absl::StrCat("exited with code ", info.si_status);
  return absl::StrCat("was killed by signal ", info.si_status, " (", strsignal(info.si_status),
                      ")");
}

// What libtorch, OpenMP, MKL, GPU drivers and the loader of libraries are told by the environment.
// Nothing else of the server's reaches a worker: a model may read what its process has.
bool IsForWorkers(absl::string_view entry) {
  constexpr absl::string_view kPrefixes[] = {
      "ATEN_", "CUBLAS",  "CUDA_",    "CUDNN_", "DNNL_",   "GOMP_",  "HIP_",  "HSA_",
      "KMP_",  "LANG=",   "LC_",      "LD_",    "MALLOC_", "MKL_",   "NCCL_", "NVIDIA_",
      "OMP_",  "ONEDNN_", "PYTORCH_", "ROCR_",  "TMPDIR=", "TORCH_", "TZ="};
  // Sanitizers of the tests' builds.
  constexpr absl::string_view kOptions[] = {
      "ASAN_OPTIONS=", "LSAN_OPTIONS=", "TSAN_OPTIONS=", "UBSAN_OPTIONS="};
  const auto begins = [&](absl::string_view prefix) { return absl::StartsWith(entry, prefix); };
  return std::any_of(std::begin(kPrefixes), std::end(kPrefixes), begins) ||
         std::any_of(std::begin(kOptions), std::end(kOptions), begins);
}

// For how long an active thread spins until it sleeps: what libgomp does by itself, some
// milliseconds. OMP_WAIT_POLICY=active would have it spin on while there are no requests.
constexpr char kSpin[] = "GOMP_SPINCOUNT=300000";

// The environment of workers; with the intra-op threads' way to wait, unless the operator said
// otherwise.
std::vector<std::string> WorkerEnvironment(ThreadWait wait) {
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    if (IsForWorkers(*entry)) environment.emplace_back(*entry);
  }
  if (getenv("OMP_WAIT_POLICY") == nullptr && getenv("GOMP_SPINCOUNT") == nullptr) {
    environment.emplace_back(wait == ThreadWait::kActive ? kSpin : "OMP_WAIT_POLICY=passive");
  }
  return environment;
}

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& string : strings) pointers.push_back(string.data());
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

ChildProcess::ChildProcess(pid_t pid)
    : pid_(pid), end_(static_cast<int>(syscall(SYS_pidfd_open, pid, 0))) {}

ChildProcess::ChildProcess(ChildProcess&& other) noexcept
    : pid_(std::exchange(other.pid_, 0)), end_(std::move(other.end_)) {}

ChildProcess& ChildProcess::operator=(ChildProcess&& other) noexcept {
  if (this != &other) {
    KillAndReap();
    pid_ = std::exchange(other.pid_, 0);
    end_ = std::move(other.end_);
  }
  return *this;
}

absl::StatusOr<ChildProcess> ChildProcess::Spawn(const std::string& program,
                                                 const std::vector<std::string>& arguments,
                                                 const ControlSocket& control, int output,
                                                 SpawnOptions options) {
  std::vector<std::string> words = {program};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<std::string> environment = WorkerEnvironment(options.wait);
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&files, output, STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&files, output, STDERR_FILENO);
  posix_spawn_file_actions_adddup2(&files, control.fd(), kWorkerControlFd);
  posix_spawn_file_actions_addclosefrom_np(&files, kWorkerControlFd + 1);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t signals;
  sigemptyset(&signals);
  posix_spawnattr_setsigmask(&attributes, &signals);
  sigfillset(&signals);
  posix_spawnattr_setsigdefault(&attributes, &signals);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
  pid_t pid = 0;
  int error;
  {
    MutexLock lock(Known().mutex);
    error = posix_spawn(&pid, program.c_str(), &files, &attributes, Pointers(words).data(),
                        Pointers(environment).data());
    if (error == 0) Known().pids.insert(pid);
  }
  if (error == 0 && options.background && AllowBackground()) {
    const sched_param idle = {};
    sched_setscheduler(pid, SCHED_IDLE, &idle);  // posix_spawn() itself takes no such policy.
  }
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  if (error != 0) return ErrnoStatus(error, absl::StrCat("starting ", program));
  return ChildProcess(pid);
}

absl::StatusOr<ChildProcess> ChildProcess::Adopt(pid_t pid) {
  MutexLock lock(Known().mutex);
  siginfo_t info = {};
  if (pid <= 0 || Known().pids.count(pid) > 0 ||
      waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG | WNOWAIT) != 0) {
    return absl::InternalError(
        absl::StrCat("process ", pid, " is no child that this process could adopt"));
  }
  Known().pids.insert(pid);
  setpgid(pid, pid);  // A group of its own: what its template has forked beside it is another.
  return ChildProcess(pid);
}

std::string ChildProcess::KillAndReap() {
  if (pid_ == 0) return "";
  const pid_t pid = std::exchange(pid_, 0);
  end_.reset();
  // Without effect on one that has ended; its number is ours until reaped. With it goes whatever it
  // has forked.
  kill(pid, SIGKILL);
  kill(-pid, SIGKILL);
  siginfo_t info = {};
  int result;
  do {
    result = waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT);
  } while (result != 0 && errno == EINTR);
  MutexLock lock(Known().mutex);
  // Reaps it and what was killed with it, which has become this process's. Its number is free from
  // here, and nobody gets it while the mutex is held.
  siginfo_t any = {};
  while (waitid(P_PGID, static_cast<id_t>(pid), &any, WEXITED) == 0 || errno == EINTR) {
  }
  waitid(P_PID, static_cast<id_t>(pid), &any, WEXITED | WNOHANG);  // One without a group.
  Known().pids.erase(pid);
  return result == 0 ? Ending(info) : "was not a child of this process";
}

void ChildProcess::BringToForeground() const {
  const sched_param normal = {};
  if (pid_ != 0) sched_setscheduler(pid_, SCHED_OTHER, &normal);
}

bool AllowBackground() {
  static const bool allowed = [] {
    // What a process without privileges needs to leave SCHED_IDLE for niceness 0; see getrlimit(2).
    constexpr rlim_t kNiceZero = 20;
    rlimit limit = {};
    if (getrlimit(RLIMIT_NICE, &limit) == 0 && limit.rlim_cur < kNiceZero) {
      const rlimit raised = {.rlim_cur = kNiceZero,
                             .rlim_max = std::max(limit.rlim_max, kNiceZero)};
      setrlimit(RLIMIT_NICE, &raised);
    }
    bool came_back = false;
    {
      const Thread probe("probe", [&] {
        const sched_param normal = {};
        came_back = sched_setscheduler(0, SCHED_IDLE, &normal) == 0 &&
                    sched_setscheduler(0, SCHED_OTHER, &normal) == 0;
      });
    }
    return came_back;
  }();
  return allowed;
}

absl::Status BecomeSubreaper() {
  if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, "becoming a child subreaper");
}

void ReapStrangers() {
  MutexLock lock(Known().mutex);
  DIR* const tasks = opendir("/proc/self/task");
  if (tasks == nullptr) return;
  while (const dirent* task = readdir(tasks)) {
    std::ifstream children(absl::StrCat("/proc/self/task/", task->d_name, "/children"));
    for (pid_t pid; children >> pid;) {
      siginfo_t info = {};
      if (Known().pids.count(pid) == 0) {
        waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOHANG);
      }
    }
  }
  closedir(tasks);
}

}  // namespace millrace
