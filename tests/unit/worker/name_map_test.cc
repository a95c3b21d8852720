// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/name_map.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(NameMap, NumberedNamesAreThePlaces) {
  const auto map = MapNames("INPUT__", {"INPUT__1", "INPUT__0"}, {"x", "mask"});
  ASSERT_TRUE(map.ok()) << map.status();
  EXPECT_THAT(map->positions, ElementsAre(1, 0));
  EXPECT_FALSE(map->by_order);
}

TEST(NameMap, EqualNamesAreThePlacesInAnyMixture) {
  const auto map = MapNames("INPUT__", {"mask", "INPUT__0"}, {"x", "mask"});
  ASSERT_TRUE(map.ok()) << map.status();
  EXPECT_THAT(map->positions, ElementsAre(1, 0));
}

TEST(NameMap, NamesThatAllSayNothingAreTakenInOrder) {
  const auto map = MapNames("INPUT__", {"left", "right"}, {"a", "b", "c"});
  ASSERT_TRUE(map.ok()) << map.status();
  EXPECT_THAT(map->positions, ElementsAre(0, 1));
  EXPECT_TRUE(map->by_order);
}

TEST(NameMap, ErrorsNameTheConfigsTensorAndTheModels) {
  const auto message = [](const std::vector<std::string>& names) {
    const absl::Status status = MapNames("INPUT__", names, {"x", "mask"}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(message({"x", "y"}), HasSubstr("'y' is no tensor of the model's; the model's own "
                                             "are 'x', 'mask'"));
  EXPECT_THAT(message({"INPUT__2"}), HasSubstr("'INPUT__2' is beyond the model's last"));
  EXPECT_THAT(message({"x", "INPUT__0"}), HasSubstr("is the same place as another name"));
  EXPECT_THAT(message({"a", "b", "c"}), HasSubstr("'c' is beyond the model's last"));
}

}  // namespace
}  // namespace millrace
