// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/config/flags.h"

#include <CLI/CLI.hpp>
#include <cstdint>
#include <filesystem>
#include <sstream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "server/access/listen_address.h"
#include "server/config/config_file.h"
#include "server/config/flag_kinds.h"
#include "server/config/inspect_flags.h"
#include "server/config/tune_flags.h"

namespace millrace {
namespace {

// Splits host:port. IPv6 hosts stand in brackets.
std::string ParseHostPort(const std::string& text, std::string* host, int* port) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos || colon == 0 || !absl::SimpleAtoi(text.substr(colon + 1), port) ||
      *port < 0 || *port > 65535) {
    return absl::StrCat("'", text, "' is not of the form host:port");
  }
  *host = text.substr(0, colon);
  if (host->front() == '[' && host->back() == ']') *host = host->substr(1, host->size() - 2);
  return "";
}

std::string CheckGrpcAddress(const std::string& text) {
  const absl::StatusOr<ListenAddress> listen = ParseListenAddress(text);
  if (!listen.ok()) return std::string(listen.status().message());
  if (absl::StartsWith(listen->address, "unix:")) {
    return listen->address.size() > 5 ? "" : "'unix:' needs a path, e.g. unix:/run/millrace.sock";
  }
  std::string host;
  int port = 0;
  return ParseHostPort(listen->address, &host, &port);
}

// "0660": octal digits.
std::string ParseMode(const std::string& text, mode_t* mode) {
  if (text.empty() || text.size() > 4 || text.find_first_not_of("01234567") != std::string::npos ||
      std::stoul(text, nullptr, 8) > 0777) {
    return absl::StrCat("'", text, "' is no mode; expected octal digits from 0 to 0777");
  }
  *mode = static_cast<mode_t>(std::stoul(text, nullptr, 8));
  return "";
}

// Who may come in, and to what.
void AddAccessFlags(CLI::App& app, ServerConfig& config) {
  AddFile(app, "--tls-cert", &config.tls_cert,
          "The server's certificate and those that lead to its authority, in PEM: gRPC at "
          "host:port is TLS then. Read again when it changes");
  AddFile(app, "--tls-key", &config.tls_key, "The certificate's private key, in PEM");
  AddFile(app, "--tls-client-ca", &config.tls_client_ca,
          "Authorities, in PEM, one of which must have signed a client's certificate; "
          "without it clients need none");
  app.add_option("--tls-allowed-san", config.tls_allowed_sans,
                 "A subject alternative name (DNS name, URI, IP address) of client certificates "
                 "that are let in; may be given several times; default: all that are signed")
      ->type_name("NAME");
  AddFile(app, "--token-file", &config.token_file,
          "Bearer tokens, one of which every call needs but those of the health service: "
          "lines of classes (infer,read,admin) and a SHA-256. Read again when it changes");
  app.add_option("--max-connections", config.max_connections,
                 "Connections that may be open at once; more are closed at once. 0: a third of the "
                 "file descriptors that the process may have, at most 10000")
      ->check(CLI::Range(0, 1 << 20))
      ->capture_default_str();
  app.add_option("--max-connections-per-peer", config.max_connections_per_peer,
                 "Those of one IPv4 address, IPv6 network (/64) or user at a unix socket")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  AddDuration(app, "--max-connection-age", &config.max_connection_age,
              "When clients are told to move on to another connection, and so perhaps to another "
              "server, give or take a tenth; their streams end in order a little later. 0s: never");
  AddDuration(app, "--max-connection-age-grace", &config.max_connection_age_grace,
              "How long what such a stream has asked may then take to be answered");
  app.add_option_function<std::string>(
         "--unix-mode",
         [&config](const std::string& text) {
           const std::string error = ParseMode(text, &config.unix_mode);
           if (!error.empty()) throw CLI::ValidationError("--unix-mode", error);
         },
         "The mode of unix sockets' files, in octal; who may write may connect")
      ->type_name("MODE")
      ->default_str("0600");
  app.add_option("--unix-allow-uid", config.unix_allow_uids,
                 "A user who is let in at unix sockets; may be given several times; default: "
                 "whoever the mode lets")
      ->type_name("UID");
  app.add_option("--reflection", config.reflection,
                 "Where the reflection service is offered: admin (at --admin-listen), all (at "
                 "--grpc-listen, too) or off")
      ->check(CLI::IsMember({"admin", "all", "off"}))
      ->capture_default_str();
  app.add_flag("--channelz", config.channelz,
               "Offer channelz, gRPC's own figures, at --admin-listen");
}

