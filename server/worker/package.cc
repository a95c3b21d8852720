// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/package.h"

#include <caffe2/serialize/inline_container.h>
#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/base/status.h"
#include "server/base/unique_fd.h"
#include "server/worker/archive.h"
#include "server/worker/fd_reader.h"
#include "server/worker/file_kind.h"
#include "server/worker/model_error.h"

namespace millrace {
namespace {

// Where a package keeps the files of the model named `model`, by the archive's own paths.
constexpr char kModelFolder[] = "data/aotinductor/model/";
constexpr size_t kPieceBytes = size_t{1} << 20;

absl::StatusOr<std::vector<ArchiveEntry>> Inspect(FdReader& file) {
  return InspectArchive(file.size(), [&](uint64_t offset, absl::Span<uint8_t> to) {
    return file.read(offset, to.data(), to.size()) == to.size();
  });
}

// The beginning of the pickle that torch.save puts into its archives; empty where there is none.
std::string BeginningOfPickle(const std::shared_ptr<FdReader>& file) {
  caffe2::serialize::PyTorchStreamReader archive(file);
  if (!archive.hasRecord("data.pkl")) return "";
  std::vector<char> piece(FileGlance::kMostBytes);
  std::string pickle;
  archive.getRecord("data.pkl", piece.data(), archive.getRecordSize("data.pkl"), piece.size(),
                    piece.data(), [&](void*, const void* bytes, size_t size) {
                      if (pickle.empty()) pickle.assign(static_cast<const char*>(bytes), size);
                    });
  return pickle;
}

// Tells a sound archive of the engine's kind from anything else.
absl::Status CheckFile(EngineKind engine, const std::shared_ptr<FdReader>& file) {
  FileGlance glance = {.size = file->size(), .beginning = {}, .names = {}, .pickle = {}};
  glance.beginning.resize(std::min(file->size(), FileGlance::kMostBytes));
  glance.beginning.resize(file->read(0, glance.beginning.data(), glance.beginning.size()));
  const absl::StatusOr<std::vector<ArchiveEntry>> entries = Inspect(*file);
  if (!entries.ok()) {
    MILLRACE_RETURN_IF_ERROR(CheckFileKind(engine, glance));
    return entries.status();
  }
  for (const ArchiveEntry& entry : *entries) glance.names.push_back(entry.name);
  if (!IsTorchScript(glance)) glance.pickle = BeginningOfPickle(file);
  return CheckFileKind(engine, glance);
}

absl::Status WriteAll(int fd, const char* bytes, size_t size) {
  while (size > 0) {
    const ssize_t written = write(fd, bytes, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return ErrnoStatus(errno, "unpacking the package");
    bytes += written;
    size -= static_cast<size_t>(written);
  }
  return absl::OkStatus();
}

absl::Status UnpackFile(caffe2::serialize::PyTorchStreamReader& archive, const std::string& name,
                        const std::string& path) {
  const UniqueFd to(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
  if (!to.valid()) return ErrnoStatus(errno, absl::StrCat("unpacking ", name));
  absl::Status status;
  std::vector<char> piece(kPieceBytes);
  archive.getRecord(name, piece.data(), archive.getRecordSize(name), piece.size(), piece.data(),
                    [&](void*, const void* bytes, size_t size) {
                      if (status.ok()) {
                        status = WriteAll(to.get(), static_cast<const char*>(bytes), size);
                      }
                    });
  return status;
}

absl::Status Unpack(const std::shared_ptr<FdReader>& file, const std::string& folder) {
  caffe2::serialize::PyTorchStreamReader archive(file);
  bool any = false;
  for (const std::string& name : archive.getAllRecords()) {
    const size_t at = name.find(kModelFolder);
    if (at == std::string::npos) continue;
    const std::string rest = name.substr(at + sizeof(kModelFolder) - 1);
    if (rest.empty() || absl::StrContains(rest, "/")) continue;
    MILLRACE_RETURN_IF_ERROR(UnpackFile(archive, name, absl::StrCat(folder, "/", rest)));
    any = true;
  }
  return any ? absl::OkStatus() : absl::InvalidArgumentError("there is no compiled model in it");
}

}  // namespace

absl::Status InspectModelFile(const LoadCommand& command, int model_fd) {
  const absl::Status status = CatchModelErrors([&]() -> absl::Status {
    const auto file = std::make_shared<FdReader>(model_fd);
    MILLRACE_RETURN_IF_ERROR(CheckFile(command.mode.engine, file));
    return command.mode.engine == EngineKind::kAotInductor ? Unpack(file, command.folder)
                                                           : absl::OkStatus();
  });
  return UnreadableFile(command.mode.engine, status);
}

absl::Status UnreadableFile(EngineKind engine, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat(
      engine == EngineKind::kTorchScript
          ? "the file could not be read as TorchScript (expected is what torch.jit.save writes): "
          : "the file could not be read as an AOTInductor package (expected is what "
            "torch._inductor.aoti_compile_and_package writes): ",
      status.message()));
}

}  // namespace millrace
