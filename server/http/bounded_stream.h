// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <httplib.h>

#include <array>
#include <cstddef>
#include <string>

#include "absl/time/time.h"

namespace millrace {

// A connected socket as cpp-httplib's stream, with a limit on the bytes it reads and on its time;
// past either, reads and writes fail. Does not own the socket. Confined to one thread.
class BoundedStream final : public httplib::Stream {
 public:
  // `socket` is connected. `deadline` is the real clock's.
  BoundedStream(int socket, size_t max_read_bytes, absl::Time deadline);

  bool is_readable() const override;
  bool is_writable() const override;
  ssize_t read(char* data, size_t size) override;
  ssize_t write(const char* data, size_t size) override;
  void get_remote_ip_and_port(std::string& ip, int& port) const override;
  void get_local_ip_and_port(std::string& ip, int& port) const override;
  socket_t socket() const override { return socket_; }

  // Throws away what has arrived and was not read, up to the limit: a socket closed over unread
  // bytes resets the connection, and its peer may lose the answer.
  void DiscardUnread();

 private:
  // Waits for poll(2)'s `events`, until the deadline.
  bool WaitFor(short events) const;  // NOLINT(google-runtime-int): poll's own type.

  const int socket_;
  size_t readable_bytes_;
  const absl::Time deadline_;
  std::array<char, 2048> buffer_;  // cpp-httplib reads byte by byte.
  size_t buffer_begin_ = 0;
  size_t buffer_end_ = 0;
};

}  // namespace millrace
