// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/access/guard_relay.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/event_fd.h"
#include "server/base/log.h"
#include "server/base/status.h"

namespace millrace {
namespace {

constexpr int kMostEvents = 64;
constexpr int kPiecesInATurn = 4;

// What an event is about: 0 is the wake-up, else a connection's number, twice, and the side.
constexpr uint64_t kWake = 0;
constexpr uint64_t kServerSide = 1;

std::string AddressOf(int socket) {
  sockaddr_storage peer = {};
  socklen_t length = sizeof(peer);
  char text[INET6_ADDRSTRLEN] = {};
  if (getpeername(socket, reinterpret_cast<sockaddr*>(&peer), &length) != 0) return "gone";
  if (peer.ss_family == AF_INET) {
    const auto& four = *reinterpret_cast<const sockaddr_in*>(&peer);
    inet_ntop(AF_INET, &four.sin_addr, text, sizeof(text));
    return absl::StrCat(text, ":", ntohs(four.sin_port));
  }
  if (peer.ss_family != AF_INET6) return "unix";
  const auto& six = *reinterpret_cast<const sockaddr_in6*>(&peer);
  if (IN6_IS_ADDR_V4MAPPED(&six.sin6_addr)) {
    inet_ntop(AF_INET, six.sin6_addr.s6_addr + 12, text, sizeof(text));
    return absl::StrCat(text, ":", ntohs(six.sin6_port));
  }
  inet_ntop(AF_INET6, &six.sin6_addr, text, sizeof(text));
  return absl::StrCat("[", text, "]:", ntohs(six.sin6_port));
}

// Gives the socket a name in the kernel's abstract namespace, which the one at its other end sees
// as its peer's. gRPC tells connections by it.
void Name(int socket, const std::string& text) {
  sockaddr_un name = {};
  name.sun_family = AF_UNIX;
  const size_t size = std::min(text.size(), sizeof(name.sun_path) - 1);
  std::memcpy(name.sun_path + 1, text.data(), size);
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + size);
  if (bind(socket, reinterpret_cast<const sockaddr*>(&name), length) == 0) return;
  bind(socket, reinterpret_cast<const sockaddr*>(&name), sizeof(name.sun_family));  // Any name.
}

}  // namespace

// The acceptor keeps a second descriptor of the client's, so closing alone would end nothing.
GuardRelay::Connection::~Connection() {
  for (const Side* const side : {&client, &server}) shutdown(side->socket.get(), SHUT_RDWR);
}

GuardRelay::GuardRelay(Options options, Clock& clock)
    : options_(std::move(options)),
      clock_(clock),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      wake_(MakeEvent()),
      piece_(kPieceBytes) {}

absl::StatusOr<std::unique_ptr<GuardRelay>> GuardRelay::Create(Options options, Clock& clock) {
  std::unique_ptr<GuardRelay> relay(new GuardRelay(std::move(options), clock));
  MILLRACE_RETURN_IF_ERROR(relay->Begin());
  return relay;
}

absl::Status GuardRelay::Begin() {
  epoll_event event = {.events = EPOLLIN, .data = {.u64 = kWake}};
  if (!epoll_.valid() || !wake_.valid() ||
      epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, wake_.get(), &event) != 0) {
    return absl::UnavailableError("there are no file descriptors left to guard connections with");
  }
  thread_ = std::make_unique<Thread>("guard", [this] { Run(); });
  return absl::OkStatus();
}

GuardRelay::~GuardRelay() {
  stopping_ = true;
  if (wake_.valid()) SignalEvent(wake_.get());
}

UniqueFd GuardRelay::Guard(UniqueFd client) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) != 0) {
    shutdown(client.get(), SHUT_RDWR);
    return UniqueFd();
  }
  UniqueFd ours(ends[0]);
  UniqueFd theirs(ends[1]);
  const uint64_t number = names_.fetch_add(1, std::memory_order_relaxed);
  Name(ours.get(), absl::StrCat("millrace/", getpid(), "/", number, "/", AddressOf(client.get())));
  {
    MutexLock lock(mutex_);
    arrivals_.push_back({std::move(client), std::move(ours)});
  }
  SignalEvent(wake_.get());
  return theirs;
}

