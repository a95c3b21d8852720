// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/ordering/response_sequencer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/base/thread.h"
#include "tests/fakes/seed.h"

namespace millrace {
namespace {

using testing::ElementsAre;

Response WithId(std::string id) {
  Response response;
  response.id = std::move(id);
  return response;
}

// The ids of what was sent; an error's code where there is no id.
class ResponseSequencerTest : public testing::Test {
 protected:
  std::vector<std::string> sent_;
  const std::shared_ptr<ResponseSequencer> sequencer_ =
      ResponseSequencer::Create([this](Response response) {
        sent_.push_back(response.status.ok() ? response.id
                                             : absl::StatusCodeToString(response.status.code()));
      });
};

TEST_F(ResponseSequencerTest, PlaceIsTakenOnArrivalWhateverCompletesFirst) {  // Invariant 1
  Responder first = sequencer_->Reserve();
  Responder second = sequencer_->Reserve();
  Responder third = sequencer_->Reserve();
  EXPECT_EQ(sequencer_->outstanding(), 3);
  third.Respond(WithId("3"));
  second.Respond(WithId("2"));
  EXPECT_THAT(sent_, ElementsAre());
  EXPECT_EQ(sequencer_->outstanding(), 3);
  first.Respond(WithId("1"));
  EXPECT_THAT(sent_, ElementsAre("1", "2", "3"));
  EXPECT_EQ(sequencer_->outstanding(), 0);
}

TEST_F(ResponseSequencerTest, ErrorIsAnAnswerInItsPlace) {
  Responder first = sequencer_->Reserve();
  Responder second = sequencer_->Reserve();
  second.Respond(WithId("2"));
  first.Respond(Response::Error(absl::NotFoundError("no such model")));
  EXPECT_THAT(sent_, ElementsAre("NOT_FOUND", "2"));
}

TEST_F(ResponseSequencerTest, DroppedResponderAnswersInItsPlace) {  // Invariant 2
  Responder first = sequencer_->Reserve();
  {
    Responder dropped = sequencer_->Reserve();
    Responder third = sequencer_->Reserve();
    third.Respond(WithId("3"));
  }
  EXPECT_THAT(sent_, ElementsAre());
  first.Respond(WithId("1"));
  EXPECT_THAT(sent_, ElementsAre("1", "INTERNAL", "3"));
}

TEST_F(ResponseSequencerTest, ReassignedResponderAnswersForWhatItHeld) {
  Responder responder = sequencer_->Reserve();
  responder = sequencer_->Reserve();
  EXPECT_THAT(sent_, ElementsAre("INTERNAL"));
  responder.Respond(WithId("2"));
  EXPECT_FALSE(responder.owed());
  EXPECT_THAT(sent_, ElementsAre("INTERNAL", "2"));
}

TEST_F(ResponseSequencerTest, MovedResponderAnswersOnce) {
  Responder first = sequencer_->Reserve();
  {
    Responder second(std::move(first));
    second.Respond(WithId("1"));
  }
  EXPECT_THAT(sent_, ElementsAre("1"));
}

TEST(ResponseSequencer, SendMayAnswerAndReserveItself) {  // Invariant 3: never under the lock.
  std::shared_ptr<ResponseSequencer> sequencer;
  std::deque<Responder> waiting;
  std::vector<std::string> sent;
  int depth = 0;
  sequencer = ResponseSequencer::Create([&](Response response) {
    EXPECT_EQ(++depth, 1) << "One response at a time.";
    sent.push_back(response.id);
    EXPECT_LE(sequencer->outstanding(), 3);
    if (sent.size() == 1) {
      waiting.push_back(sequencer->Reserve());
      for (size_t i = 0; i < waiting.size(); ++i) waiting[i].Respond(WithId(absl::StrCat(i + 2)));
    }
    --depth;
  });
  Responder first = sequencer->Reserve();
  waiting.push_back(sequencer->Reserve());
  first.Respond(WithId("1"));
  EXPECT_THAT(sent, ElementsAre("1", "2", "3"));
}

TEST_F(ResponseSequencerTest, AbandonedSequencerSendsNothingMore) {  // Invariant 4
  Responder first = sequencer_->Reserve();
  Responder second = sequencer_->Reserve();
  second.Respond(WithId("2"));
  sequencer_->Abandon();
  EXPECT_EQ(sequencer_->outstanding(), 0);
  first.Respond(WithId("1"));
  EXPECT_THAT(sent_, ElementsAre());
}

TEST_F(ResponseSequencerTest, AbandonedSequencerKeepsNoPlaces) {
  sequencer_->Abandon();
  Responder late = sequencer_->Reserve();
  EXPECT_EQ(sequencer_->outstanding(), 0);
  late.Respond(WithId("late"));
  { Responder dropped = sequencer_->Reserve(); }
  EXPECT_EQ(sequencer_->outstanding(), 0);
  EXPECT_THAT(sent_, ElementsAre());
}

TEST(ResponseSequencer, AbandonFromWithinSendEndsTheRun) {
  std::shared_ptr<ResponseSequencer> sequencer;
  std::vector<std::string> sent;
  sequencer = ResponseSequencer::Create([&](Response response) {
    sent.push_back(response.id);
    sequencer->Abandon();
  });
  Responder first = sequencer->Reserve();
  Responder second = sequencer->Reserve();
  second.Respond(WithId("2"));
  first.Respond(WithId("1"));
  EXPECT_THAT(sent, ElementsAre("1"));
}

TEST(ResponseSequencer, RespondersOutliveTheStream) {
  Responder responder;
  {
    auto sequencer = ResponseSequencer::Create([](Response) {});
    responder = sequencer->Reserve();
    sequencer->Abandon();
  }
  responder.Respond(WithId("nobody listens"));
}

TEST(ResponseSequencerDeathTest, PlaceIsAnsweredOnce) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  auto sequencer = ResponseSequencer::Create([](Response) {});
  sequencer->Reserve().Respond(WithId("1"));
  EXPECT_DEATH(sequencer->Deliver(0, WithId("again")), "A place is answered once");
}

// One reader, several replicas: random order, errors, dropped responders, sometimes an abandon.
class Race {
 public:
  explicit Race(uint64_t seed) : random_(seed), abandons_(seed % 3 == 0) {
    sequencer_ = ResponseSequencer::Create([this](Response response) { Check(response); });
  }

