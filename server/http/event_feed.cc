// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/http/event_feed.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/clock.h"
#include "server/base/event_fd.h"
#include "server/base/poll.h"

namespace millrace {
namespace {

// What the kernel keeps for a viewer who has stopped reading, or is gone.
constexpr int kSendBufferBytes = 256 * 1024;

void BoundSocket(int socket, absl::Duration patience) {
  setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &kSendBufferBytes, sizeof(kSendBufferBytes));
  const auto timeout = static_cast<unsigned>(absl::ToInt64Milliseconds(patience));
  setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
}

}  // namespace

EventFeed::EventFeed(Options options, std::function<std::string()> snapshot)
    : options_(options),
      snapshot_(std::move(snapshot)),
      wake_(MakeEvent()),
      thread_("http-events", [this] { Run(); }) {}

EventFeed::~EventFeed() {
  MutexLock lock(mutex_);
  stopping_ = true;
  SignalEvent(wake_.get());
}

EventFeed::Text EventFeed::Snapshot() {
  MutexLock lock(making_);
  const absl::Time now = Clock::Real().Now();
  if (latest_ == nullptr || now - made_ >= options_.interval) {
    latest_ = std::make_shared<const std::string>(snapshot_());
    made_ = now;
  }
  return latest_;
}

bool EventFeed::Reserve() {
  MutexLock lock(mutex_);
  if (places_taken_ >= options_.most_viewers) return false;
  ++places_taken_;
  return true;
}

void EventFeed::Release() {
  MutexLock lock(mutex_);
  --places_taken_;
}

void EventFeed::Watch(UniqueFd socket) {
  BoundSocket(socket.get(), options_.patience);
  MutexLock lock(mutex_);
  arrived_.push_back(std::move(socket));
  SignalEvent(wake_.get());
}

size_t EventFeed::viewers() const {
  MutexLock lock(mutex_);
  return places_taken_;
}

bool EventFeed::Flush(Viewer& viewer) {
  while (viewer.event != nullptr) {
    const ssize_t sent = send(viewer.socket.get(), viewer.event->data() + viewer.sent,
                              viewer.event->size() - viewer.sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
    viewer.sent += static_cast<size_t>(sent);
    if (viewer.sent == viewer.event->size()) viewer.event = nullptr;
  }
  return true;
}

bool EventFeed::Send(Viewer& viewer, const Text& event) const {
  const absl::Time now = Clock::Real().Now();
  // Who is behind misses events, and gets a newer one later.
  if (viewer.event != nullptr) return now - viewer.began < options_.patience;
  viewer.event = event;
  viewer.sent = 0;
  viewer.began = now;
  return Flush(viewer);
}

void EventFeed::DropGone(std::vector<Viewer>& viewers) {
  const size_t gone = std::erase_if(viewers, [](const Viewer& viewer) { return viewer.gone; });
  MutexLock lock(mutex_);
  places_taken_ -= gone;
}

void EventFeed::Run() {
  std::vector<Viewer> viewers;
  Text last;  // As an event.
  absl::Time next = absl::InfinitePast();
  for (;;) {
    std::vector<pollfd> polled = {{wake_.get(), POLLIN, 0}};
    for (const Viewer& viewer : viewers) {
      const int events = POLLIN | (viewer.event == nullptr ? 0 : POLLOUT);
      polled.push_back({viewer.socket.get(), static_cast<decltype(pollfd::events)>(events), 0});
    }
    Poll(absl::MakeSpan(polled),
         viewers.empty() ? absl::InfiniteDuration() : next - Clock::Real().Now());
    for (size_t i = 0; i < viewers.size(); ++i) {
      const int seen = polled[i + 1].revents;
      viewers[i].gone = (seen & ~POLLOUT) != 0 || ((seen & POLLOUT) != 0 && !Flush(viewers[i]));
    }
    DropGone(viewers);

    ClearEvent(wake_.get());
    std::vector<UniqueFd> arrived;
    {
      MutexLock lock(mutex_);
      if (stopping_) return;
      arrived.swap(arrived_);
    }
    if (viewers.empty() && arrived.empty()) continue;
    const absl::Time now = Clock::Real().Now();
    if (now >= next) {
      last = std::make_shared<const std::string>(absl::StrCat("data: ", *Snapshot(), "\n\n"));
      next = now + options_.interval;
      for (Viewer& viewer : viewers) viewer.gone = !Send(viewer, last);
    }
    for (UniqueFd& socket : arrived) {
      Viewer& viewer = viewers.emplace_back();
      viewer.socket = std::move(socket);
      viewer.gone = !Send(viewer, last);
    }
    DropGone(viewers);
  }
}

}  // namespace millrace
