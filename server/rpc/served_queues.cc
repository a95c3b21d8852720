// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
#include "server/rpc/served_queues.h"

#include "server/rpc/completion_tag.h"

namespace millrace {
namespace {

void ServeOne(grpc::ServerCompletionQueue& queue) {
  void* tag;
  bool ok;
  while (queue.Next(&tag, &ok)) static_cast<CompletionTag*>(tag)->Complete(ok);
}

}  // namespace

void ServedQueues::Add(grpc::ServerBuilder& builder, int count) {
  for (int i = 0; i < count; ++i) queues_.push_back(builder.AddCompletionQueue());
}

void ServedQueues::Serve() {
  for (const auto& queue : queues_) {
    threads_.push_back(std::make_unique<Thread>("io", [raw = queue.get()] { ServeOne(*raw); }));
  }
}

void ServedQueues::Shutdown() {
  for (const auto& queue : queues_) queue->Shutdown();
  if (threads_.empty()) {  // Never started: nothing but the queues' own shutdown is in them.
    for (const auto& queue : queues_) ServeOne(*queue);
  }
  threads_.clear();
  queues_.clear();
}

}  // namespace millrace
