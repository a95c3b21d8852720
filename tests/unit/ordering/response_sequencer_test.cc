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

// Notes the ids of what is sent; an error's code instead.
ResponseSequencer::Send SendTo(std::vector<std::string>& sent) {
  return [&sent](uint64_t /*place*/, Response&& response) {
    sent.push_back(response.status.ok() ? response.id
                                        : absl::StatusCodeToString(response.status.code()));
  };
}

class ResponseSequencerTest : public testing::Test {
 protected:
  std::vector<std::string> sent_;
  const std::shared_ptr<ResponseSequencer> sequencer_ =
      ResponseSequencer::Create({.send = SendTo(sent_)});
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
  sequencer = ResponseSequencer::Create({.send = [&](uint64_t, Response&& response) {
    EXPECT_EQ(++depth, 1) << "One response at a time.";
    sent.push_back(response.id);
    EXPECT_LE(sequencer->outstanding(), 3);
    if (sent.size() == 1) {
      waiting.push_back(sequencer->Reserve());
      for (size_t i = 0; i < waiting.size(); ++i) waiting[i].Respond(WithId(absl::StrCat(i + 2)));
    }
    --depth;
  }});
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
  sequencer = ResponseSequencer::Create({.send = [&](uint64_t, Response&& response) {
    sent.push_back(response.id);
    sequencer->Abandon();
  }});
  Responder first = sequencer->Reserve();
  Responder second = sequencer->Reserve();
  second.Respond(WithId("2"));
  first.Respond(WithId("1"));
  EXPECT_THAT(sent, ElementsAre("1"));
}

TEST(ResponseSequencer, RespondersOutliveTheStream) {
  Responder responder;
  {
    auto sequencer = ResponseSequencer::Create({.send = [](uint64_t, Response&&) {}});
    responder = sequencer->Reserve();
    sequencer->Abandon();
  }
  responder.Respond(WithId("nobody listens"));
}

TEST(ResponseSequencerDeathTest, PlaceIsAnsweredOnce) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  auto sequencer = ResponseSequencer::Create({.send = [](uint64_t, Response&&) {}});
  sequencer->Reserve().Respond(WithId("1"));
  EXPECT_DEATH(sequencer->Deliver(0, WithId("again")), "A place is answered once");
}

// ---- Answers in the order of their completion ----

class CompletionOrderTest : public testing::Test {
 protected:
  std::vector<std::string> sent_;
  const std::shared_ptr<ResponseSequencer> sequencer_ =
      ResponseSequencer::Create({.send = SendTo(sent_), .order = AnswerOrder::kCompletion});
};

TEST_F(CompletionOrderTest, AnswersLeaveAsTheyCome) {
  Responder first = sequencer_->Reserve();
  Responder second = sequencer_->Reserve();
  Responder third = sequencer_->Reserve();
  third.Respond(WithId("3"));
  EXPECT_THAT(sent_, ElementsAre("3"));
  first.Respond(WithId("1"));
  EXPECT_THAT(sent_, ElementsAre("3", "1"));
  EXPECT_EQ(sequencer_->outstanding(), 1);
  second.Respond(WithId("2"));
  EXPECT_THAT(sent_, ElementsAre("3", "1", "2"));
  EXPECT_EQ(sequencer_->outstanding(), 0);
}

TEST_F(CompletionOrderTest, DroppedResponderAnswersAtOnce) {  // Invariant 2
  Responder first = sequencer_->Reserve();
  { Responder dropped = sequencer_->Reserve(); }
  EXPECT_THAT(sent_, ElementsAre("INTERNAL"));
  first.Respond(WithId("1"));
  EXPECT_THAT(sent_, ElementsAre("INTERNAL", "1"));
}

TEST_F(CompletionOrderTest, AbandonedSequencerSendsNothingMore) {  // Invariant 4
  Responder first = sequencer_->Reserve();
  Responder second = sequencer_->Reserve();
  second.Respond(WithId("2"));
  sequencer_->Abandon();
  EXPECT_EQ(sequencer_->outstanding(), 0);
  first.Respond(WithId("1"));
  { Responder late = sequencer_->Reserve(); }
  EXPECT_THAT(sent_, ElementsAre("2"));
}

TEST(CompletionOrder, AnswersThatComeWhileOneIsSentWaitForIt) {  // Invariant 3
  std::vector<uint64_t> places;
  std::deque<Responder> waiting;
  int depth = 0;
  const auto sequencer =
      ResponseSequencer::Create({.send =
                                     [&](uint64_t place, Response&&) {
                                       EXPECT_EQ(++depth, 1) << "One response at a time.";
                                       places.push_back(place);
                                       while (!waiting.empty()) {
                                         Responder last = std::move(waiting.back());
                                         waiting.pop_back();
                                         last.Respond(Response());
                                       }
                                       --depth;
                                     },
                                 .order = AnswerOrder::kCompletion});
  Responder first = sequencer->Reserve();
  waiting.push_back(sequencer->Reserve());
  waiting.push_back(sequencer->Reserve());
  first.Respond(Response());
  EXPECT_THAT(places, ElementsAre(0, 2, 1));
  EXPECT_EQ(sequencer->outstanding(), 0);
}

