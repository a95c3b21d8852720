// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/app/inspect_command.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/stat.h>

#include <cerrno>
#include <optional>
#include <string>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/app/server_app.h"
#include "server/base/log.h"
#include "server/base/status.h"
#include "server/base/unique_fd.h"
#include "server/inference/inspection.h"
#include "server/replica/model_inspection.h"
#include "server/repository/inferred_config.h"
#include "server/repository/model_config.h"
#include "server/repository/model_layout.h"

namespace millrace {
namespace {

constexpr int kBadArguments = 1;
constexpr int kNotServable = 3;

ExitNow Failure(int code, const absl::Status& status) {
  return {code, absl::StrCat("millrace inspect: ", status.message(), "\n")};
}

absl::StatusOr<UniqueFd> OpenModel(const std::string& path) {
  UniqueFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file.valid()) return ErrnoStatus(errno, path);
  struct stat found = {};
  if (fstat(file.get(), &found) != 0) return ErrnoStatus(errno, path);
  if (S_ISREG(found.st_mode)) return file;
  return absl::InvalidArgumentError(
      absl::StrCat(path, S_ISDIR(found.st_mode) ? " is a directory" : " is no regular file",
                   "; expected the file of a model, such as model.pt or model.pt2"));
}

InspectionOptions OptionsOf(const InspectConfig& config) {
  InspectionOptions options = {.worker_program = config.worker_program.empty()
                                                     ? DefaultWorkerProgram()
                                                     : config.worker_program,
                               .sandbox = config.sandbox,
                               .timeout = config.timeout,
                               .cancel_events = {},
                               .inputs = {},
                               .max_batch_size = config.max_batch_size};
  for (const InputFlag& input : config.inputs) {
    options.inputs.push_back({input.name, *DataTypeFromWireName(input.data_type),
                              Shape(input.dims.begin(), input.dims.end())});
  }
  return options;
}

// While it lives, SIGINT and SIGTERM make a descriptor readable and end the process afterwards, so
// that what it has begun is taken down before. Those that are ignored stay so.
class HeldSignals {
 public:
  HeldSignals() {
    sigemptyset(&held_);
    for (const int signal : {SIGINT, SIGTERM}) {
      struct sigaction now = {};
      if (sigaction(signal, nullptr, &now) == 0 && now.sa_handler != SIG_IGN) {
        sigaddset(&held_, signal);
      }
    }
    pthread_sigmask(SIG_BLOCK, &held_, &before_);
    event_ = UniqueFd(signalfd(-1, &held_, SFD_CLOEXEC));
  }
  ~HeldSignals() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  HeldSignals(const HeldSignals&) = delete;
  HeldSignals& operator=(const HeldSignals&) = delete;

  // Readable once one has come; -1 where there are no descriptors left, which fails elsewhere, too.
  int event() const { return event_.get(); }

 private:
  sigset_t held_ = {};
  sigset_t before_ = {};
  UniqueFd event_;
};

absl::StatusOr<Inspection> Inspect(const InspectConfig& config, EngineKind engine, int model_fd) {
  const HeldSignals signals;
  InspectionOptions options = OptionsOf(config);
  options.cancel_events = {signals.event()};
  return InspectModel(options, engine, config.model, model_fd);
}

}  // namespace

ExitNow RunInspectCommand(const InspectConfig& config) {
  ConfigureLog(LogLevel::kWarning, LogFormat::kText, "millrace-inspect");
  const absl::StatusOr<UniqueFd> file = OpenModel(config.model);
  if (!file.ok()) return Failure(kBadArguments, file.status());
  const EngineKind engine =
      absl::EndsWith(config.model, ".pt2") ? EngineKind::kAotInductor : EngineKind::kTorchScript;
  std::optional<ModelPlace> place;
  if (!config.into.empty()) {
    const auto found = FindPlace(config.into, engine, config.model, config.force);
    if (!found.ok()) return Failure(kBadArguments, found.status());
    place = *found;
  }
  const absl::StatusOr<Inspection> inspection = Inspect(config, engine, file->get());
  if (!inspection.ok()) {
    return Failure(kNotServable,
                   Annotate(inspection.status(), absl::StrCat(config.model, " can't be served")));
  }
  const std::string text = InferredConfig(*inspection);
  const auto settings = ParseModelConfig(text, "the config that was found", "model");
  if (!settings.ok()) return Failure(kNotServable, settings.status());
  if (place) {
    const absl::Status written = PutModel(*place, config.model, text);
    if (!written.ok()) return Failure(kBadArguments, written);
  }
  if (config.json) return {0, InspectionJson(*inspection, text)};
  const std::string outcome =
      place ? absl::StrCat("wrote   ", place->config, " and ", place->file, "\n")
            : absl::StrCat("\n", text);
  return {0, absl::StrCat(DescribeInspection(*inspection), outcome)};
}

}  // namespace millrace
