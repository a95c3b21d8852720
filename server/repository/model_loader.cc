// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/repository/model_loader.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/base/check.h"
#include "server/base/event_fd.h"
#include "server/base/log.h"
#include "server/base/status.h"
#include "server/repository/file_stamp.h"
#include "server/repository/warmup_files.h"
#include "server/repository/warmup_plan.h"

namespace millrace {
namespace {

namespace fs = std::filesystem;

std::string NameOf(const LoadTask& task) {
  return absl::StrCat("model '", task.model, "' version ", task.version.number);
}

// The bytes of the largest request a model may get, where its config fixes them; else 0.
size_t LargestRequestBytes(const ModelSignature& signature) {
  if (signature.fixed_row_shape() == nullptr) return 0;
  size_t bytes = 0;
  for (const size_t row : signature.fixed_row_shape()->row_bytes) bytes += row;
  return bytes * static_cast<size_t>(std::max<int64_t>(1, signature.max_batch_size()));
}

// A file that was written to while it was read may have been read in part as it was before.
absl::Status CheckUnchanged(const std::string& path, const FileStamp& before) {
  if (FileStamp::Of(path) == before) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(path,
                   " was changed while it was being loaded; write a model aside and rename "
                   "its folder into place"));
}

}  // namespace

ModelLoader::ModelLoader(Options options, Context context)
    : options_(std::move(options)), context_(std::move(context)), cancel_event_(MakeEvent()) {
  MILLRACE_CHECK(cancel_event_.valid(), "The process has run out of file descriptors.");
}

void ModelLoader::Cancel() { SignalEvent(cancel_event_.get()); }

absl::StatusOr<std::unique_ptr<ServedModel>> ModelLoader::Load(const LoadTask& task,
                                                               const ServedModel* predecessor,
                                                               bool background) {
  const ModelSettings& settings = *task.settings;
  const std::string& path = task.version.path;
  const FileStamp before = FileStamp::Of(path);
  MILLRACE_ASSIGN_OR_RETURN(UniqueFd file, OpenModelFile(task.version));
  const size_t largest = LargestRequestBytes(settings.SignatureOf(task.version.number));
  if (largest > options_.max_message_bytes) {
    LogWarning(NameOf(task), ": its largest request has ", largest,
               " bytes of input, but messages may have ", options_.max_message_bytes,
               "; raise --max-message-bytes to serve such requests");
  }
  ReplicaPool::Options replicas;
  replicas.worker_program = options_.worker_program;
  replicas.model_file = std::move(file);
  replicas.mode = task.mode;
  replicas.most_rows = task.measured ? task.measured->most_rows : 0;
  replicas.optimize = !settings.disable_optimized_execution;
  replicas.inference_mode = settings.inference_mode;
  replicas.inter_op_threads = settings.inter_op_threads.value_or(1);
  replicas.flush_denormals = settings.flush_denormals;
  replicas.deterministic = settings.deterministic;
  replicas.warmup = PlanWarmup(settings);
  replicas.further_batch_sizes = FurtherBatchSizes(settings, replicas.warmup);
  MILLRACE_ASSIGN_OR_RETURN(replicas.warmup_data,
                            ReadWarmupFiles(fs::path(path).parent_path().parent_path().string(),
                                            settings, replicas.warmup));
  replicas.replicas = task.plan.places();
  replicas.start = static_cast<int>(task.plan.replicas.size());
  replicas.most_places = task.plan.most_places;
  if (settings.replica_range) {
    replicas.scaling = {.least = settings.replica_range->least,
                        .most = settings.replica_range->most};
  }
  replicas.most_request_bytes = options_.max_message_bytes;
  replicas.load_timeout = options_.load_timeout;
  replicas.memory_limit_bytes = settings.memory_limit_bytes;
  replicas.sandbox = options_.sandbox;
  replicas.log_moves = options_.log_moves;
  replicas.unhealthy_after = options_.unhealthy_after;
  replicas.execution_limit = settings.execution_limit;
  replicas.batch_check = settings.batch_check;
  replicas.background = background;
  replicas.cancel_event = cancel_event_.get();
  if (replicas.warmup.empty()) {
    LogInfo(NameOf(task),
            ": warm-up is skipped, since the config leaves dims open (-1) and declares no "
            "model_warmup; the first request of each shape will be slower");
  }
  // A histogram of batch sizes has a bucket for each.
  const bool goes_on = predecessor != nullptr &&
                       predecessor->metrics().max_batch_size() == settings.max_batch_size &&
                       predecessor->metrics().has_transform() == settings.has_transform();
  auto metrics = goes_on ? predecessor->shared_metrics()
                         : std::make_shared<ModelMetrics>(
                               settings.name, absl::StrCat(task.version.number),
                               settings.max_batch_size, *context_.clock, settings.has_transform());
  MILLRACE_ASSIGN_OR_RETURN(
      auto model, ServedModel::Load(settings, task.version.number, std::move(replicas), metrics,
                                    {.clock = context_.clock,
                                     .timer = context_.timer,
                                     .leases = context_.leases,
                                     .memory = context_.memory,
                                     .preparers = context_.preparers,
                                     .metrics = nullptr,
                                     .on_change = context_.on_change}));
  MILLRACE_RETURN_IF_ERROR(CheckUnchanged(path, before));
  return model;
}

}  // namespace millrace
