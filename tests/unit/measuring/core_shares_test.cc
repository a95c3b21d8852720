// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/measuring/core_shares.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {
namespace {

using ::testing::ElementsAre;

std::vector<double> Linear(double each, int cores) {
  std::vector<double> curve;
  for (int n = 1; n <= cores; ++n) curve.push_back(each * n);
  return curve;
}

TEST(CoreShares, ModelsThatScaleAlikeGetEqualShares) {
  EXPECT_THAT(ShareCores({Linear(10, 8), Linear(1000, 8)}, 8), ElementsAre(4, 4));
}

TEST(CoreShares, ModelThatDoesNotScaleLeavesItsCoresToOthers) {
  EXPECT_THAT(ShareCores({{90, 100, 100, 100}, Linear(1, 4)}, 4), ElementsAre(1, 3));
}

TEST(CoreShares, EveryModelGetsOneCore) {
  EXPECT_THAT(ShareCores({Linear(1, 2), Linear(1, 2), Linear(1, 2)}, 2), ElementsAre(1, 1, 1));
}

TEST(CoreShares, NobodyGetsCoresThatMakeItNoFaster) {
  EXPECT_THAT(ShareCores({{5, 5, 5, 5}}, 4), ElementsAre(1));
}

}  // namespace
}  // namespace millrace
