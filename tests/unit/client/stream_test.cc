// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/stream.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/client.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/client/fake_server.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::Ge;
using ::testing::HasSubstr;
using ::testing::Le;
using ::testing::Pair;

const grpc::Status kShuttingDown(grpc::StatusCode::UNAVAILABLE, "shutting down");

std::unique_ptr<Client> ConnectTo(const FakeServer& server) {
  auto client = Client::Connect(server.address());
  EXPECT_TRUE(client.ok()) << client.status();
  return *std::move(client);
}

Request Numbered(int number, const std::string& model = "echo") {
  return {.model = model,
          .id = std::to_string(number),
          .inputs = {Tensor::Of<int32_t>("INPUT__0", {1}, {number})}};
}

int NumberIn(const Answer& answer) {
  return (*answer.response->Output("OUTPUT__0"))->Values<int32_t>()->at(0);
}

// Takes the answers of a stream and counts those that are not the expected next one.
class Receiver {
 public:
  void Take(Answer answer) {
    std::lock_guard lock(mutex_);
    const int expected = static_cast<int>(answers_.size());
    if (answer.index != expected || answer.id != std::to_string(expected) ||
        (answer.response.ok() && NumberIn(answer) != expected)) {
      ++misplaced_;
    }
    answers_.push_back(std::move(answer));
  }

  std::function<void(Answer)> callback() {
    return [this](Answer answer) { Take(std::move(answer)); };
  }
  size_t count() const {
    std::lock_guard lock(mutex_);
    return answers_.size();
  }
  int misplaced() const {
    std::lock_guard lock(mutex_);
    return misplaced_;
  }
  // The number of answers with this code.
  int CountOf(absl::StatusCode code) const {
    std::lock_guard lock(mutex_);
    int count = 0;
    for (const Answer& answer : answers_) count += answer.response.status().code() == code ? 1 : 0;
    return count;
  }

 private:
  mutable std::mutex mutex_;
  std::vector<Answer> answers_;
  int misplaced_ = 0;
};

TEST(Stream, CallbackGetsEveryAnswerInOrder) {
  FakeServer server;
  Receiver receiver;
  const auto stream = ConnectTo(server)->OpenStream({.on_answer = receiver.callback()});
  for (int i = 0; i < 1000; ++i) ASSERT_TRUE(stream->Send(Numbered(i)).ok());
  EXPECT_EQ(stream->Close(), absl::OkStatus());
  EXPECT_EQ(receiver.count(), 1000u);
  EXPECT_EQ(receiver.misplaced(), 0);
  EXPECT_EQ(server.streams(), 1);
}

TEST(Stream, NextYieldsEveryAnswerThenNothing) {
  FakeServer server;
  const auto stream = ConnectTo(server)->OpenStream();
  std::thread sender([&] {
    for (int i = 0; i < 100; ++i) EXPECT_TRUE(stream->Send(Numbered(i)).ok());
    EXPECT_EQ(stream->Close(), absl::OkStatus());
  });
  int expected = 0;
  while (const auto answer = stream->Next()) {
    EXPECT_EQ(answer->index, expected);
    EXPECT_EQ(NumberIn(*answer), expected++);
  }
  EXPECT_EQ(expected, 100);
  sender.join();
}

TEST(Stream, OneThreadMaySendAWindowAheadAndTakeTheAnswersAfterClose) {
  FakeServer server;
  const auto stream = ConnectTo(server)->OpenStream({.window = 8});
  for (int i = 0; i < 8; ++i) ASSERT_TRUE(stream->Send(Numbered(i)).ok());
  EXPECT_EQ(stream->Close(), absl::OkStatus());
  int taken = 0;
  while (stream->Next()) ++taken;
  EXPECT_EQ(taken, 8);
}

