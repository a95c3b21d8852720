// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/model_config.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <memory>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/base/status.h"
#include "server/repository/config_text.h"
#include "server/repository/names.h"
#include "server/repository/supported_fields.h"
#include "server/repository/transform_config.h"
#include "server/transform/image_input.h"

namespace millrace {
namespace {

namespace pb = google::protobuf;

// Far above what a machine has; a typing error is found here and not by starting processes.
constexpr int kMostReplicas = 1024;
constexpr int kMostThreads = 1024;
constexpr uint32_t kMostWarmupRuns = 10000;
constexpr absl::Duration kLongestDuration = absl::Hours(1);
constexpr uint64_t kMostPriorityLevels = 32;
// Of one tensor of a full batch: so the sizes of all batches of a model together can be told, too.
constexpr int64_t kMostTensorBytes = int64_t{1} << 40;

static_assert(static_cast<int>(DataType::kFp32) == inference::TYPE_FP32);
static_assert(static_cast<int>(DataType::kBf16) == inference::TYPE_BF16);

// The engine that a platform's or backend's name stands for. `kind` is nullopt for a name that
// leaves it open.
struct NamedEngine {
  absl::string_view name;
  std::optional<EngineKind> kind;
};
const NamedEngine kNamedEngines[] = {
    {"pytorch", std::nullopt},
    {"pytorch_libtorch", EngineKind::kTorchScript},
    {"torch_aoti", EngineKind::kAotInductor},
};

std::optional<EngineKind> EngineOfFilename(const std::string& name) {
  if (absl::EndsWith(name, ".pt2")) return EngineKind::kAotInductor;
  if (absl::EndsWith(name, ".pt")) return EngineKind::kTorchScript;
  return std::nullopt;
}

constexpr char kFileNameExpected[] = "expected the name of a file, without a path";

bool IsFileName(const std::string& name) {
  return IsName(name) && !absl::StrContains(name, "/") && name != "." && name != "..";
}

std::optional<bool> ParseBool(const std::string& text) {
  const std::string lower = absl::AsciiStrToLower(text);
  if (lower == "true" || lower == "1") return true;
  if (lower == "false" || lower == "0") return false;
  return std::nullopt;
}

// A time limit of 0 is none.
absl::Duration OrNever(absl::Duration duration) {
  return duration > absl::ZeroDuration() ? duration : absl::InfiniteDuration();
}

Shape ToShape(const pb::RepeatedField<int64_t>& dims) { return Shape(dims.begin(), dims.end()); }

// Reads one configuration, a part per method. The parts are in an order: a later one may look at
// what an earlier one has put into the settings.
class ConfigReader {
 public:
  ConfigReader(const ConfigText& text, const std::string& directory_name)
      : root_(text.root()), config_(text.config()) {
    settings_.name = directory_name;
    settings_.config = config_;
  }

  absl::StatusOr<ModelSettings> Read() && {
    MILLRACE_RETURN_IF_ERROR(CheckName());
    MILLRACE_RETURN_IF_ERROR(CheckSupported(root_));
    MILLRACE_RETURN_IF_ERROR(ReadEngine());
    MILLRACE_RETURN_IF_ERROR(ReadTensors());
    MILLRACE_RETURN_IF_ERROR(ReadVersionPolicy());
    MILLRACE_RETURN_IF_ERROR(ReadBatching());
    MILLRACE_RETURN_IF_ERROR(ReadPriorities());
    MILLRACE_RETURN_IF_ERROR(ReadMillrace());
    MILLRACE_RETURN_IF_ERROR(ReadInstanceGroups());
    MILLRACE_RETURN_IF_ERROR(ReadParameters());
    MILLRACE_RETURN_IF_ERROR(ReadExecution());
    MILLRACE_RETURN_IF_ERROR(ReadWarmup());
    FillDefaults();
    return std::move(settings_);
  }

 private:
  absl::Status CheckName() {
    if (config_.name().empty() || config_.name() == settings_.name) return absl::OkStatus();
    return root_.Error("name", absl::StrCat("'", config_.name(), "' differs from the directory '",
                                            settings_.name, "'; make them equal or leave it out"));
  }

  absl::Status ReadEngine() {
    MILLRACE_RETURN_IF_ERROR(ReadNamedEngine("platform", config_.platform()));
    MILLRACE_RETURN_IF_ERROR(ReadNamedEngine("backend", config_.backend()));
    const std::string& filename = config_.default_model_filename();
    if (filename.empty()) return absl::OkStatus();
    if (!IsFileName(filename)) return root_.Error("default_model_filename", kFileNameExpected);
    settings_.filename = filename;
    MILLRACE_RETURN_IF_ERROR(Agree("default_model_filename", filename, EngineOfFilename(filename)));
    if (!settings_.engine) {
      return root_.Error("default_model_filename",
                         absl::StrCat("'", filename,
                                      "' doesn't tell how to run it; name it .pt or .pt2, or set "
                                      "platform to pytorch_libtorch or torch_aoti"));
    }
    return absl::OkStatus();
  }

