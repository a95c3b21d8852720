// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"
#include "server/dispatch/cost_model.h"
#include "server/inference/row_shape.h"

namespace millrace {

// What replicas run on, as far as it makes their batches slower or faster.
enum class ReplicaKind { kCpu, kGpu };
inline constexpr size_t kReplicaKinds = 2;

// What batches of one model cost, by the shape of their rows and the kind of replica.
// Thread-compatible.
class CostTable {
 public:
  // Takes a first guess, from a warm-up; ignored where batches have run already.
  void Expect(const RowShape& shape, ReplicaKind kind, int64_t rows, absl::Duration took);

  // Takes a batch that has run.
  void Observe(const RowShape& shape, ReplicaKind kind, int64_t rows, absl::Duration took,
               absl::Time now);

  // What is known of a shape on a kind of replica; null where nothing is.
  const CostModel* Find(const RowShape& shape, ReplicaKind kind) const;

  // How long a batch runs at least, on the kind of replica that is fastest; zero where unknown.
  absl::Duration Predict(const RowShape& shape, int64_t rows) const;

  // What one row costs in batches of `capacity` rows, in nanoseconds: its own time and its part of
  // the setup. Above 0 also where nothing is known.
  double RowCost(const RowShape& shape, int64_t capacity) const;

  // Whether predictions are recent enough to refuse a request for. Old ones may be wrong, and where
  // everything is refused nothing would set them right.
  bool IsFresh(const RowShape& shape, absl::Time now) const;

  struct Entry {
    std::shared_ptr<const RowShape> shape;
    std::array<CostModel, kReplicaKinds> models;
    absl::Time observed = absl::InfinitePast();
    uint64_t used = 0;
  };
  // The shapes, those that were observed last first.
  std::vector<Entry> Latest() const;
  // The one that was observed last; null where none was.
  const Entry* latest() const { return latest_; }

 private:
  const Entry* Find(const RowShape& shape) const;
  // The entry of a shape, which is made where there is none; another one makes room for it.
  Entry& EntryFor(const RowShape& shape);
  // Forgets the shape that was used longest ago, but not this one.
  void Forget(const Entry& but);

  absl::flat_hash_map<RowShape, std::unique_ptr<Entry>> entries_;
  mutable const Entry* found_ = nullptr;  // The last time.
  const Entry* latest_ = nullptr;
  uint64_t observations_ = 0;
};

}  // namespace millrace
