// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "proto/model_config.pb.h"
#include "server/dispatch/batch_policy.h"
#include "server/dispatch/flow.h"
#include "server/dispatch/queue_policy.h"
#include "server/inference/engine_kind.h"
#include "server/inference/execution_mode.h"
#include "server/inference/model_signature.h"
#include "server/placement/placement.h"
#include "server/replica/replica_pool.h"

namespace millrace {

// Which versions of a model are served.
struct VersionPolicy {
  enum class Kind { kLatest, kAll, kSpecific };

  Kind kind = Kind::kLatest;
  int64_t latest = 1;             // kLatest: how many of the highest.
  std::vector<int64_t> specific;  // kSpecific: these, ascending.
};

// A request that the configuration wants to be run before the model serves.
struct DeclaredWarmup {
  struct Input {
    Shape dims;           // Without the batch dimension; no -1.
    bool random = false;  // Else zeros, or what the file holds.
    std::string file;     // In the folder `warmup` of the model's; empty: none.
  };

  std::string name;
  int64_t rows = 1;
  std::optional<int> count;   // How often; nullopt leaves it to the engine.
  std::vector<Input> inputs;  // In the order of the model's inputs.
};

// From when on the server is ready only while a model can be served.
enum class Readiness { kOnceLoaded, kRequired, kOptional };

// How a model is to compute on CPUs, as far as its configuration says; see ExecutionMode.
struct ExecutionWishes {
  std::optional<bool> bfloat16;
  std::optional<bool> channels_last;
  std::optional<ThreadWait> wait;
};

// A model's configuration in plain values, checked. Thread-compatible.
struct ModelSettings {
  std::string name;
  std::optional<EngineKind> engine;     // Nullopt: the file that a version holds decides.
  std::optional<std::string> filename;  // Of the model in a version's folder; nullopt: by engine.
  int64_t max_batch_size = 0;
  std::vector<TensorSpec> inputs;
  std::vector<TensorSpec> outputs;
  VersionPolicy version_policy;
  std::vector<InstanceGroup> instance_groups;
  std::vector<int64_t> preferred_batch_sizes;  // Ascending, each at most max_batch_size.
  absl::Duration max_queue_delay = absl::ZeroDuration();
  std::vector<QueuePolicy> queue_policies = {QueuePolicy()};  // Of the levels, 1 first.
  int default_level = 1;
  // A request of a lower level that has waited so long goes first.
  absl::Duration starvation_guard = absl::InfiniteDuration();
  std::optional<Hold> hold;  // Nullopt: the server decides.
  Overflow overflow = Overflow::kBlock;
  absl::Duration shed_target = absl::InfiniteDuration();  // InfiniteDuration(): nothing is shed.
  absl::Duration shed_interval = absl::Milliseconds(100);
  int64_t max_queue_bytes = 0;                                // 0: automatic.
  absl::Duration execution_limit = absl::InfiniteDuration();  // InfiniteDuration(): automatic.
  uint64_t memory_limit_bytes = 0;                            // Of each process; 0: automatic.
  BatchCheck batch_check = BatchCheck::kSingleRows;
  // Where a newer load doesn't fit into the memory beside the one that serves, that one ends first.
  bool swaps_in_place_if_needed = false;
  std::optional<ReplicaRange> replica_range;  // Nullopt: their number is fixed.
  Readiness readiness = Readiness::kOnceLoaded;
  std::vector<DeclaredWarmup> warmup;
  std::optional<int> intra_op_threads;
  std::optional<int> inter_op_threads;
  ExecutionWishes execution;
  bool disable_optimized_execution = false;
  bool inference_mode = true;
  bool flush_denormals = false;
  bool deterministic = false;

  // The configuration as written, with defaults filled in but for what depends on a version.
  inference::ModelConfig config;

  // The level of a request that asks for `priority`: the default one for 0, and for a number above
  // the levels, as with Triton.
  int LevelOf(uint64_t priority) const;

  // Whether what clients send is prepared by the transform stage.
  bool has_transform() const;

  // What a version of the model takes and returns.
  ModelSignature SignatureOf(int64_t version) const;

  // The whole configuration of a version that runs on `version_engine`, as the ModelConfig RPC
  // answers it.
  inference::ModelConfig ConfigOf(EngineKind version_engine) const;
};

// The name of a version's file where the configuration gives none: "model.pt" or "model.pt2".
const char* DefaultFilename(EngineKind engine);

// The name of the platform in a configuration: "pytorch_libtorch" or "torch_aoti".
const char* PlatformName(EngineKind engine);

}  // namespace millrace
