// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/control_service.h"

#include <type_traits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/base/clock.h"
#include "server/base/status.h"
#include "server/repository/config_json.h"
#include "server/rpc/status_conversion.h"
#include "server/rpc/unary_method.h"

namespace millrace {
namespace {

// `statistics` must be among them for perf_analyzer to read server-side figures.
constexpr const char* kExtensions[] = {"model_configuration", "model_repository", "parameters",
                                       "statistics"};

void SetTiming(const ModelStatistics::Timing& from, inference::StatisticDuration* to) {
  to->set_count(from.count);
  to->set_ns(from.ns);
}

void FillStatistics(const ServedModel& model, inference::ModelStatistics* to) {
  const ModelStatistics from = model.metrics().Statistics(WallTime());
  to->set_name(model.signature().model_name());
  to->set_version(model.signature().version());
  to->set_last_inference(static_cast<uint64_t>(from.last_inference_ms));
  to->set_inference_count(from.inference_count);
  to->set_execution_count(from.execution_count);
  inference::InferStatistics& stats = *to->mutable_inference_stats();
  SetTiming(from.success, stats.mutable_success());
  SetTiming(from.fail, stats.mutable_fail());
  SetTiming(from.queue, stats.mutable_queue());
  SetTiming(from.compute_input, stats.mutable_compute_input());
  SetTiming(from.compute_infer, stats.mutable_compute_infer());
  SetTiming(from.compute_output, stats.mutable_compute_output());
  stats.mutable_cache_hit();
  stats.mutable_cache_miss();
  for (const ModelStatistics::BatchSize& batch : from.batches) {
    inference::InferBatchStatistics& batch_to = *to->add_batch_stats();
    batch_to.set_batch_size(batch.rows);
    SetTiming(batch.compute_input, batch_to.mutable_compute_input());
    SetTiming(batch.compute_infer, batch_to.mutable_compute_infer());
    SetTiming(batch.compute_output, batch_to.mutable_compute_output());
  }
  const std::optional<ModelGauges> gauges = model.metrics().Gauges();
  if (!gauges) return;
  inference::Millrace::Statistics& scheduler = *to->mutable_millrace();
  for (const ModelGauges::Cost& cost : gauges->costs) {
    inference::Millrace::Statistics::Cost& cost_to = *scheduler.add_costs();
    cost_to.set_shape(cost.shape);
    cost_to.set_replica_kind(cost.replica_kind);
    cost_to.set_setup_ns(absl::ToDoubleNanoseconds(cost.setup));
    cost_to.set_row_ns(absl::ToDoubleNanoseconds(cost.per_row));
    cost_to.set_deviation_ns(absl::ToDoubleNanoseconds(cost.deviation));
  }
  scheduler.set_capacity(gauges->capacity);
  scheduler.set_utilisation(gauges->utilisation);
  scheduler.set_predicted_wait_ns(absl::ToDoubleNanoseconds(gauges->predicted_wait));
}

absl::Status CheckRepositoryName(const std::string& name) {
  if (name.empty()) return absl::OkStatus();
  return absl::UnimplementedError(
      "field 'repository_name' is not supported: a model's name is unique; leave it out");
}

absl::Status UnknownParameter(const std::string& key, const char* known) {
  return absl::InvalidArgumentError(absl::StrCat("parameter '", key.substr(0, 128),
                                                 "' is not known; expected only '", known, "'"));
}

// The text of the configuration that a load brings; nullopt where it brings none.
template <typename Parameters>
absl::StatusOr<std::optional<std::string>> ConfigIn(const Parameters& parameters) {
  std::optional<std::string> text;
  for (const auto& [key, value] : parameters) {
    if (absl::StartsWith(key, "file:")) {
      return absl::InvalidArgumentError(
          absl::StrCat("parameter '", key.substr(0, 128),
                       "': files are not taken over the wire; put the model into the repository"));
    }
    if (key != "config") return UnknownParameter(key, "config");
    if (!value.has_string_param()) {
      return absl::InvalidArgumentError(
          "parameter 'config': expected a string, ModelConfig as JSON");
    }
    MILLRACE_ASSIGN_OR_RETURN(text, ConfigTextOfJson(value.string_param()));
  }
  return text;
}

template <typename TensorList>
void FillTensors(const std::vector<TensorSpec>& specs, bool batched, TensorList* to) {
  for (const TensorSpec& spec : specs) {
    auto& tensor = *to->Add();
    tensor.set_name(spec.name);
    tensor.set_datatype(std::string(WireName(spec.wire_data_type())));
    if (batched) tensor.add_shape(-1);
    for (const int64_t dim : spec.wire_dims()) tensor.add_shape(dim);
  }
}

}  // namespace

// One UnaryMethod per RPC, and what they answer.
class ControlService::Methods {
 public:
  using Service = RawInferenceService;
  template <typename Request, typename Response>
  using Answer = grpc::Status (Methods::*)(const Request&, Response*);