  absl::Status ReadNamedEngine(const char* field, const std::string& value) {
    if (value.empty()) return absl::OkStatus();
    for (const NamedEngine& engine : kNamedEngines) {
      if (engine.name == absl::string_view(value)) return Agree(field, value, engine.kind);
    }
    return root_.Error(field, absl::StrCat("'", value,
                                           "' is not supported; expected pytorch, "
                                           "pytorch_libtorch or torch_aoti, or leave it out"));
  }

  // Takes what a field says about the engine, unless another one said otherwise.
  absl::Status Agree(const char* field, const std::string& value, std::optional<EngineKind> kind) {
    if (!kind) return absl::OkStatus();
    if (settings_.engine && *settings_.engine != *kind) {
      return root_.Error(field, absl::StrCat("'", value, "' contradicts another field, which says ",
                                             PlatformName(*settings_.engine)));
    }
    settings_.engine = kind;
    return absl::OkStatus();
  }

  absl::Status ReadTensors() {
    if (config_.max_batch_size() < 0) {
      return root_.Error("max_batch_size",
                         absl::StrCat(config_.max_batch_size(), " came, expected 0 or more"));
    }
    settings_.max_batch_size = config_.max_batch_size();
    MILLRACE_ASSIGN_OR_RETURN(settings_.inputs, ReadSpecs("input", config_.input()));
    MILLRACE_ASSIGN_OR_RETURN(settings_.outputs, ReadSpecs("output", config_.output()));
    for (int i = 0; i < config_.output_size(); ++i) {
      const std::string& labels = config_.output(i).label_filename();
      if (labels.empty() || IsFileName(labels)) continue;
      return root_.Child("output", i).Error("label_filename", kFileNameExpected);
    }
    return absl::OkStatus();
  }

  template <typename Tensor>
  absl::StatusOr<std::vector<TensorSpec>> ReadSpecs(const char* field,
                                                    const pb::RepeatedPtrField<Tensor>& tensors) {
    if (tensors.empty()) return root_.Error(field, "missing; a model has at least one");
    if (static_cast<size_t>(tensors.size()) > kMostTensors) {
      return root_.Error(
          field, absl::StrCat(tensors.size(), " came, at most ", kMostTensors, " are supported"));
    }
    std::vector<TensorSpec> specs;
    absl::flat_hash_set<std::string> names;
    for (int i = 0; i < tensors.size(); ++i) {
      const ConfigNode node = root_.Child(field, i);
      MILLRACE_RETURN_IF_ERROR(CheckTensorName(node, tensors[i].name()));
      if (!names.insert(tensors[i].name()).second) {
        return node.Error("name", absl::StrCat("'", tensors[i].name(), "' is given twice"));
      }
      MILLRACE_RETURN_IF_ERROR(CheckDataType(node, tensors[i].data_type()));
      TensorSpec spec{tensors[i].name(), static_cast<DataType>(tensors[i].data_type()),
                      ToShape(tensors[i].dims())};
      MILLRACE_RETURN_IF_ERROR(CheckDims(node, spec));
      specs.push_back(std::move(spec));
    }
    return specs;
  }

  static absl::Status CheckTensorName(const ConfigNode& node, const std::string& name) {
    if (IsName(name)) return absl::OkStatus();
    return node.Error(
        "name", name.empty() ? "missing" : "expected at most 255 bytes without control characters");
  }

  static absl::Status CheckDataType(const ConfigNode& node, int data_type) {
    if (data_type == inference::TYPE_INVALID) {
      return node.Error("data_type", "missing; for example TYPE_FP32");
    }
    if (data_type == inference::TYPE_STRING) {
      return node.Error("data_type", "TYPE_STRING is not supported yet; send numbers");
    }
    // An open enum takes any number.
    if (!inference::DataType_IsValid(data_type)) {
      return node.Error("data_type", absl::StrCat(data_type, " is no data type"));
    }
    return absl::OkStatus();
  }

  absl::Status CheckDims(const ConfigNode& node, const TensorSpec& spec) {
    const bool batched = settings_.max_batch_size > 0;
    if (spec.dims.empty() && !batched) {
      return node.Error("dims", "missing; a model that doesn't batch has at least one dimension");
    }
    if (spec.dims.empty() && !node.IsWritten("dims")) {
      return node.Error("dims", "missing; write [] for tensors with one element per row");
    }
    const size_t most = batched ? kMostDims - 1 : kMostDims;
    if (spec.dims.size() > most) {
      return node.Error("dims",
                        absl::StrCat(spec.dims.size(), " came, at most ", most, " are supported"));
    }
    for (size_t i = 0; i < spec.dims.size(); ++i) {
      if (spec.dims[i] >= 1 || spec.dims[i] == -1) continue;
      return node.ErrorAt("dims", static_cast<int>(i),
                          absl::StrCat(spec.dims[i],
                                       " came, expected a size of 1 or more, or -1 "
                                       "for one that varies"));
    }
    return CheckAddressable(node, spec);
  }

