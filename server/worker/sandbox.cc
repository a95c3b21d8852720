// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/sandbox.h"

#include <dirent.h>
#include <grp.h>
#include <link.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <set>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "server/base/status.h"
#include "server/channel/worker_protocol.h"
#include "server/worker/landlock.h"
#include "server/worker/syscall_filter.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

constexpr rlim_t kMostFiles = 256;
constexpr rlim_t kMostFilesOnGpu = 4096;

// The folders of the shared libraries that this process has loaded: what libtorch loads later, and
// what a package links, lies beside them.
std::set<std::string> LibraryFolders() {
  std::set<std::string> folders;
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* to) {
        const std::string folder = fs::path(info->dlpi_name).parent_path().string();
        if (!folder.empty()) static_cast<std::set<std::string>*>(to)->insert(folder);
        return 0;
      },
      &folders);
  return folders;
}

// The first folder on the way to `path` that others than its owner can't pass; empty: none.
std::string FolderClosedToOthers(const fs::path& path) {
  std::error_code error;
  const fs::path real = fs::canonical(path, error);
  fs::path so_far;
  for (const fs::path& part : real) {
    so_far /= part;
    struct stat folder = {};
    if (stat(so_far.c_str(), &folder) == 0 && !(folder.st_mode & S_IXOTH)) return so_far.string();
  }
  return "";
}

absl::Status LeaveRoot() {
  if (geteuid() != 0) return absl::OkStatus();
  for (const std::string& folder : LibraryFolders()) {
    if (const std::string closed = FolderClosedToOthers(folder); !closed.empty()) {
      return absl::PermissionDeniedError(
          absl::StrCat("libraries lie in ", folder, ", but ", closed, " is closed to other users"));
    }
  }
  if (setgroups(0, nullptr) != 0) return ErrnoStatus(errno, "setgroups");
  if (setresgid(kWorkerUid, kWorkerUid, kWorkerUid) != 0) return ErrnoStatus(errno, "setresgid");
  if (setresuid(kWorkerUid, kWorkerUid, kWorkerUid) != 0) return ErrnoStatus(errno, "setresuid");
  return absl::OkStatus();
}

absl::Status DropCapabilities() {
  __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = 0};
  const __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
  if (syscall(SYS_capset, &header, none) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, "capset");
}

absl::Status LockPrivileges() {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, "PR_SET_NO_NEW_PRIVS");
}

absl::Status Limit(__rlimit_resource resource, rlim_t most, absl::string_view name) {
  rlimit limit = {};
  if (getrlimit(resource, &limit) != 0) return ErrnoStatus(errno, name);
  most = std::min(most, limit.rlim_max);
  limit = {.rlim_cur = most, .rlim_max = most};
  return setrlimit(resource, &limit) == 0 ? absl::OkStatus() : ErrnoStatus(errno, name);
}

// What libtorch reads while it runs, found by tracing it.
constexpr const char* kReadable[] = {"/etc/ld.so.cache",
                                     "/dev/null",
                                     "/dev/urandom",
                                     "/dev/zero",
                                     "/proc/cpuinfo",
                                     "/proc/meminfo",
                                     "/proc/self",
                                     "/proc/sys/vm/overcommit_memory",
                                     "/sys/devices/system/cpu",
                                     "/sys/devices/system/node"};
// What a GPU's driver reads besides: its libraries, settings and the devices' descriptions. Other
// processes' folders in /proc are closed by Landlock itself.
constexpr const char* kReadableOnGpu[] = {"/dev", "/etc",  "/lib", "/lib64",
                                          "/opt", "/proc", "/sys", "/usr"};
// And what it writes to.
constexpr const char* kWritableOnGpu[] = {"/dev/dri", "/dev/kfd", "/dev/nvidia-caps", "/dev/shm"};

