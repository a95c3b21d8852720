// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <list>

#include "absl/container/flat_hash_map.h"

namespace millrace {

// Payloads that a replica died or hung of, by their fingerprints: a request that brings one again
// is run alone, and is given up after one attempt. So that memory is bounded, the one that was not
// seen for longest is forgotten. Thread-compatible.
class SuspectPayloads {
 public:
  static constexpr size_t kMost = 256;

  bool empty() const { return order_.empty(); }
  size_t size() const { return order_.size(); }

  void Add(uint64_t fingerprint);
  // Whether a payload is among them; it counts as seen.
  bool Contains(uint64_t fingerprint);
  void Remove(uint64_t fingerprint);

 private:
  std::list<uint64_t> order_;  // The one that was seen last is the first.
  absl::flat_hash_map<uint64_t, std::list<uint64_t>::iterator> places_;
};

}  // namespace millrace
