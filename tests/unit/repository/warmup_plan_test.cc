// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/warmup_plan.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/repository/model_config.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

std::vector<WarmupSample> PlanOf(const std::string& batch, const std::string& rest = "",
                                 const std::string& dims = "4") {
  const absl::StatusOr<ModelSettings> settings = ParseModelConfig(
      absl::StrCat("max_batch_size: ", batch, " input { name: \"IN\" data_type: TYPE_FP32 dims: ",
                   dims, " } output { name: \"OUT\" data_type: TYPE_FP32 dims: 4 } ", rest),
      "config.pbtxt", "a");
  EXPECT_TRUE(settings.ok()) << settings.status();
  return PlanWarmup(*settings);
}

std::vector<int64_t> Rows(const std::vector<WarmupSample>& samples) {
  std::vector<int64_t> rows;
  for (const WarmupSample& sample : samples) rows.push_back(sample.rows);
  return rows;
}

std::string Declared(int rows) {
  return absl::StrCat("model_warmup { batch_size: ", rows, " inputs { key: \"IN\" value { ",
                      "data_type: TYPE_FP32 dims: 4 random_data: true } } } ");
}

TEST(WarmupPlan, AModelThatDoesNotBatchIsRunOnce) {
  EXPECT_THAT(Rows(PlanOf("0")), ElementsAre(1));
  EXPECT_THAT(Rows(PlanOf("1")), ElementsAre(1));
}

TEST(WarmupPlan, DeclaredSamplesComeFirstAndAreNotRepeated) {
  const std::vector<WarmupSample> samples = PlanOf("3", Declared(2) + Declared(3));
  EXPECT_THAT(Rows(samples), ElementsAre(2, 3, 1));
  EXPECT_TRUE(samples[0].declared && samples[1].declared && !samples[2].declared);
  EXPECT_TRUE(samples[2].inputs[0].random) << "As the first that is declared.";
}

TEST(WarmupPlan, OpenDimsNeedASample) {
  EXPECT_THAT(PlanOf("4", "", "-1"), IsEmpty());
  EXPECT_THAT(Rows(PlanOf("4", Declared(4), "-1")), ElementsAre(4, 1, 2, 3));
}

std::vector<int64_t> FurtherOf(const std::string& config) {
  const absl::StatusOr<ModelSettings> settings = ParseModelConfig(
      absl::StrCat(config, " output { name: \"OUT\" data_type: TYPE_FP32 dims: 4 } "),
      "config.pbtxt", "a");
  EXPECT_TRUE(settings.ok()) << settings.status();
  return FurtherBatchSizes(*settings, PlanWarmup(*settings));
}

TEST(WarmupPlan, FurtherSizesAreAllThatCanOccurAndAreNotPlanned) {
  constexpr char kInput[] = "input { name: \"IN\" data_type: TYPE_FP32 dims: 4 } ";
  EXPECT_THAT(FurtherOf(absl::StrCat("max_batch_size: 12 ", kInput)), ElementsAre(9, 10, 11));
  EXPECT_THAT(FurtherOf(absl::StrCat("max_batch_size: 12 ", kInput, Declared(10))),
              ElementsAre(9, 11));
  EXPECT_THAT(FurtherOf(absl::StrCat("max_batch_size: 8 ", kInput)), IsEmpty());
  EXPECT_THAT(FurtherOf(kInput), IsEmpty());
  EXPECT_THAT(FurtherOf("max_batch_size: 12 input { name: \"IN\" data_type: TYPE_FP32 dims: -1 }"),
              IsEmpty());
  EXPECT_THAT(FurtherOf(absl::StrCat("max_batch_size: 100000 ", kInput)), SizeIs(1024 - 8 - 7));
}

}  // namespace
}  // namespace millrace
