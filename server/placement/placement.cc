// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/placement/placement.h"

#include <algorithm>
#include <array>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/base/status.h"
#include "server/hardware/cpu_list.h"
#include "server/placement/core_allotment.h"

namespace millrace {
namespace {

// Bounds that no machine needs to exceed; they catch a slip of the pen before it forks.
constexpr int kMaxReplicas = 1024;
constexpr int kMaxThreads = 1024;

// One model's replicas, and how many slots its configuration asks for in so many words.
struct Demand {
  std::vector<ReplicaPlacement> replicas;
  std::vector<ReplicaPlacement> spares;
  int explicit_slots = 0;
  NumbersFrom numbers = NumbersFrom::kHardware;
};

// Plans one model, without regard to the others.
class ModelPlanner {
 public:
  ModelPlanner(const Hardware& hardware, const ModelPlacementConfig& config)
      : hardware_(hardware), config_(config) {}

  absl::StatusOr<Demand> Plan() const {
    const int threads = config_.intra_op_threads.value_or(1);
    if (threads < 1 || threads > kMaxThreads) {
      return absl::InvalidArgumentError(absl::StrCat("the number of intra-op threads is ", threads,
                                                     "; expected 1 to ", kMaxThreads));
    }
    Demand demand;
    const std::vector<InstanceGroup> automatic(1);
    for (const InstanceGroup& group : config_.groups.empty() ? automatic : config_.groups) {
      MILLRACE_RETURN_IF_ERROR(AddGroup(group, demand));
      if (demand.replicas.size() > kMaxReplicas) return TooMany(demand.replicas.size());
    }
    if (config_.groups.size() <= 1) Vary(demand);
    return demand;
  }

 private:
  // Decides how many replicas there are at the start, and how many may be added.
  void Vary(Demand& demand) const {
    const ReplicaPlacement like = demand.replicas.front();
    const bool on_cpu = like.device == DeviceKind::kCpu;
    const size_t planned = demand.replicas.size();
    const size_t fit = static_cast<size_t>(std::max(1, hardware_.cpu.slots() / like.threads));
    size_t start = planned;
    size_t most = on_cpu ? std::max(planned, std::min<size_t>(fit, kMaxReplicas)) : planned;
    if (config_.range) {
      const bool counted = !config_.groups.empty() && config_.groups.front().count;
      const auto least = static_cast<size_t>(config_.range->least);
      most = static_cast<size_t>(config_.range->most);
      if (on_cpu) most = std::min(most, std::max({fit, least, counted ? planned : 0}));
      start = std::clamp(counted ? planned : least, least, most);
    }
    // The others are dealt in the same turn.
    std::vector<ReplicaPlacement> all;
    for (size_t i = 0; i < most; ++i) all.push_back(demand.replicas[i % planned]);
    demand.replicas.assign(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(start));
    demand.spares.assign(all.begin() + static_cast<std::ptrdiff_t>(start), all.end());
  }

  static absl::Status TooMany(size_t replicas) {
    return absl::InvalidArgumentError(absl::StrCat("instance_group asks for ", replicas,
                                                   " replicas; expected at most ", kMaxReplicas));
  }

  absl::Status AddGroup(const InstanceGroup& group, Demand& demand) const {
    if (group.count && *group.count < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("instance_group has count ", *group.count,
                       "; expected 1 or more, or no count to let the hardware decide"));
    }
    if (group.count && *group.count > kMaxReplicas) {
      return TooMany(static_cast<size_t>(*group.count));
    }
    const bool gpu = group.kind == DeviceKind::kGpu ||
                     (group.kind == DeviceKind::kAuto && !hardware_.accelerators.empty());
    return gpu ? AddGpuGroup(group, demand) : AddCpuGroup(group, demand);
  }

