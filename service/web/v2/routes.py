"""The Open Inference Protocol (V2), for clients of KServe and Triton."""

import asyncio
import copy
from collections.abc import Sequence
from functools import partial
from typing import Final, TypeAlias

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect

from service import DISCLAIMER, __version__
from service.errors import (
    ErrorCode,
    MalformedRequestError,
    ServiceError,
    UnsupportedImageError,
    UnusableImageError,
    too_many_images,
)
from service.imaging.decode import DecodeLimits, Slice
from service.inference.pipeline import assess_image, assess_slice, run_bounded
from service.inference.served_model import ServedModel
from service.inference.service_state import ServiceState
from service.inference.stages import StageTimer
from service.model.assess import Assessment
from service.web.dependencies import AnyState, require_key, served_model
from service.web.disconnect import cancel_on_disconnect
from service.web.openapi.document import reference_to
from service.web.request_id import request_id_of
from service.web.upload import incomplete_body, refuse_encoding
from service.web.v2 import models
from service.web.v2.models import MODEL, VERSION, RequestedModel, errors, on_model
from service.web.v2.outputs import columns_of, outputs_of
from service.web.v2.schemas import (
    InferRequest,
    InferResponse,
    Live,
    RequestedOutput,
    ServerMetadata,
    ServerReady,
)
from service.web.v2.tensors import HEADER_LENGTH, files_of, only_input, output, read_request, slices_of

PREFIX: Final = "/v2"

PATHS: Final = (f"{MODEL}/infer", f"{VERSION}/infer")
"""Routes that take images."""

_EXTENSIONS: Final = ("binary_tensor_data", "model_configuration", "statistics")

_OCTETS: Final = "application/octet-stream"

TAG: Final = {"name": "V2", "description": "The Open Inference Protocol (V2), for clients of KServe and Triton."}

BODIES: Final = (InferRequest,)
"""Bodies that the OpenAPI document refers to."""


def _operation_id(route: APIRoute) -> str:
    """Name an operation like the method of the protocol's gRPC service, with a prefix."""
    return f"v2_{route.name}"


router = APIRouter(tags=[TAG["name"]], generate_unique_id_function=_operation_id)
router.include_router(models.router)


@router.get(PREFIX, summary="Server metadata")
async def server_metadata() -> ServerMetadata:
    """Return name, version and protocol extensions."""
    return ServerMetadata(name="covid-ct", version=__version__, extensions=list(_EXTENSIONS))


@router.get(f"{PREFIX}/health/live", summary="Liveness probe", responses=errors(503))
async def server_live(state: AnyState) -> Live:
    """Same as GET /health/live."""
    if state.is_loaded and not state.is_healthy:
        with state.model():  # raises with the reason
            pass
    return Live(live=True)


@router.get(
    f"{PREFIX}/health/ready",
    summary="Readiness probe",
    responses=errors(503),
    dependencies=[Depends(served_model)],
)
async def server_ready() -> ServerReady:
    """Same as GET /health/ready."""
    return ServerReady(ready=True)


_Rows: TypeAlias = Sequence[Slice] | Sequence[bytes]

_OF_THE_IMAGE: Final = (UnsupportedImageError, UnusableImageError)

_EXAMPLE: Final = {
    "inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": ["<base64 of a PNG file>"]}],
    "outputs": [{"name": "probability"}],
}
_DESCRIPTION: Final = (
    "Takes one tensor: `image`, BYTES [N], image files (binary, or base64 in JSON), or `slice`, UINT8 "
    "[N, 1, H, W], grey values in a lung window, in their original size: the service resamples them as it does files. "
    "Do not resample them before. Returns `probability` FP32 [N], `label` BYTES [N], "
    "`threshold` FP32 [N], `out_of_distribution` FP32 [N] (the score of the checks, failed above 1), `heatmap` FP32 "
    "[N, h, w], if the model finds lungs, `lung_involvement` FP32 [N, 3] (both, left, right; 0 in an image without "
    "lungs) and `lung_fraction` FP32 [N], and, if it has them, `lesion_probability`, `covid_given_lesion` and "
    "`lesion_threshold` FP32 [N]. An unusable image fails the request, and the error names its row. "
    f"{DISCLAIMER}"
)
_BODY: Final = {
    "required": True,
    "content": {"application/json": {"schema": reference_to(InferRequest), "example": _EXAMPLE}},
}
"""JSON only: OpenAPI cannot describe bytes after a JSON header."""


