// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// The code of a hostile AOTInductor package: a shared object that stands before a package's own
// and tries what a model must not be able to do, when it is loaded and when it runs. The test
// compiles it, and links it to the original as `original.bin`.
//
// A row of input begins with: when (0: run the original's model; 1: tell what the attack brought
// when the code was loaded; 2: try it now; 3: write far beyond the batch), which attack, and
// another process's number. The first element of the output row is then the attack's errno, 0 where
// it worked.
#include <dlfcn.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

extern "C" int32_t aoti_torch_get_data_ptr(void* tensor, void** begin);

namespace {

int Tried(long result) { return result < 0 ? errno : 0; }

int OpenIn(pid_t pid, const char* name, int flags) {
  char path[64];
  std::snprintf(path, sizeof(path), "/proc/%d/%s", static_cast<int>(pid), name);
  return Tried(open(path, flags));
}

int Fork() {
  const pid_t child = fork();
  if (child == 0) {
    for (;;) pause();
  }
  return Tried(child);
}

int Execute() {
  char program[] = "/bin/true";
  char* const arguments[] = {program, nullptr};
  char* const environment[] = {nullptr};
  return Tried(execve(program, arguments, environment));
}

int ReadMemory(pid_t pid) {
  char byte;
  iovec here = {&byte, 1};
  iovec there = {&byte, 1};  // As good a place as any: the images are alike.
  return Tried(process_vm_readv(pid, &here, 1, &there, 1, 0));
}

int Limit(pid_t pid) {
  const rlimit few = {1, 1};
  return Tried(prlimit(pid, RLIMIT_NOFILE, &few, nullptr));
}

int Pin(pid_t pid) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(0, &set);
  return Tried(sched_setaffinity(pid, sizeof(set), &set));
}

constexpr size_t kPiece = size_t{64} << 20;
constexpr int kPieces = 4096;

int FillMemory() {
  void* pieces[kPieces];
  int taken = 0;
  for (; taken < kPieces && (pieces[taken] = malloc(kPiece)) != nullptr; ++taken) {
    memset(pieces[taken], 1, kPiece);
  }
  const int number = taken < kPieces ? errno : 0;
  while (taken > 0) free(pieces[--taken]);
  return number;
}

