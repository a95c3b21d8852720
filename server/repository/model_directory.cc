// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/model_directory.h"

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "server/base/log.h"
#include "server/base/status.h"
#include "server/repository/beneath.h"
#include "server/repository/file_stamp.h"
#include "server/repository/manifest.h"
#include "server/repository/model_config.h"
#include "server/repository/names.h"
#include "server/repository/warmup_files.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMostConfigBytes = 1 << 20;
constexpr size_t kMostLabelBytes = 4 << 20;
constexpr char kStartingConfig[] =
    "max_batch_size: 8 "
    "input [ { name: \"INPUT__0\" data_type: TYPE_FP32 dims: [ 3, 224, 224 ] } ] "
    "output [ { name: \"OUTPUT__0\" data_type: TYPE_FP32 dims: [ 1000 ] } ]";

// The names of the directories in a directory, links to directories included, in order.
absl::StatusOr<std::vector<std::string>> Subdirectories(const std::string& path) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator entries(path, error);
  while (!error && entries != fs::directory_iterator()) {
    const std::string name = entries->path().filename().string();
    std::error_code not_there;  // A dangling link, or gone meanwhile: no directory.
    if (name.front() != '.' && entries->is_directory(not_there)) names.push_back(name);
    entries.increment(error);
  }
  if (error) return ErrnoStatus(error.value(), absl::StrCat("can't list '", path, "'"));
  std::sort(names.begin(), names.end());
  return names;
}

bool IsFile(const std::string& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

// A path, and the repository that it lies in, which is so many folders up.
struct Place {
  Place(const fs::path& whole, int depth) : repository(whole) {
    for (; depth > 0; --depth) repository = repository.parent_path();
    path = whole.lexically_relative(repository);
  }

  fs::path repository;
  fs::path path;  // In it.
};

// Reads a file of a model's directory of at most `most` bytes.
absl::StatusOr<std::string> ReadTextFile(const std::string& path, size_t most) {
  const Place place(path, /*depth=*/2);
  absl::StatusOr<std::string> text = ReadBeneath(place.repository, place.path, most);
  if (!absl::IsOutOfRange(text.status())) return text;
  return absl::InvalidArgumentError(
      absl::StrCat(text.status().message(), "; this is no ", place.path.filename().string()));
}

absl::StatusOr<std::string> ReadConfigFile(const std::string& path) {
  if (!IsFile(path)) {
    return absl::NotFoundError(absl::StrCat(
        path,
        ": no such file; have `millrace inspect` write it, or start from this one and adapt types "
        "and dims: ",
        kStartingConfig));
  }
  return ReadTextFile(path, kMostConfigBytes);
}

// The lines of a file, the names of classes 0, 1 and so on.
absl::StatusOr<std::shared_ptr<const Labels>> ReadLabels(const std::string& path) {
  if (!IsFile(path)) {
    return absl::NotFoundError(
        absl::StrCat(path, ": no such file, but label_filename in config.pbtxt names it"));
  }
  MILLRACE_ASSIGN_OR_RETURN(std::string text, ReadTextFile(path, kMostLabelBytes));
  if (!IsUtf8(text)) return absl::InvalidArgumentError(absl::StrCat(path, " is not valid UTF-8"));
  if (absl::EndsWith(text, "\n")) text.pop_back();
  auto labels = std::make_shared<Labels>();
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    labels->emplace_back(absl::StripSuffix(line, "\r"));
  }
  return labels;
}

// Reads the labels of the outputs that have some, and notes in `stamp` which files these are.
absl::Status ReadLabelFiles(const std::string& directory, ModelSettings& settings,
                            std::string& stamp) {
  for (size_t i = 0; i < settings.outputs.size(); ++i) {
    const std::string& name = settings.config.output(static_cast<int>(i)).label_filename();
    if (name.empty()) continue;
    const std::string path = absl::StrCat(directory, "/", name);
    MILLRACE_ASSIGN_OR_RETURN(settings.outputs[i].labels, ReadLabels(path));
    absl::StrAppend(&stamp, "\n", FileStamp::Of(path).ToString());
  }
  return absl::OkStatus();
}

// Notes in `stamp` which files the warm-up's samples take data from; they are read by the load.
void StampWarmupFiles(const std::string& directory, const ModelSettings& settings,
                      std::string& stamp) {
  for (const DeclaredWarmup& sample : settings.warmup) {
    for (const DeclaredWarmup::Input& input : sample.inputs) {
      if (input.file.empty()) continue;
      const std::string path = absl::StrCat(directory, "/", kWarmupFolder, "/", input.file);
      absl::StrAppend(&stamp, "\n", FileStamp::Of(path).ToString());
    }
  }
}

