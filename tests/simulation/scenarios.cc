// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/scenarios.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/simulation/experiment.h"
#include "tests/simulation/oracles.h"
#include "tests/simulation/settings.h"

namespace millrace {
namespace {

// A model that is cheap per row and dear per batch, as on a GPU.
constexpr BatchTime kLaunchHeavy = {absl::Milliseconds(5), absl::Microseconds(100)};
constexpr BatchTime kQuick = {absl::Milliseconds(1), absl::Microseconds(100)};

double Ms(absl::Duration duration) { return absl::ToDoubleMilliseconds(duration); }

// What a scenario's experiments have in common.
class Bench {
 public:
  Bench(std::string scenario, const Effort& effort, Report& report)
      : scenario_(std::move(scenario)), effort_(effort), report_(report) {}

  const std::string& scenario() const { return scenario_; }

  // An experiment that has run for `measured`, scaled. A failure is a figure of its own.
  std::unique_ptr<Experiment> Run(const std::string& setting, const SimulatedModel::Options& model,
                                  const std::vector<Load>& loads,
                                  absl::Duration measured = absl::Seconds(10)) {
    auto experiment = std::make_unique<Experiment>(model, loads, effort_.seed);
    const absl::Status status = experiment->Run(
        {.warmup = 0.1 * measured * effort_.scale, .measured = measured * effort_.scale});
    report_.requests += experiment->entries().size();
    if (!status.ok()) {
      Add(setting, absl::StrCat("failures: ", status.message()), 1, "", AtMost(0));
    }
    return experiment;
  }

  void Add(const std::string& setting, const std::string& name, double value,
           const std::string& unit, std::optional<Goal> goal = {}) {
    report_.Add({scenario_, setting, name, value, unit, goal});
  }
  void Plot(const std::string& plot, const std::string& series, double x, double y) {
    report_.Plot({plot, series, x, y});
  }