void AddServerFlags(CLI::App& app, ServerConfig& config) {
  app.option_defaults()->group("Models");
  app.add_option("--model-repository", config.model_repositories,
                 "Directory of models; may be given several times")
      ->type_name("DIR")
      ->check(CLI::ExistingDirectory);
  app.add_option("--model-control", config.model_control,
                 "none: every model is loaded at start; explicit: those of --load-model, then by "
                 "calls; watch: what is in the repository, also later")
      ->check(CLI::IsMember({"none", "explicit", "watch"}))
      ->capture_default_str();
  app.add_option("--load-model", config.load_models,
                 "With --model-control explicit, a model to load at start, or '*' for all; may be "
                 "given several times")
      ->type_name("NAME");
  AddDuration(app, "--watch-settle", &config.watch_settle,
              "With --model-control watch: how long nothing of a model may change before a change "
              "is acted on");
  AddDuration(app, "--watch-poll", &config.watch_poll,
              "With --model-control watch: how often a repository is looked through whose changes "
              "the kernel doesn't tell, such as one on a network");
  app.option_defaults()->group("Addresses");
  app.add_option("--grpc-listen", config.grpc_listen,
                 "Where gRPC listens: host:port or unix:/path; may be given several times. With "
                 "?guard=on behind it HTTP/2 is looked at before gRPC reads it, so that giant or "
                 "broken headers and floods cost little; not with TLS")
      ->type_name("ADDRESS")
      ->check(CheckGrpcAddress)
      ->capture_default_str();
  app.add_option("--admin-listen", config.admin_listen,
                 "Where operators' calls are taken (proto/admin.proto, loading, unloading, "
                 "reflection): host:port or unix:/path; may be given several times; default: "
                 "nowhere")
      ->type_name("ADDRESS")
      ->check(CheckGrpcAddress);
  app.add_option_function<std::string>(
         "--http-listen",
         [&config](const std::string& text) {
           const std::string error = ParseHostPort(text, &config.http_host, &config.http_port);
           if (!error.empty()) throw CLI::ValidationError("--http-listen", error);
         },
         "Where /metrics, /livez and /readyz listen: host:port")
      ->type_name("ADDRESS")
      ->default_str("127.0.0.1:8002");
  app.add_option("--health-listen", config.health_listen,
                 "Where the health service alone is offered, without TLS and tokens, for probes: "
                 "host:port or unix:/path; may be given several times")
      ->type_name("ADDRESS")
      ->check(CheckGrpcAddress);
  app.option_defaults()->group("Access");
  AddAccessFlags(app, config);
  app.option_defaults()->group("Processes and threads");
  AddWorkerProgram(app, &config.worker_program);
  app.add_option("--io-threads", config.io_threads,
                 "Threads that read and write connections; 0: one per four budgeted cores")
      ->check(CLI::Range(0, 64))
      ->capture_default_str();
  app.add_option("--transform-workers", config.transform_workers,
                 "Threads that decode pictures, apart from the replicas; 0: up to one per budgeted "
                 "core, as "
                 "what pictures and batches cost demands")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  app.option_defaults()->group("Limits");
  AddMaxMessageBytes(app, &config.max_message_bytes,
                     "The largest message that gRPC takes; a larger one ends its stream");
  app.add_option("--max-streams", config.max_streams, "Streams that may be open at once")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  app.add_option("--stream-window", config.stream_window,
                 "Requests of a stream that are read before their answers are written")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  app.add_option("--max-stream-window", config.max_stream_window,
                 "The most that a stream's metadata `millrace-window` may ask for")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  app.add_option("--max-queue-bytes", config.max_queue_bytes,
                 "Payload bytes of requests that wait or run, over all models; one model may hold "
                 "half of them, unless its config says otherwise")
      ->check(CLI::Range(int64_t{1} << 20, int64_t{1} << 50))
      ->capture_default_str();
  app.add_option("--max-stream-bytes", config.max_stream_bytes,
                 "Bytes of a stream's undecided requests, and of its unsent answers, above which "
                 "no further request of it is read")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 50))
      ->capture_default_str();
  app.add_option("--grpc-memory-bytes", config.grpc_memory_bytes,
                 "Memory of all connections above which gRPC refuses connections and cancels "
                 "calls; 0: no such quota")
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 50))
      ->capture_default_str();
  app.option_defaults()->group("Metrics");
  app.add_option(
         "--stream-names", config.stream_names,
         "Names of streams (metadata `millrace-stream-name`) that have metrics of their own")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  app.add_flag("--triton-metrics", config.triton_metrics,
               "Show metrics by Triton's names (nv_inference_…), too");
  app.add_flag("--load-reports", config.load_reports,
               "Tell the load of the model with every answer of ModelInfer, as gRPC's "
               "weighted_round_robin wants it (ORCA)");
  app.option_defaults()->group("Placement");
  app.add_flag("--pin", config.pin,
               "Pin CPU replicas to cores also where the machine is not shared");
  app.add_option("--plan", config.plan,
                 "What `millrace tune` measured on this machine: a file, or none; default: what "
                 "lies in each repository's .millrace")
      ->type_name("FILE");
  AddDuration(app, "--tune-at-start", &config.tune_at_start,
              "Before it is ready, measure for so long how models run best of which no plan has "
              "anything for this machine; 0s: measure nothing");
  app.option_defaults()->group("Life of models and of the server");
  AddSandbox(app, &config.sandbox);
  AddDuration(app, "--load-timeout", &config.load_timeout, "How long a model may take to load");
  app.add_option("--required-model", config.required_models,
                 "A model without which the server isn't ready; may be given several times")
      ->type_name("NAME");
  AddDuration(
      app, "--unhealthy-after", &config.unhealthy_after,
      "How long a model may be without a replica that can serve until it counts as unready");
  AddDuration(app, "--drain-delay", &config.drain_delay,
              "From saying not ready to refusing requests, when the server is told to stop");
  AddDuration(app, "--drain-timeout", &config.drain_timeout,
              "How long requests that were read may take to be answered, when the server stops");
  app.option_defaults()->group("Log and trace");
  AddLogLevel(app, &config.log_level, "info");
  AddChoice(app, "--log-format", &config.log_format,
            {{"text", LogFormat::kText}, {"json", LogFormat::kJson}}, "text", "How it is logged");
  app.add_option("--trace-file", config.trace_file,
                 "Where requests are traced, in Chrome's trace format; made anew; default: nowhere")
      ->type_name("FILE");
  app.add_option("--trace-sample", config.trace_sample,
                 "The part of the requests that is traced, from 0 to 1; those whose `traceparent` "
                 "says that they are recorded always are")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.add_option("--trace-file-bytes", config.trace_file_bytes,
                 "How large the trace file may get; requests after that are not traced")
      ->check(CLI::Range(int64_t{1} << 10, int64_t{1} << 50))
      ->capture_default_str();
  app.add_option("--access-log", config.access_log,
                 "The part of the requests that is logged once they are answered, from 0 to 1")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  app.option_defaults()->group("Instead of serving");
  app.add_flag(
         "--check", config.check_only,
         "Load every model as when serving, read certificates and tokens, listen nowhere, and "
         "leave: 0 where all of it would serve")
      ->configurable(false);
  app.add_flag("--print-config", config.print_config,
               "Print the settings in effect, as a file for --config, and leave")
      ->configurable(false);
  app.add_flag("--version", config.show_version, "Print the versions and leave")
      ->configurable(false);
  app.option_defaults()->group("Options");
  app.footer(R"(
Examples:
  millrace-server --model-repository /models
  millrace-server --model-repository /models --grpc-listen 0.0.0.0:8001 --http-listen 0.0.0.0:8002
  millrace-server --config /etc/millrace.yaml --check
  MILLRACE_LOG_FORMAT=json millrace-server --config /etc/millrace.yaml

What else it does: millrace-server inspect --help, millrace-server tune --help.)");
}

