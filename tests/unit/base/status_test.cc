// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/base/status.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <memory>

namespace millrace {
namespace {

absl::StatusOr<std::unique_ptr<int>> Make(bool good) {
  if (!good) return absl::NotFoundError("no such number");
  return std::make_unique<int>(7);
}

absl::StatusOr<int> Use(bool good) {
  MILLRACE_ASSIGN_OR_RETURN(std::unique_ptr<int> number, Make(good));
  MILLRACE_ASSIGN_OR_RETURN(const auto second, Make(good));
  MILLRACE_RETURN_IF_ERROR(Make(good).status());
  return *number + *second;
}

TEST(Status, AssignOrReturnMovesTheValueOrReturnsTheError) {
  EXPECT_EQ(*Use(true), 14);
  EXPECT_EQ(Use(false).status(), absl::NotFoundError("no such number"));
}

TEST(Status, AnnotateKeepsTheCodeAndLeavesOkAlone) {
  EXPECT_EQ(Annotate(absl::NotFoundError("gone"), "model m"), absl::NotFoundError("model m: gone"));
  EXPECT_TRUE(Annotate(absl::OkStatus(), "model m").ok());
}

TEST(Status, ErrnoStatusNamesTheError) {
  EXPECT_EQ(ErrnoStatus(ENOENT, "open /x").message(),
            "open /x: No such file or directory (errno 2)");
}

}  // namespace
}  // namespace millrace
