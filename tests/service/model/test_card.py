import json
from pathlib import Path

import pytest
import torch

from service.errors import ModelFileError
from service.model.card import ModelCard, OperatingPoint
from service.model.file import load_model, read_manifest
from tests.support.networks.tiny import TinyNetwork, tiny_card


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 1}, "schema_version: Input should be 2 (found '1')"),
        ({"threshold": 1.5}, "threshold: Input should be less than or equal to 1"),
        ({"checks": {"no_lungs": 0}}, "checks.no_lungs: Input should be greater than 0 (found '0')"),
        ({"checks": {"no_arms": 0.5}}, "checks.no_arms"),
        ({"operating_points": {"screening": 2}}, "operating_points.screening: Input should be less than or equal to 1"),
        ({"resize": "crop"}, "resize: Input should be 'bilinear-antialias-stretch' (found 'crop')"),
        ({"surprise": 1}, "surprise: Extra inputs are not permitted"),
    ],
)
def test_a_card_of_another_schema_is_refused_with_what_was_found(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "odd.pt"
    card = json.dumps(tiny_card().model_dump(mode="json") | change)
    torch.jit.save(torch.jit.script(TinyNetwork()), str(path), _extra_files={"card.json": card})
    with pytest.raises(ModelFileError) as caught:
        load_model(path, torch.device("cpu"), "fp32")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "can't read the manifest: No such file"),
        ("{", "Invalid JSON"),
        ('{"files": []}', "schema_version: Field required"),
        ('{"schema_version": 9, "files": []}', "schema_version: Input should be 2 (found '9')"),
        ('{"schema_version": 2, "files": []}', "it names no model file"),
    ],
)
def test_a_manifest_that_can_not_be_used_is_named(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(ModelFileError) as caught:
        read_manifest(tmp_path)
    assert message in str(caught.value)
    assert "metrics.json" in str(caught.value)


def test_an_operating_point_may_have_a_threshold_of_the_lesion_too() -> None:
    card = tiny_card().model_copy(
        update={
            "operating_points": {"differential": 0.5, "triage": 0.0},
            "lesion_thresholds": {"differential": 0.0, "triage": 0.4},
            "purposes": {"triage": "any lesion"},
        }
    )
    assert card.operating_point() == OperatingPoint("differential", 0.5)
    triage = card.operating_point("triage")
    assert triage == OperatingPoint("triage", 0.0, 0.4, "any lesion")
    assert [card.label_of(0.1, lesion, triage) for lesion in (0.39, 0.4)] == ["NonCOVID", "COVID"]
    assert [card.label_of(p, 0.9, card.operating_point()) for p in (0.49, 0.5)] == ["NonCOVID", "COVID"]
    assert card.label_of(0.5, None, card.operating_point()) == "COVID"


def test_a_range_of_thresholds_that_is_not_known_is_left_out() -> None:
    unknown = {"threshold_rule": "highest accuracy; on resampled patients the rule chooses None to None"}
    known = {"threshold_rule": "highest accuracy; on resampled patients it chooses 0.5 to 0.6"}
    card = tiny_card().model_dump()
    assert ModelCard.model_validate(card | unknown).threshold_rule == "highest accuracy"
    assert ModelCard.model_validate(card | known).threshold_rule == known["threshold_rule"]


def test_names_of_2_0_stay_valid() -> None:
    card = tiny_card().model_copy(update={"operating_points": {"differential": 0.5, "triage": 0.3}})
    assert card.operating_point("balanced").name == "differential"
    assert card.operating_point("screening").name == "triage"
    assert tiny_card().operating_point("balanced").name == "balanced"
