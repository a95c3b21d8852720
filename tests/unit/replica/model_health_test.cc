// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/replica/model_health.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace millrace {
namespace {

using testing::HasSubstr;

constexpr HealthLimits kLimits = {.unhealthy_after = absl::Seconds(2),
                                  .stalled_after = absl::Seconds(10)};

TEST(ModelHealth, ModelWithoutAReplicaIsUnhealthyAfterAWhile) {
  const auto health = [](absl::Duration unready_for) {
    return HealthOf({.replicas = absl::ResourceExhaustedError("the GPU is full"),
                     .unready_for = unready_for,
                     .oldest_age = absl::ZeroDuration(),
                     .silence = absl::Hours(1)},
                    kLimits);
  };
  EXPECT_TRUE(health(absl::Seconds(1.9)).ok());
  EXPECT_EQ(health(absl::Seconds(2)), absl::UnavailableError("the GPU is full"));
}

TEST(ModelHealth, NeitherLoadNorIdlenessIsAStall) {
  const ModelSigns busy = {.replicas = absl::OkStatus(),
                           .unready_for = absl::ZeroDuration(),
                           .oldest_age = absl::Hours(1),
                           .silence = absl::Milliseconds(5),
                           .replica_due = true};
  EXPECT_TRUE(HealthOf(busy, kLimits).ok()) << "batches are done, though the queue is old";
  ModelSigns sign = busy;
  sign.silence = absl::Hours(1);
  sign.replica_due = false;
  EXPECT_TRUE(HealthOf(sign, kLimits).ok()) << "the replicas are at it, or others have the cores";
  sign.replica_due = true;
  sign.oldest_age = absl::Seconds(10);
  EXPECT_TRUE(HealthOf(sign, kLimits).ok()) << "what waits hasn't waited for long";
  sign.oldest_age = absl::ZeroDuration();
  EXPECT_TRUE(HealthOf(sign, kLimits).ok()) << "nothing is to be done";
}

TEST(ModelHealth, NothingDoneThoughAReplicaWasDueIsAStall) {
  const absl::Status stalled = HealthOf({.replicas = absl::OkStatus(),
                                         .unready_for = absl::ZeroDuration(),
                                         .oldest_age = absl::Seconds(11),
                                         .silence = absl::Seconds(12),
                                         .replica_due = true},
                                        kLimits);
  EXPECT_EQ(stalled.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(stalled.message()), HasSubstr("waited for 11s"));
  EXPECT_THAT(std::string(stalled.message()), HasSubstr("no batch was done for 12s"));
}

}  // namespace
}  // namespace millrace
