# Copyright The Millrace Authors
# SPDX-License-Identifier: Apache-2.0
"""Sends 32 requests at once from one thread with the stock client's asyncio interface.

    python examples/python/asyncio_unary.py --url 127.0.0.1:8001 --model identity
"""

import argparse
import asyncio

import numpy as np
import tritonclient.grpc.aio as grpcclient


async def infer(client: grpcclient.InferenceServerClient, model: str, number: int) -> float:
    numbers = np.full((1, 16), number, dtype=np.float32)
    tensor = grpcclient.InferInput("INPUT__0", numbers.shape, "FP32")
    tensor.set_data_from_numpy(numbers)
    result = await client.infer(model, [tensor], client_timeout=5)
    return float(result.as_numpy("OUTPUT__0")[0, 0])


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="127.0.0.1:8001")
    parser.add_argument("--model", default="identity")
    args = parser.parse_args()

    async with grpcclient.InferenceServerClient(args.url) as client:
        answers = await asyncio.gather(*(infer(client, args.model, i) for i in range(32)))
    print(*answers)


if __name__ == "__main__":
    asyncio.run(main())
