// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/replica/worker_output.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <set>
#include <string>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

using testing::HasSubstr;
using testing::Not;

class WorkerOutputTest : public testing::Test {
 protected:
  WorkerOutputTest() {
    auto created = WorkerOutput::Create("model 'm' replica 0");
    output_ = std::move(created->first);
    worker_end_ = std::move(created->second);
  }

  void Write(const std::string& text) {
    ASSERT_EQ(write(worker_end_.get(), text.data(), text.size()),
              static_cast<ssize_t>(text.size()));
  }

  // What comes to the log meanwhile.
  template <typename Body>
  std::string Logged(Body body) {
    testing::internal::CaptureStderr();
    body();
    return testing::internal::GetCapturedStderr();
  }

  WorkerOutput output_;
  UniqueFd worker_end_;
};

TEST_F(WorkerOutputTest, LinesAreLoggedWhenTheyAreWhole) {
  Write("one\ntw");
  std::string log = Logged([&] { EXPECT_TRUE(output_.Read()); });
  EXPECT_THAT(log, HasSubstr("model 'm' replica 0 says: one"));
  EXPECT_THAT(log, Not(HasSubstr("tw")));
  Write("o\n");
  log = Logged([&] { output_.Read(); });
  EXPECT_THAT(log, HasSubstr("says: two"));
  EXPECT_FALSE(output_.Read()) << "It would have waited.";
}

TEST_F(WorkerOutputTest, LastLinesAreLoggedInTheNameOfAnIncident) {
  for (int i = 0; i < 3000; ++i) {
    Write(absl::StrCat("line ", i, "\n"));
    if (i % 1000 == 0) output_.Read();
  }
  Write(std::string(5000, 'x'));
  const std::string log = Logged([&] { output_.LogLast("0123abcd"); });
  EXPECT_THAT(log, HasSubstr("incident 0123abcd: it said: line 2999"));
  EXPECT_THAT(log, HasSubstr("incident 0123abcd: it said: line 2981"));
  EXPECT_THAT(log, Not(HasSubstr("it said: line 2980"))) << "more was kept than should be";
  EXPECT_THAT(log, HasSubstr(absl::StrCat("it said: ", std::string(512, 'x'))));
  EXPECT_THAT(log, Not(HasSubstr(std::string(513, 'x'))));
  EXPECT_EQ(Logged([&] { output_.LogLast("4567"); }), "") << "It was told before.";
}

TEST_F(WorkerOutputTest, ChattyWorkerIsLoggedNoFurther) {
  std::string log = Logged([&] {
    for (int i = 0; i < 1000; ++i) {
      Write(absl::StrCat("line ", i, "\n"));
      while (output_.Read()) {
      }
    }
  });
  EXPECT_THAT(log, HasSubstr("says: line 99"));
  EXPECT_THAT(log, Not(HasSubstr("says: line 100")));
  EXPECT_THAT(log, HasSubstr("says more"));
}

TEST_F(WorkerOutputTest, EndIsSeen) {
  Write("last words");
  worker_end_.reset();
  EXPECT_GE(output_.fd(), 0);
  EXPECT_TRUE(output_.Read());
  EXPECT_FALSE(output_.Read());
  EXPECT_EQ(output_.fd(), -1);
  EXPECT_THAT(Logged([&] { output_.LogLast("89ef"); }), HasSubstr("it said: last words"));
}

TEST(NewIncident, AreDifferent) {
  std::set<std::string> incidents;
  for (int i = 0; i < 100; ++i) incidents.insert(NewIncident());
  EXPECT_EQ(incidents.size(), 100);
  for (const std::string& incident : incidents) EXPECT_EQ(incident.size(), 8);
}

}  // namespace
}  // namespace millrace
