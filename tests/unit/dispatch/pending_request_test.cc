// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/pending_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "tests/fakes/answer_book.h"
#include "tests/fakes/echo_model.h"

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// A model of one input row and two outputs.
const ModelSignature& Signature() {
  static const auto* const signature =
      new ModelSignature("two", 7, 4, {{"X", DataType::kInt32, {1}}},
                         {{"A", DataType::kInt32, {-1, -1}}, {"B", DataType::kUint8, {1}}});
  return *signature;
}

// A batch's output of INT32 values that count up from `first`.
class CountedOutput {
 public:
  CountedOutput(Shape shape, int32_t first)
      : shape_(std::move(shape)), values_(static_cast<size_t>(*ElementCount(shape_))) {
    std::iota(values_.begin(), values_.end(), first);
  }
  OutputView view() const {
    return {DataType::kInt32,
            shape_,
            {reinterpret_cast<const std::byte*>(values_.data()), values_.size() * sizeof(int32_t)}};
  }

 private:
  const Shape shape_;
  std::vector<int32_t> values_;
};

OutputView Bytes(const std::string& text) {
  return {DataType::kUint8,
          {static_cast<int64_t>(text.size()), 1},
          {reinterpret_cast<const std::byte*>(text.data()), text.size()}};
}

class PendingRequestTest : public testing::Test {
 protected:
  std::unique_ptr<PendingRequest> Rows(int64_t rows, std::vector<std::string> outputs = {}) {
    Request request =
        EchoRequest(Signature(), std::vector<int32_t>(static_cast<size_t>(rows)), rows);
    for (const auto& output : outputs) request.requested_outputs.push_back({output});
    auto checked = Signature().Check(std::move(request));
    EXPECT_TRUE(checked.ok()) << checked.status();
    return std::make_unique<PendingRequest>(*std::move(checked), book_->Expect(),
                                            std::make_shared<Caller>(std::make_shared<Flow>()));
  }

  static std::string Text(const OutputTensor& output) {
    return {reinterpret_cast<const char*>(output.data.data()), output.data.size()};
  }

  const std::shared_ptr<AnswerBook> book_ = std::make_shared<AnswerBook>();
};

TEST_F(PendingRequestTest, TakesItsRowsOutOfTheBatch) {
  const auto request = Rows(2);
  request->id = "seven";
  request->wants_timings = true;
  const CountedOutput a({4, 2, 1}, 10);
  const std::string b = "wxyz";
  Timings timings;
  timings.batch_rows = 4;
  auto answer = request->AddRows(Signature(), {a.view(), Bytes(b)}, 1, 0, 2, timings);
  ASSERT_TRUE(answer.has_value());
  const Response& response = answer->response;
  EXPECT_TRUE(response.status.ok());
  EXPECT_EQ(response.model_name, "two");
  EXPECT_EQ(response.model_version, "7");
  EXPECT_EQ(response.id, "seven");
  EXPECT_TRUE(response.wants_timings);
  EXPECT_EQ(response.timings.batch_rows, 4);
  ASSERT_EQ(response.outputs.size(), 2);
  EXPECT_EQ(response.outputs[0].name, "A");
  EXPECT_THAT(response.outputs[0].shape, ElementsAre(2, 2, 1));
  EXPECT_THAT(Int32s(response.outputs[0].data), ElementsAre(12, 13, 14, 15));
  EXPECT_EQ(Text(response.outputs[1]), "xy");
  EXPECT_THAT(response.outputs[1].shape, ElementsAre(2, 1));
  EXPECT_TRUE(request->answered());
}

TEST_F(PendingRequestTest, ReturnsTheOutputsThatWereAskedForInThatOrder) {
  const CountedOutput a({1, 1, 1}, 10);
  const std::string b = "w";
  {
    auto answer =
        Rows(1, {"B", "A"})->AddRows(Signature(), {a.view(), Bytes(b)}, 0, 0, 1, Timings());
    ASSERT_EQ(answer->response.outputs.size(), 2);
    EXPECT_EQ(answer->response.outputs[0].name, "B");
    EXPECT_EQ(Text(answer->response.outputs[0]), "w");
    EXPECT_THAT(Int32s(answer->response.outputs[1].data), ElementsAre(10));
  }
  auto answer = Rows(1, {"B"})->AddRows(Signature(), {a.view(), Bytes(b)}, 0, 0, 1, Timings());
  ASSERT_EQ(answer->response.outputs.size(), 1);
  EXPECT_EQ(answer->response.memory_size, 1);
}

