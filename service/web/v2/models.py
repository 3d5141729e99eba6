"""Routes under /v2 that describe the model: metadata, readiness, configuration, statistics."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Path

from service.errors import UnknownModelError
from service.inference.served_model import ServedModel
from service.inference.service_state import ServiceState
from service.inference.statistics import ModelStatistics, Total
from service.web.dependencies import ReadyState
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

_PLATFORM: Final = "pytorch_torchscript"
_INPUTS: Final = (
    TensorMetadata(name="image", datatype="BYTES", shape=[-1]),
    TensorMetadata(name="slice", datatype="UINT8", shape=[-1, 1, -1, -1]),
)

router = APIRouter()


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Build the OpenAPI `responses` of a route for these statuses."""
    return {status: {"model": V2Error} for status in statuses}


def check_name(model: ServedModel, name: str, version: str | None) -> None:
    """Check the name and version of a path.

    Raises:
        UnknownModelError: the served model has others.
    """
    card = model.card
    if name != card.name or version not in (None, card.version):
        raise UnknownModelError(f"The model served here is {card.name!r}, version {card.version!r}.")


@router.get("/v2/models/stats", summary="Statistics of all models", responses=errors(503))
async def all_statistics(state: ReadyState) -> Statistics:
    """Answer like the route of the model."""
    with state.model() as model:
        return _statistics(state, model.card.name, None)


@router.post("/v2/repository/index", summary="Models in the repository", responses=errors(503))
async def repository_index(state: ReadyState) -> list[RepositoryRow]:
    """Return the served model; a request body is ignored."""
    with state.model() as model:
        return [RepositoryRow(name=model.card.name, version=model.card.version, state="READY", reason="")]


@router.get(MODEL, summary="Model metadata", responses=errors(404, 503))
async def metadata(state: ReadyState, name: Name) -> ModelMetadata:
    """Return inputs and outputs; send one of the two inputs."""
    return _metadata(state, name, None)


@router.get(VERSION, summary="Model metadata of a version", responses=errors(404, 503))
async def version_metadata(state: ReadyState, name: Name, version: Version) -> ModelMetadata:
    """Answer like the route without a version."""
    return _metadata(state, name, version)


@router.get(f"{MODEL}/ready", summary="Readiness of the model", responses=errors(404, 503))
async def model_ready(state: ReadyState, name: Name) -> ModelReady:
    """Answer 200 or an error."""
    return _ready(state, name, None)


@router.get(f"{VERSION}/ready", summary="Readiness of a version", responses=errors(404, 503))
async def version_ready(state: ReadyState, name: Name, version: Version) -> ModelReady:
    """Answer 200 or an error."""
    return _ready(state, name, version)


@router.get(
    f"{MODEL}/config", response_model_exclude_none=True, summary="Model configuration", responses=errors(404, 503)
)
async def config(state: ReadyState, name: Name) -> ModelConfig:
    """Return inputs and outputs in the form of Triton's configuration; shapes include the rows."""
    return _config(state, name, None)


@router.get(
    f"{VERSION}/config",
    response_model_exclude_none=True,
    summary="Configuration of a version",
    responses=errors(404, 503),
)
async def version_config(state: ReadyState, name: Name, version: Version) -> ModelConfig:
    """Answer like the route without a version."""
    return _config(state, name, version)


@router.get(f"{MODEL}/stats", summary="Statistics of the model", responses=errors(404, 503))
async def statistics(state: ReadyState, name: Name) -> Statistics:
    """Return counts and times since the model was loaded, over all routes; each slice counts."""
    return _statistics(state, name, None)


@router.get(f"{VERSION}/stats", summary="Statistics of a version", responses=errors(404, 503))
async def version_statistics(state: ReadyState, name: Name, version: Version) -> Statistics:
    """Answer like the route without a version."""
    return _statistics(state, name, version)


def _metadata(state: ServiceState, name: str, version: str | None) -> ModelMetadata:
    with state.model() as model:
        check_name(model, name, version)
        return ModelMetadata(
            name=model.card.name,
            versions=[model.card.version],
            platform=_PLATFORM,
            inputs=list(_INPUTS),
            outputs=outputs_of(model),
        )


def _ready(state: ServiceState, name: str, version: str | None) -> ModelReady:
    with state.model() as model:
        check_name(model, name, version)
        return ModelReady(name=model.card.name, ready=True)


def _config(state: ServiceState, name: str, version: str | None) -> ModelConfig:
    with state.model() as model:
        check_name(model, name, version)
        return ModelConfig(
            name=model.card.name,
            platform=_PLATFORM,
            backend="pytorch",
            max_batch_size=0,
            input=[_tensor(each, optional=True) for each in _INPUTS],
            output=[_tensor(each, optional=None) for each in outputs_of(model)],
        )


def _tensor(described: TensorMetadata, optional: bool | None) -> TensorConfig:
    kind = "STRING" if described.datatype == "BYTES" else described.datatype
    return TensorConfig(name=described.name, data_type=f"TYPE_{kind}", dims=described.shape, optional=optional)


def _statistics(state: ServiceState, name: str, version: str | None) -> Statistics:
    with state.model() as model:
        check_name(model, name, version)
        return Statistics(model_stats=[_row(model.card.name, model.card.version, model.statistics)])


def _row(name: str, version: str, found: ModelStatistics) -> ModelStatisticsRow:
    unmeasured = DurationStatistics(count=found.success.count, ns=0)
    return ModelStatisticsRow(
        name=name,
        version=version,
        last_inference=round(found.last_inference_at * 1000),
        inference_count=found.success.count,
        execution_count=found.batches,
        inference_stats=InferenceStatistics(
            success=_duration(found.success),
            fail=_duration(found.failure),
            queue=_duration(found.queue),
            compute_input=unmeasured,
            compute_infer=_duration(found.network),
            compute_output=unmeasured,
        ),
        batch_stats=[],
    )


def _duration(total: Total) -> DurationStatistics:
    return DurationStatistics(count=total.count, ns=round(total.seconds * 1e9))
