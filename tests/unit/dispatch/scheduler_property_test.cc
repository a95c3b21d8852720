// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// All policies together, whatever happens in whatever order. After every step, and whenever a batch
// starts:
//
//  1. Every request is answered exactly once, with its own result or an error that has a cause.
//  2. Rows get their places in the order of their flow, level and shape, but for delayed requests.
//  3. A batch has at most max_batch_size rows, of one shape; nobody runs in it who has gone,
//  expired
//     or grown too old.
//  4. No more rows wait than the queue may hold; of a flow that drops, no more than it says.
//  5. No replica is idle while somebody waits, unless a delay or a hold says so.
//  6. Every step ends, and when nobody asks any more, everything comes to its end.
//
// One thread and virtual time, hence repeatable. A policy that is new is drawn in Policies.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "tests/fakes/echo_pool.h"
#include "tests/fakes/manual_timer.h"
#include "tests/fakes/seed.h"
#include "tests/fakes/virtual_clock.h"
#include "tests/simulation/settings.h"

namespace millrace {
namespace {

constexpr size_t kShapes = 2;

// Which policies a run draws from. Those that are off stay as they are by default.
struct Policies {
  bool levels = false;     // Priorities, each level with a queue limit of its own.
  bool guard = false;      // The starvation guard.
  bool timeouts = false;   // The levels' own, which reject or delay.
  bool weights = false;    // Of flows.
  bool drops = false;      // kDropOldest and kLatest.
  bool ages = false;       // Flow::max_age.
  bool deadlines = false;  // Of requests.
  bool delays = false;     // max_queue_delay and preferred sizes.
  bool hold = false;       // For those about to return.
};

// Ends the program where a step never ends: nothing asks for the time so often otherwise.
class ImpatientClock final : public VirtualClock {
 public:
  absl::Time Now() const override {
    if (++asked_ > 1'000'000) {
      ADD_FAILURE() << "The dispatcher is busy for ever.";  // Tells the seed, too.
      std::abort();
    }
    return VirtualClock::Now();
  }
  void BeginStep() { asked_ = 0; }

 private:
  mutable int asked_ = 0;
};

// What was asked and what became of it.
struct Asked {
  uint64_t number;
  size_t client;
  int level;
  size_t shape;
  int64_t rows;
  std::vector<int32_t> values;
  bool culprit;
  absl::Time arrival;
  absl::Time deadline;    // After which it must not start.
  absl::Time delay_from;  // From when on others of its level may overtake it.
  bool answered = false;
  int64_t rows_placed = 0;   // In batches that have started.
  int64_t rows_running = 0;  // Now.
  int64_t rows_done = 0;
  bool lost_replica = false;
};

// A flow and who asks in its name: a stream, or a connection with a caller for each call.
struct Client {
  Flow::Options options;  // As they were before the flow took them; without on_parked.
  Overflow overflow;
  bool calls;
  std::shared_ptr<const Flow> flow;
  std::shared_ptr<Caller> stream;
  int parked = 0;
  bool gone = false;
};

class Simulation final {
 public:
  Simulation(uint64_t seed, const Policies& policies)
      : policies_(policies), random_(seed), sink_(std::make_shared<Sink>(this)) {
    MakePool();
    for (int64_t i = Pick(2, 5); i > 0; --i) AddClient();
  }
  ~Simulation() { over_ = true; }

  void Run() {
    for (int64_t step = Pick(10, 120); step > 0; --step) {
      Step();
      CheckNow();
      if (testing::Test::HasFailure()) return;
    }
    Drain();
  }

 private:
  class Sink final : public ResponseSink {
   public:
    explicit Sink(Simulation* simulation) : simulation_(simulation) {}
    void Deliver(uint64_t place, Response&& response) override {
      simulation_->OnAnswer(simulation_->asked_[place], response);
    }

   private:
    Simulation* const simulation_;
  };

  class Replica final : public BatchRunner {
   public:
    explicit Replica(Simulation* simulation) : simulation_(simulation) {}

