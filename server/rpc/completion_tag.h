// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace millrace {

// What an I/O thread calls for each event of a completion queue: every tag that is given to gRPC is
// a CompletionTag*, so the thread does `static_cast<CompletionTag*>(tag)->Complete(ok)`. Complete()
// may delete the tag.
class CompletionTag {
 public:
  virtual void Complete(bool ok) = 0;

 protected:
  ~CompletionTag() = default;
};

// A tag that is a part of the object whose method it calls.
template <typename Owner, void (Owner::*kMethod)(bool ok)>
class MethodTag final : public CompletionTag {
 public:
  explicit MethodTag(Owner* owner) : owner_(owner) {}
  MethodTag(const MethodTag&) = delete;
  MethodTag& operator=(const MethodTag&) = delete;

  void Complete(bool ok) override { (owner_->*kMethod)(ok); }

 private:
  Owner* const owner_;
};

}  // namespace millrace
