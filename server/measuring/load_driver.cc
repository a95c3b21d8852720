// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/measuring/load_driver.h"

#include <algorithm>
#include <optional>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/measuring/median.h"

namespace millrace {
namespace {

// Requests under way for each replica: the one that runs, and the next.
constexpr int kForEachReplica = 2;
// A replica's speed is told by so many batches: from the end of the first to that of the last.
constexpr int64_t kEnoughBatches = 3;
// By so much a run may be longer than it should where batches take long.
constexpr int kLonger = 4;
// The first part of a run doesn't count for latencies: caches are cold and queues empty.
constexpr double kWarmingUp = 0.2;

}  // namespace

std::shared_ptr<LoadDriver> LoadDriver::Create(Options options, Clock& clock, Submit submit,
                                               Cancel cancel) {
  return std::shared_ptr<LoadDriver>(
      new LoadDriver(options, clock, std::move(submit), std::move(cancel)));
}

LoadDriver::LoadDriver(Options options, Clock& clock, Submit submit, Cancel cancel)
    : options_(options), clock_(clock), submit_(std::move(submit)), cancel_(std::move(cancel)) {}

absl::StatusOr<Trial> LoadDriver::Run() {
  begin_ = clock_.Now();
  switch (options_.load.kind) {
    case Load::Kind::kFullBatches:
      for (int i = 0; i < kForEachReplica * options_.replicas; ++i) SendOne();
      WaitForWork();
      break;
    case Load::Kind::kOneRequest:
      SendOne();
      WaitForWork();
      break;
    case Load::Kind::kAtRandom:
      SendAtRandom();
      break;
  }
  {
    MutexLock lock(mutex_);
    ending_ = true;
  }
  const bool answered = WaitForAnswers();
  MutexLock lock(mutex_);
  if (!error_.ok()) return error_;
  if (!answered || answers_.empty()) {
    return absl::DeadlineExceededError(absl::StrCat(
        answers_.empty() ? "no request was answered within "
                         : absl::StrCat(in_flight_, " requests weren't answered within "),
        absl::FormatDuration(options_.patience)));
  }
  return Result();
}

uint64_t LoadDriver::TakePlace() {
  sent_.push_back(clock_.Now());
  ++in_flight_;
  return sent_.size() - 1;
}

void LoadDriver::SendOne() {
  uint64_t place;
  {
    MutexLock lock(mutex_);
    place = TakePlace();
  }
  submit_(Responder(shared_from_this(), place));
}

void LoadDriver::SendAtRandom() {
  std::mt19937_64 random(1);
  std::exponential_distribution<double> gap(options_.load.rate);
  const absl::Time end = begin_ + options_.length;
  for (absl::Time due = begin_; due < end; due += absl::Seconds(gap(random))) {
    {
      MutexLock lock(mutex_);
      while (clock_.Now() < due && error_.ok()) clock_.WaitUntil(changed_, mutex_, due);
      if (!error_.ok()) return;
    }
    SendOne();
  }
}

void LoadDriver::Deliver(uint64_t place, Response&& response) {
  std::optional<uint64_t> next;
  {
    MutexLock lock(mutex_);
    const absl::Time now = clock_.Now();
    --in_flight_;
    if (response.status.ok()) {
      answers_.push_back({.when = now, .took = now - sent_[place]});
      Work& work = work_[response.timings.replica];
      if (work.batches++ == 0) work.first = now;
      work.last = now;
    } else if (error_.ok() && !(ending_ && absl::IsCancelled(response.status))) {
      error_ = response.status;
    }
    // In one step with what has come, so that the run doesn't end in between.
    if (!ending_ && error_.ok() && options_.load.kind != Load::Kind::kAtRandom) next = TakePlace();
    // The one who waits isn't woken for each answer: that would cost more than a small model.
    if (ending_ || IsOver(now) || !error_.ok()) changed_.NotifyAll();
  }
  if (next) submit_(Responder(shared_from_this(), *next));
}

bool LoadDriver::HasWorked() const {
  const size_t replicas =
      options_.load.kind == Load::Kind::kOneRequest ? 1 : static_cast<size_t>(options_.replicas);
  return work_.size() >= replicas && std::all_of(work_.begin(), work_.end(), [](const auto& each) {
           return each.second.batches >= kEnoughBatches;
         });
}

bool LoadDriver::IsOver(absl::Time now) const {
  if (now >= begin_ + kLonger * options_.length) return !answers_.empty();
  return now >= begin_ + options_.length && HasWorked();
}

void LoadDriver::WaitForWork() {
  const absl::Time end = begin_ + options_.length;
  const absl::Time latest = begin_ + kLonger * options_.length;
  const absl::Time hopeless = begin_ + kLonger * options_.length + options_.patience;
  MutexLock lock(mutex_);
  for (absl::Time now = begin_; error_.ok(); now = clock_.Now()) {
    if (IsOver(now) || now >= hopeless) return;
    clock_.WaitUntil(changed_, mutex_, now < end ? end : now < latest ? latest : hopeless);
  }
}

bool LoadDriver::WaitForAnswers() {
  const absl::Time latest = clock_.Now() + options_.patience;
  // What came at random counts, and what runs is let run; nobody needs the others.
  if (options_.load.kind != Load::Kind::kAtRandom) cancel_();
  MutexLock lock(mutex_);
  while (in_flight_ > 0 && clock_.Now() < latest) clock_.WaitUntil(changed_, mutex_, latest);
  return in_flight_ == 0;
}

double LoadDriver::RowsPerSecond() const {
  const auto rows = static_cast<double>(options_.rows);
  if (options_.load.kind != Load::Kind::kFullBatches) {
    const absl::Duration took = answers_.back().when - begin_;
    return static_cast<double>(answers_.size()) * rows / absl::ToDoubleSeconds(took);
  }
  double sum = 0;
  for (const auto& [replica, work] : work_) {
    const bool once = work.batches == 1;
    const absl::Duration took = once ? work.first - begin_ : work.last - work.first;
    sum += rows * static_cast<double>(once ? 1 : work.batches - 1) / absl::ToDoubleSeconds(took);
  }
  return sum;
}

Trial LoadDriver::Result() const {
  std::vector<absl::Duration> latencies;
  for (const Answer& answer : answers_) {
    if (answer.when >= begin_ + kWarmingUp * options_.length) latencies.push_back(answer.took);
  }
  if (latencies.empty()) latencies.push_back(answers_.back().took);
  return {
      .rows_per_second = RowsPerSecond(), .p50 = Median(latencies), .p99 = Percentile99(latencies)};
}

}  // namespace millrace