    void Run(std::unique_ptr<Batch> batch) override {
      ASSERT_EQ(batch_, nullptr) << "A replica runs one batch at a time.";
      ASSERT_FALSE(dead) << "A dead replica gets no batch.";
      batch_ = std::move(batch);
      started_ = simulation_->clock_.Now();
      simulation_->OnStart(*batch_);
    }
    int lease_cores() const override { return 0; }

    bool busy() const { return batch_ != nullptr; }
    bool idle() const { return batch_ == nullptr && !dead; }

    void Complete() {
      std::unique_ptr<Batch> batch = std::move(batch_);
      auto& buffer = static_cast<PlainBatchBuffer&>(*batch->buffer());
      const auto outputs = RunEcho(buffer, simulation_->pool_->signature().batched());
      simulation_->OnEnd(*batch, outputs.ok());
      simulation_->pool_->dispatcher().Finish(this, std::move(batch), outputs,
                                              simulation_->clock_.Now() - started_, 0);
    }

    void Die() {
      dead = true;
      std::unique_ptr<Batch> batch = std::move(batch_);
      static_cast<PlainBatchBuffer&>(*batch->buffer()).ScribbleOverInputs();
      simulation_->OnDeath(*batch);
      simulation_->pool_->dispatcher().Requeue(this, std::move(batch), "died");
    }

    bool dead = false;

   private:
    Simulation* const simulation_;
    std::unique_ptr<Batch> batch_;
    absl::Time started_;
  };

  int64_t Pick(int64_t from, int64_t to) {
    return std::uniform_int_distribution<int64_t>(from, to)(random_);
  }
  bool Chance(int percent) { return Pick(1, 100) <= percent; }
  absl::Duration PickMs(int64_t from, int64_t to) { return absl::Milliseconds(Pick(from, to)); }

  // ---- What is drawn ----

  void MakePool() {
    constexpr int64_t kBatchSizes[] = {0, 1, 2, 4, 8};
    EchoPool::Options options;
    options.max_batch_size = kBatchSizes[Pick(0, 4)];
    most_batch_rows_ = std::max<int64_t>(1, options.max_batch_size);
    const int64_t replicas = Pick(1, 3);
    options.buffers = static_cast<size_t>(replicas) + kShapes + 1;
    options.dispatch = DrawOptions();
    dispatch_ = options.dispatch;
    pool_ = std::make_unique<EchoPool>(std::move(options), clock_, timer_, leases_);
    for (int64_t i = 0; i < replicas; ++i) {
      pool_->dispatcher().AddRunner(&replicas_.emplace_back(this));
    }
  }

  Dispatcher::Options DrawOptions() {
    Dispatcher::Options options;
    options.max_queue_rows = Pick(1, 16);
    if (policies_.levels) {
      options.levels.resize(static_cast<size_t>(Pick(1, 3)));
      for (QueuePolicy& level : options.levels) level.max_rows = Chance(50) ? Pick(1, 8) : 0;
    }
    if (policies_.timeouts) {
      for (QueuePolicy& level : options.levels) {
        if (Chance(60)) level.default_timeout = PickMs(1, 8);
        if (Chance(50)) level.timeout_action = QueuePolicy::TimeoutAction::kDelay;
      }
    }
    if (policies_.delays) {
      if (Chance(60)) options.policy.max_queue_delay = PickMs(1, 5);
      if (Chance(50)) options.policy.preferred_sizes = {Pick(1, 4)};
    }
    if (policies_.guard) options = WithStarvationGuard(options, PickMs(1, 10));
    if (policies_.hold) options = WithHold(options);
    return options;
  }