  absl::Status CheckAddressable(const ConfigNode& node, const TensorSpec& spec) {
    // Elements of dimensions that vary are counted as one.
    Shape shape = spec.dims;
    for (int64_t& dim : shape) dim = std::max<int64_t>(dim, 1);
    shape.push_back(std::max<int64_t>(settings_.max_batch_size, 1));
    shape.push_back(static_cast<int64_t>(ElementSize(spec.data_type)));
    const std::optional<int64_t> bytes = ElementCount(shape);
    if (bytes && *bytes <= kMostTensorBytes) return absl::OkStatus();
    return node.Error("dims", absl::StrCat("a batch of such tensors has more bytes than can be "
                                           "addressed; at most ",
                                           kMostTensorBytes, " are supported"));
  }

  absl::Status ReadVersionPolicy() {
    const inference::ModelVersionPolicy& policy = config_.version_policy();
    VersionPolicy& read = settings_.version_policy;
    if (policy.has_all()) read.kind = VersionPolicy::Kind::kAll;
    if (policy.has_latest()) read.latest = std::max<int64_t>(policy.latest().num_versions(), 1);
    if (!policy.has_specific()) return absl::OkStatus();
    const ConfigNode node = root_.Child("version_policy").Child("specific");
    read.kind = VersionPolicy::Kind::kSpecific;
    read.specific.assign(policy.specific().versions().begin(), policy.specific().versions().end());
    std::sort(read.specific.begin(), read.specific.end());
    read.specific.erase(std::unique(read.specific.begin(), read.specific.end()),
                        read.specific.end());
    if (read.specific.empty()) return node.Error("versions", "missing; name at least one");
    if (read.specific.front() < 1) {
      return node.Error("versions",
                        absl::StrCat(read.specific.front(), " came, expected 1 or more"));
    }
    return absl::OkStatus();
  }

  absl::Status ReadBatching() {
    if (!config_.has_dynamic_batching()) return absl::OkStatus();
    const inference::ModelDynamicBatching& batching = config_.dynamic_batching();
    const ConfigNode node = root_.Child("dynamic_batching");
    for (int i = 0; i < batching.preferred_batch_size_size(); ++i) {
      const int64_t size = batching.preferred_batch_size(i);
      if (size < 1 || size > settings_.max_batch_size) {
        return node.ErrorAt("preferred_batch_size", i,
                            absl::StrCat(size, " came, expected 1 to max_batch_size, which is ",
                                         settings_.max_batch_size));
      }
      settings_.preferred_batch_sizes.push_back(size);
    }
    std::vector<int64_t>& sizes = settings_.preferred_batch_sizes;
    std::sort(sizes.begin(), sizes.end());
    sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
    MILLRACE_ASSIGN_OR_RETURN(settings_.max_queue_delay,
                              ReadMicroseconds(node, "max_queue_delay_microseconds",
                                               batching.max_queue_delay_microseconds()));
    return absl::OkStatus();
  }

  absl::Status ReadPriorities() {
    const inference::ModelDynamicBatching& batching = config_.dynamic_batching();
    const ConfigNode node = root_.Child("dynamic_batching");
    const uint64_t levels = batching.priority_levels();
    if (levels > kMostPriorityLevels) {
      return node.Error("priority_levels", absl::StrCat(levels, " came, at most ",
                                                        kMostPriorityLevels, " are supported"));
    }
    MILLRACE_RETURN_IF_ERROR(ReadDefaultLevel(node, batching));
    MILLRACE_ASSIGN_OR_RETURN(
        const QueuePolicy policy,
        ReadQueuePolicy(node.Child("default_queue_policy"), batching.default_queue_policy()));
    settings_.queue_policies.assign(std::max<size_t>(levels, 1), policy);
    const int size =
        batching.GetReflection()->FieldSize(batching, node.FieldNamed("priority_queue_policy"));
    for (int i = 0; i < size; ++i) {
      const ConfigNode entry = node.Child("priority_queue_policy", i);
      const uint64_t level =
          entry.message().GetReflection()->GetUInt64(entry.message(), entry.FieldNamed("key"));
      if (level < 1 || level > levels) return entry.Error("key", NoSuchLevel(level, levels));
      MILLRACE_ASSIGN_OR_RETURN(
          settings_.queue_policies[level - 1],
          ReadQueuePolicy(entry.Child("value"), batching.priority_queue_policy().at(level)));
    }
    return absl::OkStatus();
  }

