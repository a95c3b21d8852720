// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "tests/simulation/experiment.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace millrace {

Experiment::Experiment(SimulatedModel::Options model, std::vector<Load> loads, uint64_t seed)
    : loads_(std::move(loads)),
      journal_(std::make_shared<Journal>(loop_.clock())),
      model_(std::move(model), loop_, seed) {
  Random seeds(seed);
  for (size_t load = 0; load < loads_.size(); ++load) {
    for (int i = 0; i < loads_[load].clients; ++i) {
      clients_.emplace_back(loads_[load], static_cast<int>(clients_.size()), loop_, model_,
                            *journal_, seeds());
      load_of_.push_back(load);
    }
  }
}

absl::Status Experiment::Run(const Times& times) {
  begin_ = loop_.now() + times.warmup;
  end_ = begin_ + times.measured;
  const absl::Time last = end_ + times.afterwards;
  for (Client& client : clients_) client.Start(last);
  loop_.RunToEnd(last + absl::Hours(1));
  if (journal_->owed() > 0) {
    return absl::InternalError(absl::StrCat(journal_->owed(), " of ", entries().size(),
                                            " requests have no answer after an hour"));
  }
  if (!model_.Quiet()) return absl::InternalError("the dispatcher still has something to do");
  return absl::OkStatus();
}

Summary Experiment::SentBy(size_t load) const {
  return Summarise(entries(), [&](const Entry& entry) {
    return Measured(entry) && load_of_[static_cast<size_t>(entry.client)] == load;
  });
}

Summary Experiment::SentByAll() const {
  return Summarise(entries(), [&](const Entry& entry) { return Measured(entry); });
}

Summary Experiment::SentByClient(int client) const {
  return Summarise(entries(),
                   [&](const Entry& entry) { return Measured(entry) && entry.client == client; });
}

double Experiment::Rate(absl::FunctionRef<bool(const Entry&)> picks) const {
  int64_t rows = 0;
  for (const Entry& entry : entries()) {
    if (entry.ok() && Inside(entry.answered) && picks(entry)) rows += entry.rows;
  }
  return static_cast<double>(rows) / absl::ToDoubleSeconds(end_ - begin_);
}

double Experiment::RowsPerSecond(size_t load) const {
  return Rate(
      [&](const Entry& entry) { return load_of_[static_cast<size_t>(entry.client)] == load; });
}

double Experiment::RowsPerSecond() const {
  return Rate([](const Entry& /*entry*/) { return true; });
}

double Experiment::GoodRowsPerSecond() const {
  return Rate([](const Entry& entry) { return entry.good(); });
}

std::vector<double> Experiment::Shares(size_t load) const {
  std::vector<double> rows(clients_.size(), 0);
  for (const Entry& entry : entries()) {
    if (!entry.ok() || !Inside(entry.answered)) continue;
    rows[static_cast<size_t>(entry.client)] += static_cast<double>(entry.rows);
  }
  std::vector<double> shares;
  for (size_t client = 0; client < rows.size(); ++client) {
    if (load_of_[client] != load) continue;
    shares.push_back(rows[client] / absl::ToDoubleSeconds(end_ - begin_));
  }
  return shares;
}

}  // namespace millrace
