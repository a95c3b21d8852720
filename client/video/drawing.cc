// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/video/drawing.h"

#include <algorithm>

#include "absl/strings/ascii.h"

namespace millrace {
inline namespace client {
namespace {

constexpr int kColumns = 5;
constexpr int kRows = 7;

struct Glyph {
  char character;
  const char* dots;  // Row by row.
};
constexpr Glyph kGlyphs[] = {
    {'!', "..#....#....#....#....#.........#.."}, {'#', ".#.#..#.#.#####.#.#.#####.#.#..#.#."},
    {'%', "##..###..#...#...#...#...#..###..##"}, {'\'', "..#....#...#......................."},
    {'(', "...#...#...#....#....#.....#.....#."}, {')', ".#.....#.....#....#....#...#...#..."},
    {'*', ".....#.#.#.###.#####.###.#.#.#....."}, {'+', ".......#....#..#####..#....#......."},
    {',', "......................##...#...#..."}, {'-', "...............#####..............."},
    {'.', "..........................##...##.."}, {'/', "....#....#...#...#...#...#....#...."},
    {'0', ".###.#...##..###.#.###..##...#.###."}, {'1', "..#...##....#....#....#....#...###."},
    {'2', ".###.#...#....#..##..#...#....#####"}, {'3', ".###.#...#....#..##.....##...#.###."},
    {'4', "...#...##..#.#.#..#.#####...#....#."}, {'5', "######....####.....#....##...#.###."},
    {'6', "..##..#...#....####.#...##...#.###."}, {'7', "#####....#...#....#...#....#....#.."},
    {'8', ".###.#...##...#.###.#...##...#.###."}, {'9', ".###.#...##...#.####....#...#..##.."},
    {':', "......##...##........##...##......."}, {'<', "....#...#...#...#.....#.....#.....#"},
    {'=', "..........#####.....#####.........."}, {'>', "#.....#.....#.....#...#...#...#...."},
    {'?', ".###.#...#....#...#...#.........#.."}, {'@', ".###.#...##.####.#.##.####.....####"},
    {'A', ".###.#...##...#######...##...##...#"}, {'B', "####.#...##...#####.#...##...#####."},
    {'C', ".###.#...##....#....#....#...#.###."}, {'D', "####.#...##...##...##...##...#####."},
    {'E', "######....#....####.#....#....#####"}, {'F', "######....#....####.#....#....#...."},
    {'G', ".###.#...##....#.####...##...#.####"}, {'H', "#...##...##...#######...##...##...#"},
    {'I', ".###...#....#....#....#....#...###."}, {'J', "..###...#....#....#....#.#..#..##.."},
    {'K', "#...##..#.#.#..##...#.#..#..#.#...#"}, {'L', "#....#....#....#....#....#....#####"},
    {'M', "#...###.###.#.##.#.##...##...##...#"}, {'N', "#...###..###..##.#.##..###..###...#"},
    {'O', ".###.#...##...##...##...##...#.###."}, {'P', "####.#...##...#####.#....#....#...."},
    {'Q', ".###.#...##...##...##.#.##..#..##.#"}, {'R', "####.#...##...#####.#.#..#..#.#...#"},
    {'S', ".#####....#.....###.....#....#####."}, {'T', "#####..#....#....#....#....#....#.."},
    {'U', "#...##...##...##...##...##...#.###."}, {'V', "#...##...##...##...#.#.#..#.#...#.."},
    {'W', "#...##...##...##.#.##.#.###.###...#"}, {'X', "#...##...#.#.#...#...#.#.#...##...#"},
    {'Y', "#...##...#.#.#...#....#....#....#.."}, {'Z', "#####....#...#...#...#...#....#####"},
    {'[', ".###..#....#....#....#....#....###."}, {']', ".###....#....#....#....#....#..###."},
    {'_', "..............................#####"},
};
constexpr char kUnknown[] = "######...##...##...##...##...######";

const char* DotsOf(char character) {
  for (const Glyph& glyph : kGlyphs) {
    if (glyph.character == absl::ascii_toupper(character)) return glyph.dots;
  }
  return kUnknown;
}

}  // namespace

void FillRectangle(Image& image, Rectangle area, Color color) {
  area.left = std::clamp(area.left, 0, image.width);
  area.right = std::clamp(area.right, 0, image.width);
  area.top = std::clamp(area.top, 0, image.height);
  area.bottom = std::clamp(area.bottom, 0, image.height);
  for (int y = area.top; y < area.bottom; ++y) {
    char* pixel = &image.pixels[3 * (size_t{1} * y * image.width + area.left)];
    for (int x = area.left; x < area.right; ++x) {
      for (const uint8_t channel : color) *pixel++ = static_cast<char>(channel);
    }
  }
}

void DrawFrame(Image& image, const Rectangle& area, int thickness, Color color) {
  const auto& [left, top, right, bottom] = area;
  FillRectangle(image, {left, top, right, top + thickness}, color);
  FillRectangle(image, {left, bottom - thickness, right, bottom}, color);
  FillRectangle(image, {left, top, left + thickness, bottom}, color);
  FillRectangle(image, {right - thickness, top, right, bottom}, color);
}

int TextWidth(const std::string& text, int scale) {
  return (kColumns + 1) * scale * static_cast<int>(text.size()) + scale;
}

int TextHeight(int scale) { return (kRows + 2) * scale; }

void DrawText(Image& image, int left, int top, const std::string& text, int scale, Color color,
              Color background) {
  FillRectangle(image, {left, top, left + TextWidth(text, scale), top + TextHeight(scale)},
                background);
  for (const char character : text) {
    left += scale;
    const char* dot = character == ' ' ? nullptr : DotsOf(character);
    for (int i = 0; dot != nullptr && i < kColumns * kRows; ++i) {
      if (dot[i] != '#') continue;
      const int x = left + i % kColumns * scale;
      const int y = top + (1 + i / kColumns) * scale;
      FillRectangle(image, {x, y, x + scale, y + scale}, color);
    }
    left += kColumns * scale;
  }
}

}  // namespace client
}  // namespace millrace
