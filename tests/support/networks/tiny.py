"""Networks of a few hundred weights that keep the model file's contract, and a models folder that ships one."""

import json
from pathlib import Path

import numpy as np
import torch

from service.imaging.decode import Slice
from service.model.card import (
    MANIFEST_NAME,
    SCHEMA_VERSION,
    Calibration,
    Interval,
    ManifestFile,
    ModelCard,
    SelfCheck,
    SplitFingerprint,
)
from service.model.file import model_bytes, synthetic_slice

INPUT_SIZE = 64
SELF_CHECK_SEED = 7


def even(level: int) -> Slice:
    """A slice of one grey."""
    return np.full((1, INPUT_SIZE, INPUT_SIZE), level, np.uint8)


class TinyNetwork(torch.nn.Module):
    """Takes brightness for lesion and for COVID, and answers everything that a network with lungs does.

    Maps are 4 x 4. Lungs are where it is not black; cells brighter than half are lesion. Pictures that are nearly black
    have no lungs, white ones are in a wrong window, and a dark bar down the middle makes two panels.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 4, 3, padding=1, bias=False)
        torch.nn.init.constant_(self.conv.weight, 1 / 9)

    def maps(self, slices: torch.Tensor) -> torch.Tensor:
        grey = slices.to(self.conv.weight.dtype) / 255
        return torch.nn.functional.adaptive_avg_pool2d(self.conv(grey).mean(1), 4).float()

    def forward(self, slices: torch.Tensor) -> dict[str, torch.Tensor]:
        return self.answer(slices)

    def answer(self, slices: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.maps(slices)
        lungs = (maps > 0.1).float()
        involved: list[torch.Tensor] = []
        for cells in (maps, maps[:, :, 2:], maps[:, :, :2]):
            lung, lesion = (cells > 0.1).float(), (cells > 0.5).float()
            involved.append(lesion.sum((1, 2)) / lung.sum((1, 2)).clamp_min(1.0))
        grey = slices.float() / 255
        brightness = grey.mean((1, 2, 3))
        middle = grey[:, :, :, 28:36].mean((1, 2, 3))
        return {
            "probability": torch.sigmoid(8 * (maps.mean((1, 2)) - 0.5)),
            "heatmap": maps,
            "lungs": lungs,
            "lung_involvement": torch.stack(involved, dim=1),
            "lung_fraction": lungs.mean((1, 2)),
            "no_lungs": 1 - brightness,
            "wrong_window": brightness,
            "several_panels": (brightness - middle).clamp_min(0.0),
        }


class TinyDoctor(TinyNetwork):
    """The same, and the two answers whose product is the probability: lesions by the brightest cell."""

    def forward(self, slices: torch.Tensor) -> dict[str, torch.Tensor]:
        answer = self.answer(slices)
        lesion = torch.sigmoid(16 * (answer["heatmap"].amax((1, 2)) - 0.4))
        answer["lesion_probability"] = lesion
        answer["covid_given_lesion"] = answer["probability"] / lesion.clamp_min(1e-6)
        return answer


class TinyClassifier(TinyNetwork):
    """The same probability without lungs and checks, like the report's recipe."""

    def forward(self, slices: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.maps(slices)
        return {"probability": torch.sigmoid(8 * (maps.mean((1, 2)) - 0.5)), "heatmap": maps}


def tiny_card(probability: float | None = None) -> ModelCard:
    """A card for `TinyNetwork`; `probability` overrides what its self-check expects."""
    if probability is None:
        batch = torch.from_numpy(synthetic_slice(SELF_CHECK_SEED, INPUT_SIZE))[None]
        probability = TinyNetwork().eval()(batch)["probability"].item()
    return ModelCard(
        schema_version=SCHEMA_VERSION,
        name="tiny",
        version="0.0.1",
        architecture="TinyNetwork",
        input_size=INPUT_SIZE,
        resize="bilinear-antialias-stretch",
        labels=("NonCOVID", "COVID"),
        positive_label="COVID",
        threshold=0.5,
        threshold_rule="fixed, for tests",
        operating_points={"balanced": 0.5, "screening": 0.3},
        calibration=Calibration(slope=1.0, offset=0.0, rule="none, for tests"),
        checks={"no_lungs": 0.95, "wrong_window": 0.99, "several_panels": 0.4},
        checks_rule="fixed, for tests",
        precision="fp16",
        self_check=SelfCheck(
            seed=SELF_CHECK_SEED,
            probability=probability,
            tolerance={"fp32": 0.005, "bf16": 0.05, "fp16": 0.02, "int8": 0.05},
        ),
        training_config={"recipe": "none"},
        data={split: SplitFingerprint(count=1, sha256="0" * 64) for split in ("train", "val", "test")},
        git_commit="0" * 40,
        libraries={"torch": str(torch.__version__)},
        left_out_metrics={"elsewhere": {"auc": Interval(value=0.4, low=0.3, high=0.5)}},
        test_metrics={name: Interval(value=0.5, low=0.4, high=0.6) for name in ("auc", "sensitivity")},
        intended_use="tests",
        limits="knows brightness only",
    )


def doctor_card() -> ModelCard:
    """A card for `TinyDoctor`."""
    points = {
        "operating_points": {"differential": 0.5, "triage": 0.0},
        "lesion_thresholds": {"differential": 0.0, "triage": 0.6},
        "purposes": {"differential": "COVID-19 against everything else", "triage": "any lesion"},
    }
    return tiny_card().model_copy(update=points)


def classifier_card() -> ModelCard:
    """A card for `TinyClassifier`."""
    return tiny_card().model_copy(update={"checks": {}, "checks_rule": "none: the network has no checks"})


def write_models(folder: Path, card: ModelCard | None = None, network: torch.nn.Module | None = None) -> ManifestFile:
    """Write a model file and its manifest into `folder`, as training does."""
    folder.mkdir(parents=True, exist_ok=True)
    card = card or tiny_card()
    module = (network or TinyNetwork()).eval().half()
    data = model_bytes(module, card)
    row = ManifestFile.describe(f"{card.name}.{card.precision}.pt", card.precision, data)
    (folder / row.name).write_bytes(data)
    write_manifest(folder, row)
    return row


def write_manifest(folder: Path, *rows: ManifestFile) -> None:
    """Write a manifest that names these files."""
    manifest = {"schema_version": SCHEMA_VERSION, "files": [row.model_dump() for row in rows]}
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))
