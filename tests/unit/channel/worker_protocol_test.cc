// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/channel/worker_protocol.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace millrace {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const char kOddText[] = "quotes \" \\ newline \n tab \t umlaut ä \x01";

LoadCommand Load() {
  LoadCommand command;
  command.mode = {.engine = EngineKind::kAotInductor,
                  .bfloat16 = true,
                  .channels_last = true,
                  .wait = ThreadWait::kActive};
  command.model_name = kOddText;
  command.version = int64_t{1} << 60;
  command.max_batch_size = 32;
  command.inputs = {{"x", DataType::kBf16, {-1, 3}}, {"s", DataType::kBool, {}}};
  command.outputs = {{"y", DataType::kFp32, {4}}};
  command.optimize = false;
  command.inference_mode = false;
  command.flush_denormals = true;
  command.deterministic = true;
  command.inter_op_threads = 3;
  command.warmup = {{.rows = 5,
                     .count = 7,
                     .inputs = {{.name = "x",
                                 .dims = {9, 3},
                                 .random = true,
                                 .file = "",
                                 .data_offset = uint64_t{1} << 40,
                                 .data_rows = 2}},
                     .declared = true}};
  command.further_batch_sizes = {9, 11};
  command.on_gpu = true;
  command.load_only = true;
  command.sandbox = SandboxMode::kRequired;
  command.folder = "/tmp/package";
  command.memory_limit_bytes = uint64_t{1} << 40;
  command.server_pid = 4711;
  return command;
}

TEST(WorkerProtocol, LoadCommandComesBackAsItWas) {
  const auto command = FromJson<LoadCommand>(ToJson(Load()));
  ASSERT_TRUE(command.ok()) << command.status();
  EXPECT_EQ(command->mode, Load().mode);
  EXPECT_EQ(command->model_name, kOddText);
  EXPECT_EQ(command->version, int64_t{1} << 60);
  EXPECT_EQ(command->max_batch_size, 32);
  ASSERT_EQ(command->inputs.size(), 2);
  EXPECT_EQ(command->inputs[0].name, "x");
  EXPECT_EQ(command->inputs[0].data_type, DataType::kBf16);
  EXPECT_THAT(command->inputs[0].dims, ElementsAre(-1, 3));
  EXPECT_THAT(command->inputs[1].dims, ElementsAre());
  ASSERT_EQ(command->outputs.size(), 1);
  EXPECT_EQ(command->outputs[0].name, "y");
  EXPECT_FALSE(command->optimize);
  EXPECT_FALSE(command->inference_mode);
  EXPECT_TRUE(command->flush_denormals);
  EXPECT_TRUE(command->deterministic);
  EXPECT_EQ(command->inter_op_threads, 3);
  ASSERT_EQ(command->warmup.size(), 1);
  EXPECT_EQ(command->warmup[0].rows, 5);
  EXPECT_EQ(command->warmup[0].count, 7);
  EXPECT_TRUE(command->warmup[0].declared);
  ASSERT_EQ(command->warmup[0].inputs.size(), 1);
  EXPECT_EQ(command->warmup[0].inputs[0].name, "x");
  EXPECT_THAT(command->warmup[0].inputs[0].dims, ElementsAre(9, 3));
  EXPECT_TRUE(command->warmup[0].inputs[0].random);
  EXPECT_EQ(command->warmup[0].inputs[0].data_offset, uint64_t{1} << 40);
  EXPECT_EQ(command->warmup[0].inputs[0].data_rows, 2);
  EXPECT_THAT(command->further_batch_sizes, ElementsAre(9, 11));
  EXPECT_TRUE(command->on_gpu);
  EXPECT_TRUE(command->load_only);
  EXPECT_EQ(command->sandbox, SandboxMode::kRequired);
  EXPECT_EQ(command->folder, "/tmp/package");
  EXPECT_EQ(command->memory_limit_bytes, uint64_t{1} << 40);
  EXPECT_EQ(command->server_pid, 4711);
}

