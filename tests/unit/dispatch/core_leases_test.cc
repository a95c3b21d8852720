// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/core_leases.h"

#include <gtest/gtest.h>

#include <functional>
#include <memory>

namespace millrace {
namespace {

class Recorder final : public Claimant {
 public:
  void TryAgain() override {
    ++calls;
    if (when_called) when_called();
  }

  int calls = 0;
  std::function<void()> when_called;
};

class CoreLeasesTest : public testing::Test {
 protected:
  CoreLeases leases_{2};
  const std::shared_ptr<Recorder> a_ = std::make_shared<Recorder>();
  const std::shared_ptr<Recorder> b_ = std::make_shared<Recorder>();
  const std::shared_ptr<Recorder> c_ = std::make_shared<Recorder>();
};

TEST_F(CoreLeasesTest, LeasesNeverExceedTheSlots) {
  EXPECT_TRUE(leases_.TryAcquire(a_, 1));
  EXPECT_TRUE(leases_.TryAcquire(a_, 1));
  EXPECT_FALSE(leases_.TryAcquire(a_, 1));
  leases_.Release(1);
  EXPECT_EQ(a_->calls, 1);
  EXPECT_TRUE(leases_.TryAcquire(a_, 1));
  EXPECT_FALSE(leases_.TryAcquire(b_, 1));
}

TEST_F(CoreLeasesTest, NobodyOvertakesWhoWaits) {
  EXPECT_TRUE(leases_.TryAcquire(a_, 2));
  EXPECT_FALSE(leases_.TryAcquire(b_, 1));
  EXPECT_FALSE(leases_.TryAcquire(c_, 1));
  leases_.Release(2);
  EXPECT_FALSE(leases_.TryAcquire(a_, 1));  // Cores are free, but b is first and c second.
  EXPECT_FALSE(leases_.TryAcquire(c_, 1));
  EXPECT_EQ(b_->calls, 1);
  EXPECT_EQ(c_->calls, 0);
  EXPECT_TRUE(leases_.TryAcquire(b_, 1));
  leases_.WakeFirst();
  EXPECT_EQ(c_->calls, 1);
  EXPECT_TRUE(leases_.TryAcquire(c_, 1));
  leases_.Release(1);
  EXPECT_EQ(a_->calls, 1);
}

TEST_F(CoreLeasesTest, WideLeaseWaitsForEnoughCoresAndNarrowOnesWaitBehindIt) {
  EXPECT_TRUE(leases_.TryAcquire(a_, 1));
  EXPECT_TRUE(leases_.TryAcquire(a_, 1));
  EXPECT_FALSE(leases_.TryAcquire(b_, 2));
  EXPECT_FALSE(leases_.TryAcquire(c_, 1));
  leases_.Release(1);
  EXPECT_EQ(b_->calls + c_->calls, 0);
  leases_.Release(1);
  EXPECT_EQ(b_->calls, 1);
  EXPECT_TRUE(leases_.TryAcquire(b_, 2));
  EXPECT_FALSE(leases_.TryAcquire(c_, 1));
}

TEST_F(CoreLeasesTest, LeaseWiderThanAllSlotsTakesAllOfThemAlone) {
  EXPECT_TRUE(leases_.TryAcquire(a_, 1));
  EXPECT_FALSE(leases_.TryAcquire(b_, 8));
  leases_.Release(1);
  EXPECT_TRUE(leases_.TryAcquire(b_, 8));
  EXPECT_FALSE(leases_.TryAcquire(a_, 1));
  leases_.Release(8);
  EXPECT_EQ(a_->calls, 1);
  EXPECT_TRUE(leases_.TryAcquire(a_, 1));
  EXPECT_TRUE(leases_.TryAcquire(c_, 1));
}

TEST_F(CoreLeasesTest, MoreSlotsAreGivenAtOnceAndFewerOnceLeasesAreBack) {
  EXPECT_TRUE(leases_.TryAcquire(a_, 2));
  EXPECT_FALSE(leases_.TryAcquire(b_, 1));
  leases_.SetSlots(3);
  leases_.WakeFirst();
  EXPECT_EQ(b_->calls, 1);
  EXPECT_TRUE(leases_.TryAcquire(b_, 1));
  leases_.SetSlots(2);
  leases_.Release(1);
  EXPECT_FALSE(leases_.TryAcquire(c_, 1));
  leases_.Release(1);
  EXPECT_TRUE(leases_.TryAcquire(c_, 1));
}

TEST_F(CoreLeasesTest, LeasesThatAreOutCountInFullWhateverTheSlotsBecomeMeanwhile) {
  leases_.SetSlots(4);
  EXPECT_TRUE(leases_.TryAcquire(a_, 3));
  leases_.SetSlots(1);
  EXPECT_FALSE(leases_.TryAcquire(b_, 1)) << "Three run already.";
  leases_.SetSlots(4);
  leases_.WakeFirst();
  EXPECT_TRUE(leases_.TryAcquire(b_, 1));
  EXPECT_FALSE(leases_.TryAcquire(c_, 1));
  leases_.SetSlots(1);
  leases_.Release(3);
  EXPECT_FALSE(leases_.TryAcquire(c_, 1));
  leases_.Release(1);
  EXPECT_TRUE(leases_.TryAcquire(c_, 1));
  EXPECT_FALSE(leases_.TryAcquire(a_, 1)) << "Nothing has leaked.";
}

TEST_F(CoreLeasesTest, WhoWithdrawsLosesItsPlaceAndTheNextIsWoken) {
  EXPECT_TRUE(leases_.TryAcquire(a_, 2));
  EXPECT_FALSE(leases_.TryAcquire(b_, 2));
  EXPECT_FALSE(leases_.TryAcquire(c_, 1));
  leases_.Withdraw(*b_);
  leases_.Release(2);
  EXPECT_EQ(b_->calls, 0);
  EXPECT_EQ(c_->calls, 1);
  EXPECT_TRUE(leases_.TryAcquire(c_, 1));
}

TEST_F(CoreLeasesTest, FirstInLineMayWithdrawFromWithinItsTurn) {
  EXPECT_TRUE(leases_.TryAcquire(a_, 2));
  EXPECT_FALSE(leases_.TryAcquire(b_, 1));
  EXPECT_FALSE(leases_.TryAcquire(c_, 1));
  b_->when_called = [&] {
    leases_.Withdraw(*b_);
    leases_.WakeFirst();
  };
  leases_.Release(2);
  EXPECT_EQ(c_->calls, 1);
}

TEST_F(CoreLeasesTest, DeadClaimantHoldsNobodyUp) {
  EXPECT_TRUE(leases_.TryAcquire(a_, 2));
  {
    const auto dead = std::make_shared<Recorder>();
    EXPECT_FALSE(leases_.TryAcquire(dead, 1));
  }
  EXPECT_FALSE(leases_.TryAcquire(b_, 1));
  leases_.Release(2);
  EXPECT_EQ(b_->calls, 1);
  EXPECT_TRUE(leases_.TryAcquire(b_, 1));
}

TEST_F(CoreLeasesTest, DeadClaimantDoesNotKeepFreeCoresFromOthers) {
  EXPECT_TRUE(leases_.TryAcquire(a_, 2));
  {
    const auto dead = std::make_shared<Recorder>();
    EXPECT_FALSE(leases_.TryAcquire(dead, 1));
  }
  leases_.Release(2);
  EXPECT_TRUE(leases_.TryAcquire(b_, 1));
}

TEST_F(CoreLeasesTest, ClaimantAtTheAddressOfADeadOneHasItsOwnPlace) {
  Recorder memory;
  const auto unowned = [](Recorder*) {};
  EXPECT_TRUE(leases_.TryAcquire(a_, 2));
  {
    const std::shared_ptr<Recorder> dead(&memory, unowned);
    EXPECT_FALSE(leases_.TryAcquire(dead, 1));
  }
  const std::shared_ptr<Recorder> next(&memory, unowned);
  EXPECT_FALSE(leases_.TryAcquire(next, 1));
  leases_.Release(2);
  EXPECT_EQ(memory.calls, 1);
}

TEST_F(CoreLeasesTest, RefusedAgainForFewerCoresIsWokenForThose) {
  EXPECT_TRUE(leases_.TryAcquire(a_, 1));
  EXPECT_TRUE(leases_.TryAcquire(a_, 1));
  EXPECT_FALSE(leases_.TryAcquire(b_, 2));
  EXPECT_FALSE(leases_.TryAcquire(b_, 1));
  leases_.Release(1);
  EXPECT_EQ(b_->calls, 1);
}

}  // namespace
}  // namespace millrace
