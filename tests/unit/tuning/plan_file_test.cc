// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/tuning/plan_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <iostream>
#include <iterator>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "tests/unit/hardware/file_tree.h"

namespace millrace {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

TunedPlan Plan() {
  TunedPlan plan;
  plan.machine = {.cpu = "AMD EPYC 7B13",
                  .isa = "AVX2",
                  .cores = 1.5,
                  .gpus = {"NVIDIA L4"},
                  .libtorch = "2.13.0"};
  TunedModel model;
  model.model = "resnet18";
  model.sha256 = std::string(64, 'a');
  model.objective = "slo 50ms";
  model.best = {.replicas = 2, .threads = 3, .most_rows = 4, .mode = ExecutionMode{}};
  model.best.mode->bfloat16 = true;
  model.best.mode->channels_last = true;
  model.best.mode->wait = ThreadWait::kActive;
  model.figures = {.rows_per_second = 31.25, .p99 = absl::Microseconds(81500)};
  plan.models.push_back(model);
  model.sha256 = std::string(64, 'b');  // The same model's next version.
  model.best = {.replicas = 1, .threads = 1, .most_rows = 0, .mode = std::nullopt};
  model.figures = std::nullopt;
  plan.models.push_back(model);
  return plan;
}

class PlanFileTest : public testing::Test {
 protected:
  std::string Path() const { return (tree_.root() / ".millrace" / "plan.json").string(); }

  std::string Text() const {
    std::ifstream file(Path());
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }

  // The error of the written plan in which `what` is replaced by `with`.
  std::string ErrorWith(const std::string& what, const std::string& with) {
    EXPECT_TRUE(WritePlanFile(Path(), Plan()).ok());
    const std::string text = absl::StrReplaceAll(Text(), {{what, with}});
    EXPECT_NE(text, Text()) << what << " isn't in the file";
    return ErrorOf(text);
  }

  std::string ErrorOf(const std::string& text) {
    tree_.Write(".millrace/plan.json", text);
    const absl::StatusOr<TunedPlan> plan = ReadPlanFile(Path());
    EXPECT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(plan.status().message()), StartsWith(Path()));
    return std::string(plan.status().message());
  }

  FileTree tree_;
};

TEST_F(PlanFileTest, WhatIsWrittenIsRead) {
  ASSERT_TRUE(WritePlanFile(Path(), Plan()).ok());
  const absl::StatusOr<TunedPlan> plan = ReadPlanFile(Path());
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(*plan, Plan());
}

