"""Routes under /v2 that describe the model: metadata, readiness, configuration, statistics."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, Final, TypeVar

from fastapi import APIRouter, Depends, Path, Request
from fastapi.params import Depends as DependsMarker

from service.errors import ErrorCode, RequestError
from service.inference.served_model import ServedModel
from service.inference.statistics import ModelStatistics, Total
from service.web.dependencies import CurrentModel
from service.web.v2.outputs import outputs_of
from service.web.v2.schemas import (
    DurationStatistics,
    InferenceStatistics,
    ModelConfig,
    ModelMetadata,
    ModelReady,
    ModelStatisticsRow,
    RepositoryRow,
    Statistics,
    TensorConfig,
    TensorMetadata,
    V2Error,
)

MODEL: Final = "/v2/models/{name}"
VERSION: Final = "/v2/models/{name}/versions/{version}"

Name = Annotated[str, Path(description="name of the model, see GET /model", examples=["covid-ct"])]
Version = Annotated[str, Path(description="version of the model", examples=["1.0.0"])]

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

_PLATFORM: Final = "pytorch_torchscript"
_INPUTS: Final = (
    TensorMetadata(name="image", datatype="BYTES", shape=[-1]),
    TensorMetadata(name="slice", datatype="UINT8", shape=[-1, 1, -1, -1]),
)

router = APIRouter()


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Build the OpenAPI `responses` of a route for these statuses."""
    return {status: {"model": V2Error} for status in statuses}


async def _requested_model(request: Request, model: CurrentModel, name: Name) -> ServedModel:
    """Return the model of the path's name and version.

    Raises:
        RequestError: the served model has another name or version.
    """
    card = model.card
    if name != card.name or request.path_params.get("version", card.version) != card.version:
        raise RequestError(
            ErrorCode.UNKNOWN_MODEL, f"The model served here is {card.name!r}, version {card.version!r}."
        )
    return model


RequestedModel = Annotated[ServedModel, Depends(_requested_model)]


async def _describe_version(version: Version) -> None:
    """Put the version of the path into the OpenAPI document; `_requested_model` reads it."""


def on_model(
    router: APIRouter,
    method: str,
    part: str,
    summary: str,
    dependencies: Sequence[DependsMarker] = (),
    **options: Any,
) -> Callable[[Endpoint], Endpoint]:
    """Build a decorator that adds two routes: of the model, and of a version of the model.

    Args:
        router: takes the routes.
        method: HTTP method.
        part: path after that of the model.
        summary: of the first route.
        dependencies: of both.
        options: of both, as FastAPI takes them.
    """

    def register(endpoint: Endpoint) -> Endpoint:
        add = partial(router.add_api_route, endpoint=endpoint, methods=[method], **options)
        name = endpoint.__name__
        add(path=MODEL + part, name=f"model_{name}", summary=summary, dependencies=dependencies)
        add(
            path=VERSION + part,
            name=f"version_{name}",
            summary=f"{summary}, of a version",
            dependencies=[*dependencies, Depends(_describe_version)],
        )
        return endpoint

    return register


@router.get("/v2/models/stats", summary="Statistics of all models", responses=errors(400, 503))
async def all_statistics(model: CurrentModel) -> Statistics:
    """Same as the route of the model."""
    return _statistics(model)


@router.post("/v2/repository/index", summary="Models in the repository", responses=errors(400, 403, 503))
async def repository_index(model: CurrentModel) -> list[RepositoryRow]:
    """Return the served model; a request body is ignored."""
    return [RepositoryRow(name=model.card.name, version=model.card.version, state="READY", reason="")]


@on_model(router, "GET", "", summary="Model metadata", responses=errors(400, 404, 503))
async def metadata(model: RequestedModel) -> ModelMetadata:
    """Return inputs and outputs; send one of the two inputs."""
    return ModelMetadata(
        name=model.card.name,
        versions=[model.card.version],
        platform=_PLATFORM,
        inputs=list(_INPUTS),
        outputs=outputs_of(model),
    )


@on_model(router, "GET", "/ready", summary="Readiness of the model", responses=errors(400, 404, 503))
async def ready(model: RequestedModel) -> ModelReady:
    """200 or an error."""
    return ModelReady(name=model.card.name, ready=True)


@on_model(
    router,
    "GET",
    "/config",
    summary="Configuration of the model",
    response_model_exclude_none=True,
    responses=errors(400, 404, 503),
)
async def config(model: RequestedModel) -> ModelConfig:
    """Return inputs and outputs in the form of Triton's configuration; shapes include the rows."""
    return ModelConfig(
        name=model.card.name,
        platform=_PLATFORM,
        backend="pytorch",
        max_batch_size=0,
        input=[_tensor(tensor, optional=True) for tensor in _INPUTS],
        output=[_tensor(tensor, optional=None) for tensor in outputs_of(model)],
    )


@on_model(router, "GET", "/stats", summary="Statistics of the model", responses=errors(400, 404, 503))
async def statistics(model: RequestedModel) -> Statistics:
    """Return counts and times since the model was loaded, over all routes; each slice counts."""
    return _statistics(model)


def _tensor(described: TensorMetadata, optional: bool | None) -> TensorConfig:
    kind = "STRING" if described.datatype == "BYTES" else described.datatype
    return TensorConfig(name=described.name, data_type=f"TYPE_{kind}", dims=described.shape, optional=optional)


def _statistics(model: ServedModel) -> Statistics:
    return Statistics(model_stats=[_row(model.card.name, model.card.version, model.statistics)])


def _row(name: str, version: str, statistics: ModelStatistics) -> ModelStatisticsRow:
    unmeasured = DurationStatistics(count=statistics.success.count, ns=0)
    return ModelStatisticsRow(
        name=name,
        version=version,
        last_inference=round(statistics.last_inference_at * 1000),
        inference_count=statistics.success.count,
        execution_count=statistics.batches,
        inference_stats=InferenceStatistics(
            success=_duration(statistics.success),
            fail=_duration(statistics.failure),
            queue=_duration(statistics.queue),
            compute_input=unmeasured,
            compute_infer=_duration(statistics.network),
            compute_output=unmeasured,
        ),
        batch_stats=[],
    )


def _duration(total: Total) -> DurationStatistics:
    return DurationStatistics(count=total.count, ns=round(total.seconds * 1e9))
