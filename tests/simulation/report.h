// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace millrace {

// What a figure is to be.
struct Goal {
  enum class Kind { kAtLeast, kAtMost };
  Kind kind;
  double bound;
};
inline Goal AtLeast(double bound) { return {Goal::Kind::kAtLeast, bound}; }
inline Goal AtMost(double bound) { return {Goal::Kind::kAtMost, bound}; }

// A row of the table: what was found in a scenario with a setting.
struct Figure {
  std::string scenario;
  std::string setting;
  std::string name;
  double value = 0;
  std::string unit = {};
  std::optional<Goal> goal = {};  // Nullopt: merely reported.

  bool met() const {
    if (!goal) return true;
    return goal->kind == Goal::Kind::kAtLeast ? value >= goal->bound : value <= goal->bound;
  }
};

// "≥ 0.98"; empty where there is no goal.
std::string GoalText(const Figure& figure);
// The whole row, in words.
std::string ToString(const Figure& figure);

// A point of a plot.
struct Point {
  std::string plot;
  std::string series;
  double x = 0;
  double y = 0;
};

// What scenarios found.
struct Report {
  std::vector<Figure> figures;
  std::vector<Point> points;
  uint64_t requests = 0;  // Simulated.

  void Add(Figure figure) { figures.push_back(std::move(figure)); }
  void Plot(Point point) { points.push_back(std::move(point)); }

  // The table, as text.
  std::string Table() const;
  std::string Json() const;
};

}  // namespace millrace
