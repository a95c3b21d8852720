// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/channel/model_memory.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>

namespace millrace {
namespace {

using testing::HasSubstr;

constexpr size_t kBufferBytes = kBatchHeaderBytes + 100;

std::unique_ptr<ModelMemory> NewMemory() {
  auto memory = ModelMemory::Create({.mailboxes = 2, .buffers = 3, .buffer_bytes = kBufferBytes});
  EXPECT_TRUE(memory.ok()) << memory.status();
  return *std::move(memory);
}

TEST(ModelMemory, BothSidesSeeTheSameBytes) {
  const auto server = NewMemory();
  const auto worker = ModelMemory::Open(server->fd());
  ASSERT_TRUE(worker.ok()) << worker.status();
  EXPECT_EQ((*worker)->fd(), -1);
  EXPECT_EQ((*worker)->mailboxes(), 2);
  EXPECT_EQ((*worker)->buffers(), 3);
  EXPECT_EQ((*worker)->buffer_bytes(), AlignUp(kBufferBytes, kPageSize));
  for (size_t i = 0; i < 3; ++i) {
    *server->buffer_begin(i) = static_cast<std::byte>(i + 1);
    server->buffer_begin(i)[server->buffer_bytes() - 1] = static_cast<std::byte>(i + 11);
  }
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ((*worker)->buffer_begin(i)[0], static_cast<std::byte>(i + 1));
    EXPECT_EQ((*worker)->buffer_begin(i)[server->buffer_bytes() - 1],
              static_cast<std::byte>(i + 11));
  }
  server->mailbox(1)->posted = 5;
  EXPECT_EQ((*worker)->mailbox(1)->posted, 5);
  EXPECT_EQ((*worker)->mailbox(0)->posted, 0);
}

TEST(ModelMemory, PartsStartOnPagesAndDoNotOverlap) {
  const auto memory = NewMemory();
  const auto begin = reinterpret_cast<uintptr_t>(memory->mailbox(0)) - kPageSize;
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory->mailbox(i)), begin + kPageSize * (1 + i));
  }
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(reinterpret_cast<uintptr_t>(memory->buffer_begin(i)),
              begin + kPageSize * 3 + i * memory->buffer_bytes());
    EXPECT_EQ(memory->buffer(i).index(), i);
  }
}

TEST(ModelMemory, CanNeitherShrinkNorGrowNorBeUnsealed) {
  const auto memory = NewMemory();
  struct stat file = {};
  ASSERT_EQ(fstat(memory->fd(), &file), 0);
  for (const off_t size : {off_t{0}, file.st_size - 1, file.st_size + 1}) {
    EXPECT_EQ(ftruncate(memory->fd(), size), -1);
    EXPECT_EQ(errno, EPERM);
  }
  EXPECT_EQ(fcntl(memory->fd(), F_ADD_SEALS, F_SEAL_WRITE), -1);
  EXPECT_EQ(errno, EPERM);
  EXPECT_EQ(fcntl(memory->fd(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
}

TEST(ModelMemory, TakesNoMemoryBeforeItIsWritten) {
  const auto memory =
      ModelMemory::Create({.mailboxes = 1, .buffers = 4, .buffer_bytes = size_t{4} << 30});
  ASSERT_TRUE(memory.ok()) << memory.status();
  struct stat file = {};
  ASSERT_EQ(fstat((*memory)->fd(), &file), 0);
  EXPECT_GT(file.st_size, off_t{16} << 30);
  EXPECT_LE(file.st_blocks * 512, 1 << 20);
}

TEST(ModelMemory, OpenRefusesWhatIsNoModelMemory) {
  EXPECT_FALSE(ModelMemory::Open(-1).ok());

  const UniqueFd empty(memfd_create("empty", MFD_CLOEXEC));
  EXPECT_EQ(ModelMemory::Open(empty.get()).status().code(), absl::StatusCode::kInternal);

  const UniqueFd zeros(memfd_create("zeros", MFD_CLOEXEC));
  ASSERT_EQ(ftruncate(zeros.get(), 10 * kPageSize), 0);
  const auto other_magic = ModelMemory::Open(zeros.get());
  EXPECT_EQ(other_magic.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(other_magic.status().message()), HasSubstr("different builds"));

  const MemoryHeader too_many = {
      .magic = kChannelMagic, .mailboxes = 1, .buffers = 100, .buffer_bytes = kPageSize};
  ASSERT_EQ(pwrite(zeros.get(), &too_many, sizeof(too_many), 0), sizeof(too_many));
  EXPECT_EQ(ModelMemory::Open(zeros.get()).status().code(), absl::StatusCode::kFailedPrecondition);
}

// The header lies in memory that the worker may write to.
TEST(ModelMemory, ServerDoesNotBelieveAHeaderThatTheWorkerHasOverwritten) {
  const auto server = NewMemory();
  const std::byte* const second = server->buffer_begin(1);
  {
    void* const page =
        mmap(nullptr, kPageSize, PROT_READ | PROT_WRITE, MAP_SHARED, server->fd(), 0);
    ASSERT_NE(page, MAP_FAILED);
    MemoryHeader lies;
    std::memset(&lies, 0x7f, sizeof(lies));
    lies.mailboxes = 0;
    std::memcpy(page, &lies, sizeof(lies));
    munmap(page, kPageSize);
  }
  EXPECT_EQ(server->mailboxes(), 2);
  EXPECT_EQ(server->buffers(), 3);
  EXPECT_EQ(server->buffer_begin(1), second);
  server->mailbox(1)->posted = 1;
}

TEST(ModelMemoryDeathTest, ThereAreNoMoreBuffersThanWereMade) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const auto memory = NewMemory();
  EXPECT_DEATH(memory->buffer_begin(3), "one of the model's");
  EXPECT_DEATH(memory->mailbox(2), "one mailbox per replica");
}

}  // namespace
}  // namespace millrace
