// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/config/config_file.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/config/flags.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class ConfigFileTest : public ::testing::Test {
 protected:
  ConfigFileTest() {
    std::filesystem::create_directories(folder_);
    path_ = absl::StrCat(folder_, "/millrace.yaml");
  }
  ~ConfigFileTest() override {
    for (const std::string& name : environment_) unsetenv(name.c_str());
    std::filesystem::remove_all(folder_);
  }

  void SetEnvironment(const std::string& name, const std::string& value) {
    setenv(name.c_str(), value.c_str(), 1);
    environment_.push_back(name);
  }

  Command Parse(const std::string& file, std::vector<std::string> flags = {}) {
    std::ofstream(path_) << file;
    std::vector<std::string> words = {"millrace-server", "--config", path_};
    words.insert(words.end(), flags.begin(), flags.end());
    return ParseWords(words);
  }

  static Command ParseWords(const std::vector<std::string>& words) {
    std::vector<const char*> arguments;
    for (const std::string& word : words) arguments.push_back(word.c_str());
    return ParseFlags(static_cast<int>(arguments.size()), arguments.data());
  }

  static ServerConfig Served(const Command& command) {
    if (const auto* const leave = std::get_if<ExitNow>(&command)) {
      ADD_FAILURE() << leave->text;
      return {};
    }
    return std::get<ServerConfig>(command);
  }

  std::string Error(const Command& command) {
    const auto* const leave = std::get_if<ExitNow>(&command);
    if (leave == nullptr) return "no error";
    EXPECT_EQ(leave->code, 2);
    return leave->text;
  }

  const std::string folder_ = absl::StrCat(::testing::TempDir(), "/config_file_test");
  std::string path_;
  std::vector<std::string> environment_;
};

TEST_F(ConfigFileTest, SettingsAreTheFlagsWithoutDashes) {
  const ServerConfig config =
      Served(Parse("# A comment.\n"
                   "model-repository: [/tmp, /var]\n"
                   "grpc-listen: 0.0.0.0:9000\n"
                   "drain-timeout: 1m30s\n"
                   "max-streams: 7\n"
                   "pin: true\n"
                   "log-format: json\n"));
  EXPECT_THAT(config.model_repositories, ElementsAre("/tmp", "/var"));
  EXPECT_THAT(config.grpc_listen, ElementsAre("0.0.0.0:9000"));
  EXPECT_EQ(config.drain_timeout, absl::Seconds(90));
  EXPECT_EQ(config.max_streams, 7);
  EXPECT_TRUE(config.pin);
  EXPECT_EQ(config.log_format, LogFormat::kJson);
}

TEST_F(ConfigFileTest, FlagsGoBeforeTheEnvironmentAndThatBeforeTheFile) {
  SetEnvironment("MILLRACE_MAX_STREAMS", "20");
  SetEnvironment("MILLRACE_STREAM_WINDOW", "21");
  SetEnvironment("MILLRACE_MODEL_REPOSITORY", "/tmp,/usr");
  const ServerConfig config =
      Served(Parse("model-repository: /var\n"
                   "max-streams: 30\n"
                   "stream-window: 31\n"
                   "max-stream-window: 32\n",
                   {"--max-streams", "10"}));
  EXPECT_EQ(config.max_streams, 10);
  EXPECT_EQ(config.stream_window, 21);
  EXPECT_EQ(config.max_stream_window, 32);
  EXPECT_EQ(config.io_threads, ServerConfig().io_threads);
  EXPECT_THAT(config.model_repositories, ElementsAre("/tmp", "/usr"));
}

TEST_F(ConfigFileTest, TheEnvironmentAloneIsEnoughAndMayNameTheFile) {
  std::ofstream(path_) << "max-streams: 3\n";
  SetEnvironment("MILLRACE_CONFIG", path_);
  SetEnvironment("MILLRACE_MODEL_REPOSITORY", "/tmp");
  SetEnvironment("MILLRACE_PIN", "true");
  const ServerConfig config = Served(ParseWords({"millrace-server"}));
  EXPECT_EQ(config.max_streams, 3);
  EXPECT_TRUE(config.pin);
  EXPECT_THAT(config.model_repositories, ElementsAre("/tmp"));
}

