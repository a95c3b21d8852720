// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/cli/detections.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace millrace {
namespace {

using ::testing::HasSubstr;

constexpr Placement kAsSent = {1, 1, 0, 0, 640, 640};

Response Answer(std::vector<Tensor> outputs) {
  Response response;
  response.outputs = std::move(outputs);
  return response;
}

std::vector<Detection> Find(const Response& response, const DetectionFormat& format,
                            const Placement& placement = kAsSent) {
  auto found = FindDetections(response, format, placement);
  EXPECT_TRUE(found.ok()) << found.status();
  return found.ok() ? *std::move(found) : std::vector<Detection>();
}

void ExpectBox(const Detection& found, double left, double top, double right, double bottom) {
  EXPECT_NEAR(found.left, left, 1e-4);
  EXPECT_NEAR(found.top, top, 1e-4);
  EXPECT_NEAR(found.right, right, 1e-4);
  EXPECT_NEAR(found.bottom, bottom, 1e-4);
}

TEST(Detections, BoxesAreReadAsTheyAreWritten) {
  const Response response = Answer({Tensor::Of<float>("b", {1, 1, 4}, {10, 20, 30, 60})});
  DetectionFormat format;
  for (const auto& [text, box] : std::vector<std::pair<std::string, std::array<double, 4>>>{
           {"b", {10, 20, 30, 60}},
           {"b:xywh", {10, 20, 40, 80}},
           {"b:cxcywh", {-5, -10, 25, 50}}}) {
    format = {};
    ASSERT_TRUE(ParseBoxes(text, format).ok());
    const std::vector<Detection> found = Find(response, format);
    ASSERT_EQ(found.size(), 1u);
    ExpectBox(found[0], box[0], box[1], box[2], box[3]);
  }
  EXPECT_THAT(ParseBoxes("b:yxyx", format).message(), HasSubstr("got 'yxyx'"));
}

TEST(Detections, BoxesAreMappedBackToTheFrame) {
  // The example of docs/images.md: 1920x1080 in a letterbox of 640x640.
  Response response = Answer({Tensor::Of<float>("b", {1, 1, 4}, {100, 200, 300, 400})});
  response.parameters = {{"millrace_image_scale_x", 1 / 3.0},
                         {"millrace_image_scale_y", 1 / 3.0},
                         {"millrace_image_offset_x", int64_t{0}},
                         {"millrace_image_offset_y", int64_t{140}}};
  DetectionFormat format{.boxes = "b"};
  const Placement letterbox = PlacementOf(response, 1920, 1080, 1920, 1080);
  ExpectBox(Find(response, format, letterbox)[0], 300, 180, 900, 780);
  response.outputs[0] =
      Tensor::Of<float>("b", {1, 4}, {100 / 640.f, 200 / 640.f, 300 / 640.f, 400 / 640.f});
  format.normalized = true;
  ExpectBox(Find(response, format, letterbox)[0], 300, 180, 900, 780);
  // Sent as a tensor of another size, in which the boxes are.
  response.parameters.clear();
  ExpectBox(Find(response, format, PlacementOf(response, 1280, 320, 640, 640))[0], 200, 100, 600,
            200);
}

TEST(Detections, ScoresClassesAndCountSayWhichThereAre) {
  const Response response = Answer(
      {Tensor::Of<float>("boxes", {1, 4, 4}, {0, 0, 1, 1, 0, 0, 2, 2, 0, 0, 3, 3, 0, 0, 4, 4}),
       Tensor::Of<float>("scores", {1, 4}, {0.9f, 0.3f, 0.8f, 0.7f}),
       Tensor::Of<int64_t>("classes", {1, 4}, {1, 0, 7, 0}),
       Tensor::Of<int32_t>("count", {1, 1}, {3})});
  ModelMetadata model;
  for (const Tensor& output : response.outputs) model.outputs.push_back({output.name, "", {}});
  DetectionFormat format{.labels = {"cat", "dog"}, .threshold = 0.5};
  ASSERT_TRUE(CompleteFormat(model, {}, format).ok());
  const std::vector<Detection> found = Find(response, format);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].label, "dog 0.90");
  EXPECT_EQ(found[1].label, "7 0.80");
  EXPECT_EQ(found[1].right, 3);
}

TEST(Detections, RowsOfSixCarryScoreAndClass) {
  const Response response =
      Answer({Tensor::Of<float>("b", {1, 2, 6}, {0, 0, 9, 9, 0.75f, 1, 0, 0, 0, 0, 0.75f, 1})});
  const std::vector<Detection> found = Find(response, {.boxes = "b", .labels = {"cat", "dog"}});
  ASSERT_EQ(found.size(), 1u);  // The second has no area.
  EXPECT_EQ(found[0].label, "dog 0.75");
}

TEST(Detections, OutputsThatDontFitAreNamed) {
  ModelMetadata model;
  model.outputs = {{"boxes", "FP32", {-1, 4}}, {"scores", "FP32", {-1}}};
  DetectionFormat wrong{.scores = "score"};
  EXPECT_THAT(
      CompleteFormat(model, {}, wrong).message(),
      HasSubstr("--scores score: the answers have no such output; they have boxes, scores"));
  DetectionFormat unasked{.boxes = "boxes"};
  EXPECT_THAT(CompleteFormat(model, {"scores"}, unasked).message(), HasSubstr("they have scores"));
  const Response response =
      Answer({Tensor::Of<float>("b", {2, 3}, {1, 2, 3, 4, 5, 6}),
              Tensor::Of<float>("c", {1, 4}, {1, 2, 3, 4}), Tensor::Of<float>("s", {2}, {1, 2})});
  EXPECT_THAT(FindDetections(response, {.boxes = "b"}, kAsSent).status().message(),
              HasSubstr("output 'b' is FP32 [2,3]"));
  EXPECT_THAT(FindDetections(response, {.boxes = "c", .scores = "s"}, kAsSent).status().message(),
              HasSubstr("2 elements for 1 boxes"));
}

}  // namespace
}  // namespace millrace
