// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// With real files, and the real clock: what the kernel tells of them can't be played.
#include "server/repository/model_watcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "server/base/mutex.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

using testing::ElementsAre;

constexpr absl::Duration kLongTime = absl::Seconds(30);  // None of these tests takes so long.

class ModelWatcherTest : public testing::Test {
 protected:
  ModelWatcherTest() {
    std::string pattern = testing::TempDir() + "/watcher-XXXXXX";
    root_ = mkdtemp(pattern.data());
    fs::create_directory(root_ / "models");
    Write("models/a/config.pbtxt", "a");
    Write("models/a/1/model.pt", "one");
  }
  ~ModelWatcherTest() override {
    watcher_.reset();
    fs::remove_all(root_);
  }

  void Write(const std::string& path, const std::string& text) {
    fs::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }

  void Start(const std::string& folder = "models", absl::Duration poll = absl::Hours(1),
             std::function<bool(const std::string&)> is_remote = IsOnRemoteFileSystem) {
    auto started =
        ModelWatcher::Start({.repositories = {(root_ / folder).string()},
                             .settle_time = absl::Milliseconds(50),
                             .poll_interval = poll,
                             .is_remote = std::move(is_remote)},
                            Clock::Real(), [this](const std::vector<std::string>& models) {
                              MutexLock lock(mutex_);
                              told_.insert(told_.end(), models.begin(), models.end());
                              changed_.NotifyAll();
                            });
    ASSERT_TRUE(started.ok()) << started.status();
    watcher_ = *std::move(started);
  }

  // The next model that the watcher tells of.
  std::string Told() {
    const absl::Time deadline = Clock::Real().Now() + kLongTime;
    MutexLock lock(mutex_);
    while (told_.empty()) {
      if (Clock::Real().Now() > deadline) return "nothing";
      Clock::Real().WaitUntil(changed_, mutex_, deadline);
    }
    const std::string first = told_.front();
    told_.erase(told_.begin());
    return first;
  }

  fs::path root_;
  std::unique_ptr<ModelWatcher> watcher_;
  Mutex mutex_;
  CondVar changed_;
  std::vector<std::string> told_ ABSL_GUARDED_BY(mutex_);
};

TEST_F(ModelWatcherTest, TellsOfWhatChanges) {
  Start();
  EXPECT_FALSE(watcher_->polls());
  Write("models/a/config.pbtxt", "changed");
  EXPECT_EQ(Told(), "a");
  Write("models/a/1/model.pt", "another one");
  EXPECT_EQ(Told(), "a");
}

TEST_F(ModelWatcherTest, TellsOfNewVersionsAndOfWhatChangesInThem) {
  Start();
  Write("models/a/2/model.pt", "two");
  EXPECT_EQ(Told(), "a");
  Write("models/a/2/model.pt", "two and more");
  EXPECT_EQ(Told(), "a");
}

TEST_F(ModelWatcherTest, TellsOfModelsThatComeAndGo) {
  Start();
  Write("models/b/1/model.pt", "new");
  EXPECT_EQ(Told(), "b");
  Write("models/b/config.pbtxt", "now complete");
  EXPECT_EQ(Told(), "b");
  fs::remove_all(root_ / "models/a");
  EXPECT_EQ(Told(), "a");
}

TEST_F(ModelWatcherTest, TellsOfADirectoryThatTakesAnothersPlace) {
  Start();
  Write("aside/config.pbtxt", "a");
  Write("aside/1/model.pt", "one");
  fs::rename(root_ / "models/a", root_ / "old");
  fs::rename(root_ / "aside", root_ / "models/a");
  EXPECT_EQ(Told(), "a");
  Write("models/a/1/model.pt", "changed in the new one");
  EXPECT_EQ(Told(), "a");
}

TEST_F(ModelWatcherTest, TellsOfLinksThatAreSwappedAsKubernetesDoes) {
  Write("volume/..first/m.pt", "first");
  Write("volume/..second/m.pt", "second");
  fs::create_directory_symlink("..first", root_ / "volume/..data");
  fs::create_directories(root_ / "models/linked/1");
  fs::create_symlink("../../../volume/..data/m.pt", root_ / "models/linked/1/model.pt");
  Start();
  fs::create_directory_symlink("..second", root_ / "volume/..data_tmp");
  fs::rename(root_ / "volume/..data_tmp", root_ / "volume/..data");
  EXPECT_EQ(Told(), "linked");
}

TEST_F(ModelWatcherTest, TellsOfARepositoryThatIsALinkAndIsSwapped) {
  Write("other/a/config.pbtxt", "another a");
  fs::create_directory_symlink("models", root_ / "current");
  Start("current");
  fs::create_directory_symlink("other", root_ / "next");
  fs::rename(root_ / "next", root_ / "current");
  EXPECT_EQ(Told(), "a");
}

// Made through a link, which the watched folder doesn't lead to, a change brings no event.
TEST_F(ModelWatcherTest, FindsChangesOfARemoteRepositoryThatNobodyTellsOf) {
  Write("elsewhere/model.pt", "one");
  fs::create_hard_link(root_ / "elsewhere/model.pt", root_ / "models/a/1/weights.pt");
  Start("models", absl::Milliseconds(20), [](const std::string&) { return true; });
  EXPECT_TRUE(watcher_->polls());
  Write("elsewhere/model.pt", "another");
  EXPECT_EQ(Told(), "a");
}

TEST_F(ModelWatcherTest, RepositoryThatCantBeReadTakesNothingAway) {
  Start("models", absl::Milliseconds(20));
  fs::rename(root_ / "models", root_ / "away");
  Write("away/b/config.pbtxt", "b");
  fs::rename(root_ / "away", root_ / "models");
  EXPECT_EQ(Told(), "b");  // And not "a".
}

}  // namespace
}  // namespace millrace
