// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
// Real worker processes with real models; the test plays the server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "server/base/clock.h"
#include "tests/integration/worker/worker_harness.h"

namespace millrace {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr EngineKind kScript = EngineKind::kTorchScript;
constexpr EngineKind kPackage = EngineKind::kAotInductor;
constexpr DataType kF = DataType::kFp32;

LoadCommand OneToOne(Shape in, Shape out, EngineKind engine = kScript, DataType type = kF) {
  return MakeLoad(engine, 8, {{"INPUT__0", type, std::move(in)}},
                  {{"OUTPUT__0", type, std::move(out)}});
}

LoadCommand SlowLoad() {
  return MakeLoad(kScript, 8, {{"loops", DataType::kInt32, {1}}},
                  {{"done", DataType::kInt32, {1}}});
}

std::vector<float> Ramp(size_t count, float step = 1) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = step * static_cast<float>(i);
  return values;
}

// Loads and requires that it worked.
void MustLoad(WorkerHarness& worker, const LoadCommand& command, const std::string& model) {
  const absl::StatusOr<LoadedReply> loaded = worker.Load(command, TestModel(model));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  ASSERT_TRUE(loaded->status.ok()) << loaded->status;
}

// What keeps the model from loading.
absl::Status LoadError(const LoadCommand& command, const std::string& file) {
  WorkerHarness worker;
  const absl::StatusOr<LoadedReply> loaded = worker.Load(command, file);
  return loaded.ok() ? loaded->status : loaded.status();
}

std::unique_ptr<ReplicaEnd> MustFork(WorkerHarness& worker, int mailbox = 0, int threads = 1,
                                     std::vector<int> cpus = {}) {
  absl::StatusOr<std::unique_ptr<ReplicaEnd>> replica =
      worker.Fork({.mailbox = mailbox, .cpus = std::move(cpus), .threads = threads});
  EXPECT_TRUE(replica.ok()) << replica.status();
  return replica.ok() ? *std::move(replica) : nullptr;
}

TEST(Worker, RowsComeBackFromTorchScript) {
  WorkerHarness worker;
  MustLoad(worker, OneToOne({16}, {16}), "good/identity/1/model.pt");
  const auto replica = MustFork(worker);
  ASSERT_NE(replica, nullptr);
  for (const int64_t rows : {1, 3, 8}) {
    const std::string bytes = Bytes(Ramp(static_cast<size_t>(16 * rows)));
    const auto outputs = worker.Run(*replica, rows, {{{16}, bytes}});
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    ASSERT_EQ(outputs->size(), 1u);
    EXPECT_THAT((*outputs)[0].dims, ElementsAre(rows, 16));
    EXPECT_EQ((*outputs)[0].bytes, bytes);
  }
}

TEST(Worker, AModelRunsWithoutOptimisationAndInferenceModeToo) {
  WorkerHarness worker;
  LoadCommand command = OneToOne({16}, {16});
  command.optimize = command.inference_mode = false;
  MustLoad(worker, command, "good/fork_model/1/model.pt");
  const auto replica = MustFork(worker);
  ASSERT_NE(replica, nullptr);
  EXPECT_TRUE(worker.Run(*replica, 2, {{{16}, std::string(2 * 16 * 4, '\0')}}).ok());
}

TEST(Worker, AGpuReplicaRunsOrSaysThatThereIsNoGpu) {
  WorkerHarness worker;
  LoadCommand command = OneToOne({16}, {16});
  command.on_gpu = true;
  MustLoad(worker, command, "good/identity/1/model.pt");
  const auto replica = worker.Fork({.mailbox = 0, .cpus = {}, .threads = 1, .device_index = 0});
  if (!replica.ok()) {
    EXPECT_THAT(std::string(replica.status().message()),
                AllOf(HasSubstr("GPU 0 was asked for"), HasSubstr("sees 0 GPUs")));
    return;
  }
  const std::string bytes = Bytes(Ramp(32));
  const auto outputs = worker.Run(**replica, 2, {{{16}, bytes}});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_EQ((*outputs)[0].bytes, bytes);
}

// A load of `raises`, which raises where a value is negative, with one declared sample.
LoadCommand RaisesLoad(int64_t rows, int64_t data_rows, uint64_t offset = 0) {
  LoadCommand command = OneToOne({4}, {4});
  command.warmup = {
      {.rows = rows,
       .count = 2,
       .inputs = {{.name = "INPUT__0", .dims = {4}, .data_offset = offset, .data_rows = data_rows}},
       .declared = true}};
  return command;
}