  absl::Status ReadDefaultLevel(const ConfigNode& node,
                                const inference::ModelDynamicBatching& batching) {
    const uint64_t level = batching.default_priority_level();
    const uint64_t levels = batching.priority_levels();
    if (level == 0 && levels == 0) return absl::OkStatus();
    if (level < 1 || level > levels) {
      return node.Error("default_priority_level", NoSuchLevel(level, levels));
    }
    settings_.default_level = static_cast<int>(level);
    return absl::OkStatus();
  }

  static std::string NoSuchLevel(uint64_t level, uint64_t levels) {
    if (levels > 0) {
      return absl::StrCat(level, " came, expected 1 to priority_levels, which is ", levels);
    }
    return absl::StrCat(level, " came, but the model has no levels; set priority_levels too, or ",
                        "remove it");
  }

  static absl::StatusOr<QueuePolicy> ReadQueuePolicy(const ConfigNode& node,
                                                     const inference::ModelQueuePolicy& policy) {
    using Proto = inference::ModelQueuePolicy;
    QueuePolicy read;
    read.max_rows = policy.max_queue_size();
    read.allow_timeout_override = policy.allow_timeout_override();
    switch (policy.timeout_action()) {
      case Proto::REJECT:
        break;
      case Proto::DELAY:
        read.timeout_action = QueuePolicy::TimeoutAction::kDelay;
        break;
      default:
        return node.Error("timeout_action", "expected REJECT or DELAY");
    }
    MILLRACE_ASSIGN_OR_RETURN(const absl::Duration timeout,
                              ReadMicroseconds(node, "default_timeout_microseconds",
                                               policy.default_timeout_microseconds()));
    read.default_timeout = OrNever(timeout);
    return read;
  }

  static absl::StatusOr<absl::Duration> ReadMicroseconds(const ConfigNode& node, const char* field,
                                                         uint64_t value) {
    if (value > static_cast<uint64_t>(absl::ToInt64Microseconds(kLongestDuration))) {
      return node.Error(field, absl::StrCat(value, " came, at most an hour is supported"));
    }
    return absl::Microseconds(static_cast<int64_t>(value));
  }

  absl::Status ReadMillrace() {
    const inference::Millrace::Batching& batching = config_.millrace().batching();
    const ConfigNode node = root_.Child("millrace").Child("batching");
    MILLRACE_RETURN_IF_ERROR(ReadHold(node, batching));
    MILLRACE_RETURN_IF_ERROR(ReadOverflow(node, batching));
    MILLRACE_RETURN_IF_ERROR(ReadStarvationGuard(node, batching));
    MILLRACE_RETURN_IF_ERROR(ReadShedding(node, batching));
    MILLRACE_RETURN_IF_ERROR(ReadCheck(node, batching));
    MILLRACE_RETURN_IF_ERROR(ReadSwap());
    MILLRACE_RETURN_IF_ERROR(ReadTransform());
    MILLRACE_RETURN_IF_ERROR(ReadNumerics());
    if (batching.max_queue_bytes() > std::numeric_limits<int64_t>::max()) {
      return node.Error("max_queue_bytes", absl::StrCat(batching.max_queue_bytes(),
                                                        " came, more than can be addressed"));
    }
    settings_.max_queue_bytes = static_cast<int64_t>(batching.max_queue_bytes());
    MILLRACE_ASSIGN_OR_RETURN(
        const absl::Duration limit,
        ReadMicroseconds(root_.Child("millrace").Child("supervision"),
                         "execution_limit_microseconds",
                         config_.millrace().supervision().execution_limit_microseconds()));
    settings_.execution_limit = OrNever(limit);
    settings_.memory_limit_bytes = config_.millrace().supervision().memory_limit_bytes();
    MILLRACE_RETURN_IF_ERROR(ReadReadiness());
    return ReadReplicas();
  }

  absl::Status ReadTransform() {
    const inference::Millrace::Transform& transform = config_.millrace().transform();
    if (!transform.has_image()) return absl::OkStatus();
    const ConfigNode node = root_.Child("millrace").Child("transform").Child("image");
    const std::string& name = transform.image().input();
    const auto spec = name.empty() && settings_.inputs.size() == 1
                          ? settings_.inputs.begin()
                          : std::find_if(settings_.inputs.begin(), settings_.inputs.end(),
                                         [&](const TensorSpec& each) { return each.name == name; });
    if (spec == settings_.inputs.end()) {
      return node.Error("input", name.empty() ? "missing; the model has several inputs"
                                              : "the model has no input of this name");
    }
    const auto index = static_cast<int>(spec - settings_.inputs.begin());
    MILLRACE_ASSIGN_OR_RETURN(
        const ImageTransform image,
        ReadImageTransform(node, transform.image(), root_.Child("input", index),
                           config_.input(index).format(), *spec));
    if (const absl::Status status = CheckImageTransform(image); !status.ok()) {
      return root_.Child("millrace").Child("transform").Error("image", status.message());
    }
    spec->transform = std::make_shared<const ImageInput>(image);
    return absl::OkStatus();
  }

