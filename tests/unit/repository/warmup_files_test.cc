// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/warmup_files.h"

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/repository/model_config.h"
#include "server/repository/warmup_plan.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

// Rows of two UINT8 elements: the length of what came, and 7. What begins with "x" is no picture.
class LengthTransform final : public InputTransform {
 public:
  DataType wire_data_type() const override { return DataType::kBytes; }
  const Shape& wire_dims() const override { return dims_; }
  absl::StatusOr<std::unique_ptr<TransformedInput>> Take(const InputTensor& input,
                                                         const Parameters&,
                                                         bool batched) const override {
    EXPECT_EQ(input.shape, batched ? Shape({1, 1}) : Shape({1}));
    std::string text(input.payload.size(), '\0');
    input.payload.CopyTo(0, absl::MakeSpan(reinterpret_cast<std::byte*>(text.data()), text.size()));
    return std::make_unique<Taken>(text.substr(4));
  }

 private:
  class Taken final : public TransformedInput {
   public:
    explicit Taken(std::string text) : text_(std::move(text)) {}
    int64_t rows() const override { return 1; }
    int64_t held_bytes() const override { return 0; }
    absl::Status Prepare(int64_t) override {
      return text_.front() == 'x' ? absl::InvalidArgumentError("no picture") : absl::OkStatus();
    }
    void Write(int64_t, absl::Span<std::byte> area) const override {
      ASSERT_EQ(area.size(), 2u);
      area[0] = static_cast<std::byte>(text_.size());
      area[1] = std::byte{7};
    }
    void Annotate(Parameters&) const override {}

   private:
    const std::string text_;
  };

  const Shape dims_ = {1};
};

// A model "a" that takes UINT8 of shape [2], in batches of up to 3; it lies in a repository in a
// folder that is removed afterwards.
class WarmupFilesTest : public testing::Test {
 protected:
  WarmupFilesTest() {
    std::string pattern = (fs::path(testing::TempDir()) / "millrace-XXXXXX").string();
    root_ = ::mkdtemp(pattern.data());
    fs::create_directories(root_ / "models/a/warmup");
  }
  ~WarmupFilesTest() override { fs::remove_all(root_); }

  void Write(const std::string& within, const std::string& text) const {
    std::ofstream(root_ / within) << text;
  }

  // Plans for a model whose config ends with a sample for each of `declared`.
  void Plan(const std::vector<std::string>& declared, int dims = 2) {
    std::string config = absl::StrCat(R"(
max_batch_size: 3
input { name: "IN" data_type: TYPE_UINT8 dims: )",
                                      dims, R"( }
output { name: "OUT" data_type: TYPE_UINT8 dims: 2 }
)");
    for (const std::string& sample : declared) {
      absl::StrAppend(&config, "model_warmup { ", sample, " }\n");
    }
    const absl::StatusOr<ModelSettings> settings = ParseModelConfig(config, "config.pbtxt", "a");
    ASSERT_TRUE(settings.ok()) << settings.status();
    settings_ = *settings;
    samples_ = PlanWarmup(settings_);
  }

  std::string OfFile(const std::string& name, int rows = 0, int dims = 2) {
    return absl::StrCat("batch_size: ", rows, " inputs { key: \"IN\" value { ",
                        "data_type: TYPE_UINT8 dims: ", dims, " input_data_file: \"", name,
                        "\" } }");
  }

  absl::StatusOr<std::string> Read() {
    const auto data = ReadWarmupFiles((root_ / "models/a").string(), settings_, samples_);
    if (!data.ok()) return data.status();
    return std::string(reinterpret_cast<const char*>(data->data()), data->size());
  }

  // The rows that a sample's input takes in turn.
  std::string RowsOf(const WarmupSample& sample, const std::string& data) {
    return data.substr(sample.inputs[0].data_offset,
                       2 * static_cast<size_t>(sample.inputs[0].data_rows));
  }

  fs::path root_;
  ModelSettings settings_;
  std::vector<WarmupSample> samples_;
};

TEST_F(WarmupFilesTest, WithoutFilesThereIsNoData) {
  Plan({"inputs { key: \"IN\" value { data_type: TYPE_UINT8 dims: 2 random_data: true } }"});
  EXPECT_EQ(*Read(), "");
  EXPECT_EQ(samples_.front().inputs[0].data_rows, 0);
}

