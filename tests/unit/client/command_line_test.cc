// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/command_line.h"

#include <filesystem>
#include <map>
#include <sstream>

#include "client/cli/tensor_file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/unit/client/fake_server.h"
#include "tests/unit/client/temporary_folder.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Not;
using ::testing::Pair;
using ::testing::StartsWith;
using Json = nlohmann::json;

struct Result {
  int code;
  std::string out;
  std::string err;
};

Result RunWith(std::vector<std::string> arguments, bool err_is_terminal = false) {
  std::ostringstream out, err;
  const int code = RunCommandLine(std::move(arguments), out, err, err_is_terminal);
  return {code, out.str(), err.str()};
}

class CommandLine : public testing::Test {
 protected:
  // Runs with --url of the fake server.
  Result Run(std::vector<std::string> arguments, bool err_is_terminal = false) {
    arguments.insert(arguments.end(), {"--url", server_.address()});
    return RunWith(std::move(arguments), err_is_terminal);
  }

  FakeServer server_;
  TemporaryFolder folder_;
};

TEST_F(CommandLine, HealthExitsAsGrpcHealthProbe) {
  EXPECT_EQ(Run({"health"}).code, 0);
  server_.SetServing("sick", false);
  EXPECT_EQ(Run({"health", "--service", "sick"}).code, 4);
  EXPECT_EQ(Run({"health", "--service", "unknown"}).code, 3);
  EXPECT_EQ(RunWith({"health", "--url", "unix:/nowhere", "--connect-timeout", "0.05"}).code, 2);
  EXPECT_EQ(RunWith({"health", "--url", "nowhere"}).code, 1);
  EXPECT_EQ(Run({"health", "--nonsense"}).code, 1);
}

TEST_F(CommandLine, ACommandOfTheServersNeedsTheServerBesideIt) {
  const Result result = RunWith({"inspect", "net.pt", "--input", "3:FP32", "--help"});
  EXPECT_EQ(result.code, 1);  // The tests' folder has none; all that follows would be its to read.
  EXPECT_THAT(result.err, HasSubstr("millrace-server"));
}

TEST_F(CommandLine, ModelsPrintsATable) {
  const Result result = Run({"models"});
  EXPECT_EQ(result.code, 0);
  EXPECT_THAT(result.out, HasSubstr("echo    1        READY        pytorch_libtorch  "
                                    "INPUT__0 FP32 [-1,4] -> OUTPUT__0 FP32 [-1,4]\n"));
  EXPECT_THAT(result.out,
              HasSubstr("broken  2        UNAVAILABLE  -                 config.pbtxt:3"));
}

TEST_F(CommandLine, ModelsPrintsJson) {
  const Json models = Json::parse(Run({"models", "--json"}).out);
  ASSERT_EQ(models.size(), 3u);
  EXPECT_EQ(models[0]["inputs"][0]["shape"], Json({-1, 4}));
  EXPECT_EQ(models[2]["reason"], "config.pbtxt:3: unknown field 'dimz'");
}

TEST_F(CommandLine, InferTakesJsonAndAddsTheRow) {
  const Result result = Run({"infer", "echo", "--input", "[1, 2, 3, 4.5]", "--id", "7"});
  ASSERT_EQ(result.code, 0) << result.err;
  const Json json = Json::parse(result.out);
  EXPECT_EQ(json["id"], "7");
  EXPECT_EQ(json["outputs"][0]["name"], "OUTPUT__0");
  EXPECT_EQ(json["outputs"][0]["shape"], Json({1, 4}));
  EXPECT_EQ(json["outputs"][0]["data"], Json({1.0, 2.0, 3.0, 4.5}));
}

