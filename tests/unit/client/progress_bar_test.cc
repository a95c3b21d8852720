// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/progress_bar.h"

#include <gtest/gtest.h>

#include <sstream>

#include "absl/time/clock.h"

namespace millrace {
namespace {

TEST(ProgressBar, OnATerminalOneLineIsRenewedAndRemoved) {
  std::ostringstream out;
  ProgressBar bar(out, /*is_terminal=*/true, "files", /*total=*/200, /*before=*/50);
  const absl::Time start = absl::Now();
  bar.Show(50, 10, start);
  EXPECT_EQ(out.str(),
            "\r\x1b[K[###############...............] 100/200 files  10.0 files/s  10s left");
  bar.Show(51, 10, start + absl::Milliseconds(50));  // So soon nobody could read it.
  EXPECT_EQ(out.str().find("101/200"), std::string::npos);
  bar.Show(52, 10, start + absl::Milliseconds(150));
  EXPECT_NE(out.str().find("102/200"), std::string::npos);
  bar.Clear();
  const std::string cleared = out.str();
  EXPECT_EQ(cleared.substr(cleared.size() - 4), "\r\x1b[K");
  bar.Clear();
  EXPECT_EQ(out.str(), cleared);
}

TEST(ProgressBar, ElsewhereThereIsALineEveryFewSeconds) {
  std::ostringstream out;
  ProgressBar bar(out, /*is_terminal=*/false, "files", /*total=*/10);
  const absl::Time start = absl::Now();
  bar.Show(1, 0.5, start + absl::Seconds(1));
  EXPECT_EQ(out.str(), "");
  bar.Show(2, 0.5, start + absl::Seconds(6));
  bar.Show(3, 0.5, start + absl::Seconds(7));
  EXPECT_EQ(out.str(), "2/10 files  0.5 files/s  16s left\n");
  bar.Clear();
  EXPECT_EQ(out.str(), "2/10 files  0.5 files/s  16s left\n");
}

TEST(ProgressBar, ATotalThatIsNotKnownIsNotShown) {
  std::ostringstream out;
  ProgressBar bar(out, /*is_terminal=*/true, "frames", /*total=*/0);
  bar.Show(7, 2, absl::Now());
  EXPECT_EQ(out.str(), "\r\x1b[K7 frames  2.0 frames/s");
}

}  // namespace
}  // namespace millrace
