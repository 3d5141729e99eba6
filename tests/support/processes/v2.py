"""Requests of the Open Inference Protocol to the tiny model."""

from typing import Any

import httpx2

from tests.support.networks.tiny import INPUT_SIZE

INFER = "/v2/models/tiny/infer"
ROW = [200] * INPUT_SIZE**2


def tensor(**changes: Any) -> dict[str, Any]:
    return {"name": "slice", "shape": [1, 1, INPUT_SIZE, INPUT_SIZE], "datatype": "UINT8", "data": ROW} | changes


async def infer(client: httpx2.AsyncClient, *inputs: dict[str, Any], **more: Any) -> httpx2.Response:
    return await client.post(INFER, json={"inputs": list(inputs), **more})


def error(response: httpx2.Response, status: int) -> str:
    """The body of a response that must be an error in the protocol's form."""
    assert (response.status_code, response.headers["content-type"]) == (status, "application/json"), response.text
    body = response.json()
    assert body["request_id"] == response.headers["x-request-id"]
    return str(body["error"])