TEST_F(PlanFileTest, WritingTakesTheOldOnesPlaceAndLeavesNothingBeside) {
  ASSERT_TRUE(WritePlanFile(Path(), Plan()).ok());
  TunedPlan newer = Plan();
  newer.models.pop_back();
  ASSERT_TRUE(WritePlanFile(Path(), newer).ok());
  EXPECT_EQ(ReadPlanFile(Path())->models.size(), 1u);
  const std::filesystem::directory_iterator files(tree_.root() / ".millrace");
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

TEST_F(PlanFileTest, AMissingFileIsNotFoundAndAFolderCantBeRead) {
  EXPECT_TRUE(absl::IsNotFound(ReadPlanFile(Path()).status()));
  EXPECT_FALSE(absl::IsNotFound(ReadPlanFile(tree_.root().string()).status()));
  EXPECT_FALSE(ReadPlanFile(tree_.root().string()).ok());
}

TEST_F(PlanFileTest, AFolderThatCantBeMadeIsAnError) {
  tree_.Write("file", "");
  EXPECT_FALSE(WritePlanFile((tree_.root() / "file" / "plan.json").string(), Plan()).ok());
}

TEST_F(PlanFileTest, WhatIsUnknownOrWrongIsNamedWithItsPlace) {
  const struct {
    const char* what;
    const char* with;
    const char* error;
  } cases[] = {
      {"\"replicas\": 2", "\"replica\": 2", "'models[0].best.\"replica\"': unknown"},
      {"\"replicas\": 2", "\"replicas\": \"2\"",
       "'models[0].best.replicas': \"2\" came, expected a whole number from 1 to 1024"},
      {"\"replicas\": 2", "\"replicas\": 0", "0 came"},
      {"\"replicas\": 2", "\"replicas\": 2.5", "2.5 came"},
      {"\"replicas\": 2", "\"replicas\": 18446744073709551615", "18446744073709551615 came"},
      {"\"threads\": 3", "\"threads\": 2000000000", "'models[0].best.threads'"},
      {"\"most_rows\": 4", "\"most_rows\": -1", "'models[0].best.most_rows': -1 came"},
      {"\"engine\": \"torchscript\"", "\"engine\": \"onnx\"",
       "'models[0].best.mode.engine': \"onnx\" came, expected torchscript or aotinductor"},
      {"\"engine\": \"torchscript\"", "\"engine\": \"aotinductor\"",
       "a package can't be given bfloat16"},
      {"\"wait\": \"active\"", "\"wait\": \"busy\"", "expected passive or active"},
      {"\"bfloat16\": true", "\"bfloat16\": 1", "'models[0].best.mode.bfloat16': 1 came"},
      {"aaaaaaaa", "AAAAAAAA", "'models[0].sha256'"},
      {"aaaaaaaa", "aaaaaaa", "64 hexadecimal digits"},
      {"bbbbbbbb", "aaaaaaaa", "'models[1]': the same file of model 'resnet18'"},
      {"\"cores\": 1.5", "\"cores\": -1", "'machine.cores': -1 came"},
      {"\"cores\": 1.5", "\"cores\": \"many\"", "'machine.cores': \"many\" came"},
      {"\"NVIDIA L4\"", "7", "'machine.gpus': 7 came"},
      {"\"p99_seconds\": 0.0815", "\"p99_seconds\": 1e300", "'models[0].p99_seconds'"},
      {"\"p99_seconds\": 0.0815,", "", "'models[0].p99_seconds': missing"},
      {"\"millrace_plan\": 1", "\"millrace_plan\": 2",
       "'millrace_plan': 2 came, expected a whole number from 1 to 1"},
      {"\"objective\": \"slo 50ms\",", "", "'models[0].objective': missing"},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(ErrorWith(c.what, c.with), HasSubstr(c.error)) << c.with;
  }
}

TEST_F(PlanFileTest, WhatIsNoPlanIsAnErrorToo) {
  EXPECT_THAT(ErrorOf(""), HasSubstr("not JSON, or cut off"));
  EXPECT_THAT(ErrorOf("{\"millrace_plan\": 1,"), HasSubstr("not JSON, or cut off"));
  EXPECT_THAT(ErrorOf("[]"), HasSubstr("the plan: [] came, expected an object"));
  EXPECT_THAT(ErrorOf("{}"), HasSubstr("'millrace_plan': missing"));
  EXPECT_THAT(ErrorOf(std::string(1 << 19, '[')), HasSubstr("not JSON"));
  EXPECT_THAT(ErrorOf("{\"\xff\": 1}"), HasSubstr("not JSON"));
}

TEST_F(PlanFileTest, MutatedPlansAreEitherReadOrRefusedWithAReason) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::cout << "seed " << seed << "\n";
  std::mt19937 random(seed);
  ASSERT_TRUE(WritePlanFile(Path(), Plan()).ok());
  const std::string whole = Text();
  constexpr const char* kPieces[] = {"{",  "}",     "[",    "]", "null",
                                     "-1", "1e400", "\"\"", ",", "\xff"};
  int read = 0;
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string text = whole;
    const size_t at = random() % text.size();
    switch (random() % 3) {
      case 0:
        text[at] = static_cast<char>(random());
        break;
      case 1:
        text.erase(at, random() % 20);
        break;
      default:
        text.replace(at, random() % 8, kPieces[random() % std::size(kPieces)]);
    }
    std::ofstream(Path()) << text;
    const absl::StatusOr<TunedPlan> plan = ReadPlanFile(Path());
    ++(plan.ok() ? read : refused);
    if (plan.ok()) continue;
    ASSERT_EQ(plan.status().code(), absl::StatusCode::kInvalidArgument) << text;
    ASSERT_THAT(std::string(plan.status().message()), StartsWith(Path())) << text;
  }
  EXPECT_GT(read, 10);
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace millrace