TEST_F(ConfigFileTest, AnUnknownSettingIsAnErrorThatNamesTheLineAndWhatWasMeant) {
  EXPECT_EQ(Error(Parse("model-repository: /tmp\ngrpc-lisen: 0.0.0.0:1\n")).substr(0, 200),
            absl::StrCat(path_, ":2: unknown setting 'grpc-lisen'; did you mean 'grpc-listen'?\n",
                         "Run with --help for more information.\n"));
  EXPECT_THAT(Error(Parse("max_streams: 3\n")), HasSubstr("did you mean 'max-streams'?"));
  EXPECT_THAT(Error(Parse("zzzzzzzzzzzz: 3\n")),
              StartsWith(absl::StrCat(path_, ":1: unknown setting 'zzzzzzzzzzzz'\n")));
  // Not a setting, though it is a flag.
  EXPECT_THAT(Error(Parse("version: true\n")), HasSubstr("unknown setting 'version'"));
  EXPECT_THAT(Error(Parse("config: other.yaml\n")), HasSubstr("unknown setting 'config'"));
}

TEST_F(ConfigFileTest, WhatIsWrongWithAFileIsSaidWithItsLine) {
  const auto error = [this](const std::string& text) {
    const std::string found = Error(Parse(absl::StrCat("model-repository: /tmp\n", text)));
    EXPECT_THAT(found, StartsWith(absl::StrCat(path_, ":")));
    return found.substr(path_.size() + 1);
  };
  EXPECT_THAT(error("max-streams: many\n"), StartsWith("2: "));
  EXPECT_THAT(error("max-streams: 0\n"), StartsWith("2: "));
  EXPECT_THAT(error("grpc-listen: [127.0.0.1:1, here]\n"), HasSubstr("'here' is not of the form"));
  EXPECT_THAT(error("drain-delay: soon\n"), HasSubstr("'soon' is no duration"));
  EXPECT_THAT(error("max-streams: 3\nmax-streams: 4\n"), StartsWith("3: 'max-streams' is set in"));
  EXPECT_THAT(error("max-streams: [3, 4]\n"), HasSubstr("has 2 values; expected one"));
  EXPECT_THAT(error("max-streams:\n"), HasSubstr("has no value"));
  EXPECT_THAT(error("grpc-listen: {port: 3}\n"), HasSubstr("has no value"));
  EXPECT_THAT(error("grpc-listen: [\n"), HasSubstr("no YAML"));
  EXPECT_THAT(Error(Parse("just text\n")), HasSubstr("expected settings"));
  EXPECT_THAT(Error(Parse("- a\n- b\n")), HasSubstr("expected settings"));
}

TEST_F(ConfigFileTest, AFileThatIsNotThereIsAnError) {
  EXPECT_THAT(Error(ParseWords({"millrace-server", "--config", "/nowhere.yaml"})),
              HasSubstr("/nowhere.yaml"));
  SetEnvironment("MILLRACE_CONFIG", "/nowhere.yaml");
  EXPECT_THAT(Error(ParseWords({"millrace-server", "--model-repository", "/tmp"})),
              HasSubstr("/nowhere.yaml"));
}

TEST_F(ConfigFileTest, AnUnknownFlagIsToldWhatWasMeant) {
  EXPECT_THAT(Error(ParseWords({"millrace-server", "--model-repositry", "/tmp"})),
              HasSubstr("Did you mean '--model-repository'?"));
}

TEST_F(ConfigFileTest, WhatIsPrintedIsAFileWithTheSameSettings) {
  const Command printed =
      Parse("model-repository: [/tmp, /var]\ndrain-timeout: 90s\npin: true\n",
            {"--grpc-listen", "127.0.0.1:1", "--grpc-listen", "unix:/a b", "--print-config"});
  const auto* const leave = std::get_if<ExitNow>(&printed);
  ASSERT_NE(leave, nullptr);
  ASSERT_EQ(leave->code, 0) << leave->text;
  EXPECT_THAT(leave->text, HasSubstr("max-streams: 4096\n"));
  const ServerConfig again = Served(Parse(leave->text));
  EXPECT_THAT(again.model_repositories, ElementsAre("/tmp", "/var"));
  EXPECT_THAT(again.grpc_listen, ElementsAre("127.0.0.1:1", "unix:/a b"));
  EXPECT_EQ(again.drain_timeout, absl::Seconds(90));
  EXPECT_TRUE(again.pin);
  EXPECT_EQ(again.http_port, 8002);
  EXPECT_EQ(again.load_timeout, ServerConfig().load_timeout);
}

}  // namespace
}  // namespace millrace
