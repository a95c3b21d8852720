// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "server/access/http2_frame_check.h"
#include "server/base/clock.h"
#include "server/base/mutex.h"
#include "server/base/thread.h"
#include "server/base/unique_fd.h"

namespace millrace {

// Stands between clients without TLS and gRPC: every byte that a client sends is looked at by an
// Http2FrameCheck before gRPC gets it, and a connection with a fault is closed. A thread of its own
// carries all connections, over a pair of sockets each. Thread-safe.
//
// Invariants:
//  1. What arrives at one side is what was sent at the other, byte for byte, in both directions, up
//     to the connection's end; of a piece with a fault nothing arrives.
//  2. Of each direction at most kPieceBytes are held here. Beyond that the side that sends is not
//     read, so the kernel holds it back. A connection on which nothing is under way holds no
//     buffer.
//  3. A side's end is passed on after the bytes before it. When gRPC has ended its side, the client
//     still gets what was under way, as long as it takes something of it within each `farewell`.
//  4. No connection keeps others waiting: each has so many pieces in its turn.
class GuardRelay {
 public:
  struct Options {
    Http2FrameCheck::Limits limits = {};
    absl::Duration farewell = absl::Seconds(2);
  };

  static constexpr size_t kPieceBytes = 64 << 10;

  // UNAVAILABLE where there are not even the descriptors to begin with.
  static absl::StatusOr<std::unique_ptr<GuardRelay>> Create(Options options, Clock& clock);

  // Waits up to `farewell` for connections to end, as they do after gRPC's server; closes the
  // others.
  ~GuardRelay();

  // Takes a client's connection and returns gRPC's end of it, which doesn't block and is closed on
  // exec. Its peer's name holds the client's address. Invalid where there is no descriptor left:
  // then the client's connection is closed. Never blocks.
  UniqueFd Guard(UniqueFd client) ABSL_LOCKS_EXCLUDED(mutex_);

  // Connections that are open now.
  size_t open() const { return open_.load(std::memory_order_relaxed); }

  // How many were closed so far for that reason.
  uint64_t closed(FrameFault fault) const {
    return closed_[static_cast<size_t>(fault)].load(std::memory_order_relaxed);
  }

 private:
  struct Arrival {
    UniqueFd client;
    UniqueFd server;
  };
  // One end of a connection. Its kernel tells a change only, so the state is kept here.
  struct Side {
    UniqueFd socket;
    bool readable = true;
    bool writable = true;
    bool hung = false;  // Reading goes on to its end.
  };
  // The bytes from one side to the other.
  struct Flow {
    std::string waiting;   // Read, and not taken by the other side.
    size_t sent = 0;       // Of those.
    bool ended = false;    // Nothing more comes.
    bool shut = false;     // And the other side knows.
    bool moved = false;    // The other side has taken something since that was last asked.
    bool dropped = false;  // The other side takes no more: what comes is lost.
  };
  struct Connection {
    explicit Connection(const Http2FrameCheck::Limits& limits) : check(limits) {}
    ~Connection();

    Side client;
    Side server;
    Flow to_server;
    Flow to_client;
    Http2FrameCheck check;
    bool queued = false;
    bool leaving = false;  // It stands in farewells_.
  };
  enum class Pumped { kWaits, kHasMore, kBroken };

  GuardRelay(Options options, Clock& clock);

  absl::Status Begin();
  void Run();
  int TimeoutMs() const;
  void TakeArrivals() ABSL_LOCKS_EXCLUDED(mutex_);
  void Note(uint64_t about, uint32_t events);
  void Queue(uint64_t id, Connection& connection);
  void Turn(uint64_t id, Connection& connection);
  Pumped PumpToServer(Connection& connection, absl::Time now);
  Pumped PumpToClient(Connection& connection);
  // Reads a piece; sets `ended` at the end, and returns no bytes where there are none now. False
  // where the side is broken.
  bool ReadPiece(Side& from, Flow& flow, absl::string_view& piece);
  // Takes from `bytes` what the side takes; false where it is broken.
  static bool SendSome(Side& to, absl::string_view& bytes);
  static bool Send(Side& to, Flow& flow, absl::string_view bytes);
  static bool SendWaiting(Side& to, Flow& flow);
  void CloseForFault(Connection& connection, FrameFault fault);
  void CloseLate();
  void Erase(uint64_t id);

  const Options options_;
  Clock& clock_;
  UniqueFd epoll_;
  UniqueFd wake_;
  std::atomic<bool> stopping_{false};

  Mutex mutex_;
  std::vector<Arrival> arrivals_ ABSL_GUARDED_BY(mutex_);

  // The thread's.
  std::vector<char> piece_;
  uint64_t next_id_ = 1;
  absl::flat_hash_map<uint64_t, std::unique_ptr<Connection>> connections_;
  std::vector<uint64_t> queue_;  // Whose turn it is.
  std::deque<std::pair<absl::Time, uint64_t>> farewells_;
  absl::Time stop_at_ = absl::InfiniteFuture();

  std::atomic<uint64_t> names_{0};
  std::atomic<size_t> open_{0};
  std::array<std::atomic<uint64_t>, kFrameFaults> closed_{};
  std::unique_ptr<Thread> thread_;
};

}  // namespace millrace