void GuardRelay::Run() {
  std::array<epoll_event, kMostEvents> events;
  std::vector<uint64_t> turns;
  for (;;) {
    if (stopping_ && stop_at_ == absl::InfiniteFuture()) {
      stop_at_ = clock_.Now() + options_.farewell;
      TakeArrivals();  // Also who came just before.
    }
    if (stop_at_ < absl::InfiniteFuture() && (connections_.empty() || clock_.Now() >= stop_at_)) {
      connections_.clear();
      return;
    }
    const int count = epoll_wait(epoll_.get(), events.data(), kMostEvents, TimeoutMs());
    for (int i = 0; i < count; ++i) {
      if (events[i].data.u64 == kWake) {
        ClearEvent(wake_.get());
        TakeArrivals();
      } else {
        Note(events[i].data.u64, events[i].events);
      }
    }
    turns.swap(queue_);
    for (const uint64_t id : turns) {
      const auto found = connections_.find(id);
      if (found != connections_.end()) Turn(id, *found->second);
    }
    turns.clear();
    CloseLate();
  }
}

int GuardRelay::TimeoutMs() const {
  if (!queue_.empty()) return 0;
  absl::Time next = stop_at_;
  if (!farewells_.empty()) next = std::min(next, farewells_.front().first);
  if (next == absl::InfiniteFuture()) return -1;
  const absl::Duration left = std::max(absl::ZeroDuration(), next - clock_.Now());
  return static_cast<int>(absl::ToInt64Milliseconds(absl::Ceil(left, absl::Milliseconds(1))));
}

void GuardRelay::TakeArrivals() {
  std::vector<Arrival> arrivals;
  {
    MutexLock lock(mutex_);
    arrivals.swap(arrivals_);
  }
  for (Arrival& arrival : arrivals) {
    const uint64_t id = next_id_++;
    auto connection = std::make_unique<Connection>(options_.limits);
    connection->client.socket = std::move(arrival.client);
    connection->server.socket = std::move(arrival.server);
    bool watched = true;
    for (const uint64_t side : {uint64_t{0}, kServerSide}) {
      const Side& each = side == 0 ? connection->client : connection->server;
      epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
                           .data = {.u64 = id << 1 | side}};
      watched = watched && epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, each.socket.get(), &event) == 0;
    }
    if (!watched) continue;  // The kernel watches no more sockets: it ends here.
    Connection& kept = *connection;
    connections_.emplace(id, std::move(connection));
    open_.store(connections_.size(), std::memory_order_relaxed);
    Queue(id, kept);
  }
}

