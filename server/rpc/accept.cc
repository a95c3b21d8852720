// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/accept.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "server/base/log.h"
#include "server/base/mutex.h"
#include "server/base/unique_fd.h"

namespace millrace {
namespace {

struct Kept {
  Mutex mutex;
  UniqueFd descriptor ABSL_GUARDED_BY(mutex);
  uint64_t turned_away ABSL_GUARDED_BY(mutex) = 0;
};

Kept& TheKept() {
  static auto* const kept = new Kept();
  return *kept;
}

int Accept(int socket, sockaddr* address, socklen_t* length, int flags) {
  return static_cast<int>(syscall(SYS_accept4, socket, address, length, flags));
}

// Accepts a connection with the descriptor that is kept, and closes it. False where none waits.
bool TurnOneAway(int socket) {
  pollfd entry = {.fd = socket, .events = POLLIN, .revents = 0};
  if (poll(&entry, 1, 0) <= 0) return false;
  Kept& kept = TheKept();
  MutexLock lock(kept.mutex);
  kept.descriptor.reset();
  const UniqueFd connection(Accept(socket, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!connection.valid()) return false;
  const uint64_t count = ++kept.turned_away;
  if ((count & (count - 1)) == 0) {  // Ever more seldom, so that a flood doesn't fill the log.
    LogWarning("too many open files: ", count, " connections have been turned away so far");
  }
  return true;
}

}  // namespace

void KeepDescriptorForAccepting() {
  Kept& kept = TheKept();
  MutexLock lock(kept.mutex);
  if (!kept.descriptor.valid()) kept.descriptor.reset(open("/dev/null", O_RDONLY | O_CLOEXEC));
}

}  // namespace millrace

// What gRPC calls, since a program's own functions go before a library's. See accept(2) for which
// errors are a connection's own.
extern "C" int accept4(int socket, sockaddr* address, socklen_t* length, int flags) {
  for (;;) {
    const int connection = millrace::Accept(socket, address, length, flags);
    if (connection >= 0) {
      millrace::KeepDescriptorForAccepting();  // Where another thread took the place of the last.
      return connection;
    }
    switch (errno) {
      case ECONNABORTED:
      case ENETDOWN:
      case EPROTO:
      case ENOPROTOOPT:
      case EHOSTDOWN:
      case ENONET:
      case EHOSTUNREACH:
      case ENETUNREACH:
        continue;
      case EMFILE:
      case ENFILE: {
        const bool turned_away = millrace::TurnOneAway(socket);
        millrace::KeepDescriptorForAccepting();
        if (turned_away) continue;
        errno = EAGAIN;
        return -1;
      }
      case ENOBUFS:
      case ENOMEM:
        errno = EAGAIN;  // Those that wait are looked at again when the next one comes.
        return -1;
      default:
        return -1;
    }
  }
}
