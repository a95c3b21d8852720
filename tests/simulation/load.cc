// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/load.h"

#include <algorithm>
#include <cmath>

namespace millrace {
namespace {

double Fraction(Random& random) { return std::uniform_real_distribution<double>(0, 1)(random); }

}  // namespace

DrawTime About(absl::Duration mean, double jitter) {
  return [mean, jitter](Random& random) {
    return jitter == 0 ? mean : mean * (1 + jitter * (2 * Fraction(random) - 1));
  };
}

DrawTime Exponential(absl::Duration mean) {
  return [mean](Random& random) { return mean * std::exponential_distribution<double>(1)(random); };
}

DrawTime Uniform(absl::Duration from, absl::Duration to) {
  return [from, to](Random& random) { return from + (to - from) * Fraction(random); };
}

DrawCount Always(int64_t count) {
  return [count](Random& /*random*/) { return count; };
}

DrawCount HeavyTail(int64_t most, double exponent) {
  return [most, exponent](Random& random) {
    const double drawn = std::pow(1 - Fraction(random), -1 / exponent);
    return static_cast<int64_t>(std::min(drawn, static_cast<double>(most)));
  };
}

DrawCount Sometimes(double share) {
  return [share](Random& random) { return Fraction(random) < share ? 1 : 0; };
}

Load Poisson(int clients, double rate) {
  Load load;
  load.clients = clients;
  load.interval = Exponential(absl::Seconds(clients / rate));
  return load;
}

}  // namespace millrace