TEST_F(CommandLine, InferReadsJsonNpyAndRawFiles) {
  const Tensor tensor = Tensor::Of<float>("", {1, 4}, {1, 2, 3, 4});
  folder_.Write("x.npy", *FormatNpy(tensor));
  folder_.Write("x.bin", tensor.data);
  folder_.Write("x.json", "[[1, 2, 3, 4]]");
  const std::string expected = Run({"infer", "echo", "--input", "INPUT__0=[[1,2,3,4]]"}).out;
  EXPECT_THAT(expected, HasSubstr("[1.0,2.0,3.0,4.0]"));
  for (const char* name : {"x.npy", "x.bin", "x.json"}) {
    EXPECT_EQ(Run({"infer", "echo", "--input", "INPUT__0=@" + (folder_ / name)}).out, expected);
    EXPECT_EQ(Run({"infer", "echo", "--input", "@" + (folder_ / name)}).out, expected);
  }
}

TEST_F(CommandLine, InferTakesShapeAndDatatypeFromTheCommandLine) {
  folder_.Write("x.bin", std::string("\1\0\2\0", 4));
  const Result result = Run({"infer", "echo", "--input", "@" + (folder_ / "x.bin"), "--shape",
                             "2,1", "--dtype", "INPUT__0=INT16"});
  ASSERT_EQ(result.code, 0) << result.err;
  const Json output = Json::parse(result.out)["outputs"][0];
  EXPECT_EQ(output["datatype"], "INT16");
  EXPECT_EQ(output["shape"], Json({2, 1}));
  EXPECT_EQ(output["data"], Json({1, 2}));
}

TEST_F(CommandLine, InferSavesOutputs) {
  const Result result =
      Run({"infer", "echo", "--input", "[1, 2, 3, 4]", "--output-dir", folder_ / ""});
  ASSERT_EQ(result.code, 0) << result.err;
  const std::string file = Json::parse(result.out)["outputs"][0]["file"];
  const auto tensor = ParseNpy(*ReadFile(file));
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_EQ(tensor->data, Tensor::Of<float>("", {4}, {1, 2, 3, 4}).data);
}

TEST_F(CommandLine, InferNamesWhatIsWrong) {
  EXPECT_THAT(Run({"infer", "echo", "--input", "x=[1]"}).err,
              HasSubstr("model 'echo' has no input 'x'; it has: INPUT__0"));
  EXPECT_THAT(Run({"infer", "echo", "--input", "[oops"}).err,
              HasSubstr("input 'INPUT__0': '[oops'"));
  EXPECT_THAT(Run({"infer", "echo", "--input", "@none.npy"}).err,
              HasSubstr("can't read 'none.npy'"));
  EXPECT_THAT(Run({"infer", "echo", "--input", "[1]", "--dtype", "FLOAT"}).err,
              HasSubstr("'FLOAT' is no datatype"));
  EXPECT_THAT(Run({"infer", "echo", "--input", "[1]", "--shape", "a"}).err,
              HasSubstr("'a' is no shape"));
  EXPECT_EQ(Run({"infer", "echo", "--input", "[oops"}).code, 1);
  const Result unknown = Run({"infer", "nope", "--input", "[1]"});
  EXPECT_EQ(unknown.code, 3);
  EXPECT_THAT(unknown.err, HasSubstr("NOT_FOUND: no model 'nope'"));
}

