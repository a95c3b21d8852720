// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "absl/time/time.h"
#include "server/dispatch/batch.h"
#include "server/dispatch/cost_table.h"
#include "server/dispatch/utilisation_meter.h"

namespace millrace {

// Something that runs batches of one model, one at a time: a replica.
class BatchRunner {
 public:
  virtual ~BatchRunner() = default;

  // Starts a sealed batch; its end is told by Dispatcher::Finish() or Requeue(). Never blocks;
  // called on whichever thread made the batch ready, without the dispatcher's lock.
  virtual void Run(std::unique_ptr<Batch> batch) = 0;

  // The budgeted cores that a running batch occupies; 0 on a GPU.
  virtual int lease_cores() const = 0;

  ReplicaKind kind() const { return lease_cores() > 0 ? ReplicaKind::kCpu : ReplicaKind::kGpu; }
};

// The replicas of a model: which are idle, until when the others are busy. Thread-compatible: the
// dispatcher guards it.
class Runners {
 public:
  // A replica has nothing to do: it is new, or has run its batch. One that retires leaves.
  void AddIdle(BatchRunner* runner, absl::Time now);
  // An idle replica leaves; false where it isn't idle.
  bool RemoveIdle(BatchRunner* runner, absl::Time now);
  // An idle replica takes a batch that it will have run by `until`, as far as is known.
  void Start(BatchRunner* runner, absl::Time until, absl::Time now);
  // A replica is to get no more batches: true where it is idle, and has left; else it leaves with
  // the end of its batch.
  bool Retire(BatchRunner* runner, absl::Time now);
  // A busy replica has died.
  void RemoveBusy(const BatchRunner* runner, absl::Time now);

  // The idle replica to run the next batch: one that needs no lease before one that does, and the
  // one that was busy last, since its caches are warm. Null where there is none.
  BatchRunner* Next() const;

  int idle() const { return static_cast<int>(idle_.size()); }
  int all() const { return static_cast<int>(idle_.size() + busy_.size()); }
  int all(ReplicaKind kind) const;
  // How many of a kind may run at a time where CPU replicas share so many cores: one at least,
  // where there is one.
  int at_a_time(ReplicaKind kind, int cores) const;
  // How long it will probably take until one is idle, and until each of them is, in sum.
  absl::Duration UntilFirstIdle(absl::Time now) const;
  absl::Duration UntilAllIdle(absl::Time now) const;
  // Busy time over time, in the last seconds.
  double utilisation(absl::Time now) const { return utilisation_.ValueAt(now); }

 private:
  struct Busy {
    const BatchRunner* runner;
    absl::Time until;
    bool retires = false;
  };

  void Count(absl::Time now);

  std::vector<BatchRunner*> idle_;  // The one that was busy last is the last.
  std::vector<Busy> busy_;
  UtilisationMeter utilisation_;
};

}  // namespace millrace