TEST(Worker, WarmUpDataIsTakenRowByRowInTurn) {
  const std::string data = Bytes(std::vector<float>{-1, -1, -1, -1, 1, 2, 3, 4, 5, 6, -7, 8});
  const auto error = [&](int64_t rows, int64_t data_rows, uint64_t offset) {
    WorkerHarness worker;
    const absl::StatusOr<LoadedReply> loaded =
        worker.Load(RaisesLoad(rows, data_rows, offset), TestModel("good/raises/1/model.pt"), data);
    return loaded.ok() ? loaded->status.ToString() : loaded.status().ToString();
  };
  EXPECT_EQ(error(/*rows=*/1, /*data_rows=*/1, /*offset=*/16), "OK");
  EXPECT_EQ(error(/*rows=*/3, /*data_rows=*/1, /*offset=*/16), "OK");
  EXPECT_EQ(error(/*rows=*/1, /*data_rows=*/2, /*offset=*/16), "OK");
  EXPECT_THAT(error(/*rows=*/2, /*data_rows=*/2, /*offset=*/16), HasSubstr("negative input"));
  EXPECT_THAT(error(/*rows=*/1, /*data_rows=*/1, /*offset=*/0), HasSubstr("negative input"));
  EXPECT_THAT(error(/*rows=*/1, /*data_rows=*/1, /*offset=*/36), HasSubstr("of which 16 at 36"));
  EXPECT_THAT(error(/*rows=*/1, /*data_rows=*/4, /*offset=*/0), HasSubstr("of which 64 at 0"));
}

TEST(Worker, RowsOfOneRowOfDataAreTriedToo) {
  WorkerHarness worker;
  LoadCommand command = RaisesLoad(/*rows=*/1, /*data_rows=*/1);
  command.check_batching = true;
  const auto loaded = worker.Load(command, TestModel("lifecycle/centred/1/model.pt"),
                                  Bytes(std::vector<float>{1, 2, 3, 4}));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  ASSERT_TRUE(loaded->status.ok()) << loaded->status;
  // By the data: the largest result of the second row alone, from 1 and 0.875 of [1,2,3,4].
  EXPECT_THAT(loaded->batching.ToString(), HasSubstr("rows get other results in a batch"));
  EXPECT_THAT(loaded->batching.ToString(), HasSubstr("lie 0.75 apart"));
}

TEST(Worker, DenormalNumbersAreFlushedWhereTheConfigSaysSo) {
  for (const bool flush : {false, true}) {
    WorkerHarness worker;
    LoadCommand command =
        MakeLoad(kScript, 8, {{"INPUT__0", kF, {3}}},
                 {{"OUTPUT__0", kF, {3}}, {"OUTPUT__1", kF, {3}}, {"OUTPUT__2", kF, {3}}});
    command.flush_denormals = flush;
    MustLoad(worker, command, "good/list_out/1/model.pt");  // |x|, x² and -x.
    const auto replica = MustFork(worker);
    ASSERT_NE(replica, nullptr);
    const auto outputs =
        worker.Run(*replica, 1, {{{3}, Bytes(std::vector<float>{1e-20f, 2, 3e-20f})}});
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    EXPECT_THAT(Values<float>((*outputs)[1].bytes),
                ElementsAre(flush ? 0 : 1e-20f * 1e-20f, 4, flush ? 0 : 3e-20f * 3e-20f));
  }
}

TEST(Worker, RandomNumbersAreTheSameForEveryRunWhereTheConfigSaysDeterministic) {
  for (const bool deterministic : {false, true}) {
    WorkerHarness worker;
    LoadCommand command = OneToOne({4}, {4});
    command.deterministic = deterministic;
    MustLoad(worker, command, "lifecycle/noisy/1/model.pt");
    const auto one = MustFork(worker, 0);
    const auto other = MustFork(worker, 1, /*threads=*/2);
    ASSERT_TRUE(one != nullptr && other != nullptr);
    std::vector<std::string> results;
    for (ReplicaEnd* const replica : {one.get(), one.get(), other.get()}) {
      const auto outputs = worker.Run(*replica, 2, {{{4}, Bytes(Ramp(8))}});
      ASSERT_TRUE(outputs.ok()) << outputs.status();
      results.push_back((*outputs)[0].bytes);
    }
    EXPECT_EQ(results[0] == results[1], deterministic);
    EXPECT_EQ(results[0], results[2]) << "Replicas begin with the same numbers in any case.";
  }
}

