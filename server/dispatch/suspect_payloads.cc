// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/suspect_payloads.h"

namespace millrace {

void SuspectPayloads::Add(uint64_t fingerprint) {
  if (Contains(fingerprint)) return;
  order_.push_front(fingerprint);
  places_[fingerprint] = order_.begin();
  if (order_.size() > kMost) Remove(order_.back());
}

bool SuspectPayloads::Contains(uint64_t fingerprint) {
  const auto found = places_.find(fingerprint);
  if (found == places_.end()) return false;
  order_.splice(order_.begin(), order_, found->second);
  return true;
}

void SuspectPayloads::Remove(uint64_t fingerprint) {
  const auto found = places_.find(fingerprint);
  if (found == places_.end()) return;
  order_.erase(found->second);
  places_.erase(found);
}

}  // namespace millrace
