"""A network of a few hundred weights that keeps the model file's contract, and a models folder that ships it."""

import json
from pathlib import Path

import torch

from service.model.card import MANIFEST_NAME, Interval, ManifestFile, ModelCard, SelfCheck, SplitFingerprint
from service.model.file import model_bytes, synthetic_slice

INPUT_SIZE = 64
SELF_CHECK_SEED = 7


class TinyNetwork(torch.nn.Module):
    """Answers brighter slices with higher probability; uint8 (N, 1, S, S) -> (N,), (N,), (N, 4, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 4, 3, padding=1, bias=False)
        torch.nn.init.constant_(self.conv.weight, 1 / 9)

    def forward(self, slices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        grey = slices.to(self.conv.weight.dtype) / 255
        maps = torch.nn.functional.adaptive_avg_pool2d(self.conv(grey).mean(1), 4)
        brightness = maps.mean((1, 2)).float()
        return torch.sigmoid(8 * (brightness - 0.5)), 1 - brightness, maps.float()


def tiny_card(probability: float | None = None) -> ModelCard:
    """A card for `TinyNetwork`; `probability` overrides what its self-check expects."""
    if probability is None:
        batch = torch.from_numpy(synthetic_slice(SELF_CHECK_SEED, INPUT_SIZE))[None]
        probability = TinyNetwork().eval()(batch)[0].item()
    return ModelCard(
        schema_version=1,
        name="tiny",
        version="0.0.1",
        architecture="TinyNetwork",
        input_size=INPUT_SIZE,
        resize="bilinear-antialias-stretch",
        labels=("NonCOVID", "COVID"),
        positive_label="COVID",
        threshold=0.5,
        threshold_rule="fixed, for tests",
        temperature=1.0,
        ood_threshold=0.95,
        ood_rule="fixed, for tests: nearly black images are refused",
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
        test_metrics={"auc": Interval(value=0.5, low=0.4, high=0.6)},
        intended_use="tests",
        limits="knows brightness only",
    )


def write_models(folder: Path, card: ModelCard | None = None, network: torch.nn.Module | None = None) -> ManifestFile:
    """Write a model file and its manifest into `folder`, as training does."""
    folder.mkdir(parents=True, exist_ok=True)
    card = card or tiny_card()
    module = (network or TinyNetwork()).eval().half()
    data = model_bytes(module, card)
    row = ManifestFile.describe(f"{card.name}.{card.precision}.pt", card.precision, data)
    (folder / row.name).write_bytes(data)
    (folder / MANIFEST_NAME).write_text(json.dumps({"schema_version": 1, "files": [row.model_dump()]}))
    return row
