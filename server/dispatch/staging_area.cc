// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/staging_area.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "server/base/check.h"
#include "server/base/status.h"

namespace millrace {
namespace {

bool IsStaged(const PendingRequest& request) {
  return request.places > (WaitingRoom::Holds(request) ? 1 : 0);
}

// Whether a member is all there, and nobody of its line behind it is staged.
bool CanBePutBack(const Batch::Member& member) {
  if (member.rows < member.request->rows()) return false;
  const PendingRequest* const next = WaitingFlows::NextInTier(*member.request);
  return next == nullptr || !IsStaged(*next);
}

}  // namespace

// ---- Gathering ----

Batch* StagingArea::Find(const RowShape& shape) const {
  for (const auto& batch : staged_) {
    if (!batch->retry && batch->shape() == shape) return batch.get();
  }
  return nullptr;
}

absl::StatusOr<Batch*> StagingArea::Open(const PendingRequest& request, int64_t most_rows,
                                         double row_cost) {
  MILLRACE_ASSIGN_OR_RETURN(Batch* const batch, OpenBuffer(request.row_shape(), most_rows));
  batch->row_cost = row_cost;
  batch->turn = FairQueue::ServedOf(request);
  return batch;
}

absl::StatusOr<Batch*> StagingArea::OpenBuffer(const std::shared_ptr<const RowShape>& shape,
                                               int64_t most_rows) {
  BatchBuffer* const buffer = free_buffers_.back();
  MILLRACE_ASSIGN_OR_RETURN(const int64_t capacity, buffer->Open(*shape, most_rows));
  free_buffers_.pop_back();
  return staged_.emplace_back(std::make_unique<Batch>(buffer, shape, capacity)).get();
}

StagingArea::Fill StagingArea::Stage(PendingRequest& request, Batch& batch) {
  const std::shared_ptr<PendingRequest> keep = request.self;
  const int64_t first_row = request.rows_claimed;
  const int64_t rows = batch.PieceOf(request.rows() - first_row);
  flows_.AddPlace(keep);
  Fill fill = Join(batch, {.request = keep, .first_row = first_row, .rows = rows});
  room_.Claim(request, rows, batch.row_cost * static_cast<double>(rows));
  if (!WaitingRoom::Holds(request)) flows_.RemovePlace(request);
  return fill;
}

StagingArea::Fill StagingArea::Join(Batch& batch, const Batch::Member& rows) {
  const size_t member = batch.Claim(rows.request, rows.first_row, rows.rows);
  ExpiresAt(rows.request->expiry);
  return {&batch,         member,    rows.request,
          rows.first_row, rows.rows, batch.members()[member].batch_row};
}

bool StagingArea::YieldTo(int tier, int64_t rows, Batch& batch) {
  if (batch.retry || batch.in_vain || batch.summary().lowest_tier <= tier) return false;
  const std::vector<Batch::Member>& members = batch.members();
  size_t latest = members.size();
  int64_t yielding = 0;
  for (size_t i = 0; i < members.size(); ++i) {
    const Batch::Member& member = members[i];
    if (member.vacated() || member.filling) continue;
    const PendingRequest& request = *member.request;
    if (request.tier <= tier || request.out_of_turn) continue;
    yielding += member.rows;
    if (!CanBePutBack(member)) continue;
    const PendingRequest* const last =
        latest == members.size() ? nullptr : members[latest].request.get();
    if (last == nullptr || request.tier > last->tier ||
        (request.tier == last->tier && request.arrival > last->arrival)) {
      latest = i;
    }
  }
  if (latest == members.size() || batch.capacity() - batch.rows() + yielding < rows) return false;
  return PutBack(batch, latest);
}

bool StagingArea::PutBack(Batch& batch, size_t member) {
  if (!CanBePutBack(batch.members()[member])) return false;
  const std::shared_ptr<PendingRequest> request = batch.members()[member].request;
  batch.Vacate(member);
  request->rows_claimed = 0;
  request->out_of_turn = false;
  room_.PutBack(*request, batch.row_cost * static_cast<double>(request->rows()));
  return true;
}

void StagingArea::RunAgain(std::vector<Retry> batches, bool first) {
  // From the last to the first, since each is put before those of its flow that wait.
  for (auto batch = batches.rbegin(); batch != batches.rend(); ++batch) {
    for (auto member = batch->rbegin(); member != batch->rend(); ++member) {
      ExpiresAt(member->request->expiry);
      flows_.AddPlace(member->request);
    }
  }
  retries_.insert(first ? retries_.begin() : retries_.end(),
                  std::make_move_iterator(batches.begin()), std::make_move_iterator(batches.end()));
}

void StagingArea::GatherRetries(Fills& fills) {
  while (!retries_.empty() && HasBuffer()) {
    const Retry retry = std::move(retries_.front());
    retries_.pop_front();
    if (retry.empty()) continue;
    int64_t rows = 0;
    for (const Batch::Member& member : retry) rows += member.rows;
    const absl::StatusOr<Batch*> opened = OpenBuffer(retry.front().request->row_shape(), rows);
    MILLRACE_CHECK(opened.ok() && (*opened)->capacity() == rows,
                   "What fitted a buffer once fits again.");
    Batch& batch = **opened;
    for (const Batch::Member& member : retry) fills.push_back(Join(batch, member));
    batch.retry = true;
    batch.Close();
  }
}

// ---- Leaving ----

void StagingArea::Remove(PendingRequest& request) {
  if (request.places == 0) return;
  const std::shared_ptr<PendingRequest> keep = request.self;  // It may have no other.
  for (const auto& batch : staged_) {
    for (size_t i = 0; i < batch->members().size() && request.places > 0; ++i) {
      const Batch::Member& member = batch->members()[i];
      if (member.request.get() != &request) continue;
      if (!batch->retry) {
        room_.queue().Refund(request, batch->row_cost * static_cast<double>(member.rows));
      }
      batch->Vacate(i);
      flows_.RemovePlace(request);
    }
  }
  for (Retry& retry : retries_) {
    std::erase_if(retry, [&](const Batch::Member& member) {
      if (member.request.get() != &request) return false;
      flows_.RemovePlace(request);
      return true;
    });
  }
}

bool StagingArea::FreeEmptyBatches() {
  const auto empty = [&](const std::unique_ptr<Batch>& batch) {
    if (batch->rows() > 0 || batch->filling() > 0) return false;
    free_buffers_.push_back(batch->buffer());
    return true;
  };
  return std::erase_if(staged_, empty) > 0;
}

std::vector<PendingRequest*> StagingArea::Expired(absl::Time now) {
  std::vector<PendingRequest*> expired;
  next_expiry_ = absl::InfiniteFuture();
  const auto look_at = [&](const Batch::Member& member) {
    if (member.vacated() || WaitingRoom::Holds(*member.request)) return;
    if (member.request->expiry <= now) {
      expired.push_back(member.request.get());
    } else {
      ExpiresAt(member.request->expiry);
    }
  };
  for (const auto& batch : staged_) {
    for (const Batch::Member& member : batch->members()) look_at(member);
  }
  for (const Retry& retry : retries_) {
    for (const Batch::Member& member : retry) look_at(member);
  }
  return expired;
}

// ---- Starting ----

std::unique_ptr<Batch> StagingArea::Take(const Batch& batch) {
  const auto found =
      std::find_if(staged_.begin(), staged_.end(),
                   [&](const std::unique_ptr<Batch>& one) { return one.get() == &batch; });
  std::unique_ptr<Batch> taken = std::move(*found);
  staged_.erase(found);
  return taken;
}

int64_t StagingArea::rows() const {
  int64_t rows = 0;
  for (const auto& batch : staged_) rows += batch->rows();
  return rows;
}

double StagingArea::cost() const {
  double cost = 0;
  for (const auto& batch : staged_) cost += static_cast<double>(batch->rows()) * batch->row_cost;
  return cost;
}

absl::Time StagingArea::oldest_arrival() const {
  absl::Time oldest = absl::InfiniteFuture();
  for (const auto& batch : staged_) oldest = std::min(oldest, batch->summary().oldest_arrival);
  return oldest;
}

}  // namespace millrace
