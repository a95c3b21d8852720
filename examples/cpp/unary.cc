// Copyright The Millrace Authors
// SPDX-License-Identifier: Apache-2.0
//
// Sends one request to a model with an FP32 input of 16 elements and prints its answer.
//   build/examples/unary --url 127.0.0.1:8001 --model identity
#include <iostream>
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

  const std::vector<float> numbers = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const auto response =
      (*client)->Infer({.model = Argument(argc, argv, "--model", "identity"),
                        .inputs = {millrace::Tensor::Of<float>("INPUT__0", {1, 16}, numbers)}},
                       {.timeout = absl::Seconds(5)});
  if (!response.ok()) {
    std::cerr << response.status() << "\n";
    return 1;
  }

  const absl::StatusOr<const millrace::Tensor*> output = response->Output("OUTPUT__0");
  if (!output.ok()) {
    std::cerr << output.status() << "\n";
    return 1;
  }
  const absl::StatusOr<std::vector<float>> answer = (*output)->Values<float>();
  if (!answer.ok()) {
    std::cerr << answer.status() << "\n";
    return 1;
  }
  std::cout << response->model << " version " << response->version << ":";
  for (float number : *answer) std::cout << " " << number;
  std::cout << "\n";
}