TEST(Stream, ErrorBringsItsParametersAlong) {
  FakeServer server;
  const auto stream = ConnectTo(server)->OpenStream();
  for (const char* model : {"fail", "echo"}) {
    Request request = Numbered(0, model);
    request.parameters["millrace_echo_frame"] = int64_t{17};
    ASSERT_TRUE(stream->Send(std::move(request)).ok());
    const auto answer = stream->Next();
    ASSERT_TRUE(answer.has_value());
    const Parameters& parameters =
        answer->response.ok() ? answer->response->parameters : answer->error_parameters;
    EXPECT_EQ(answer->response.ok(), model == std::string("echo"));
    ASSERT_EQ(parameters.count("millrace_echo_frame"), 1u);
    EXPECT_EQ(parameters.at("millrace_echo_frame"), Parameter(int64_t{17}));
  }
  EXPECT_EQ(stream->Close(), absl::OkStatus());
}

TEST(Stream, SendBlocksWhileTheWindowIsFull) {
  FakeServer server;
  Receiver receiver;
  const auto stream =
      ConnectTo(server)->OpenStream({.window = 3, .on_answer = receiver.callback()});
  std::atomic<int> sent = 0;
  std::thread sender([&] {
    for (int i = 0; i < 10; ++i, ++sent) EXPECT_TRUE(stream->Send(Numbered(i, "hold")).ok());
  });
  server.WaitForRequests(1);  // it answers the first one before it reads another
  EXPECT_THAT(sent.load(), Le(3));
  server.Release();
  sender.join();
  EXPECT_EQ(stream->Close(), absl::OkStatus());
  EXPECT_EQ(receiver.count(), 10u);
  EXPECT_EQ(receiver.misplaced(), 0);
}

TEST(Stream, AnswersNotTakenFillTheWindow) {
  FakeServer server;
  const auto stream = ConnectTo(server)->OpenStream({.window = 2});
  ASSERT_TRUE(stream->Send(Numbered(0)).ok());
  ASSERT_TRUE(stream->Send(Numbered(1)).ok());
  server.WaitForRequests(2);
  std::atomic<bool> sent = false;
  std::thread sender([&] {
    EXPECT_TRUE(stream->Send(Numbered(2)).ok());
    sent = true;
  });
  EXPECT_FALSE(sent);  // can't be true before an answer is taken
  EXPECT_TRUE(stream->Next().has_value());
  sender.join();
  EXPECT_TRUE(sent);
}

TEST(Stream, WindowAndMetadataAreToldToTheServer) {
  FakeServer server;
  const auto client = ConnectTo(server);
  auto stream = client->OpenStream({.window = 7, .metadata = {{"millrace-max-age", "1000"}}});
  EXPECT_EQ(stream->Close(), absl::OkStatus());
  EXPECT_THAT(server.last_metadata(), testing::IsSupersetOf({Pair("millrace-window", "7"),
                                                             Pair("millrace-max-age", "1000")}));
  stream = client->OpenStream();
  EXPECT_EQ(stream->Close(), absl::OkStatus());
  EXPECT_EQ(server.last_metadata().count("millrace-window"), 0u);
}

TEST(Stream, TermsAreToldToTheServer) {
  FakeServer server;
  auto stream = ConnectTo(server)->OpenStream({.overflow = StreamOptions::Overflow::kDropOldest,
                                               .order = StreamOptions::Order::kCompletion,
                                               .weight = 9,
                                               .max_age = absl::Milliseconds(250)});
  EXPECT_EQ(stream->Close(), absl::OkStatus());
  EXPECT_THAT(server.last_metadata(),
              testing::IsSupersetOf(
                  {Pair("millrace-overflow", "drop-oldest"), Pair("millrace-order", "completion"),
                   Pair("millrace-weight", "9"), Pair("millrace-max-age", "250000")}));
  stream = ConnectTo(server)->OpenStream();
  EXPECT_EQ(stream->Close(), absl::OkStatus());
  for (const auto& [key, value] : server.last_metadata()) {
    if (key == "millrace-drain-notice") continue;  // Not a setting of the application's.
    EXPECT_THAT(key, testing::Not(testing::StartsWith("millrace-"))) << value;
  }
}

