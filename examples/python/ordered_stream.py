# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Streams 100 requests with the stock client; the answers come in the order of the requests.

    python examples/python/ordered_stream.py --url 127.0.0.1:8001 --model identity
"""

import argparse
import queue

import numpy as np
import tritonclient.grpc as grpcclient

REQUESTS = 100
WINDOW = 16  # requests under way; the server reads this far ahead


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="127.0.0.1:8001")
    parser.add_argument("--model", default="identity")
    args = parser.parse_args()

    answers: queue.Queue = queue.Queue()
    with grpcclient.InferenceServerClient(args.url) as client:
        client.start_stream(
            callback=lambda result, error: answers.put((result, error)),
            headers={"millrace-window": str(WINDOW)},
        )
        for i in range(REQUESTS):
            if i >= WINDOW:
                check(answers, i - WINDOW)
            numbers = np.full((1, 16), i, dtype=np.float32)
            tensor = grpcclient.InferInput("INPUT__0", numbers.shape, "FP32")
            tensor.set_data_from_numpy(numbers)
            client.async_stream_infer(args.model, [tensor], request_id=str(i))
        for i in range(REQUESTS - WINDOW, REQUESTS):
            check(answers, i)
        client.stop_stream()
    print(f"{REQUESTS} answers in order")


def check(answers: queue.Queue, expected: int) -> None:
    """Takes the next answer and makes sure that it belongs to request `expected`."""
    result, error = answers.get(timeout=30)
    if error is not None:
        raise SystemExit(f"request {expected}: {error}")
    assert result.get_response().id == str(expected)
    assert result.as_numpy("OUTPUT__0")[0, 0] == expected


if __name__ == "__main__":
    main()
