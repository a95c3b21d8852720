// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/manifest.h"

#include <openssl/evp.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "server/base/status.h"
#include "server/base/unique_fd.h"
#include "server/repository/beneath.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

constexpr char kManifest[] = "SHA256SUMS";
constexpr size_t kMostManifestBytes = 1 << 20;
constexpr size_t kPieceBytes = 1 << 20;
constexpr size_t kHashDigits = 64;

// Calls take(bytes, count) for all of the file's pieces, until it returns false.
template <typename Take>
absl::Status ForEachPiece(int fd, Take take) {
  std::vector<char> piece(kPieceBytes);
  off_t at = 0;
  for (;;) {
    const ssize_t got = pread(fd, piece.data(), piece.size(), at);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return ErrnoStatus(errno, "reading a file for its SHA-256");
    if (got == 0 || !take(piece.data(), static_cast<size_t>(got))) return absl::OkStatus();
    at += got;
  }
}

// The hash of the file `name` in the manifest's text; nullopt where it isn't listed.
std::optional<std::string> ListedHash(absl::string_view text, absl::string_view name) {
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    // The hash, a space, and a space or a star.
    if (line.size() < kHashDigits + 2 || line[kHashDigits] != ' ') continue;
    absl::string_view listed = absl::StripSuffix(line.substr(kHashDigits + 2), "\r");
    absl::ConsumePrefix(&listed, "./");
    if (listed == name) return absl::AsciiStrToLower(line.substr(0, kHashDigits));
  }
  return std::nullopt;
}

absl::Status CheckManifest(const std::string& repository, const fs::path& folder,
                           const fs::path& path, int fd) {
  const std::string manifest = (folder / kManifest).string();
  const absl::StatusOr<UniqueFd> file = OpenBeneath(repository, manifest);
  if (absl::IsNotFound(file.status())) return absl::OkStatus();
  MILLRACE_RETURN_IF_ERROR(file.status());
  std::string text;
  MILLRACE_RETURN_IF_ERROR(ForEachPiece(file->get(), [&](const char* bytes, size_t size) {
    text.append(bytes, size);
    return text.size() <= kMostManifestBytes;
  }));
  const std::string name = path.lexically_relative(folder).string();
  const std::optional<std::string> listed = ListedHash(text, name);
  if (!listed) {
    return absl::FailedPreconditionError(
        absl::StrCat(manifest, " doesn't list ", name, "; write it with sha256sum"));
  }
  MILLRACE_ASSIGN_OR_RETURN(const std::string hash, Sha256Of(fd));
  if (hash == *listed) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(path.string(), " has the SHA-256 ", hash,
                                                    ", but ", manifest, " says ", *listed,
                                                    ": it isn't the file that was meant"));
}

}  // namespace

absl::StatusOr<std::string> Sha256Of(int fd) {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                        EVP_MD_CTX_free);
  bool good = EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1;
  MILLRACE_RETURN_IF_ERROR(ForEachPiece(fd, [&](const char* bytes, size_t size) {
    return good = good && EVP_DigestUpdate(context.get(), bytes, size) == 1;
  }));
  std::array<unsigned char, EVP_MAX_MD_SIZE> hash;
  unsigned int size = 0;
  if (!good || EVP_DigestFinal_ex(context.get(), hash.data(), &size) != 1) {
    return absl::InternalError("libcrypto has no SHA-256");
  }
  return absl::BytesToHexString({reinterpret_cast<const char*>(hash.data()), size});
}

absl::Status CheckManifests(const std::string& repository, const std::string& path, int fd) {
  const fs::path version = fs::path(path).parent_path();
  MILLRACE_RETURN_IF_ERROR(CheckManifest(repository, version, path, fd));
  return CheckManifest(repository, version.parent_path(), path, fd);
}

}  // namespace millrace