  absl::Status AddCpuGroup(const InstanceGroup& group, Demand& demand) const {
    if (group.kind == DeviceKind::kCpu && !group.gpus.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("instance_group has KIND_CPU and gpus [",
                                                     absl::StrJoin(group.gpus, ", "),
                                                     "]; expected no gpus, or KIND_GPU"));
    }
    const CpuModel& cpu = hardware_.cpu_model;
    if (config_.bfloat16 && !cpu.computes_bfloat16) {
      return absl::FailedPreconditionError(absl::StrCat(
          "it is to compute in BF16 (millrace.execution, or a plan), but this CPU (", cpu.name,
          ", ", cpu.isa, ") can't, and would take longer than in FP32; remove bfloat16"));
    }
    const std::optional<MeasuredBest> measured = MeasuredFor(group);
    ReplicaPlacement replica;
    replica.threads = measured ? measured->threads : config_.intra_op_threads.value_or(1);
    const int replicas = measured ? measured->replicas
                                  : group.count.value_or(std::clamp(
                                        hardware_.cpu.slots() / replica.threads, 1, kMaxReplicas));
    demand.replicas.insert(demand.replicas.end(), static_cast<size_t>(replicas), replica);
    // Without numbers only a replica that is wider than the budget asks for more than there is.
    demand.explicit_slots = measured || group.count
                                ? demand.explicit_slots + replicas * replica.threads
                                : std::max(demand.explicit_slots, replica.threads);
    if (measured) {
      demand.numbers = NumbersFrom::kMeasuring;
    } else if (group.count || config_.intra_op_threads) {
      demand.numbers = NumbersFrom::kConfig;
    }
    return absl::OkStatus();
  }

  // What was measured, cut to the budget; nullopt where nothing was, or with other numbers than
  // are configured now.
  std::optional<MeasuredBest> MeasuredFor(const InstanceGroup& group) const {
    if (!config_.measured || config_.groups.size() > 1) return std::nullopt;
    MeasuredBest best = *config_.measured;
    if (config_.intra_op_threads.value_or(best.threads) != best.threads ||
        group.count.value_or(best.replicas) != best.replicas) {
      return std::nullopt;
    }
    const int slots = hardware_.cpu.most_slots();
    if (!config_.intra_op_threads) best.threads = std::clamp(best.threads, 1, slots);
    if (!group.count)
      best.replicas = std::clamp(best.replicas, 1, std::max(1, slots / best.threads));
    return best;
  }

  absl::Status AddGpuGroup(const InstanceGroup& group, Demand& demand) const {
    std::vector<int> gpus = group.gpus;
    MILLRACE_RETURN_IF_ERROR(CheckGpus(gpus));
    if (gpus.empty()) {
      for (const Accelerator& each : hardware_.accelerators) gpus.push_back(each.index);
    }
    const size_t replicas = gpus.size() * static_cast<size_t>(group.count.value_or(1));
    if (replicas > kMaxReplicas) return TooMany(replicas);
    ReplicaPlacement replica;
    replica.device = DeviceKind::kGpu;
    replica.threads = config_.intra_op_threads.value_or(1);
    if (group.count || config_.intra_op_threads) demand.numbers = NumbersFrom::kConfig;
    for (size_t i = 0; i < replicas; ++i) {
      replica.device_index = gpus[i % gpus.size()];
      demand.replicas.push_back(replica);
    }
    return absl::OkStatus();
  }

  absl::Status CheckGpus(const std::vector<int>& wanted) const {
    const std::vector<Accelerator>& present = hardware_.accelerators;
    if (present.empty()) {
      return absl::FailedPreconditionError(
          "instance_group has KIND_GPU, but there is no GPU here that the worker can use; use "
          "KIND_AUTO or KIND_CPU, or see to it that the worker's libtorch has CUDA");
    }
    std::set<int> seen;
    for (int index : wanted) {
      if (!seen.insert(index).second) {
        return absl::InvalidArgumentError(
            absl::StrCat("instance_group lists GPU ", index,
                         " twice; list each once and use count for several replicas on each"));
      }
      if (std::any_of(present.begin(), present.end(),
                      [&](const Accelerator& each) { return each.index == index; })) {
        continue;
      }
      return absl::FailedPreconditionError(
          absl::StrCat("instance_group asks for GPU ", index, ", but the GPUs here are ",
                       absl::StrJoin(present, ", ", [](std::string* out, const Accelerator& each) {
                         absl::StrAppend(out, each.index, " (", each.name, ")");
                       })));
    }
    return absl::OkStatus();
  }

