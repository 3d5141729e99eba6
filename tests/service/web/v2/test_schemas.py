import json

import pytest
from pydantic import ValidationError

from service.web.v2.schemas import InferRequest

TENSOR = {"name": "slice", "datatype": "UINT8", "shape": [1]}
MALFORMED = ["a"] * 1000


@pytest.mark.parametrize(
    "request_",
    [
        {"inputs": MALFORMED},
        {"inputs": [TENSOR], "outputs": MALFORMED},
        {"inputs": [{**TENSOR, "shape": MALFORMED}]},
        {"inputs": [{**TENSOR, "parameters": MALFORMED}]},
        {"inputs": [TENSOR], "parameters": MALFORMED},
    ],
    ids=["inputs", "outputs", "shape", "parameters of an input", "parameters"],
)
def test_a_list_of_malformed_elements_has_few_errors(request_: dict[str, object]) -> None:
    with pytest.raises(ValidationError) as caught:
        InferRequest.model_validate_json(json.dumps(request_))
    assert caught.value.error_count() <= 16