// "Did you mean '--max-streams'?" for the first unknown flag that an error is about, else "".
std::string SuggestionFor(const CLI::App& app, const CLI::ParseError& error) {
  if (dynamic_cast<const CLI::ExtrasError*>(&error) == nullptr) return "";
  for (const absl::string_view word : absl::StrSplit(error.what(), ' ')) {
    if (!absl::StartsWith(word, "--")) continue;
    const std::string name(word.substr(2, word.find('=') - 2));
    const std::string nearest = NearestFlag(app, name);
    return nearest.empty() ? "" : absl::StrCat("Did you mean '--", nearest, "'?\n");
  }
  return "";
}

// TLS is gRPC's own, so what is encrypted can't be looked at before gRPC reads it.
void CheckGuards(const std::string& flag, const std::vector<std::string>& addresses) {
  for (const std::string& text : addresses) {
    const absl::StatusOr<ListenAddress> listen = ParseListenAddress(text);
    if (!listen.ok() || !listen->guard || absl::StartsWith(listen->address, "unix:")) continue;
    throw CLI::ValidationError(
        flag, absl::StrCat("'", text,
                           "': guard=on reads HTTP/2 before gRPC does, and with --tls-cert only "
                           "gRPC can read it. Leave guard=on out, or end TLS in a proxy in front "
                           "and leave --tls-cert out; SECURITY.md says what either means"));
  }
}