  absl::Status ReadNumerics() {
    using Proto = inference::Millrace::Numerics;
    const Proto& numerics = config_.millrace().numerics();
    settings_.flush_denormals = numerics.flush_denormals();
    settings_.deterministic = numerics.deterministic();
    NonFinite non_finite = NonFinite::kPass;
    switch (numerics.non_finite()) {
      case Proto::NON_FINITE_UNSPECIFIED:
      case Proto::PASS:
        break;
      case Proto::FLAG:
        non_finite = NonFinite::kFlag;
        break;
      case Proto::REFUSE:
        non_finite = NonFinite::kRefuse;
        break;
      default:
        return root_.Child("millrace")
            .Child("numerics")
            .Error("non_finite", "expected PASS, FLAG or REFUSE");
    }
    for (TensorSpec& output : settings_.outputs) output.non_finite = non_finite;
    return absl::OkStatus();
  }

  absl::Status ReadReadiness() {
    using Proto = inference::Millrace::Supervision;
    switch (config_.millrace().supervision().readiness()) {
      case Proto::READINESS_UNSPECIFIED:
        return absl::OkStatus();
      case Proto::REQUIRED:
        settings_.readiness = Readiness::kRequired;
        return absl::OkStatus();
      case Proto::OPTIONAL:
        settings_.readiness = Readiness::kOptional;
        return absl::OkStatus();
      default:
        return root_.Child("millrace")
            .Child("supervision")
            .Error("readiness", "expected REQUIRED or OPTIONAL");
    }
  }

  absl::Status ReadReplicas() {
    if (!config_.millrace().has_replicas()) return absl::OkStatus();
    const inference::Millrace::Replicas& replicas = config_.millrace().replicas();
    const ConfigNode node = root_.Child("millrace").Child("replicas");
    constexpr uint32_t kMost = 1024;
    if (replicas.max() < 1 || replicas.max() > kMost) {
      return node.Error("max", absl::StrCat(replicas.max(), " came, expected 1 to ", kMost));
    }
    const uint32_t least = std::max<uint32_t>(1, replicas.min());
    if (least > replicas.max()) {
      return node.Error("min",
                        absl::StrCat(least, " came, expected at most max, ", replicas.max()));
    }
    if (config_.instance_group_size() > 1) {
      return node.Error("max", "it needs a single instance_group, to add replicas to");
    }
    settings_.replica_range = {.least = static_cast<int>(least),
                               .most = static_cast<int>(replicas.max())};
    return absl::OkStatus();
  }

  absl::Status ReadHold(const ConfigNode& node, const inference::Millrace::Batching& batching) {
    using Proto = inference::Millrace::Batching;
    switch (batching.hold()) {
      case Proto::HOLD_UNSPECIFIED:
        return absl::OkStatus();
      case Proto::NONE:
        settings_.hold = Hold::kNone;
        return absl::OkStatus();
      case Proto::RETURNERS:
        settings_.hold = Hold::kReturners;
        return absl::OkStatus();
      default:
        return node.Error("hold",
                          "expected NONE or RETURNERS, or leave it out to let the server decide");
    }
  }

  absl::Status ReadOverflow(const ConfigNode& node, const inference::Millrace::Batching& batching) {
    using Proto = inference::Millrace::Batching;
    switch (batching.overflow()) {
      case Proto::OVERFLOW_UNSPECIFIED:
      case Proto::BLOCK:
        settings_.overflow = Overflow::kBlock;
        return absl::OkStatus();
      case Proto::REJECT:
        settings_.overflow = Overflow::kReject;
        return absl::OkStatus();
      case Proto::DROP_OLDEST:
        settings_.overflow = Overflow::kDropOldest;
        return absl::OkStatus();
      case Proto::LATEST:
        settings_.overflow = Overflow::kLatest;
        return absl::OkStatus();
      default:
        return node.Error("overflow", "expected BLOCK, REJECT, DROP_OLDEST or LATEST");
    }
  }

  absl::Status ReadCheck(const ConfigNode& node, const inference::Millrace::Batching& batching) {
    using Proto = inference::Millrace::Batching;
    switch (batching.check()) {
      case Proto::CHECK_UNSPECIFIED:
      case Proto::SINGLE_ROWS:
        settings_.batch_check = BatchCheck::kSingleRows;
        return absl::OkStatus();
      case Proto::REFUSE_MODEL:
        settings_.batch_check = BatchCheck::kRefuseModel;
        return absl::OkStatus();
      case Proto::UNCHECKED:
        settings_.batch_check = BatchCheck::kUnchecked;
        return absl::OkStatus();
      default:
        return node.Error("check", "expected SINGLE_ROWS, REFUSE_MODEL or UNCHECKED");
    }
  }

