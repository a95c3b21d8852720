// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/config/config_file.h"

#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"

namespace millrace {
namespace {

// Whether a setting of a file or of the environment may stand for it: not --help and its like.
bool IsSetting(const CLI::Option* option) {
  return option->get_configurable() && !option->get_lnames().empty();
}

std::string NameOf(const CLI::Option& option) { return option.get_lnames().front(); }

const CLI::Option* FindSetting(const CLI::App& app, const std::string& name) {
  const CLI::Option* const option = app.get_option_no_throw(absl::StrCat("--", name));
  return option != nullptr && IsSetting(option) ? option : nullptr;
}

bool TakesSeveral(const CLI::Option& option) { return option.get_items_expected_max() > 1; }

// How many characters have to be put in, taken out or replaced to make one of the other.
size_t EditDistance(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), 0);
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = std::exchange(row[0], i + 1);
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

std::vector<std::string> ValuesOf(const YAML::Node& node) {
  std::vector<std::string> values;
  if (node.IsScalar()) values.push_back(node.Scalar());
  if (!node.IsSequence()) return values;
  for (const YAML::Node& element : node) {
    if (!element.IsScalar()) return {};
    values.push_back(element.Scalar());
  }
  return values;
}

}  // namespace

std::vector<CLI::ConfigItem> ConfigFile::from_config(std::istream& input) const {
  const auto fail = [this](const YAML::Mark& mark, const auto&... pieces) {
    throw CLI::ConfigError(absl::StrCat(FileName(), ":", mark.line + 1, ": ", pieces...));
  };
  YAML::Node file;
  try {
    file = YAML::Load(input);
  } catch (const YAML::ParserException& error) {
    fail(error.mark, "no YAML: ", error.msg);
  }
  if (file.IsNull()) return {};
  if (!file.IsMap()) fail(file.Mark(), "expected settings, such as `drain-timeout: 20s`");
  std::vector<CLI::ConfigItem> settings;
  for (const auto& entry : file) {
    const YAML::Mark mark = entry.first.Mark();
    if (!entry.first.IsScalar()) fail(mark, "expected the name of a setting");
    const std::string& name = entry.first.Scalar();
    const CLI::Option* const option = FindSetting(app_, name);
    if (option == nullptr) {
      const std::string nearest = NearestFlag(app_, name);
      fail(mark, "unknown setting '", name, "'",
           nearest.empty() ? "" : absl::StrCat("; did you mean '", nearest, "'?"));
    }
    if (!lines_.emplace(name, mark.line + 1).second) {
      fail(mark, "'", name, "' is set in line ", lines_[name], " already");
    }
    std::vector<std::string> values = ValuesOf(entry.second);
    if (values.empty()) fail(mark, "'", name, "' has no value; expected one, or a list of values");
    if (values.size() > 1 && !TakesSeveral(*option)) {
      fail(mark, "'", name, "' has ", values.size(), " values; expected one");
    }
    if (std::getenv(EnvironmentName(*option).c_str()) != nullptr) continue;  // It goes before.
    CLI::ConfigItem item;
    item.name = name;
    item.inputs = std::move(values);
    settings.push_back(std::move(item));
  }
  return settings;
}

std::string ConfigFile::to_config(const CLI::App* app, bool default_also, bool write_description,
                                  std::string prefix) const {
  YAML::Emitter out;
  out << YAML::BeginMap;
  for (const CLI::Option* const option : app->get_options()) {
    if (!IsSetting(option) || option == app->get_config_ptr()) continue;
    std::vector<std::string> values = option->reduced_results();
    if (option->count() == 0) {
      if (!default_also || option->get_default_str().empty()) continue;
      values = {option->get_default_str()};
      // As CLI11 writes a list.
      if (TakesSeveral(*option))
        values.front() =
            std::string(absl::StripSuffix(absl::StripPrefix(values.front(), "["), "]"));
    }
    if (write_description) out << YAML::Comment(option->get_description()) << YAML::Newline;
    out << YAML::Key << absl::StrCat(prefix, NameOf(*option)) << YAML::Value;
    if (TakesSeveral(*option)) {
      out << YAML::Flow << values;
    } else {
      out << values.front();
    }
  }
  out << YAML::EndMap;
  return absl::StrCat(out.c_str(), "\n");
}

std::string ConfigFile::PlaceOf(const std::string& error) const {
  for (const auto& [name, line] : lines_) {
    const std::string flag = absl::StrCat("--", name);
    const size_t at = error.find(flag);
    if (at == std::string::npos) continue;
    const size_t end = at + flag.size();
    if (end < error.size() && (absl::ascii_isalnum(error[end]) || error[end] == '-')) continue;
    return absl::StrCat(FileName(), ":", line, ": ");
  }
  return "";
}

std::string ConfigFile::FileName() const { return app_.get_config_ptr()->as<std::string>(); }

const ConfigFile& AddConfigFile(CLI::App& app) {
  const auto file = std::make_shared<ConfigFile>(app);
  for (CLI::Option* const option : app.get_options(IsSetting)) {
    option->envname(EnvironmentName(*option));
    if (TakesSeveral(*option)) option->delimiter(',');
  }
  const char* const given = std::getenv("MILLRACE_CONFIG");
  app.set_config("--config", given == nullptr ? "" : given,
                 "Settings as YAML: the names of these flags without dashes, and their values; "
                 "default: the file that MILLRACE_CONFIG names. A flag goes before its environment "
                 "variable, and that before the file",
                 /*config_required=*/given != nullptr)
      ->type_name("FILE");
  app.config_formatter(file);
  return *file;
}

std::string EnvironmentName(const CLI::Option& option) {
  return absl::StrCat("MILLRACE_",
                      absl::AsciiStrToUpper(absl::StrReplaceAll(NameOf(option), {{"-", "_"}})));
}

std::string NearestFlag(const CLI::App& app, const std::string& name) {
  const std::string wanted = absl::StrReplaceAll(name, {{"_", "-"}});
  std::string nearest;
  size_t distance = 1 + std::max<size_t>(2, wanted.size() / 4);
  for (const CLI::Option* const option : app.get_options()) {
    if (option->get_lnames().empty()) continue;
    const size_t next = EditDistance(wanted, NameOf(*option));
    if (next >= distance) continue;
    distance = next;
    nearest = NameOf(*option);
  }
  return nearest;
}

}  // namespace millrace
