# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Sends one request with the stock client (pip install tritonclient[grpc]==2.73.0).

    python examples/python/unary.py --url 127.0.0.1:8001 --model identity
"""

import argparse

import numpy as np
import tritonclient.grpc as grpcclient


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="127.0.0.1:8001")
    parser.add_argument("--model", default="identity")
    args = parser.parse_args()

    numbers = np.arange(16, dtype=np.float32).reshape(1, 16)
    tensor = grpcclient.InferInput("INPUT__0", numbers.shape, "FP32")
    tensor.set_data_from_numpy(numbers)
    with grpcclient.InferenceServerClient(args.url) as client:
        result = client.infer(args.model, [tensor], client_timeout=5)
    print(*result.as_numpy("OUTPUT__0")[0])


if __name__ == "__main__":
    main()