  absl::Status ReadSwap() {
    using Proto = inference::Millrace::Lifecycle;
    switch (config_.millrace().lifecycle().swap()) {
      case Proto::SWAP_MODE_UNSPECIFIED:
      case Proto::BESIDE:
        return absl::OkStatus();
      case Proto::IN_PLACE_IF_NEEDED:
        settings_.swaps_in_place_if_needed = true;
        return absl::OkStatus();
      default:
        return root_.Child("millrace")
            .Child("lifecycle")
            .Error("swap", "expected BESIDE or IN_PLACE_IF_NEEDED");
    }
  }

  absl::Status ReadStarvationGuard(const ConfigNode& node,
                                   const inference::Millrace::Batching& batching) {
    MILLRACE_ASSIGN_OR_RETURN(const absl::Duration guard,
                              ReadMicroseconds(node, "starvation_guard_microseconds",
                                               batching.starvation_guard_microseconds()));
    settings_.starvation_guard = OrNever(guard);
    if (guard > absl::ZeroDuration() && settings_.queue_policies.size() < 2) {
      return node.Error("starvation_guard_microseconds",
                        "it needs lower priority levels; set dynamic_batching.priority_levels to 2 "
                        "or more, or remove it");
    }
    return absl::OkStatus();
  }

  absl::Status ReadShedding(const ConfigNode& node, const inference::Millrace::Batching& batching) {
    MILLRACE_ASSIGN_OR_RETURN(
        const absl::Duration target,
        ReadMicroseconds(node, "shed_target_microseconds", batching.shed_target_microseconds()));
    MILLRACE_ASSIGN_OR_RETURN(const absl::Duration interval,
                              ReadMicroseconds(node, "shed_interval_microseconds",
                                               batching.shed_interval_microseconds()));
    settings_.shed_target = OrNever(target);
    if (interval == absl::ZeroDuration()) return absl::OkStatus();
    settings_.shed_interval = interval;
    if (target > absl::ZeroDuration()) return absl::OkStatus();
    return node.Error("shed_interval_microseconds",
                      "without shed_target_microseconds nothing is shed; set both, or remove it");
  }

  absl::Status ReadInstanceGroups() {
    for (int i = 0; i < config_.instance_group_size(); ++i) {
      MILLRACE_ASSIGN_OR_RETURN(
          InstanceGroup group,
          ReadInstanceGroup(root_.Child("instance_group", i), config_.instance_group(i)));
      settings_.instance_groups.push_back(std::move(group));
    }
    return absl::OkStatus();
  }

  static absl::StatusOr<InstanceGroup> ReadInstanceGroup(
      const ConfigNode& node, const inference::ModelInstanceGroup& group) {
    using Proto = inference::ModelInstanceGroup;
    InstanceGroup read;
    switch (group.kind()) {
      case Proto::KIND_AUTO:
        break;
      case Proto::KIND_CPU:
        read.kind = DeviceKind::kCpu;
        break;
      case Proto::KIND_GPU:
        read.kind = DeviceKind::kGpu;
        break;
      default:
        return node.Error("kind",
                          "not supported by this server; expected KIND_CPU, KIND_GPU or KIND_AUTO");
    }
    if (group.count() < 0 || group.count() > kMostReplicas) {
      return node.Error("count", absl::StrCat(group.count(), " came, expected 1 to ", kMostReplicas,
                                              ", or leave it out to decide by the hardware"));
    }
    if (group.count() > 0) read.count = group.count();
    for (int i = 0; i < group.gpus_size(); ++i) {
      if (read.kind == DeviceKind::kCpu) {
        return node.Error("gpus", "KIND_CPU uses none; remove it or write KIND_GPU");
      }
      if (group.gpus(i) < 0) {
        return node.ErrorAt("gpus", i, absl::StrCat(group.gpus(i), " came, expected 0 or more"));
      }
      read.gpus.push_back(group.gpus(i));
    }
    return read;
  }

  absl::Status ReadParameters() {
    const int size =
        root_.message().GetReflection()->FieldSize(root_.message(), root_.FieldNamed("parameters"));
    for (int i = 0; i < size; ++i) {
      const ConfigNode entry = root_.Child("parameters", i);
      const std::string key =
          entry.message().GetReflection()->GetString(entry.message(), entry.FieldNamed("key"));
      MILLRACE_RETURN_IF_ERROR(
          ReadParameter(entry, key, config_.parameters().at(key).string_value()));
    }
    return absl::OkStatus();
  }