int MapAnonymous(int flags) {
  void* const memory = mmap(nullptr, kPiece, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? errno : 0;
}

// With memory that doesn't count as private any more, once nobody may write to it.
int FillWithReadOnlyMemory() {
  void* pieces[kPieces];
  int number = 0;
  int taken = 0;
  for (; taken < kPieces && number == 0; ++taken) {
    pieces[taken] =
        mmap(nullptr, kPiece, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pieces[taken] == MAP_FAILED) {
      number = errno;
      break;
    }
    *static_cast<char*>(pieces[taken]) = 1;
    mprotect(pieces[taken], kPiece, PROT_READ);
  }
  while (taken > 0) munmap(pieces[--taken], kPiece);
  return number;
}

int Spin() {
  for (volatile int64_t forever = 0;; forever = forever + 1) {
  }
}

// The numbers are those of containment_test.py.
int Try(int attack, pid_t other) {
  const pid_t server = getppid();
  // clang-format off
  switch (attack) {
    case 0: return Tried(open(SECRET, O_RDONLY));
    case 1: return Tried(open("/", O_RDONLY | O_DIRECTORY));
    case 2: return Tried(open(SECRET ".new", O_WRONLY | O_CREAT, 0600));
    case 3: return Tried(open("/dev/null", O_WRONLY));
    case 4: return Tried(unlink(SECRET));
    case 5: return Tried(socket(AF_INET, SOCK_STREAM, 0));
    case 6: return Tried(socket(AF_UNIX, SOCK_STREAM, 0));
    case 7: return Fork();
    case 8: return Tried(syscall(SYS_vfork));
    case 9: return Tried(syscall(SYS_clone3, nullptr, 0));
    case 10: return Execute();
    case 11: return Tried(kill(server, SIGKILL));
    case 12: return Tried(syscall(SYS_tgkill, server, server, SIGKILL));
    case 13: return Tried(kill(other, SIGKILL));
    case 14: return Tried(kill(-1, SIGKILL));
    case 15: return Tried(ptrace(PTRACE_ATTACH, other, nullptr, nullptr));
    case 16: return ReadMemory(other);
    case 17: return OpenIn(other, "mem", O_RDONLY);
    case 18: return OpenIn(server, "mem", O_RDONLY);
    case 19: return OpenIn(server, "environ", O_RDONLY);
    case 20: return OpenIn(server, "fd/3", O_RDONLY);
    case 21: return Tried(syscall(SYS_pidfd_open, server, 0));
    case 22: return Tried(syscall(SYS_pidfd_getfd, 3, 3, 0));
    case 23: return Limit(server);
    case 24: return Limit(other);
    case 25: return Pin(server);
    case 26: return Tried(setpriority(PRIO_PROCESS, static_cast<id_t>(server), 19));
    case 27: return Tried(prctl(PR_SET_PDEATHSIG, 0));
    case 28: return Tried(fcntl(STDERR_FILENO, F_SETOWN, server));
    case 29: return Tried(syscall(SYS_io_uring_setup, 1, nullptr));
    case 30: return Tried(syscall(SYS_memfd_create, "file", 0));
    case 31: return Tried(unshare(CLONE_NEWUSER));
    case 32: return Tried(setpgid(0, server));
    case 33: return Tried(syscall(SYS_bpf, 0, nullptr, 0));
    case 34: return MapAnonymous(MAP_SHARED);
    case 35: return MapAnonymous(MAP_PRIVATE | MAP_GROWSDOWN);
    case 40: return FillMemory();
    case 41: return FillWithReadOnlyMemory();
    case 42: return Spin();
    default: return -1;
  }
  // clang-format on
}

constexpr int kQuickAttacks = 36;
int when_loaded[43];

// Leaves out what would only end this very process: as with no sandbox, kill(-1) would end more.
__attribute__((constructor)) void WhenLoaded() {
  for (int attack = 0; attack < kQuickAttacks; ++attack) when_loaded[attack] = Try(attack, 1);
#ifdef FILLS_WHEN_LOADED
  for (const int attack : {40, 41}) when_loaded[attack] = Try(attack, 1);
#endif
#ifdef SPINS_WHEN_LOADED
  Spin();
#endif
}

using Run = int32_t(void*, void**, size_t, void**, size_t, void*, void*);

// Far beyond a batch's rows, and within what all of the model's batches share.
constexpr size_t kBeyond = size_t{1} << 14;

}  // namespace

extern "C" __attribute__((visibility("default"))) int32_t
AOTInductorModelContainerRunSingleThreaded(void* container, void** inputs, size_t input_count,
                                           void** outputs, size_t output_count, void* stream,
                                           void* proxy) {
  void* begin = nullptr;
  aoti_torch_get_data_ptr(inputs[0], &begin);
  auto* const row = static_cast<float*>(begin);
  const auto when = static_cast<int>(row[0]);
  const auto attack = static_cast<int>(row[1]);
  const auto other = static_cast<pid_t>(row[2]);
  static auto* const original =
      reinterpret_cast<Run*>(dlsym(RTLD_NEXT, "AOTInductorModelContainerRunSingleThreaded"));
  if (when == 3) memset(begin, 0x7f, kBeyond);
  const int32_t error =
      original(container, inputs, input_count, outputs, output_count, stream, proxy);
  if (error != 0 || when == 0) return error;
  void* result = nullptr;
  aoti_torch_get_data_ptr(outputs[0], &result);
  *static_cast<float*>(result) =
      static_cast<float>(when == 1 ? when_loaded[attack] : Try(attack, other));
  return 0;
}
