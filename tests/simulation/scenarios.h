// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "tests/simulation/report.h"

namespace millrace {

// From what everything random follows, and how long every experiment is, relative to the usual.
struct Effort {
  uint64_t seed = 1;
  double scale = 1;
};

// Each runs one scenario, for all of its settings, and adds what it found to the report; goals
// stand beside the figures.

// When a batch goes: at once, after a fixed delay, or held for those who are about to return.
void ThirtyTwoStreams(const Effort& effort, Report& report);
void ThirtyTwoStreamsOfAQuickModel(const Effort& effort, Report& report);
void SixtyFourStreamsOnFourReplicas(const Effort& effort, Report& report);
void FastStreamsAmongSlowUsers(const Effort& effort, Report& report);
void FiveHundredUsers(const Effort& effort, Report& report);
void Bursts(const Effort& effort, Report& report);
void LoadCurve(const Effort& effort, Report& report);

// Who goes into it.
void EqualFlows(const Effort& effort, Report& report);
void EqualFlowsAtAFullQueue(const Effort& effort, Report& report);
void Weights(const Effort& effort, Report& report);
void LargeRequests(const Effort& effort, Report& report);
void ModestBesideGreedy(const Effort& effort, Report& report);
void UrgentBesideBacklog(const Effort& effort, Report& report);
void PriorityIsStrict(const Effort& effort, Report& report);
void StarvationGuard(const Effort& effort, Report& report);
void Shapes(const Effort& effort, Report& report);
void RareShapeBesideBacklog(const Effort& effort, Report& report);

// Too much, or too late.
void GoodputOfAShortQueue(const Effort& effort, Report& report);
void GoodputOfALongQueue(const Effort& effort, Report& report);
void AcceptedLatency(const Effort& effort, Report& report);
void Deadlines(const Effort& effort, Report& report);
void LatestFrames(const Effort& effort, Report& report);
void DroppedOldestFrames(const Effort& effort, Report& report);
void OldFrames(const Effort& effort, Report& report);

struct Scenario {
  std::string name;
  void (*run)(const Effort& effort, Report& report);
};

// All of the above, in this order.
const std::vector<Scenario>& Scenarios();

}  // namespace millrace