TEST(Worker, AGpuReplicaOfOpenDimsComparesItsResultsWithTheConfig) {
  WorkerHarness worker;
  LoadCommand command = OneToOne({-1}, {-1});
  command.outputs[0].data_type = DataType::kInt64;  // The model returns FP32.
  command.warmup.clear();
  command.on_gpu = true;
  MustLoad(worker, command, "good/dynamic/1/model.pt");
  const auto replica = worker.Fork({.mailbox = 0, .cpus = {}, .threads = 1, .device_index = 0});
  ASSERT_FALSE(replica.ok());
  EXPECT_THAT(
      std::string(replica.status().message()),
      AnyOf(HasSubstr("trying the model with inputs of any size"), HasSubstr("sees 0 GPUs")));
}

TEST(Worker, AnEmptyTensorRuns) {
  WorkerHarness worker;
  MustLoad(worker, OneToOne({-1}, {-1}), "good/dynamic/1/model.pt");
  const auto replica = MustFork(worker);
  ASSERT_NE(replica, nullptr);
  const auto outputs = worker.Run(*replica, 3, {{{0}, ""}});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT((*outputs)[0].dims, ElementsAre(3, 0));
}

TEST(Worker, EveryDataTypeCrossesUnchanged) {
  const std::vector<std::pair<DataType, std::string>> types = {
      {DataType::kBool, "bool"},   {DataType::kUint8, "uint8"}, {DataType::kInt8, "int8"},
      {DataType::kInt16, "int16"}, {DataType::kInt32, "int32"}, {DataType::kInt64, "int64"},
      {DataType::kFp16, "fp16"},   {DataType::kBf16, "bf16"},   {DataType::kFp32, "fp32"},
      {DataType::kFp64, "fp64"}};
  for (const auto& [type, name] : types) {
    SCOPED_TRACE(name);
    WorkerHarness worker;
    MustLoad(worker, OneToOne({3}, {3}, kScript, type),
             absl::StrCat("good/dtypes_", name, "/1/model.pt"));
    const auto replica = MustFork(worker);
    ASSERT_NE(replica, nullptr);
    std::string bytes(6 * ElementSize(type), '\1');
    bytes[0] = '\0';
    const auto outputs = worker.Run(*replica, 2, {{{3}, bytes}});
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    EXPECT_EQ((*outputs)[0].bytes, bytes);
  }
}

TEST(Worker, InputsGoToTheArgumentsOfTheirNames) {
  WorkerHarness worker;
  MustLoad(worker,
           MakeLoad(kScript, 8, {{"ids", DataType::kInt64, {2}}, {"values", kF, {4}}},
                    {{"shifted", kF, {4}}, {"doubled", DataType::kInt64, {2}}}),
           "good/two_in_two_out/1/model.pt");
  const auto replica = MustFork(worker);
  ASSERT_NE(replica, nullptr);
  const auto outputs =
      worker.Run(*replica, 1, {{{2}, Bytes<int64_t>({10, 20})}, {{4}, Bytes(Ramp(4))}});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT(Values<float>((*outputs)[0].bytes), ElementsAre(30, 31, 32, 33));
  EXPECT_THAT(Values<int64_t>((*outputs)[1].bytes), ElementsAre(20, 40));
}

