// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/landlock.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "server/base/status.h"

namespace millrace {
namespace {

// The kernel's interface, in full: installed headers are often older than the kernel.
struct RulesetAttributes {
  uint64_t handled_files;
  uint64_t handled_net;  // From ABI 4 on.
  uint64_t scoped;       // From ABI 6 on.
};
struct __attribute__((packed)) PathAttributes {
  uint64_t allowed;
  int32_t parent;
};
constexpr int kCreateVersion = 1;
constexpr int kRulePathBeneath = 1;

constexpr uint64_t kWriteFile = 1 << 1;
constexpr uint64_t kReadFile = 1 << 2;
constexpr uint64_t kReadDir = 1 << 3;
constexpr uint64_t kRemoveDir = 1 << 4;
constexpr uint64_t kRemoveFile = 1 << 5;
constexpr uint64_t kMakeDir = 1 << 7;
constexpr uint64_t kMakeRegular = 1 << 8;
constexpr uint64_t kTruncate = 1 << 14;
constexpr uint64_t kIoctlDevice = 1 << 15;
constexpr uint64_t kOfFolders = kReadDir | kRemoveDir | kRemoveFile | kMakeDir | kMakeRegular;

constexpr uint64_t kTcp = 3;            // Bind and connect.
constexpr uint64_t kScopeAbstract = 1;  // Abstract sockets.
constexpr uint64_t kScopeSignals = 2;

// Every right that the kernel's ABI knows.
uint64_t FileRights(int abi) {
  const int count = abi >= 5 ? 16 : abi >= 3 ? 15 : abi == 2 ? 14 : 13;
  return (uint64_t{1} << count) - 1;
}

uint64_t RightsOf(Landlock::Access access) {
  uint64_t rights = kReadFile | kReadDir;
  if (access != Landlock::Access::kRead) rights |= kWriteFile | kTruncate | kIoctlDevice;
  if (access == Landlock::Access::kFill) rights |= kOfFolders;
  return rights;
}

}  // namespace

absl::StatusOr<Landlock> Landlock::Create() {
  const auto abi =
      static_cast<int>(syscall(SYS_landlock_create_ruleset, nullptr, 0, kCreateVersion));
  if (abi < 1) return ErrnoStatus(errno, "asking the kernel for Landlock");
  const RulesetAttributes attributes = {.handled_files = FileRights(abi),
                                        .handled_net = abi >= 4 ? kTcp : 0,
                                        .scoped = abi >= 6 ? kScopeAbstract | kScopeSignals : 0};
  UniqueFd ruleset(
      static_cast<int>(syscall(SYS_landlock_create_ruleset, &attributes, sizeof(attributes), 0)));
  if (!ruleset.valid()) return ErrnoStatus(errno, "landlock_create_ruleset");
  return Landlock(std::move(ruleset), abi);
}

bool Landlock::scopes_signals() const { return abi_ >= 6; }

absl::Status Landlock::Allow(const std::string& path, Access access) {
  const UniqueFd place(open(path.c_str(), O_PATH | O_CLOEXEC));
  if (!place.valid()) return absl::OkStatus();
  struct stat file = {};
  if (fstat(place.get(), &file) != 0) return ErrnoStatus(errno, absl::StrCat("fstat of ", path));
  const uint64_t rights = RightsOf(access) & FileRights(abi_);
  const PathAttributes attributes = {
      .allowed = S_ISDIR(file.st_mode) ? rights : rights & ~kOfFolders, .parent = place.get()};
  if (syscall(SYS_landlock_add_rule, ruleset_.get(), kRulePathBeneath, &attributes, 0) == 0) {
    return absl::OkStatus();
  }
  return ErrnoStatus(errno, absl::StrCat("landlock_add_rule for ", path));
}

absl::Status Landlock::Enforce() const {
  if (syscall(SYS_landlock_restrict_self, ruleset_.get(), 0) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, "landlock_restrict_self");
}

}  // namespace millrace
