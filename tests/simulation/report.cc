// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/report.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace millrace {
namespace {

std::string Number(double value) {
  return value >= 1000 || value <= -1000 ? absl::StrFormat("%.0f", value)
                                         : absl::StrFormat("%.4g", value);
}

// Characters as a terminal shows them, not bytes.
size_t Width(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char character) {
    return (static_cast<unsigned char>(character) & 0xc0) != 0x80;
  }));
}

std::string Quoted(const std::string& text) {
  std::string quoted = "\"";
  for (const char character : text) {
    if (character == '"' || character == '\\') quoted.push_back('\\');
    quoted.push_back(character);
  }
  return quoted + "\"";
}

std::string ToJson(const Figure& figure) {
  std::string json =
      absl::StrCat(R"({"scenario":)", Quoted(figure.scenario), R"(,"setting":)",
                   Quoted(figure.setting), R"(,"figure":)", Quoted(figure.name), R"(,"value":)",
                   absl::StrFormat("%.9g", figure.value), R"(,"unit":)", Quoted(figure.unit));
  if (figure.goal) {
    absl::StrAppend(&json, R"(,"goal":)", Quoted(GoalText(figure)), R"(,"met":)",
                    figure.met() ? "true" : "false");
  }
  return json + "}";
}

std::string ToJson(const Point& point) {
  return absl::StrFormat(R"({"plot":%s,"series":%s,"x":%.9g,"y":%.9g})", Quoted(point.plot),
                         Quoted(point.series), point.x, point.y);
}

}  // namespace

std::string GoalText(const Figure& figure) {
  if (!figure.goal) return "";
  return absl::StrCat(figure.goal->kind == Goal::Kind::kAtLeast ? "≥ " : "≤ ",
                      Number(figure.goal->bound));
}

std::string ToString(const Figure& figure) {
  return absl::StrCat(figure.scenario, ", ", figure.setting, ": ", figure.name, " is ",
                      Number(figure.value), " ", figure.unit,
                      figure.goal ? absl::StrCat(", to be ", GoalText(figure)) : "");
}

std::string Report::Table() const {
  using Row = std::array<std::string, 7>;
  std::vector<Row> rows = {{"scenario", "setting", "figure", "value", "unit", "goal", ""}};
  for (const Figure& figure : figures) {
    rows.push_back({figure.scenario, figure.setting, figure.name, Number(figure.value), figure.unit,
                    GoalText(figure),
                    !figure.goal   ? ""
                    : figure.met() ? "met"
                                   : "MISSED"});
  }
  std::array<size_t, 7> widths{};
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Width(row[i]));
  }
  std::string table;
  for (const Row& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string padding(widths[i] - Width(row[i]), ' ');
      const bool number = i == 3;
      absl::StrAppend(&line, number ? padding : "", row[i], number ? "" : padding, "  ");
    }
    absl::StrAppend(&table, line.substr(0, line.find_last_not_of(' ') + 1), "\n");
  }
  return table;
}

std::string Report::Json() const {
  const auto append = [](std::string* out, const auto& item) {
    absl::StrAppend(out, ToJson(item));
  };
  return absl::StrCat("{\"figures\":[\n", absl::StrJoin(figures, ",\n", append),
                      "\n],\"points\":[\n", absl::StrJoin(points, ",\n", append), "\n]}\n");
}

}  // namespace millrace
