// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/retry_info.h"

#include <memory>
#include <string>

#include "google/protobuf/any.pb.h"
#include "google/protobuf/duration.pb.h"
#include "google/protobuf/unknown_field_set.h"
#include "gtest/gtest.h"

namespace millrace {
namespace {

using google::protobuf::UnknownFieldSet;

// The fields of a message whose type isn't compiled in, as protobuf reads them.
std::unique_ptr<UnknownFieldSet> FieldsOf(const std::string& bytes) {
  auto fields = std::make_unique<UnknownFieldSet>();
  EXPECT_TRUE(fields->ParseFromString(bytes));
  return fields;
}

// What a client finds in `grpc-status-details-bin`: code, message, and the delay of RetryInfo.
struct Details {
  uint64_t code = 0;
  std::string message;
  std::string type_url;
  google::protobuf::Duration delay;
};

Details Decode(const std::string& bytes) {
  Details details;
  const auto status = FieldsOf(bytes);
  EXPECT_EQ(status->field_count(), 3);
  EXPECT_EQ(status->field(0).number(), 1);
  details.code = status->field(0).varint();
  EXPECT_EQ(status->field(1).number(), 2);
  details.message = status->field(1).length_delimited();
  EXPECT_EQ(status->field(2).number(), 3);
  google::protobuf::Any any;
  EXPECT_TRUE(any.ParseFromString(status->field(2).length_delimited()));
  details.type_url = any.type_url();
  const auto retry_info = FieldsOf(any.value());
  EXPECT_EQ(retry_info->field_count(), 1);
  EXPECT_EQ(retry_info->field(0).number(), 1);
  EXPECT_TRUE(details.delay.ParseFromString(retry_info->field(0).length_delimited()));
  return details;
}

const grpc::Status kFull(grpc::StatusCode::RESOURCE_EXHAUSTED, "Exceeds maximum queue size: größe");

TEST(RetryInfo, IsWhatProtobufReads) {
  const grpc::Status status = WithRetryInfo(kFull, absl::Milliseconds(2500));
  EXPECT_EQ(status.error_code(), kFull.error_code());
  EXPECT_EQ(status.error_message(), kFull.error_message());
  const Details details = Decode(status.error_details());
  EXPECT_EQ(details.code, 8);
  EXPECT_EQ(details.message, kFull.error_message());
  EXPECT_EQ(details.type_url, "type.googleapis.com/google.rpc.RetryInfo");
  EXPECT_EQ(details.delay.seconds(), 2);
  EXPECT_EQ(details.delay.nanos(), 500'000'000);
}

TEST(RetryInfo, DelayIsNeverNegativeNorBeyondWhatCanBeSaid) {
  const Details negative = Decode(WithRetryInfo(kFull, -absl::Seconds(1)).error_details());
  EXPECT_EQ(negative.delay.seconds(), 0);
  EXPECT_EQ(negative.delay.nanos(), 0);
  const Details longest = Decode(WithRetryInfo(kFull, absl::InfiniteDuration()).error_details());
  EXPECT_EQ(longest.delay.seconds(), 2'147'483);
  EXPECT_EQ(longest.delay.nanos(), 647'000'000);
}

TEST(RetryPushback, IsInMillisecondsRoundedUp) {
  EXPECT_EQ(RetryPushback(absl::Milliseconds(100)), "100");
  EXPECT_EQ(RetryPushback(absl::Microseconds(1)), "1");
  EXPECT_EQ(RetryPushback(absl::Microseconds(2001)), "3");
  EXPECT_EQ(RetryPushback(absl::ZeroDuration()), "0");
  EXPECT_EQ(RetryPushback(-absl::Seconds(5)), "0") << "A negative one would mean: never.";
  EXPECT_EQ(RetryPushback(absl::InfiniteDuration()), "2147483647");
}

}  // namespace
}  // namespace millrace
