// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "server/inference/response.h"

namespace millrace {

// Takes answers. Thread-safe; a place is answered exactly once.
class ResponseSink {
 public:
  virtual ~ResponseSink() = default;

  // Accepts the answer for `place`. May send; never called with a lock held.
  virtual void Deliver(uint64_t place, Response&& response) = 0;
};

// The right to answer one request, once. Move-only; a Responder that is destroyed unused answers
// INTERNAL, so nobody waits for ever. Thread-compatible.
class Responder {
 public:
  Responder() = default;
  Responder(std::shared_ptr<ResponseSink> sink, uint64_t place)
      : sink_(std::move(sink)), place_(place) {}
  Responder(Responder&&) noexcept = default;
  Responder& operator=(Responder&& other) noexcept {
    if (this != &other) {
      Abandon();
      sink_ = std::move(other.sink_);
      place_ = other.place_;
    }
    return *this;
  }
  ~Responder() { Abandon(); }

  // Whether the answer is still owed.
  bool owed() const { return sink_ != nullptr; }

  // Answers. REQUIRES: owed().
  void Respond(Response&& response) {
    std::shared_ptr<ResponseSink> sink = std::move(sink_);
    sink->Deliver(place_, std::move(response));
  }

 private:
  void Abandon() {
    if (owed()) {
      Respond(Response::Error(absl::InternalError(
          "The request was dropped inside the server without an answer; this is a bug.")));
    }
  }

  std::shared_ptr<ResponseSink> sink_;
  uint64_t place_ = 0;
};

}  // namespace millrace
