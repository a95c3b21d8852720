// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/tuning/plan_file.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <filesystem>
#include <initializer_list>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/status.h"
#include "server/base/unique_fd.h"
#include "server/hardware/text_file.h"

namespace millrace {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr char kFormatKey[] = "millrace_plan";
constexpr int kFormat = 1;
constexpr size_t kHashDigits = 64;
// Far above what a machine has: a slip of the pen is found here.
constexpr int64_t kMostReplicas = 1024;
constexpr int64_t kMostThreads = 1024;
constexpr double kMostCores = 1 << 16;

constexpr ThreadWait kWaits[] = {ThreadWait::kPassive, ThreadWait::kActive};
constexpr EngineKind kEngines[] = {EngineKind::kTorchScript, EngineKind::kAotInductor};

std::string Shown(const Json& json) {
  constexpr size_t kMost = 60;
  const std::string text = json.dump(-1, ' ', true, Json::error_handler_t::replace);
  return text.size() <= kMost ? text : absl::StrCat(text.substr(0, kMost), "…");
}

// An object of the file whose keys are all known, and where it stands.
class Object {
 public:
  static absl::StatusOr<Object> Open(const Json& json, std::string place,
                                     std::initializer_list<const char*> keys) {
    Object object(json, std::move(place));
    if (!json.is_object()) return object.Error("", json, "an object");
    const std::set<std::string> known(keys.begin(), keys.end());
    for (const auto& entry : json.items()) {
      if (known.count(entry.key()) > 0) continue;
      return absl::InvalidArgumentError(absl::StrCat(object.PlaceOf(Shown(entry.key())),
                                                     ": unknown; expected one of ",
                                                     absl::StrJoin(known, ", ")));
    }
    return object;
  }

  // The value of `key`, which must be there.
  absl::StatusOr<const Json*> Find(const char* key) const {
    const auto found = json_.find(key);
    if (found == json_.end()) {
      return absl::InvalidArgumentError(absl::StrCat(PlaceOf(key), ": missing"));
    }
    return &*found;
  }
  bool Has(const char* key) const { return json_.contains(key); }
  std::string PlaceOf(const std::string& key) const {
    return place_.empty() ? absl::StrCat("'", key, "'") : absl::StrCat("'", place_, ".", key, "'");
  }
  // The place of `key` as a prefix of places inside.
  std::string Inside(const std::string& key) const {
    return place_.empty() ? key : absl::StrCat(place_, ".", key);
  }

  absl::StatusOr<std::string> Text(const char* key) const {
    MILLRACE_ASSIGN_OR_RETURN(const Json* json, Find(key));
    if (!json->is_string()) return Error(key, *json, "a string");
    return json->get<std::string>();
  }
  absl::StatusOr<bool> Bool(const char* key) const {
    MILLRACE_ASSIGN_OR_RETURN(const Json* json, Find(key));
    if (!json->is_boolean()) return Error(key, *json, "true or false");
    return json->get<bool>();
  }
  absl::StatusOr<int64_t> Whole(const char* key, int64_t least, int64_t most) const {
    MILLRACE_ASSIGN_OR_RETURN(const Json* json, Find(key));
    // What is above the largest int64 is unsigned, and what isn't whole a float.
    const bool fits =
        json->is_number_integer() &&
        (!json->is_number_unsigned() || json->get<uint64_t>() <= static_cast<uint64_t>(most)) &&
        json->get<int64_t>() >= least && json->get<int64_t>() <= most;
    if (!fits) return Error(key, *json, absl::StrCat("a whole number from ", least, " to ", most));
    return json->get<int64_t>();
  }
  absl::StatusOr<double> Number(const char* key, double least, double most) const {
    MILLRACE_ASSIGN_OR_RETURN(const Json* json, Find(key));
    const double value = json->is_number() ? json->get<double>() : std::nan("");
    if (value >= least && value <= most) return value;
    return Error(key, *json, absl::StrCat("a number from ", least, " to ", most));
  }

  absl::Status Error(const std::string& key, const Json& came, const std::string& expected) const {
    const std::string where = !key.empty()     ? PlaceOf(key)
                              : place_.empty() ? "the plan"
                                               : absl::StrCat("'", place_, "'");
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": ", Shown(came), " came, expected ", expected));
  }

 private:
  Object(const Json& json, std::string place) : json_(json), place_(std::move(place)) {}

  const Json& json_;
  const std::string place_;
};

