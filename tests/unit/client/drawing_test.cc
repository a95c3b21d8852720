// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/video/drawing.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;

constexpr Color kRed = {255, 0, 0};

Image Black(int width, int height) {
  return {width, height, std::string(size_t{3} * width * height, '\0')};
}

// The rows of a picture: # where its first channel is full.
std::vector<std::string> Rows(const Image& image) {
  std::vector<std::string> rows(image.height);
  for (int i = 0; i < image.width * image.height; ++i) {
    rows[i / image.width] += image.pixels[size_t{3} * i] == '\xff' ? '#' : '.';
  }
  return rows;
}

TEST(Drawing, FrameIsTheEdgeOfItsArea) {
  Image image = Black(7, 5);
  DrawFrame(image, {1, 0, 6, 4}, 1, kRed);
  EXPECT_THAT(Rows(image), ElementsAre(".#####.", ".#...#.", ".#...#.", ".#####.", "......."));
}

TEST(Drawing, WhatLiesBeyondThePictureIsLeftOut) {
  Image image = Black(4, 3);
  DrawFrame(image, {-10, 1, 2, 90}, 1, kRed);
  FillRectangle(image, {50, 50, 60, 60}, kRed);
  FillRectangle(image, {3, 2, 1, 1}, kRed);  // Nothing is in it.
  EXPECT_THAT(Rows(image), ElementsAre("....", "##..", ".#.."));
}

TEST(Drawing, LettersAreCapitalsAndTheUnknownAreBoxes) {
  Image image = Black(19, 9);
  ASSERT_EQ(TextWidth("l1\xe9", 1), 19);
  ASSERT_EQ(TextHeight(1), 9);
  DrawText(image, 0, 0, "l1\xe9", 1, kRed, {0, 0, 0});
  EXPECT_THAT(Rows(image),
              ElementsAre("...................",  //
                          ".#.......#...#####.",  //
                          ".#......##...#...#.",  //
                          ".#.......#...#...#.",  //
                          ".#.......#...#...#.",  //
                          ".#.......#...#...#.",  //
                          ".#.......#...#...#.",  //
                          ".#####..###..#####.",  //
                          "..................."));
}

}  // namespace
}  // namespace millrace