TEST(Worker, EntriesOfADictGoToTheOutputsOfTheirNames) {
  WorkerHarness worker;
  MustLoad(worker,
           MakeLoad(kScript, 8, {{"x", kF, {6}}}, {{"sorted", kF, {6}}, {"total", kF, {1}}}),
           "good/dict_out/1/model.pt");
  const auto replica = MustFork(worker);
  ASSERT_NE(replica, nullptr);
  const auto outputs = worker.Run(*replica, 1, {{{6}, Bytes<float>({3, 1, 2, 6, 5, 4})}});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT(Values<float>((*outputs)[0].bytes), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_THAT(Values<float>((*outputs)[1].bytes), ElementsAre(21));
}

TEST(Worker, ElementsOfAListGoToTheOutputsOfTheirNumbers) {
  WorkerHarness worker;
  MustLoad(worker,
           MakeLoad(kScript, 8, {{"INPUT__0", kF, {3}}},
                    {{"OUTPUT__2", kF, {3}}, {"OUTPUT__0", kF, {3}}, {"OUTPUT__1", kF, {3}}}),
           "good/list_out/1/model.pt");
  const auto replica = MustFork(worker);
  ASSERT_NE(replica, nullptr);
  const auto outputs = worker.Run(*replica, 1, {{{3}, Bytes<float>({-1, 2, -3})}});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT(Values<float>((*outputs)[0].bytes), ElementsAre(1, -2, 3));
  EXPECT_THAT(Values<float>((*outputs)[1].bytes), ElementsAre(1, 2, 3));
  EXPECT_THAT(Values<float>((*outputs)[2].bytes), ElementsAre(1, 4, 9));
}

TEST(Worker, AnOutputThatIsNotContiguousIsPacked) {
  WorkerHarness worker;
  MustLoad(worker, MakeLoad(kScript, 0, {{"matrix", kF, {2, 3}}}, {{"transposed", kF, {3, 2}}}),
           "good/no_batch/1/model.pt");
  const auto replica = MustFork(worker);
  ASSERT_NE(replica, nullptr);
  const auto outputs = worker.Run(*replica, 1, {{{2, 3}, Bytes(Ramp(6))}});
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT((*outputs)[0].dims, ElementsAre(3, 2));
  EXPECT_THAT(Values<float>((*outputs)[0].bytes), ElementsAre(0, 3, 1, 4, 2, 5));
}

TEST(Worker, AnyLengthOfADynamicDimensionRuns) {
  WorkerHarness worker;
  MustLoad(worker, OneToOne({-1}, {-1}), "good/dynamic/1/model.pt");
  const auto replica = MustFork(worker);
  ASSERT_NE(replica, nullptr);
  for (const int64_t length : {4, 1, 7}) {
    const std::vector<float> ones(static_cast<size_t>(length), 1);
    const auto outputs = worker.Run(*replica, 1, {{{length}, Bytes(ones)}});
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    EXPECT_EQ(Values<float>((*outputs)[0].bytes).back(), static_cast<float>(length));
  }
}

// The two packages hold the same weights; one has a team of two threads compiled in.
TEST(Worker, PackagesAgreeWhateverTheirThreads) {
  const std::string input = Bytes(Ramp(8 * 64, 0.01f));
  std::vector<std::vector<float>> results;
  for (const std::string name : {"mlp_pt2", "mlp_pt2_threads2"}) {
    WorkerHarness worker;
    MustLoad(worker, OneToOne({64}, {10}, kPackage), absl::StrCat("good/", name, "/1/model.pt2"));
    EXPECT_EQ(ThreadsOf(worker.template_pid()), 1) << name;
    for (const int threads : {1, 2}) {
      const auto replica = MustFork(worker, 0, threads);
      ASSERT_NE(replica, nullptr);
      const auto outputs = worker.Run(*replica, 8, {{{64}, input}});
      ASSERT_TRUE(outputs.ok()) << outputs.status();
      EXPECT_THAT((*outputs)[0].dims, ElementsAre(8, 10));
      results.push_back(Values<float>((*outputs)[0].bytes));
      kill(replica->pid(), SIGKILL);
      EXPECT_TRUE(replica->WaitUntilDead());
    }
  }
  for (const std::vector<float>& result : results) {
    EXPECT_THAT(result, ::testing::Pointwise(::testing::FloatNear(1e-4f), results[0]));
  }
}

// What `model` makes of some rows in a mode.
std::vector<float> RunInMode(const std::string& model, LoadCommand command, ExecutionMode mode,
                             int64_t rows, const std::vector<float>& values) {
  WorkerHarness worker;
  command.mode = mode;
  MustLoad(worker, command, model);
  const auto replica = MustFork(worker);
  if (replica == nullptr) return {};
  const auto outputs =
      worker.Run(*replica, rows, {{.dims = command.inputs[0].dims, .bytes = Bytes(values)}});
  EXPECT_TRUE(outputs.ok()) << outputs.status();
  return outputs.ok() ? Values<float>((*outputs)[0].bytes) : std::vector<float>();
}

float LargestOf(const std::vector<float>& values) {
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

TEST(Worker, EveryModeComputesWhatThePlainOneDoes) {
  const struct {
    const char* model;
    LoadCommand command;
  } nets[] = {{"good/conv_net/1/model.pt", OneToOne({3, 16, 16}, {4})},
              {"good/mlp_pt/1/model.pt", OneToOne({64}, {10})}};
  for (const auto& [model, command] : nets) {
    SCOPED_TRACE(model);
    constexpr int64_t kRows = 3;
    const auto elements = static_cast<size_t>(kRows * *ElementCount(command.inputs[0].dims));
    std::vector<float> values = Ramp(elements, 0.37F);
    for (float& value : values) value = std::sin(value);
    const std::vector<float> plain = RunInMode(model, command, {}, kRows, values);
    ASSERT_GT(LargestOf(plain), 0.01F);
    for (const bool bfloat16 : {false, true}) {
      for (const bool channels_last : {false, true}) {
        SCOPED_TRACE(absl::StrCat("bfloat16 ", bfloat16, ", channels last ", channels_last));
        const std::vector<float> other = RunInMode(
            model, command, {.bfloat16 = bfloat16, .channels_last = channels_last}, kRows, values);
        EXPECT_THAT(other,
                    testing::Pointwise(
                        testing::FloatNear((bfloat16 ? 3e-2F : 1e-4F) * LargestOf(plain)), plain));
        if (bfloat16) {
          EXPECT_NE(other, plain) << "BF16 isn't that precise";
        }
      }
    }
  }
}

TEST(Worker, AModeIsWhatTheModelSees) {
  const LoadCommand command =
      MakeLoad(kScript, 8, {{"INPUT__0", kF, {3, 6, 8}}}, {{"OUTPUT__0", DataType::kInt32, {2}}});
  for (const bool bfloat16 : {false, true}) {
    for (const bool channels_last : {false, true}) {
      WorkerHarness worker;
      LoadCommand in_mode = command;
      in_mode.mode = {.bfloat16 = bfloat16, .channels_last = channels_last};
      MustLoad(worker, in_mode, "good/how_it_runs/1/model.pt");
      const auto replica = MustFork(worker);
      ASSERT_NE(replica, nullptr);
      const auto outputs = worker.Run(*replica, 2, {{{3, 6, 8}, std::string(2 * 144 * 4, '\0')}});
      ASSERT_TRUE(outputs.ok()) << outputs.status();
      const int stride = channels_last ? 1 : 48;
      EXPECT_THAT(Values<int32_t>((*outputs)[0].bytes),
                  ElementsAre(stride, bfloat16, stride, bfloat16));
    }
  }
}

TEST(Worker, AModelThatComputesSomethingElseInBfloat16IsRefusedInIt) {
  LoadCommand command = OneToOne({4}, {4});
  EXPECT_TRUE(LoadError(command, TestModel("good/only_precise/1/model.pt")).ok());
  command.mode.bfloat16 = true;
  EXPECT_THAT(std::string(LoadError(command, TestModel("good/only_precise/1/model.pt")).message()),
              AllOf(HasSubstr("take bfloat16 away"), HasSubstr("output 'OUTPUT__0': values that")));
}

TEST(Worker, AModelThatComputesSomethingElseInChannelsLastIsRefusedInIt) {
  LoadCommand command = OneToOne({2, 3, 4}, {24});
  for (const auto& [model, reason] :
       {std::pair{"good/flattened_by_view/1/model.pt", "it raises in channels_last, but not"},
        {"good/flattened_as_it_lies/1/model.pt", "its results in channels_last are other ones"}}) {
    SCOPED_TRACE(model);
    command.mode = {};
    EXPECT_TRUE(LoadError(command, TestModel(model)).ok());
    command.mode.channels_last = true;
    const absl::Status refused = LoadError(command, TestModel(model));
    EXPECT_TRUE(absl::IsFailedPrecondition(refused)) << refused;
    EXPECT_THAT(std::string(refused.message()),
                AllOf(HasSubstr("can't compute in channels_last, so take channels_last away"),
                      HasSubstr(reason)));
  }
}

TEST(Worker, ATemplateWhoseModelStartsThreadsForksAnImageWithoutThem) {
  WorkerHarness worker;
  const auto loaded = worker.Load(OneToOne({16}, {16}), TestModel("good/fork_model/1/model.pt"));
  ASSERT_TRUE(loaded.ok() && loaded->status.ok()) << loaded.status() << loaded->status;
  EXPECT_THAT(loaded->notes, Contains(HasSubstr("each replica warms itself")));
  EXPECT_EQ(ThreadsOf(worker.template_pid()), 1);
  EXPECT_EQ(ProcFile(worker.template_pid(), "comm"), "template");
  const auto first = MustFork(worker, 0);
  const auto second = MustFork(worker, 1);
  ASSERT_TRUE(first && second);
  const std::string input = Bytes(Ramp(32));
  const auto a = worker.Run(*first, 2, {{{16}, input}});
  const auto b = worker.Run(*second, 2, {{{16}, input}});
  ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
  EXPECT_EQ((*a)[0].bytes, (*b)[0].bytes);
}

TEST(Worker, ReplicasAreNamedPinnedChildrenOfTheServer) {
  WorkerHarness worker;
  MustLoad(worker, OneToOne({16}, {16}), "good/identity/1/model.pt");
  EXPECT_EQ(ProcFile(worker.template_pid(), "comm"), "template");
  EXPECT_EQ(ThreadsOf(worker.template_pid()), 1);
  cpu_set_t allowed;
  ASSERT_EQ(sched_getaffinity(0, sizeof(allowed), &allowed), 0);
  int core = 0;
  while (!CPU_ISSET(core, &allowed)) ++core;
  const auto replica = MustFork(worker, 0, 1, {core});
  ASSERT_NE(replica, nullptr);
  EXPECT_EQ(ProcFile(replica->pid(), "comm"), "replica");
  const std::string status = ProcFile(replica->pid(), "status");
  EXPECT_THAT(status, AllOf(HasSubstr(absl::StrCat("\nPPid:\t", getpid(), "\n")),
                            HasSubstr(absl::StrCat("\nCpus_allowed_list:\t", core, "\n"))));
  EXPECT_EQ(ProcFile(replica->pid(), "oom_score_adj"), "500");
}

TEST(Worker, TwoReplicasComputeAtTheSameTime) {
  WorkerHarness worker;
  MustLoad(worker, SlowLoad(), "good/slow/1/model.pt");
  const auto first = MustFork(worker, 0);
  const auto second = MustFork(worker, 1);
  ASSERT_TRUE(first && second);
  EXPECT_NE(first->pid(), second->pid());
  worker.Write(0, 1, {{{1}, Bytes<int32_t>({1000000})}});
  worker.Write(1, 2, {{{1}, Bytes<int32_t>({1, 2})}});
  first->Post(0);  // Runs for minutes.
  second->Post(1);
  ASSERT_TRUE(second->WaitUntilCompleted().ok());
  const auto outputs = worker.Read(1);
  ASSERT_TRUE(outputs.ok()) << outputs.status();
  EXPECT_THAT(Values<int32_t>((*outputs)[0].bytes), ElementsAre(1, 2));
  kill(first->pid(), SIGKILL);
  EXPECT_TRUE(absl::IsUnavailable(first->WaitUntilCompleted()));
  EXPECT_TRUE(first->WaitUntilDead());
}

TEST(Worker, ADeadReplicaIsReplacedByAFork) {
  WorkerHarness worker;
  MustLoad(worker,
           MakeLoad(kScript, 8, {{"crash", DataType::kInt32, {1}}},
                    {{"survived", DataType::kInt32, {1}}}),
           "good/crashes/1/model.pt");
  for (int round = 0; round < 3; ++round) {
    const auto replica = MustFork(worker);
    ASSERT_NE(replica, nullptr);
    EXPECT_TRUE(worker.Run(*replica, 1, {{{1}, Bytes<int32_t>({0})}}).ok());
    const auto crashed = worker.Run(*replica, 1, {{{1}, Bytes<int32_t>({1})}});
    EXPECT_TRUE(absl::IsUnavailable(crashed.status())) << crashed.status();
    EXPECT_TRUE(replica->WaitUntilDead());
    int status = 0;
    EXPECT_EQ(waitpid(replica->pid(), &status, 0), replica->pid());
    EXPECT_TRUE(WIFSIGNALED(status));
  }
}

TEST(Worker, WhatTheModelRaisesIsTheBatchsError) {
  WorkerHarness worker;
  MustLoad(worker, OneToOne({4}, {4}), "good/raises/1/model.pt");
  const auto replica = MustFork(worker);
  ASSERT_NE(replica, nullptr);
  const auto raised = worker.Run(*replica, 1, {{{4}, Bytes<float>({1, 1, -1, 1})}});
  EXPECT_EQ(raised.status().code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(raised.status().message()), HasSubstr("negative input"));
  EXPECT_THAT(std::string(raised.status().message()), ::testing::Not(HasSubstr("frame #")));
  const auto next = worker.Run(*replica, 1, {{{4}, Bytes<float>({1, 4, 9, 16})}});
  ASSERT_TRUE(next.ok()) << next.status();
  EXPECT_THAT(Values<float>((*next)[0].bytes), ElementsAre(1, 2, 3, 4));
}

TEST(Worker, OnlyDeclaredWarmupThatRaisesIsALoadError) {
  // An embedding takes no floats.
  LoadCommand command = MakeLoad(kScript, 8, {{"ids", kF, {5}}}, {{"vectors", kF, {5, 4}}});
  const std::string file = TestModel("good/int_embedding/1/model.pt");
  WorkerHarness worker;
  const auto invented = worker.Load(command, file);
  ASSERT_TRUE(invented.ok()) << invented.status();
  EXPECT_TRUE(invented->status.ok()) << invented->status;
  EXPECT_THAT(invented->notes, Contains(AllOf(HasSubstr("inconclusive"), HasSubstr("Float"))));
  command.warmup[0].declared = true;
  EXPECT_THAT(std::string(LoadError(command, file).message()),
              AllOf(HasSubstr("warming up with 1 rows"), HasSubstr("Float")));
}

TEST(Worker, OutputsThatDontFitTheBufferAreRefusedWithBothSizes) {
  WorkerHarness worker(/*buffer_bytes=*/4096);
  MustLoad(worker, OneToOne({-1}, {-1}), "good/dynamic/1/model.pt");
  const auto replica = MustFork(worker);
  ASSERT_NE(replica, nullptr);
  const auto result = worker.Run(*replica, 1, {{{600}, std::string(2400, '\0')}});
  EXPECT_EQ(result.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(result.status().message()),
              HasSubstr("the outputs need 2400 bytes, but the batch buffer has 1664 left"));
}

TEST(Worker, AHeaderThatDoesntFitTheConfigNeverReachesTheModel) {
  WorkerHarness worker;
  MustLoad(worker, OneToOne({64}, {10}, kPackage), "good/mlp_pt2/1/model.pt2");
  const auto replica = MustFork(worker);
  ASSERT_NE(replica, nullptr);
  const auto run_with = [&](auto change) {
    worker.Write(0, 2, {{{64}, std::string(2 * 64 * 4, '\0')}});
    change(*reinterpret_cast<BatchHeader*>(worker.memory().buffer_begin(0)));
    replica->Post(0);
    EXPECT_TRUE(replica->WaitUntilCompleted().ok());
    return worker.Read(0).status();
  };
  EXPECT_TRUE(run_with([](BatchHeader&) {}).ok());
  const std::vector<absl::Status> refused = {
      run_with([](BatchHeader& h) { h.rows = 3; }),
      run_with([](BatchHeader& h) { h.rows = 9; }),
      run_with([](BatchHeader& h) { h.input_count = 2; }),
      run_with([](BatchHeader& h) { h.outputs_begin = ~uint64_t{0}; }),
      run_with([](BatchHeader& h) { h.inputs[0].data_type = 12; }),
      run_with([](BatchHeader& h) { h.inputs[0].rank = 100; }),
      run_with([](BatchHeader& h) { h.inputs[0].dims[1] = 65; }),
      run_with([](BatchHeader& h) { h.inputs[0].offset = ~uint64_t{63}; }),
      run_with([](BatchHeader& h) { h.inputs[0].bytes += 4; })};
  for (const absl::Status& status : refused) {
    EXPECT_EQ(status.code(), absl::StatusCode::kInternal) << status;
  }
  EXPECT_TRUE(run_with([](BatchHeader&) {}).ok());
}

TEST(Worker, AWrongConfigIsALoadErrorThatSaysWhatTheModelReturns) {
  const auto message = [](const LoadCommand& command, const std::string& model) {
    const absl::Status status = LoadError(command, TestModel(model));
    EXPECT_FALSE(status.ok());
    return std::string(status.message());
  };
  EXPECT_THAT(message(OneToOne({4}, {8}), "bad/wrong_config/1/model.pt"),
              HasSubstr("returns FP32 [1,4], but the config declares FP32 [-1,8]"));
  EXPECT_THAT(message(OneToOne({3}, {3}), "bad/wrong_count/1/model.pt"),
              AllOf(HasSubstr("declares 1 outputs, but the model returns 3"),
                    HasSubstr("FP32 [1,3], FP32 [1,3], FP32 [1,3]")));
  EXPECT_THAT(message(OneToOne({4}, {4}), "bad/wrong_rows/1/model.pt"),
              HasSubstr("its first dimension is 1, but the batch has 8 rows"));
  EXPECT_THAT(
      message(MakeLoad(kScript, 8, {{"x", kF, {6}}}, {{"sorted", kF, {6}}, {"sum", kF, {1}}}),
              "good/dict_out/1/model.pt"),
      AllOf(HasSubstr("'sum' is no tensor of the model's"), HasSubstr("'total'")));
  EXPECT_THAT(message(MakeLoad(kScript, 8, {{"values", kF, {4}}}, {{"OUTPUT__0", kF, {4}}}),
                      "good/two_in_two_out/1/model.pt"),
              HasSubstr("forward's argument 'ids' has no default value"));
  EXPECT_THAT(message(OneToOne({64}, {10}, kPackage), "good/identity/1/model.pt"),
              HasSubstr("could not be read as an AOTInductor package"));
  EXPECT_THAT(message(OneToOne({65}, {10}, kPackage), "good/mlp_pt2/1/model.pt2"),
              HasSubstr("dim value at 1, expected: 64, but got: 65"));
  EXPECT_THAT(message(OneToOne({64}, {10}, kPackage, DataType::kInt32), "good/mlp_pt2/1/model.pt2"),
              HasSubstr("unmatched dtype"));
  LoadCommand larger_batch = OneToOne({64}, {10}, kPackage);
  larger_batch.max_batch_size = larger_batch.warmup[1].rows = 9;
  EXPECT_THAT(message(larger_batch, "good/mlp_pt2/1/model.pt2"),
              HasSubstr("too large at 0, expected to be <= 8, but got: 9"));
  EXPECT_THAT(message(OneToOne({4}, {4}), "bad/broken/1/model.pt"),
              HasSubstr("could not be read as TorchScript"));
}

TEST(Worker, APackageForAnotherInstructionSetIsRefused) {
  std::ifstream original(TestModel("good/mlp_pt2/1/model.pt2"), std::ios::binary);
  std::string bytes{std::istreambuf_iterator<char>(original), std::istreambuf_iterator<char>()};
  const std::string key = "\"AOTI_CPU_ISA\": \"";
  size_t changed = 0;
  for (size_t at = bytes.find(key); at != std::string::npos; at = bytes.find(key, at + 1)) {
    bytes[at + key.size()] = 'Z';
    ++changed;
  }
  ASSERT_GT(changed, 0u);
  const std::string path = absl::StrCat(::testing::TempDir(), "/foreign.pt2");
  std::ofstream(path, std::ios::binary) << bytes;
  const absl::Status status = LoadError(OneToOne({64}, {10}, kPackage), path);
  std::filesystem::remove(path);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("was compiled for the CPU instruction set Z"),
                    HasSubstr("this machine lacks z")));
}

