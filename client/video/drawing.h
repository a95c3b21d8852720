// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "client/video/image.h"

// Boxes and words on a picture. What lies beyond its edges is left out.
namespace millrace {
inline namespace client {

using Color = std::array<uint8_t, 3>;  // Red, green, blue.

struct Rectangle {
  int left, top, right, bottom;  // The last two are one beyond.
};

void FillRectangle(Image& image, Rectangle area, Color color);

// The edge of `area`, so thick, drawn inwards.
void DrawFrame(Image& image, const Rectangle& area, int thickness, Color color);

// The size of a line of text on its background.
int TextWidth(const std::string& text, int scale);
int TextHeight(int scale);

// Writes a line in letters of 5x7 dots, each of scale x scale pixels: capitals, digits and the
// usual signs of ASCII; others are a hollow box.
void DrawText(Image& image, int left, int top, const std::string& text, int scale, Color color,
              Color background);

}  // namespace client
}  // namespace millrace
