// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/measuring/core_shares.h"

#include <cstddef>
#include <limits>

namespace millrace {

std::vector<int> ShareCores(absl::Span<const std::vector<double>> curves, int cores) {
  std::vector<int> shares(curves.size(), 1);
  for (int left = cores - static_cast<int>(curves.size()); left > 0; --left) {
    size_t poorest = 0;
    double least = std::numeric_limits<double>::infinity();
    for (size_t i = 0; i < curves.size(); ++i) {
      const double part = curves[i][static_cast<size_t>(shares[i] - 1)] / curves[i].back();
      if (part < least) {
        least = part;
        poorest = i;
      }
    }
    if (least >= 1) break;  // More cores would make nobody faster.
    ++shares[poorest];
  }
  return shares;
}

}  // namespace millrace
