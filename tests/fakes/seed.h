// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>

namespace millrace {

// The seed of a randomised test: MILLRACE_SEED from the environment where it is set, else a random
// one. Printed, so that a failure can be repeated.
inline uint64_t TestSeed() {
  const char* const given = std::getenv("MILLRACE_SEED");
  const uint64_t seed =
      given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device()();
  std::printf("MILLRACE_SEED=%llu repeats this run.\n", static_cast<unsigned long long>(seed));
  return seed;
}

}  // namespace millrace
