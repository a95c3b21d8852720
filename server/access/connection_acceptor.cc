// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/connection_acceptor.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/event_fd.h"
#include "server/base/log.h"
#include "server/base/status.h"

namespace millrace {
namespace {

constexpr int kMostEvents = 64;
constexpr int kMostAtOnce = 64;  // Of one socket, so that others have their turn.
constexpr absl::Duration kBreath = absl::Milliseconds(100);
constexpr int kOn = 1;
// Sent bytes that nobody has confirmed for so long end a connection: its peer's machine has gone.
constexpr int kUserTimeoutMs = 60'000;

// What an event is about, in epoll's 64 bits.
constexpr uint64_t kStop = 0;
constexpr uint64_t kListening = uint64_t{1} << 32;  // And the socket's number, and its descriptor.
constexpr uint64_t kSocketShift = 33;
constexpr uint64_t kConnection = uint64_t{1} << 63;  // And its descriptor.

absl::Status Watch(const UniqueFd& epoll, int descriptor, uint32_t events, uint64_t about) {
  epoll_event event = {.events = events, .data = {.u64 = about}};
  if (epoll_ctl(epoll.get(), EPOLL_CTL_ADD, descriptor, &event) == 0) return absl::OkStatus();
  return ErrnoStatus(errno, "watching a socket");
}

}  // namespace

const char* NameOf(ConnectionRefusal refusal) {
  switch (refusal) {
    case ConnectionRefusal::kLimit:
      return "limit";
    case ConnectionRefusal::kPeerLimit:
      return "peer_limit";
    case ConnectionRefusal::kUser:
      return "user";
    case ConnectionRefusal::kDescriptors:
      return "descriptors";
  }
  return "";
}

ConnectionAcceptor::ConnectionAcceptor(std::vector<ListeningSocket> sockets, Options options,
                                       Clock& clock, Take take)
    : sockets_(std::move(sockets)),
      options_(std::move(options)),
      clock_(clock),
      take_(std::move(take)),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      stop_(MakeEvent()),
      limits_(options_.limits) {}

absl::StatusOr<std::unique_ptr<ConnectionAcceptor>> ConnectionAcceptor::Create(
    std::vector<ListeningSocket> sockets, Options options, Clock& clock, Take take) {
  std::unique_ptr<ConnectionAcceptor> acceptor(
      new ConnectionAcceptor(std::move(sockets), std::move(options), clock, std::move(take)));
  MILLRACE_RETURN_IF_ERROR(acceptor->Begin());
  return acceptor;
}

absl::Status ConnectionAcceptor::Begin() {
  KeepOne();
  if (!epoll_.valid() || !stop_.valid() || !kept_.valid()) {
    return absl::UnavailableError("there are no file descriptors left to listen with");
  }
  MILLRACE_RETURN_IF_ERROR(Watch(epoll_, stop_.get(), EPOLLIN, kStop));
  for (size_t i = 0; i < sockets_.size(); ++i) {
    for (const UniqueFd& each : sockets_[i].descriptors()) {
      MILLRACE_RETURN_IF_ERROR(
          Watch(epoll_, each.get(), EPOLLIN,
                i << kSocketShift | kListening | static_cast<uint64_t>(each.get())));
    }
  }
  thread_ = std::make_unique<Thread>("accept", [this] { Run(); });
  return absl::OkStatus();
}

void ConnectionAcceptor::Stop() {
  if (thread_ == nullptr) return;
  SignalEvent(stop_.get());
  thread_.reset();
  sockets_.clear();
}

void ConnectionAcceptor::Run() {
  std::array<epoll_event, kMostEvents> events;
  for (;;) {
    const int count = epoll_wait(epoll_.get(), events.data(), kMostEvents, -1);
    bool breathe = false;
    for (int i = 0; i < count; ++i) {
      const uint64_t about = events[i].data.u64;
      if (about == kStop) return;
      const int descriptor = static_cast<int>(about & 0xffffffff);
      if ((about & kConnection) != 0) {
        const auto ended = connections_.find(descriptor);
        if (ended == connections_.end()) continue;
        limits_.Leave(ended->second.peer);
        connections_.erase(ended);
        open_.store(limits_.open(), std::memory_order_relaxed);
      } else if (!AcceptAll((about & ~kConnection) >> kSocketShift, descriptor)) {
        breathe = true;
      }
    }
    if (breathe) clock_.SleepFor(kBreath);  // Those who wait are there still, and wake us at once.
  }
}

bool ConnectionAcceptor::AcceptAll(size_t socket, int listening) {
  for (int i = 0; i < kMostAtOnce; ++i) {
    sockaddr_storage address = {};
    socklen_t length = sizeof(address);
    UniqueFd connection(accept4(listening, reinterpret_cast<sockaddr*>(&address), &length,
                                SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (connection.valid()) {
      KeepOne();  // Where another thread was quicker than the last time.
      Admit(socket, std::move(connection), address);
      continue;
    }
    switch (errno) {
      case EAGAIN:
        return true;
      case EMFILE:
      case ENFILE:
        if (!TurnOneAway(listening)) return false;
        break;
      case ENOBUFS:
      case ENOMEM:
        return false;
      default:  // Of this one connection; see accept(2).
        break;
    }
  }
  return true;
}

void ConnectionAcceptor::Admit(size_t socket, UniqueFd connection,
                               const sockaddr_storage& address) {
  std::string peer;
  if (sockets_[socket].reach() == Reach::kUnix) {
    ucred user = {};
    socklen_t length = sizeof(user);
    const bool known = getsockopt(connection.get(), SOL_SOCKET, SO_PEERCRED, &user, &length) == 0;
    const std::vector<uid_t>& allowed = options_.allowed_users;
    if (!allowed.empty() &&
        (!known || std::find(allowed.begin(), allowed.end(), user.uid) == allowed.end())) {
      return Refuse(ConnectionRefusal::kUser, absl::StrCat("user ", user.uid, " is not let in at ",
                                                           sockets_[socket].address()));
    }
    peer = PeerOf(user.uid);
  } else {
    setsockopt(connection.get(), IPPROTO_TCP, TCP_NODELAY, &kOn, sizeof(kOn));
    setsockopt(connection.get(), IPPROTO_TCP, TCP_USER_TIMEOUT, &kUserTimeoutMs,
               sizeof(kUserTimeoutMs));
    peer = PeerOf(address);
  }
  UniqueFd second(fcntl(connection.get(), F_DUPFD_CLOEXEC, 0));
  if (!second.valid()) return Refuse(ConnectionRefusal::kDescriptors, "too many open files");
  if (const absl::Status entered = limits_.Enter(peer); !entered.ok()) {
    const bool in_all = limits_.open() >= options_.limits.most;
    return Refuse(in_all ? ConnectionRefusal::kLimit : ConnectionRefusal::kPeerLimit,
                  std::string(entered.message()));
  }
  // Of no event but the end of both directions, which is told whether asked for or not.
  const int descriptor = second.get();
  if (!Watch(epoll_, descriptor, 0, kConnection | static_cast<uint64_t>(descriptor)).ok()) {
    limits_.Leave(peer);
    return Refuse(ConnectionRefusal::kDescriptors, "the kernel watches no more sockets");
  }
  connections_.emplace(descriptor, Connection{std::move(second), std::move(peer)});
  open_.store(limits_.open(), std::memory_order_relaxed);
  take_(socket, std::move(connection));
}

bool ConnectionAcceptor::TurnOneAway(int listening) {
  kept_.reset();
  UniqueFd connection(accept4(listening, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (connection.valid()) Refuse(ConnectionRefusal::kDescriptors, "too many open files");
  const bool done = connection.valid() || errno == EAGAIN;
  connection.reset();
  KeepOne();
  return done;
}

// Ever more seldom, so that a flood doesn't fill the log.
void ConnectionAcceptor::Refuse(ConnectionRefusal refusal, const std::string& why) {
  const uint64_t count =
      refused_[static_cast<size_t>(refusal)].fetch_add(1, std::memory_order_relaxed) + 1;
  if ((count & (count - 1)) != 0) return;
  LogWarning("a connection was refused: ", why, "; ", count, " so far for this reason");
}

void ConnectionAcceptor::KeepOne() {
  if (!kept_.valid()) kept_.reset(::open("/dev/null", O_RDONLY | O_CLOEXEC));
}

}  // namespace millrace