  void AddClient() {
    constexpr Overflow kOverflows[] = {Overflow::kBlock, Overflow::kReject, Overflow::kDropOldest,
                                       Overflow::kLatest};
    Client& client = clients_.emplace_back();
    client.overflow = kOverflows[Pick(0, policies_.drops ? 3 : 1)];
    client.calls = client.overflow == Overflow::kReject && Chance(50);
    client.options.overflow = client.overflow;
    if (policies_.weights) client.options.weight = static_cast<int>(Pick(1, Flow::kMostWeight));
    if (client.overflow == Overflow::kDropOldest) client.options.most_waiting = Pick(1, 4);
    if (policies_.ages && Chance(50)) client.options.max_age = PickMs(1, 8);
    client.flow = std::make_shared<const Flow>(
        Flow::Options{.weight = client.options.weight,
                      .overflow = client.options.overflow,
                      .most_waiting = client.options.most_waiting,
                      .max_age = client.options.max_age,
                      .on_parked = [&client](int change) { client.parked += change; }});
    client.stream = std::make_shared<Caller>(client.flow);
  }

  // ---- What happens ----

  void Step() {
    clock_.BeginStep();
    const int64_t what = Pick(1, 100);
    if (what <= 55) {
      Submit();
    } else if (what <= 80) {
      if (Replica* const replica = AnyBusyReplica()) replica->Complete();
    } else if (what <= 83) {
      if (Replica* const replica = AnyBusyReplica()) replica->Die();
    } else if (what <= 86) {
      ReviveAll();
    } else if (what <= 88) {
      Cancel();
    } else {
      Advance(absl::Microseconds(Pick(0, 3000)));
    }
  }

  void Submit() {
    const auto index = static_cast<size_t>(Pick(0, static_cast<int64_t>(clients_.size()) - 1));
    Client& client = clients_[index];
    if (client.parked > 0 || client.gone) return;  // A stream reads no more then.
    const int level = static_cast<int>(Pick(1, dispatch_.levels.size()));
    const QueuePolicy& policy = dispatch_.levels[static_cast<size_t>(level) - 1];
    const bool delays = policy.timeout_action == QueuePolicy::TimeoutAction::kDelay;
    Asked asked = {.number = asked_.size(),
                   .client = index,
                   .level = level,
                   .shape = static_cast<size_t>(Chance(75) ? 0 : 1),
                   .rows = pool_->signature().batched() && Chance(25) ? Pick(2, 12) : 1,
                   .values = {},
                   .culprit = Chance(3),
                   .arrival = clock_.Now(),
                   .deadline = absl::InfiniteFuture(),
                   .delay_from = absl::InfiniteFuture()};
    asked.values.resize(static_cast<size_t>(asked.rows) * (asked.shape + 1));
    for (int32_t& value : asked.values) value = next_value_++;
    if (asked.culprit) asked.values[asked.values.size() / 2] = kCulprit;
    absl::Time own = absl::InfiniteFuture();
    if (policies_.deadlines && Chance(40)) own = clock_.Now() + absl::Microseconds(Pick(0, 8000));
    (delays ? asked.delay_from : asked.deadline) = asked.arrival + policy.default_timeout;
    asked.deadline = std::min(asked.deadline, own);

    asked_.push_back(asked);
    auto pending =
        pool_->Pending(asked.values, asked.rows, Responder(sink_, asked.number),
                       client.calls ? std::make_shared<Caller>(client.flow) : client.stream);
    pending->id = absl::StrCat(asked.number);
    pending->deadline = own;
    pending->level = level;
    pending->overflow = client.overflow;
    pool_->dispatcher().Submit(std::move(pending));
  }

  void Cancel() {
    const auto index = static_cast<size_t>(Pick(0, static_cast<int64_t>(clients_.size()) - 1));
    Client& client = clients_[index];
    if (client.calls || client.gone) return;
    client.gone = true;
    client.stream->Cancel();
    pool_->dispatcher().Cancel(*client.stream);
    for (const Asked& asked : asked_) {
      if (asked.client != index || asked.rows_placed > 0) continue;
      EXPECT_TRUE(asked.answered) << "Who has gone waits for nothing.";
    }
    AddClient();
  }

