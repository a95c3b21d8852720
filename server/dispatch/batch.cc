// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/dispatch/batch.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "server/base/check.h"

namespace millrace {

int64_t Batch::Room() const {
  if (closed_) return 0;
  int64_t room = capacity_ - end_row_;
  for (const Hole& hole : holes_) room = std::max(room, hole.rows);
  return room;
}

size_t Batch::Claim(std::shared_ptr<PendingRequest> request, int64_t first_row, int64_t rows) {
  Member member = {.request = std::move(request),
                   .first_row = first_row,
                   .rows = rows,
                   .batch_row = end_row_,
                   .filling = true};
  const auto hole = std::find_if(holes_.begin(), holes_.end(),
                                 [rows](const Hole& candidate) { return candidate.rows >= rows; });
  if (hole != holes_.end()) {
    member.batch_row = hole->row;
    hole->row += rows;
    hole->rows -= rows;
    if (hole->rows == 0) holes_.erase(hole);
  } else {
    MILLRACE_CHECK(end_row_ + rows <= capacity_, "Claim() needs HasRoom().");
    end_row_ += rows;
  }
  rows_ += rows;
  ++filling_;
  summary_.Add(*member.request);
  if (vacant_ == 0) {
    members_.push_back(std::move(member));
    return members_.size() - 1;
  }
  --vacant_;
  const auto left = std::find_if(members_.begin(), members_.end(), [](const Member& other) {
    return other.vacated() && !other.filling;
  });
  *left = std::move(member);
  return static_cast<size_t>(left - members_.begin());
}

void Batch::Summary::Add(const PendingRequest& request) {
  oldest_arrival = std::min(oldest_arrival, request.arrival);
  next_expiry = std::min(next_expiry, request.expiry);
  next_deadline = std::min(next_deadline, request.deadline);
  highest_tier = std::min(highest_tier, request.tier);
  lowest_tier = std::max(lowest_tier, request.tier);
}

const Batch::Summary& Batch::summary() const {
  if (std::exchange(summary_is_old_, false)) {
    summary_ = {};
    for (const Member& member : members_) {
      if (!member.vacated()) summary_.Add(*member.request);
    }
  }
  return summary_;
}

absl::Status Batch::Fill(const PendingRequest& request, int64_t first_row, int64_t rows,
                         int64_t batch_row) {
  absl::InlinedVector<absl::Span<std::byte>, 4> areas;
  for (size_t input = 0; input < shape_->dims.size(); ++input) {
    areas.push_back(buffer_->InputRows(static_cast<int>(input), batch_row, rows));
  }
  return request.filler().Fill(first_row, rows, areas);
}

void Batch::Filled(size_t member, absl::Duration took, absl::Time end) {
  members_[member].filling = false;
  members_[member].fill_begin = end - took;
  members_[member].fill_end = end;
  --filling_;
  fill_time_ += took;
  if (members_[member].vacated()) Leave(members_[member]);
}

void Batch::Vacate(size_t member) {
  if (members_[member].vacated()) return;
  members_[member].request.reset();
  rows_ -= members_[member].rows;
  summary_is_old_ = true;
  if (!members_[member].filling) Leave(members_[member]);
}

void Batch::Leave(const Member& member) {
  ++vacant_;
  Hole hole = {member.batch_row, member.rows};
  for (size_t i = 0; i < holes_.size();) {
    const Hole other = holes_[i];
    const bool touches = other.row + other.rows == hole.row || hole.row + hole.rows == other.row;
    if (!touches) {
      ++i;
      continue;
    }
    hole = {std::min(other.row, hole.row), other.rows + hole.rows};
    holes_.erase(holes_.begin() + static_cast<std::ptrdiff_t>(i));
    i = 0;
  }
  if (hole.row + hole.rows == end_row_) {
    end_row_ = hole.row;
  } else {
    holes_.push_back(hole);
  }
}

void Batch::Seal() {
  MILLRACE_CHECK(filling_ == 0, "Rows that are being written can't move.");
  closed_ = true;
  std::erase_if(members_, [](const Member& member) { return member.vacated(); });
  if (!holes_.empty()) {
    std::sort(members_.begin(), members_.end(),
              [](const Member& a, const Member& b) { return a.batch_row < b.batch_row; });
    int64_t row = 0;
    for (Member& member : members_) {
      for (size_t input = 0; input < shape_->dims.size() && row != member.batch_row; ++input) {
        const auto from =
            buffer_->InputRows(static_cast<int>(input), member.batch_row, member.rows);
        const auto to = buffer_->InputRows(static_cast<int>(input), row, member.rows);
        std::memmove(to.data(), from.data(), from.size());
      }
      member.batch_row = row;
      row += member.rows;
    }
    holes_.clear();
  }
  end_row_ = rows_;
  buffer_->Seal(rows_);
}

}  // namespace millrace