absl::StatusOr<std::vector<int64_t>> VersionsIn(const std::string& path) {
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<std::string> names, Subdirectories(path));
  std::vector<int64_t> versions;
  for (const std::string& name : names) {
    if (const std::optional<int64_t> version = ParseVersion(name)) {
      versions.push_back(*version);
    } else if (name != kWarmupFolder) {
      LogInfo(path, "/", name,
              " is ignored: a version's name is a positive number without leading zeros");
    }
  }
  std::sort(versions.begin(), versions.end());
  return versions;
}

// The engine whose file lies in a version's directory, by the default names. Of two it is
// TorchScript, which runs on every machine; a package runs on those that it was compiled for.
absl::StatusOr<EngineKind> EngineInside(const std::string& directory) {
  if (IsFile(absl::StrCat(directory, "/model.pt"))) return EngineKind::kTorchScript;
  if (IsFile(absl::StrCat(directory, "/model.pt2"))) return EngineKind::kAotInductor;
  return absl::NotFoundError(
      absl::StrCat(directory, " holds neither model.pt (TorchScript) nor model.pt2 (AOTInductor)"));
}

absl::Status FindModelFile(const ModelSettings& settings, const std::string& directory,
                           ModelVersion* version) {
  std::error_code error;
  if (!fs::is_directory(directory, error)) {
    return absl::NotFoundError(
        absl::StrCat(directory, ": no such directory, but version_policy names it"));
  }
  if (settings.engine) {
    version->engine = *settings.engine;
  } else {
    MILLRACE_ASSIGN_OR_RETURN(version->engine, EngineInside(directory));
    const std::string package = absl::StrCat(directory, "/model.pt2");
    if (version->engine == EngineKind::kTorchScript && IsFile(package)) version->package = package;
  }
  if (version->engine == EngineKind::kAotInductor &&
      (settings.execution.bfloat16.value_or(false) ||
       settings.execution.channels_last.value_or(false))) {
    return absl::FailedPreconditionError(
        absl::StrCat(directory,
                     " holds a package, which computes as it was compiled; remove bfloat16 and "
                     "channels_last from millrace.execution in config.pbtxt"));
  }
  version->path =
      absl::StrCat(directory, "/", settings.filename.value_or(DefaultFilename(version->engine)));
  if (IsFile(version->path)) return absl::OkStatus();
  return absl::NotFoundError(
      absl::StrCat(version->path, ": no such file; config.pbtxt asks for it"));
}

absl::Status ReadInto(ModelDirectory* model, const std::optional<std::string>& config) {
  const std::string config_path =
      config ? "the parameter 'config'" : absl::StrCat(model->path, "/config.pbtxt");
  std::string text = config.value_or("");
  if (!config) {
    model->lacks_config = !IsFile(config_path);
    MILLRACE_ASSIGN_OR_RETURN(text, ReadConfigFile(config_path));
  }
  MILLRACE_ASSIGN_OR_RETURN(ModelSettings settings,
                            ParseModelConfig(text, config_path, model->name));
  MILLRACE_RETURN_IF_ERROR(ReadLabelFiles(model->path, settings, text));
  StampWarmupFiles(model->path, settings, text);
  MILLRACE_ASSIGN_OR_RETURN(const std::vector<int64_t> available, VersionsIn(model->path));
  for (const int64_t number : SelectVersions(settings.version_policy, available)) {
    ModelVersion version;
    version.number = number;
    version.status = FindModelFile(settings, absl::StrCat(model->path, "/", number), &version);
    version.stamp = absl::StrCat(FileStamp::Of(version.path).ToString(), "\n", text);
    if (!version.package.empty()) {
      absl::StrAppend(&version.stamp, "\n", FileStamp::Of(version.package).ToString());
    }
    model->versions.push_back(std::move(version));
  }
  if (model->versions.empty()) {
    return absl::NotFoundError(absl::StrCat(model->path,
                                            " has no version; put the model's file at ",
                                            model->path, "/1/model.pt (or model.pt2)"));
  }
  model->settings = std::move(settings);
  return absl::OkStatus();
}

// One entry that stands for all directories of the same name.
ModelDirectory RefuseDuplicates(const std::vector<std::string>& paths) {
  ModelDirectory model;
  model.name = fs::path(paths.front()).filename().string();
  model.path = paths.front();
  model.status = absl::AlreadyExistsError(absl::StrCat(
      "several repositories hold this model: ", absl::StrJoin(paths, " and "), "; keep one"));
  return model;
}

}  // namespace