  template <typename Response>
  using Reply = std::function<void(const grpc::Status&, const Response&)>;

  Methods(CallGate& gate, Service& service, ModelRepository& repository, Options options)
      : repository_(repository), options_(std::move(options)) {
    Offer(gate, service, &Service::RequestServerLive, &Methods::ServerLive);
    Offer(gate, service, &Service::RequestServerReady, &Methods::ServerReady);
    Offer(gate, service, &Service::RequestModelReady, &Methods::ModelReady);
    Offer(gate, service, &Service::RequestServerMetadata, &Methods::ServerMetadata);
    Offer(gate, service, &Service::RequestModelMetadata, &Methods::ModelMetadata);
    Offer(gate, service, &Service::RequestModelConfig, &Methods::ModelConfig);
    Offer(gate, service, &Service::RequestModelStatistics, &Methods::ModelStatisticsOf);
    Offer(gate, service, &Service::RequestRepositoryIndex, &Methods::RepositoryIndex);
    if (options_.administers) {
      OfferWatched(gate, service, &Service::RequestRepositoryModelLoad,
                   &Methods::RepositoryModelLoad);
      OfferLater(gate, service, &Service::RequestRepositoryModelUnload,
                 &Methods::RepositoryModelUnload);
    } else {
      Refuse(gate, service, &Service::RequestRepositoryModelLoad, ForOperators());
      Refuse(gate, service, &Service::RequestRepositoryModelUnload, ForOperators());
    }
    Refuse(gate, service, &Service::RequestSystemSharedMemoryStatus);
    Refuse(gate, service, &Service::RequestSystemSharedMemoryRegister);
    Refuse(gate, service, &Service::RequestSystemSharedMemoryUnregister);
    Refuse(gate, service, &Service::RequestCudaSharedMemoryStatus);
    Refuse(gate, service, &Service::RequestCudaSharedMemoryRegister);
    Refuse(gate, service, &Service::RequestCudaSharedMemoryUnregister);
    Refuse(gate, service, &Service::RequestTraceSetting);
    Refuse(gate, service, &Service::RequestLogSettings);
  }

  void Start(grpc::ServerCompletionQueue* queue) {
    for (const auto& start : starts_) start(queue);
  }

 private:
  template <typename Declaring, typename Request, typename Response>
  void Offer(CallGate& gate, Service& service, RequestMethod<Declaring, Request, Response> method,
             Answer<Request, Response> answer) {
    Add<Declaring, Request, Response>(gate, service, method,
                                      [this, answer](const Request& request, Response* response) {
                                        return (this->*answer)(request, response);
                                      });
  }

