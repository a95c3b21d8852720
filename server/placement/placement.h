// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "server/hardware/hardware.h"
#include "server/inference/execution_mode.h"

namespace millrace {

enum class DeviceKind { kAuto, kCpu, kGpu };

// An instance_group of a model's configuration. Values as written there: an absent count is
// nullopt, not 0.
struct InstanceGroup {
  DeviceKind kind = DeviceKind::kAuto;
  std::optional<int> count;  // Replicas; on GPUs, replicas on each GPU.
  std::vector<int> gpus;     // Empty: all there are.
};

// Between which numbers a model's replicas may vary while it serves.
struct ReplicaRange {
  int least = 1;
  int most = 1;
};

// How measuring found that a model is run best on the CPUs of this machine.
struct MeasuredBest {
  int replicas = 1;
  int threads = 1;        // Of each, intra-op.
  int64_t most_rows = 0;  // Of a batch; 0: as many as the configuration allows.
  std::optional<ExecutionMode> mode = std::nullopt;  // As the configuration and the files say.

  friend bool operator==(const MeasuredBest&, const MeasuredBest&) = default;
};

// What placement needs to know of one version of a model.
struct ModelPlacementConfig {
  std::string model;
  int64_t version = 1;
  std::string engine;                 // For FormatPlan().
  std::vector<InstanceGroup> groups;  // Empty: one group of kAuto.
  std::optional<int> intra_op_threads;
  bool bfloat16 = false;              // On CPUs; see ExecutionMode.
  std::optional<ReplicaRange> range;  // Nullopt: their number is fixed.
  bool has_transform = false;         // Its inputs are prepared by the transform stage.
  std::optional<MeasuredBest> measured = std::nullopt;  // Nullopt: it wasn't.
};

// One replica: a worker process and the device it computes on.
struct ReplicaPlacement {
  DeviceKind device = DeviceKind::kCpu;  // kCpu or kGpu.
  int device_index = -1;                 // The GPU; -1 on the CPU.
  std::vector<int> cpus;                 // Ascending: where it is pinned. Empty: it floats.
  int threads = 1;                       // Intra-op threads.

  // How many slots a running batch of this replica takes: its threads, on a GPU none.
  int slots() const { return device == DeviceKind::kCpu ? threads : 0; }

  friend bool operator==(const ReplicaPlacement&, const ReplicaPlacement&) = default;
};

// What a model's numbers of replicas and threads come from.
enum class NumbersFrom { kHardware, kConfig, kMeasuring };

// What becomes of one version of a model. Where `status` isn't OK it has no replicas and the
// message says why: a model that can't be placed here doesn't hinder the others.
struct ModelPlan {
  std::string model;
  int64_t version = 1;
  std::string engine;
  absl::Status status;
  std::vector<ReplicaPlacement> replicas;  // At the start.
  std::vector<ReplicaPlacement> spares;    // Where others may be added.
  // How many slots its configuration asks for in so many words, or measuring found best.
  int explicit_slots = 0;
  NumbersFrom numbers = NumbersFrom::kHardware;
  size_t most_places = 0;  // Replicas and spares, here or if the budget grew to the whole machine.

  // The replicas', then the spares'.
  std::vector<ReplicaPlacement> places() const;
};

// The threads that prepare inputs.
struct TransformPlacement {
  int workers = 1;
  std::vector<int> cpus;  // Ascending: where they are pinned. Empty: they float.
};

struct PlacementPlan {
  std::vector<ModelPlan> models;                // One for each configuration, in their order.
  std::optional<TransformPlacement> transform;  // Nullopt: none of these models needs any.
  std::vector<std::string> warnings;            // At most one for each model.
};

struct PlacementOptions {
  bool pin = false;           // Pin also where the CPUs are the whole machine's.
  int transform_workers = 0;  // 0: one for each of the budget's slots.
};

// Decides how many replicas each model gets, and where each of them runs. `placed` run already, and
// stay where they are.
//
// Invariants:
//  1. Without a count a model gets, on CPUs, as many replicas as fit into the budget with its
//     threads (one where none are configured); on GPUs one on each. kAuto is GPU where there is
//     one, else CPU. What measuring found best takes the place of both numbers on CPUs, where it
//     agrees with those that are configured; it is cut to the budget, a quota's fraction rounded
//     up.
//  2. Replicas on several GPUs are dealt in turn: two on each of four are [0,1,2,3,0,1,2,3].
//  3. Models share the budget by taking turns: how many there are makes no plan another one. Only a
//     model that by itself asks explicitly for more than the budget, with a count or with threads,
//     gets that (ModelPlan::explicit_slots), and a warning that says what it costs; and one that
//     measuring found to need a quota's fraction gets that, too, without one.
//  4. Of a model whose number of replicas may vary, as many run at the start as it has a count,
//  else
//     the least. Others may be added up to its most, on CPUs no more than fit into the budget with
//     its threads; of a model with a fixed number on CPUs, as many as fit. Replicas in several
//     groups can't be added to.
//  5. CPU replicas are pinned when the budget's CPUs are fewer than the machine's or
//     `options.pin` asks for it (see CoreAllotment for the order); under a mere quota they float,
//     because the kernel then moves the whole group about anyway. GPU replicas float.
//
// Errors of a model (in its plan): FAILED_PRECONDITION when it needs a GPU that isn't there, or is
// to compute in BF16 on a CPU that can't, INVALID_ARGUMENT for a count, a number of threads or a
// list of GPUs that makes no sense.
PlacementPlan PlanPlacement(const Hardware& hardware, absl::Span<const ModelPlacementConfig> models,
                            const PlacementOptions& options,
                            absl::Span<const ReplicaPlacement> placed = {});

// Where so many transform workers run beside the replicas that are `placed`: on the budget's CPUs
// to which none of those is pinned, if there are as many, else on all of them. They float where CPU
// replicas float.
std::vector<int> PlaceTransformWorkers(const Hardware& hardware, int workers,
                                       const PlacementOptions& options,
                                       absl::Span<const ReplicaPlacement> placed);

// Writes the plan as the table that the server prints at start: model, version, engine, replica,
// device, cores ("any" where it floats), threads, and whether these numbers come from the
// hardware, the config or measuring. Neighbouring replicas that are placed alike share
// a line; a model with an error has the replica "none". The transform workers have the last line.
std::string FormatPlan(const PlacementPlan& plan);

}  // namespace millrace