absl::StatusOr<std::vector<ModelDirectory>> ScanRepositories(
    absl::Span<const std::string> repositories) {
  std::map<std::string, std::vector<std::string>> paths_by_name;
  std::set<std::string> seen;
  for (const std::string& repository : repositories) {
    std::error_code error;
    const fs::path real = fs::canonical(repository, error);
    if (error) {
      return ErrnoStatus(error.value(), absl::StrCat("model repository '", repository, "'"));
    }
    if (!seen.insert(real.string()).second) continue;  // The same one, named twice.
    MILLRACE_ASSIGN_OR_RETURN(const std::vector<std::string> names, Subdirectories(repository));
    for (const std::string& name : names) {
      if (IsModelName(name)) {
        paths_by_name[name].push_back((fs::path(repository) / name).string());
      } else {
        LogWarning(repository, "/", absl::CHexEscape(name),
                   " is ignored: a model's name is up to 128 letters, digits, '_', '-' and '.', ",
                   "and begins with a letter, a digit or '_'");
      }
    }
  }
  std::vector<ModelDirectory> models;
  for (const auto& [name, paths] : paths_by_name) {
    models.push_back(paths.size() == 1 ? ReadModelDirectory(paths.front())
                                       : RefuseDuplicates(paths));
  }
  return models;
}

absl::StatusOr<ModelDirectory> FindModelDirectory(absl::Span<const std::string> repositories,
                                                  const std::string& name,
                                                  const std::optional<std::string>& config) {
  std::set<fs::path> seen;
  std::vector<std::string> paths;
  const bool possible = IsName(name) && name.front() != '.' && !absl::StrContains(name, "/");
  for (const std::string& repository : repositories) {
    const fs::path path = fs::path(repository) / name;
    std::error_code error;
    if (!possible || !fs::is_directory(path, error)) continue;
    if (seen.insert(fs::canonical(repository, error)).second) paths.push_back(path.string());
  }
  if (paths.empty()) {
    return absl::NotFoundError(
        absl::StrCat("no repository has a model '", name.substr(0, 128), "'"));
  }
  return paths.size() == 1 ? ReadModelDirectory(paths.front(), config) : RefuseDuplicates(paths);
}

ModelDirectory ReadModelDirectory(const std::string& path,
                                  const std::optional<std::string>& config) {
  ModelDirectory model;
  model.name = fs::path(path).filename().string();
  model.path = path;
  model.status = ReadInto(&model, config);
  return model;
}

std::optional<ModelVersion> NewestPackage(const std::string& path) {
  const absl::StatusOr<std::vector<int64_t>> versions = VersionsIn(path);
  if (!versions.ok() || versions->empty()) return std::nullopt;
  const std::string folder = absl::StrCat(path, "/", versions->back());
  const absl::StatusOr<EngineKind> engine = EngineInside(folder);
  if (!engine.ok() || *engine != EngineKind::kAotInductor) return std::nullopt;
  ModelVersion version;
  version.number = versions->back();
  version.engine = *engine;
  version.path = absl::StrCat(folder, "/", DefaultFilename(*engine));
  version.stamp = FileStamp::Of(version.path).ToString();
  return version;
}

std::string ModelFolderOf(const ModelVersion& version) {
  return fs::path(version.path).parent_path().parent_path().string();
}

std::string RepositoryOf(const ModelVersion& version) {
  return fs::path(ModelFolderOf(version)).parent_path().string();
}

std::optional<ModelVersion> VersionOn(const ModelVersion& version, EngineKind engine) {
  if (engine == version.engine) return version;
  if (engine != EngineKind::kAotInductor || version.package.empty()) return std::nullopt;
  ModelVersion package = version;
  package.engine = engine;
  package.path = version.package;
  return package;
}

absl::StatusOr<UniqueFd> OpenModelFile(const ModelVersion& version) {
  const Place place(version.path, /*depth=*/3);
  MILLRACE_ASSIGN_OR_RETURN(UniqueFd file, OpenBeneath(place.repository, place.path));
  MILLRACE_RETURN_IF_ERROR(CheckManifests(place.repository, place.path, file.get()));
  return file;
}

absl::StatusOr<std::string> HashOf(const ModelVersion& version) {
  MILLRACE_ASSIGN_OR_RETURN(const UniqueFd file, OpenModelFile(version));
  return Sha256Of(file.get());
}

std::vector<int64_t> SelectVersions(const VersionPolicy& policy,
                                    absl::Span<const int64_t> available) {
  switch (policy.kind) {
    case VersionPolicy::Kind::kSpecific:
      return policy.specific;
    case VersionPolicy::Kind::kLatest: {
      const size_t count = std::min(available.size(), static_cast<size_t>(policy.latest));
      available.remove_prefix(available.size() - count);
      break;
    }
    case VersionPolicy::Kind::kAll:
      break;
  }
  return std::vector<int64_t>(available.begin(), available.end());
}

std::optional<int64_t> ParseVersion(absl::string_view name) {
  int64_t number = 0;
  const bool digits = std::all_of(name.begin(), name.end(), absl::ascii_isdigit);
  if (!digits || name.empty() || name.front() == '0' || !absl::SimpleAtoi(name, &number)) {
    return std::nullopt;
  }
  return number;
}

}  // namespace millrace