TEST_F(PendingRequestTest, JoinsPartsThatComeBackInAnyOrder) {
  const auto request = Rows(5, {"A"});
  const CountedOutput last({1, 1, 2}, 108);
  const CountedOutput middle({4, 1, 2}, 102);
  const CountedOutput first({3, 1, 2}, 98);
  const auto add = [&](const CountedOutput& a, int64_t batch_row, int64_t first_row, int64_t rows) {
    return request->AddRows(Signature(), {a.view(), OutputView()}, batch_row, first_row, rows,
                            Timings());
  };
  EXPECT_FALSE(add(last, 0, 4, 1).has_value());
  EXPECT_FALSE(add(middle, 0, 1, 3).has_value());
  EXPECT_FALSE(request->answered());
  const auto answer = add(first, 1, 0, 1);
  ASSERT_TRUE(answer.has_value());
  EXPECT_THAT(answer->response.outputs[0].shape, ElementsAre(5, 1, 2));
  EXPECT_THAT(Int32s(answer->response.outputs[0].data),
              ElementsAre(100, 101, 102, 103, 104, 105, 106, 107, 108, 109));
}

TEST_F(PendingRequestTest, PartsOfDifferentShapesAreAnErrorEvenWhereTheirBytesAreAsMany) {
  for (const Shape& shape : {Shape{1, 2, 4}, Shape{1, 3, 2}, Shape{1, 6, 1}}) {
    const auto request = Rows(2, {"A"});
    const CountedOutput first({1, 2, 3}, 0);
    const CountedOutput second(shape, 0);
    EXPECT_FALSE(request->AddRows(Signature(), {first.view(), OutputView()}, 0, 0, 1, Timings()));
    const auto answer =
        request->AddRows(Signature(), {second.view(), OutputView()}, 0, 1, 1, Timings());
    ASSERT_TRUE(answer.has_value());
    EXPECT_EQ(answer->response.status.code(), absl::StatusCode::kInternal);
    EXPECT_THAT(std::string(answer->response.status.message()),
                HasSubstr("output 'A' of model 'two' has shape " + ToString(shape)));
    EXPECT_TRUE(answer->response.outputs.empty());
  }
}

TEST_F(PendingRequestTest, AnswerThatMemoryCannotHoldIsAnError) {
  const ModelSignature signature("empty", 1, 8, {{"X", DataType::kInt32, {-1}}},
                                 {{"Y", DataType::kInt32, {-1}}});
  CheckedRequest checked;
  checked.rows = int64_t{1} << 60;
  checked.outputs = {0};
  PendingRequest request(std::move(checked), book_->Expect(),
                         std::make_shared<Caller>(std::make_shared<Flow>()));
  const CountedOutput output({8, 16}, 0);
  const auto answer = request.AddRows(signature, {output.view()}, 0, 0, 8, Timings());
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->response.status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(answer->response.status.message()), HasSubstr("fewer rows"));
}

class NonFiniteTest : public PendingRequestTest {
 protected:
  // Adds `parts`, rows of one FP32 value each, to a request for all of them; its answer.
  PendingRequest::Answer AnswerTo(NonFinite policy, const std::vector<std::vector<float>>& parts) {
    TensorSpec output = {"Y", DataType::kFp32, {1}};
    output.non_finite = policy;
    const ModelSignature signature("odd", 1, 8, {{"X", DataType::kInt32, {1}}}, {output});
    CheckedRequest checked;
    checked.outputs = {0};
    checked.rows = 0;
    for (const std::vector<float>& part : parts) checked.rows += static_cast<int64_t>(part.size());
    PendingRequest request(std::move(checked), book_->Expect(),
                           std::make_shared<Caller>(std::make_shared<Flow>()));
    int64_t row = 0;
    std::optional<PendingRequest::Answer> answer;
    for (const std::vector<float>& part : parts) {
      // In a batch with neighbours, which hold what isn't finite.
      std::vector<float> batch = {std::numeric_limits<float>::quiet_NaN()};
      batch.insert(batch.end(), part.begin(), part.end());
      batch.push_back(std::numeric_limits<float>::infinity());
      const OutputView view = {
          DataType::kFp32,
          {static_cast<int64_t>(batch.size()), 1},
          {reinterpret_cast<const std::byte*>(batch.data()), batch.size() * sizeof(float)}};
      const auto rows = static_cast<int64_t>(part.size());
      answer = request.AddRows(signature, {view}, 1, row, rows, Timings());
      if (answer) break;
      row += rows;
    }
    return *std::move(answer);
  }

