// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <istream>
#include <map>
#include <string>
#include <vector>

namespace millrace {

// The flags of a program as settings in a YAML file: a map from their names, without dashes in
// front, to a value or a list of values.
//
//   model-repository: [/models]
//   drain-timeout: 20s
//
// A flag on the command line goes before the environment (MILLRACE_DRAIN_TIMEOUT), that before the
// file, and the file before the default. The parser of `app` calls this; see AddConfigFile().
class ConfigFile final : public CLI::Config {
 public:
  explicit ConfigFile(const CLI::App& app) : app_(app) {}

  // Throws CLI::ConfigError, which names the file, the line, and for an unknown setting the one
  // that was probably meant.
  std::vector<CLI::ConfigItem> from_config(std::istream& input) const override;

  // The settings of `app` that are in effect, after parsing. Those without a value are left out.
  std::string to_config(const CLI::App* app, bool default_also, bool write_description,
                        std::string prefix) const override;

  // "FILE:LINE: " where the text of an error is about a setting that the file has, else "".
  std::string PlaceOf(const std::string& error) const;

 private:
  std::string FileName() const;

  const CLI::App& app_;
  mutable std::map<std::string, int> lines_;  // By setting; numbered from 1.
};

// Adds --config to `app`, and lets each flag that it has by now also be set by its environment
// variable, lists by commas. Call last. What is returned belongs to `app`.
const ConfigFile& AddConfigFile(CLI::App& app);

// Of a flag --max-streams: MILLRACE_MAX_STREAMS.
std::string EnvironmentName(const CLI::Option& option);

// The flag, without its dashes, whose name is nearly `name`; "" where there is none.
std::string NearestFlag(const CLI::App& app, const std::string& name);

}  // namespace millrace
