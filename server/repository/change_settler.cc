// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/change_settler.h"

#include <algorithm>
#include <set>

namespace millrace {
namespace {

std::string StampOf(const ChangeSettler::Stamps& stamps, const std::string& name) {
  const auto stamp = stamps.find(name);
  return stamp == stamps.end() ? "" : stamp->second;
}

}  // namespace

std::vector<std::string> ChangeSettler::Look(const Stamps& stamps, absl::Time now) {
  std::set<std::string> names;
  for (const auto& [name, stamp] : stamps) names.insert(name);
  for (const auto& [name, stamp] : known_) names.insert(name);
  std::vector<std::string> settled;
  for (const std::string& name : names) {
    const std::string stamp = StampOf(stamps, name);
    if (stamp == StampOf(known_, name)) {
      going_on_.erase(name);
      continue;
    }
    const auto [place, is_new] = going_on_.try_emplace(name, Change{stamp, now});
    if (!is_new && place->second.stamp != stamp) place->second = {stamp, now};
    if (now - place->second.since < settle_time_) continue;
    going_on_.erase(place);
    settled.push_back(name);
    if (stamp.empty()) {
      known_.erase(name);
    } else {
      known_[name] = stamp;
    }
  }
  return settled;
}

absl::Time ChangeSettler::next_look() const {
  absl::Time next = absl::InfiniteFuture();
  for (const auto& [name, change] : going_on_) next = std::min(next, change.since + settle_time_);
  return next;
}

}  // namespace millrace
