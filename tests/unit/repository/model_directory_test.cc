// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/model_directory.h"

#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/repository/model_config.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kConfig[] = R"(
input { name: "IN" data_type: TYPE_FP32 dims: 1 }
output { name: "OUT" data_type: TYPE_FP32 dims: 1 }
)";

// Repositories in a folder that is removed afterwards.
class ModelDirectoryTest : public testing::Test {
 protected:
  ModelDirectoryTest() {
    std::string pattern = (fs::path(testing::TempDir()) / "millrace-XXXXXX").string();
    root_ = ::mkdtemp(pattern.data());
    fs::create_directories(Path("models"));
  }
  ~ModelDirectoryTest() override { fs::remove_all(root_); }

  std::string Path(const std::string& within) const { return (root_ / within).string(); }

  void Write(const std::string& within, const std::string& text) const {
    fs::create_directories(fs::path(Path(within)).parent_path());
    std::ofstream(Path(within)) << text;
  }

  void WriteModel(const std::string& name, const std::string& config = kConfig) const {
    Write(absl::StrCat(name, "/config.pbtxt"), config);
    Write(absl::StrCat(name, "/1/model.pt"), "");
  }

  std::vector<ModelDirectory> Scan() const {
    const absl::StatusOr<std::vector<ModelDirectory>> models = ScanRepositories({Path("models")});
    EXPECT_TRUE(models.ok()) << models.status();
    return *models;
  }

  fs::path root_;
};

std::vector<std::string> Names(const std::vector<ModelDirectory>& models) {
  std::vector<std::string> names;
  for (const ModelDirectory& model : models) names.push_back(model.name);
  return names;
}

std::vector<int64_t> Numbers(const ModelDirectory& model) {
  std::vector<int64_t> numbers;
  for (const ModelVersion& version : model.versions) numbers.push_back(version.number);
  return numbers;
}

std::string Text(const absl::Status& status) { return std::string(status.message()); }

TEST_F(ModelDirectoryTest, EachSubdirectoryIsAModel) {
  WriteModel("models/b");
  WriteModel("models/a");
  WriteModel("models/.hidden");
  Write("models/README", "not a model");
  const std::vector<ModelDirectory> models = Scan();
  ASSERT_THAT(Names(models), ElementsAre("a", "b"));
  EXPECT_TRUE(models[0].status.ok()) << models[0].status;
  EXPECT_EQ(models[0].path, Path("models/a"));
  EXPECT_EQ(models[0].settings->inputs[0].name, "IN");
  ASSERT_EQ(models[0].versions.size(), 1u);
  EXPECT_EQ(models[0].versions[0].path, Path("models/a/1/model.pt"));
}

TEST_F(ModelDirectoryTest, AnEmptyRepositoryHoldsNoModels) { EXPECT_THAT(Scan(), IsEmpty()); }

TEST_F(ModelDirectoryTest, AMissingRepositoryIsAnError) {
  const absl::Status status = ScanRepositories({Path("nowhere")}).status();
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(Text(status), HasSubstr("nowhere"));
}

TEST_F(ModelDirectoryTest, TheReasonForAMissingConfigIsAConfigToStartFrom) {
  Write("models/a/1/model.pt", "");
  WriteModel("models/b");
  const std::vector<ModelDirectory> models = Scan();
  ASSERT_THAT(Names(models), ElementsAre("a", "b"));
  const std::string reason = Text(models[0].status);
  EXPECT_THAT(reason, HasSubstr(Path("models/a/config.pbtxt")));
  const std::string start = reason.substr(reason.find("max_batch_size"));
  const absl::StatusOr<ModelSettings> settings = ParseModelConfig(start, "config.pbtxt", "a");
  EXPECT_TRUE(settings.ok()) << settings.status();
  EXPECT_TRUE(models[1].status.ok());
}

