// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/model_config.h"

#include <algorithm>
#include <iostream>
#include <iterator>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr char kTensors[] = R"(
input [ { name: "IN" data_type: TYPE_FP32 dims: [ 3, 4 ] } ]
output [ { name: "OUT" data_type: TYPE_INT64 dims: [ 1 ] } ]
)";

// Everything that is acted on, in one configuration.
constexpr char kEverything[] = R"(# A comment.
name: "mill"
platform: "pytorch_libtorch"
backend: "pytorch"
default_model_filename: "net.pt"
max_batch_size: 16
input [
  { name: "IMAGE" data_type: TYPE_UINT8 dims: [ 576, 768, 3 ] },
  { name: "SCALE" data_type: TYPE_FP32 dims: [ -1 ] }
]
output { name: "BOXES" data_type: TYPE_FP32 dims: [ 64, 4 ] }
output { name: "COUNT" data_type: TYPE_INT32 dims: 1 }
version_policy { specific { versions: [ 7, 3, 7 ] } }
instance_group [
  { name: "cores" kind: KIND_CPU count: 2 },
  { kind: KIND_GPU gpus: [ 0, 2 ] }
]
dynamic_batching {
  preferred_batch_size: [ 8, 4, 8 ]
  max_queue_delay_microseconds: 250
  preserve_ordering: true
  priority_levels: 3
  default_priority_level: 2
  default_queue_policy {
    timeout_action: DELAY
    default_timeout_microseconds: 20000
    allow_timeout_override: true
    max_queue_size: 99
  }
  priority_queue_policy { key: 3 value { default_timeout_microseconds: 7000 } }
  priority_queue_policy { key: 1 value { max_queue_size: 5 } }
}
model_warmup {
  name: "full"
  batch_size: 16
  count: 3
  inputs { key: "SCALE" value { data_type: TYPE_FP32 dims: [ 5 ] random_data: true } }
  inputs { key: "IMAGE" value { data_type: TYPE_UINT8 dims: [ 576, 768, 3 ] zero_data: true } }
}
parameters { key: "INTRA_OP_THREAD_COUNT" value { string_value: "4" } }
parameters { key: "INTER_OP_THREAD_COUNT" value { string_value: "2" } }
parameters { key: "DISABLE_OPTIMIZED_EXECUTION" value { string_value: "true" } }
parameters { key: "INFERENCE_MODE" value { string_value: "false" } }
parameters { key: "metadata" value { string_value: "for clients" } }
millrace {
  batching {
    hold: RETURNERS
    overflow: DROP_OLDEST
    starvation_guard_microseconds: 500000
    shed_target_microseconds: 10000
    shed_interval_microseconds: 200000
    max_queue_bytes: 1000000
  }
  supervision { execution_limit_microseconds: 5000000 memory_limit_bytes: 4000000000 }
}
)";

absl::StatusOr<ModelSettings> Parse(const std::string& text) {
  return ParseModelConfig(text, "models/mill/config.pbtxt", "mill");
}

std::string ErrorOf(const std::string& text) {
  const absl::StatusOr<ModelSettings> settings = Parse(text);
  EXPECT_NE(settings.status().code(), absl::StatusCode::kUnknown);
  return std::string(settings.status().message());
}