  // Settings of the server are written in capitals; other keys are notes for clients, which the
  // server hands on.
  absl::Status ReadParameter(const ConfigNode& entry, const std::string& key,
                             const std::string& value) {
    const std::string upper = absl::AsciiStrToUpper(key);
    if (upper == "INTRA_OP_THREAD_COUNT") settings_.intra_op_threads = ParseThreads(value);
    if (upper == "INTER_OP_THREAD_COUNT") settings_.inter_op_threads = ParseThreads(value);
    if (upper == "INTRA_OP_THREAD_COUNT" || upper == "INTER_OP_THREAD_COUNT") {
      return CheckParameter(entry, key, value, ParseThreads(value).has_value(),
                            absl::StrCat("a number from 1 to ", kMostThreads));
    }
    if (upper == "DISABLE_OPTIMIZED_EXECUTION") {
      settings_.disable_optimized_execution = ParseBool(value).value_or(false);
      return CheckParameter(entry, key, value, ParseBool(value).has_value(), "true or false");
    }
    if (upper == "INFERENCE_MODE") {
      settings_.inference_mode = ParseBool(value).value_or(true);
      return CheckParameter(entry, key, value, ParseBool(value).has_value(), "true or false");
    }
    if (key != upper || absl::AsciiStrToLower(key) == key) return absl::OkStatus();
    return entry.Error("key",
                       "not supported by this server, which knows INTRA_OP_THREAD_COUNT, "
                       "INTER_OP_THREAD_COUNT, DISABLE_OPTIMIZED_EXECUTION and INFERENCE_MODE; "
                       "remove it (a note for clients is written with small letters)");
  }

  static std::optional<int> ParseThreads(const std::string& value) {
    int threads = 0;
    if (!absl::SimpleAtoi(value, &threads) || threads < 1 || threads > kMostThreads) {
      return std::nullopt;
    }
    return threads;
  }

  static absl::Status CheckParameter(const ConfigNode& entry, const std::string& key,
                                     const std::string& value, bool valid,
                                     absl::string_view expected) {
    const std::string upper = absl::AsciiStrToUpper(key);
    if (key != upper) return entry.Error("key", absl::StrCat("write it as ", upper));
    if (valid) return absl::OkStatus();
    return entry.Error("value", absl::StrCat("'", value, "' came, expected ", expected));
  }

  absl::Status ReadExecution() {
    if (!config_.millrace().has_execution()) return absl::OkStatus();
    const inference::Millrace::Execution& execution = config_.millrace().execution();
    const ConfigNode node = root_.Child("millrace").Child("execution");
    if (execution.has_bfloat16()) settings_.execution.bfloat16 = execution.bfloat16();
    if (execution.has_channels_last()) {
      settings_.execution.channels_last = execution.channels_last();
    }
    MILLRACE_RETURN_IF_ERROR(ReadWait(node, execution));
    for (const InstanceGroup& group : settings_.instance_groups) {
      if (group.kind != DeviceKind::kGpu) continue;
      return root_.Child("millrace")
          .Error("execution",
                 "it is for replicas on CPUs, and an instance_group has KIND_GPU; remove it");
    }
    if (settings_.engine == EngineKind::kAotInductor) {
      constexpr char kCompiled[] = "a package computes as it was compiled; remove it";
      if (execution.bfloat16()) return node.Error("bfloat16", kCompiled);
      if (execution.channels_last()) return node.Error("channels_last", kCompiled);
    }
    if (execution.bfloat16() && settings_.disable_optimized_execution) {
      return node.Error(
          "bfloat16",
          "it takes a module that is frozen, and DISABLE_OPTIMIZED_EXECUTION is true; "
          "remove one of them");
    }
    return absl::OkStatus();
  }

  absl::Status ReadWait(const ConfigNode& node, const inference::Millrace::Execution& execution) {
    using Proto = inference::Millrace::Execution;
    switch (execution.wait()) {
      case Proto::WAIT_UNSPECIFIED:
        return absl::OkStatus();
      case Proto::PASSIVE:
        settings_.execution.wait = ThreadWait::kPassive;
        return absl::OkStatus();
      case Proto::ACTIVE:
        settings_.execution.wait = ThreadWait::kActive;
        return absl::OkStatus();
      default:
        return node.Error("wait", "expected PASSIVE or ACTIVE");
    }
  }