// A process that plays the server, so that the test can kill it.
void PlayServer(int to_test) {
  WorkerHarness worker;
  MustLoad(worker, SlowLoad(), "good/slow/1/model.pt");
  const auto idle = MustFork(worker, 0);
  const auto busy = MustFork(worker, 1);
  worker.Write(0, 1, {{{1}, Bytes<int32_t>({1000000})}});
  busy->Post(0);
  const int pids[] = {worker.template_pid(), idle->pid(), busy->pid()};
  if (write(to_test, pids, sizeof(pids)) == sizeof(pids)) pause();
}

TEST(Worker, TheServersDeathEndsTemplateAndReplicasAlsoWhileTheyCompute) {
  int fds[2];
  ASSERT_EQ(pipe(fds), 0);
  const pid_t server = fork();
  if (server == 0) {
    PlayServer(fds[1]);
    _exit(1);
  }
  close(fds[1]);
  int pids[3];
  ASSERT_EQ(read(fds[0], pids, sizeof(pids)), static_cast<ssize_t>(sizeof(pids)));
  close(fds[0]);
  std::vector<UniqueFd> processes;
  for (const int pid : pids) {
    processes.emplace_back(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
    ASSERT_TRUE(processes.back().valid());
  }
  const absl::Time killed = Clock::Real().Now();
  kill(server, SIGKILL);
  for (const UniqueFd& process : processes) {
    pollfd ended = {.fd = process.get(), .events = POLLIN, .revents = 0};
    EXPECT_EQ(poll(&ended, 1, 20000), 1);
  }
  std::printf("All of them ended within %.0f ms.\n",
              absl::ToDoubleMilliseconds(Clock::Real().Now() - killed));
  waitpid(server, nullptr, 0);
}

TEST(Worker, DescribesItselfAndItsVersion) {
  const auto output_of = [](const std::string& argument) {
    std::string text;
    FILE* const output = popen(absl::StrCat(MILLRACE_WORKER_PROGRAM, " ", argument).c_str(), "r");
    char piece[256];
    while (std::fgets(piece, sizeof(piece), output)) text += piece;
    EXPECT_EQ(pclose(output), 0);
    return text;
  };
  const auto description = FromJson<WorkerDescription>(output_of("--describe"));
  ASSERT_TRUE(description.ok()) << description.status();
  EXPECT_THAT(output_of("--version"), HasSubstr(description->libtorch_version));
}

}  // namespace
}  // namespace millrace
