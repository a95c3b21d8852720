// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/channel/control_socket.h"

#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/poll.h"
#include "server/base/status.h"

namespace millrace {
namespace {

absl::Status PeerGone() { return absl::UnavailableError("The process at the other end has gone."); }

absl::Status WaitReadable(int fd, absl::Duration timeout) {
  pollfd entry = {.fd = fd, .events = POLLIN, .revents = 0};
  const int ready = Poll({&entry, 1}, timeout);
  if (ready < 0) return ErrnoStatus(errno, "poll on a control socket");
  if (ready == 0) {
    return absl::DeadlineExceededError(
        absl::StrCat("No answer came within ", absl::FormatDuration(timeout), "."));
  }
  return absl::OkStatus();
}

std::vector<UniqueFd> TakeFds(msghdr* message) {
  std::vector<UniqueFd> fds;
  for (cmsghdr* part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
    if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) continue;
    const size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(int));
      fds.emplace_back(fd);
    }
  }
  return fds;
}

}  // namespace

absl::StatusOr<std::pair<ControlSocket, ControlSocket>> ControlSocket::CreatePair() {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) != 0) {
    return ErrnoStatus(errno, "socketpair");
  }
  return std::make_pair(ControlSocket(UniqueFd(fds[0])), ControlSocket(UniqueFd(fds[1])));
}

absl::Status ControlSocket::Send(const std::string& text, const std::vector<int>& fds) const {
  MILLRACE_CHECK(fds.size() <= kMostFds, "A control message carries few file descriptors.");
  if (text.size() > kMostBytes) {
    return absl::ResourceExhaustedError(absl::StrCat("A control message of ", text.size(),
                                                     " bytes; at most ", kMostBytes, " fit."));
  }
  iovec data = {.iov_base = const_cast<char*>(text.data()), .iov_len = text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(kMostFds * sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size() * sizeof(int));
    cmsghdr* part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(fds.size() * sizeof(int));
    std::memcpy(CMSG_DATA(part), fds.data(), fds.size() * sizeof(int));
  }
  ssize_t sent;
  do {
    sent = sendmsg(fd_.get(), &message, MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  if (sent >= 0) return absl::OkStatus();
  if (errno == EPIPE || errno == ECONNRESET) return PeerGone();
  return ErrnoStatus(errno, "sending a control message");
}

absl::StatusOr<ControlMessage> ControlSocket::Receive(absl::Duration timeout) const {
  MILLRACE_RETURN_IF_ERROR(WaitReadable(fd_.get(), timeout));
  std::string text(kMostBytes, '\0');
  iovec data = {.iov_base = text.data(), .iov_len = text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(kMostFds * sizeof(int))] = {};
  msghdr message = {};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t size;
  do {
    size = recvmsg(fd_.get(), &message, MSG_CMSG_CLOEXEC);
  } while (size < 0 && errno == EINTR);
  if (size == 0 || (size < 0 && errno == ECONNRESET)) return PeerGone();
  if (size < 0) return ErrnoStatus(errno, "receiving a control message");
  text.resize(static_cast<size_t>(size));
  ControlMessage received = {.text = std::move(text), .fds = TakeFds(&message)};
  if (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) {
    return absl::InternalError("A control message was cut short.");
  }
  return received;
}

}  // namespace millrace
