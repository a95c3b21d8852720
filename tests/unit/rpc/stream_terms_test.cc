// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/stream_terms.h"

#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

using Pairs = std::vector<std::pair<std::string, std::string>>;

constexpr StreamLimits kLimits = {.default_window = 32, .max_window = 256};

absl::StatusOr<StreamTerms> Read(const Pairs& pairs) {
  CallMetadata metadata;
  for (const auto& [key, value] : pairs) metadata.emplace(key, value);
  return ReadStreamTerms(metadata, kLimits);
}

StreamTerms Terms(const Pairs& pairs) {
  const auto terms = Read(pairs);
  EXPECT_TRUE(terms.ok()) << terms.status();
  return terms.ok() ? *terms : StreamTerms();
}

TEST(StreamTerms, AreTheServersWhereNothingIsAskedFor) {
  const StreamTerms terms = Terms({{"user-agent", "somebody"}});
  EXPECT_EQ(terms.window, 32);
  EXPECT_EQ(terms.weight, 1);
  EXPECT_EQ(terms.overflow, std::nullopt);
  EXPECT_EQ(terms.order, AnswerOrder::kRequest);
  EXPECT_EQ(terms.max_age, absl::InfiniteDuration());
  EXPECT_FALSE(terms.ends_on_error);
  EXPECT_FALSE(terms.wants_notice);
}

TEST(StreamTerms, NoticeOfADrainIsForThoseWhoAskForIt) {
  EXPECT_TRUE(Terms({{"millrace-drain-notice", "true"}}).wants_notice);
  EXPECT_FALSE(Terms({{"millrace-drain-notice", "false"}}).wants_notice);
  EXPECT_THAT(std::string(Read({{"millrace-drain-notice", "1"}}).status().message()),
              AllOf(HasSubstr("'millrace-drain-notice' is '1'"), HasSubstr("true or false")));
}

TEST(StreamTerms, AreWhatTheStreamAsksFor) {
  const StreamTerms terms = Terms({{"millrace-window", "7"},
                                   {"millrace-weight", "100"},
                                   {"millrace-overflow", "drop-oldest"},
                                   {"millrace-order", "completion"},
                                   {"millrace-max-age", "250000"},
                                   {"triton_grpc_error", "true"}});
  EXPECT_EQ(terms.window, 7);
  EXPECT_EQ(terms.weight, 100);
  EXPECT_EQ(terms.overflow, Overflow::kDropOldest);
  EXPECT_EQ(terms.order, AnswerOrder::kCompletion);
  EXPECT_EQ(terms.max_age, absl::Milliseconds(250));
  EXPECT_TRUE(terms.ends_on_error);
}

TEST(StreamTerms, NameIsShortAndPlain) {
  EXPECT_EQ(Terms({}).name, "");
  EXPECT_EQ(Terms({{"millrace-stream-name", "hall-2/cam_7:left.b"}}).name, "hall-2/cam_7:left.b");
  const std::string longest(64, 'x');
  EXPECT_EQ(Terms({{"millrace-stream-name", longest}}).name, longest);
  for (const std::string& bad : {std::string(), longest + "x", std::string("a b"),
                                 std::string("a\"b"), std::string("\xc3\xa4")}) {
    const auto terms = Read({{"millrace-stream-name", bad}});
    EXPECT_EQ(terms.status().code(), absl::StatusCode::kInvalidArgument) << bad;
    EXPECT_THAT(std::string(terms.status().message()), HasSubstr("millrace-stream-name")) << bad;
  }
}

TEST(StreamTerms, EveryWordMeansWhatItSays) {
  EXPECT_EQ(Terms({{"millrace-overflow", "block"}}).overflow, Overflow::kBlock);
  EXPECT_EQ(Terms({{"millrace-overflow", "reject"}}).overflow, Overflow::kReject);
  EXPECT_EQ(Terms({{"millrace-overflow", "latest"}}).overflow, Overflow::kLatest);
  EXPECT_EQ(Terms({{"millrace-order", "request"}}).order, AnswerOrder::kRequest);
}

TEST(StreamTerms, WindowIsCutToTheLimit) {
  EXPECT_EQ(Terms({{"millrace-window", "257"}}).window, 256);
  EXPECT_EQ(Terms({{"millrace-window", "5000000000"}}).window, 256);
}

TEST(StreamTerms, LongestMaxAgeIsNoOverflow) {
  EXPECT_GT(Terms({{"millrace-max-age", "9223372036854775807"}}).max_age, absl::Hours(24 * 365));
}

struct Wrong {
  const char* key;
  std::vector<const char*> values;
  const char* expected;
};

TEST(StreamTerms, AWrongValueIsNamedWithWhatWasExpected) {
  const std::vector<Wrong> all = {
      {"millrace-window", {"0", "-1", "many", "", "1.5"}, "a number from 1 to 256"},
      {"millrace-weight", {"0", "101", "heavy", "99999999999999999999"}, "a number from 1 to 100"},
      {"millrace-overflow",
       {"", "Block", "drop_oldest", "newest"},
       "block, reject, drop-oldest or latest"},
      {"millrace-order", {"", "any", "Request"}, "request or completion"},
      {"millrace-max-age", {"0", "-5", "100ms"}, "a number of microseconds from 1 on"}};
  for (const Wrong& wrong : all) {
    for (const std::string value : wrong.values) {
      const absl::Status status = Read({{wrong.key, value}}).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << wrong.key << "=" << value;
      EXPECT_THAT(std::string(status.message()),
                  AllOf(HasSubstr(std::string("'") + wrong.key + "'"), HasSubstr("'" + value + "'"),
                        HasSubstr(std::string("expected ") + wrong.expected)));
    }
  }
}

TEST(StreamTerms, ALongValueIsQuotedInPart) {
  const absl::Status status = Read({{"millrace-order", std::string(10'000, 'x')}}).status();
  EXPECT_LT(status.message().size(), 200);
}

TEST(StreamTerms, AKeyThatComesTwiceIsRefused) {
  const absl::Status status = Read({{"millrace-weight", "1"}, {"millrace-weight", "9"}}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("'millrace-weight'"), HasSubstr("2 times"), HasSubstr("once")));
}

}  // namespace
}  // namespace millrace