TEST(WorkerProtocol, ForkCommandComesBackAsItWas) {
  const auto command = FromJson<ForkCommand>(ToJson(ForkCommand{
      .mailbox = 3, .cpus = {1, 5}, .threads = 2, .device_index = 1, .rehearses = true}));
  ASSERT_TRUE(command.ok()) << command.status();
  EXPECT_EQ(command->mailbox, 3);
  EXPECT_THAT(command->cpus, ElementsAre(1, 5));
  EXPECT_EQ(command->threads, 2);
  EXPECT_EQ(command->device_index, 1);
}

TEST(WorkerProtocol, RepliesComeBackAsTheyWere) {
  const auto loaded = FromJson<LoadedReply>(
      ToJson(LoadedReply{.status = absl::InvalidArgumentError(kOddText),
                         .start_over = true,
                         .notes = {"a", "b"},
                         .warnings = {"c"},
                         .warmup_ns = {5, 0},
                         .batching = absl::FailedPreconditionError("row 2")}));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(loaded->status, absl::InvalidArgumentError(kOddText));
  EXPECT_TRUE(loaded->start_over);
  EXPECT_THAT(loaded->notes, ElementsAre("a", "b"));
  EXPECT_EQ(loaded->batching, absl::FailedPreconditionError("row 2"));
  EXPECT_THAT(loaded->warnings, ElementsAre("c"));

  const auto forked =
      FromJson<ForkedReply>(ToJson(ForkedReply{.status = absl::OkStatus(), .pid = 12345}));
  ASSERT_TRUE(forked.ok()) << forked.status();
  EXPECT_TRUE(forked->status.ok());
  EXPECT_EQ(forked->pid, 12345);

  const auto ready = FromJson<ReadyReply>(ToJson(
      ReadyReply{.status = absl::ResourceExhaustedError("GPU"), .notes = {}, .warmup_ns = {}}));
  ASSERT_TRUE(ready.ok()) << ready.status();
  EXPECT_EQ(ready->status, absl::ResourceExhaustedError("GPU"));
}

TEST(WorkerProtocol, InspectionComesBackAsItWas) {
  const auto command = FromJson<InspectCommand>(
      ToJson(InspectCommand{.engine = EngineKind::kAotInductor,
                            .inputs = {{"", DataType::kInt64, {-1}}, {"x", DataType::kFp32, {}}},
                            .max_batch_size = 4,
                            .sandbox = SandboxMode::kOff,
                            .folder = "/tmp/package",
                            .memory_limit_bytes = 5,
                            .server_pid = 6}));
  ASSERT_TRUE(command.ok()) << command.status();
  EXPECT_EQ(command->engine, EngineKind::kAotInductor);
  ASSERT_EQ(command->inputs.size(), 2);
  EXPECT_EQ(command->inputs[0].name, "");
  EXPECT_THAT(command->inputs[0].dims, ElementsAre(-1));
  EXPECT_EQ(command->max_batch_size, 4);
  EXPECT_EQ(command->sandbox, SandboxMode::kOff);
  EXPECT_EQ(command->folder, "/tmp/package");
  EXPECT_EQ(command->memory_limit_bytes, 5);
  EXPECT_EQ(command->server_pid, 6);

  InspectedReply sent;
  sent.stage = "loading it";
  sent.status = absl::InvalidArgumentError(kOddText);
  sent.warnings = {"c"};
  sent.inspection.engine = EngineKind::kAotInductor;
  sent.inspection.libtorch_version = "2.13.0";
  sent.inspection.instruction_set = "AVX2";
  sent.inspection.arguments = "forward(Tensor x)";
  sent.inspection.inputs = {{"x", DataType::kBool, {-1, 2}}};
  sent.inspection.outputs = {{kOddText, DataType::kFp64, {}}};
  sent.inspection.max_batch_size = 7;
  sent.inspection.is_certain = true;
  sent.inspection.batching = absl::FailedPreconditionError("row 2");
  sent.inspection.notes = {"a", "b"};
  const auto reply = FromJson<InspectedReply>(ToJson(sent));
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->stage, "loading it");
  EXPECT_EQ(reply->status, sent.status);
  EXPECT_THAT(reply->warnings, ElementsAre("c"));
  EXPECT_EQ(reply->inspection.engine, EngineKind::kAotInductor);
  EXPECT_EQ(reply->inspection.libtorch_version, "2.13.0");
  EXPECT_EQ(reply->inspection.instruction_set, "AVX2");
  EXPECT_EQ(reply->inspection.arguments, "forward(Tensor x)");
  ASSERT_EQ(reply->inspection.inputs.size(), 1);
  EXPECT_EQ(reply->inspection.inputs[0].data_type, DataType::kBool);
  ASSERT_EQ(reply->inspection.outputs.size(), 1);
  EXPECT_EQ(reply->inspection.outputs[0].name, kOddText);
  EXPECT_EQ(reply->inspection.max_batch_size, 7);
  EXPECT_TRUE(reply->inspection.is_certain);
  EXPECT_EQ(reply->inspection.batching, sent.inspection.batching);
  EXPECT_THAT(reply->inspection.notes, ElementsAre("a", "b"));
}