TEST(Stream, AnswersInCompletionOrderSayWhoseTheyAre) {
  FakeServer server;
  server.ReverseNext(5);
  const auto stream = ConnectTo(server)->OpenStream({.order = StreamOptions::Order::kCompletion});
  for (int i = 0; i < 7; ++i) {
    Request request = Numbered(i);
    request.id = i < 3 ? "same" : "";  // Ids need not differ.
    ASSERT_TRUE(stream->Send(std::move(request)).ok());
  }
  EXPECT_EQ(stream->Close(), absl::OkStatus());
  std::vector<int64_t> order;
  while (const auto answer = stream->Next()) {
    order.push_back(answer->index);
    ASSERT_TRUE(answer->response.ok()) << answer->response.status();
    EXPECT_EQ(NumberIn(*answer), answer->index);
    EXPECT_EQ(answer->id, answer->index < 3 ? "same" : "");
    EXPECT_EQ(answer->response->id, answer->id);
  }
  EXPECT_THAT(order, testing::ElementsAre(4, 3, 2, 1, 0, 5, 6));
}

TEST(Stream, RequestsUnderWayInCompletionOrderAreEachAnsweredWhenTheServerDies) {
  FakeServer server;
  server.ReverseNext(3);
  server.EndNextStreams({{3, {grpc::StatusCode::UNAVAILABLE, "died"}, false}});
  const auto stream = ConnectTo(server)->OpenStream({.order = StreamOptions::Order::kCompletion});
  int accepted = 0;
  while (accepted < 5 && stream->Send(Numbered(accepted)).ok()) ++accepted;
  EXPECT_EQ(stream->Close().message(), "died");
  std::vector<int64_t> answered, unanswered;
  while (const auto answer = stream->Next()) {
    (answer->response.ok() ? answered : unanswered).push_back(answer->index);
    EXPECT_EQ(answer->id, std::to_string(answer->index));
  }
  EXPECT_THAT(answered, testing::ElementsAre(2, 1, 0));
  EXPECT_EQ(unanswered.size(), static_cast<size_t>(accepted) - 3);
  for (size_t i = 0; i < unanswered.size(); ++i) EXPECT_EQ(unanswered[i], 3 + i);
}

TEST(Stream, AnswerToWhatIsNotUnderWayEndsAStreamInCompletionOrder) {
  FakeServer server;
  server.EndNextStreams({{1, grpc::Status::OK, false, /*wrong_id=*/true}});
  const auto stream = ConnectTo(server)->OpenStream({.order = StreamOptions::Order::kCompletion});
  for (int i = 0; i < 3; ++i) stream->Send(Numbered(i)).IgnoreError();
  EXPECT_THAT(stream->Close().message(), HasSubstr("'wrong' of this stream, which is not under"));
}

TEST(Stream, ErrorOfOneRequestComesAtItsPlaceAndTheStreamGoesOn) {
  FakeServer server;
  Receiver receiver;
  const auto stream = ConnectTo(server)->OpenStream({.on_answer = receiver.callback()});
  for (int i = 0; i < 30; ++i) {
    ASSERT_TRUE(stream->Send(Numbered(i, i % 3 == 1 ? "fail" : "echo")).ok());
  }
  EXPECT_EQ(stream->Close(), absl::OkStatus());
  EXPECT_EQ(receiver.misplaced(), 0);
  EXPECT_EQ(receiver.CountOf(absl::StatusCode::kInvalidArgument), 10);
  EXPECT_EQ(receiver.CountOf(absl::StatusCode::kOk), 20);
}

