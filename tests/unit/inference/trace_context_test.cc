// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/inference/trace_context.h"

#include <gtest/gtest.h>

#include <string>

namespace millrace {
namespace {

// The example of the standard.
constexpr char kExample[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST(TraceContext, IsReadAndWrittenAsInTheStandard) {
  const auto context = ParseTraceParent(kExample);
  ASSERT_TRUE(context.has_value());
  EXPECT_EQ(context->trace_high, 0x4bf92f3577b34da6u);
  EXPECT_EQ(context->trace_low, 0xa3ce929d0e0e4736u);
  EXPECT_EQ(context->span, 0x00f067aa0ba902b7u);
  EXPECT_TRUE(context->sampled);
  EXPECT_EQ(FormatTraceParent(*context), kExample);
  EXPECT_EQ(FormatTraceId(*context), "4bf92f3577b34da6a3ce929d0e0e4736");
}

TEST(TraceContext, OnlyTheFirstFlagIsKnown) {
  const std::string begin = std::string(kExample).substr(0, 53);
  EXPECT_FALSE(ParseTraceParent(begin + "00")->sampled);
  EXPECT_FALSE(ParseTraceParent(begin + "fe")->sampled);
  EXPECT_TRUE(ParseTraceParent(begin + "ff")->sampled);
}

TEST(TraceContext, LaterVersionMayHaveMoreAtItsEnd) {
  const std::string later = "01" + std::string(kExample).substr(2);
  EXPECT_TRUE(ParseTraceParent(later).has_value());
  EXPECT_TRUE(ParseTraceParent(later + "-what-the-future-brings").has_value());
  EXPECT_FALSE(ParseTraceParent(later + ".what-the-future-brings").has_value());
  EXPECT_FALSE(ParseTraceParent(std::string(kExample) + "-more").has_value());
}

TEST(TraceContext, WhatIsNoneIsIgnored) {
  for (const char* text : {"", "00", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
                           "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                           "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                           "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                           "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                           "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
                           "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                           "0x-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}) {
    EXPECT_EQ(ParseTraceParent(text), std::nullopt) << text;
  }
}

}  // namespace
}  // namespace millrace