  static int64_t Flagged(const Response& response) {
    for (const Parameter& parameter : response.parameters) {
      if (parameter.name == "millrace_non_finite") return std::get<int64_t>(parameter.value);
    }
    return 0;
  }

  const float nan_ = std::numeric_limits<float>::quiet_NaN();
};

TEST_F(NonFiniteTest, PassesUnlessTheConfigSaysOtherwise) {
  const auto answer = AnswerTo(NonFinite::kPass, {{nan_, 1}});
  EXPECT_TRUE(answer.response.status.ok());
  EXPECT_EQ(answer.response.non_finite, 0);
  EXPECT_TRUE(answer.response.parameters.empty());
}

TEST_F(NonFiniteTest, FlagCountsThoseOfTheRequestOverAllItsBatches) {
  const auto flagged = AnswerTo(NonFinite::kFlag, {{1, nan_, 2}, {3}, {-nan_, nan_}});
  EXPECT_TRUE(flagged.response.status.ok());
  EXPECT_EQ(Flagged(flagged.response), 3);
  EXPECT_EQ(flagged.response.outputs[0].data.size(), 6 * sizeof(float));
  const auto clean = AnswerTo(NonFinite::kFlag, {{1, 2}, {3}});
  EXPECT_TRUE(clean.response.parameters.empty()) << "The neighbours' are none of its own.";
}

TEST_F(NonFiniteTest, RefuseAnswersAtOnceAndSaysWhichOutput) {
  const auto refused = AnswerTo(NonFinite::kRefuse, {{1}, {nan_, nan_}, {2}});
  EXPECT_EQ(refused.response.status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(refused.response.status.message()),
              HasSubstr("output 'Y' of model 'odd' has 2 values that are NaN or infinite"));
  EXPECT_TRUE(refused.response.outputs.empty());
  EXPECT_EQ(Flagged(refused.response), 2);
  EXPECT_TRUE(AnswerTo(NonFinite::kRefuse, {{1}, {2}}).response.status.ok());
}

TEST_F(PendingRequestTest, OutputWithoutElementsIsAnswered) {
  const auto request = Rows(1, {"A"});
  const CountedOutput empty({1, 0, 3}, 0);
  const auto answer =
      request->AddRows(Signature(), {empty.view(), OutputView()}, 0, 0, 1, Timings());
  ASSERT_TRUE(answer.has_value());
  EXPECT_THAT(answer->response.outputs[0].shape, ElementsAre(1, 0, 3));
  EXPECT_TRUE(answer->response.outputs[0].data.empty());
}

TEST_F(PendingRequestTest, IsAnsweredOnce) {
  const auto request = Rows(2, {"A"});
  request->id = "seven";
  const CountedOutput a({2, 1, 1}, 0);
  const auto answer = request->Fail(Signature(), absl::CancelledError("gone"));
  ASSERT_TRUE(answer.has_value());
  EXPECT_EQ(answer->response.status, absl::CancelledError("gone"));
  EXPECT_EQ(answer->response.id, "seven");
  EXPECT_EQ(answer->response.model_version, "7");
  EXPECT_FALSE(request->Fail(Signature(), absl::InternalError("again")).has_value());
  EXPECT_FALSE(
      request->AddRows(Signature(), {a.view(), OutputView()}, 0, 0, 2, Timings()).has_value());
}

}  // namespace
}  // namespace millrace
