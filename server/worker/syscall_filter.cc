// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/syscall_filter.h"

#include <fcntl.h>
#include <linux/prctl.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <initializer_list>
#include <memory>

#include "server/base/status.h"

namespace millrace {
namespace {

// A process's own memory, threads, time, signals and open files; nothing that reaches another
// process or makes anything.
constexpr int kPlain[] = {
    // Memory.
    SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mprotect), SCMP_SYS(mremap), SCMP_SYS(madvise),
    SCMP_SYS(mincore), SCMP_SYS(msync), SCMP_SYS(mlock), SCMP_SYS(mlock2), SCMP_SYS(munlock),
    SCMP_SYS(mbind), SCMP_SYS(get_mempolicy), SCMP_SYS(set_mempolicy), SCMP_SYS(membarrier),
    SCMP_SYS(pkey_alloc), SCMP_SYS(pkey_free), SCMP_SYS(pkey_mprotect),
    // Threads and waiting.
    SCMP_SYS(futex), SCMP_SYS(futex_waitv), SCMP_SYS(set_robust_list), SCMP_SYS(rseq),
    SCMP_SYS(set_tid_address), SCMP_SYS(arch_prctl), SCMP_SYS(sched_yield), SCMP_SYS(exit),
    SCMP_SYS(exit_group), SCMP_SYS(restart_syscall), SCMP_SYS(poll), SCMP_SYS(ppoll),
    SCMP_SYS(select), SCMP_SYS(pselect6), SCMP_SYS(getcpu),
    // Time.
    SCMP_SYS(nanosleep), SCMP_SYS(clock_nanosleep), SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres),
    SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(times),
    // Signals.
    SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn),
    SCMP_SYS(rt_sigpending), SCMP_SYS(rt_sigsuspend), SCMP_SYS(rt_sigtimedwait),
    SCMP_SYS(sigaltstack), SCMP_SYS(pause),
    // Open files.
    SCMP_SYS(read), SCMP_SYS(readv), SCMP_SYS(pread64), SCMP_SYS(preadv), SCMP_SYS(write),
    SCMP_SYS(writev), SCMP_SYS(pwrite64), SCMP_SYS(pwritev), SCMP_SYS(lseek), SCMP_SYS(close),
    SCMP_SYS(close_range), SCMP_SYS(dup), SCMP_SYS(dup2), SCMP_SYS(dup3), SCMP_SYS(fstat),
    SCMP_SYS(fadvise64), SCMP_SYS(fstatfs),
    // Names of files.
    SCMP_SYS(stat), SCMP_SYS(lstat), SCMP_SYS(newfstatat), SCMP_SYS(statx), SCMP_SYS(statfs),
    SCMP_SYS(access), SCMP_SYS(faccessat), SCMP_SYS(faccessat2), SCMP_SYS(readlink),
    SCMP_SYS(readlinkat), SCMP_SYS(getdents64), SCMP_SYS(getcwd),
    // Questions.
    SCMP_SYS(getpid), SCMP_SYS(getppid), SCMP_SYS(gettid), SCMP_SYS(getpgrp), SCMP_SYS(getuid),
    SCMP_SYS(geteuid), SCMP_SYS(getgid), SCMP_SYS(getegid), SCMP_SYS(getresuid),
    SCMP_SYS(getresgid), SCMP_SYS(getgroups), SCMP_SYS(getrlimit), SCMP_SYS(getrusage),
    SCMP_SYS(sysinfo), SCMP_SYS(uname), SCMP_SYS(getrandom), SCMP_SYS(capget),
    SCMP_SYS(sched_getaffinity), SCMP_SYS(sched_getparam), SCMP_SYS(sched_getscheduler),
    SCMP_SYS(sched_get_priority_max), SCMP_SYS(sched_get_priority_min)};

// Process-directed calls whose first argument names the process: 0 is the caller.
constexpr int kOnItself[] = {SCMP_SYS(prlimit64),          SCMP_SYS(sched_setaffinity),
                             SCMP_SYS(sched_setscheduler), SCMP_SYS(sched_setparam),
                             SCMP_SYS(sched_setattr),      SCMP_SYS(sched_getattr)};

constexpr int kForking[] = {SCMP_SYS(wait4), SCMP_SYS(waitid), SCMP_SYS(pipe), SCMP_SYS(pipe2)};

