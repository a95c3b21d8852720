// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "grpcpp/grpcpp.h"
#include "proto/grpc_service.grpc.pb.h"
#include "proto/health.grpc.pb.h"

namespace millrace {

// A small server in the test's process that speaks the protocol and misbehaves on order.
// Thread-safe. Models: "echo" and "frames" answer with their inputs, "fail" with INVALID_ARGUMENT,
// "hold" as "echo", but only after Release(); others are NOT_FOUND.
class FakeServer final : public inference::GRPCInferenceService::Service {
 public:
  explicit FakeServer(const std::string& address = "127.0.0.1:0");
  ~FakeServer() override;

  // Where it listens: "127.0.0.1:port" or "unix:/path".
  std::string address() const { return address_; }

  // The next unary calls end with these, in turn.
  struct Refusal {
    grpc::StatusCode code;
    std::optional<std::string> pushback;
  };
  void RefuseNext(std::vector<Refusal> refusals);

  // The next streams end so, in turn, after `answers` answers; those after them normally.
  struct StreamEnd {
    int answers;
    grpc::Status status;
    bool drained;           // with the trailer `millrace-answered`
    bool wrong_id = false;  // instead: the next answer gets a wrong id
    bool twice = false;     // instead: the next answer is sent twice
    bool loading = false;   // instead: every answer is UNAVAILABLE
    // instead: then says that it drains, and answers what still comes until the client half-closes
    bool notice = false;
  };
  void EndNextStreams(std::vector<StreamEnd> ends);

  // The next stream reads `n` requests before it answers any, and then answers the last one first.
  void ReverseNext(int n);

  // The next answer brings another value back for that parameter of its request.
  void FalsifyNext(const std::string& parameter);

  void Release();
  void SetServing(const std::string& service, bool serving);

  int unary_calls() const;
  int streams() const;
  int64_t requests_read() const;          // on streams
  void WaitForRequests(int64_t n) const;  // until that many were read on streams
  void WaitForStreams(int n) const;       // until that many were opened
  std::multimap<std::string, std::string> last_metadata() const;

  grpc::Status ModelInfer(grpc::ServerContext* context, const inference::ModelInferRequest* request,
                          inference::ModelInferResponse* response) override;
  grpc::Status ModelStreamInfer(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<inference::ModelStreamInferResponse, inference::ModelInferRequest>*
          stream) override;
  grpc::Status RepositoryIndex(grpc::ServerContext* context,
                               const inference::RepositoryIndexRequest* request,
                               inference::RepositoryIndexResponse* response) override;
  grpc::Status ModelMetadata(grpc::ServerContext* context,
                             const inference::ModelMetadataRequest* request,
                             inference::ModelMetadataResponse* response) override;

 private:
  class HealthService;

  grpc::Status Answer(const inference::ModelInferRequest& request,
                      inference::ModelInferResponse* response);
  void RememberMetadata(const grpc::ServerContext& context);

  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::deque<Refusal> refusals_;
  std::deque<StreamEnd> ends_;
  int reversed_ = 0;
  std::string falsified_;
  bool released_ = false;
  std::map<std::string, bool> serving_ = {{"", true}};
  int unary_calls_ = 0;
  int streams_ = 0;
  int64_t requests_read_ = 0;
  std::multimap<std::string, std::string> last_metadata_;

  std::unique_ptr<HealthService> health_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
};

}  // namespace millrace
