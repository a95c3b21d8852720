// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/config_inferrer.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class ConfigInferrerTest : public testing::Test {
 protected:
  ConfigInferrerTest() {
    std::string pattern = (fs::path(testing::TempDir()) / "millrace-XXXXXX").string();
    root_ = ::mkdtemp(pattern.data());
  }
  ~ConfigInferrerTest() override { fs::remove_all(root_); }

  void Write(const std::string& within, const std::string& text) const {
    fs::create_directories((root_ / within).parent_path());
    std::ofstream(root_ / within) << text;
  }

  ModelDirectory Complete() {
    ModelDirectory directory = ReadModelDirectory((root_ / "models/net").string());
    inferrer_.Complete(directory);
    return directory;
  }

  fs::path root_;
  absl::Status status_;
  int inspections_ = 0;
  ConfigInferrer inferrer_{
      [this](const ModelVersion& version, int, int) -> absl::StatusOr<Inspection> {
        ++inspections_;
        if (!status_.ok()) return status_;
        Inspection found;
        found.engine = version.engine;
        found.inputs = {{"x", DataType::kFp32, {4}}};
        found.outputs = {{"y", DataType::kFp32, {version.number}}};
        found.max_batch_size = 8;
        return found;
      }};
};

TEST_F(ConfigInferrerTest, APackageWithoutConfigGetsTheOneThatItTells) {
  Write("models/net/1/model.pt2", "old");
  Write("models/net/3/model.pt2", "new");
  const ModelDirectory net = Complete();
  ASSERT_TRUE(net.status.ok()) << net.status;
  EXPECT_EQ(net.settings->max_batch_size, 8);
  EXPECT_EQ(net.settings->outputs[0].dims, Shape({3}));  // The newest version's.
  ASSERT_EQ(net.versions.size(), 1u);
  EXPECT_EQ(net.versions[0].number, 3);
}

TEST_F(ConfigInferrerTest, AConfigThatIsThereCountsAlsoABadOne) {
  Write("models/net/1/model.pt2", "");
  Write("models/net/config.pbtxt", "nonsense");
  EXPECT_FALSE(Complete().status.ok());
  EXPECT_EQ(inspections_, 0);
}

TEST_F(ConfigInferrerTest, TorchScriptTellsTooLittle) {
  Write("models/net/1/model.pt", "");
  const ModelDirectory net = Complete();
  EXPECT_EQ(net.status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(net.status.message()), HasSubstr("millrace inspect"));
  EXPECT_EQ(inspections_, 0);
}

TEST_F(ConfigInferrerTest, APackageBesideTorchScriptIsNotTaken) {
  Write("models/net/1/model.pt", "");
  Write("models/net/1/model.pt2", "");
  EXPECT_EQ(Complete().status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(inspections_, 0);
}

TEST_F(ConfigInferrerTest, AFileIsInspectedAgainOnlyWhenItHasChanged) {
  Write("models/net/1/model.pt2", "one");
  Complete();
  Complete();
  EXPECT_EQ(inspections_, 1);
  Write("models/net/1/model.pt2", "another");
  EXPECT_TRUE(Complete().status.ok());
  EXPECT_EQ(inspections_, 2);
}

TEST_F(ConfigInferrerTest, WhatIsInTheWayIsTold) {
  Write("models/net/1/model.pt2", "one");
  status_ = absl::InvalidArgumentError("it is empty");
  const ModelDirectory net = Complete();
  EXPECT_EQ(net.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(net.status.message()), HasSubstr("no config.pbtxt"));
  EXPECT_THAT(std::string(net.status.message()), HasSubstr("it is empty"));
}

}  // namespace
}  // namespace millrace
