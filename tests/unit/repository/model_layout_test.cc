// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/model_layout.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr EngineKind kScript = EngineKind::kTorchScript;

class ModelLayoutTest : public testing::Test {
 protected:
  ModelLayoutTest() {
    std::string pattern = (fs::path(testing::TempDir()) / "millrace-XXXXXX").string();
    root_ = ::mkdtemp(pattern.data());
    Write("net.pt", "the model");
  }
  ~ModelLayoutTest() override { fs::remove_all(root_); }

  std::string Path(const std::string& within) const { return (root_ / within).string(); }

  void Write(const std::string& within, const std::string& text) const {
    fs::create_directories(fs::path(Path(within)).parent_path());
    std::ofstream(Path(within)) << text;
  }

  std::string Read(const std::string& within) const {
    std::ostringstream text;
    text << std::ifstream(Path(within)).rdbuf();
    return text.str();
  }

  absl::StatusOr<ModelPlace> Find(const std::string& folder, bool overwrite = false) const {
    return FindPlace(Path(folder), kScript, Path("net.pt"), overwrite);
  }

  fs::path root_;
};

TEST_F(ModelLayoutTest, AModelIsPutWhereARepositoryHasIt) {
  const auto place = Find("models/net/");
  ASSERT_TRUE(place.ok()) << place.status();
  EXPECT_EQ(PutModel(*place, Path("net.pt"), "max_batch_size: 8\n"), absl::OkStatus());
  EXPECT_EQ(Read("models/net/config.pbtxt"), "max_batch_size: 8\n");
  EXPECT_EQ(Read("models/net/1/model.pt"), "the model");
  EXPECT_EQ(std::distance(fs::recursive_directory_iterator(Path("models/net")), {}), 3);
}

TEST_F(ModelLayoutTest, WhatIsThereIsReplacedOnlyWhenThatIsSaid) {
  for (const char* const file : {"models/a/config.pbtxt", "models/b/1/model.pt"}) {
    Write(file, "old");
    const std::string folder = std::string(file).substr(0, 8);
    const absl::Status status = Find(folder).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("--force"));
    EXPECT_EQ(Read(file), "old");
    const auto place = Find(folder, /*overwrite=*/true);
    ASSERT_TRUE(place.ok()) << place.status();
    EXPECT_EQ(PutModel(*place, Path("net.pt"), "new"), absl::OkStatus());
    EXPECT_NE(Read(file), "old");
  }
}

TEST_F(ModelLayoutTest, AModelThatIsInItsPlaceStaysAndGetsItsConfig) {
  Write("models/net/1/model.pt", "in place");
  const std::string source = Path("models/net/1/model.pt");
  const auto place = FindPlace(Path("models/net"), kScript, source, /*overwrite=*/false);
  ASSERT_TRUE(place.ok()) << place.status();
  EXPECT_EQ(PutModel(*place, source, "config"), absl::OkStatus());
  EXPECT_EQ(Read("models/net/1/model.pt"), "in place");
  EXPECT_EQ(Read("models/net/config.pbtxt"), "config");
}

TEST_F(ModelLayoutTest, AModelOfTheOtherKindIsNeverJoined) {
  Write("models/net/1/model.pt2", "package");
  EXPECT_THAT(std::string(Find("models/net", /*overwrite=*/true).status().message()),
              HasSubstr("model.pt2 exists"));
}

TEST_F(ModelLayoutTest, AFolderThatCantNameAModelIsRefused) {
  for (const char* const folder : {"models/.hidden", "models/two words", "models/-x"}) {
    EXPECT_EQ(Find(folder).status().code(), absl::StatusCode::kInvalidArgument) << folder;
  }
}

TEST_F(ModelLayoutTest, ADiskThatRefusesIsAnErrorThatNamesTheFile) {
  const auto place = Find("models/net");
  ASSERT_TRUE(place.ok()) << place.status();
  const absl::Status status = PutModel(*place, Path("gone.pt"), "config");
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("model.pt.new"));
  EXPECT_FALSE(fs::exists(Path("models/net/1/model.pt")));
  EXPECT_FALSE(fs::exists(Path("models/net/config.pbtxt")));
}

}  // namespace
}  // namespace millrace