absl::Status AllowGpu(Landlock& landlock) {
  for (const char* const path : kReadableOnGpu) {
    MILLRACE_RETURN_IF_ERROR(landlock.Allow(path, Landlock::Access::kRead));
  }
  for (const char* const path : kWritableOnGpu) {
    MILLRACE_RETURN_IF_ERROR(landlock.Allow(path, Landlock::Access::kWrite));
  }
  std::error_code ignored;
  for (const auto& device : fs::directory_iterator("/dev", ignored)) {
    if (device.path().filename().string().rfind("nvidia", 0) != 0) continue;
    MILLRACE_RETURN_IF_ERROR(landlock.Allow(device.path(), Landlock::Access::kWrite));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status Sandbox::GiveUpPrivileges() {
  if (options_.mode == SandboxMode::kOff) return absl::OkStatus();
  MILLRACE_RETURN_IF_ERROR(Settle("another user than root", LeaveRoot()));
  MILLRACE_RETURN_IF_ERROR(Settle("no capabilities", DropCapabilities()));
  MILLRACE_RETURN_IF_ERROR(Settle("no new privileges", LockPrivileges()));
  MILLRACE_RETURN_IF_ERROR(Settle("a limit of core files", Limit(RLIMIT_CORE, 0, "RLIMIT_CORE")));
  return Settle(
      "a limit of descriptors",
      Limit(RLIMIT_NOFILE, options_.on_gpu ? kMostFilesOnGpu : kMostFiles, "RLIMIT_NOFILE"));
}

absl::Status Sandbox::Confine(Role role) {
  if (options_.mode == SandboxMode::kOff) return absl::OkStatus();
  if (role != Role::kReplica) {  // Whose files are its template's.
    const absl::Status limited = LimitFiles(role);
    // Then at least no worker of the same user reads this one's memory by its file.
    if (!limited.ok()) prctl(PR_SET_DUMPABLE, 0);
    MILLRACE_RETURN_IF_ERROR(Settle("Landlock", limited));
  }
  return Settle("the system call filter", FilterCalls(role));
}

absl::Status Sandbox::LimitFiles(Role role) {
  MILLRACE_ASSIGN_OR_RETURN(Landlock landlock, Landlock::Create());
  for (const char* const path : kReadable) {
    MILLRACE_RETURN_IF_ERROR(landlock.Allow(path, Landlock::Access::kRead));
  }
  for (const std::string& folder : LibraryFolders()) {
    MILLRACE_RETURN_IF_ERROR(landlock.Allow(folder, Landlock::Access::kRead));
  }
  if (!options_.folder.empty()) {
    MILLRACE_RETURN_IF_ERROR(landlock.Allow(options_.folder, role == Role::kInspector
                                                                 ? Landlock::Access::kFill
                                                                 : Landlock::Access::kRead));
  }
  if (options_.on_gpu) MILLRACE_RETURN_IF_ERROR(AllowGpu(landlock));
  MILLRACE_RETURN_IF_ERROR(landlock.Enforce());
  scopes_signals_ = landlock.scopes_signals();
  return absl::OkStatus();
}

absl::Status Sandbox::FilterCalls(Role role) {
  SyscallFilter filter;
  filter.makes_files = role == Role::kInspector;
  filter.uses_devices = options_.on_gpu && role != Role::kInspector;
  filter.forks = filter.adds_filters = role == Role::kTemplate;
  // So that its replicas can: where Landlock keeps signals among them, the template needn't be
  // narrower. Elsewhere a replica's abort() ends it with SIGSEGV.
  filter.signals_any = role == Role::kTemplate && scopes_signals_;
  filter.control_fd = kWorkerControlFd;
  return InstallSyscallFilter(filter);
}

absl::Status Sandbox::Settle(absl::string_view part, const absl::Status& status) {
  if (status.ok()) return status;
  if (options_.mode == SandboxMode::kRequired) {
    return absl::FailedPreconditionError(
        absl::StrCat("the sandbox is required, but lacks ", part, ": ", status.message()));
  }
  gaps_.push_back(absl::StrCat("the sandbox lacks ", part, ": ", status.message()));
  return absl::OkStatus();
}

}  // namespace millrace
