// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/config_json.h"

#include "absl/strings/str_cat.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/json_util.h"
#include "proto/model_config.pb.h"

namespace millrace {

absl::StatusOr<std::string> ConfigTextOfJson(const std::string& json) {
  inference::ModelConfig config;
  const auto parsed = google::protobuf::util::JsonStringToMessage(json, &config);
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("parameter 'config' is no ModelConfig in JSON: ",
                     std::string(parsed.message().data(), parsed.message().size())));
  }
  std::string text;
  google::protobuf::TextFormat::PrintToString(config, &text);
  return text;
}

}  // namespace millrace
