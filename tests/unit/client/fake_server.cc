// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/client/fake_server.h"

#include <chrono>
#include <utility>

#include "absl/synchronization/mutex.h"

namespace millrace {

class FakeServer::HealthService final : public grpc::health::v1::Health::Service {
 public:
  explicit HealthService(FakeServer& server) : server_(server) {}

  grpc::Status Check(grpc::ServerContext*, const grpc::health::v1::HealthCheckRequest* request,
                     grpc::health::v1::HealthCheckResponse* response) override {
    std::lock_guard lock(server_.mutex_);
    const auto serving = server_.serving_.find(request->service());
    if (serving == server_.serving_.end()) return {grpc::StatusCode::NOT_FOUND, "unknown service"};
    response->set_status(serving->second ? grpc::health::v1::HealthCheckResponse::SERVING
                                         : grpc::health::v1::HealthCheckResponse::NOT_SERVING);
    return grpc::Status::OK;
  }

 private:
  FakeServer& server_;
};

FakeServer::FakeServer(const std::string& address)
    : health_(std::make_unique<HealthService>(*this)) {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);
  int port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &port);
  builder.RegisterService(this);
  builder.RegisterService(health_.get());
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  server_ = builder.BuildAndStart();
  address_ = address.rfind("unix:", 0) == 0 ? address : "127.0.0.1:" + std::to_string(port);
}

FakeServer::~FakeServer() {
  Release();
  server_->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(5));
  server_->Wait();
}

void FakeServer::RefuseNext(std::vector<Refusal> refusals) {
  std::lock_guard lock(mutex_);
  refusals_.assign(refusals.begin(), refusals.end());
}

void FakeServer::EndNextStreams(std::vector<StreamEnd> ends) {
  std::lock_guard lock(mutex_);
  ends_.assign(ends.begin(), ends.end());
}

void FakeServer::FalsifyNext(const std::string& parameter) {
  std::lock_guard lock(mutex_);
  falsified_ = parameter;
}

void FakeServer::ReverseNext(int n) {
  std::lock_guard lock(mutex_);
  reversed_ = n;
}

void FakeServer::Release() {
  std::lock_guard lock(mutex_);
  released_ = true;
  changed_.notify_all();
}

void FakeServer::SetServing(const std::string& service, bool serving) {
  std::lock_guard lock(mutex_);
  serving_[service] = serving;
}

int FakeServer::unary_calls() const {
  std::lock_guard lock(mutex_);
  return unary_calls_;
}

int FakeServer::streams() const {
  std::lock_guard lock(mutex_);
  return streams_;
}

int64_t FakeServer::requests_read() const {
  std::lock_guard lock(mutex_);
  return requests_read_;
}

void FakeServer::WaitForRequests(int64_t n) const {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return requests_read_ >= n; });
}

void FakeServer::WaitForStreams(int n) const {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return streams_ >= n; });
}

std::multimap<std::string, std::string> FakeServer::last_metadata() const {
  std::lock_guard lock(mutex_);
  return last_metadata_;
}

void FakeServer::RememberMetadata(const grpc::ServerContext& context) {
  last_metadata_.clear();
  for (const auto& [key, value] : context.client_metadata()) {
    last_metadata_.emplace(std::string(key.data(), key.size()),
                           std::string(value.data(), value.size()));
  }
}

grpc::Status FakeServer::Answer(const inference::ModelInferRequest& request,
                                inference::ModelInferResponse* response) {
  response->set_model_name(request.model_name());
  response->set_model_version("1");
  response->set_id(request.id());
  *response->mutable_parameters() = request.parameters();
  if (request.model_name() == "fail") return {grpc::StatusCode::INVALID_ARGUMENT, "this one fails"};
  if (request.model_name() == "hold") {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return released_; });
  } else if (request.model_name() != "echo" && request.model_name() != "frames") {
    return {grpc::StatusCode::NOT_FOUND, "no model '" + request.model_name() + "'"};
  }
  {
    std::lock_guard lock(mutex_);
    if (!falsified_.empty()) {
      (*response->mutable_parameters())[std::exchange(falsified_, "")].set_int64_param(123456);
    }
  }
  for (int i = 0; i < request.inputs_size(); ++i) {
    auto* output = response->add_outputs();
    output->set_name("OUTPUT__" + std::to_string(i));
    output->set_datatype(request.inputs(i).datatype());
    *output->mutable_shape() = request.inputs(i).shape();
    response->add_raw_output_contents(request.raw_input_contents(i));
  }
  return grpc::Status::OK;
}