  const Hardware& hardware_;
  const ModelPlacementConfig& config_;
};

std::string OversubscriptionWarning(const ModelPlan& model, int asked, const CpuBudget& cpu) {
  const int slots = cpu.slots();
  return absl::StrCat(
      "model ", model.model, " version ", model.version, " asks for ", asked, " threads in all, ",
      "but the CPU budget is ", slots, slots == 1 ? " core (" : " cores (", cpu.source,
      "): its threads take turns, so each batch takes longer and none is gained; replicas of "
      "several threads wait for each other and can become ten times slower. Leave out count and "
      "threads, or keep replicas x threads within ",
      slots);
}

// The table's cells; a row for every run of replicas that are placed alike.
using Row = std::array<std::string, 8>;

std::string NameOf(NumbersFrom numbers) {
  switch (numbers) {
    case NumbersFrom::kHardware:
      return "automatic";
    case NumbersFrom::kConfig:
      return "configured";
    case NumbersFrom::kMeasuring:
      break;
  }
  return "measured";
}

std::string FormatCpus(const std::vector<int>& cpus) {
  return cpus.empty() ? "any" : FormatCpuList(cpus);
}

Row FormatReplicas(const ModelPlan& model, size_t first, size_t last) {
  const ReplicaPlacement& replica = model.replicas[first];
  return {model.model,
          absl::StrCat(model.version),
          model.engine,
          first == last ? absl::StrCat(first) : absl::StrCat(first, "-", last),
          replica.device == DeviceKind::kGpu ? absl::StrCat("gpu ", replica.device_index) : "cpu",
          FormatCpus(replica.cpus),
          absl::StrCat(replica.threads),
          NameOf(model.numbers)};
}

std::vector<Row> FormatModel(const ModelPlan& model) {
  if (!model.status.ok()) {
    return {{model.model, absl::StrCat(model.version), model.engine, "none", "-", "-", "-", "-"}};
  }
  std::vector<Row> rows;
  for (size_t first = 0; first < model.replicas.size();) {
    size_t last = first;
    while (last + 1 < model.replicas.size() && model.replicas[last + 1] == model.replicas[first]) {
      ++last;
    }
    rows.push_back(FormatReplicas(model, first, last));
    first = last + 1;
  }
  return rows;
}

// The machine with all of its CPUs and no quota, which is the most that a budget grows to.
Hardware WithoutLimits(Hardware hardware) {
  std::vector<int> cpus;
  for (const CpuPlace& place : hardware.topology.cpus) cpus.push_back(place.cpu);
  if (cpus.size() > hardware.cpu.cpus.size()) hardware.cpu.cpus = std::move(cpus);
  hardware.cpu.quota = std::numeric_limits<double>::infinity();
  return hardware;
}

size_t CountPlaces(const absl::StatusOr<Demand>& demand) {
  return demand.ok() ? demand->replicas.size() + demand->spares.size() : 0;
}

// Whether what runs on CPUs is pinned.
bool Pins(const Hardware& hardware, const PlacementOptions& options) {
  return options.pin || hardware.cpu.exclusive;
}

}  // namespace

std::vector<ReplicaPlacement> ModelPlan::places() const {
  std::vector<ReplicaPlacement> places = replicas;
  places.insert(places.end(), spares.begin(), spares.end());
  return places;
}

