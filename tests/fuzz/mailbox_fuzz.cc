// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// Whatever a worker scribbles over its mailbox and whenever, the server's end never blocks, tells
// of a completion where the count isn't what it knows, and sleeps over none. A step is five bytes:
// what is done, by either end, and the value that is written.
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "server/base/check.h"
#include "server/channel/mailbox.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace millrace;
  constexpr size_t kStep = 1 + sizeof(uint32_t);
  MailboxWords words = {};
  Mailbox server(&words);
  uint32_t told = 0;
  for (; size >= kStep; data += kStep, size -= kStep) {
    uint32_t value;
    std::memcpy(&value, data + 1, sizeof(value));
    const bool completed = words.completed != told;
    switch (data[0] % 8) {
      case 0:
        server.Post(value);
        MILLRACE_CHECK(words.buffer == value, "What is posted is there.");
        break;
      case 1:
      case 2:
        MILLRACE_CHECK(server.TakeCompletion(data[0] % 8 == 1) == completed, "One is told of.");
        told += completed ? 1 : 0;
        break;
      case 3:
        MILLRACE_CHECK(server.PrepareToSleep() != completed, "It doesn't sleep over one.");
        MILLRACE_CHECK(words.server_sleeps == (completed ? 0 : 1), "It says whether it sleeps.");
        break;
      case 4:
        server.WokeUp();
        MILLRACE_CHECK(words.server_sleeps == 0, "It is awake.");
        break;
      case 5:
        server.Reset();
        told = 0;
        MILLRACE_CHECK(!server.TakeCompletion(false), "A new process has completed nothing.");
        break;
      case 6:
        words.completed = value;
        break;
      default:
        words.posted = words.worker_sleeps = words.server_sleeps = value;
    }
  }
  return 0;
}
