// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "server/channel/layout.h"

namespace millrace {

// One end of a replica's mailbox; the words lie in shared memory. Batches go one at a time.
// Each method says which side calls it. Post() may be called by any thread that has a batch to
// run, the others by one thread on each side.
class Mailbox {
 public:
  explicit Mailbox(MailboxWords* words) : words_(words) {}

  // Server: hands buffer `buffer` to the worker, and wakes it where it sleeps. Never blocks.
  void Post(uint32_t buffer);

  // Server: whether a batch has completed that this was not true for yet. Spins briefly if `spin`.
  bool TakeCompletion(bool spin);

  // Server: announces that it is about to sleep on the completion event. False when a batch has
  // completed meanwhile: then it must not sleep.
  bool PrepareToSleep();

  // Server: takes the announcement back after sleeping.
  void WokeUp();

  // Server: makes the mailbox new for the next process, after the last one has ended.
  void Reset();

  // Worker: waits for a batch and returns its buffer. Blocks: spins briefly, then sleeps.
  uint32_t WaitForBatch();

  // Worker: completes the batch. True when the server sleeps and must be woken by its event.
  bool Complete();

 private:
  MailboxWords* const words_;
  uint32_t taken_ = 0;  // Server: completions that TakeCompletion() has told.
};

}  // namespace millrace