void GuardRelay::Note(uint64_t about, uint32_t events) {
  const uint64_t id = about >> 1;
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  Connection& connection = *found->second;
  Side& side = (about & kServerSide) != 0 ? connection.server : connection.client;
  const bool hung = (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
  if (hung) side.hung = true;
  if (hung || (events & EPOLLIN) != 0) side.readable = true;
  if (hung || (events & EPOLLOUT) != 0) side.writable = true;
  Queue(id, connection);
}

void GuardRelay::Queue(uint64_t id, Connection& connection) {
  if (connection.queued) return;
  connection.queued = true;
  queue_.push_back(id);
}

void GuardRelay::Turn(uint64_t id, Connection& connection) {
  connection.queued = false;
  const absl::Time now = clock_.Now();
  // The answers first: an end of gRPC's side is a reason not to wait for its taking more.
  const Pumped out = PumpToClient(connection);
  const Pumped in = out == Pumped::kBroken ? out : PumpToServer(connection, now);
  const bool over = connection.to_client.shut && connection.to_server.shut;
  if (out == Pumped::kBroken || in == Pumped::kBroken || over) return Erase(id);
  if (connection.server.hung && !connection.leaving) {
    connection.leaving = true;
    farewells_.emplace_back(now + options_.farewell, id);
  }
  if (out == Pumped::kHasMore || in == Pumped::kHasMore) Queue(id, connection);
}

GuardRelay::Pumped GuardRelay::PumpToServer(Connection& connection, absl::Time now) {
  Flow& flow = connection.to_server;
  if (connection.to_client.ended) flow.dropped = true;
  for (int i = 0; i < kPiecesInATurn; ++i) {
    if (flow.dropped) flow.waiting = std::string();
    // Where gRPC takes no more, its last words are still under way to the client.
    if (!SendWaiting(connection.server, flow)) flow.dropped = true;
    if (!flow.waiting.empty() && !flow.dropped) return Pumped::kWaits;
    if (flow.ended) {
      if (!flow.shut) shutdown(connection.server.socket.get(), SHUT_WR);
      flow.shut = true;
      return Pumped::kWaits;
    }
    absl::string_view piece;
    if (!ReadPiece(connection.client, flow, piece)) return Pumped::kBroken;
    if (flow.ended) continue;
    if (piece.empty()) return Pumped::kWaits;
    if (flow.dropped) continue;
    if (const FrameFault fault = connection.check.Take(piece, now); fault != FrameFault::kNone) {
      CloseForFault(connection, fault);
      return Pumped::kBroken;
    }
    if (!Send(connection.server, flow, piece)) flow.dropped = true;
  }
  return Pumped::kHasMore;
}

GuardRelay::Pumped GuardRelay::PumpToClient(Connection& connection) {
  Flow& flow = connection.to_client;
  for (int i = 0; i < kPiecesInATurn; ++i) {
    if (!SendWaiting(connection.client, flow)) return Pumped::kBroken;
    if (!flow.waiting.empty()) return Pumped::kWaits;
    if (flow.ended) {
      if (!flow.shut) shutdown(connection.client.socket.get(), SHUT_WR);
      flow.shut = true;
      return Pumped::kWaits;
    }
    absl::string_view piece;
    // Where gRPC has left bytes unread, that is how its end is told.
    if (!ReadPiece(connection.server, flow, piece)) flow.ended = true;
    if (flow.ended) continue;
    if (piece.empty()) return Pumped::kWaits;
    if (!Send(connection.client, flow, piece)) return Pumped::kBroken;
  }
  return Pumped::kHasMore;
}

bool GuardRelay::ReadPiece(Side& from, Flow& flow, absl::string_view& piece) {
  if (!from.readable) return true;
  ssize_t count;
  do {
    count = recv(from.socket.get(), piece_.data(), piece_.size(), 0);
  } while (count < 0 && errno == EINTR);
  if (count < 0) {
    from.readable = false;
    return errno == EAGAIN || errno == EWOULDBLOCK;
  }
  if (count == 0) {
    flow.ended = true;
    return true;
  }
  piece = absl::string_view(piece_.data(), static_cast<size_t>(count));
  // Less than was asked for is all that there was; what comes later is told anew.
  if (piece.size() < piece_.size() && !from.hung) from.readable = false;
  return true;
}

bool GuardRelay::SendSome(Side& to, absl::string_view& bytes) {
  while (!bytes.empty() && to.writable) {
    const ssize_t count = send(to.socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count >= 0) {
      bytes.remove_prefix(static_cast<size_t>(count));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      to.writable = false;
    } else if (errno != EINTR) {
      return false;
    }
  }
  return true;
}

// REQUIRES: nothing waits.
bool GuardRelay::Send(Side& to, Flow& flow, absl::string_view bytes) {
  const size_t size = bytes.size();
  const bool good = SendSome(to, bytes);
  flow.moved = flow.moved || bytes.size() < size;
  if (good && !bytes.empty()) flow.waiting.assign(bytes.data(), bytes.size());
  return good;
}

bool GuardRelay::SendWaiting(Side& to, Flow& flow) {
  if (flow.waiting.empty()) return true;
  absl::string_view rest = flow.waiting;
  rest.remove_prefix(flow.sent);
  const size_t size = rest.size();
  const bool good = SendSome(to, rest);
  flow.moved = flow.moved || rest.size() < size;
  flow.sent += size - rest.size();
  if (rest.empty()) {
    flow.waiting = std::string();  // With its memory.
    flow.sent = 0;
  }
  return good;
}

// Ever more seldom, so that a flood doesn't fill the log.
void GuardRelay::CloseForFault(Connection& connection, FrameFault fault) {
  const uint64_t count =
      closed_[static_cast<size_t>(fault)].fetch_add(1, std::memory_order_relaxed) + 1;
  if ((count & (count - 1)) != 0) return;
  LogWarning("the guard has closed a connection of ", AddressOf(connection.client.socket.get()),
             ": ", connection.check.why(), "; ", count, " so far for this reason (", NameOf(fault),
             ")");
}

void GuardRelay::CloseLate() {
  if (farewells_.empty()) return;
  const absl::Time now = clock_.Now();
  while (!farewells_.empty() && farewells_.front().first <= now) {
    const uint64_t id = farewells_.front().second;
    farewells_.pop_front();
    const auto found = connections_.find(id);
    if (found == connections_.end()) continue;
    if (std::exchange(found->second->to_client.moved, false)) {
      farewells_.emplace_back(now + options_.farewell, id);
    } else {
      Erase(id);
    }
  }
}

void GuardRelay::Erase(uint64_t id) {
  connections_.erase(id);
  open_.store(connections_.size(), std::memory_order_relaxed);
}

}  // namespace millrace