TEST(Stream, DrainedStreamGoesOnElsewhereWithoutLossOrRepetition) {
  FakeServer server;
  server.EndNextStreams(
      {{5, kShuttingDown, true}, {0, kShuttingDown, true}, {17, kShuttingDown, true}});
  Receiver receiver;
  const auto stream = ConnectTo(server)->OpenStream({.on_answer = receiver.callback()});
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(stream->Send(Numbered(i)).ok());
  EXPECT_EQ(stream->Close(), absl::OkStatus());
  EXPECT_EQ(receiver.count(), 200u);
  EXPECT_EQ(receiver.misplaced(), 0);
  EXPECT_EQ(receiver.CountOf(absl::StatusCode::kOk), 200);
  EXPECT_EQ(server.streams(), 4);
}

TEST(Stream, StreamThatIsToldOfADrainHalfClosesAndGoesOnElsewhere) {
  FakeServer server;
  const auto told_after = [](int answers, grpc::Status status) {
    return FakeServer::StreamEnd{
        .answers = answers, .status = std::move(status), .drained = true, .notice = true};
  };
  server.EndNextStreams({told_after(5, grpc::Status::OK), told_after(0, grpc::Status::OK),
                         told_after(17, kShuttingDown)});
  Receiver receiver;
  const auto stream = ConnectTo(server)->OpenStream({.on_answer = receiver.callback()});
  for (int i = 0; i < 200; ++i) ASSERT_TRUE(stream->Send(Numbered(i)).ok());
  EXPECT_EQ(stream->Close(), absl::OkStatus());
  EXPECT_EQ(receiver.count(), 200u);
  EXPECT_EQ(receiver.misplaced(), 0);
  EXPECT_EQ(receiver.CountOf(absl::StatusCode::kOk), 200);
  EXPECT_EQ(server.streams(), 4);
  // What was sent before the notice came was answered there: nothing was sent twice.
  EXPECT_EQ(server.requests_read(), 200);
}

TEST(Stream, IdleStreamThatIsToldOfADrainGoesOnElsewhere) {
  FakeServer server;
  server.EndNextStreams(
      {{.answers = 1, .status = grpc::Status::OK, .drained = true, .notice = true}});
  const auto stream = ConnectTo(server)->OpenStream();
  ASSERT_TRUE(stream->Send(Numbered(0)).ok());
  EXPECT_TRUE(stream->Next()->response.ok());
  server.WaitForStreams(2);
  ASSERT_TRUE(stream->Send(Numbered(1)).ok());
  EXPECT_TRUE(stream->Next()->response.ok());
  EXPECT_EQ(stream->Close(), absl::OkStatus());
  EXPECT_EQ(server.requests_read(), 2);
}

TEST(Stream, NoticeWhenAllIsAnsweredIsAGoodEnd) {
  FakeServer server;
  server.EndNextStreams(
      {{.answers = 3, .status = grpc::Status::OK, .drained = true, .notice = true}});
  const auto stream = ConnectTo(server)->OpenStream();
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(stream->Send(Numbered(i)).ok());
  EXPECT_EQ(stream->Close(), absl::OkStatus());
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(stream->Next()->response.ok());
  EXPECT_FALSE(stream->Next().has_value());
}