  absl::Status ReadWarmup() {
    for (int i = 0; i < config_.model_warmup_size(); ++i) {
      MILLRACE_ASSIGN_OR_RETURN(
          DeclaredWarmup warmup,
          ReadWarmupSample(root_.Child("model_warmup", i), config_.model_warmup(i)));
      settings_.warmup.push_back(std::move(warmup));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<DeclaredWarmup> ReadWarmupSample(const ConfigNode& node,
                                                  const inference::ModelWarmup& sample) {
    DeclaredWarmup read;
    read.name = sample.name();
    read.rows = std::max<int64_t>(sample.batch_size(), 1);
    const int64_t most = std::max<int64_t>(settings_.max_batch_size, 1);
    if (read.rows > most) {
      return node.Error("batch_size", absl::StrCat(read.rows, " came, expected at most ", most));
    }
    if (sample.count() > kMostWarmupRuns) {
      return node.Error("count",
                        absl::StrCat(sample.count(), " came, expected at most ", kMostWarmupRuns));
    }
    if (sample.count() > 0) read.count = static_cast<int>(sample.count());
    read.inputs.resize(settings_.inputs.size());
    std::vector<bool> given(settings_.inputs.size(), false);
    const pb::Reflection* reflection = sample.GetReflection();
    const int size = reflection->FieldSize(sample, node.FieldNamed("inputs"));
    for (int i = 0; i < size; ++i) {
      const ConfigNode entry = node.Child("inputs", i);
      const std::string name =
          entry.message().GetReflection()->GetString(entry.message(), entry.FieldNamed("key"));
      const auto spec = std::find_if(settings_.inputs.begin(), settings_.inputs.end(),
                                     [&](const TensorSpec& input) { return input.name == name; });
      if (spec == settings_.inputs.end()) {
        return entry.Error("key", "the model has no input of this name");
      }
      const auto index = static_cast<size_t>(spec - settings_.inputs.begin());
      given[index] = true;
      MILLRACE_ASSIGN_OR_RETURN(read.inputs[index], ReadWarmupInput(entry.Child("value"), *spec,
                                                                    sample.inputs().at(name)));
    }
    for (size_t i = 0; i < given.size(); ++i) {
      if (given[i]) continue;
      return node.Error(
          "inputs", absl::StrCat("the model's input '", settings_.inputs[i].name, "' is missing"));
    }
    return read;
  }

  absl::StatusOr<DeclaredWarmup::Input> ReadWarmupInput(
      const ConfigNode& node, const TensorSpec& spec, const inference::ModelWarmup::Input& input) {
    if (static_cast<int>(input.data_type()) != static_cast<int>(spec.data_type)) {
      return node.Error("data_type", absl::StrCat("differs from that of the model's input, TYPE_",
                                                  WireName(spec.data_type)));
    }
    DeclaredWarmup::Input read;
    read.dims = ToShape(input.dims());
    bool fits = read.dims.size() == spec.dims.size();
    for (size_t i = 0; fits && i < read.dims.size(); ++i) {
      fits = read.dims[i] >= 1 && (spec.dims[i] == -1 || spec.dims[i] == read.dims[i]);
    }
    if (!fits) {
      return node.Error("dims", absl::StrCat(ToString(read.dims), " came, expected sizes for ",
                                             ToString(spec.dims), ", without the batch dimension"));
    }
    TensorSpec sized = spec;
    sized.dims = read.dims;
    MILLRACE_RETURN_IF_ERROR(CheckAddressable(node, sized));
    read.file = input.input_data_file();
    if (input.has_input_data_file() && !IsFileName(read.file)) {
      return node.Error("input_data_file", kFileNameExpected);
    }
    read.random = input.random_data();
    if (!input.zero_data() && !input.random_data() && !input.has_input_data_file()) {
      return node.Error("zero_data",
                        "missing; write zero_data: true, random_data: true or input_data_file");
    }
    return read;
  }

  // Completes the message, so that clients that ask for it needn't know our defaults.
  void FillDefaults() {
    inference::ModelConfig& whole = settings_.config;
    whole.set_name(settings_.name);
    if (whole.version_policy().policy_choice_case() ==
        inference::ModelVersionPolicy::POLICY_CHOICE_NOT_SET) {
      whole.mutable_version_policy()->mutable_latest();
    }
    if (whole.version_policy().has_latest()) {
      whole.mutable_version_policy()->mutable_latest()->set_num_versions(
          static_cast<uint32_t>(settings_.version_policy.latest));
    }
    if (settings_.max_batch_size > 1) whole.mutable_dynamic_batching();
    if (whole.instance_group().empty()) whole.add_instance_group();
    inference::Millrace::Batching* batching = whole.mutable_millrace()->mutable_batching();
    if (settings_.overflow == Overflow::kBlock) {
      batching->set_overflow(inference::Millrace::Batching::BLOCK);
    }
    if (batching->shed_target_microseconds() > 0) {
      batching->set_shed_interval_microseconds(
          static_cast<uint64_t>(absl::ToInt64Microseconds(settings_.shed_interval)));
    }
    for (int i = 0; i < whole.instance_group_size(); ++i) {
      inference::ModelInstanceGroup* group = whole.mutable_instance_group(i);
      if (group->name().empty()) group->set_name(absl::StrCat(settings_.name, "_", i));
    }
  }

  const ConfigNode root_;
  const inference::ModelConfig& config_;
  ModelSettings settings_;
};

}  // namespace

absl::StatusOr<ModelSettings> ParseModelConfig(const std::string& text, const std::string& file,
                                               const std::string& directory_name) {
  MILLRACE_ASSIGN_OR_RETURN(const std::unique_ptr<const ConfigText> parsed,
                            ConfigText::Parse(text, file));
  return ConfigReader(*parsed, directory_name).Read();
}

}  // namespace millrace