constexpr int kMakingFiles[] = {SCMP_SYS(ftruncate), SCMP_SYS(fallocate), SCMP_SYS(unlink),
                                SCMP_SYS(unlinkat),  SCMP_SYS(fsync),     SCMP_SYS(fdatasync)};

constexpr int kOfDevices[] = {SCMP_SYS(eventfd2),   SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl),
                              SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait),   SCMP_SYS(pipe),
                              SCMP_SYS(pipe2),      SCMP_SYS(memfd_create),  SCMP_SYS(ftruncate),
                              SCMP_SYS(connect),    SCMP_SYS(getsockopt),    SCMP_SYS(setsockopt),
                              SCMP_SYS(sendmsg),    SCMP_SYS(recvmsg),       SCMP_SYS(sendto),
                              SCMP_SYS(recvfrom),   SCMP_SYS(shutdown)};

constexpr int kHarmlessFcntls[] = {F_DUPFD, F_DUPFD_CLOEXEC, F_GETFD,
                                   F_SETFD, F_GETFL,         F_GET_SEALS};
constexpr int kHarmlessIoctls[] = {TCGETS, FIONREAD, FIOCLEX, FIONCLEX};
constexpr int kHarmlessPrctls[] = {
    PR_SET_NAME,     PR_GET_NAME, PR_GET_PDEATHSIG,   PR_SET_TIMERSLACK,  PR_GET_TIMERSLACK,
    PR_GET_DUMPABLE, PR_SET_VMA,  PR_SET_THP_DISABLE, PR_GET_THP_DISABLE, PR_GET_NO_NEW_PRIVS};

// What makes a clone a thread, and what it must not bring.
constexpr uint64_t kThread = CLONE_VM | CLONE_SIGHAND | CLONE_THREAD;
constexpr uint64_t kNamespaces = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC |
                                 CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET;
// What a plain fork may bring.
constexpr uint64_t kOfForks =
    CSIGNAL | CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID | CLONE_PARENT_SETTID;

constexpr uint64_t kWriting = O_WRONLY | O_RDWR | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY);

// A filter under construction; the first error sticks.
class Builder {
 public:
  Builder() : context_(seccomp_init(SCMP_ACT_ERRNO(EPERM))) {
    if (context_ == nullptr) error_ = ENOMEM;
    Set(SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(EPERM));
    Set(SCMP_FLTATR_CTL_NNP, 0);       // The sandbox has set it.
    Set(SCMP_FLTATR_CTL_SSB, 1);       // Filtered processes aren't slowed by a mitigation.
    Set(SCMP_FLTATR_CTL_OPTIMIZE, 2);  // A binary tree.
  }
  ~Builder() { seccomp_release(context_); }
  Builder(const Builder&) = delete;
  Builder& operator=(const Builder&) = delete;

  void Allow(int call) { Add(SCMP_ACT_ALLOW, call, {}); }
  void AllowIf(int call, std::initializer_list<scmp_arg_cmp> conditions) {
    Add(SCMP_ACT_ALLOW, call, conditions);
  }
  void Hide(int call) { Add(SCMP_ACT_ERRNO(ENOSYS), call, {}); }

  // 0 or the errno of what failed.
  int Load() { return error_ != 0 ? error_ : -seccomp_load(context_); }

 private:
  void Set(scmp_filter_attr attribute, uint32_t value) {
    Keep(seccomp_attr_set(context_, attribute, value));
  }
  void Add(uint32_t action, int call, std::initializer_list<scmp_arg_cmp> conditions) {
    Keep(seccomp_rule_add_array(context_, action, call,
                                static_cast<unsigned int>(conditions.size()), conditions.begin()));
  }
  void Keep(int result) {
    if (error_ == 0 && result < 0) error_ = -result;
  }

  const scmp_filter_ctx context_;
  int error_ = 0;
};

scmp_arg_cmp Is(unsigned int argument, uint64_t value) {
  return {.arg = argument, .op = SCMP_CMP_EQ, .datum_a = value, .datum_b = 0};
}
scmp_arg_cmp Is32(unsigned int argument, uint64_t value) {
  return {.arg = argument, .op = SCMP_CMP_MASKED_EQ, .datum_a = 0xffffffff, .datum_b = value};
}
scmp_arg_cmp Lacks(unsigned int argument, uint64_t bits) {
  return {.arg = argument, .op = SCMP_CMP_MASKED_EQ, .datum_a = bits, .datum_b = 0};
}