  void ReviveAll() {
    for (Replica& replica : replicas_) {
      if (!std::exchange(replica.dead, false)) continue;
      pool_->dispatcher().AddRunner(&replica);
    }
  }

  void Advance(absl::Duration duration) {
    const absl::Time end = clock_.Now() + duration;
    while (timer_.NextTime() <= end) {
      clock_.AdvanceTo(std::max(clock_.Now(), timer_.NextTime()));
      timer_.RunDue(clock_.Now());
      CheckNow();
      if (testing::Test::HasFailure()) return;
    }
    clock_.AdvanceTo(end);
  }

  Replica* AnyBusyReplica() {
    std::vector<Replica*> busy;
    for (Replica& replica : replicas_) {
      if (replica.busy()) busy.push_back(&replica);
    }
    return busy.empty() ? nullptr : busy[static_cast<size_t>(Pick(0, busy.size() - 1))];
  }

  // ---- What is noted and checked ----

  Asked& AskedBy(const Batch::Member& member) {
    size_t place = 0;
    EXPECT_TRUE(absl::SimpleAtoi(member.request->id, &place));
    return asked_[place];
  }

  void OnStart(const Batch& batch) {
    int64_t rows = 0;
    for (const Batch::Member& member : batch.members()) {
      Asked& asked = AskedBy(member);
      EXPECT_EQ(batch.shape(), *member.request->row_shape()) << "A batch has rows of one shape.";
      EXPECT_FALSE(asked.answered && asked.rows == member.rows) << "Its answer is given.";
      if (!batch.retry) {
        CheckMayStart(asked);
        asked.rows_placed += member.rows;
      }
      asked.rows_running += member.rows;
      rows += member.rows;
    }
    for (const Batch::Member& member : batch.members()) CheckTurn(AskedBy(member));
    EXPECT_EQ(rows, batch.rows());
    EXPECT_GE(rows, 1);
    EXPECT_LE(rows, most_batch_rows_);
  }

  void CheckMayStart(const Asked& asked) const {
    const Client& client = clients_[asked.client];
    EXPECT_FALSE(client.gone) << "Who has gone takes no row.";
    if (asked.rows_placed > 0) return;  // Rows of it have run or do.
    EXPECT_GT(asked.deadline, clock_.Now()) << "An expired request takes no row.";
    EXPECT_LE(clock_.Now() - asked.arrival, client.options.max_age)
        << "A request that has grown too old takes no row.";
  }

  // Nobody before it in its line has rows that wait, but those who were just given up: replicas
  // are started before anybody is told.
  void CheckTurn(const Asked& asked) {
    for (const Asked& earlier : asked_) {
      if (&earlier == &asked) return;
      const bool same_line = earlier.client == asked.client && earlier.level == asked.level &&
                             earlier.shape == asked.shape;
      const bool delayed = earlier.delay_from <= clock_.Now();
      if (!same_line || earlier.answered || delayed) continue;
      if (earlier.rows_placed < earlier.rows) overtaken_.emplace_back(earlier.number, asked.number);
    }
  }

  void OnEnd(const Batch& batch, bool ok) {
    for (const Batch::Member& member : batch.members()) {
      AskedBy(member).rows_running -= member.rows;
      if (ok) AskedBy(member).rows_done += member.rows;
    }
  }

  void OnDeath(const Batch& batch) {
    OnEnd(batch, false);
    for (const Batch::Member& member : batch.members()) AskedBy(member).lost_replica = true;
  }

  void OnAnswer(Asked& asked, const Response& response) {
    if (over_) return;  // Where a check has failed, some are left over.
    EXPECT_FALSE(asked.answered) << "Two answers to request " << asked.number << ".";
    asked.answered = true;
    EXPECT_EQ(Fault(asked, response), "") << "Request " << asked.number << ".";
  }

