// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// The table never looks into a model, so a number stands for one.
#include "server/repository/model_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

using Share = ModelTable::Share;
using Released = ModelTable::Released;

Share NewModel() {
  const auto number = std::make_shared<int>(0);
  return {number, reinterpret_cast<ServedModel*>(number.get())};
}

ModelDirectory OnDisk(std::vector<int64_t> versions, const std::string& stamp = "a") {
  ModelDirectory directory;
  directory.name = "m";
  for (const int64_t number : versions) {
    directory.versions.push_back(
        {.number = number, .status = {}, .path = "", .package = "", .stamp = stamp});
  }
  return directory;
}

class ModelTableTest : public testing::Test {
 protected:
  // Begins the loads that the directory asks for; the versions that were begun.
  std::vector<int64_t> Refresh(const ModelDirectory& directory, bool again = false) {
    std::vector<int64_t> versions;
    for (const ModelTable::Begun& begun : table_.Refresh(directory, again, released_)) {
      versions.push_back(begun.version);
      attempts_[begun.version] = begun.attempt;
    }
    return versions;
  }

  Share Finish(int64_t version) { return Finish(version, attempts_[version]); }
  Share Finish(int64_t version, uint64_t attempt) {
    Share model = NewModel();
    counted_ = table_.Finish("m", version, attempt, model, released_);
    return model;
  }
  void Fail(int64_t version, const std::string& why = "broken") {
    table_.Finish("m", version, attempts_[version], absl::InternalError(why), released_);
  }

  // Whom a request gets that asks for `version`; null where it gets an error.
  Share Found(const std::string& version = "") {
    const absl::StatusOr<Share> found = table_.Find("m", version);
    return found.ok() ? *found : nullptr;
  }
  std::string Message(const std::string& version = "") {
    return std::string(table_.Find("m", version).status().message());
  }
  ModelState StateOf(int64_t version) {
    return table_.models().at("m").versions.at(version).state();
  }

  ModelTable table_;
  Released released_;
  std::map<int64_t, uint64_t> attempts_;
  bool counted_ = false;
};

TEST_F(ModelTableTest, WhatWasLoadedIsFoundByVersionAndTheNewestWithout) {
  EXPECT_THAT(Refresh(OnDisk({1, 2})), ElementsAre(1, 2));
  EXPECT_EQ(StateOf(1), ModelState::kLoading);
  EXPECT_THAT(Message(), HasSubstr("is being loaded"));
  const Share first = Finish(1);
  EXPECT_EQ(Found(), first);
  const Share second = Finish(2);
  EXPECT_EQ(Found(), second);
  EXPECT_EQ(Found("1"), first);
  EXPECT_TRUE(absl::IsNotFound(table_.Find("m", "3").status()));
  EXPECT_TRUE(absl::IsNotFound(table_.Find("m", "x").status()));
  EXPECT_TRUE(absl::IsNotFound(table_.Find("n", "").status()));
}

TEST_F(ModelTableTest, OnlyWhatDiffersIsLoadedAgain) {
  Refresh(OnDisk({1, 2}));
  Finish(1);
  Finish(2);
  EXPECT_THAT(Refresh(OnDisk({1, 2})), IsEmpty());
  EXPECT_THAT(Refresh(OnDisk({1, 2}, "b")), ElementsAre(1, 2));
  EXPECT_THAT(Refresh(OnDisk({1, 2}, "b"), /*again=*/true), ElementsAre(1, 2));
}

TEST_F(ModelTableTest, OldLoadServesUntilTheNewOneDoes) {
  Refresh(OnDisk({1}));
  const Share old = Finish(1);
  Refresh(OnDisk({1}, "b"));
  EXPECT_EQ(Found(), old);
  EXPECT_EQ(StateOf(1), ModelState::kReady);
  EXPECT_EQ(table_.Predecessor("m", 1), old);
  const Share fresh = Finish(1);
  EXPECT_EQ(Found(), fresh);
  EXPECT_THAT(released_, ElementsAre(old));
}

TEST_F(ModelTableTest, OldLoadServesOnWhereTheNewOneFailsAndTheReasonIsKept) {
  Refresh(OnDisk({1}));
  const Share old = Finish(1);
  Refresh(OnDisk({1}, "b"));
  Fail(1, "no such thing");
  EXPECT_EQ(Found(), old);
  EXPECT_THAT(released_, IsEmpty());
  EXPECT_THAT(std::string(table_.Outcome("m").message()), HasSubstr("no such thing"));
  EXPECT_THAT(Refresh(OnDisk({1}, "b")), IsEmpty()) << "Tried again though nothing had changed.";
  EXPECT_THAT(Refresh(OnDisk({1}, "c")), ElementsAre(1));
}