TEST_F(WarmupFilesTest, AFileHoldsOneRowOrAllOfTheSample) {
  Plan({OfFile("one", 2), OfFile("three", 3)});
  Write("models/a/warmup/one", "ab");
  Write("models/a/warmup/three", "cdefgh");
  const absl::StatusOr<std::string> data = Read();
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(RowsOf(samples_[0], *data), "ab");
  EXPECT_EQ(RowsOf(samples_[1], *data), "cdefgh");
  // Of one row, which nobody declared: what the first sample says.
  ASSERT_EQ(samples_.size(), 3u);
  EXPECT_EQ(samples_[2].rows, 1);
  EXPECT_EQ(RowsOf(samples_[2], *data), "ab");
}

TEST_F(WarmupFilesTest, AnotherSizeIsAnErrorThatSaysWhichIsRight) {
  Plan({OfFile("data", 3)});
  Write("models/a/warmup/data", "abcd");
  EXPECT_THAT(Read().status().ToString(),
              AllOf(HasSubstr("INVALID_ARGUMENT"), HasSubstr("models/a/warmup/data: 4 bytes came"),
                    HasSubstr("expected 2 for a row of UINT8 [2], or 6 for the 3 rows")));
  Write("models/a/warmup/data", "");
  EXPECT_THAT(Read().status().ToString(), HasSubstr("0 bytes came"));
}

TEST_F(WarmupFilesTest, SamplesOfOtherDimsDontShareAFilesRows) {
  Plan({OfFile("data", 2, 2), OfFile("data", 2, 4)}, /*dims=*/-1);
  Write("models/a/warmup/data", "abcd");
  ASSERT_TRUE(Read().ok());
  EXPECT_EQ(samples_[0].inputs[0].data_rows, 2);
  EXPECT_EQ(samples_[1].inputs[0].data_rows, 1) << "The four bytes are one row of four.";
  Plan({OfFile("data", 2, 2), OfFile("data", 2, 3)}, /*dims=*/-1);
  EXPECT_THAT(Read().status().ToString(), HasSubstr("expected 3 for a row of UINT8 [3]"));
}

TEST_F(WarmupFilesTest, AMissingFileIsAnErrorThatNamesIt) {
  Plan({OfFile("data")});
  const absl::Status status = Read().status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.ToString(), AllOf(HasSubstr("models/a/warmup/data: no such file"),
                                       HasSubstr("input_data_file in config.pbtxt")));
}

TEST_F(WarmupFilesTest, AFileThatLiesElsewhereIsRefused) {
  Plan({OfFile("data")});
  Write("secret", "ab");
  fs::create_symlink("../../../secret", root_ / "models/a/warmup/data");
  EXPECT_EQ(Read().status().code(), absl::StatusCode::kPermissionDenied);
  Write("models/elsewhere", "ab");
  fs::remove(root_ / "models/a/warmup/data");
  fs::create_symlink("../../elsewhere", root_ / "models/a/warmup/data");
  EXPECT_EQ(*Read(), "ab") << "A link may lead elsewhere in the repository.";
}

TEST_F(WarmupFilesTest, AFileLargerThanAllMayBeIsRefused) {
  Plan({OfFile("data")});
  Write("models/a/warmup/data", "");
  fs::resize_file(root_ / "models/a/warmup/data", (uint64_t{256} << 20) + 1);  // Sparse.
  EXPECT_THAT(Read().status().ToString(), HasSubstr("at most 268435456 bytes together"));
}

TEST_F(WarmupFilesTest, AnInputWithATransformTakesAPicture) {
  Plan({OfFile("picture.jpg", 2)});
  settings_.inputs[0].transform = std::make_shared<LengthTransform>();
  Write("models/a/warmup/picture.jpg", "abc");
  EXPECT_EQ(*Read(), std::string("\x03\x07"));
  EXPECT_EQ(samples_[0].inputs[0].data_rows, 1);
  Write("models/a/warmup/picture.jpg", "xyz");
  EXPECT_THAT(Read().status().ToString(), HasSubstr("warmup/picture.jpg: no picture"));
}

}  // namespace
}  // namespace millrace
