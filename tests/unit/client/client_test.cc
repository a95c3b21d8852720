// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "client/client.h"

#include <unistd.h>

#include <filesystem>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/unit/client/fake_server.h"

namespace millrace {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

std::unique_ptr<Client> ConnectTo(const FakeServer& server, ClientOptions options = {}) {
  options.retry.initial_backoff = absl::Milliseconds(1);
  auto client = Client::Connect(server.address(), std::move(options));
  EXPECT_TRUE(client.ok()) << client.status();
  return *std::move(client);
}

Request EchoRequest() {
  return {.model = "echo",
          .id = "seven",
          .parameters = {{"custom", 2.5}, {"flag", true}, {"text", std::string("hi")}},
          .inputs = {Tensor::Of<float>("INPUT__0", {1, 2}, {1.5f, -2.0f})}};
}

TEST(Client, InferReturnsTheModelsOutputs) {
  FakeServer server;
  const auto response = ConnectTo(server)->Infer(EchoRequest());
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->model, "echo");
  EXPECT_EQ(response->version, "1");
  EXPECT_EQ(response->id, "seven");
  EXPECT_EQ(response->parameters, EchoRequest().parameters);
  const auto output = response->Output("OUTPUT__0");
  ASSERT_TRUE(output.ok()) << output.status();
  EXPECT_THAT((*output)->shape, ElementsAre(1, 2));
  EXPECT_THAT(*(*output)->Values<float>(), ElementsAre(1.5f, -2.0f));
  EXPECT_THAT(response->Output("nope").status().message(), HasSubstr("it returned: OUTPUT__0"));
}

TEST(Client, ConnectsOverAUnixSocket) {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("millrace-client-" + std::to_string(getpid())))
          .string();
  {
    FakeServer server("unix:" + path);
    EXPECT_TRUE(ConnectTo(server)->Infer(EchoRequest()).ok());
  }
  std::filesystem::remove(path);
}

TEST(Client, ConnectRefusesWhatIsNoAddress) {
  for (const char* address :
       {"localhost", ":8001", "host:", "host:http", "http://host:80", "unix:"}) {
    const absl::Status status = Client::Connect(address).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << address;
    EXPECT_THAT(status.message(), HasSubstr("write host:port")) << address;
  }
}

TEST(Client, ConnectSaysWhereNobodyAnswered) {
  const absl::Status status =
      Client::Connect("unix:/nowhere/socket", {.connect_timeout = absl::Milliseconds(50)}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status.message(), HasSubstr("no server answered at unix:/nowhere/socket"));
}

TEST(Client, InferRetriesUnavailableAndResourceExhausted) {
  FakeServer server;
  const auto client = ConnectTo(server);
  server.RefuseNext(
      {{grpc::StatusCode::UNAVAILABLE, {}}, {grpc::StatusCode::RESOURCE_EXHAUSTED, {}}});
  EXPECT_TRUE(client->Infer(EchoRequest()).ok());
  EXPECT_EQ(server.unary_calls(), 3);
}

TEST(Client, InferDoesNotRetryOtherErrors) {
  FakeServer server;
  const auto client = ConnectTo(server);
  server.RefuseNext({{grpc::StatusCode::INTERNAL, {}}});
  EXPECT_EQ(client->Infer(EchoRequest()).status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(server.unary_calls(), 1);
}

TEST(Client, InferGivesUpAfterItsAttempts) {
  FakeServer server;
  const auto client = ConnectTo(server, {.retry = {.max_attempts = 2}});
  server.RefuseNext({3, {grpc::StatusCode::UNAVAILABLE, {}}});
  EXPECT_EQ(client->Infer(EchoRequest()).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(server.unary_calls(), 2);
}

TEST(Client, InferWaitsAsLongAsTheServersPushbackSays) {
  FakeServer server;
  const auto client = ConnectTo(server);
  server.RefuseNext({{grpc::StatusCode::RESOURCE_EXHAUSTED, "80"}});
  const absl::Time start = absl::Now();
  EXPECT_TRUE(client->Infer(EchoRequest()).ok());
  EXPECT_GE(absl::Now() - start, absl::Milliseconds(80));
  server.RefuseNext({{grpc::StatusCode::RESOURCE_EXHAUSTED, "-1"}});
  EXPECT_EQ(client->Infer(EchoRequest()).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST(Client, InferFindsARestartedServer) {
  auto server = std::make_unique<FakeServer>();
  const std::string address = server->address();
  const auto client = ConnectTo(*server, {.retry = {.max_attempts = 20}});
  server.reset();
  std::thread restart([&] { server = std::make_unique<FakeServer>(address); });
  EXPECT_TRUE(client->Infer(EchoRequest()).ok());
  restart.join();
}

TEST(Client, InferEndsAtItsDeadlineThroughAllAttempts) {
  FakeServer server;
  const auto client = ConnectTo(server);
  Request request = EchoRequest();
  request.model = "hold";
  EXPECT_EQ(client->Infer(request, {.timeout = absl::Milliseconds(30)}).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  server.RefuseNext({{grpc::StatusCode::UNAVAILABLE, "60000"}});
  EXPECT_EQ(client->Infer(request, {.timeout = absl::Seconds(5)}).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST(Client, MetadataOfClientAndCallIsSent) {
  FakeServer server;
  const auto client = ConnectTo(server, {.metadata = {{"tenant", "a"}}});
  ASSERT_TRUE(client->Infer(EchoRequest(), {.metadata = {{"trace", "b"}}}).ok());
  EXPECT_THAT(server.last_metadata(),
              testing::IsSupersetOf({Pair("tenant", "a"), Pair("trace", "b")}));
  EXPECT_THAT(client->Infer(EchoRequest(), {.metadata = {{"Bad Key", "b"}}}).status().message(),
              HasSubstr("metadata key 'Bad Key'"));
  EXPECT_THAT(client->Infer(EchoRequest(), {.metadata = {{"key", "a\nb"}}}).status().message(),
              HasSubstr("'key' is not printable ASCII"));
}

TEST(Client, IsServingTellsTheServerAndEachModel) {
  FakeServer server;
  server.SetServing("sick", false);
  const auto client = ConnectTo(server);
  EXPECT_TRUE(*client->IsServing(""));
  EXPECT_FALSE(*client->IsServing("sick"));
  EXPECT_EQ(client->IsServing("unknown").status().code(), absl::StatusCode::kNotFound);
}

TEST(Client, ListsAndDescribesModels) {
  FakeServer server;
  const auto client = ConnectTo(server);
  const auto models = client->ListModels();
  ASSERT_TRUE(models.ok()) << models.status();
  ASSERT_EQ(models->size(), 3u);
  EXPECT_EQ((*models)[2].name, "broken");
  EXPECT_EQ((*models)[2].state, "UNAVAILABLE");
  EXPECT_THAT((*models)[2].reason, HasSubstr("unknown field"));
  const auto metadata = client->DescribeModel("echo");
  ASSERT_TRUE(metadata.ok()) << metadata.status();
  ASSERT_EQ(metadata->inputs.size(), 1u);
  EXPECT_EQ(metadata->inputs[0].datatype, "FP32");
  EXPECT_THAT(metadata->inputs[0].shape, ElementsAre(-1, 4));
  EXPECT_EQ(client->DescribeModel("nope").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace millrace
