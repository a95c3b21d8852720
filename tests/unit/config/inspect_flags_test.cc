// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/config/inspect_flags.h"

#include <variant>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/config/flags.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

InputFlag Parsed(const std::string& text) {
  InputFlag input;
  EXPECT_EQ(ParseInputFlag(text, &input), "") << text;
  return input;
}

TEST(InspectFlags, AnInputIsANameDimsAndAType) {
  const InputFlag whole = Parsed("image:3x224x224:FP32");
  EXPECT_EQ(whole.name, "image");
  EXPECT_THAT(whole.dims, ElementsAre(3, 224, 224));
  EXPECT_EQ(whole.data_type, "FP32");
  const InputFlag by_place = Parsed("-1x8:INT64");
  EXPECT_EQ(by_place.name, "");
  EXPECT_THAT(by_place.dims, ElementsAre(-1, 8));
  const InputFlag scalar = Parsed("scale:BF16");
  EXPECT_EQ(scalar.name, "scale");
  EXPECT_THAT(scalar.dims, ElementsAre());
  EXPECT_EQ(Parsed("BOOL").data_type, "BOOL");
}

TEST(InspectFlags, WhatIsWrongWithAnInputIsSaid) {
  const auto error = [](const std::string& text) {
    InputFlag input;
    return ParseInputFlag(text, &input);
  };
  EXPECT_THAT(error("text:STRING"), HasSubstr("strings are no tensors"));
  EXPECT_THAT(error("3x224x224"), HasSubstr("no data type"));
  EXPECT_THAT(error(""), HasSubstr("no data type"));
  EXPECT_THAT(error("x:3x0:FP32"), HasSubstr("'3x0' are no dims"));
  EXPECT_THAT(error("x:-2:FP32"), HasSubstr("no dims"));
  EXPECT_THAT(error("x:1x1x1x1x1x1x1x1x1:FP32"), HasSubstr("up to 8"));
  EXPECT_THAT(error("a:b:3:FP32"), HasSubstr("[NAME:][DIMS:]TYPE"));
  EXPECT_THAT(error(":3:FP32"), HasSubstr("[NAME:][DIMS:]TYPE"));
}

Command Parse(std::vector<const char*> words) {
  return ParseFlags(static_cast<int>(words.size()), words.data());
}

TEST(InspectFlags, TheCommandHasFlagsOfItsOwn) {
  const Command command = Parse({"/usr/bin/millrace-server", "inspect", "--input", "3x8:FP32",
                                 "net.pt", "--input", "y:INT64", "--max-batch", "4", "--json"});
  const auto* const inspect = std::get_if<InspectConfig>(&command);
  ASSERT_NE(inspect, nullptr);
  EXPECT_EQ(inspect->model, "net.pt");
  ASSERT_EQ(inspect->inputs.size(), 2u);
  EXPECT_THAT(inspect->inputs[0].dims, ElementsAre(3, 8));
  EXPECT_EQ(inspect->inputs[1].name, "y");
  EXPECT_EQ(inspect->max_batch_size, 4);
  EXPECT_TRUE(inspect->json);
  EXPECT_FALSE(inspect->force);
}

TEST(InspectFlags, ErrorsAreThoseOfTheProgramThatWasAsked) {
  const auto leave = [](std::vector<const char*> words) {
    const Command command = Parse(std::move(words));
    return std::get<ExitNow>(command);
  };
  EXPECT_EQ(leave({"millrace", "inspect"}).code, 1);
  EXPECT_EQ(leave({"millrace", "inspect", "net.pt", "--input", "3"}).code, 1);
  EXPECT_EQ(leave({"millrace-server", "--no-such-flag"}).code, 2);
  const ExitNow help = leave({"/usr/bin/millrace", "inspect", "--help"});
  EXPECT_EQ(help.code, 0);
  EXPECT_THAT(help.text, HasSubstr("millrace inspect [OPTIONS] model"));
}

}  // namespace
}  // namespace millrace