void AddMemory(Builder& builder, const SyscallFilter& filter) {
  if (filter.uses_devices) return builder.Allow(SCMP_SYS(mmap));
  // The limit of private memory counts neither what is shared nor what grows like a stack.
  builder.AllowIf(SCMP_SYS(mmap), {Lacks(3, MAP_ANONYMOUS | MAP_GROWSDOWN)});
  builder.AllowIf(SCMP_SYS(mmap), {Lacks(3, MAP_SHARED | MAP_GROWSDOWN)});
}

void AddProcesses(Builder& builder, const SyscallFilter& filter) {
  builder.Hide(SCMP_SYS(clone3));  // Its flags lie in memory, where no filter sees them.
  builder.AllowIf(
      SCMP_SYS(clone),
      {{.arg = 0, .op = SCMP_CMP_MASKED_EQ, .datum_a = kThread | kNamespaces, .datum_b = kThread}});
  if (filter.forks) {
    builder.AllowIf(SCMP_SYS(clone), {Lacks(0, ~kOfForks)});
    for (const int call : kForking) builder.Allow(call);
  }
  for (const int call : kOnItself) builder.AllowIf(call, {Is32(0, 0)});
  const auto self = static_cast<uint64_t>(getpid());
  for (const int call : {SCMP_SYS(kill), SCMP_SYS(tgkill)}) {
    if (filter.signals_any) {
      builder.AllowIf(call, {Lacks(0, 0x80000000)});  // No group's, and not everybody's.
    } else {
      builder.AllowIf(call, {Is32(0, self)});
    }
  }
  for (const int option : kHarmlessPrctls) {
    builder.AllowIf(SCMP_SYS(prctl), {Is32(0, static_cast<uint32_t>(option))});
  }
  // A worker may tie itself to the server, and not loose.
  builder.AllowIf(SCMP_SYS(prctl), {Is32(0, PR_SET_PDEATHSIG), Is(1, SIGKILL)});
  if (filter.adds_filters) builder.Allow(SCMP_SYS(seccomp));
}

void AddFiles(Builder& builder, const SyscallFilter& filter) {
  builder.Hide(SCMP_SYS(openat2));  // As clone3.
  const bool writes = filter.makes_files || filter.uses_devices;
  if (writes) {
    builder.Allow(SCMP_SYS(open));
    builder.Allow(SCMP_SYS(openat));
  } else {
    builder.AllowIf(SCMP_SYS(open), {Lacks(1, kWriting)});
    builder.AllowIf(SCMP_SYS(openat), {Lacks(2, kWriting)});
  }
  if (filter.makes_files) {
    for (const int call : kMakingFiles) builder.Allow(call);
  }
  for (const int command : kHarmlessFcntls) {
    builder.AllowIf(SCMP_SYS(fcntl), {Is32(1, static_cast<uint64_t>(command))});
  }
  // Without signals that a descriptor sends.
  builder.AllowIf(SCMP_SYS(fcntl), {Is32(1, F_SETFL), Lacks(2, O_ASYNC)});
}

void AddMessages(Builder& builder, const SyscallFilter& filter) {
  if (filter.uses_devices) {
    for (const int call : kOfDevices) builder.Allow(call);
    builder.AllowIf(SCMP_SYS(socket), {Is32(0, AF_UNIX)});
    builder.AllowIf(SCMP_SYS(ioctl),
                    {{.arg = 1, .op = SCMP_CMP_NE, .datum_a = TIOCSTI, .datum_b = 0}});
    return;
  }
  for (const int call : {SCMP_SYS(sendmsg), SCMP_SYS(recvmsg)}) {
    builder.AllowIf(call, {Is32(0, static_cast<uint32_t>(filter.control_fd))});
  }
  for (const int request : kHarmlessIoctls) {
    builder.AllowIf(SCMP_SYS(ioctl), {Is32(1, static_cast<uint32_t>(request))});
  }
}

}  // namespace

absl::Status InstallSyscallFilter(const SyscallFilter& filter) {
  Builder builder;
  for (const int call : kPlain) builder.Allow(call);
  AddMemory(builder, filter);
  AddProcesses(builder, filter);
  AddFiles(builder, filter);
  AddMessages(builder, filter);
  const int error = builder.Load();
  return error == 0 ? absl::OkStatus() : ErrnoStatus(error, "seccomp");
}

}  // namespace millrace