PlacementPlan PlanPlacement(const Hardware& hardware, absl::Span<const ModelPlacementConfig> models,
                            const PlacementOptions& options,
                            absl::Span<const ReplicaPlacement> placed) {
  PlacementPlan plan;
  const bool pin = Pins(hardware, options);
  const Hardware whole = WithoutLimits(hardware);
  CoreAllotment cores(hardware.topology, hardware.cpu.cpus);
  for (const ReplicaPlacement& replica : placed) cores.Occupy(replica.cpus);
  for (const ModelPlacementConfig& config : models) {
    ModelPlan& model = plan.models.emplace_back();
    model.model = config.model;
    model.version = config.version;
    model.engine = config.engine;
    absl::StatusOr<Demand> demand = ModelPlanner(hardware, config).Plan();
    model.status = demand.status();
    if (!demand.ok()) continue;
    // What was measured doesn't count for another budget.
    ModelPlacementConfig unmeasured = config;
    unmeasured.measured.reset();
    model.most_places =
        std::max({CountPlaces(demand), CountPlaces(ModelPlanner(whole, config).Plan()),
                  CountPlaces(ModelPlanner(whole, unmeasured).Plan())});
    model.replicas = std::move(demand->replicas);
    model.spares = std::move(demand->spares);
    for (ReplicaPlacement& replica : model.replicas) {
      if (pin && replica.device == DeviceKind::kCpu) replica.cpus = cores.Take(replica.threads);
    }
    model.explicit_slots = demand->explicit_slots;
    model.numbers = demand->numbers;
    const bool measured = model.numbers == NumbersFrom::kMeasuring &&
                          model.explicit_slots <= hardware.cpu.most_slots();
    if (model.explicit_slots > hardware.cpu.slots() && !measured) {
      plan.warnings.push_back(OversubscriptionWarning(model, model.explicit_slots, hardware.cpu));
    }
  }
  for (ModelPlan& model : plan.models) {  // After all those that run from the start on.
    for (ReplicaPlacement& spare : model.spares) {
      if (pin && spare.device == DeviceKind::kCpu) spare.cpus = cores.Take(spare.threads);
    }
  }
  if (std::any_of(models.begin(), models.end(),
                  [](const auto& each) { return each.has_transform; })) {
    std::vector<ReplicaPlacement> replicas(placed.begin(), placed.end());
    for (const ModelPlan& model : plan.models) {
      replicas.insert(replicas.end(), model.replicas.begin(), model.replicas.end());
    }
    const int workers =
        options.transform_workers > 0 ? options.transform_workers : hardware.cpu.slots();
    plan.transform = {workers, PlaceTransformWorkers(hardware, workers, options, replicas)};
  }
  return plan;
}

std::vector<int> PlaceTransformWorkers(const Hardware& hardware, int workers,
                                       const PlacementOptions& options,
                                       absl::Span<const ReplicaPlacement> placed) {
  if (!Pins(hardware, options)) return {};
  std::set<int> free(hardware.cpu.cpus.begin(), hardware.cpu.cpus.end());
  for (const ReplicaPlacement& replica : placed) {
    for (const int cpu : replica.cpus) free.erase(cpu);
  }
  if (free.size() < static_cast<size_t>(workers)) return hardware.cpu.cpus;
  return {free.begin(), free.end()};
}

std::string FormatPlan(const PlacementPlan& plan) {
  std::vector<Row> rows = {
      {"model", "version", "engine", "replica", "device", "cores", "threads", "numbers"}};
  for (const ModelPlan& model : plan.models) {
    const std::vector<Row> more = FormatModel(model);
    rows.insert(rows.end(), more.begin(), more.end());
  }
  if (plan.transform) {
    const int last = plan.transform->workers - 1;
    rows.push_back({"transform workers", "-", "-", last == 0 ? "0" : absl::StrCat("0-", last),
                    "cpu", FormatCpus(plan.transform->cpus), "1", "-"});
  }
  Row::size_type width[std::tuple_size_v<Row>] = {};
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) width[i] = std::max(width[i], row[i].size());
  }
  std::string table;
  for (const Row& row : rows) {
    for (size_t i = 0; i + 1 < row.size(); ++i) {
      absl::StrAppend(&table, row[i], std::string(width[i] - row[i].size() + 2, ' '));
    }
    absl::StrAppend(&table, row.back(), "\n");
  }
  return table;
}

}  // namespace millrace
