// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>

#include "absl/container/flat_hash_map.h"
#include "absl/time/time.h"

namespace millrace {

// Flows of which a request made the model fail while it ran alone. For a while, or until one of
// theirs succeeds, their requests are run alone: each batch that such a request joins would be run
// again in halves. So that memory is bounded, the one that failed longest ago is forgotten.
// Thread-compatible.
class FailingFlows {
 public:
  static constexpr size_t kMost = 256;
  static constexpr absl::Duration kApart = absl::Seconds(10);

  bool empty() const { return order_.empty(); }
  size_t size() const { return order_.size(); }

  void Failed(uint64_t flow, absl::Time now);
  void Succeeded(uint64_t flow);
  // Whether a flow's requests are to be run alone now.
  bool Contains(uint64_t flow, absl::Time now) const;

 private:
  struct Failure {
    uint64_t flow;
    absl::Time when;
  };
  std::list<Failure> order_;  // The last failure is the first.
  absl::flat_hash_map<uint64_t, std::list<Failure>::iterator> places_;
};

}  // namespace millrace