  // What is wrong with an answer; empty where nothing is.
  std::string Fault(const Asked& asked, const Response& response) const {
    const Client& client = clients_[asked.client];
    const std::string text = response.status.ToString();
    switch (response.status.code()) {
      case absl::StatusCode::kOk:
        if (asked.culprit) return "The model can't run this.";
        return Int32s(response.outputs[0].data) == Echoes(asked.values) ? "" : "Wrong values.";
      case absl::StatusCode::kInternal:
        return asked.culprit || asked.lost_replica ? "" : text;
      case absl::StatusCode::kCancelled:
        return client.gone ? "" : "Nobody cancelled.";
      case absl::StatusCode::kDeadlineExceeded:  // Also when it could not be met any more.
        return asked.deadline != absl::InfiniteFuture() ? "" : "It has no deadline.";
      case absl::StatusCode::kResourceExhausted:
        return client.overflow != Overflow::kBlock ? "" : text;
      case absl::StatusCode::kAborted:
        if (client.overflow == Overflow::kDropOldest || client.overflow == Overflow::kLatest) {
          return "";
        }
        return clock_.Now() - asked.arrival >= client.options.max_age ? "" : text;
      default:
        return text;
    }
  }

  // Whether nothing of it has ever run, and nothing is decided.
  static bool Waits(const Asked& asked) { return !asked.answered && asked.rows_placed == 0; }

  void CheckNow() {
    for (const auto& [earlier, later] : std::exchange(overtaken_, {})) {
      EXPECT_TRUE(asked_[earlier].answered)
          << "Request " << later << " overtook " << earlier << ".";
    }
    const bool idle = std::any_of(replicas_.begin(), replicas_.end(),
                                  [](const Replica& replica) { return replica.idle(); });
    std::vector<int64_t> waiting(clients_.size(), 0);
    std::vector<int64_t> most_rows(dispatch_.levels.size(), 0);  // Of one request of the level.
    for (const Asked& asked : asked_) {
      int64_t& most = most_rows[static_cast<size_t>(asked.level) - 1];
      most = std::max(most, asked.rows);
      if (asked.answered) continue;
      if (Waits(asked)) {
        ++waiting[asked.client];
        EXPECT_GT(asked.deadline, clock_.Now()) << "It is told when it expires.";
      }
      const bool may_wait =
          policies_.hold || clock_.Now() < asked.arrival + dispatch_.policy.max_queue_delay;
      if (!idle || may_wait) continue;
      EXPECT_EQ(asked.rows_done + asked.rows_running, asked.rows)
          << "A replica is idle while request " << asked.number << " waits.";
    }
    for (size_t i = 0; i < clients_.size(); ++i) {
      const Client& client = clients_[i];
      EXPECT_LE(client.parked, waiting[i]);
      EXPECT_GE(client.parked, 0);
      if (client.overflow == Overflow::kLatest || client.overflow == Overflow::kDropOldest) {
        EXPECT_LE(waiting[i],
                  client.overflow == Overflow::kLatest ? 1 : client.options.most_waiting);
      }
    }
    CheckQueue(most_rows);
  }

  // An empty queue takes any request, however large it is, and every queue takes back what staged
  // batches give back.
  void CheckQueue(const std::vector<int64_t>& most_rows) const {
    int64_t bound = static_cast<int64_t>(kShapes * most_rows.size()) * most_batch_rows_;
    for (size_t i = 0; i < most_rows.size(); ++i) {
      const int64_t own = dispatch_.levels[i].max_rows;
      bound += std::max(own > 0 ? own : dispatch_.max_queue_rows, most_rows[i]);
    }
    EXPECT_LE(pool_->dispatcher().gauges().queued_rows, bound);
  }

