// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/channel/sealed_bytes.h"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

namespace millrace {
namespace {

TEST(SealedBytes, CrossWholeAndUnchanged) {
  std::vector<std::byte> bytes(100'000);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i * 7);
  const absl::StatusOr<UniqueFd> fd = SealedBytes::Copy(bytes);
  ASSERT_TRUE(fd.ok()) << fd.status();
  absl::StatusOr<SealedBytes> mapped = SealedBytes::Map(fd->get());
  ASSERT_TRUE(mapped.ok()) << mapped.status();
  SealedBytes moved;
  moved = *std::move(mapped);
  EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), moved.bytes().begin(), moved.bytes().end()));
}

TEST(SealedBytes, NobodyCanChangeThem) {
  const std::vector<std::byte> bytes(100, std::byte{7});
  const absl::StatusOr<UniqueFd> fd = SealedBytes::Copy(bytes);
  ASSERT_TRUE(fd.ok()) << fd.status();
  EXPECT_EQ(pwrite(fd->get(), "x", 1, 0), -1);
  EXPECT_EQ(ftruncate(fd->get(), 50), -1);
  EXPECT_EQ(ftruncate(fd->get(), 200), -1);
  EXPECT_EQ(mmap(nullptr, 100, PROT_READ | PROT_WRITE, MAP_SHARED, fd->get(), 0), MAP_FAILED);
}

TEST(SealedBytes, WhatIsNoFileIsAnError) { EXPECT_FALSE(SealedBytes::Map(-1).ok()); }

}  // namespace
}  // namespace millrace
