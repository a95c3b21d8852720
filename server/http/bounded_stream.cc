// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/http/bounded_stream.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "server/base/clock.h"

namespace millrace {

BoundedStream::BoundedStream(int socket, size_t max_read_bytes, absl::Time deadline)
    : socket_(socket), readable_bytes_(max_read_bytes), deadline_(deadline) {}

bool BoundedStream::WaitFor(short events) const {
  pollfd waited{socket_, events, 0};
  for (;;) {
    const absl::Duration left = deadline_ - Clock::Real().Now();
    if (left <= absl::ZeroDuration()) return false;
    const int ready = poll(&waited, 1, static_cast<int>(absl::ToInt64Milliseconds(left)) + 1);
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return false;
  }
}

bool BoundedStream::is_readable() const { return buffer_begin_ < buffer_end_ || WaitFor(POLLIN); }

bool BoundedStream::is_writable() const { return WaitFor(POLLOUT); }

ssize_t BoundedStream::read(char* data, size_t size) {
  if (buffer_begin_ == buffer_end_) {
    const size_t wanted = std::min(buffer_.size(), readable_bytes_);
    if (wanted == 0 || !WaitFor(POLLIN)) return -1;
    const ssize_t received = recv(socket_, buffer_.data(), wanted, MSG_DONTWAIT);
    if (received <= 0) return received;
    readable_bytes_ -= static_cast<size_t>(received);
    buffer_begin_ = 0;
    buffer_end_ = static_cast<size_t>(received);
  }
  const size_t copied = std::min(size, buffer_end_ - buffer_begin_);
  std::memcpy(data, buffer_.data() + buffer_begin_, copied);
  buffer_begin_ += copied;
  return static_cast<ssize_t>(copied);
}

ssize_t BoundedStream::write(const char* data, size_t size) {
  if (!WaitFor(POLLOUT)) return -1;
  return send(socket_, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
}

// The server has no use for addresses; cpp-httplib puts them into the request.
void BoundedStream::get_remote_ip_and_port(std::string& ip, int& port) const {
  ip.clear();
  port = 0;
}

void BoundedStream::get_local_ip_and_port(std::string& ip, int& port) const {
  ip.clear();
  port = 0;
}

void BoundedStream::DiscardUnread() {
  while (readable_bytes_ > 0) {
    const size_t wanted = std::min(buffer_.size(), readable_bytes_);
    const ssize_t received = recv(socket_, buffer_.data(), wanted, MSG_DONTWAIT);
    if (received <= 0) return;
    readable_bytes_ -= static_cast<size_t>(received);
  }
}

}  // namespace millrace
