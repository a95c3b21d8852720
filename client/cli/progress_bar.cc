// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/progress_bar.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"

namespace millrace {
inline namespace client {
namespace {

constexpr int kWidth = 30;
constexpr absl::Duration kOnTerminal = absl::Milliseconds(100);
constexpr absl::Duration kElsewhere = absl::Seconds(5);

}  // namespace

ProgressBar::ProgressBar(std::ostream& out, bool is_terminal, const char* unit, int64_t total,
                         int64_t before)
    : out_(out),
      is_terminal_(is_terminal),
      unit_(unit),
      total_(total),
      before_(before),
      shown_at_(is_terminal ? absl::InfinitePast() : absl::Now()) {}

void ProgressBar::Show(int64_t done, double per_second, absl::Time now) {
  if (now - shown_at_ < (is_terminal_ ? kOnTerminal : kElsewhere)) return;
  shown_at_ = now;
  visible_ = is_terminal_;
  done += before_;
  std::string line = is_terminal_ ? "\r\x1b[K" : "";
  if (total_ > 0) {
    const int full = static_cast<int>(kWidth * std::min(done, total_) / total_);
    if (is_terminal_) {
      absl::StrAppendFormat(&line, "[%s%s] ", std::string(full, '#'),
                            std::string(kWidth - full, '.'));
    }
    absl::StrAppendFormat(&line, "%d/%d", done, total_);
  } else {
    absl::StrAppendFormat(&line, "%d", done);
  }
  absl::StrAppendFormat(&line, " %s  %.1f %s/s", unit_, per_second, unit_);
  if (total_ > done && per_second > 0) {
    const absl::Duration left = absl::Seconds(static_cast<double>(total_ - done) / per_second);
    absl::StrAppend(&line, "  ", absl::FormatDuration(absl::Ceil(left, absl::Seconds(1))), " left");
  }
  out_ << line << (is_terminal_ ? "" : "\n") << std::flush;
}

void ProgressBar::Clear() {
  if (!visible_) return;
  visible_ = false;
  out_ << "\r\x1b[K" << std::flush;
}

}  // namespace client
}  // namespace millrace
