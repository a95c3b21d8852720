// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/names.h"

#include <string>

#include "gtest/gtest.h"

namespace millrace {
namespace {

TEST(Names, Utf8OfEveryLengthIsTaken) {
  for (const char* text : {"", "plain", "\n\t", "\u00fc", "\u20ac", "\U0001F30A", "\U0010FFFF"}) {
    EXPECT_TRUE(IsUtf8(text)) << text;
  }
}

TEST(Names, BrokenUtf8IsRefused) {
  for (const char* text : {
           "\x80",              // A continuation without a beginning.
           "\xc3",              // Cut short.
           "\xe2\x82",          // Cut short.
           "\xc3(",             // Continued by something else.
           "\xc0\xaf",          // Overlong, two bytes.
           "\xe0\x80\xaf",      // Overlong, three bytes.
           "\xf0\x80\x80\xaf",  // Overlong, four bytes.
           "\xed\xa0\x80",      // A surrogate.
           "\xf4\x90\x80\x80",  // Beyond U+10FFFF.
           "\xff",
       }) {
    EXPECT_FALSE(IsUtf8(text)) << testing::PrintToString(text);
  }
}

TEST(Names, ANameIsShortAndWithoutControlCharacters) {
  EXPECT_TRUE(IsName("resnet-50 v2.1"));
  EXPECT_TRUE(IsName("m\u00fchle"));
  EXPECT_TRUE(IsName(std::string(255, 'a')));
  EXPECT_FALSE(IsName(""));
  EXPECT_FALSE(IsName(std::string(256, 'a')));
  EXPECT_FALSE(IsName("two\nlines"));
  EXPECT_FALSE(IsName("\x7f"));
  EXPECT_FALSE(IsName("\xff"));
}

TEST(Names, AModelsNameIsAFilesNameWithoutSurprises) {
  for (const char* text : {"a", "resnet-50_v2.1", "_private", "7b", "A..B"}) {
    EXPECT_TRUE(IsModelName(text)) << text;
  }
  EXPECT_TRUE(IsModelName(std::string(128, 'a')));
  EXPECT_FALSE(IsModelName(std::string(129, 'a')));
  for (const char* text : {"", ".", "..", ".git", "-x", "a/b", "a b", "m\u00fchle", "a\n", "a\\b",
                           "a:b", "a\"b", "$a", "a*"}) {
    EXPECT_FALSE(IsModelName(text)) << text;
  }
}

}  // namespace
}  // namespace millrace
