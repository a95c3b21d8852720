// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/fakes/answer_book.h"
#include "tests/fakes/echo_model.h"

namespace millrace {

// A test of requests to the echo model, whose answers are kept by their places.
class AnswersFixture : public testing::Test {
 protected:
  bool Owed(uint64_t place) const { return book_->Find(place) == nullptr; }

  // Fails the test where the answer is owed.
  absl::StatusCode CodeOf(uint64_t place) const {
    EXPECT_FALSE(Owed(place)) << "Place " << place << " is owed its answer.";
    return Owed(place) ? absl::StatusCode::kUnknown : book_->Find(place)->status.code();
  }
  std::string MessageOf(uint64_t place) const {
    return Owed(place) ? "owed" : std::string(book_->Find(place)->status.message());
  }
  // Of an answer that must be OK.
  std::vector<int32_t> OutputOf(uint64_t place) const {
    EXPECT_EQ(CodeOf(place), absl::StatusCode::kOk) << MessageOf(place);
    const Response* const response = book_->Find(place);
    if (response == nullptr || response->outputs.empty()) return {};
    return Int32s(response->outputs[0].data);
  }

  const std::shared_ptr<AnswerBook> book_ = std::make_shared<AnswerBook>();
};

}  // namespace millrace