TEST(WorkerProtocol, DescriptionComesBackAsItWas) {
  WorkerDescription description = {.libtorch_version = "2.13.0", .gpus = {}};
  description.gpus.push_back({.index = 1,
                              .name = "H200",
                              .total_memory_bytes = uint64_t{141} << 30,
                              .free_memory_bytes = uint64_t{140} << 30});
  const auto parsed = FromJson<WorkerDescription>(ToJson(description));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->libtorch_version, "2.13.0");
  ASSERT_EQ(parsed->gpus.size(), 1);
  EXPECT_EQ(parsed->gpus[0].index, 1);
  EXPECT_EQ(parsed->gpus[0].name, "H200");
  EXPECT_EQ(parsed->gpus[0].total_memory_bytes, uint64_t{141} << 30);
  EXPECT_EQ(parsed->gpus[0].free_memory_bytes, uint64_t{140} << 30);
}

TEST(WorkerProtocol, TextThatIsNoUtf8IsReplacedAndNotThrown) {
  const auto reply = FromJson<ReadyReply>(ToJson(ReadyReply{
      .status = absl::InternalError("bytes \xff\xfe end"), .notes = {"\xc3"}, .warmup_ns = {}}));
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_THAT(std::string(reply->status.message()), HasSubstr("end"));
}

TEST(WorkerProtocol, GarbageIsAnError) {
  const std::string garbage[] = {
      "",
      "{",
      "null",
      "[]",
      "{}",
      "42",
      "\"text\"",
      "\xff\xfe",
      std::string("\0", 1),
      std::string(100'000, '['),
      R"({"status":{"code":0}})",
      R"({"status":0,"notes":[]})",
      R"({"status":{"code":"0","message":""},"notes":[],"pid":1})",
      R"({"status":{"code":0,"message":""},"notes":[1],"pid":"1"})",
      R"({"mailbox":0,"cpus":["a"],"threads":1,"device_index":-1})",
  };
  for (const std::string& text : garbage) {
    EXPECT_EQ(FromJson<LoadCommand>(text).status().code(), absl::StatusCode::kInternal) << text;
    EXPECT_EQ(FromJson<LoadedReply>(text).status().code(), absl::StatusCode::kInternal) << text;
    EXPECT_EQ(FromJson<ForkCommand>(text).status().code(), absl::StatusCode::kInternal) << text;
    EXPECT_EQ(FromJson<ForkedReply>(text).status().code(), absl::StatusCode::kInternal) << text;
    EXPECT_EQ(FromJson<ReadyReply>(text).status().code(), absl::StatusCode::kInternal) << text;
    EXPECT_EQ(FromJson<InspectCommand>(text).status().code(), absl::StatusCode::kInternal) << text;
    EXPECT_EQ(FromJson<InspectedReply>(text).status().code(), absl::StatusCode::kInternal) << text;
    EXPECT_EQ(FromJson<WorkerDescription>(text).status().code(), absl::StatusCode::kInternal)
        << text;
    EXPECT_FALSE(IsLoadCommand(text)) << text;
  }
}

TEST(WorkerProtocol, ACutMessageIsAnErrorWhereverItIsCut) {
  const std::string whole = ToJson(Load());
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(FromJson<LoadCommand>(whole.substr(0, size)).ok()) << size;
  }
}

TEST(WorkerProtocol, CommandsAreToldApart) {
  EXPECT_TRUE(IsLoadCommand(ToJson(Load())));
  EXPECT_FALSE(IsLoadCommand(ToJson(ForkCommand())));
}

}  // namespace
}  // namespace millrace
