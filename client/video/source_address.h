// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <map>
#include <string>

#include "absl/status/statusor.h"

namespace millrace {
inline namespace client {

// What a source doesn't say of itself: how raw frames on stdin look, what a camera is asked for,
// and how RTSP travels.
struct CaptureFormat {
  int width = 0;  // 0: not said.
  int height = 0;
  std::string pixels = {};          // libav's name: rgb24, bgr24, gray8, nv12, yuv420p, mjpeg, …
  double frames_per_second = 0;     // 0: not said.
  std::string rtsp_transport = {};  // tcp or udp; empty: TCP, or UDP where the server says so.
};

// What a name on the command line stands for.
struct SourceAddress {
  enum class Kind {
    kFiles,   // A video, a picture, a folder, a pattern or a numbered sequence.
    kUrl,     // rtsp://, rtsps://, http:// or https://
    kDevice,  // A camera of this machine: /dev/video0
    kStdin,   // -
  };

  explicit SourceAddress(std::string source);

  // Whether frames come when they come: such a source is connected again when it breaks off.
  bool is_live() const { return kind == Kind::kUrl || kind == Kind::kDevice; }

  std::string name;   // As it was given.
  std::string label;  // For people: without the password of a URL.
  Kind kind;
};

// What libav is to open: a file's name or a URL, the format where it isn't to find out, and
// options.
struct MediaInput {
  std::string url;
  std::string label;
  std::string format = {};
  std::map<std::string, std::string> options = {};
  bool from_stdin = false;
};

// How the source is opened, one of files apart. INVALID_ARGUMENT where `format` says too little for
// it.
absl::StatusOr<MediaInput> InputFor(const SourceAddress& address, const CaptureFormat& format);

}  // namespace client
}  // namespace millrace