TEST_F(CommandLine, StreamPrintsOneLinePerFrameInOrder) {
  for (int i = 0; i < 9; ++i) {
    folder_.Write("f" + std::to_string(i) + ".ppm", Picture(64, 48, i, i, i));
  }
  const Result result = Run({"stream", folder_ / "f%d.ppm", "--model", "frames", "--start", "2",
                             "--frames", "5", "--window", "2", "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.err,
              AllOf(StartsWith("5 frames in "), HasSubstr(" 0 errors, 2.3 KB a frame\n")));
  std::istringstream lines(result.out);
  std::string line;
  int frame = 2;
  for (; std::getline(lines, line); ++frame) {
    const Json json = Json::parse(line);
    EXPECT_EQ(json["frame"], frame);
    EXPECT_EQ(json["pts"], frame * 0.04);
    EXPECT_EQ(json["outputs"][0]["shape"], Json({1, 24, 32, 3}));
    EXPECT_EQ(json["outputs"][0]["data"][0], frame);
  }
  EXPECT_EQ(frame, 7);
}

TEST_F(CommandLine, StreamTellsTheServerItsTerms) {
  const std::string picture = folder_.Write("f0.ppm", Picture(4, 4, 0, 0, 0));
  ASSERT_EQ(Run({"stream", picture, "--model", "frames", "--overflow", "latest", "--order",
                 "completion", "--weight", "20", "--max-age", "0.5"})
                .code,
            0);
  EXPECT_THAT(
      server_.last_metadata(),
      IsSupersetOf({Pair("millrace-overflow", "latest"), Pair("millrace-order", "completion"),
                    Pair("millrace-weight", "20"), Pair("millrace-max-age", "500000")}));
}

TEST_F(CommandLine, StreamNamesATermThatMakesNoSense) {
  const std::vector<std::vector<std::string>> all = {
      {"--overflow", "newest"}, {"--order", "any"}, {"--weight", "101"}, {"--max-age", "0"}};
  for (const auto& wrong : all) {
    const Result result = Run({"stream", "x", "--model", "frames", wrong[0], wrong[1]});
    EXPECT_EQ(result.code, 1) << wrong[0];
    EXPECT_THAT(result.err, AllOf(HasSubstr(wrong[0]), HasSubstr(wrong[1])));
  }
}

TEST_F(CommandLine, StreamPairsAnswersAndFramesInCompletionOrder) {
  for (int i = 0; i < 4; ++i) {
    folder_.Write("f" + std::to_string(i) + ".ppm", Picture(64, 48, i, i, i));
  }
  server_.ReverseNext(4);
  const Result result =
      Run({"stream", folder_ / "f%d.ppm", "--model", "frames", "--order", "completion", "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  std::istringstream lines(result.out);
  std::string line;
  int frame = 4;
  while (std::getline(lines, line)) {
    const Json json = Json::parse(line);
    EXPECT_EQ(json["frame"], --frame);
    EXPECT_EQ(json["outputs"][0]["data"][0], frame);
  }
  EXPECT_EQ(frame, 0);
}

TEST_F(CommandLine, StreamOfSeveralSourcesTellsThemApartAndGoesOnWithoutABrokenOne) {
  for (int i = 0; i < 6; ++i) {
    folder_.Write((i < 3 ? "a" : "b") + std::to_string(i % 3) + ".ppm", Picture(32, 24, i, i, i));
  }
  const Result result = Run({"stream", folder_ / "a%d.ppm", folder_ / "none.avi",
                             folder_ / "b%d.ppm", "--model", "frames", "--json"});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("none.avi: '"));
  EXPECT_THAT(result.err, HasSubstr("a%d.ppm: 3 frames in "));
  EXPECT_THAT(result.err, HasSubstr("all: 6 frames in "));
  std::istringstream lines(result.out);
  std::map<int, int> next;
  for (std::string line; std::getline(lines, line);) {
    const Json json = Json::parse(line);
    const int source = json["source"];
    EXPECT_EQ(json["name"], folder_ / (source == 0 ? "a%d.ppm" : "b%d.ppm"));
    EXPECT_EQ(json["frame"], next[source]);
    EXPECT_EQ(json["outputs"][0]["data"][0], (source == 0 ? 0 : 3) + next[source]++);
  }
  EXPECT_THAT(next, ElementsAre(Pair(0, 3), Pair(2, 3)));
}

TEST_F(CommandLine, StreamRefusesAnAnswerThatBringsBackAnotherFrame) {
  folder_.Write("f0.ppm", Picture(32, 24, 7, 8, 9));
  folder_.Write("f1.ppm", Picture(32, 24, 7, 8, 9));
  for (const auto& [echo, said] : std::map<std::string, std::string>{
           {"millrace_echo_frame", "brings back another millrace_echo_frame"},
           {"millrace_echo_pts", "brings back another millrace_echo_pts"}}) {
    server_.FalsifyNext(echo);
    const Result result = Run({"stream", folder_ / "f%d.ppm", "--model", "frames"});
    EXPECT_EQ(result.code, 3);
    EXPECT_THAT(result.out, HasSubstr("INTERNAL: the answer to frame 0 " + said));
    EXPECT_THAT(result.err, HasSubstr(" 1 errors"));
  }
}

TEST_F(CommandLine, StreamShowsProgressOnATerminalOnly) {
  folder_.Write("f0.ppm", Picture(64, 48, 7, 8, 9));
  const std::vector<std::string> arguments = {"stream", folder_ / "f0.ppm", "--model", "frames"};
  const Result plain = Run(arguments);
  EXPECT_THAT(plain.out, StartsWith("frame     0     0.000 s"));
  EXPECT_THAT(plain.out, HasSubstr("OUTPUT__0 UINT8 [1,24,32,3]: 7 8 9 7 ..."));
  EXPECT_THAT(plain.err, Not(HasSubstr("\r")));
  EXPECT_THAT(Run(arguments, true).err, HasSubstr("\r\x1b[K[##"));
}

TEST_F(CommandLine, StreamRefusesWhatItCannotStream) {
  const std::string picture = folder_.Write("f0.ppm", Picture(4, 4, 0, 0, 0));
  const Result no_pictures = Run({"stream", picture, "--model", "echo"});
  EXPECT_EQ(no_pictures.code, 1);
  EXPECT_THAT(no_pictures.err, HasSubstr("takes FP32 [-1,4] first; streaming a video needs"));
  const Result no_video = Run({"stream", folder_ / "none.avi", "--model", "frames"});
  EXPECT_EQ(no_video.code, 1);
  EXPECT_THAT(no_video.err, HasSubstr("is no video, picture, folder or pattern"));
  const std::pair<std::vector<std::string>, const char*> wrong[] = {
      {{"--send", "jpeg"}, "model 'frames' takes pixels, UINT8 [-1,24,32,3]"},
      {{"--send", "png"}, "raw, jpeg or jpeg:QUALITY"},
      {{"--send", "jpeg:101"}, "raw, jpeg or jpeg:QUALITY"},
      {{"--input-size", "640"}, "'640' is no WIDTHxHEIGHT"},
      {{"--input-size", "640x360x3"}, "'640x360x3' is no WIDTHxHEIGHT"},
      {{"--annotate", "a.text"}, "'a.text': a video's name ends with its format"},
      {{"--contact-sheet", "a.gif"}, "ends with .png or .jpg"},
      {{"--annotate", "a.mp4", "--boxes", "found"}, "they have OUTPUT__0"},
      {{"--annotate", "a.mp4", "--boxes", "b:ltrb"}, "got 'ltrb'"},
      {{"--annotate", "a.mp4", "--order", "completion"}, "not with --order completion"},
      {{"-", "-"}, "stdin was given 2 times"}};
  for (const auto& [arguments, said] : wrong) {
    std::vector<std::string> all = {"stream", picture, "--model", "frames"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    const Result result = Run(all);
    EXPECT_EQ(result.code, 1);
    EXPECT_THAT(result.err, HasSubstr(said));
  }
}

TEST_F(CommandLine, HelpTeachesByExample) {
  for (const char* command : {"health", "models", "infer", "stream"}) {
    const Result result = RunWith({command, "--help"});
    EXPECT_EQ(result.code, 0);
    EXPECT_THAT(result.out, HasSubstr("Examples:\n  millrace " + std::string(command)));
  }
  EXPECT_THAT(RunWith({"--version"}).out, AllOf(StartsWith("millrace "), HasSubstr("gRPC 1.")));
  EXPECT_EQ(RunWith({}).code, 1);
}

}  // namespace
}  // namespace millrace