absl::StatusOr<MachineFingerprint> ReadMachine(const Json& json) {
  MILLRACE_ASSIGN_OR_RETURN(
      const Object object,
      Object::Open(json, "machine", {"cpu", "isa", "cores", "gpus", "libtorch"}));
  MachineFingerprint machine;
  MILLRACE_ASSIGN_OR_RETURN(machine.cpu, object.Text("cpu"));
  MILLRACE_ASSIGN_OR_RETURN(machine.isa, object.Text("isa"));
  MILLRACE_ASSIGN_OR_RETURN(machine.cores, object.Number("cores", 0, kMostCores));
  MILLRACE_ASSIGN_OR_RETURN(machine.libtorch, object.Text("libtorch"));
  MILLRACE_ASSIGN_OR_RETURN(const Json* gpus, object.Find("gpus"));
  if (!gpus->is_array()) return object.Error("gpus", *gpus, "an array of names");
  for (const Json& gpu : *gpus) {
    if (!gpu.is_string()) return object.Error("gpus", gpu, "the name of a GPU");
    machine.gpus.push_back(gpu.get<std::string>());
  }
  return machine;
}

absl::StatusOr<ExecutionMode> ReadMode(const Json& json, const std::string& place) {
  MILLRACE_ASSIGN_OR_RETURN(
      const Object object,
      Object::Open(json, place, {"engine", "bfloat16", "channels_last", "wait"}));
  ExecutionMode mode;
  MILLRACE_ASSIGN_OR_RETURN(const std::string engine, object.Text("engine"));
  MILLRACE_ASSIGN_OR_RETURN(const std::string wait, object.Text("wait"));
  MILLRACE_ASSIGN_OR_RETURN(mode.bfloat16, object.Bool("bfloat16"));
  MILLRACE_ASSIGN_OR_RETURN(mode.channels_last, object.Bool("channels_last"));
  bool known = false;
  for (const EngineKind kind : kEngines) {
    if (engine != EngineName(kind)) continue;
    mode.engine = kind;
    known = true;
  }
  if (!known) return object.Error("engine", engine, "torchscript or aotinductor");
  known = false;
  for (const ThreadWait each : kWaits) {
    if (wait != WaitName(each)) continue;
    mode.wait = each;
    known = true;
  }
  if (!known) return object.Error("wait", wait, "passive or active");
  if (mode.engine == EngineKind::kAotInductor && (mode.bfloat16 || mode.channels_last)) {
    return object.Error("engine", engine,
                        "torchscript, since a package can't be given bfloat16 or channels_last");
  }
  return mode;
}

absl::StatusOr<MeasuredBest> ReadBest(const Json& json, const std::string& place) {
  MILLRACE_ASSIGN_OR_RETURN(
      const Object object, Object::Open(json, place, {"replicas", "threads", "most_rows", "mode"}));
  MeasuredBest best;
  MILLRACE_ASSIGN_OR_RETURN(const int64_t replicas, object.Whole("replicas", 1, kMostReplicas));
  MILLRACE_ASSIGN_OR_RETURN(const int64_t threads, object.Whole("threads", 1, kMostThreads));
  best.replicas = static_cast<int>(replicas);
  best.threads = static_cast<int>(threads);
  MILLRACE_ASSIGN_OR_RETURN(best.most_rows,
                            object.Whole("most_rows", 0, std::numeric_limits<int32_t>::max()));
  if (!object.Has("mode")) return best;
  MILLRACE_ASSIGN_OR_RETURN(const Json* mode, object.Find("mode"));
  MILLRACE_ASSIGN_OR_RETURN(best.mode, ReadMode(*mode, object.Inside("mode")));
  return best;
}

absl::StatusOr<TunedModel> ReadModel(const Json& json, const std::string& place) {
  MILLRACE_ASSIGN_OR_RETURN(
      const Object object,
      Object::Open(json, place,
                   {"model", "sha256", "objective", "best", "rows_per_second", "p99_seconds"}));
  TunedModel model;
  MILLRACE_ASSIGN_OR_RETURN(model.model, object.Text("model"));
  MILLRACE_ASSIGN_OR_RETURN(model.sha256, object.Text("sha256"));
  bool hex = model.sha256.size() == kHashDigits;
  for (const char c : model.sha256) hex &= absl::ascii_isdigit(c) || (c >= 'a' && c <= 'f');
  if (!hex) return object.Error("sha256", model.sha256, "64 hexadecimal digits, small ones");
  MILLRACE_ASSIGN_OR_RETURN(model.objective, object.Text("objective"));
  if (object.Has("rows_per_second") || object.Has("p99_seconds")) {
    MILLRACE_ASSIGN_OR_RETURN(
        const double rate, object.Number("rows_per_second", 0, std::numeric_limits<double>::max()));
    MILLRACE_ASSIGN_OR_RETURN(
        const double p99, object.Number("p99_seconds", 0, absl::ToDoubleSeconds(absl::Hours(1))));
    model.figures = {.rows_per_second = rate, .p99 = absl::Seconds(p99)};
  }
  MILLRACE_ASSIGN_OR_RETURN(const Json* best, object.Find("best"));
  MILLRACE_ASSIGN_OR_RETURN(model.best, ReadBest(*best, object.Inside("best")));
  return model;
}