TEST(ModelConfig, EverySupportedFieldIsRead) {
  const absl::StatusOr<ModelSettings> settings = Parse(kEverything);
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(settings->name, "mill");
  EXPECT_EQ(settings->engine, EngineKind::kTorchScript);
  EXPECT_EQ(settings->filename, "net.pt");
  EXPECT_EQ(settings->max_batch_size, 16);
  ASSERT_EQ(settings->inputs.size(), 2u);
  EXPECT_EQ(settings->inputs[0].name, "IMAGE");
  EXPECT_EQ(settings->inputs[0].data_type, DataType::kUint8);
  EXPECT_THAT(settings->inputs[0].dims, ElementsAre(576, 768, 3));
  EXPECT_THAT(settings->inputs[1].dims, ElementsAre(-1));
  ASSERT_EQ(settings->outputs.size(), 2u);
  EXPECT_EQ(settings->outputs[1].data_type, DataType::kInt32);
  EXPECT_THAT(settings->outputs[1].dims, ElementsAre(1));
  EXPECT_EQ(settings->version_policy.kind, VersionPolicy::Kind::kSpecific);
  EXPECT_THAT(settings->version_policy.specific, ElementsAre(3, 7));
  EXPECT_THAT(settings->preferred_batch_sizes, ElementsAre(4, 8));
  EXPECT_EQ(settings->max_queue_delay, absl::Microseconds(250));
  ASSERT_EQ(settings->queue_policies.size(), 3u);
  EXPECT_EQ(settings->default_level, 2);
  EXPECT_EQ(settings->starvation_guard, absl::Milliseconds(500));
  EXPECT_EQ(settings->execution_limit, absl::Seconds(5));
  EXPECT_EQ(settings->memory_limit_bytes, 4'000'000'000u);
  EXPECT_EQ(settings->hold, Hold::kReturners);
  EXPECT_EQ(settings->overflow, Overflow::kDropOldest);
  EXPECT_EQ(settings->shed_target, absl::Milliseconds(10));
  EXPECT_EQ(settings->shed_interval, absl::Milliseconds(200));
  EXPECT_EQ(settings->max_queue_bytes, 1000000);
  ASSERT_EQ(settings->instance_groups.size(), 2u);
  EXPECT_EQ(settings->instance_groups[0].kind, DeviceKind::kCpu);
  EXPECT_EQ(settings->instance_groups[0].count, 2);
  EXPECT_EQ(settings->instance_groups[1].kind, DeviceKind::kGpu);
  EXPECT_EQ(settings->instance_groups[1].count, std::nullopt);
  EXPECT_THAT(settings->instance_groups[1].gpus, ElementsAre(0, 2));
  EXPECT_EQ(settings->intra_op_threads, 4);
  EXPECT_EQ(settings->inter_op_threads, 2);
  EXPECT_TRUE(settings->disable_optimized_execution);
  EXPECT_FALSE(settings->inference_mode);
}

TEST(ModelConfig, ALevelsOwnQueuePolicyReplacesTheDefaultOneAsAWhole) {
  const absl::StatusOr<ModelSettings> settings = Parse(kEverything);
  ASSERT_TRUE(settings.ok()) << settings.status();
  const std::vector<QueuePolicy>& policies = settings->queue_policies;
  ASSERT_EQ(policies.size(), 3u);
  EXPECT_EQ(policies[0].max_rows, 5);
  EXPECT_EQ(policies[0].timeout_action, QueuePolicy::TimeoutAction::kReject);
  EXPECT_EQ(policies[0].default_timeout, absl::InfiniteDuration());
  EXPECT_FALSE(policies[0].allow_timeout_override);
  EXPECT_EQ(policies[1].max_rows, 99);
  EXPECT_EQ(policies[1].timeout_action, QueuePolicy::TimeoutAction::kDelay);
  EXPECT_EQ(policies[1].default_timeout, absl::Milliseconds(20));
  EXPECT_TRUE(policies[1].allow_timeout_override);
  EXPECT_EQ(policies[2].max_rows, 0);
  EXPECT_EQ(policies[2].timeout_action, QueuePolicy::TimeoutAction::kReject);
  EXPECT_EQ(policies[2].default_timeout, absl::Milliseconds(7));
}

TEST(ModelConfig, TheDefaultQueuePolicyNeedsNoLevels) {
  const absl::StatusOr<ModelSettings> settings =
      Parse(absl::StrCat(kTensors, "dynamic_batching { default_queue_policy { max_queue_size: 7 ",
                         "default_timeout_microseconds: 3600000000 } }"));
  ASSERT_TRUE(settings.ok()) << settings.status();
  ASSERT_EQ(settings->queue_policies.size(), 1u);
  EXPECT_EQ(settings->queue_policies[0].max_rows, 7);
  EXPECT_EQ(settings->queue_policies[0].default_timeout, absl::Hours(1));
  EXPECT_EQ(settings->default_level, 1);
}

TEST(ModelConfig, AtMost32PriorityLevelsAreSupported) {
  const auto with = [](int levels) {
    return absl::StrCat(
        kTensors, "dynamic_batching { default_priority_level: 32 priority_levels: ", levels, " }");
  };
  const absl::StatusOr<ModelSettings> settings = Parse(with(32));
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(settings->queue_policies.size(), 32u);
  EXPECT_EQ(settings->default_level, 32);
  EXPECT_THAT(ErrorOf(with(33)), HasSubstr("33 came, at most 32 are supported"));
}

TEST(ModelConfig, APriorityThatIsNoLevelIsTheDefaultOne) {
  const absl::StatusOr<ModelSettings> settings = Parse(kEverything);
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(settings->LevelOf(0), 2);
  EXPECT_EQ(settings->LevelOf(1), 1);
  EXPECT_EQ(settings->LevelOf(3), 3);
  EXPECT_EQ(settings->LevelOf(4), 2);
  EXPECT_EQ(settings->LevelOf(std::numeric_limits<uint64_t>::max()), 2);
}

TEST(ModelConfig, WithoutLevelsEveryPriorityIsTheSame) {
  const absl::StatusOr<ModelSettings> settings = Parse(kTensors);
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(settings->LevelOf(0), 1);
  EXPECT_EQ(settings->LevelOf(1), 1);
  EXPECT_EQ(settings->LevelOf(2), 1);
}

TEST(ModelConfig, HoldAndOverflowHaveTheNamesOfTheDocumentation) {
  const auto batching = [](const char* text) {
    return Parse(absl::StrCat(kTensors, "millrace { batching { ", text, " } }"));
  };
  const std::pair<const char*, std::optional<Hold>> holds[] = {
      {"", std::nullopt},
      {"hold: HOLD_UNSPECIFIED", std::nullopt},
      {"hold: NONE", Hold::kNone},
      {"hold: RETURNERS", Hold::kReturners},
  };
  for (const auto& [text, hold] : holds) {
    const absl::StatusOr<ModelSettings> settings = batching(text);
    ASSERT_TRUE(settings.ok()) << settings.status();
    EXPECT_EQ(settings->hold, hold) << text;
  }
  const std::pair<const char*, Overflow> overflows[] = {
      {"", Overflow::kBlock},
      {"overflow: OVERFLOW_UNSPECIFIED", Overflow::kBlock},
      {"overflow: BLOCK", Overflow::kBlock},
      {"overflow: REJECT", Overflow::kReject},
      {"overflow: DROP_OLDEST", Overflow::kDropOldest},
      {"overflow: LATEST", Overflow::kLatest},
  };
  for (const auto& [text, overflow] : overflows) {
    const absl::StatusOr<ModelSettings> settings = batching(text);
    ASSERT_TRUE(settings.ok()) << settings.status();
    EXPECT_EQ(settings->overflow, overflow) << text;
  }
}

TEST(ModelConfig, CheckAndSwapHaveTheNamesOfTheDocumentation) {
  const std::pair<const char*, BatchCheck> checks[] = {
      {"", BatchCheck::kSingleRows},
      {"check: SINGLE_ROWS", BatchCheck::kSingleRows},
      {"check: REFUSE_MODEL", BatchCheck::kRefuseModel},
      {"check: UNCHECKED", BatchCheck::kUnchecked},
  };
  for (const auto& [text, check] : checks) {
    const auto settings = Parse(absl::StrCat(kTensors, "millrace { batching { ", text, " } }"));
    ASSERT_TRUE(settings.ok()) << settings.status();
    EXPECT_EQ(settings->batch_check, check) << text;
  }
  const std::pair<const char*, bool> swaps[] = {
      {"", false}, {"swap: BESIDE", false}, {"swap: IN_PLACE_IF_NEEDED", true}};
  for (const auto& [text, in_place] : swaps) {
    const auto settings = Parse(absl::StrCat(kTensors, "millrace { lifecycle { ", text, " } }"));
    ASSERT_TRUE(settings.ok()) << settings.status();
    EXPECT_EQ(settings->swaps_in_place_if_needed, in_place) << text;
  }
}

TEST(ModelConfig, NumericsAreOffUnlessAskedFor) {
  const absl::StatusOr<ModelSettings> plain = Parse(kTensors);
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_FALSE(plain->flush_denormals);
  EXPECT_FALSE(plain->deterministic);
  EXPECT_EQ(plain->outputs[0].non_finite, NonFinite::kPass);
  const absl::StatusOr<ModelSettings> all =
      Parse(absl::StrCat(kTensors,
                         "millrace { numerics { flush_denormals: true deterministic: true "
                         "non_finite: REFUSE } }"));
  ASSERT_TRUE(all.ok()) << all.status();
  EXPECT_TRUE(all->flush_denormals);
  EXPECT_TRUE(all->deterministic);
  EXPECT_EQ(all->outputs[0].non_finite, NonFinite::kRefuse);
}

TEST(ModelConfig, WarmupInputsComeInTheModelsOrder) {
  const absl::StatusOr<ModelSettings> settings = Parse(kEverything);
  ASSERT_TRUE(settings.ok()) << settings.status();
  ASSERT_EQ(settings->warmup.size(), 1u);
  const DeclaredWarmup& warmup = settings->warmup[0];
  EXPECT_EQ(warmup.name, "full");
  EXPECT_EQ(warmup.rows, 16);
  EXPECT_EQ(warmup.count, 3);
  ASSERT_EQ(warmup.inputs.size(), 2u);
  EXPECT_THAT(warmup.inputs[0].dims, ElementsAre(576, 768, 3));
  EXPECT_FALSE(warmup.inputs[0].random);
  EXPECT_THAT(warmup.inputs[1].dims, ElementsAre(5));
  EXPECT_TRUE(warmup.inputs[1].random);
}

TEST(ModelConfig, TensorsAloneAreEnough) {
  const absl::StatusOr<ModelSettings> settings = Parse(kTensors);
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(settings->name, "mill");
  EXPECT_EQ(settings->engine, std::nullopt);
  EXPECT_EQ(settings->filename, std::nullopt);
  EXPECT_EQ(settings->max_batch_size, 0);
  EXPECT_EQ(settings->version_policy.kind, VersionPolicy::Kind::kLatest);
  EXPECT_EQ(settings->version_policy.latest, 1);
  EXPECT_THAT(settings->instance_groups, IsEmpty());
  EXPECT_EQ(settings->max_queue_delay, absl::ZeroDuration());
  ASSERT_EQ(settings->queue_policies.size(), 1u);
  EXPECT_EQ(settings->queue_policies[0].max_rows, 0);
  EXPECT_EQ(settings->queue_policies[0].default_timeout, absl::InfiniteDuration());
  EXPECT_EQ(settings->default_level, 1);
  EXPECT_EQ(settings->starvation_guard, absl::InfiniteDuration());
  EXPECT_EQ(settings->execution_limit, absl::InfiniteDuration());
  EXPECT_EQ(settings->memory_limit_bytes, 0u);
  EXPECT_EQ(settings->hold, std::nullopt);
  EXPECT_EQ(settings->overflow, Overflow::kBlock);
  EXPECT_EQ(settings->shed_target, absl::InfiniteDuration());
  EXPECT_EQ(settings->shed_interval, absl::Milliseconds(100));
  EXPECT_EQ(settings->max_queue_bytes, 0);
  EXPECT_EQ(settings->intra_op_threads, std::nullopt);
  EXPECT_FALSE(settings->disable_optimized_execution);
  EXPECT_TRUE(settings->inference_mode);
}

TEST(ModelConfig, TheSignatureIsThatOfTheVersion) {
  const absl::StatusOr<ModelSettings> settings = Parse(kEverything);
  ASSERT_TRUE(settings.ok()) << settings.status();
  const ModelSignature signature = settings->SignatureOf(7);
  EXPECT_EQ(signature.model_name(), "mill");
  EXPECT_EQ(signature.version(), "7");
  EXPECT_EQ(signature.max_batch_size(), 16);
  EXPECT_EQ(signature.inputs()[1].name, "SCALE");
  EXPECT_EQ(signature.outputs()[0].name, "BOXES");
}

TEST(ModelConfig, TheMessageForClientsIsComplete) {
  const absl::StatusOr<ModelSettings> settings = Parse(absl::StrCat("max_batch_size: 8", kTensors));
  ASSERT_TRUE(settings.ok()) << settings.status();
  const inference::ModelConfig config = settings->ConfigOf(EngineKind::kAotInductor);
  EXPECT_EQ(config.name(), "mill");
  EXPECT_EQ(config.backend(), "pytorch");
  EXPECT_EQ(config.platform(), "torch_aoti");
  EXPECT_EQ(config.default_model_filename(), "model.pt2");
  EXPECT_EQ(config.version_policy().latest().num_versions(), 1u);
  EXPECT_TRUE(config.has_dynamic_batching());
  ASSERT_EQ(config.instance_group_size(), 1);
  EXPECT_EQ(config.instance_group(0).name(), "mill_0");
  EXPECT_EQ(config.input(0).name(), "IN");
  EXPECT_EQ(config.output(0).data_type(), inference::TYPE_INT64);
  EXPECT_EQ(config.millrace().batching().overflow(), inference::Millrace::Batching::BLOCK);
  EXPECT_EQ(config.millrace().batching().shed_interval_microseconds(), 0u);
}

TEST(ModelConfig, TheMessageForClientsTellsOverHowLongTheWaitIsWatched) {
  const absl::StatusOr<ModelSettings> settings =
      Parse(absl::StrCat(kTensors, "millrace { batching { shed_target_microseconds: 5000 } }"));
  ASSERT_TRUE(settings.ok()) << settings.status();
  const inference::ModelConfig config = settings->ConfigOf(EngineKind::kTorchScript);
  EXPECT_EQ(config.millrace().batching().shed_interval_microseconds(), 100'000u);
}

TEST(ModelConfig, TheMessageForClientsKeepsWhatIsWritten) {
  const absl::StatusOr<ModelSettings> settings = Parse(kEverything);
  ASSERT_TRUE(settings.ok()) << settings.status();
  const inference::ModelConfig config = settings->ConfigOf(EngineKind::kTorchScript);
  EXPECT_EQ(config.platform(), "pytorch_libtorch");
  EXPECT_EQ(config.default_model_filename(), "net.pt");
  EXPECT_EQ(config.instance_group(0).name(), "cores");
  EXPECT_EQ(config.dynamic_batching().max_queue_delay_microseconds(), 250u);
  EXPECT_EQ(config.dynamic_batching().priority_levels(), 3u);
  EXPECT_EQ(config.dynamic_batching().priority_queue_policy().at(1).max_queue_size(), 5u);
  EXPECT_EQ(config.millrace().batching().hold(), inference::Millrace::Batching::RETURNERS);
  EXPECT_EQ(config.millrace().batching().overflow(), inference::Millrace::Batching::DROP_OLDEST);
  EXPECT_EQ(config.parameters().at("metadata").string_value(), "for clients");
  EXPECT_EQ(config.model_warmup(0).inputs().size(), 2u);
}

TEST(ModelConfig, ReadingTheCompletedMessageAgainChangesNothing) {
  const absl::StatusOr<ModelSettings> settings = Parse(kEverything);
  ASSERT_TRUE(settings.ok()) << settings.status();
  const inference::ModelConfig config = settings->ConfigOf(EngineKind::kTorchScript);
  const absl::StatusOr<ModelSettings> again = Parse(config.DebugString());
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(
      again->ConfigOf(EngineKind::kTorchScript), config));
}

struct EngineCase {
  std::string text;
  std::optional<EngineKind> engine;
};

TEST(ModelConfig, PlatformBackendAndFilenameDecideTheEngine) {
  const EngineCase cases[] = {
      {"", std::nullopt},
      {R"(backend: "pytorch")", std::nullopt},
      {R"(platform: "pytorch_libtorch")", EngineKind::kTorchScript},
      {R"(backend: "pytorch" platform: "pytorch_libtorch")", EngineKind::kTorchScript},
      {R"(platform: "torch_aoti")", EngineKind::kAotInductor},
      {R"(backend: "pytorch" platform: "torch_aoti")", EngineKind::kAotInductor},
      {R"(default_model_filename: "a.pt")", EngineKind::kTorchScript},
      {R"(default_model_filename: "a.pt2")", EngineKind::kAotInductor},
      {R"(platform: "pytorch_libtorch" default_model_filename: "a.bin")", EngineKind::kTorchScript},
  };
  for (const EngineCase& c : cases) {
    const absl::StatusOr<ModelSettings> settings = Parse(absl::StrCat(c.text, kTensors));
    ASSERT_TRUE(settings.ok()) << settings.status();
    EXPECT_EQ(settings->engine, c.engine) << c.text;
  }
}

struct ErrorCase {
  std::string text;
  std::string line;   // Of the file; "" where the error concerns the whole.
  std::string field;  // As the message has it, with its quotes.
  std::string problem;
};

void ExpectErrors(const std::vector<ErrorCase>& cases) {
  for (const ErrorCase& c : cases) {
    const std::string place =
        absl::StrCat("models/mill/config.pbtxt", c.line.empty() ? "" : ":", c.line, ": ");
    const std::string message = ErrorOf(c.text);
    EXPECT_EQ(message.substr(0, place.size()), place) << c.text << "\n" << message;
    EXPECT_THAT(message, HasSubstr(c.field)) << c.text;
    EXPECT_THAT(message, HasSubstr(c.problem)) << c.text;
  }
}

TEST(ModelConfig, MalformedTextNamesLineAndField) {
  ExpectErrors({
      {"\nmax_batchsize: 8", "2", "\"max_batchsize\"", "no field named"},
      {"input {\n  nam: \"x\"\n}", "2", "\"nam\"", "no field named"},
      {"name: \"mill\"\nmax_batch_size: \"8\"", "2", "'max_batch_size'", "Expected integer"},
      {"name: \"mill\"\nmax_batch_size 8", "2", "'max_batch_size'", "Expected \":\""},
      {"name: mill", "1", "'name'", "Expected string"},
      {"max_batch_size: 4294967296", "1", "'max_batch_size'", "out of range"},
      {"input {\n\tname: \"x\" dims: [ 1,\n 2.5 ]\n}", "3", "'dims'", "Expected integer"},
      {"input {\n data_type: TYPE_FLOAT }", "2", "\"data_type\"", "Unknown enumeration value"},
      {"name: \"mill\"\nname: \"mill\"", "2", "\"name\"", "specified multiple times"},
      {"dynamic_batching {}\nsequence_batching {}", "2", "\"sequence_batching\"", "oneof"},
      {"# dims: 1 {\ninput {", "2", "'input'", "Expected identifier"},
      {"[google.protobuf.Any]: {}", "1", "", "google.protobuf.Any"},
      {"\xff", "1", "", ""},
  });
}

TEST(ModelConfig, WhatIsNotActedOnIsRefusedByName) {
  const auto with = [](const char* text) { return absl::StrCat(kTensors, text); };
  ExpectErrors({
      {with("\nsequence_batching {}"), "5", "'sequence_batching'", "not supported yet; remove it"},
      {with("ensemble_scheduling {}"), "4", "'ensemble_scheduling'", "not supported by this"},
      {with("model_transaction_policy {\n decoupled: true }"), "5",
       "'model_transaction_policy.decoupled'", "not supported yet"},
      {with("response_cache { enable: true }"), "4", "'response_cache.enable'", "yet"},
      {with("optimization {\n cuda { graphs: true } }"), "5", "'optimization.cuda.graphs'", "yet"},
      {with("optimization { graph { level: 1 } }"), "4", "'optimization.graph.level'", "by this"},
      {with("optimization { input_pinned_memory { enable: true } }"), "4",
       "'optimization.input_pinned_memory.enable'", "yet"},
      {with("batch_input [ {} ]"), "4", "'batch_input'", "by this server"},
      {with("metric_tags { key: \"a\" value: \"b\" }"), "4", "'metric_tags'", "by this server"},
      {with("runtime: \"python\""), "4", "'runtime'", "by this server"},
      {with("instance_group { count: 1\n host_policy: \"a\" }"), "5",
       "'instance_group[0].host_policy'", "yet"},
      {with("instance_group {} instance_group {\n rate_limiter { priority: 1 } }"), "5",
       "'instance_group[1].rate_limiter.priority'", "by this server"},
      {with("instance_group {\n kind: KIND_MODEL }"), "5", "'instance_group[0].kind'",
       "expected KIND_CPU"},
      {"input [\n { name: \"A\" },\n { name: \"B\"\n   optional: true } ]", "4",
       "'input[1].optional'", "yet"},
      {"input {\n reshape { shape: [ 1 ] } }", "2", "'input[0].reshape.shape'", "yet"},
      {"output {\n data_type: TYPE_STRING name: \"x\" } input { name: \"i\" data_type: TYPE_FP32 "
       "dims: 1 }",
       "2", "'output[0].data_type'", "not supported yet"},
      {with("parameters { key: \"ENABLE_JIT_PROFILING\" value { string_value: \"true\" } }"), "4",
       "'parameters['ENABLE_JIT_PROFILING']'", "INTRA_OP_THREAD_COUNT"},
  });
}

// A model of pictures, with `image` in its transform.
std::string OfPictures(const std::string& image, const std::string& dims = "3, 48, 64",
                       const std::string& more = "") {
  return absl::StrCat("max_batch_size: 8 input { name: \"IN\" data_type: TYPE_FP32 dims: [", dims,
                      "] ", more, " }\noutput { name: \"OUT\" data_type: TYPE_FP32 dims: 1 }\n",
                      "millrace { transform { image { ", image, " } } }");
}

TEST(ModelConfig, TransformIsReadWithSizeAndLayoutOfTheDims) {
  const auto input_of = [](const std::string& text) {
    const absl::StatusOr<ModelSettings> settings = Parse(text);
    EXPECT_TRUE(settings.ok()) << settings.status();
    return settings.ok() ? settings->inputs[0] : TensorSpec();
  };
  const TensorSpec input = input_of(OfPictures("fit: LETTERBOX mean: 0.5 std: [0.1, 0.2, 0.3]"));
  ASSERT_NE(input.transform, nullptr);
  EXPECT_EQ(input.wire_data_type(), DataType::kBytes);
  EXPECT_THAT(input.wire_dims(), ElementsAre(1));
  EXPECT_THAT(input.dims, ElementsAre(3, 48, 64));
  for (const char* dims : {"48, 64, 3", "1, 48, 64", "48, 64, 1"}) {
    EXPECT_NE(input_of(OfPictures("", dims)).transform, nullptr) << dims;
  }
  EXPECT_NE(input_of(OfPictures("", "3, 48, 3", "format: FORMAT_NHWC")).transform, nullptr);
}

TEST(ModelConfig, TransformThatCantBeIsRefusedByName) {
  const std::string image = "'millrace.transform.image";
  ExpectErrors({
      {OfPictures("input: \"X\""), "3", image + ".input'", "no input of this name"},
      {OfPictures("", "3, -1, 64"), "1", "'input[0].dims'", "sides of 1"},
      {OfPictures("", "4, 48, 64"), "1", "'input[0].dims'", "expected [3,height,width]"},
      {OfPictures("", "3, 48, 3"), "1", "'input[0].format'", "FORMAT_NCHW or FORMAT_NHWC"},
      {OfPictures("fill: 3"), "3", image + ".fill'", "only LETTERBOX"},
      {OfPictures("fit: LETTERBOX fill: 256"), "3", image, "fill: 256 came, expected 0 to 255"},
      {OfPictures("mean: [1, 2]"), "3", image + ".mean'", "2 values came"},
      {OfPictures("std: 0"), "3", image, "std[0]: 0 came"},
      {OfPictures("formats: [JPEG, FORMAT_UNSPECIFIED]"), "3", image + ".formats[1]'",
       "expected JPEG"},
      {OfPictures("color_order: BGR", "1, 48, 64"), "3", image + ".color_order'", "one channel"},
      {OfPictures("shorter_side: 100"), "3", image, "0 but for CENTER_CROP"},
  });
}

TEST(ModelConfig, LabelFileIsANameWithoutAPath) {
  ExpectErrors(
      {{"max_batch_size: 1 input { name: \"i\" data_type: TYPE_FP32 dims: 1 }\noutput { "
        "name: \"o\" data_type: TYPE_FP32 dims: 1 label_filename: \"../x\" }",
        "2", "'output[0].label_filename'", "without a path"}});
}

TEST(ModelConfig, UnsupportedFieldsThatAskForNothingPass) {
  for (const char* text : {
           "optimization { input_pinned_memory { enable: false } priority: PRIORITY_DEFAULT }",
           "model_transaction_policy { decoupled: false }",
           "response_cache {}",
           "instance_group { rate_limiter {} passive: false }",
           "dynamic_batching { default_queue_policy { timeout_action: REJECT } }",
           "model_operations {}",
       }) {
    const absl::StatusOr<ModelSettings> settings = Parse(absl::StrCat(kTensors, text));
    EXPECT_TRUE(settings.ok()) << text << ": " << settings.status();
  }
}

TEST(ModelConfig, ValuesThatMakeNoSenseAreRefused) {
  const auto with = [](const char* text) { return absl::StrCat(kTensors, text); };
  const auto input = [](const char* text) {
    return absl::StrCat("max_batch_size: 4\ninput { name: \"I\" data_type: TYPE_FP32\n", text,
                        " }\noutput { name: \"O\" data_type: TYPE_FP32 dims: 1 }");
  };
  ExpectErrors({
      {"", "", "'input'", "missing"},
      {"input { name: \"I\" data_type: TYPE_FP32 dims: 1 }", "", "'output'", "missing"},
      {with("name: \"other\""), "4", "'name'", "differs from the directory 'mill'"},
      {with("platform: \"onnxruntime_onnx\""), "4", "'platform'", "expected pytorch"},
      {with("backend: \"python\""), "4", "'backend'", "expected pytorch"},
      {with("platform: \"torch_aoti\"\nbackend: \"pytorch_libtorch\""), "5", "'backend'",
       "contradicts"},
      {with("platform: \"torch_aoti\" default_model_filename: \"a.pt\""), "4",
       "'default_model_filename'", "contradicts"},
      {with("default_model_filename: \"a.bin\""), "4", "'default_model_filename'", "set platform"},
      {with("default_model_filename: \"../a.pt\""), "4", "'default_model_filename'",
       "without a path"},
      {with("max_batch_size: -1"), "4", "'max_batch_size'", "expected 0 or more"},
      {"input { name: \"I\" data_type: TYPE_FP32 }", "1", "'input[0].dims'", "missing"},
      {"input { name: \"I\" data_type: TYPE_FP32 dims: [] }", "1", "'input[0].dims'", "missing"},
      {input(""), "2", "'input[0].dims'", "write []"},
      {input("dims: [ 3, 0 ]"), "3", "'input[0].dims[1]'", "0 came"},
      {input("dims: 3\ndims: -2"), "4", "'input[0].dims[1]'", "-2 came"},
      {input("dims: [ 1, 1, 1, 1, 1, 1, 1, 1 ]"), "3", "'input[0].dims'", "at most 7"},
      {input("dims: [ 4611686018427387904, 2 ]"), "3", "'input[0].dims'", "addressed"},
      {input("dims: [ 4611686018427387904 ]"), "3", "'input[0].dims'", "addressed"},
      {input("dims: [ 1099511627776 ]"), "3", "'input[0].dims'", "at most 1099511627776"},
      {"input {\n data_type: TYPE_FP32 dims: 1 }", "1", "'input[0].name'", "missing"},
      {"input { name: \"a\\nb\"\n data_type: TYPE_FP32 dims: 1 }", "1", "'input[0].name'",
       "control characters"},
      {"input { name: \"a\"\n data_type: 77 dims: 1 }", "2", "'input[0].data_type'", "77 is no"},
      {"input { name: \"a\" dims: 1 }", "1", "'input[0].data_type'", "missing"},
      {input("dims: 1 } input {\n name: \"I\" data_type: TYPE_FP32 dims: 1"), "4",
       "'input[1].name'", "given twice"},
      {with("default_model_filename: \"\\377.pt\""), "4", "'default_model_filename'", "UTF-8"},
      {with("version_policy { specific {} }"), "4", "'version_policy.specific.versions'",
       "missing"},
      {with("version_policy { specific {\n versions: [ 1, 0 ] } }"), "5",
       "'version_policy.specific.versions'", "0 came"},
      {with("max_batch_size: 4 dynamic_batching {\n preferred_batch_size: [ 4, 5 ] }"), "5",
       "'dynamic_batching.preferred_batch_size[1]'", "expected 1 to max_batch_size, which is 4"},
      {with("dynamic_batching { preferred_batch_size: 1 }"), "4",
       "'dynamic_batching.preferred_batch_size[0]'", "which is 0"},
      {with("dynamic_batching { max_queue_delay_microseconds: 18446744073709551615 }"), "4",
       "'dynamic_batching.max_queue_delay_microseconds'", "at most an hour"},
      {with("instance_group {\n count: -1 }"), "5", "'instance_group[0].count'", "expected 1 to"},
      {with("instance_group {\n count: 5000 }"), "5", "'instance_group[0].count'", "expected 1 to"},
      {with("instance_group { kind: KIND_CPU\n gpus: 0 }"), "5", "'instance_group[0].gpus'",
       "KIND_CPU uses none"},
      {with("instance_group { kind: KIND_GPU\n gpus: -1 }"), "5", "'instance_group[0].gpus[0]'",
       "0 or more"},
  });
}

TEST(ModelConfig, PrioritiesThatMakeNoSenseAreRefused) {
  const auto with = [](const char* text) {
    return absl::StrCat(kTensors, "dynamic_batching {\n", text, " }");
  };
  ExpectErrors({
      {with("priority_levels: 2"), "4", "'dynamic_batching.default_priority_level'",
       "0 came, expected 1 to priority_levels, which is 2"},
      {with("priority_levels: 2\ndefault_priority_level: 3"), "6",
       "'dynamic_batching.default_priority_level'", "3 came, expected 1 to priority_levels"},
      {with("default_priority_level: 1"), "5", "'dynamic_batching.default_priority_level'",
       "1 came, but the model has no levels"},
      {with("default_priority_level: 1\npriority_levels: 18446744073709551615"), "6",
       "'dynamic_batching.priority_levels'", "18446744073709551615 came, at most 32"},
      {with("priority_levels: 2 default_priority_level: 1\npriority_queue_policy { key: 3 value {} "
            "}"),
       "6", "'dynamic_batching.priority_queue_policy['3']'",
       "3 came, expected 1 to priority_levels, which is 2"},
      {with("priority_levels: 2 default_priority_level: 1\npriority_queue_policy { value {} }"),
       "6", "'dynamic_batching.priority_queue_policy['0']'",
       "0 came, expected 1 to priority_levels"},
      {with("priority_queue_policy { key: 1 value {} }"), "5",
       "'dynamic_batching.priority_queue_policy['1']'",
       "1 came, but the model has no levels; set priority_levels too"},
      {with("priority_levels: 2 default_priority_level: 1\npriority_queue_policy { key: 2 value {} "
            "}\npriority_queue_policy { key: 2 value {} }"),
       "7", "'dynamic_batching.priority_queue_policy['2']'", "given twice"},
      {with("priority_levels: 1 default_priority_level: 1\npriority_queue_policy { key: 1 value {\n"
            "default_timeout_microseconds: 3600000001 } }"),
       "7", "'dynamic_batching.priority_queue_policy['1'].default_timeout_microseconds'",
       "3600000001 came, at most an hour"},
      {with("default_queue_policy {\n default_timeout_microseconds: 3600000001 }"), "6",
       "'dynamic_batching.default_queue_policy.default_timeout_microseconds'",
       "3600000001 came, at most an hour"},
      {with("default_queue_policy {\n timeout_action: 2 }"), "6",
       "'dynamic_batching.default_queue_policy.timeout_action'", "expected REJECT or DELAY"},
  });
}

TEST(ModelConfig, MillraceSettingsThatMakeNoSenseAreRefused) {
  const auto with = [](const char* text) {
    return absl::StrCat(kTensors, "millrace { batching {\n", text, " } }");
  };
  ExpectErrors({
      {absl::StrCat(kTensors,
                    "millrace { supervision {\nexecution_limit_microseconds: 3600000001 } }"),
       "5", "'millrace.supervision.execution_limit_microseconds'",
       "3600000001 came, at most an hour"},
      {with("hold: ALWAYS"), "5", "\"hold\"", "Unknown enumeration value"},
      {with("hold: 3"), "5", "'millrace.batching.hold'", "expected NONE or RETURNERS"},
      {with("overflow: 5"), "5", "'millrace.batching.overflow'",
       "expected BLOCK, REJECT, DROP_OLDEST or LATEST"},
      {with("check: 9"), "5", "'millrace.batching.check'", "expected SINGLE_ROWS"},
      {absl::StrCat(kTensors, "millrace { numerics {\nnon_finite: 9 } }"), "5",
       "'millrace.numerics.non_finite'", "expected PASS, FLAG or REFUSE"},
      {absl::StrCat(kTensors, "millrace { lifecycle {\nswap: 9 } }"), "5",
       "'millrace.lifecycle.swap'", "expected BESIDE or IN_PLACE_IF_NEEDED"},
      {with("starvation_guard_microseconds: 1000"), "5",
       "'millrace.batching.starvation_guard_microseconds'", "needs lower priority levels"},
      {with("starvation_guard_microseconds: 3600000001"), "5",
       "'millrace.batching.starvation_guard_microseconds'", "3600000001 came, at most an hour"},
      {with("shed_target_microseconds: 3600000001"), "5",
       "'millrace.batching.shed_target_microseconds'", "3600000001 came, at most an hour"},
      {with("shed_target_microseconds: 1\nshed_interval_microseconds: 18446744073709551615"), "6",
       "'millrace.batching.shed_interval_microseconds'", "at most an hour"},
      {with("shed_interval_microseconds: 1000"), "5",
       "'millrace.batching.shed_interval_microseconds'", "without shed_target_microseconds"},
      {with("max_queue_bytes: 9223372036854775808"), "5", "'millrace.batching.max_queue_bytes'",
       "9223372036854775808 came, more than can be addressed"},
  });
}

TEST(ModelConfig, ExecutionIsReadWhereItIsWritten) {
  const auto read = [](const char* text) {
    const absl::StatusOr<ModelSettings> settings =
        Parse(absl::StrCat(kTensors, "millrace { execution { ", text, " } }"));
    EXPECT_TRUE(settings.ok()) << settings.status();
    return settings->execution;
  };
  EXPECT_EQ(read("").bfloat16, std::nullopt);
  EXPECT_EQ(read("").channels_last, std::nullopt);
  EXPECT_EQ(read("").wait, std::nullopt);
  EXPECT_EQ(read("bfloat16: false").bfloat16, false);
  EXPECT_EQ(read("bfloat16: true").bfloat16, true);
  EXPECT_EQ(read("channels_last: true").channels_last, true);
  EXPECT_EQ(read("wait: ACTIVE").wait, ThreadWait::kActive);
  EXPECT_EQ(read("wait: PASSIVE").wait, ThreadWait::kPassive);
}

TEST(ModelConfig, ExecutionThatCantBeIsRefused) {
  const auto with = [](const char* text, const char* more = "") {
    return absl::StrCat(kTensors, "millrace { execution {\n", text, " } }\n", more);
  };
  constexpr char kPackage[] = "platform: \"torch_aoti\"";
  ExpectErrors({
      {with("wait: 3"), "5", "'millrace.execution.wait'", "expected PASSIVE or ACTIVE"},
      {with("bfloat16: true", kPackage), "5", "'millrace.execution.bfloat16'",
       "computes as it was compiled"},
      {with("channels_last: true", kPackage), "5", "'millrace.execution.channels_last'",
       "computes as it was compiled"},
      {with("wait: ACTIVE", "instance_group { kind: KIND_GPU }"), "4", "'millrace.execution'",
       "for replicas on CPUs"},
      {with("bfloat16: true",
            "parameters { key: \"DISABLE_OPTIMIZED_EXECUTION\" value { string_value: \"true\" } }"),
       "5", "'millrace.execution.bfloat16'", "DISABLE_OPTIMIZED_EXECUTION is true"},
  });
  EXPECT_TRUE(Parse(with("wait: ACTIVE bfloat16: false", kPackage)).ok());
}

TEST(ModelConfig, ParametersAreChecked) {
  const auto parameter = [](const char* key, const char* value) {
    return absl::StrCat(kTensors, "parameters {\n key: \"", key, "\"\n value { string_value: \"",
                        value, "\" } }");
  };
  ExpectErrors({
      {parameter("INTRA_OP_THREAD_COUNT", "0"), "6", "'parameters['INTRA_OP_THREAD_COUNT']'",
       "'0' came, expected a number from 1"},
      {parameter("INTER_OP_THREAD_COUNT", "many"), "6", "'parameters['INTER_OP_THREAD_COUNT']'",
       "expected a number"},
      {parameter("INFERENCE_MODE", "perhaps"), "6", "'parameters['INFERENCE_MODE']'",
       "expected true or false"},
      {parameter("intra_op_thread_count", "2"), "5", "'parameters['intra_op_thread_count']'",
       "write it as INTRA_OP_THREAD_COUNT"},
      {absl::StrCat(parameter("a", "1"), "\nparameters { key: \"a\" }"), "7", "'parameters['a']'",
       "given twice"},
  });
}

TEST(ModelConfig, WarmupThatTheModelCannotTakeIsRefused) {
  const auto warmup = [](const char* text) {
    return absl::StrCat("max_batch_size: 4", kTensors, "model_warmup {\n", text, " }");
  };
  const auto in = [&](const char* text) {
    return warmup(absl::StrCat("inputs { key: \"IN\"\n value { ", text, " } }").c_str());
  };
  ExpectErrors({
      {warmup(""), "4", "'model_warmup[0].inputs'", "'IN' is missing"},
      {warmup("batch_size: 5"), "5", "'model_warmup[0].batch_size'", "expected at most 4"},
      {warmup("count: 4000000000"), "5", "'model_warmup[0].count'", "expected at most"},
      {warmup("inputs {\n key: \"X\" }"), "6", "'model_warmup[0].inputs['X']'", "no input of this"},
      {in("data_type: TYPE_FP16 dims: [ 3, 4 ] zero_data: true"), "6",
       "'model_warmup[0].inputs['IN'].data_type'", "TYPE_FP32"},
      {in("data_type: TYPE_FP32 dims: [ 3 ] zero_data: true"), "6",
       "'model_warmup[0].inputs['IN'].dims'", "[3] came, expected sizes for [3,4]"},
      {in("data_type: TYPE_FP32 dims: [ 3, 5 ] zero_data: true"), "6",
       "'model_warmup[0].inputs['IN'].dims'", "[3,5] came"},
      {in("data_type: TYPE_FP32 dims: [ 3, 4 ] input_data_file: \"../x\""), "6",
       "'model_warmup[0].inputs['IN'].input_data_file'", "without a path"},
      {in("data_type: TYPE_FP32 dims: [ 3, 4 ] input_data_file: \"\""), "6",
       "'model_warmup[0].inputs['IN'].input_data_file'", "without a path"},
      {in("data_type: TYPE_FP32 dims: [ 3, 4 ]"), "6", "'model_warmup[0].inputs['IN'].zero_data'",
       "random_data: true"},
  });
}

TEST(ModelConfig, WarmupOfADimensionThatVariesNeedsASize) {
  const std::string text = R"(
input { name: "IN" data_type: TYPE_FP32 dims: -1 }
output { name: "OUT" data_type: TYPE_FP32 dims: -1 }
model_warmup { inputs { key: "IN" value { data_type: TYPE_FP32 zero_data: true dims: )";
  EXPECT_TRUE(Parse(text + "9 } } }").ok());
  EXPECT_THAT(ErrorOf(text + "-1 } } }"), HasSubstr("[-1] came, expected sizes"));
  EXPECT_THAT(ErrorOf(text + "9223372036854775807 } } }"), HasSubstr("more bytes than can be"));
}

TEST(ModelConfig, ARowMayBeASingleElementIfThatIsWritten) {
  const absl::StatusOr<ModelSettings> settings = Parse(R"(
max_batch_size: 2
input { name: "IN" data_type: TYPE_FP32 dims: [] }
output { name: "OUT" data_type: TYPE_INT64 dims: [] }
)");
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_THAT(settings->inputs[0].dims, IsEmpty());
  EXPECT_THAT(settings->outputs[0].dims, IsEmpty());
}

TEST(ModelConfig, AtMost32TensorsAreSupported) {
  std::string text = "output { name: \"O\" data_type: TYPE_FP32 dims: 1 }\n";
  for (int i = 0; i < 32; ++i) {
    absl::StrAppend(&text, "input { name: \"I", i, "\" data_type: TYPE_FP32 dims: 1 }\n");
  }
  EXPECT_TRUE(Parse(text).ok());
  absl::StrAppend(&text, "input { name: \"last\" data_type: TYPE_FP32 dims: 1 }\n");
  EXPECT_THAT(ErrorOf(text), HasSubstr("33 came, at most 32"));
}

TEST(ModelConfig, EveryDataTypeButStringIsTaken) {
  const google::protobuf::EnumDescriptor* types = inference::DataType_descriptor();
  int taken = 0;
  for (int i = 0; i < types->value_count(); ++i) {
    const std::string name = types->value(i)->name();
    const absl::StatusOr<ModelSettings> settings =
        Parse(absl::StrCat("output { name: \"O\" data_type: TYPE_FP32 dims: 1 }\n",
                           "input { name: \"I\" dims: 1 data_type: ", name, " }"));
    if (!settings.ok()) continue;
    ++taken;
    EXPECT_EQ(absl::StrCat("TYPE_", WireName(settings->inputs[0].data_type)), name);
  }
  EXPECT_EQ(taken, 13);
}

// Deletes, repeats, swaps and replaces pieces of the text.
std::string Mutate(std::string text, std::mt19937* random) {
  static const char* const kPieces[] = {
      "{",    "}",       "[",     "]",           "\"",        ":",    "-1",
      "\n",   "0",       "\xff",  "99999999999", "TYPE_FP32", "'",    "#",
      "dims", "value {", "\\377", "\t",          "true",      "NONE", "3"};
  const auto pick = [&](size_t bound) { return (*random)() % std::max<size_t>(bound, 1); };
  for (size_t change = 1 + pick(6); change > 0; --change) {
    const size_t at = pick(text.size());
    const size_t length = std::min(text.size() - at, 1 + pick(20));
    switch (pick(5)) {
      case 0:
        text.erase(at, length);
        break;
      case 1:
        text.insert(pick(text.size()), text.substr(at, length));
        break;
      case 2:
        text.replace(at, length, kPieces[pick(std::size(kPieces))]);
        break;
      case 3:
        text.insert(at, kPieces[pick(std::size(kPieces))]);
        break;
      default:
        text.resize(at);
    }
  }
  return text;
}

TEST(ModelConfig, MutatedTextsAreEitherReadOrRefusedWithAReason) {
  const uint32_t seed = std::random_device()();
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::cout << "seed " << seed << "\n";
  std::mt19937 random(seed);
  int read = 0;
  int refused = 0;
  for (int i = 0; i < 20'000; ++i) {
    const std::string text = Mutate(kEverything, &random);
    const absl::StatusOr<ModelSettings> settings = Parse(text);
    if (settings.ok()) {
      ++read;
      // What was accepted is whole: it goes over the wire and comes back.
      const inference::ModelConfig config = settings->ConfigOf(EngineKind::kTorchScript);
      inference::ModelConfig copy;
      ASSERT_TRUE(copy.ParseFromString(config.SerializeAsString())) << text;
      ASSERT_FALSE(settings->inputs.empty()) << text;
    } else {
      ++refused;
      ASSERT_EQ(settings.status().code(), absl::StatusCode::kInvalidArgument) << text;
      ASSERT_EQ(settings.status().message().substr(0, 24), "models/mill/config.pbtxt") << text;
    }
  }
  EXPECT_GT(read, 100);
  EXPECT_GT(refused, 1000);
}

}  // namespace
}  // namespace millrace
