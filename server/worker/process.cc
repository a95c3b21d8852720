// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/process.h"

#include <fcntl.h>
#include <malloc.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <string>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "server/base/status.h"
#include "server/base/thread.h"

namespace millrace {
namespace {

struct Pipe {
  UniqueFd read_end;
  UniqueFd write_end;
};

absl::StatusOr<Pipe> MakePipe() {
  int fds[2];
  if (pipe2(fds, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe");
  return Pipe{UniqueFd(fds[0]), UniqueFd(fds[1])};
}

// The grandchild: waits until the template has reaped the process between them.
[[noreturn]] void RunGrandchild(Pipe go, absl::FunctionRef<void()> body) {
  go.write_end.reset();
  char token;
  if (read(go.read_end.get(), &token, 1) == 1) {
    go.read_end.reset();
    body();
  }
  _exit(0);
}

[[noreturn]] void RunChild(Pipe result, absl::FunctionRef<absl::Status()> body) {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int nowhere = open("/dev/null", O_RDONLY | O_CLOEXEC);  // Which can't be written to.
  if (nowhere >= 0) dup2(nowhere, STDERR_FILENO);
  const absl::Status status = body();
  // Written at once, so that it can't be cut in two: PIPE_BUF is 4 KiB.
  const std::string text =
      absl::StrCat(static_cast<int>(status.code()), " ", status.message()).substr(0, 4096);
  const bool told =
      write(result.write_end.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
  _exit(told ? 0 : 1);
}

// What waitpid() said of a process that ended without a word.
std::string DeathText(int exit_status) {
  return WIFSIGNALED(exit_status) ? absl::StrCat("died of signal ", WTERMSIG(exit_status), " (",
                                                 strsignal(WTERMSIG(exit_status)), ")")
                                  : absl::StrCat("exited with ", WEXITSTATUS(exit_status));
}

[[noreturn]] void RunMiddle(Pipe pid_pipe, Pipe go, absl::FunctionRef<void()> body) {
  const pid_t pid = fork();
  if (pid == 0) {
    pid_pipe = {};
    RunGrandchild(std::move(go), body);
  }
  const bool told = pid > 0 && write(pid_pipe.write_end.get(), &pid, sizeof(pid)) == sizeof(pid);
  _exit(told ? 0 : 1);
}

// Address space that libraries reserve and hardly use: glibc an arena for each thread that
// allocates, which is twice as large for a moment.
constexpr uint64_t kReserved = uint64_t{1} << 30;
constexpr uint64_t kReservedPerThread = uint64_t{128} << 20;

absl::Status LowerLimit(__rlimit_resource resource, uint64_t most, const char* name) {
  rlimit limit = {};
  if (getrlimit(resource, &limit) != 0) return ErrnoStatus(errno, name);
  most = std::min<uint64_t>(most, limit.rlim_max);
  limit = {.rlim_cur = most, .rlim_max = most};
  return setrlimit(resource, &limit) == 0 ? absl::OkStatus() : ErrnoStatus(errno, name);
}

// Bytes that count against a limit of memory. Asks the kernel, which maps a page more if it fits
// below a limit: a replica in its sandbox can't read its own figures in /proc.
uint64_t InUse(__rlimit_resource resource) {
  rlimit original = {};
  if (getrlimit(resource, &original) != 0) return 0;
  const auto page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const auto fits = [&](uint64_t pages) {
    const rlimit tried = {.rlim_cur = pages * page, .rlim_max = original.rlim_max};
    setrlimit(resource, &tried);
    void* const probe =
        mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (probe == MAP_FAILED) return false;
    munmap(probe, page);
    return true;
  };
  uint64_t low = 0;  // Doesn't fit; `high` does.
  uint64_t high = std::min<uint64_t>(original.rlim_max, uint64_t{1} << 47) / page;
  while (high - low > 1) {
    const uint64_t middle = low + (high - low) / 2;
    (fits(middle) ? high : low) = middle;
  }
  setrlimit(resource, &original);
  return low * page;
}

}  // namespace

void NameProcess(const char* name) { prctl(PR_SET_NAME, name); }

void WriteTo(UniqueFd output) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);  // It is no terminal, and may die at any time.
  dup2(output.get(), STDOUT_FILENO);
  dup2(output.get(), STDERR_FILENO);
}

absl::Status DieWithServer(int server_pid) {
  if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) return ErrnoStatus(errno, "PR_SET_PDEATHSIG");
  if (getppid() == server_pid) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("This process's parent is ", getppid(),
                                             ", not millrace-server (", server_pid,
                                             "): the server has gone or is no child subreaper."));
}

void IgnoreStopSignals() {
  signal(SIGINT, SIG_IGN);
  signal(SIGTERM, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  signal(SIGPIPE, SIG_IGN);
}

void VolunteerForOomKiller() {
  const UniqueFd file(open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC));
  if (file.valid() && write(file.get(), "500", 3) < 0) return;
}

void ComeToForeground() {
  const sched_param normal = {};
  sched_setscheduler(0, SCHED_OTHER, &normal);
}

