// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/progress_bar.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_format.h"

namespace millrace {
inline namespace client {
namespace {

constexpr int kWidth = 30;
constexpr absl::Duration kInterval = absl::Milliseconds(100);

}  // namespace

ProgressBar::ProgressBar(std::ostream& terminal, bool is_terminal, int64_t total)
    : terminal_(terminal), is_terminal_(is_terminal), total_(total) {}

void ProgressBar::Show(int64_t done, double per_second, absl::Time now) {
  if (!is_terminal_ || now - shown_at_ < kInterval) return;
  shown_at_ = now;
  visible_ = true;
  std::string line = "\r\x1b[K";
  if (total_ > 0) {
    const int full = static_cast<int>(kWidth * std::min(done, total_) / total_);
    absl::StrAppendFormat(&line, "[%s%s] %d/%d", std::string(full, '#'),
                          std::string(kWidth - full, '.'), done, total_);
  } else {
    absl::StrAppendFormat(&line, "%d frames", done);
  }
  absl::StrAppendFormat(&line, "  %.1f frames/s", per_second);
  terminal_ << line << std::flush;
}

void ProgressBar::Clear() {
  if (!visible_) return;
  visible_ = false;
  terminal_ << "\r\x1b[K" << std::flush;
}

}  // namespace client
}  // namespace millrace
