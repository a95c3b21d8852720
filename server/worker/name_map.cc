// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/name_map.h"

#include <algorithm>
#include <optional>
#include <set>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"

namespace millrace {
namespace {

std::optional<size_t> Find(const std::string& prefix, const std::string& name,
                           const std::vector<std::string>& model_names) {
  const auto equal = std::find(model_names.begin(), model_names.end(), name);
  if (equal != model_names.end()) return static_cast<size_t>(equal - model_names.begin());
  absl::string_view rest = name;
  size_t position = 0;
  if (!absl::ConsumePrefix(&rest, prefix) || !absl::SimpleAtoi(rest, &position)) {
    return std::nullopt;
  }
  return position;
}

// "its own are 'x', 'mask'", or how many there are where they have no names.
std::string TheModels(const std::vector<std::string>& model_names) {
  std::vector<std::string> quoted;
  for (const std::string& name : model_names) {
    if (!name.empty()) quoted.push_back(absl::StrCat("'", name, "'"));
  }
  if (quoted.empty()) return absl::StrCat("the model has ", model_names.size(), ", without names");
  return absl::StrCat("the model's own are ", absl::StrJoin(quoted, ", "));
}

}  // namespace

absl::StatusOr<NameMap> MapNames(const std::string& prefix, const std::vector<std::string>& names,
                                 const std::vector<std::string>& model_names) {
  std::vector<std::optional<size_t>> found;
  for (const std::string& name : names) found.push_back(Find(prefix, name, model_names));
  NameMap map;
  map.by_order = std::none_of(found.begin(), found.end(), [](const auto& f) { return f; });
  std::set<size_t> taken;
  for (size_t i = 0; i < names.size(); ++i) {
    const auto error = [&](const auto&... pieces) {
      return absl::InvalidArgumentError(absl::StrCat("the config's '", names[i], "' ", pieces...,
                                                     "; ", TheModels(model_names), "; ", prefix,
                                                     "0, ", prefix, "1, … name them by place"));
    };
    if (!map.by_order && !found[i]) return error("is no tensor of the model's");
    const size_t position = map.by_order ? i : *found[i];
    if (position >= model_names.size()) return error("is beyond the model's last");
    if (!taken.insert(position).second) return error("is the same place as another name");
    map.positions.push_back(position);
  }
  return map;
}

}  // namespace millrace
