// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <deque>
#include <map>
#include <string>

#include "absl/time/time.h"
#include "server/tracing/traced_request.h"

namespace millrace {

// Requests in Chrome's trace format (the JSON array of "Trace Event Format"), which Perfetto and
// chrome://tracing show: each request as a span of its own with its stages inside, and each replica
// as a lane with the batches that it ran. Thread-compatible.
//
// The text is complete with End(); without it viewers take it all the same.
class ChromeTrace {
 public:
  // Times are told from `origin` on.
  explicit ChromeTrace(absl::Time origin) : origin_(origin) {}

  std::string Begin() const;

  // The events of a request: "rpc" from reading it to having written its answer, and in it "queue",
  // "fill", "execute" and "reply", as far as it came; and its batch, unless another request of the
  // batch has brought that.
  std::string Events(const TracedRequest& request);

  std::string End() const;

 private:
  // A replica of a model version.
  struct Lane {
    int number = 0;
    std::deque<absl::Time> batches;  // Those that are written, by their starts; the last few.
  };

  double Microseconds(absl::Time time) const { return absl::ToDoubleMicroseconds(time - origin_); }
  void AddBatch(const TracedRequest& request, std::string& out);

  const absl::Time origin_;
  std::map<std::string, Lane> lanes_;
};

}  // namespace millrace