// However often and wherever a stream has to move, told before or not: each request is answered
// once, as itself, and in its place where the order is that of the requests.
TEST(Stream, RequestsAreAnsweredOnceWhereverTheStreamHasToMove) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 6; ++round) {
    FakeServer server;
    const int requests = 100 + static_cast<int>(random() % 200);
    std::vector<FakeServer::StreamEnd> ends(1 + random() % 6);
    for (FakeServer::StreamEnd& end : ends) {
      end = {.answers = static_cast<int>(random() % 40),
             .status = random() % 2 == 0 ? kShuttingDown : grpc::Status::OK,
             .drained = true,
             .notice = random() % 2 == 0};
      if (!end.notice) end.status = kShuttingDown;  // As servers that say nothing end streams.
    }
    server.EndNextStreams(ends);
    const auto order =
        round % 2 == 0 ? StreamOptions::Order::kRequest : StreamOptions::Order::kCompletion;
    std::vector<int64_t> answered;
    const auto stream =
        ConnectTo(server)->OpenStream({.window = 1 + static_cast<int>(random() % 40),
                                       .order = order,
                                       .on_answer = [&](Answer answer) {
                                         ASSERT_TRUE(answer.response.ok())
                                             << answer.response.status();
                                         EXPECT_EQ(NumberIn(answer), answer.index);
                                         answered.push_back(answer.index);
                                       }});
    for (int i = 0; i < requests; ++i) ASSERT_TRUE(stream->Send(Numbered(i)).ok());
    EXPECT_EQ(stream->Close(), absl::OkStatus());
    if (order == StreamOptions::Order::kCompletion) std::sort(answered.begin(), answered.end());
    std::vector<int64_t> all(static_cast<size_t>(requests));
    std::iota(all.begin(), all.end(), 0);
    EXPECT_EQ(answered, all);
    EXPECT_LE(server.streams(), static_cast<int>(ends.size()) + 1);
  }
}

TEST(Stream, DrainedStreamLooksOnWhereADyingServerRefusesIt) {
  FakeServer server;
  server.EndNextStreams({{3, kShuttingDown, true},
                         {0, {grpc::StatusCode::CANCELLED, "too late"}, false},
                         {0, {grpc::StatusCode::UNAVAILABLE, "too late"}, false}});
  Receiver receiver;
  const auto stream = ConnectTo(server)->OpenStream({.on_answer = receiver.callback()});
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(stream->Send(Numbered(i)).ok());
  EXPECT_EQ(stream->Close(), absl::OkStatus());
  EXPECT_EQ(receiver.CountOf(absl::StatusCode::kOk), 20);
  EXPECT_EQ(receiver.misplaced(), 0);
}

TEST(Stream, DrainedStreamWaitsWhileItsNextServerLoads) {
  FakeServer server;
  const FakeServer::StreamEnd loading{
      .answers = 0, .status = {}, .drained = false, .loading = true};
  server.EndNextStreams({{3, kShuttingDown, true}, loading, loading});
  Receiver receiver;
  const auto stream = ConnectTo(server)->OpenStream({.on_answer = receiver.callback()});
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(stream->Send(Numbered(i)).ok());
  EXPECT_EQ(stream->Close(), absl::OkStatus());
  EXPECT_EQ(receiver.CountOf(absl::StatusCode::kOk), 20);
  EXPECT_EQ(receiver.misplaced(), 0);
  EXPECT_EQ(server.streams(), 4);
}

TEST(Stream, DrainedStreamWaitsForTheServerToComeBack) {
  auto server = std::make_unique<FakeServer>();
  const std::string address = server->address();
  std::vector<FakeServer::StreamEnd> ends(1000, {0, kShuttingDown, true});  // until it is gone
  ends[0].answers = 3;
  server->EndNextStreams(ends);
  Receiver receiver;
  const auto stream = ConnectTo(*server)->OpenStream({.on_answer = receiver.callback()});
  for (int i = 0; i < 3; ++i) ASSERT_TRUE(stream->Send(Numbered(i)).ok());
  server->WaitForStreams(2);  // the first has ended
  server.reset();
  for (int i = 3; i < 20; ++i) ASSERT_TRUE(stream->Send(Numbered(i)).ok());
  FakeServer successor(address);
  EXPECT_EQ(stream->Close(), absl::OkStatus());
  EXPECT_EQ(receiver.CountOf(absl::StatusCode::kOk), 20);
  EXPECT_EQ(receiver.misplaced(), 0);
}

