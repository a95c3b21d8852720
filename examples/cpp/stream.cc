// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// Streams 100 requests to a model with an FP32 input of 16 elements; the answers come in order.
//   build/examples/stream --url 127.0.0.1:8001 --model identity
#include <cstdint>
#include <iostream>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "client/client.h"
#include "examples/cpp/arguments.h"

int main(int argc, char** argv) {
  absl::SetMutexDeadlockDetectionMode(absl::OnDeadlockCycle::kIgnore);  // see client/client.h
  const auto client = millrace::Client::Connect(Argument(argc, argv, "--url", "127.0.0.1:8001"));
  if (!client.ok()) {
    std::cerr << client.status() << "\n";
    return 1;
  }

  int64_t answers = 0, errors = 0;
  const auto on_answer = [&](const millrace::Answer& answer) {
    if (answer.index != answers++) std::cerr << "out of order\n";  // never happens
    if (answer.response.ok()) return;
    ++errors;
    std::cerr << "request " << answer.id << ": " << answer.response.status() << "\n";
  };

  const auto stream = (*client)->OpenStream({.window = 16, .on_answer = on_answer});
  const std::string model = Argument(argc, argv, "--model", "identity");
  for (int i = 0; i < 100; ++i) {
    const std::vector<float> numbers(16, static_cast<float>(i));
    // Blocks while 16 requests are under way.
    const absl::Status sent =
        stream->Send({.model = model,
                      .id = std::to_string(i),
                      .inputs = {millrace::Tensor::Of<float>("INPUT__0", {1, 16}, numbers)}});
    if (!sent.ok()) break;  // the stream has ended; Close() says why
  }
  const absl::Status end = stream->Close();
  std::cout << answers << " answers in order, " << errors << " errors; the stream ended "
            << (end.ok() ? "well" : end.ToString()) << "\n";
  return end.ok() && errors == 0 ? 0 : 1;
}