// What no flag can tell alone.
void CheckServerFlags(const ServerConfig& config) {
  if (config.show_version) return;
  if (config.model_repositories.empty()) {
    throw CLI::RequiredError("--model-repository");
  }
  if (!config.load_models.empty() && config.model_control != "explicit") {
    throw CLI::ValidationError("--load-model", "needs --model-control explicit");
  }
  if (config.tune_at_start > absl::ZeroDuration() && config.plan == "none") {
    throw CLI::ValidationError("--tune-at-start", "makes a plan, and --plan none takes none");
  }
  if (config.tls_cert.empty() != config.tls_key.empty()) {
    throw CLI::ValidationError(config.tls_cert.empty() ? "--tls-key" : "--tls-cert",
                               "--tls-cert and --tls-key need each other");
  }
  if (!config.tls_cert.empty()) {
    CheckGuards("--grpc-listen", config.grpc_listen);
    CheckGuards("--admin-listen", config.admin_listen);
  }
  if (!config.tls_client_ca.empty() && config.tls_cert.empty()) {
    throw CLI::ValidationError("--tls-client-ca", "needs --tls-cert and --tls-key");
  }
  if (!config.tls_allowed_sans.empty() && config.tls_client_ca.empty()) {
    throw CLI::ValidationError("--tls-allowed-san", "needs --tls-client-ca");
  }
  if (config.channelz && config.admin_listen.empty()) {
    throw CLI::ValidationError("--channelz", "needs --admin-listen");
  }
  if (config.max_connection_age > absl::ZeroDuration() &&
      config.max_connection_age < absl::Milliseconds(100)) {
    throw CLI::ValidationError("--max-connection-age", "expected 100ms or more, or 0s for never");
  }
  if (config.watch_poll < absl::Milliseconds(10)) {
    throw CLI::ValidationError("--watch-poll", "expected 10ms or more");
  }
  if (config.stream_window > config.max_stream_window) {
    throw CLI::ValidationError(
        "--stream-window", absl::StrCat(config.stream_window, " is more than --max-stream-window, ",
                                        config.max_stream_window));
  }
}

}  // namespace

Command ParseFlags(int argc, const char* const* argv) {
  ServerConfig server;
  InspectConfig inspect;
  TuneConfig tune;
  // The command line `millrace` has the commands below carried out by this program, in its name.
  CLI::App app("Millrace serves PyTorch models over gRPC.",
               std::filesystem::path(argv[0]).filename().string());
  AddServerFlags(app, server);
  const ConfigFile& file = AddConfigFile(app);
  const CLI::App* const inspecting = AddInspectCommand(app, inspect);
  const CLI::App* const tuning = AddTuneCommand(app, tune);
  try {
    app.parse(argc, argv);
    if (inspecting->parsed()) return inspect;
    if (tuning->parsed()) {
      CheckTune(tune);
      return tune;
    }
    CheckServerFlags(server);
    server.effective = app.config_to_str(/*default_also=*/true);
    if (server.print_config) return ExitNow{0, server.effective};
    return server;
  } catch (const CLI::ParseError& error) {
    std::ostringstream out;
    const int code = app.exit(error, out, out);
    if (code == 0) return ExitNow{0, out.str()};
    return ExitNow{app.get_subcommands().empty() ? 2 : 1,
                   absl::StrCat(file.PlaceOf(error.what()), out.str(), SuggestionFor(app, error))};
  }
}

}  // namespace millrace