TEST(CompletionOrderDeathTest, NoMoreAnswersThanPlaces) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto sequencer = ResponseSequencer::Create(
      {.send = [](uint64_t, Response&&) {}, .order = AnswerOrder::kCompletion});
  sequencer->Reserve().Respond(WithId("1"));
  EXPECT_DEATH(sequencer->Deliver(0, WithId("again")), "A place is answered once");
}

TEST(ResponseSequencer, AnswerIsDecidedWhenItIsThereThoughItWaitsForItsTurn) {
  std::vector<std::string> events;
  const auto sequencer = ResponseSequencer::Create(
      {.send = [&](uint64_t place, Response&&) { events.push_back(absl::StrCat("sent ", place)); },
       .decided =
           [&](uint64_t place, const Response& response) {
             events.push_back(absl::StrCat("decided ", place, ": ", response.id));
           }});
  Responder first = sequencer->Reserve();
  Responder second = sequencer->Reserve();
  second.Respond(WithId("b"));
  EXPECT_THAT(events, ElementsAre("decided 1: b"));
  first.Respond(WithId("a"));
  EXPECT_THAT(events, ElementsAre("decided 1: b", "decided 0: a", "sent 0", "sent 1"));
}

// ---- Random histories ----

// One reader, several replicas: random order, errors, dropped responders, sometimes an abandon.
class Race {
 public:
  Race(uint64_t seed, AnswerOrder order)
      : random_(seed), abandons_(seed % 3 == 0), order_(order), answered_(kRequests, false) {
    sequencer_ = ResponseSequencer::Create(
        {.send = [this](uint64_t place, Response&& response) { Check(place, response); },
         .order = order,
         .decided = [this](uint64_t, const Response&) { ++decided_; }});
  }

  void Run() {
    const int abandon_at = std::uniform_int_distribution<int>(0, kRequests)(random_);
    {
      std::deque<Thread> replicas;
      for (int i = 0; i < 3; ++i) {
        replicas.emplace_back("replica", [this, seed = random_()] { Answer(seed); });
      }
      for (int i = 0; i < kRequests; ++i) {
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
      EXPECT_EQ(sent_, kRequests);
    }
    EXPECT_LE(sent_, kRequests);
    EXPECT_EQ(decided_, kRequests);
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

  void Check(uint64_t number, const Response& response) {
    EXPECT_FALSE(sending_.exchange(true)) << "One response at a time.";
    const int place = static_cast<int>(number);
    if (order_ == AnswerOrder::kRequest) {
      EXPECT_EQ(place, sent_);
    }
    ++sent_;
    EXPECT_FALSE(answered_[number]) << "One answer for each place.";
    answered_[number] = true;
    EXPECT_LE(sent_, decided_) << "What is sent was decided.";
    if (place % 7 == 3) {
      EXPECT_EQ(response.status.code(), absl::StatusCode::kInternal);
    } else {
      EXPECT_EQ(response.id, absl::StrCat(place));
      EXPECT_EQ(response.status.ok(), place % 5 != 0);
    }
    sending_ = false;
  }

  static constexpr int kRequests = 400;

  std::mt19937_64 random_;
  const bool abandons_;
  const AnswerOrder order_;
  std::vector<bool> answered_;  // By place; as sent_.
  std::atomic<int> decided_ = 0;
  std::shared_ptr<ResponseSequencer> sequencer_;
  std::atomic<bool> sending_ = false;
  int sent_ = 0;  // By one thread at a time; the sequencer's lock orders them.
  Mutex mutex_;
  CondVar changed_;
  std::vector<std::pair<int, Responder>> reserved_ ABSL_GUARDED_BY(mutex_);
  bool done_ ABSL_GUARDED_BY(mutex_) = false;
};

void RunRaces(AnswerOrder order) {
  const uint64_t seed = TestSeed();
  for (uint64_t i = 0; i < 50; ++i) {
    SCOPED_TRACE(testing::Message() << "MILLRACE_SEED=" << seed + i);
    Race(seed + i, order).Run();
    ASSERT_FALSE(testing::Test::HasFailure());
  }
}

TEST(ResponseSequencerProperty, EveryPlaceIsAnsweredOnceAndInOrder) {
  RunRaces(AnswerOrder::kRequest);
}

TEST(ResponseSequencerProperty, EveryPlaceIsAnsweredOnceWhereOrderDoesntMatter) {
  RunRaces(AnswerOrder::kCompletion);
}

}  // namespace
}  // namespace millrace
