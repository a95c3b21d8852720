// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// Health and reflection on a real server with one completion queue and one I/O thread, asked
// through synchronous stubs over the loopback.
#include <atomic>
#include <chrono>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "gmock/gmock.h"
#include "grpcpp/create_channel.h"
#include "grpcpp/security/credentials.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "gtest/gtest.h"
#include "proto/grpc_service.grpc.pb.h"
#include "proto/health.grpc.pb.h"
#include "proto/reflection_v1.grpc.pb.h"
#include "proto/reflection_v1alpha.grpc.pb.h"
#include "server/base/clock.h"
#include "server/base/thread.h"
#include "server/rpc/call_gate.h"
#include "server/rpc/completion_tag.h"
#include "server/rpc/health_service.h"
#include "server/rpc/reflection_service.h"

namespace millrace {
namespace {

namespace v1 = grpc::reflection::v1;
namespace v1alpha = grpc::reflection::v1alpha;
using grpc::health::v1::Health;
using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Before the first gRPC object, as every program that uses gRPC does it.
[[maybe_unused]] const bool kMutexMode = [] {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  return true;
}();

constexpr int kMany = 60;  // Concurrent streams.
constexpr size_t kLimit = 100;

std::chrono::system_clock::time_point In(std::chrono::seconds seconds) {
  return std::chrono::system_clock::now() + seconds;
}

long ThreadsOfThisProcess() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return std::distance(begin(tasks), end(tasks));
}

class ControlServices : public ::testing::Test {
 protected:
  ControlServices() {
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port);
    builder.RegisterService(health_.service());
    builder.RegisterService(reflection_.v1());
    builder.RegisterService(reflection_.v1alpha());
    queue_ = builder.AddCompletionQueue();
    server_ = builder.BuildAndStart();
    health_.Start(queue_.get());
    reflection_.Start(queue_.get());
    pending_accepts_ = gate_.live();
    io_.emplace("io", [this] {
      void* tag = nullptr;
      bool ok = false;
      while (queue_->Next(&tag, &ok)) static_cast<CompletionTag*>(tag)->Complete(ok);
    });
    const std::string address = "127.0.0.1:" + std::to_string(port);
    channel_ = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
    health_stub_ = Health::NewStub(channel_);
    v1_stub_ = v1::ServerReflection::NewStub(channel_);
    v1alpha_stub_ = v1alpha::ServerReflection::NewStub(channel_);
  }

  ~ControlServices() override { Stop(); }

  // In the order of a server. Cancels what is still open after `grace`.
  void Stop(std::chrono::seconds grace = std::chrono::seconds(20)) {
    if (!io_) return;
    server_->Shutdown(In(grace));
    EXPECT_TRUE(gate_.Close(Clock::Real(), Clock::Real().Now() + absl::Seconds(60)));
    queue_->Shutdown();
    io_.reset();
  }

  void ShutServicesDown() {
    health_.Shutdown();
    reflection_.Shutdown();
  }

  // Waits until only accepts are left; the test's own time limit ends a wait that is in vain.
  void WaitUntilNoCallIsOpen() {
    while (gate_.live() > pending_accepts_) Check("");
  }

  grpc::Status Check(const std::string& name, HealthCheckResponse* response) {
    grpc::ClientContext context;
    HealthCheckRequest request;
    request.set_service(name);
    return health_stub_->Check(&context, request, response);
  }

  HealthCheckResponse::ServingStatus Check(const std::string& name) {
    HealthCheckResponse response;
    const grpc::Status status = Check(name, &response);
    return status.ok() ? response.status() : HealthCheckResponse::SERVICE_UNKNOWN;
  }

  struct WatchCall {
    WatchCall(ControlServices& test, const std::string& name) {
      HealthCheckRequest request;
      request.set_service(name);
      reader = test.health_stub_->Watch(&context, request);
    }

    // The next status; nullopt at the end.
    std::optional<HealthCheckResponse::ServingStatus> Read() {
      HealthCheckResponse response;
      if (!reader->Read(&response)) return std::nullopt;
      return response.status();
    }

    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<HealthCheckResponse>> reader;
  };