TEST_F(ModelDirectoryTest, AFaultInTheConfigNamesFileAndLine) {
  WriteModel("models/a", "\nshape: 3");
  EXPECT_THAT(Text(Scan()[0].status),
              HasSubstr(absl::StrCat(Path("models/a/config.pbtxt"), ":2: ")));
}

TEST_F(ModelDirectoryTest, LabelsAreTheLinesOfTheirFile) {
  const std::string config = absl::StrCat(kConfig,
                                          "\noutput { name: \"more\" data_type: TYPE_FP32 "
                                          "dims: 1 label_filename: \"labels.txt\" }");
  WriteModel("models/a", config);
  const ModelDirectory without = Scan()[0];
  EXPECT_EQ(without.status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(without.status.message()), HasSubstr("labels.txt: no such file"));
  Write("models/a/labels.txt", "red\r\nlight green\n\nblue\n");
  const ModelDirectory with = Scan()[0];
  ASSERT_TRUE(with.status.ok()) << with.status;
  EXPECT_THAT(*with.settings->outputs.back().labels, ElementsAre("red", "light green", "", "blue"));
  Write("models/a/labels.txt", "other");
  EXPECT_NE(Scan()[0].versions[0].stamp, with.versions[0].stamp) << "So a change is noticed.";
  Write("models/a/labels.txt", "\xff");
  EXPECT_THAT(std::string(Scan()[0].status.message()), HasSubstr("is not valid UTF-8"));
}

TEST_F(ModelDirectoryTest, AChangedWarmupFileIsNoticed) {
  const std::string config =
      absl::StrCat(kConfig,
                   "\nmodel_warmup { inputs { key: \"IN\" value { data_type: "
                   "TYPE_FP32 dims: 1 input_data_file: \"data\" } } }");
  WriteModel("models/a", config);
  const std::string without = Scan()[0].versions[0].stamp;
  Write("models/a/warmup/data", "abcd");
  const std::string with = Scan()[0].versions[0].stamp;
  EXPECT_NE(with, without);
  Write("models/a/warmup/other", "");
  EXPECT_EQ(Scan()[0].versions[0].stamp, with);
  Write("models/a/warmup/data", "abcde");
  EXPECT_NE(Scan()[0].versions[0].stamp, with);
}

TEST_F(ModelDirectoryTest, AConfigOfMoreThanAMegabyteIsRefused) {
  WriteModel("models/a", std::string((1 << 20) + 1, '\n'));
  EXPECT_THAT(Text(Scan()[0].status), HasSubstr("larger than 1048576 bytes"));
}

TEST_F(ModelDirectoryTest, AConfigThatIsNoFileIsNotOpened) {
  fs::create_directories(Path("models/a/config.pbtxt"));
  EXPECT_THAT(Text(Scan()[0].status), HasSubstr("no such file"));
}

TEST_F(ModelDirectoryTest, TheConfigNamesTheDirectory) {
  WriteModel("models/a", absl::StrCat("name: \"b\"", kConfig));
  EXPECT_THAT(Text(Scan()[0].status), HasSubstr("'b' differs from the directory 'a'"));
}

TEST_F(ModelDirectoryTest, OnlyPositiveNumbersAreVersions) {
  WriteModel("models/a", absl::StrCat("version_policy { all {} }", kConfig));
  for (const char* name : {"10", "2", "0", "01", "-1", "+1", "1a", "old", "99999999999999999999"}) {
    Write(absl::StrCat("models/a/", name, "/model.pt"), "");
  }
  EXPECT_THAT(Numbers(Scan()[0]), ElementsAre(1, 2, 10));
}

TEST_F(ModelDirectoryTest, AFileThatIsCalledLikeAVersionIsNone) {
  WriteModel("models/a", absl::StrCat("version_policy { all {} }", kConfig));
  Write("models/a/2", "");
  EXPECT_THAT(Numbers(Scan()[0]), ElementsAre(1));
}

