// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/video/source_address.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace millrace {
inline namespace client {
namespace {

using Kind = SourceAddress::Kind;

Kind KindOf(const std::string& name) {
  if (name == "-") return Kind::kStdin;
  for (const char* scheme : {"rtsp://", "rtsps://", "http://", "https://"}) {
    if (absl::StartsWithIgnoreCase(name, scheme)) return Kind::kUrl;
  }
  const bool is_device =
      absl::StartsWith(name, "/dev/video") || absl::StartsWith(name, "/dev/v4l/");
  return is_device ? Kind::kDevice : Kind::kFiles;
}

// A URL without its user and password.
std::string WithoutUser(const std::string& url) {
  const size_t host = url.find("//") + 2;
  const size_t at = url.substr(0, url.find_first_of("/?#", host)).rfind('@');
  return at == std::string::npos ? url : absl::StrCat(url.substr(0, host), url.substr(at + 1));
}

}  // namespace

SourceAddress::SourceAddress(std::string source)
    : name(std::move(source)), label(name), kind(KindOf(name)) {
  if (kind == Kind::kUrl) label = WithoutUser(name);
  if (kind == Kind::kStdin) label = "stdin";
}

absl::StatusOr<MediaInput> InputFor(const SourceAddress& address, const CaptureFormat& format) {
  MediaInput input{.url = address.name, .label = address.label};
  if (address.kind == Kind::kUrl) {
    // Over TCP, where the server does that: a frame that lost a packet is damaged.
    if (absl::StartsWithIgnoreCase(address.name, "rtsp")) {
      input.options["analyzeduration"] = "1000000";  // us
      if (format.rtsp_transport.empty()) {
        input.options["rtsp_flags"] = "prefer_tcp";
      } else {
        input.options["rtsp_transport"] = format.rtsp_transport;
      }
    }
    return input;
  }
  const bool has_size = format.width > 0 && format.height > 0;
  if (has_size) input.options["video_size"] = absl::StrCat(format.width, "x", format.height);
  if (format.frames_per_second > 0) {
    input.options["framerate"] = absl::StrCat(format.frames_per_second);
  }
  if (address.kind == Kind::kDevice) {
    input.format = "v4l2";
    if (!format.pixels.empty()) input.options["input_format"] = format.pixels;
  } else {
    input.from_stdin = true;
    if (has_size != !format.pixels.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("raw frames on stdin need their size and their format; ",
                       has_size ? "the format is missing" : "the size is missing"));
    }
    if (has_size) {
      input.format = "rawvideo";
      input.options["pixel_format"] = format.pixels;
    }
  }
  return input;
}

}  // namespace client
}  // namespace millrace
