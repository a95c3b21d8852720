// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/video/live_source.h"

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;

// A camera that a test plays: what its connections bring, and when they break off. Thread-safe.
class FakeCamera {
 public:
  // A frame of the current connection; OK ends it, an error breaks it off.
  void Send(absl::Duration timestamp) { Push(Event{.timestamp = timestamp}); }
  void End(absl::Status status) { Push(Event{.end = std::move(status)}); }
  void FailNextOpen() { Push(Event{.fails_open = true}); }

  // Until the reader has taken all events, and asks for more.
  void WaitUntilRead() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return events_.empty() && waiting_; });
  }

  LiveSource::Open opener() {
    return
        [this](
            const std::function<bool()>& stopped) -> absl::StatusOr<std::unique_ptr<FrameSource>> {
          std::lock_guard lock(mutex_);
          if (!events_.empty() && events_.front().fails_open) {
            events_.pop_front();
            return absl::UnavailableError("no camera");
          }
          return std::make_unique<Connection>(*this, stopped);
        };
  }

 private:
  struct Event {
    absl::Duration timestamp = {};
    std::optional<absl::Status> end = {};
    bool fails_open = false;
  };

  class Connection : public FrameSource {
   public:
    Connection(FakeCamera& camera, std::function<bool()> stopped)
        : camera_(camera), stopped_(std::move(stopped)) {}
    absl::StatusOr<std::optional<VideoFrame>> Next() override {
      std::unique_lock lock(camera_.mutex_);
      while (camera_.events_.empty()) {
        camera_.waiting_ = true;
        camera_.changed_.notify_all();
        if (stopped_()) return absl::CancelledError("stopped");
        camera_.changed_.wait_for(lock, std::chrono::milliseconds(1));
      }
      camera_.waiting_ = false;
      const Event event = camera_.events_.front();
      camera_.events_.pop_front();
      if (!event.end) return std::optional<VideoFrame>({.timestamp = event.timestamp});
      if (!event.end->ok()) return *event.end;
      return std::optional<VideoFrame>();
    }

   private:
    FakeCamera& camera_;
    const std::function<bool()> stopped_;
  };

  void Push(Event event) {
    std::lock_guard lock(mutex_);
    waiting_ = false;
    events_.push_back(std::move(event));
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Event> events_;
  bool waiting_ = false;
};

class LiveSourceTest : public testing::Test {
 protected:
  LiveSource::Options Options() {
    return {.first_wait = absl::Seconds(8),
            .most_wait = absl::Seconds(16),
            .on_lost = [this](const absl::Status& status,
                              absl::Duration) { lost_.push_back(std::string(status.message())); },
            .now = [this] { return now_; },
            .wait =
                [this](absl::Duration wait) {
                  waits_.push_back(wait);
                  now_ += absl::Seconds(60);
                }};
  }

  static VideoFrame Take(LiveSource& source) {
    auto frame = source.Next();
    EXPECT_TRUE(frame.ok() && frame->has_value());
    return frame.ok() && frame->has_value() ? **frame : VideoFrame{.index = -1};
  }

  FakeCamera camera_;
  absl::Time now_ = absl::FromUnixSeconds(1000);  // The reader's thread's, while it runs.
  std::vector<absl::Duration> waits_;
  std::vector<std::string> lost_;
};

TEST_F(LiveSourceTest, TheNewestFrameWaitsAndTheOthersAreDroppedAndCounted) {
  LiveSource source(camera_.opener(), Options());
  for (int i = 0; i < 5; ++i) camera_.Send(absl::Seconds(i));
  camera_.WaitUntilRead();
  EXPECT_EQ(Take(source).index, 4);
  EXPECT_EQ(source.counts().read, 5);
  EXPECT_EQ(source.counts().dropped, 4);
  camera_.Send(absl::Seconds(5));
  EXPECT_EQ(Take(source).index, 5);
  EXPECT_EQ(source.counts().dropped, 4);
}

TEST_F(LiveSourceTest, FramesAreNumberedAndTimedOverAllConnections) {
  LiveSource source(camera_.opener(), Options());
  camera_.Send(absl::Seconds(100));
  EXPECT_EQ(Take(source).timestamp, absl::ZeroDuration());
  camera_.Send(absl::Seconds(101));
  VideoFrame frame = Take(source);
  EXPECT_EQ(frame.timestamp, absl::Seconds(1));
  EXPECT_EQ(frame.connection, 0);
  camera_.End(absl::UnavailableError("cut"));
  camera_.Send(absl::Seconds(7));  // A new connection's clock; its first frame comes after 60 s.
  frame = Take(source);
  EXPECT_EQ(frame.index, 2);
  EXPECT_EQ(frame.connection, 1);
  EXPECT_EQ(frame.timestamp, absl::Seconds(60));
  camera_.Send(absl::Seconds(9));
  EXPECT_EQ(Take(source).timestamp, absl::Seconds(62));
  camera_.Send(absl::Seconds(8));  // Its clock is set back.
  EXPECT_EQ(Take(source).timestamp, absl::Seconds(62) + absl::Milliseconds(1));
  EXPECT_EQ(source.counts().reconnects, 1);
}

TEST_F(LiveSourceTest, WaitsGrowWhileItFailsAndAreShortAfterAFrame) {
  camera_.FailNextOpen();
  camera_.FailNextOpen();
  camera_.FailNextOpen();
  {
    LiveSource source(camera_.opener(), Options());
    camera_.Send({});
    EXPECT_EQ(Take(source).index, 0);
    camera_.End(absl::OkStatus());
    camera_.Send({});
    EXPECT_EQ(Take(source).index, 1);
    EXPECT_EQ(source.counts().reconnects, 1);
  }
  EXPECT_THAT(lost_, ElementsAre("no camera", "no camera", "no camera", "the source ended"));
  ASSERT_EQ(waits_.size(), 4u);
  for (const auto& [i, most] : {std::pair(0, 8), {1, 16}, {2, 16}, {3, 8}}) {
    EXPECT_LE(waits_[i], absl::Seconds(most));
    EXPECT_GE(waits_[i], absl::Seconds(most) / 2);
  }
}

TEST_F(LiveSourceTest, EndsWithItsConnectionWhereItIsNotToReconnect) {
  LiveSource::Options options = Options();
  options.reconnects = false;
  LiveSource broken(camera_.opener(), options);
  camera_.Send({});
  camera_.End(absl::DataLossError("torn"));
  EXPECT_EQ(Take(broken).index, 0);
  EXPECT_EQ(broken.Next().status(), absl::DataLossError("torn"));
  LiveSource ended(camera_.opener(), options);
  camera_.End(absl::OkStatus());
  const auto nothing = ended.Next();
  EXPECT_TRUE(nothing.ok() && !nothing->has_value());
}

TEST_F(LiveSourceTest, StopEndsAWaitingNext) {
  LiveSource source(camera_.opener(), Options());
  std::thread stopper([&] {
    camera_.WaitUntilRead();
    source.Stop();
  });
  const auto nothing = source.Next();
  EXPECT_TRUE(nothing.ok() && !nothing->has_value());
  stopper.join();
}

}  // namespace
}  // namespace millrace