  template <typename Request, typename Response>
  struct ReflectionCall {
    template <typename Stub>
    explicit ReflectionCall(Stub& stub) : stream(stub.ServerReflectionInfo(&context)) {}

    // The names of the services; empty when the stream is over.
    std::vector<std::string> List() {
      Request request;
      request.set_list_services("");
      Response response;
      std::vector<std::string> names;
      if (!stream->Write(request) || !stream->Read(&response)) return names;
      for (const auto& service : response.list_services_response().service()) {
        names.push_back(service.name());
      }
      return names;
    }

    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReaderWriter<Request, Response>> stream;
  };
  using V1Call = ReflectionCall<v1::ServerReflectionRequest, v1::ServerReflectionResponse>;
  using V1AlphaCall =
      ReflectionCall<v1alpha::ServerReflectionRequest, v1alpha::ServerReflectionResponse>;

  CallGate gate_;
  HealthService health_{gate_, kLimit};
  ReflectionService reflection_{gate_, {"grpc.health.v1.Health", "other.Service"}, kLimit};
  std::unique_ptr<grpc::ServerCompletionQueue> queue_;
  std::unique_ptr<grpc::Server> server_;
  int pending_accepts_ = 0;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<Health::Stub> health_stub_;
  std::unique_ptr<v1::ServerReflection::Stub> v1_stub_;
  std::unique_ptr<v1alpha::ServerReflection::Stub> v1alpha_stub_;
  std::optional<Thread> io_;
};

TEST_F(ControlServices, CheckAnswersForEachNameApart) {
  health_.SetStatus("", true);
  health_.SetStatus("resnet", false);
  EXPECT_EQ(Check(""), HealthCheckResponse::SERVING);
  EXPECT_EQ(Check("resnet"), HealthCheckResponse::NOT_SERVING);
  health_.SetStatus("resnet", true);
  EXPECT_EQ(Check("resnet"), HealthCheckResponse::SERVING);
}