  template <typename Declaring, typename Request, typename Response>
  void OfferLater(CallGate& gate, Service& service,
                  RequestMethod<Declaring, Request, Response> method,
                  void (Methods::*answer)(const Request&, Reply<Response>)) {
    Add<Declaring, Request, Response>(
        gate, service, method,
        typename UnaryMethod<Request, Response>::LaterAnswer(
            [this, answer](const Request& request, Reply<Response> reply) {
              (this->*answer)(request, std::move(reply));
            }));
  }

  template <typename Declaring, typename Request, typename Response>
  void OfferWatched(CallGate& gate, Service& service,
                    RequestMethod<Declaring, Request, Response> method,
                    void (Methods::*answer)(const Request&, Reply<Response>,
                                            std::shared_ptr<const UniqueFd>)) {
    Add<Declaring, Request, Response>(
        gate, service, method,
        typename UnaryMethod<Request, Response>::WatchedAnswer(
            [this, answer](const Request& request, Reply<Response> reply,
                           std::shared_ptr<const UniqueFd> over) {
              (this->*answer)(request, std::move(reply), std::move(over));
            }));
  }

  template <typename Declaring, typename Request, typename Response>
  void Refuse(CallGate& gate, Service& service,
              RequestMethod<Declaring, Request, Response> method) {
    Refuse(gate, service, method,
           grpc::Status(grpc::StatusCode::UNIMPLEMENTED,
                        absl::StrCat("Millrace does not offer this method (it takes a ",
                                     std::string(Request::descriptor()->name()), ")")));
  }

  template <typename Declaring, typename Request, typename Response>
  void Refuse(CallGate& gate, Service& service, RequestMethod<Declaring, Request, Response> method,
              const grpc::Status& status) {
    Add<Declaring, Request, Response>(gate, service, method,
                                      [status](const Request&, Response*) { return status; });
  }

  static grpc::Status ForOperators() {
    return grpc::Status(grpc::StatusCode::PERMISSION_DENIED,
                        "models are loaded and unloaded by operators, at the addresses that the "
                        "server's flag --admin-listen gives");
  }

  template <typename Declaring, typename Request, typename Response, typename ItsAnswer>
  void Add(CallGate& gate, Service& service, RequestMethod<Declaring, Request, Response> method,
           ItsAnswer answer) {
    auto made =
        std::make_shared<UnaryMethod<Request, Response>>(gate, service, method, std::move(answer));
    starts_.push_back([made](grpc::ServerCompletionQueue* queue) { made->Start(queue); });
  }

  grpc::Status ServerLive(const inference::ServerLiveRequest&, inference::ServerLiveResponse* to) {
    to->set_live(true);
    return grpc::Status::OK;
  }

  grpc::Status ServerReady(const inference::ServerReadyRequest&,
                           inference::ServerReadyResponse* to) {
    to->set_ready(options_.ready().ok());
    return grpc::Status::OK;
  }

  grpc::Status ModelReady(const inference::ModelReadyRequest& request,
                          inference::ModelReadyResponse* to) {
    const auto model = repository_.Find(request.name(), request.version());
    if (absl::IsNotFound(model.status())) return ToGrpc(model.status());
    to->set_ready(model.ok() && (*model)->readiness().ok());
    return grpc::Status::OK;
  }

  grpc::Status ServerMetadata(const inference::ServerMetadataRequest&,
                              inference::ServerMetadataResponse* to) {
    to->set_name("millrace");
    to->set_version(options_.version);
    for (const char* extension : kExtensions) to->add_extensions(extension);
    return grpc::Status::OK;
  }

  grpc::Status ModelMetadata(const inference::ModelMetadataRequest& request,
                             inference::ModelMetadataResponse* to) {
    const auto model = repository_.Find(request.name(), request.version());
    if (!model.ok()) return ToGrpc(model.status());
    const ModelSignature& signature = (*model)->signature();
    to->set_name(signature.model_name());
    const auto versions = repository_.Versions(signature.model_name());
    for (const std::string& version : *versions) to->add_versions(version);
    to->set_platform((*model)->platform());
    FillTensors(signature.inputs(), signature.batched(), to->mutable_inputs());
    FillTensors(signature.outputs(), signature.batched(), to->mutable_outputs());
    return grpc::Status::OK;
  }