absl::StatusOr<TunedPlan> ReadPlan(const Json& json) {
  MILLRACE_ASSIGN_OR_RETURN(const Object object,
                            Object::Open(json, "", {kFormatKey, "machine", "models"}));
  MILLRACE_RETURN_IF_ERROR(object.Whole(kFormatKey, kFormat, kFormat).status());
  TunedPlan plan;
  MILLRACE_ASSIGN_OR_RETURN(const Json* machine, object.Find("machine"));
  MILLRACE_ASSIGN_OR_RETURN(plan.machine, ReadMachine(*machine));
  MILLRACE_ASSIGN_OR_RETURN(const Json* models, object.Find("models"));
  if (!models->is_array()) return object.Error("models", *models, "an array");
  std::set<std::pair<std::string, std::string>> seen;
  for (size_t i = 0; i < models->size(); ++i) {
    const std::string place = absl::StrCat("models[", i, "]");
    MILLRACE_ASSIGN_OR_RETURN(TunedModel model, ReadModel((*models)[i], place));
    if (!seen.emplace(model.model, model.sha256).second) {
      return absl::InvalidArgumentError(absl::StrCat("'", place, "': the same file of model '",
                                                     model.model, "' a second time; keep one"));
    }
    plan.models.push_back(std::move(model));
  }
  return plan;
}

Json ToJson(const ExecutionMode& mode) {
  return {{"engine", EngineName(mode.engine)},
          {"bfloat16", mode.bfloat16},
          {"channels_last", mode.channels_last},
          {"wait", WaitName(mode.wait)}};
}

Json ToJson(const TunedModel& model) {
  Json best = {{"replicas", model.best.replicas},
               {"threads", model.best.threads},
               {"most_rows", model.best.most_rows}};
  if (model.best.mode) best["mode"] = ToJson(*model.best.mode);
  Json json = {{"model", model.model},
               {"sha256", model.sha256},
               {"objective", model.objective},
               {"best", std::move(best)}};
  if (model.figures) {
    json["rows_per_second"] = model.figures->rows_per_second;
    json["p99_seconds"] = absl::ToDoubleSeconds(model.figures->p99);
  }
  return json;
}

std::string Format(const TunedPlan& plan) {
  Json models = Json::array();
  for (const TunedModel& model : plan.models) models.push_back(ToJson(model));
  const Json json = {{kFormatKey, kFormat},
                     {"machine",
                      {{"cpu", plan.machine.cpu},
                       {"isa", plan.machine.isa},
                       {"cores", plan.machine.cores},
                       {"gpus", plan.machine.gpus},
                       {"libtorch", plan.machine.libtorch}}},
                     {"models", std::move(models)}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

absl::Status WriteAll(int fd, absl::string_view text) {
  while (!text.empty()) {
    const ssize_t wrote = write(fd, text.data(), text.size());
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return ErrnoStatus(errno, "writing");
    text.remove_prefix(static_cast<size_t>(wrote));
  }
  return fsync(fd) == 0 ? absl::OkStatus() : ErrnoStatus(errno, "writing");
}

}  // namespace

absl::StatusOr<TunedPlan> ReadPlanFile(const std::string& path) {
  std::error_code error;
  if (!fs::exists(path, error) && !error) {
    return absl::NotFoundError(absl::StrCat(path, ": no such file"));
  }
  const std::optional<std::string> text = ReadTextFile(path);
  if (!text) return absl::PermissionDeniedError(absl::StrCat(path, ": can't be read"));
  try {
    return [&]() -> absl::StatusOr<TunedPlan> {
      absl::StatusOr<TunedPlan> plan = ReadPlan(Json::parse(*text));
      if (plan.ok()) return plan;
      return Annotate(plan.status(), path);
    }();
  } catch (const Json::exception& exception) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": not JSON, or cut off: ", exception.what()));
  }
}

absl::Status WritePlanFile(const std::string& path, const TunedPlan& plan) {
  std::error_code error;
  const fs::path folder = fs::path(path).parent_path();
  if (!folder.empty()) fs::create_directories(folder, error);
  if (error) return ErrnoStatus(error.value(), absl::StrCat("making ", folder.string()));
  // A name of its own: other containers may write theirs, with the same process's number.
  std::string aside = absl::StrCat(path, ".new-XXXXXX");
  const UniqueFd file(mkostemp(aside.data(), O_CLOEXEC));
  if (!file.valid()) return ErrnoStatus(errno, absl::StrCat("making ", aside));
  const auto write = [&]() -> absl::Status {
    if (fchmod(file.get(), 0644) != 0) return ErrnoStatus(errno, absl::StrCat("fchmod ", aside));
    MILLRACE_RETURN_IF_ERROR(Annotate(WriteAll(file.get(), Format(plan)), aside));
    if (rename(aside.c_str(), path.c_str()) == 0) return absl::OkStatus();
    return ErrnoStatus(errno, absl::StrCat("renaming ", aside, " to ", path));
  };
  const absl::Status written = write();
  if (!written.ok()) unlink(aside.c_str());
  return written;
}

}  // namespace millrace
