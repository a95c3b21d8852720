// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/session.h"
#include "nlohmann/json.hpp"

namespace millrace {
inline namespace client {
namespace {

using Json = nlohmann::ordered_json;

// One version of a model, with what it takes and returns while it is ready.
struct Entry {
  ModelStatus status;
  ModelMetadata metadata;
};

absl::StatusOr<std::vector<Entry>> Fetch(Client& client) {
  auto models = client.ListModels();
  if (!models.ok()) return models.status();
  std::vector<Entry> entries;
  for (ModelStatus& status : *models) {
    Entry entry{std::move(status), {}};
    if (entry.status.state == "READY") {
      // A model may be gone since it was listed; its line then stays without metadata.
      auto metadata = client.DescribeModel(entry.status.name, entry.status.version);
      if (metadata.ok()) entry.metadata = *std::move(metadata);
    }
    entries.push_back(std::move(entry));
  }
  return entries;
}

Json ToJson(const std::vector<TensorMetadata>& tensors) {
  Json array = Json::array();
  for (const TensorMetadata& tensor : tensors) {
    array.push_back(
        {{"name", tensor.name}, {"datatype", tensor.datatype}, {"shape", tensor.shape}});
  }
  return array;
}

Json ToJson(const Entry& entry) {
  return {{"name", entry.status.name},
          {"version", entry.status.version},
          {"state", entry.status.state},
          {"reason", entry.status.reason},
          {"platform", entry.metadata.platform},
          {"inputs", ToJson(entry.metadata.inputs)},
          {"outputs", ToJson(entry.metadata.outputs)}};
}

std::string Summary(const std::vector<TensorMetadata>& tensors) {
  return absl::StrJoin(tensors, ", ", [](std::string* out, const TensorMetadata& tensor) {
    absl::StrAppend(out, tensor.name, " ", DescribeType(tensor.datatype, tensor.shape));
  });
}

// The row's cells; a model that isn't ready shows why instead of its tensors.
std::vector<std::string> ToRow(const Entry& entry) {
  std::vector<std::string> row = {entry.status.name, entry.status.version, entry.status.state};
  if (entry.status.state == "READY") {
    row.push_back(entry.metadata.platform);
    row.push_back(
        absl::StrCat(Summary(entry.metadata.inputs), " -> ", Summary(entry.metadata.outputs)));
  } else {
    row.push_back("-");
    row.push_back(entry.status.reason);
  }
  return row;
}

void PrintTable(std::ostream& out, const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths(rows.front().size(), 0);
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto& row : rows) {
    for (size_t i = 0; i + 1 < row.size(); ++i) {
      out << row[i] << std::string(widths[i] - row[i].size() + 2, ' ');
    }
    out << row.back() << "\n";
  }
}

int Run(const Session& session, bool as_json) {
  const auto client = session.Connect();
  if (absl::IsInvalidArgument(client.status())) return session.Fail(client.status(), kBadArguments);
  if (!client.ok()) return session.Fail(client.status());
  const auto entries = Fetch(**client);
  if (!entries.ok()) return session.Fail(entries.status());
  if (as_json) {
    Json array = Json::array();
    for (const Entry& entry : *entries) array.push_back(ToJson(entry));
    session.out << array.dump(2) << "\n";
    return kSuccess;
  }
  std::vector<std::vector<std::string>> rows = {
      {"MODEL", "VERSION", "STATE", "PLATFORM", "INPUTS -> OUTPUTS, OR WHY IT IS NOT READY"}};
  for (const Entry& entry : *entries) rows.push_back(ToRow(entry));
  PrintTable(session.out, rows);
  return kSuccess;
}

}  // namespace

void AddModelsCommand(Session& session) {
  const auto as_json = std::make_shared<bool>(false);
  CLI::App* command = session.AddCommand(
      "models", "List the server's models: state, inputs, outputs",
      "  millrace models\n"
      "  millrace models --json | jq -r '.[] | select(.state == \"READY\") | .name'");
  command->add_flag("--json", *as_json, "Print JSON");
  command->callback([&session, as_json] { session.exit_code = Run(session, *as_json); });
}

}  // namespace client
}  // namespace millrace