  grpc::Status ModelConfig(const inference::ModelConfigRequest& request,
                           inference::ModelConfigResponse* to) {
    const auto model = repository_.Find(request.name(), request.version());
    if (!model.ok()) return ToGrpc(model.status());
    *to->mutable_config() = (*model)->config();
    return grpc::Status::OK;
  }

  grpc::Status ModelStatisticsOf(const inference::ModelStatisticsRequest& request,
                                 inference::ModelStatisticsResponse* to) {
    if (request.name().empty()) {
      for (const auto& model : repository_.Loaded()) FillStatistics(*model, to->add_model_stats());
      return grpc::Status::OK;
    }
    if (!request.version().empty()) {
      const auto model = repository_.Find(request.name(), request.version());
      if (!model.ok()) return ToGrpc(model.status());
      FillStatistics(**model, to->add_model_stats());
      return grpc::Status::OK;
    }
    const auto versions = repository_.Versions(request.name());
    if (!versions.ok()) return ToGrpc(versions.status());
    for (const std::string& version : *versions) {
      const auto model = repository_.Find(request.name(), version);
      if (model.ok()) FillStatistics(**model, to->add_model_stats());
    }
    return grpc::Status::OK;
  }

  grpc::Status RepositoryIndex(const inference::RepositoryIndexRequest& request,
                               inference::RepositoryIndexResponse* to) {
    for (const ModelRepository::IndexEntry& entry : repository_.Index()) {
      if (request.ready() && entry.state != ModelState::kReady) continue;
      inference::RepositoryIndexResponse::ModelIndex& model = *to->add_models();
      model.set_name(entry.name);
      model.set_version(entry.version);
      model.set_state(NameOf(entry.state));
      model.set_reason(entry.reason);
    }
    return grpc::Status::OK;
  }

  void RepositoryModelLoad(const inference::RepositoryModelLoadRequest& request,
                           Reply<inference::RepositoryModelLoadResponse> reply,
                           std::shared_ptr<const UniqueFd> over) {
    const auto answer = [reply = std::move(reply)](const absl::Status& status) {
      reply(ToGrpc(status), {});
    };
    if (const absl::Status status = CheckRepositoryName(request.repository_name()); !status.ok()) {
      return answer(status);
    }
    const absl::StatusOr<std::optional<std::string>> config = ConfigIn(request.parameters());
    if (!config.ok()) return answer(config.status());
    repository_.LoadModel(request.model_name(), *config, answer, std::move(over));
  }

  void RepositoryModelUnload(const inference::RepositoryModelUnloadRequest& request,
                             Reply<inference::RepositoryModelUnloadResponse> reply) {
    const auto answer = [reply = std::move(reply)](const absl::Status& status) {
      reply(ToGrpc(status), {});
    };
    if (const absl::Status status = CheckRepositoryName(request.repository_name()); !status.ok()) {
      return answer(status);
    }
    for (const auto& [key, value] : request.parameters()) {
      // No model depends on another.
      if (key != "unload_dependents") return answer(UnknownParameter(key, "unload_dependents"));
    }
    repository_.UnloadModel(request.model_name(), answer);
  }

  ModelRepository& repository_;
  const Options options_;
  std::vector<std::function<void(grpc::ServerCompletionQueue*)>> starts_;
};

ControlService::ControlService(CallGate& gate, RawInferenceService& service,
                               ModelRepository& repository, Options options)
    : methods_(std::make_unique<Methods>(gate, service, repository, std::move(options))) {}

ControlService::~ControlService() = default;

void ControlService::Start(grpc::ServerCompletionQueue* queue) { methods_->Start(queue); }

}  // namespace millrace
