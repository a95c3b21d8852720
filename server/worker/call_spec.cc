// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/worker/call_spec.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace millrace {
namespace {

using Json = nlohmann::json;

// Appends the leaves under `node`, each named by the innermost dict it lies in.
void AppendLeaves(const Json& node, const std::string& name, std::vector<std::string>& leaves) {
  if (node.at("type").is_null()) {
    leaves.push_back(name);
    return;
  }
  const Json& children = node.at("children_spec");
  const std::string type = node.at("type");
  const Json keys = type == "builtins.dict" || type == "collections.OrderedDict"
                        ? Json::parse(node.at("context").get<std::string>())
                        : Json();
  for (size_t i = 0; i < children.size(); ++i) {
    const bool named = keys.is_array() && i < keys.size() && keys[i].is_string();
    AppendLeaves(children[i], named ? keys[i].get<std::string>() : name, leaves);
  }
}

}  // namespace

absl::StatusOr<std::vector<std::string>> TensorsOfCallSpec(const std::string& text) {
  try {
    std::vector<std::string> leaves;
    AppendLeaves(Json::parse(text).at(1), "", leaves);
    return leaves;
  } catch (const Json::exception& error) {
    return absl::InternalError(
        absl::StrCat("the package's call specification can't be read: ", error.what()));
  }
}

}  // namespace millrace
