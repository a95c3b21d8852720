// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/replica/scratch_folder.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

namespace millrace {
namespace {

namespace fs = std::filesystem;

// Makes $TMPDIR an empty folder of the test's own.
class ScratchFolderTest : public testing::Test {
 protected:
  ScratchFolderTest() {
    std::string pattern = testing::TempDir() + "/scratch-XXXXXX";
    outer_ = mkdtemp(pattern.data());
    setenv("TMPDIR", outer_.c_str(), 1);
  }
  ~ScratchFolderTest() override {
    unsetenv("TMPDIR");
    fs::remove_all(outer_);
  }

  std::unique_ptr<ScratchFolder> Make() {
    auto made = ScratchFolder::Create(getuid());
    EXPECT_TRUE(made.ok()) << made.status();
    return *std::move(made);
  }

  std::string outer_;
};

TEST_F(ScratchFolderTest, GoesWithEverythingInIt) {
  auto folder = Make();
  EXPECT_TRUE(fs::is_empty(folder->path()));
  EXPECT_EQ(fs::status(folder->path()).permissions() & fs::perms::others_all, fs::perms::none);
  fs::create_directory(folder->path() + "/inner");
  std::ofstream(folder->path() + "/inner/file") << "content";
  folder.reset();
  EXPECT_TRUE(fs::is_empty(outer_));
}

TEST_F(ScratchFolderTest, OneThatIsInUseStaysAndOneThatWasLeftGoes) {
  const auto first = Make();
  fs::create_directory(outer_ + "/millrace-package-left");
  fs::create_directory(outer_ + "/another-program's");
  const auto second = Make();
  EXPECT_NE(first->path(), second->path());
  EXPECT_TRUE(fs::exists(first->path()));
  EXPECT_FALSE(fs::exists(outer_ + "/millrace-package-left"));
  EXPECT_TRUE(fs::exists(outer_ + "/another-program's"));
}

}  // namespace
}  // namespace millrace
