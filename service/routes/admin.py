"""What an operator with an admin's key may do."""

from fastapi import APIRouter, Depends

from service.access import require_admin_key
from service.problems import documented
from service.schemas import ModelName
from service.serving import AnyServing

router = APIRouter(dependencies=[Depends(require_admin_key)])


@router.post(
    "/admin/reload",
    summary="Take the model and the keys that are there now",
    description="As SIGHUP does. Requests go on being answered, by the former model until the new one is ready, and "
    "after that too if it can't be used. With several workers, the others follow within seconds.",
    responses=documented(401, 403, 500),
)
async def reload(serving: AnyServing) -> ModelName:
    """The model that is served from now on."""
    model = await serving.reload()
    serving.reload_the_others()
    return ModelName(name=model.card.name, version=model.card.version)