TEST_F(ModelDirectoryTest, AModelWithoutVersionsIsRefused) {
  Write("models/a/config.pbtxt", kConfig);
  const std::vector<ModelDirectory> models = Scan();
  EXPECT_THAT(Text(models[0].status), HasSubstr("has no version; put the model's file at"));
  EXPECT_FALSE(models[0].settings.has_value());
}

TEST_F(ModelDirectoryTest, ASpecificVersionThatIsMissingIsNamed) {
  WriteModel("models/a",
             absl::StrCat("version_policy { specific { versions: [ 1, 5 ] } }", kConfig));
  const ModelDirectory model = Scan()[0];
  ASSERT_THAT(Numbers(model), ElementsAre(1, 5));
  EXPECT_TRUE(model.status.ok());
  EXPECT_TRUE(model.versions[0].status.ok());
  EXPECT_THAT(Text(model.versions[1].status), HasSubstr(Path("models/a/5")));
}

TEST_F(ModelDirectoryTest, TheFileOfAVersionDecidesItsEngine) {
  WriteModel("models/a", absl::StrCat("version_policy { all {} }", kConfig));
  Write("models/a/2/model.pt2", "");
  Write("models/a/3/model.pt", "");
  Write("models/a/3/model.pt2", "");
  Write("models/a/4/model.onnx", "");
  const ModelDirectory model = Scan()[0];
  ASSERT_THAT(Numbers(model), ElementsAre(1, 2, 3, 4));
  EXPECT_EQ(model.versions[0].engine, EngineKind::kTorchScript);
  EXPECT_EQ(model.versions[1].engine, EngineKind::kAotInductor);
  EXPECT_EQ(model.versions[1].path, Path("models/a/2/model.pt2"));
  EXPECT_TRUE(model.versions[2].status.ok());
  EXPECT_EQ(model.versions[2].path, Path("models/a/3/model.pt")) << "it runs on every machine";
  EXPECT_EQ(model.versions[2].package, Path("models/a/3/model.pt2"));
  EXPECT_EQ(model.versions[0].package, "");
  EXPECT_EQ(model.versions[1].package, "");
  EXPECT_THAT(Text(model.versions[3].status), HasSubstr("holds neither model.pt"));
}

TEST_F(ModelDirectoryTest, TheConfiguredPlatformDecidesBetweenTwoFiles) {
  WriteModel("models/a", absl::StrCat("platform: \"torch_aoti\"", kConfig));
  Write("models/a/1/model.pt2", "");
  const ModelDirectory model = Scan()[0];
  EXPECT_EQ(model.versions[0].engine, EngineKind::kAotInductor);
  EXPECT_EQ(model.versions[0].path, Path("models/a/1/model.pt2"));
  EXPECT_EQ(model.versions[0].package, "") << "there is nothing left to choose";
}

TEST_F(ModelDirectoryTest, APackageBesideTheModelIsPartOfTheVersion) {
  WriteModel("models/a");
  Write("models/a/1/model.pt2", "old");
  const std::string before = Scan()[0].versions[0].stamp;
  Write("models/a/1/model.pt2", "newer");
  EXPECT_NE(Scan()[0].versions[0].stamp, before);
}

TEST_F(ModelDirectoryTest, AVersionHasAFileForEachEngineThatItCanRunOn) {
  WriteModel("models/a");
  const ModelVersion script = Scan()[0].versions[0];
  EXPECT_EQ(VersionOn(script, EngineKind::kTorchScript)->path, script.path);
  EXPECT_FALSE(VersionOn(script, EngineKind::kAotInductor));
  Write("models/a/1/model.pt2", "");
  const ModelVersion both = Scan()[0].versions[0];
  EXPECT_EQ(VersionOn(both, EngineKind::kTorchScript)->path, script.path);
  const std::optional<ModelVersion> package = VersionOn(both, EngineKind::kAotInductor);
  ASSERT_TRUE(package);
  EXPECT_EQ(package->path, Path("models/a/1/model.pt2"));
  EXPECT_EQ(package->engine, EngineKind::kAotInductor);
  EXPECT_FALSE(VersionOn(*package, EngineKind::kTorchScript));
  EXPECT_EQ(RepositoryOf(both), Path("models"));
}