absl::Status LimitMemory(uint64_t bytes, uint64_t mapped) {
  const uint64_t reserved =
      kReserved + kReservedPerThread * static_cast<uint64_t>(sysconf(_SC_NPROCESSORS_CONF));
  constexpr uint64_t kMost = uint64_t{1} << 60;  // So that the sum isn't too large for a number.
  const uint64_t address_space =
      InUse(RLIMIT_AS) + std::min(bytes, kMost) + std::min(mapped, kMost) + reserved;
  MILLRACE_RETURN_IF_ERROR(LowerLimit(RLIMIT_AS, address_space, "RLIMIT_AS"));
  return LowerLimit(RLIMIT_DATA, bytes, "RLIMIT_DATA");
}

void ReturnFreeMemory() { malloc_trim(0); }

uint64_t PrivateMemory() { return InUse(RLIMIT_DATA); }

void KeepDescriptors(std::vector<UniqueFd*> fds) {
  constexpr int kFirst = STDERR_FILENO + 1;
  const auto beyond = kFirst + static_cast<int>(fds.size());
  // Moved out of each other's way first.
  for (UniqueFd* fd : fds) fd->reset(fcntl(fd->get(), F_DUPFD_CLOEXEC, beyond));
  int next = kFirst;
  for (UniqueFd* fd : fds) fd->reset(dup3(fd->get(), next++, O_CLOEXEC));
  closefrom(beyond);
}

absl::Status PinTo(const std::vector<int>& cpus) {
  // A mask that a process has set itself outlasts the cpuset's growth; one that it has inherited
  // grows along.
  if (cpus.empty() || cpus == CpusOf(getpid())) return absl::OkStatus();
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof(set), &set) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, absl::StrCat("pinning to the cores ", absl::StrJoin(cpus, ",")));
}

int ThreadCount() {
  std::error_code ignored;
  const std::filesystem::directory_iterator tasks("/proc/self/task", ignored);
  return static_cast<int>(std::distance(begin(tasks), end(tasks)));
}

absl::StatusOr<pid_t> ForkToSubreaper(absl::FunctionRef<void()> body) {
  MILLRACE_ASSIGN_OR_RETURN(Pipe pid_pipe, MakePipe());
  MILLRACE_ASSIGN_OR_RETURN(Pipe go, MakePipe());
  const pid_t middle = fork();
  if (middle < 0) return ErrnoStatus(errno, "fork");
  if (middle == 0) RunMiddle(std::move(pid_pipe), std::move(go), body);
  pid_pipe.write_end.reset();
  go.read_end.reset();
  int exit_status = 0;
  while (waitpid(middle, &exit_status, 0) < 0 && errno == EINTR) {
  }
  pid_t pid = 0;
  if (read(pid_pipe.read_end.get(), &pid, sizeof(pid)) != sizeof(pid)) {
    return absl::ResourceExhaustedError(
        "The template could not fork a replica: too many processes, or too little memory.");
  }
  if (write(go.write_end.get(), "g", 1) != 1) return ErrnoStatus(errno, "starting a replica");
  return pid;
}

absl::Status RunInChild(absl::FunctionRef<absl::Status()> body) {
  MILLRACE_ASSIGN_OR_RETURN(Pipe result, MakePipe());
  const pid_t child = fork();
  if (child < 0) return ErrnoStatus(errno, "fork");
  if (child == 0) RunChild(std::move(result), body);
  result.write_end.reset();
  char text[4096];
  const ssize_t size = read(result.read_end.get(), text, sizeof(text));
  int exit_status = 0;
  while (waitpid(child, &exit_status, 0) < 0 && errno == EINTR) {
  }
  if (size <= 0) return absl::InternalError(DeathText(exit_status));
  const std::pair<std::string, std::string> parts =
      absl::StrSplit(absl::string_view(text, static_cast<size_t>(size)), absl::MaxSplits(' ', 1));
  return absl::Status(static_cast<absl::StatusCode>(std::atoi(parts.first.c_str())), parts.second);
}

absl::StatusOr<std::string> AskChild(absl::FunctionRef<absl::StatusOr<std::string>()> body) {
  MILLRACE_ASSIGN_OR_RETURN(Pipe answer, MakePipe());
  fcntl(answer.write_end.get(), F_SETFL, O_NONBLOCK);
  // What is written waits in the pipe until the child has ended.
  MILLRACE_RETURN_IF_ERROR(RunInChild([&]() -> absl::Status {
    MILLRACE_ASSIGN_OR_RETURN(const std::string text, body());
    const ssize_t written = write(answer.write_end.get(), text.data(), text.size());
    if (written == static_cast<ssize_t>(text.size())) return absl::OkStatus();
    return absl::ResourceExhaustedError(absl::StrCat("a child process has ", text.size(),
                                                     " bytes to tell, more than a pipe holds"));
  }));
  answer.write_end.reset();
  std::string text;
  char piece[4096];
  for (ssize_t size; (size = read(answer.read_end.get(), piece, sizeof(piece))) > 0;) {
    text.append(piece, static_cast<size_t>(size));
  }
  return text;
}

}  // namespace millrace