TEST(Stream, DrainedStreamGivesUpAfterItsReconnectTimeout) {
  FakeServer server;
  server.EndNextStreams({{2, kShuttingDown, true}});
  Receiver receiver;
  const auto stream = ConnectTo(server)->OpenStream(
      {.reconnect_timeout = absl::ZeroDuration(), .on_answer = receiver.callback()});
  int accepted = 0;
  while (stream->Send(Numbered(accepted)).ok()) ++accepted;
  EXPECT_EQ(stream->Close().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(receiver.count(), static_cast<size_t>(accepted));
  EXPECT_EQ(receiver.CountOf(absl::StatusCode::kOk), 2);
  EXPECT_EQ(receiver.CountOf(absl::StatusCode::kUnavailable), accepted - 2);
}

TEST(Stream, DrainedStreamFindsNoServerWithinItsReconnectTimeout) {
  auto server = std::make_unique<FakeServer>();
  std::vector<FakeServer::StreamEnd> ends(1000, {0, kShuttingDown, true});  // until it is gone
  ends[0].answers = 1;
  server->EndNextStreams(ends);
  const auto stream =
      ConnectTo(*server)->OpenStream({.reconnect_timeout = absl::Milliseconds(300)});
  ASSERT_TRUE(stream->Send(Numbered(0)).ok());
  EXPECT_TRUE(stream->Next()->response.ok());
  ASSERT_TRUE(stream->Send(Numbered(1)).ok());
  server.reset();
  const auto answer = stream->Next();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->response.status().code(), absl::StatusCode::kUnavailable)
      << answer->response.status();
  EXPECT_EQ(stream->Close().code(), absl::StatusCode::kUnavailable);
}

TEST(Stream, DrainAfterTheLastAnswerIsAGoodEnd) {
  FakeServer server;
  server.EndNextStreams({{1, kShuttingDown, true}});
  Receiver receiver;
  const auto stream = ConnectTo(server)->OpenStream({.on_answer = receiver.callback()});
  ASSERT_TRUE(stream->Send(Numbered(0)).ok());
  EXPECT_EQ(stream->Close(), absl::OkStatus());
  EXPECT_EQ(receiver.count(), 1u);
}

TEST(Stream, WhenTheServerDiesEveryRequestUnderWayIsAnsweredUnavailable) {
  FakeServer server;
  server.EndNextStreams({{4, {grpc::StatusCode::UNAVAILABLE, "died"}, false}});
  Receiver receiver;
  const auto stream = ConnectTo(server)->OpenStream({.on_answer = receiver.callback()});
  int accepted = 0;
  absl::Status status;
  while ((status = stream->Send(Numbered(accepted))).ok()) ++accepted;
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(stream->Close().message(), "died");
  EXPECT_THAT(accepted, AllOf(Ge(4), Le(4 + 32)));
  EXPECT_EQ(receiver.count(), static_cast<size_t>(accepted));
  EXPECT_EQ(receiver.CountOf(absl::StatusCode::kOk), 4);
  EXPECT_EQ(receiver.misplaced(), 0);
  EXPECT_EQ(server.streams(), 1);
}

