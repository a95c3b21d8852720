// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <limits>

#include "absl/time/time.h"
#include "server/dispatch/flow.h"
#include "tests/simulation/simulated_model.h"

namespace millrace {

// How something random is drawn. What is unset in a Load is the usual.
using DrawTime = std::function<absl::Duration(Random&)>;
using DrawCount = std::function<int64_t(Random&)>;

// Always `mean`, give or take `jitter` of it.
DrawTime About(absl::Duration mean, double jitter = 0);
// Exponential: the intervals of a Poisson process.
DrawTime Exponential(absl::Duration mean);
DrawTime Uniform(absl::Duration from, absl::Duration to);
// Always `count`.
DrawCount Always(int64_t count);
// 1 to `most`, with the tail of a Pareto distribution: heavier, the smaller `exponent` is.
DrawCount HeavyTail(int64_t most, double exponent = 1.2);
// 1 with probability `share`, else 0.
DrawCount Sometimes(double share);

// What some clients that are alike ask of a model. Each is a flow of its own.
struct Load {
  int clients = 1;
  int weight = 1;
  int level = 1;
  // Streams block; calls are refused.
  Overflow overflow = Overflow::kBlock;
  int64_t most_waiting = std::numeric_limits<int64_t>::max();  // As Flow::Options has it.
  absl::Duration max_age = absl::InfiniteDuration();

  // Open: a request comes after each `interval`, whatever becomes of the others. Closed, where
  // `interval` is unset: there are always `window` requests on the way, and after an answer the
  // next comes in `think`, the round trip included.
  DrawTime interval = nullptr;
  int window = 1;
  DrawTime think = nullptr;  // At once.

  // An open load that comes in bursts: on for `on`, then off for `off`.
  DrawTime on = nullptr;
  DrawTime off = nullptr;

  DrawCount rows = nullptr;    // One.
  DrawCount shape = nullptr;   // The first.
  DrawTime timeout = nullptr;  // None.
};

// `count` clients that together send `rate` requests per second, each as a Poisson process.
Load Poisson(int clients, double rate);

}  // namespace millrace