@on_model(
    router,
    "POST",
    "/infer",
    summary="Inference",
    description=_DESCRIPTION,
    dependencies=[Depends(require_key)],
    response_model=InferResponse,
    response_model_exclude_none=True,
    responses=errors(400, 401, 403, 404, 408, 413, 415, 422, 500, 503, 504),
    openapi_extra={"requestBody": _BODY},
)
async def infer(request: Request, state: AnyState, model: RequestedModel) -> Response:
    """Read, decode, queue, predict."""
    stages = StageTimer(state.metrics)
    body = await _body(request)
    loop = asyncio.get_running_loop()
    asked, rows = await loop.run_in_executor(
        state.threads, _parse, body, request.headers.get(HEADER_LENGTH), model, state
    )
    stages.finish("read")
    one = partial(_assess, rows, model, state, stages)
    assessments = await cancel_on_disconnect(request, run_bounded(len(rows), one, model))
    return _answer(asked, assessments, model, request_id_of(request.scope))


async def _body(request: Request) -> bytes:
    refuse_encoding(request)
    try:
        return await request.body()
    except ClientDisconnect as error:
        raise incomplete_body() from error


def _parse(
    body: bytes, header_length: str | None, model: ServedModel, state: ServiceState
) -> tuple[InferRequest, _Rows]:
    """Parse the request with its rows: slices, or files that are not decoded yet."""
    asked, binary = read_request(body, header_length)
    _requested(asked, model)
    tensor, data = only_input(asked, binary)
    max_images = state.settings.max_images_per_request
    if tensor.shape[0] > max_images:
        raise too_many_images(max_images)
    if tensor.name == "slice":
        return asked, slices_of(tensor, data, DecodeLimits(max_pixels=state.settings.max_pixels))
    if tensor.name == "image":
        return asked, files_of(tensor, data)
    raise MalformedRequestError(f"Unknown input {tensor.name!r}; send 'slice' or 'image'.")


async def _assess(rows: _Rows, model: ServedModel, state: ServiceState, stages: StageTimer, index: int) -> Assessment:
    row, stages = rows[index], stages.copy()
    try:
        if isinstance(row, bytes):
            assessment = await assess_image(row, model, state, stages)
        else:
            assessment = await assess_slice(row, model, state, stages)
    except ServiceError as error:
        if len(rows) == 1 or not (isinstance(error, _OF_THE_IMAGE) or error.code == ErrorCode.NOT_FINITE):
            raise
        named = copy.copy(error)  # other requests of the batch may have the same error
        named.detail = f"Row {index}, counted from 0: {error.detail}"
        raise named from error
    return assessment


def _requested(asked: InferRequest, model: ServedModel) -> list[RequestedOutput]:
    """Return the outputs that the client wants; default: all."""
    names = [output.name for output in outputs_of(model)]
    wanted = asked.outputs or [RequestedOutput(name=name) for name in names]
    for requested in wanted:
        if requested.name not in names:
            raise MalformedRequestError(f"Unknown output {requested.name!r}; known outputs: {', '.join(names)}.")
        if requested.parameters.has_classification or requested.parameters.has_shared_memory:
            raise MalformedRequestError(f"Output {requested.name!r}: only the parameter binary_data is supported.")
    return wanted


def _answer(asked: InferRequest, assessments: Sequence[Assessment], model: ServedModel, request_id: str) -> Response:
    columns = columns_of(assessments, model)
    parts = [
        output(requested.name, columns[requested.name], asked.wants_binary(requested))
        for requested in _requested(asked, model)
    ]
    body = InferResponse(
        id=asked.id or request_id,
        model_name=model.card.name,
        model_version=model.card.version,
        outputs=[tensor for tensor, _ in parts],
    )
    header = body.model_dump_json(exclude_none=True).encode()
    binary = b"".join(data for _, data in parts)
    if not binary:
        return Response(header, media_type="application/json")
    return Response(header + binary, headers={HEADER_LENGTH: str(len(header))}, media_type=_OCTETS)
