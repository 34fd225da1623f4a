"""KServe's clients, unmodified, against a server: a process of its own, which prints what it got.

Its messages have the names that tritonclient's have, and one process holds only one of the two.

    python -m tests.e2e.kserve_calls REST_URL GRPC_ADDRESS
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import Any

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

ROWS = np.arange(8, dtype=np.float32).reshape(2, 4)


def request(model: str, *, binary: bool, **members: Any) -> InferRequest:
    tensor = InferInput("image", [2, 4], "FP32")
    tensor.set_data_from_numpy(ROWS, binary_data=binary)
    return InferRequest(model, [tensor], request_id="seven", **members)


def told(answer: Any) -> dict[str, Any]:
    (output,) = answer.outputs
    values: np.ndarray = output.as_numpy()
    return {"id": answer.id, "output": values.tolist()}


async def by_rest(url: str) -> dict[str, Any]:
    async with InferenceRESTClient(RESTConfig(protocol="v2")) as client:
        got: dict[str, Any] = {
            "ready": [
                await client.is_server_live(url),
                await client.is_server_ready(url),
                await client.is_model_ready(url, "echo"),
            ]
        }
        got["json"] = told(
            await client.infer(url, request("echo", binary=False), model_name="echo")
        )
        asked = request("echo", binary=True, parameters={"binary_data_output": True})
        got["binary"] = told(await client.infer(url, asked, model_name="echo"))
        headers, said = {"Gearshift-Optimize": "latency"}, dict[str, str]()
        asked = request("echo", binary=False)
        await client.infer(url, asked, model_name="echo", headers=headers, response_headers=said)
        got["fastest"] = said["gearshift-variant"]
        try:
            await client.infer(url, request("absent", binary=False), model_name="absent")
        except httpx.HTTPStatusError as error:
            got["absent"] = error.response.status_code
        return got


async def by_grpc(address: str) -> dict[str, Any]:
    async with InferenceGRPCClient(address) as client:
        got: dict[str, Any] = {
            "ready": [
                await client.is_server_live(),
                await client.is_server_ready(),
                await client.is_model_ready("echo"),
            ]
        }
        answer = await client.infer(request("echo", binary=True))
        got["binary"], got["variant"] = told(answer), answer.model_version
        listed = InferInput("image", [2, 4], "FP32", data=ROWS.reshape(-1).tolist())
        got["json"] = told(await client.infer(InferRequest("echo", [listed], request_id="seven")))
        asked = request("echo", binary=True, parameters={"optimize": "latency"})
        got["fastest"] = (await client.infer(asked)).model_version
        for name, model, headers in (
            ("absent", "absent", None),
            ("nothing fits", "echo", [("gearshift-min-accuracy", "0.999")]),
        ):
            try:
                await client.infer(request(model, binary=True), headers=headers)
            except grpc.RpcError as error:
                got[name] = error.code().name
        return got


async def main(url: str, address: str) -> None:
    print(json.dumps({"rest": await by_rest(url), "grpc": await by_grpc(address)}))


if __name__ == "__main__":
    logging.disable()
    asyncio.run(main(*sys.argv[1:]))