  // Lets everything end. Nothing but completions and the time may be needed for that, and of
  // either no more than there are rows.
  void Drain() {
    ReviveAll();
    int64_t rounds = 100;
    for (const Asked& asked : asked_) rounds += 4 * asked.rows;
    for (; rounds > 0 && !testing::Test::HasFailure(); --rounds) {
      clock_.BeginStep();
      if (Replica* const replica = AnyBusyReplica()) {
        replica->Complete();
        CheckNow();
        continue;
      }
      const bool owed = std::any_of(asked_.begin(), asked_.end(),
                                    [](const Asked& asked) { return !asked.answered; });
      if (!owed && Quiet()) break;  // Rows of a request that has failed may be left.
      Advance(absl::Milliseconds(6));
    }
    if (testing::Test::HasFailure()) return;
    for (size_t i = 0; i < asked_.size(); ++i) {
      EXPECT_TRUE(asked_[i].answered) << "Request " << i << " starves.";
    }
    for (const Client& client : clients_) EXPECT_EQ(client.parked, 0);
    EXPECT_TRUE(Quiet()) << "Something is left over.";
  }

  bool Quiet() const {
    const Dispatcher::Gauges gauges = pool_->dispatcher().gauges();
    return gauges.queued_rows == 0 && gauges.in_flight == 0 &&
           gauges.idle_runners == static_cast<int>(replicas_.size()) &&
           gauges.free_buffers == replicas_.size() + kShapes + 1;
  }

  const Policies policies_;
  std::mt19937_64 random_;
  ImpatientClock clock_;
  ManualTimer timer_;
  CoreLeases leases_{1};  // Nobody needs one.
  const std::shared_ptr<Sink> sink_;
  Dispatcher::Options dispatch_;
  int64_t most_batch_rows_ = 0;
  std::deque<Asked> asked_;
  std::vector<std::pair<uint64_t, uint64_t>> overtaken_;  // The earlier and the later request.
  std::deque<Client> clients_;
  std::deque<Replica> replicas_;
  int32_t next_value_ = 0;
  bool over_ = false;
  std::unique_ptr<EchoPool> pool_;  // Last: it answers what is left when it goes.
};

void RunMany(const Policies& policies) {
  const uint64_t seed = TestSeed();
  const absl::Time enough = Clock::Real().Now() + absl::Seconds(3);  // For slow builds.
  for (uint64_t i = 0; i < 300 && Clock::Real().Now() < enough; ++i) {
    SCOPED_TRACE(testing::Message() << "MILLRACE_SEED=" << seed + i);
    Simulation(seed + i, policies).Run();
    ASSERT_FALSE(testing::Test::HasFailure());
  }
}

TEST(SchedulerProperty, HoldsWithoutAnyPolicy) { RunMany({}); }

TEST(SchedulerProperty, HoldsWithPriorityLevelsAndWeights) {
  RunMany({.levels = true, .weights = true});
}

TEST(SchedulerProperty, HoldsWithTheStarvationGuard) { RunMany({.levels = true, .guard = true}); }

TEST(SchedulerProperty, HoldsWithDeadlines) { RunMany({.deadlines = true}); }

TEST(SchedulerProperty, HoldsWithTimeoutsOfLevels) { RunMany({.levels = true, .timeouts = true}); }

TEST(SchedulerProperty, HoldsWithFlowsThatDrop) { RunMany({.drops = true}); }

TEST(SchedulerProperty, HoldsWithAges) { RunMany({.ages = true}); }

TEST(SchedulerProperty, HoldsWithDelays) { RunMany({.delays = true}); }

TEST(SchedulerProperty, HoldsWithTheHold) { RunMany({.hold = true}); }

constexpr Policies kAll = {.levels = true,
                           .guard = true,
                           .timeouts = true,
                           .weights = true,
                           .drops = true,
                           .ages = true,
                           .deadlines = true,
                           .delays = true,
                           .hold = true};

TEST(SchedulerProperty, HoldsWithAllPoliciesTogether) { RunMany(kAll); }

// The hold excuses idle replicas; without it they are checked.
TEST(SchedulerProperty, HoldsWithAllPoliciesButTheHold) {
  Policies policies = kAll;
  policies.hold = false;
  RunMany(policies);
}

}  // namespace
}  // namespace millrace