TEST_F(ControlServices, CheckOfAnUnknownNameIsNotFound) {
  HealthCheckResponse response;
  const grpc::Status status = Check("nobody", &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_THAT(status.error_message(), HasSubstr("unknown service 'nobody'"));
}

TEST_F(ControlServices, AWatchTellsTheStatusAtOnceAndEveryChange) {
  health_.SetStatus("resnet", true);
  WatchCall watch(*this, "resnet");
  EXPECT_EQ(watch.Read(), HealthCheckResponse::SERVING);
  health_.SetStatus("other", true);
  health_.SetStatus("resnet", false);
  EXPECT_EQ(watch.Read(), HealthCheckResponse::NOT_SERVING);
  health_.SetStatus("resnet", true);
  EXPECT_EQ(watch.Read(), HealthCheckResponse::SERVING);
  watch.context.TryCancel();
}

TEST_F(ControlServices, AWatchOfAnUnknownNameSeesItAppear) {
  WatchCall watch(*this, "later");
  EXPECT_EQ(watch.Read(), HealthCheckResponse::SERVICE_UNKNOWN);
  health_.SetStatus("later", true);
  EXPECT_EQ(watch.Read(), HealthCheckResponse::SERVING);
  watch.context.TryCancel();
}

TEST_F(ControlServices, DrainIsTheLastChange) {
  health_.SetStatus("", true);
  WatchCall watch(*this, "");
  EXPECT_EQ(watch.Read(), HealthCheckResponse::SERVING);
  health_.Drain();
  EXPECT_EQ(watch.Read(), HealthCheckResponse::NOT_SERVING);
  health_.SetStatus("", true);
  health_.SetStatus("new", true);
  EXPECT_EQ(Check(""), HealthCheckResponse::NOT_SERVING);
  EXPECT_EQ(Check("new"), HealthCheckResponse::NOT_SERVING);
  watch.context.TryCancel();
}

TEST_F(ControlServices, LivenessIsServingWhateverElseIsNot) {
  EXPECT_EQ(Check("liveness"), HealthCheckResponse::SERVING);
  health_.SetStatus("", false);
  health_.SetStatus("liveness", false);  // A model of that name.
  health_.Drain();
  EXPECT_EQ(Check("liveness"), HealthCheckResponse::SERVING);
}

TEST_F(ControlServices, ReadinessIsThatOfTheServer) {
  health_.SetStatus("", true);
  health_.SetStatus("readiness", false);  // A model of that name.
  WatchCall watch(*this, "readiness");
  EXPECT_EQ(watch.Read(), HealthCheckResponse::SERVING);
  health_.SetStatus("", false);
  EXPECT_EQ(watch.Read(), HealthCheckResponse::NOT_SERVING);
  watch.context.TryCancel();
}

TEST_F(ControlServices, ManyStreamsTakeNoThreadEach) {
  health_.SetStatus("", true);
  EXPECT_EQ(Check(""), HealthCheckResponse::SERVING);
  const long threads_before = ThreadsOfThisProcess();
  std::vector<std::unique_ptr<WatchCall>> watches;
  std::vector<std::unique_ptr<V1Call>> streams;
  for (int i = 0; i < kMany; ++i) {
    watches.push_back(std::make_unique<WatchCall>(*this, ""));
    streams.push_back(std::make_unique<V1Call>(*v1_stub_));
  }
  for (const auto& watch : watches) EXPECT_EQ(watch->Read(), HealthCheckResponse::SERVING);
  for (const auto& stream : streams) EXPECT_EQ(stream->List().size(), 2);
  EXPECT_EQ(gate_.live(), pending_accepts_ + 2 * kMany);
  EXPECT_LT(ThreadsOfThisProcess() - threads_before, kMany / 4);
  health_.SetStatus("", false);
  for (const auto& watch : watches) EXPECT_EQ(watch->Read(), HealthCheckResponse::NOT_SERVING);
  for (const auto& watch : watches) watch->context.TryCancel();
  for (const auto& stream : streams) EXPECT_TRUE(stream->stream->WritesDone());
  for (const auto& stream : streams) EXPECT_TRUE(stream->stream->Finish().ok());
}

TEST_F(ControlServices, AWatchThatTheClientCancelsIsForgotten) {
  health_.SetStatus("", true);
  for (int i = 0; i < kMany; ++i) {
    WatchCall watch(*this, "");
    EXPECT_EQ(watch.Read(), HealthCheckResponse::SERVING);
    watch.context.TryCancel();
    EXPECT_EQ(watch.reader->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  WaitUntilNoCallIsOpen();
  health_.SetStatus("", false);
  EXPECT_EQ(Check(""), HealthCheckResponse::NOT_SERVING);
}

TEST_F(ControlServices, StreamsBeyondTheLimitAreRefused) {
  std::vector<std::unique_ptr<WatchCall>> watches;
  std::vector<std::unique_ptr<V1Call>> streams;
  for (size_t i = 0; i < kLimit; ++i) {
    watches.push_back(std::make_unique<WatchCall>(*this, ""));
    EXPECT_EQ(watches.back()->Read(), HealthCheckResponse::SERVICE_UNKNOWN);
    streams.push_back(std::make_unique<V1Call>(*v1_stub_));
    EXPECT_EQ(streams.back()->List().size(), 2);
  }
  WatchCall watch(*this, "");
  EXPECT_EQ(watch.Read(), std::nullopt);
  EXPECT_EQ(watch.reader->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  V1AlphaCall stream(*v1alpha_stub_);
  EXPECT_TRUE(stream.List().empty());
  EXPECT_EQ(stream.stream->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  for (const auto& open : watches) open->context.TryCancel();
  for (const auto& open : streams) open->context.TryCancel();
}

TEST_F(ControlServices, ANameThatIsTooLongToKeepIsRefused) {
  WatchCall watch(*this, std::string(513, 'n'));
  EXPECT_EQ(watch.Read(), std::nullopt);
  EXPECT_EQ(watch.reader->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ControlServices, BothVersionsOfReflectionAnswerManyQuestions) {
  V1Call first(*v1_stub_);
  V1AlphaCall second(*v1alpha_stub_);
  for (int i = 0; i < 3; ++i) {
    EXPECT_THAT(first.List(), ElementsAre("grpc.health.v1.Health", "other.Service"));
    EXPECT_THAT(second.List(), ElementsAre("grpc.health.v1.Health", "other.Service"));
  }
  first.stream->WritesDone();
  second.stream->WritesDone();
  EXPECT_TRUE(first.stream->Finish().ok());
  EXPECT_TRUE(second.stream->Finish().ok());
}

TEST_F(ControlServices, ReflectionKnowsTheLinkedServices) {
  ASSERT_NE(inference::ModelInferRequest::descriptor(), nullptr);  // Links it.
  V1Call call(*v1_stub_);
  for (const char* symbol :
       {"inference.GRPCInferenceService", "inference.ModelConfig", "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}) {
    v1::ServerReflectionRequest request;
    request.set_file_containing_symbol(symbol);
    v1::ServerReflectionResponse response;
    ASSERT_TRUE(call.stream->Write(request));
    ASSERT_TRUE(call.stream->Read(&response));
    EXPECT_GE(response.file_descriptor_response().file_descriptor_proto_size(), 1) << symbol;
  }
  call.context.TryCancel();
}

TEST_F(ControlServices, ShutdownTellsTheWatchesAndEndsEveryStream) {
  health_.SetStatus("", true);
  std::vector<std::unique_ptr<WatchCall>> watches;
  std::vector<std::unique_ptr<V1Call>> streams;
  for (int i = 0; i < kMany; ++i) {
    watches.push_back(std::make_unique<WatchCall>(*this, ""));
    EXPECT_EQ(watches.back()->Read(), HealthCheckResponse::SERVING);
    streams.push_back(std::make_unique<V1Call>(*v1_stub_));
    EXPECT_EQ(streams.back()->List().size(), 2);
  }
  ShutServicesDown();
  for (const auto& watch : watches) {
    EXPECT_EQ(watch->Read(), HealthCheckResponse::NOT_SERVING);
    EXPECT_EQ(watch->Read(), std::nullopt);
    EXPECT_EQ(watch->reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  }
  for (const auto& stream : streams) {
    EXPECT_EQ(stream->stream->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
  }
  WaitUntilNoCallIsOpen();
  WatchCall late(*this, "");
  EXPECT_EQ(late.Read(), std::nullopt);
  EXPECT_EQ(late.reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(ControlServices, ServerShutdownAloneEndsOpenStreamsToo) {
  WatchCall watch(*this, "");
  EXPECT_EQ(watch.Read(), HealthCheckResponse::SERVICE_UNKNOWN);
  V1Call stream(*v1_stub_);
  EXPECT_EQ(stream.List().size(), 2);
  Stop(/*grace=*/std::chrono::seconds(0));
  EXPECT_EQ(gate_.live(), 0);
  EXPECT_EQ(watch.Read(), std::nullopt);
}

TEST_F(ControlServices, NothingStartsOnceTheGateIsClosed) {
  Stop();
  health_.Start(queue_.get());  // Would end the process: the queue is shut down.
  reflection_.Start(queue_.get());
  EXPECT_EQ(gate_.live(), 0);
}

// Questions, changes, cancels and the shutdown all at once, from several threads.
TEST_F(ControlServices, SurvivesAShutdownInTheMiddleOfEverything) {
  std::atomic<bool> stop = false;
  const auto until_stopped = [&stop](auto body) {
    return [&stop, body] {
      while (!stop) body();
    };
  };
  {
    Thread changer("changer", until_stopped([this] {
                     health_.SetStatus("", true);
                     health_.SetStatus("", false);
                   }));
    Thread watcher("watcher", until_stopped([this] {
                     WatchCall watch(*this, "");
                     watch.Read();
                     watch.Read();
                     watch.context.TryCancel();
                   }));
    Thread asker("asker", until_stopped([this] {
                   V1Call call(*v1_stub_);
                   call.List();
                   call.context.TryCancel();
                 }));
    for (int i = 0; i < 200; ++i) Check("");
    ShutServicesDown();
    Stop(/*grace=*/std::chrono::seconds(0));
    stop = true;
  }
  EXPECT_EQ(gate_.live(), 0);
}

}  // namespace
}  // namespace millrace