TEST_F(ModelTableTest, VersionThatIsNoLongerSelectedLeavesWhenTheOthersServe) {
  Refresh(OnDisk({1, 2}));
  const Share first = Finish(1);
  const Share second = Finish(2);
  EXPECT_THAT(Refresh(OnDisk({2, 3})), ElementsAre(3));
  EXPECT_EQ(Found("1"), first);
  EXPECT_EQ(table_.Predecessor("m", 3), first);
  Fail(3);
  EXPECT_EQ(Found("1"), first);
  EXPECT_THAT(Refresh(OnDisk({2, 3}), /*again=*/true), ElementsAre(2, 3));
  Finish(3);
  EXPECT_EQ(Found("1"), nullptr);
  EXPECT_THAT(released_, ElementsAre(first))
      << "2 serves, though a newer load of it is on its way.";
  EXPECT_EQ(StateOf(1), ModelState::kUnloading);
  table_.Ended("m", 1);
  EXPECT_TRUE(absl::IsNotFound(table_.Find("m", "1").status()));
  EXPECT_EQ(Found("2"), second);
}

TEST_F(ModelTableTest, VersionWithoutAFileKeepsNobody) {
  Refresh(OnDisk({1}));
  const Share old = Finish(1);
  ModelDirectory directory = OnDisk({2, 7});
  directory.versions[1].status = absl::NotFoundError("no such directory");
  EXPECT_THAT(Refresh(directory), ElementsAre(2));
  Finish(2);
  EXPECT_THAT(released_, ElementsAre(old));
  EXPECT_THAT(Message("7"), HasSubstr("no such directory"));
}

TEST_F(ModelTableTest, ConfigurationThatMakesNoSenseLeavesWhatServes) {
  Refresh(OnDisk({1}));
  const Share model = Finish(1);
  ModelDirectory broken = OnDisk({});
  broken.status = absl::InvalidArgumentError("line 3");
  EXPECT_THAT(Refresh(broken), IsEmpty());
  EXPECT_EQ(Found(), model);
  EXPECT_THAT(std::string(table_.Outcome("m").message()), HasSubstr("line 3"));
  Refresh(OnDisk({1}));
  EXPECT_TRUE(table_.Outcome("m").ok());
}

TEST_F(ModelTableTest, OfTwoLoadsOnlyTheOneThatWasBegunLastCounts) {
  Refresh(OnDisk({1}));
  const uint64_t first = attempts_[1];
  Refresh(OnDisk({1}, "b"));
  EXPECT_FALSE(table_.IsCurrent("m", 1, first));
  const Share last = Finish(1);
  EXPECT_TRUE(counted_);
  Finish(1, first);
  EXPECT_FALSE(counted_);
  EXPECT_EQ(Found(), last);
}

TEST_F(ModelTableTest, UnloadedModelTakesNoRequestsAndCanBeLoadedAgain) {
  Refresh(OnDisk({1}));
  const Share model = Finish(1);
  EXPECT_THAT(table_.Unload("m"), ElementsAre(model));
  EXPECT_EQ(StateOf(1), ModelState::kUnloading);
  EXPECT_THAT(Message(), HasSubstr("is being unloaded"));
  table_.Ended("m", 1);
  EXPECT_EQ(StateOf(1), ModelState::kUnavailable);
  EXPECT_THAT(Message(), HasSubstr("unloaded"));
  EXPECT_THAT(Refresh(OnDisk({1})), ElementsAre(1));
  EXPECT_EQ(Found(), nullptr);
  const Share again = Finish(1);
  EXPECT_EQ(Found(), again);
}

TEST_F(ModelTableTest, LoadThatIsOnItsWayWhenItsModelIsUnloadedDoesNotCount) {
  Refresh(OnDisk({1}));
  EXPECT_THAT(table_.Unload("m"), IsEmpty());
  EXPECT_TRUE(table_.IsSettled("m"));
  EXPECT_EQ(StateOf(1), ModelState::kUnloading);
  Finish(1);
  EXPECT_FALSE(counted_);
  EXPECT_EQ(Found(), nullptr);
  table_.Ended("m", 1);
  EXPECT_EQ(StateOf(1), ModelState::kUnavailable);
}

TEST_F(ModelTableTest, RemovedModelIsForgottenOnceItHasEnded) {
  Refresh(OnDisk({1, 2}));
  Finish(1);
  const uint64_t late = attempts_[2];
  EXPECT_THAT(table_.Remove("m"), SizeIs(1));
  table_.Ended("m", 1);
  EXPECT_EQ(table_.models().count("m"), 1u) << "A load of it is on its way.";
  Finish(2, late);
  table_.Ended("m", 2);
  EXPECT_EQ(table_.models().count("m"), 0u);
}

TEST_F(ModelTableTest, SuspendedVersionMakesRoomForItsSuccessor) {
  Refresh(OnDisk({1}));
  const Share old = Finish(1);
  Refresh(OnDisk({2}));
  EXPECT_THAT(table_.Suspend("m", 2), ElementsAre(old));
  EXPECT_THAT(Message(), HasSubstr("is being loaded"));
  const Share fresh = Finish(2);
  EXPECT_EQ(Found(), fresh);
}

TEST_F(ModelTableTest, KnownModelThatWasNeverLoadedSaysSo) {
  table_.Add(OnDisk({1}), absl::UnavailableError("not loaded"));
  EXPECT_THAT(Message(), HasSubstr("not loaded"));
  EXPECT_THAT(Message("1"), HasSubstr("not loaded"));
}

}  // namespace
}  // namespace millrace