TEST(Stream, CancelAnswersWhatIsUnderWay) {
  FakeServer server;
  Receiver receiver;
  const auto stream = ConnectTo(server)->OpenStream({.on_answer = receiver.callback()});
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(stream->Send(Numbered(i, "hold")).ok());
  server.WaitForRequests(1);
  stream->Cancel();
  EXPECT_EQ(stream->Close().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(stream->Send(Numbered(5)).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(receiver.CountOf(absl::StatusCode::kCancelled), 5);
}

TEST(Stream, DestructionEndsAStreamInUse) {
  FakeServer server;
  Receiver receiver;
  auto stream = ConnectTo(server)->OpenStream({.on_answer = receiver.callback()});
  for (int i = 0; i < 5; ++i) ASSERT_TRUE(stream->Send(Numbered(i, "hold")).ok());
  stream.reset();
  EXPECT_EQ(receiver.count(), 5u);
}

TEST(Stream, DeadlineEndsTheStream) {
  FakeServer server;
  const auto stream = ConnectTo(server)->OpenStream({.timeout = absl::Milliseconds(50)});
  ASSERT_TRUE(stream->Send(Numbered(0, "hold")).ok());
  const auto answer = stream->Next();
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->response.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(stream->Next().has_value());
}

TEST(Stream, SendAfterCloseIsRefused) {
  FakeServer server;
  const auto stream = ConnectTo(server)->OpenStream();
  EXPECT_EQ(stream->Close(), absl::OkStatus());
  EXPECT_EQ(stream->Send(Numbered(0)).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(stream->Close(), absl::OkStatus());
}

TEST(Stream, CallbackMaySendButNotBlock) {
  FakeServer server;
  std::vector<absl::StatusCode> codes;
  Stream* sender = nullptr;
  const auto stream =
      ConnectTo(server)->OpenStream({.window = 1, .on_answer = [&](Answer) {
                                       codes.push_back(sender->Send(Numbered(1)).code());
                                       codes.push_back(sender->Close().code());
                                     }});
  sender = stream.get();
  ASSERT_TRUE(stream->Send(Numbered(0)).ok());
  EXPECT_EQ(stream->Close(), absl::OkStatus());
  EXPECT_THAT(codes, testing::Each(absl::StatusCode::kFailedPrecondition));
  EXPECT_EQ(codes.size(), 2u);
}

TEST(Stream, ServerThatBreaksTheOrderEndsTheStream) {
  FakeServer server;
  server.EndNextStreams({{2, grpc::Status::OK, false, /*wrong_id=*/true}});
  Receiver receiver;
  const auto stream = ConnectTo(server)->OpenStream({.on_answer = receiver.callback()});
  for (int i = 0; i < 5; ++i) stream->Send(Numbered(i)).IgnoreError();
  EXPECT_THAT(stream->Close().message(), HasSubstr("broke the order of the stream: request 2"));
  EXPECT_EQ(receiver.CountOf(absl::StatusCode::kOk), 2);
}

TEST(Stream, ServerThatAnswersTwiceEndsTheStream) {
  FakeServer server;
  server.EndNextStreams({{0, grpc::Status::OK, false, false, /*twice=*/true}});
  const auto stream = ConnectTo(server)->OpenStream();
  ASSERT_TRUE(stream->Send(Numbered(0)).ok());
  EXPECT_TRUE(stream->Next().has_value());
  EXPECT_FALSE(stream->Next().has_value());
  EXPECT_THAT(stream->Close().message(), HasSubstr("answered 2 requests"));
}

TEST(Stream, ServerThatEndsEarlyWithOkLeavesNoRequestUnanswered) {
  FakeServer server;
  server.EndNextStreams({{1, grpc::Status::OK, false}});
  const auto stream = ConnectTo(server)->OpenStream();
  ASSERT_TRUE(stream->Send(Numbered(0)).ok());
  stream->Send(Numbered(1)).IgnoreError();
  EXPECT_THAT(stream->Close().message(), HasSubstr("the server ended the stream after 1 answers"));
}

TEST(Stream, ManyThreadsMayShareAStream) {
  FakeServer server;
  std::atomic<int> answers = 0;
  const auto stream = ConnectTo(server)->OpenStream(
      {.on_answer = [&](Answer answer) { answers += answer.response.ok() ? 1 : 0; }});
  std::vector<std::thread> senders;
  for (int t = 0; t < 4; ++t) {
    senders.emplace_back([&] {
      for (int i = 0; i < 100; ++i) EXPECT_TRUE(stream->Send(Numbered(i)).ok());
    });
  }
  for (std::thread& sender : senders) sender.join();
  EXPECT_EQ(stream->Close(), absl::OkStatus());
  EXPECT_EQ(answers, 400);
}

TEST(Stream, OutlivesItsClient) {
  FakeServer server;
  auto client = ConnectTo(server);
  const auto stream = client->OpenStream();
  client.reset();
  ASSERT_TRUE(stream->Send(Numbered(0)).ok());
  EXPECT_TRUE(stream->Next()->response.ok());
}

}  // namespace
}  // namespace millrace