grpc::Status FakeServer::ModelInfer(grpc::ServerContext* context,
                                    const inference::ModelInferRequest* request,
                                    inference::ModelInferResponse* response) {
  {
    std::lock_guard lock(mutex_);
    ++unary_calls_;
    RememberMetadata(*context);
    if (!refusals_.empty()) {
      const Refusal refusal = refusals_.front();
      refusals_.pop_front();
      if (refusal.pushback)
        context->AddTrailingMetadata("grpc-retry-pushback-ms", *refusal.pushback);
      return {refusal.code, "refused"};
    }
  }
  return Answer(*request, response);
}

grpc::Status FakeServer::ModelStreamInfer(
    grpc::ServerContext* context,
    grpc::ServerReaderWriter<inference::ModelStreamInferResponse, inference::ModelInferRequest>*
        stream) {
  std::optional<StreamEnd> end;
  int reversed = 0;
  {
    std::lock_guard lock(mutex_);
    ++streams_;
    changed_.notify_all();
    RememberMetadata(*context);
    reversed = std::exchange(reversed_, 0);
    if (!ends_.empty()) {
      end = ends_.front();
      ends_.pop_front();
    }
  }
  int answered = 0;
  inference::ModelInferRequest request;
  std::vector<inference::ModelStreamInferResponse> held;
  for (; reversed > 0 && stream->Read(&request); --reversed) {
    Answer(request, held.emplace_back().mutable_infer_response());
  }
  for (; !held.empty(); held.pop_back(), ++answered) stream->Write(held.back());
  const auto notify = [&] {
    inference::ModelStreamInferResponse notice;
    (*notice.mutable_infer_response()->mutable_parameters())["millrace_draining"].set_bool_param(
        true);
    stream->Write(notice);
  };
  if (end && end->notice && end->answers == 0) notify();
  while (!(end && answered == end->answers && !end->wrong_id && !end->twice && !end->loading &&
           !end->notice) &&
         stream->Read(&request)) {
    {
      std::lock_guard lock(mutex_);
      ++requests_read_;
      changed_.notify_all();
    }
    inference::ModelStreamInferResponse response;
    grpc::Status status = Answer(request, response.mutable_infer_response());
    if (end && end->loading) status = {grpc::StatusCode::UNAVAILABLE, "is being loaded"};
    if (!status.ok()) {
      response.set_error_message(status.error_message());
      (*response.mutable_infer_response()->mutable_parameters())["millrace_status_code"]
          .set_int64_param(status.error_code());
    }
    const bool misbehave = end && answered == end->answers;
    if (misbehave && end->wrong_id) response.mutable_infer_response()->set_id("wrong");
    stream->Write(response);
    if (misbehave && end->twice) stream->Write(response);
    ++answered;
    if (end && end->notice && answered == end->answers) notify();
  }
  if (!end) return grpc::Status::OK;
  if (end->drained) context->AddTrailingMetadata("millrace-answered", std::to_string(answered));
  return end->status;
}

grpc::Status FakeServer::RepositoryIndex(grpc::ServerContext*,
                                         const inference::RepositoryIndexRequest*,
                                         inference::RepositoryIndexResponse* response) {
  for (const char* name : {"echo", "hold"}) {
    auto* model = response->add_models();
    model->set_name(name);
    model->set_version("1");
    model->set_state("READY");
  }
  auto* broken = response->add_models();
  broken->set_name("broken");
  broken->set_version("2");
  broken->set_state("UNAVAILABLE");
  broken->set_reason("config.pbtxt:3: unknown field 'dimz'");
  return grpc::Status::OK;
}

grpc::Status FakeServer::ModelMetadata(grpc::ServerContext*,
                                       const inference::ModelMetadataRequest* request,
                                       inference::ModelMetadataResponse* response) {
  const std::string& name = request->name();
  if (name != "echo" && name != "frames") {
    return {grpc::StatusCode::NOT_FOUND, "no model '" + name + "'"};
  }
  const bool frames = name == "frames";
  response->set_name(name);
  response->add_versions("1");
  response->set_platform("pytorch_libtorch");
  auto* input = response->add_inputs();
  input->set_name("INPUT__0");
  input->set_datatype(frames ? "UINT8" : "FP32");
  for (int64_t dim : frames ? std::vector<int64_t>{-1, 24, 32, 3} : std::vector<int64_t>{-1, 4}) {
    input->add_shape(dim);
  }
  *response->add_outputs() = *input;
  response->mutable_outputs(0)->set_name("OUTPUT__0");
  return grpc::Status::OK;
}

}  // namespace millrace