TEST_F(ModelDirectoryTest, APackageIsNotGivenAModeThatItWasNotCompiledFor) {
  WriteModel("models/a", absl::StrCat("version_policy { all {} } "
                                      "millrace { execution { channels_last: true } }",
                                      kConfig));
  Write("models/a/2/model.pt2", "");
  const ModelDirectory model = Scan()[0];
  EXPECT_TRUE(model.versions[0].status.ok());
  EXPECT_THAT(Text(model.versions[1].status), HasSubstr("computes as it was compiled"));
}

TEST_F(ModelDirectoryTest, TheConfiguredFileMustBeThere) {
  WriteModel("models/a", absl::StrCat("default_model_filename: \"net.pt\"", kConfig));
  EXPECT_THAT(Text(Scan()[0].versions[0].status), HasSubstr("1/net.pt: no such file"));
  Write("models/a/1/net.pt", "");
  EXPECT_EQ(Scan()[0].versions[0].path, Path("models/a/1/net.pt"));
}

TEST_F(ModelDirectoryTest, SymbolicLinksAreFollowedInsideTheRepository) {
  // As Kubernetes mounts what a ConfigMap or a projected volume holds.
  WriteModel("models/..2026_11_22/a");
  fs::create_directory_symlink("..2026_11_22", Path("models/..data"));
  fs::create_directory_symlink("..data/a", Path("models/a"));
  fs::create_symlink(Path("nowhere"), Path("models/dangling"));
  const std::vector<ModelDirectory> models = Scan();
  ASSERT_THAT(Names(models), ElementsAre("a"));
  EXPECT_TRUE(models[0].status.ok()) << models[0].status;
  ASSERT_TRUE(models[0].versions[0].status.ok());
  const absl::StatusOr<UniqueFd> file = OpenModelFile(models[0].versions[0]);
  EXPECT_TRUE(file.ok()) << file.status();
}

TEST_F(ModelDirectoryTest, SymbolicLinksThatLeaveTheRepositoryAreRefused) {
  WriteModel("elsewhere/a");
  WriteModel("models/b");
  fs::create_directory_symlink("../elsewhere/a", Path("models/relative"));
  fs::create_directory_symlink(Path("elsewhere/a"), Path("models/whole"));
  fs::remove(Path("models/b/1/model.pt"));
  fs::create_symlink("../../../elsewhere/a/1/model.pt", Path("models/b/1/model.pt"));
  const std::vector<ModelDirectory> models = Scan();
  ASSERT_THAT(Names(models), ElementsAre("b", "relative", "whole"));
  EXPECT_THAT(Text(models[1].status), HasSubstr("leads out of"));
  EXPECT_THAT(Text(models[2].status), HasSubstr("leads out of"));
  EXPECT_THAT(Text(OpenModelFile(models[0].versions[0]).status()), HasSubstr("leads out of"));
}

TEST_F(ModelDirectoryTest, ManifestsAreEnforcedWhereTheyAre) {
  WriteModel("models/a");
  Write("models/a/1/model.pt", "abc");
  const auto problem = [this] { return Text(OpenModelFile(Scan()[0].versions[0]).status()); };
  const std::string right = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  const std::string wrong(64, '0');
  EXPECT_EQ(problem(), "");
  Write("models/a/1/SHA256SUMS", wrong + "  other.pt\n" + right + "  model.pt\n");
  EXPECT_EQ(problem(), "");
  Write("models/a/SHA256SUMS", right + " *./1/model.pt");
  EXPECT_EQ(problem(), "");
  Write("models/a/SHA256SUMS", right + "  2/model.pt\n");
  EXPECT_THAT(problem(), HasSubstr("a/SHA256SUMS doesn't list 1/model.pt"));
  Write("models/a/SHA256SUMS", wrong + "  1/model.pt\n");
  EXPECT_THAT(problem(), HasSubstr("has the SHA-256 " + right + ", but a/SHA256SUMS says 0000"));
  Write("models/a/SHA256SUMS", "");
  EXPECT_THAT(problem(), HasSubstr("doesn't list"));
}