  void Run() {
    const int requests = 400;
    const int abandon_at = std::uniform_int_distribution<int>(0, requests)(random_);
    {
      std::deque<Thread> replicas;
      for (int i = 0; i < 3; ++i) {
        replicas.emplace_back("replica", [this, seed = random_()] { Answer(seed); });
      }
      for (int i = 0; i < requests; ++i) {
        if (abandons_ && i == abandon_at) sequencer_->Abandon();
        MutexLock lock(mutex_);
        reserved_.emplace_back(i, sequencer_->Reserve());
        changed_.NotifyOne();
      }
      MutexLock lock(mutex_);
      done_ = true;
      changed_.NotifyAll();
    }
    EXPECT_EQ(sequencer_->outstanding(), 0);
    if (!abandons_) {
      EXPECT_EQ(sent_, requests);
    }
    EXPECT_LE(sent_, requests);
  }

 private:
  void Answer(uint64_t seed) {
    std::mt19937_64 random(seed);
    for (;;) {
      std::optional<std::pair<int, Responder>> mine;
      {
        MutexLock lock(mutex_);
        while (reserved_.empty() && !done_) changed_.Wait(mutex_);
        if (reserved_.empty()) return;
        std::swap(reserved_[random() % reserved_.size()], reserved_.back());
        mine = std::move(reserved_.back());
        reserved_.pop_back();
      }
      auto& [place, responder] = *mine;
      if (place % 7 == 3) continue;  // Dropped.
      Response response = place % 5 == 0 ? Response::Error(absl::NotFoundError("")) : Response();
      response.id = absl::StrCat(place);
      responder.Respond(std::move(response));
    }
  }

  void Check(const Response& response) {
    EXPECT_FALSE(sending_.exchange(true)) << "One response at a time.";
    const int place = sent_++;
    if (place % 7 == 3) {
      EXPECT_EQ(response.status.code(), absl::StatusCode::kInternal);
    } else {
      EXPECT_EQ(response.id, absl::StrCat(place));
      EXPECT_EQ(response.status.ok(), place % 5 != 0);
    }
    sending_ = false;
  }

  std::mt19937_64 random_;
  const bool abandons_;
  std::shared_ptr<ResponseSequencer> sequencer_;
  std::atomic<bool> sending_ = false;
  int sent_ = 0;  // By one thread at a time; the sequencer's lock orders them.
  Mutex mutex_;
  CondVar changed_;
  std::vector<std::pair<int, Responder>> reserved_ ABSL_GUARDED_BY(mutex_);
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
};

TEST(ResponseSequencerProperty, EveryPlaceIsAnsweredOnceAndInOrder) {
  const uint64_t seed = TestSeed();
  for (uint64_t i = 0; i < 50; ++i) {
    SCOPED_TRACE(testing::Message() << "MILLRACE_SEED=" << seed + i);
    Race(seed + i).Run();
    ASSERT_FALSE(testing::Test::HasFailure());
  }
}

}  // namespace
}  // namespace millrace