 private:
  const std::string scenario_;
  const Effort effort_;
  Report& report_;
};

// ---- When a batch goes ----

SimulatedModel::Options Model(const BatchTime& time, int64_t max_batch_size, int replicas = 1) {
  SimulatedModel::Options model;
  model.shapes = {time};
  model.max_batch_size = max_batch_size;
  model.replicas = replicas;
  model.dispatch.max_queue_rows = 1024;
  return model;
}

// Streams whose clients answer each response with their next request, half a millisecond later.
Load Streams(int clients) {
  Load load;
  load.clients = clients;
  load.think = About(absl::Microseconds(500), 0.3);
  return load;
}

// People, who think for as long as they please.
Load Users(int clients, absl::Duration think) {
  Load load;
  load.clients = clients;
  load.think = Exponential(think);
  return load;
}

double MeanBatch(const Experiment& experiment) {
  return static_cast<double>(experiment.model().rows_run()) /
         static_cast<double>(experiment.model().batches_run());
}

struct Variant {
  std::string name;
  Dispatcher::Options dispatch;
};

std::vector<Variant> Variants(const Dispatcher::Options& options) {
  return {{"eager", options},
          {"timer 0.5 ms", WithDelay(options, absl::Microseconds(500))},
          {"timer 2 ms", WithDelay(options, absl::Milliseconds(2))},
          {"hold", WithHold(options)}};
}

// What the hold is to make of a load, compared with going at once.
struct HoldGoals {
  double throughput = 0.98;
  std::optional<double> mean_latency = {};
};

void CompareBatching(Bench& bench, SimulatedModel::Options model, const std::vector<Load>& loads,
                     const HoldGoals& goals) {
  double eager_throughput = 0;
  double eager_mean = 0;
  for (const Variant& variant : Variants(model.dispatch)) {
    model.dispatch = variant.dispatch;
    const auto experiment = bench.Run(variant.name, model, loads, absl::Seconds(20));
    const double throughput = experiment->RowsPerSecond();
    const Summary sent = experiment->SentByAll();
    bench.Add(variant.name, "throughput", throughput, "/s");
    bench.Add(variant.name, "mean latency", sent.mean_ms, "ms");
    bench.Add(variant.name, "p99 latency", sent.p99_ms, "ms");
    bench.Add(variant.name, "mean batch", MeanBatch(*experiment), "rows");
    if (variant.name == "eager") {
      eager_throughput = throughput;
      eager_mean = sent.mean_ms;
    }
    bench.Plot(absl::StrCat("hold: ", bench.scenario()), variant.name, 0,
               throughput / eager_throughput);
    bench.Plot(absl::StrCat("hold p99: ", bench.scenario()), variant.name, 0, sent.p99_ms);
    if (variant.name != "hold") continue;
    bench.Add(variant.name, "throughput / eager", throughput / eager_throughput, "",
              AtLeast(goals.throughput));
    if (goals.mean_latency) {
      bench.Add(variant.name, "mean latency / eager", sent.mean_ms / eager_mean, "",
                AtMost(*goals.mean_latency));
    }
  }
}

}  // namespace

void ThirtyTwoStreams(const Effort& effort, Report& report) {
  Bench bench("32 streams", effort, report);
  CompareBatching(bench, Model(kLaunchHeavy, 64), {Streams(32)}, {.throughput = 1.2});
}

void ThirtyTwoStreamsOfAQuickModel(const Effort& effort, Report& report) {
  Bench bench("32 streams, quick model", effort, report);
  CompareBatching(bench, Model({absl::Microseconds(300), absl::Microseconds(100)}, 64),
                  {Streams(32)}, {.throughput = 0.98});
}

void SixtyFourStreamsOnFourReplicas(const Effort& effort, Report& report) {
  Bench bench("64 streams, 4 replicas", effort, report);
  CompareBatching(bench, Model(kLaunchHeavy, 64, 4), {Streams(64)}, {.throughput = 1.2});
}

void FastStreamsAmongSlowUsers(const Effort& effort, Report& report) {
  Bench bench("16 streams, 200 users", effort, report);
  CompareBatching(bench, Model(kLaunchHeavy, 64),
                  {Streams(16), Users(200, absl::Milliseconds(100))}, {.throughput = 1.15});
}

void FiveHundredUsers(const Effort& effort, Report& report) {
  Bench bench("500 users", effort, report);
  CompareBatching(bench, Model({absl::Milliseconds(2), absl::Microseconds(100)}, 64),
                  {Users(500, absl::Milliseconds(200))},
                  {.throughput = 0.98, .mean_latency = 1.02});
}

void Bursts(const Effort& effort, Report& report) {
  Bench bench("bursts", effort, report);
  SimulatedModel::Options model = Model(kLaunchHeavy, 64);
  Load load = Poisson(50, model.Capacity());
  load.on = Exponential(absl::Milliseconds(200));
  load.off = Exponential(absl::Milliseconds(800));
  CompareBatching(bench, model, {load}, {.throughput = 0.98, .mean_latency = 1.02});
}

void LoadCurve(const Effort& effort, Report& report) {
  Bench bench("calls", effort, report);
  SimulatedModel::Options model = Model(kLaunchHeavy, 32);
  const double capacity = model.Capacity();
  std::vector<double> eager_means;
  for (const Variant& variant : Variants(model.dispatch)) {
    model.dispatch = variant.dispatch;
    std::vector<double> means;
    for (const double share : {0.01, 0.03, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95}) {
      // The same number of calls at every load.
      const auto experiment = bench.Run(variant.name, model, {Poisson(200, share * capacity)},
                                        absl::Seconds(5) / share);
      const Summary sent = experiment->SentByAll();
      means.push_back(sent.mean_ms);
      bench.Plot("load: throughput", variant.name, share, experiment->RowsPerSecond());
      bench.Plot("load: p99", variant.name, share, sent.p99_ms);
      if (share != 0.01 && share != 0.1 && share != 0.8) continue;
      const std::string setting = absl::StrFormat("%s, %.0f %% load", variant.name, 100 * share);
      bench.Add(setting, "mean latency", sent.mean_ms, "ms");
      bench.Add(setting, "p99 latency", sent.p99_ms, "ms");
    }
    if (variant.name == "eager") eager_means = means;
    if (variant.name != "hold") continue;
    double worst = 0;
    for (size_t i = 0; i < means.size(); ++i) worst = std::max(worst, means[i] / eager_means[i]);
    bench.Add("hold, any load", "mean latency / eager, at most", worst, "", AtMost(1.02));
  }
}

// ---- Who goes into it ----

namespace {

// Clients that ask again at once, `window` requests at a time.
Load Backlogged(int clients, int window) {
  Load load;
  load.clients = clients;
  load.window = window;
  return load;
}

// 63 flows with windows of 1, 2, 4, … 256: so many that each has a request waiting whenever its
// turn comes, also those with a window of 1.
std::vector<Load> MixedWindows() {
  std::vector<Load> loads;
  for (int window = 1; window <= 256; window *= 2) loads.push_back(Backlogged(7, window));
  return loads;
}

std::vector<double> AllShares(const Experiment& experiment, size_t loads) {
  std::vector<double> shares;
  for (size_t load = 0; load < loads; ++load) {
    for (const double share : experiment.Shares(load)) shares.push_back(share);
  }
  return shares;
}

double Mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

void CompareWindows(Bench& bench, const std::string& setting, int64_t max_queue_rows) {
  SimulatedModel::Options model = Model(kQuick, 8);
  model.dispatch.max_queue_rows = max_queue_rows;
  const std::vector<Load> loads = MixedWindows();
  const auto experiment = bench.Run(setting, model, loads, absl::Seconds(20));
  bench.Add(setting, "Jain's index of 63 flows", JainIndex(AllShares(*experiment, loads.size())),
            "", AtLeast(0.98));
  bench.Add(setting, "throughput / capacity", experiment->RowsPerSecond() / model.Capacity(), "",
            AtLeast(0.98));
  for (size_t load = 0; load < loads.size(); ++load) {
    bench.Plot(absl::StrCat("fairness: ", setting), "rows/s", loads[load].window,
               Mean(experiment->Shares(load)));
  }
}

}  // namespace

void EqualFlows(const Effort& effort, Report& report) {
  Bench bench("equal flows, windows of 1 to 256", effort, report);
  CompareWindows(bench, "queue of 4,096 rows", 4096);
}

void EqualFlowsAtAFullQueue(const Effort& effort, Report& report) {
  Bench bench("equal flows, windows of 1 to 256", effort, report);
  CompareWindows(bench, "queue of 128 rows", 128);
}

void Weights(const Effort& effort, Report& report) {
  Bench bench("weights", effort, report);
  SimulatedModel::Options model = Model(kQuick, 16);
  model.dispatch.max_queue_rows = 4096;
  std::vector<Load> loads;
  for (const int weight : {1, 2, 5, 10}) {
    Load load = Backlogged(5, 64);
    load.weight = weight;
    loads.push_back(load);
  }
  const auto experiment = bench.Run("1, 2, 5, 10", model, loads, absl::Seconds(20));
  double worst = 0;
  double weights = 0;
  for (const Load& load : loads) weights += load.clients * load.weight;
  for (size_t load = 0; load < loads.size(); ++load) {
    const double due = experiment->RowsPerSecond() * loads[load].weight / weights;
    for (const double share : experiment->Shares(load)) {
      worst = std::max(worst, std::abs(share / due - 1));
    }
    bench.Plot("weights", "rows/s", loads[load].weight, Mean(experiment->Shares(load)));
  }
  bench.Add("1, 2, 5, 10", "farthest of 20 flows from its due", 100 * worst, "%", AtMost(5));
}

void LargeRequests(const Effort& effort, Report& report) {
  Bench bench("requests of many rows", effort, report);
  SimulatedModel::Options model = Model(kQuick, 16);
  model.dispatch.max_queue_rows = 4096;
  Load large = Backlogged(8, 16);
  large.rows = HeavyTail(3 * model.max_batch_size);
  const auto experiment =
      bench.Run("1 row, and 1 to 48", model, {Backlogged(8, 64), large}, absl::Seconds(20));
  bench.Add("1 row, and 1 to 48", "Jain's index of 16 flows, by rows",
            JainIndex(AllShares(*experiment, 2)), "", AtLeast(0.98));
  bench.Add("1 row, and 1 to 48", "throughput / capacity",
            experiment->RowsPerSecond() / model.Capacity(), "", AtLeast(0.9));
}

void ModestBesideGreedy(const Effort& effort, Report& report) {
  Bench bench("modest beside greedy", effort, report);
  const SimulatedModel::Options model = Model(kQuick, 16);
  const double batch = Ms(kQuick.Of(model.max_batch_size));
  Load modest = Backlogged(1, 1);
  modest.think = About(absl::Milliseconds(1), 0.3);
  const auto experiment = bench.Run("window 1, window 256", model, {modest, Backlogged(1, 256)});
  // The batch that runs, the one that is staged, and its own.
  bench.Add("window 1, window 256", "p99 latency of the modest / batch time",
            experiment->SentBy(0).p99_ms / batch, "", AtMost(3));
  bench.Add("window 1, window 256", "p99 latency of the greedy / batch time",
            experiment->SentBy(1).p99_ms / batch, "");
}

void UrgentBesideBacklog(const Effort& effort, Report& report) {
  Bench bench("urgent beside a backlog", effort, report);
  const SimulatedModel::Options model = Model(kQuick, 16);
  const absl::Duration batch = kQuick.Of(model.max_batch_size);
  Load urgent = Users(1, 3 * batch);
  // Just enough for the batch that runs, the one that is staged, and its own. It asks for less than
  // its share, so what it takes out of turn is paid when it comes again.
  urgent.timeout = Uniform(3.2 * batch, 4 * batch);
  const auto experiment = bench.Run("32 flows of window 8", model, {urgent, Backlogged(32, 8)});
  bench.Add("32 flows of window 8", "missed by the urgent", 100 * experiment->SentBy(0).missed(),
            "%", AtMost(1));
}

// ---- Priorities ----

namespace {

SimulatedModel::Options TwoLevels() {
  SimulatedModel::Options model = Model(kQuick, 16);
  model.dispatch.max_queue_rows = 4096;
  model.dispatch.levels = {QueuePolicy{}, QueuePolicy{}};
  return model;
}

Load AtLevel(Load load, int level) {
  load.level = level;
  return load;
}

}  // namespace

void PriorityIsStrict(const Effort& effort, Report& report) {
  Bench bench("two priority levels", effort, report);
  const SimulatedModel::Options model = TwoLevels();
  const double batch = Ms(kQuick.Of(model.max_batch_size));
  const Load low = AtLevel(Backlogged(32, 8), 2);
  {
    const std::string setting = "high at 30 % load";
    const auto experiment =
        bench.Run(setting, model, {AtLevel(Poisson(32, 0.3 * model.Capacity()), 1), low});
    bench.Add(setting, "p99 latency of the high / batch time", experiment->SentBy(0).p99_ms / batch,
              "", AtMost(3));
    bench.Add(setting, "throughput / capacity", experiment->RowsPerSecond() / model.Capacity(), "",
              AtLeast(0.98));
  }
  const std::string setting = "high takes all there is";
  const auto experiment = bench.Run(setting, model, {AtLevel(Backlogged(32, 8), 1), low});
  bench.Add(setting, "the low's share of the throughput",
            100 * experiment->RowsPerSecond(1) / experiment->RowsPerSecond(), "%", AtMost(1));
}

void StarvationGuard(const Effort& effort, Report& report) {
  Bench bench("starvation guard", effort, report);
  SimulatedModel::Options model = TwoLevels();
  constexpr absl::Duration kGuard = absl::Milliseconds(100);
  const double batch = Ms(kQuick.Of(model.max_batch_size));
  const Load high = AtLevel(Backlogged(32, 8), 1);
  const Load low = AtLevel(Poisson(8, 0.05 * model.Capacity()), 2);
  bench.Add("none", "p99 latency of the low",
            bench.Run("none", model, {high, low})->SentBy(1).p99_ms, "ms");
  model.dispatch = WithStarvationGuard(model.dispatch, kGuard);
  const auto experiment = bench.Run("100 ms", model, {high, low});
  bench.Add("100 ms", "p99 latency of the low", experiment->SentBy(1).p99_ms, "ms",
            AtMost(Ms(kGuard) + 3 * batch));
  bench.Add("100 ms", "the low's share of the throughput",
            100 * experiment->RowsPerSecond(1) / experiment->RowsPerSecond(), "%", AtLeast(4.5));
  // A crowd of overdue requests leaves the high level every other place.
  Load crowd = AtLevel(Poisson(64, 3 * model.Capacity()), 2);
  crowd.overflow = Overflow::kReject;
  const std::string crowded = "100 ms, the low at 3 × capacity";
  const auto beside = bench.Run(crowded, model, {high, crowd});
  bench.Add(crowded, "the high's share of the throughput",
            100 * beside->RowsPerSecond(0) / beside->RowsPerSecond(), "%", AtLeast(49));
}

// ---- Shapes ----

void Shapes(const Effort& effort, Report& report) {
  Bench bench("two shapes, one in ten the rarer", effort, report);
  SimulatedModel::Options model = Model(kLaunchHeavy, 32);
  model.shapes.push_back(kLaunchHeavy);
  model.dispatch.max_queue_rows = 100'000;
  const OracleServer server = {.max_batch_size = model.max_batch_size, .shapes = model.shapes};
  for (const double share : {0.1, 0.2, 0.3, 0.4, 0.5, 0.6}) {
    const std::string setting = absl::StrFormat("%.0f %% load", 100 * share);
    Load load = Poisson(50, share * model.Capacity());
    load.shape = Sometimes(0.1);
    const auto experiment = bench.Run(setting, model, {load});
    const auto rarer = [&](const Entry& entry) {
      return entry.shape == 1 && experiment->Measured(entry);
    };
    const Summary ours = Summarise(experiment->entries(), rarer);
    const Summary theirs = Summarise(HeadOfLineBatching(experiment->entries(), server), rarer);
    bench.Plot("shapes", "groups", share, ours.p99_ms);
    bench.Plot("shapes", "head of line", share, theirs.p99_ms);
    if (share < 0.2) continue;
    bench.Add(setting, "p99 latency of the rarer", ours.p99_ms, "ms");
    bench.Add(setting, "the same, head of line", theirs.p99_ms, "ms");
    bench.Add(setting, "mean latency / head of line's", ours.mean_ms / theirs.mean_ms, "",
              AtMost(1));
    bench.Add(setting, "p99 latency / head of line's", ours.p99_ms / theirs.p99_ms, "", AtMost(1));
  }
}

void RareShapeBesideBacklog(const Effort& effort, Report& report) {
  Bench bench("rare shape beside a backlog", effort, report);
  SimulatedModel::Options model = Model(kLaunchHeavy, 32);
  model.shapes.push_back(kLaunchHeavy);
  Load rare = Users(1, absl::Milliseconds(20));
  rare.shape = Always(1);
  const auto experiment = bench.Run("32 flows of window 8", model, {rare, Backlogged(32, 8)});
  bench.Add("32 flows of window 8", "p99 latency of the rare", experiment->SentBy(0).p99_ms, "ms");
  bench.Add("32 flows of window 8", "p99 latency of the others", experiment->SentBy(1).p99_ms,
            "ms");
}

// ---- Too much, or too late ----

namespace {

// Calls with deadlines, from half the capacity to three times as much.
void CompareGoodput(Bench& bench, const std::string& queue, int64_t max_queue_rows) {
  SimulatedModel::Options model = Model(kLaunchHeavy, 32);
  model.dispatch.max_queue_rows = max_queue_rows;
  double peak = 0;
  double last = 0;
  for (const double share : {0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0}) {
    const std::string setting = absl::StrFormat("%s, %.2g × capacity", queue, share);
    Load load = Poisson(64, share * model.Capacity());
    load.overflow = Overflow::kReject;
    load.timeout = About(absl::Milliseconds(50), 0.5);
    const auto experiment = bench.Run(setting, model, {load});
    last = experiment->GoodRowsPerSecond();
    peak = std::max(peak, last);
    bench.Plot("goodput", queue, share, last);
    bench.Plot("goodput", "offered", share, share * model.Capacity());
    if (share == 0.5 || share == 1.0 || share == 3.0) {
      bench.Add(setting, "answered in time", last, "/s");
      bench.Add(setting, "answered, also late", experiment->RowsPerSecond(), "/s");
      bench.Add(setting, "mean batch", MeanBatch(*experiment), "rows");
    }
  }
  bench.Add(queue, "goodput at 3 × capacity / peak", last / peak, "", AtLeast(0.95));
}

}  // namespace

void GoodputOfAShortQueue(const Effort& effort, Report& report) {
  Bench bench("overload, deadlines of 25 to 75 ms", effort, report);
  CompareGoodput(bench, "queue of 128 rows", 128);
}

void GoodputOfALongQueue(const Effort& effort, Report& report) {
  Bench bench("overload, deadlines of 25 to 75 ms", effort, report);
  CompareGoodput(bench, "queue of 4,096 rows", 4096);
}

void AcceptedLatency(const Effort& effort, Report& report) {
  Bench bench("overload, no deadlines", effort, report);
  const SimulatedModel::Options model = Model(kLaunchHeavy, 32);
  Load load = Poisson(64, 3 * model.Capacity());
  load.overflow = Overflow::kReject;
  const auto experiment = bench.Run("3 × capacity", model, {load});
  // The queue, of which a flow that just sent much has up to a quarter more than the others; what
  // runs, what is staged, and its own batch.
  const double most = 1250 * static_cast<double>(model.dispatch.max_queue_rows) / model.Capacity() +
                      3 * Ms(kLaunchHeavy.Of(model.max_batch_size));
  bench.Add("3 × capacity", "p99 latency of the accepted", experiment->SentByAll().p99_ms, "ms",
            AtMost(most));
  bench.Add("3 × capacity", "throughput / capacity", experiment->RowsPerSecond() / model.Capacity(),
            "", AtLeast(0.98));
}

void Deadlines(const Effort& effort, Report& report) {
  Bench bench("deadlines of 12 to 60 ms", effort, report);
  SimulatedModel::Options model = Model(kLaunchHeavy, 32);
  model.dispatch.max_queue_rows = 4096;
  const OracleServer server = {.max_batch_size = model.max_batch_size, .shapes = model.shapes};
  constexpr int kFlows = 8;
  for (const double share : {0.3, 0.5, 0.7, 0.8, 0.9, 0.95}) {
    const std::string setting = absl::StrFormat("%.0f %% load", 100 * share);
    Load load = Poisson(kFlows, share * model.Capacity());
    load.overflow = Overflow::kReject;
    load.timeout = Uniform(absl::Milliseconds(12), absl::Milliseconds(60));
    const auto experiment = bench.Run(setting, model, {load}, absl::Seconds(20));
    const Summary ours = experiment->SentByAll();
    const auto measured = [&](const Entry& entry) { return experiment->Measured(entry); };
    std::vector<Entry> oracle;
    for (const auto then : {TooSlowForTheFirst::kCutTheBatch, TooSlowForTheFirst::kGiveThemUp,
                            TooSlowForTheFirst::kLoseTheFewer}) {
      auto served = EarliestDeadlineFirst(experiment->entries(), server, then);
      if (oracle.empty() ||
          Summarise(served, measured).missed() < Summarise(oracle, measured).missed()) {
        oracle = std::move(served);  // The best of them.
      }
    }
    const Summary theirs = Summarise(oracle, measured);
    double worst = -1;
    for (int flow = 0; flow < kFlows; ++flow) {
      const Summary of_flow = Summarise(
          oracle, [&](const Entry& entry) { return measured(entry) && entry.client == flow; });
      worst = std::max(worst, experiment->SentByClient(flow).missed() - of_flow.missed());
    }
    bench.Plot("deadlines", "Millrace", share, 100 * ours.missed());
    bench.Plot("deadlines", "earliest deadline first", share, 100 * theirs.missed());
    const auto goal = share <= 0.8 ? std::optional<Goal>(AtMost(1)) : std::nullopt;
    bench.Add(setting, "missed", 100 * ours.missed(), "%");
    bench.Add(setting, "missed by the oracle", 100 * theirs.missed(), "%");
    bench.Add(setting, "missed more than the oracle", 100 * (ours.missed() - theirs.missed()),
              "points", goal);
    bench.Add(setting, "the same, of the worst of 8 flows", 100 * worst, "points", goal);
  }
}

// ---- Live video ----

namespace {

constexpr BatchTime kDetector = {absl::Milliseconds(20), absl::Milliseconds(10)};
constexpr absl::Duration kFrame = absl::Milliseconds(20);

SimulatedModel::Options Detector() { return Model(kDetector, 8); }

// Eight cameras that together bring five times as many frames as the detector can take.
Load Cameras(Overflow overflow) {
  Load load;
  load.clients = 8;
  load.overflow = overflow;
  load.interval = About(kFrame, 0.05);
  return load;
}

void WatchCameras(Bench& bench, const std::string& setting, const Load& cameras,
                  absl::Duration most_age) {
  const SimulatedModel::Options model = Detector();
  const auto experiment = bench.Run(setting, model, {cameras}, absl::Seconds(60));
  const Summary frames = experiment->SentBy(0);
  bench.Add(setting, "p50 age at the answer", frames.p50_ms, "ms");
  bench.Add(setting, "p99 age at the answer", frames.p99_ms, "ms", AtMost(Ms(most_age)));
  bench.Add(setting, "throughput / capacity", experiment->RowsPerSecond() / model.Capacity(), "",
            AtLeast(0.95));
  bench.Add(setting, "Jain's index of 8 cameras", JainIndex(experiment->Shares(0)), "",
            AtLeast(0.98));
}

}  // namespace

// At most: the wait for its newer frame, the batch that runs, and its own.
void LatestFrames(const Effort& effort, Report& report) {
  Bench bench("cameras at 5 × capacity", effort, report);
  WatchCameras(bench, "latest", Cameras(Overflow::kLatest), kFrame + 2 * kDetector.Of(8));
}

void DroppedOldestFrames(const Effort& effort, Report& report) {
  Bench bench("cameras at 5 × capacity", effort, report);
  Load cameras = Cameras(Overflow::kDropOldest);
  cameras.most_waiting = 4;
  WatchCameras(bench, "drop-oldest, 4 wait", cameras, 4 * kFrame + 2 * kDetector.Of(8));
}

void OldFrames(const Effort& effort, Report& report) {
  Bench bench("cameras at 5 × capacity", effort, report);
  Load cameras = Cameras(Overflow::kDropOldest);
  cameras.max_age = absl::Milliseconds(150);
  WatchCameras(bench, "max-age 150 ms", cameras, cameras.max_age + kDetector.Of(8));
}

const std::vector<Scenario>& Scenarios() {
  static const auto& scenarios = *new std::vector<Scenario>{
      {"ThirtyTwoStreams", ThirtyTwoStreams},
      {"ThirtyTwoStreamsOfAQuickModel", ThirtyTwoStreamsOfAQuickModel},
      {"SixtyFourStreamsOnFourReplicas", SixtyFourStreamsOnFourReplicas},
      {"FastStreamsAmongSlowUsers", FastStreamsAmongSlowUsers},
      {"FiveHundredUsers", FiveHundredUsers},
      {"Bursts", Bursts},
      {"LoadCurve", LoadCurve},
      {"EqualFlows", EqualFlows},
      {"EqualFlowsAtAFullQueue", EqualFlowsAtAFullQueue},
      {"Weights", Weights},
      {"LargeRequests", LargeRequests},
      {"ModestBesideGreedy", ModestBesideGreedy},
      {"UrgentBesideBacklog", UrgentBesideBacklog},
      {"PriorityIsStrict", PriorityIsStrict},
      {"StarvationGuard", StarvationGuard},
      {"Shapes", Shapes},
      {"RareShapeBesideBacklog", RareShapeBesideBacklog},
      {"GoodputOfAShortQueue", GoodputOfAShortQueue},
      {"GoodputOfALongQueue", GoodputOfALongQueue},
      {"AcceptedLatency", AcceptedLatency},
      {"Deadlines", Deadlines},
      {"LatestFrames", LatestFrames},
      {"DroppedOldestFrames", DroppedOldestFrames},
      {"OldFrames", OldFrames},
  };
  return scenarios;
}

}  // namespace millrace