TEST_F(ModelDirectoryTest, ANameInTwoRepositoriesIsRefusedAndNamesBoth) {
  WriteModel("models/a");
  WriteModel("more/a");
  WriteModel("more/b");
  const absl::StatusOr<std::vector<ModelDirectory>> models =
      ScanRepositories({Path("models"), Path("more")});
  ASSERT_TRUE(models.ok()) << models.status();
  ASSERT_THAT(Names(*models), ElementsAre("a", "b"));
  EXPECT_THAT(Text((*models)[0].status), HasSubstr(Path("models/a")));
  EXPECT_THAT(Text((*models)[0].status), HasSubstr(Path("more/a")));
  EXPECT_FALSE((*models)[0].settings.has_value());
  EXPECT_TRUE((*models)[1].status.ok());
}

TEST_F(ModelDirectoryTest, TheSameRepositoryGivenTwiceCountsOnce) {
  WriteModel("models/a");
  fs::create_directory_symlink(Path("models"), Path("link"));
  const absl::StatusOr<std::vector<ModelDirectory>> models =
      ScanRepositories({Path("models"), Path("models/"), Path("link")});
  ASSERT_TRUE(models.ok()) << models.status();
  ASSERT_EQ(models->size(), 1u);
  EXPECT_TRUE((*models)[0].status.ok()) << (*models)[0].status;
}

TEST_F(ModelDirectoryTest, ANameThatIsNoTextIsSkipped) {
  WriteModel("models/a");
  WriteModel("models/\xff");
  WriteModel("models/two\nlines");
  EXPECT_THAT(Names(Scan()), ElementsAre("a"));
}

VersionPolicy Policy(VersionPolicy::Kind kind, int64_t latest = 1) {
  VersionPolicy policy;
  policy.kind = kind;
  policy.latest = latest;
  return policy;
}

TEST(SelectVersions, FollowsThePolicy) {
  using Kind = VersionPolicy::Kind;
  EXPECT_THAT(SelectVersions(VersionPolicy(), {1, 2, 10}), ElementsAre(10));
  EXPECT_THAT(SelectVersions(Policy(Kind::kLatest, 2), {1, 2, 10}), ElementsAre(2, 10));
  EXPECT_THAT(SelectVersions(Policy(Kind::kLatest, 9), {1, 2, 10}), ElementsAre(1, 2, 10));
  EXPECT_THAT(SelectVersions(Policy(Kind::kLatest), {}), IsEmpty());
  EXPECT_THAT(SelectVersions(Policy(Kind::kAll), {1, 2, 10}), ElementsAre(1, 2, 10));
  EXPECT_THAT(SelectVersions(Policy(Kind::kAll), {}), IsEmpty());
  VersionPolicy specific = Policy(Kind::kSpecific);
  specific.specific = {2, 3};
  EXPECT_THAT(SelectVersions(specific, {1, 2, 10}), ElementsAre(2, 3));
}

TEST(ParseVersion, TakesPositiveDecimalNumbersOnly) {
  EXPECT_EQ(ParseVersion("1"), 1);
  EXPECT_EQ(ParseVersion("9223372036854775807"), 9223372036854775807);
  for (const char* name :
       {"", "0", "01", "-1", "+1", " 1", "1 ", "1.0", "0x1", "one", "9223372036854775808"}) {
    EXPECT_EQ(ParseVersion(name), std::nullopt) << name;
  }
}

}  // namespace
}  // namespace millrace
