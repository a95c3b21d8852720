// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace millrace {
inline namespace client {

// A picture as packed rows of 3 bytes per pixel: red, green, blue, unless told otherwise.
struct Image {
  int width = 0;
  int height = 0;
  std::string pixels = {};
};

}  // namespace client
}  // namespace millrace
