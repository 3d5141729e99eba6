"""Is this a chest CT slice at all? The threshold on the out-of-distribution score, and what it refuses."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from service.errors import ServiceError
from service.imaging.decode import Slice, decode
from service.model.file import Network
from training.data.transforms import as_input
from training.errors import TrainingError
from training.run.progress import progress
from training.run.record import Record
from training.run.seeding import derive_seed

QUANTILE: Final = 0.99

_GENERATED_EACH: Final = 50
_SIDE: Final = 256
_BATCH: Final = 16


class Gate(Record):
    """The out-of-distribution threshold, its rule, and what it does.

    Attributes:
        flagged: share of each split above the threshold.
        images: what happens to other images, by kind; none of them was seen in training.
    """

    threshold: float
    rule: str
    flagged: dict[str, float]
    images: dict[str, "Flagged"]


class Flagged(Record):
    """How many images there were and the share that was flagged as no chest CT slice."""

    count: int
    share: float


def choose_gate(scores: Mapping[str, torch.Tensor], images: Mapping[str, torch.Tensor]) -> Gate:
    """The quantile of the validation scores above which an image is flagged as no chest CT slice.

    Args:
        scores: of `val` and further splits, float (N,) each.
        images: of other images by kind.
    """
    threshold = scores["val"].quantile(QUANTILE).item()

    def share(values: torch.Tensor) -> float:
        return (values > threshold).float().mean().item()

    return Gate(
        threshold=threshold,
        rule=f"{QUANTILE:.0%} quantile of the scores of the validation split",
        flagged={name: share(values) for name, values in scores.items()},
        images={name: Flagged(count=len(values), share=share(values)) for name, values in images.items()},
    )


def score_images(
    network: Network, images: Mapping[str, list[Slice]], input_size: int, device: torch.device
) -> dict[str, torch.Tensor]:
    """Out-of-distribution scores of uint8 (1, H, W) images, by kind: float32 (N,) each."""
    scores = {}
    with torch.inference_mode():
        for kind, members in images.items():
            inputs = [as_input(image, input_size) for image in members]
            batches = [torch.stack(inputs[start : start + _BATCH]) for start in range(0, len(inputs), _BATCH)]
            answers = [network(batch.to(device)) for batch in progress(batches, f"scoring {kind}", "batch")]
            scores[kind] = torch.cat([score.cpu() for _, score, _ in answers])
    return scores


def read_images(root: Path) -> dict[str, list[Slice]]:
    """The images of each folder below `root`, by the folder's name.

    Raises:
        TrainingError: no folder of images, or a file that is no image.
    """
    images: dict[str, list[Slice]] = {}
    for path in sorted(root.glob("*/*")):
        try:
            images.setdefault(path.parent.name, []).append(decode(path.read_bytes()))
        except ServiceError as error:
            raise TrainingError(f"{path}: {error.detail}") from error
    if not images:
        raise TrainingError(f"{root}: no images; give a folder of folders, one for each kind of image")
    return images


def generated_images(seed: int) -> dict[str, list[Slice]]:
    """Images that nobody would take for a slice: noise, gradients, blank pages and pages of text."""
    generator = np.random.default_rng(derive_seed(seed, "gate"))
    makers = {"noise": _noise, "gradient": _gradient, "blank": _blank, "text": _text}
    return {
        kind: [make(generator, number)[np.newaxis] for number in range(_GENERATED_EACH)]
        for kind, make in makers.items()
    }


def _noise(generator: np.random.Generator, number: int) -> NDArray[np.uint8]:
    """From single pixels to blotches of 64, uniform or normal."""
    side = _SIDE >> number % 7
    grain = generator.random((side, side)) if number % 2 else generator.normal(0.5, 0.2, (side, side)).clip(0, 1)
    coarse = Image.fromarray((grain * 255).astype(np.uint8))
    return np.asarray(coarse.resize((_SIDE, _SIDE), Image.Resampling.NEAREST))


def _gradient(generator: np.random.Generator, number: int) -> NDArray[np.uint8]:
    """Linear in some direction, or from some point outwards."""
    y, x = np.mgrid[-1 : 1 : _SIDE * 1j, -1 : 1 : _SIDE * 1j]
    angle, (row, column) = generator.uniform(0, 2 * np.pi), generator.uniform(-1, 1, 2)
    ramp = np.hypot(x - column, y - row) if number % 5 == 0 else x * np.cos(angle) + y * np.sin(angle)
    grey: NDArray[np.uint8] = (255 * (ramp - ramp.min()) / (ramp.max() - ramp.min())).astype(np.uint8)
    return grey


def _blank(_: np.random.Generator, number: int) -> NDArray[np.uint8]:
    return np.full((_SIDE, _SIDE), number * 255 // (_GENERATED_EACH - 1), dtype=np.uint8)


def _text(generator: np.random.Generator, number: int) -> NDArray[np.uint8]:
    """Lines of letters, dark on light or the reverse."""
    paper, ink = (255, 0) if number % 2 else (0, 255)
    page = Image.new("L", (_SIDE, _SIDE), paper)
    font = ImageFont.load_default(size=int(generator.integers(10, 28)))
    letters = generator.choice(list("abcdefghijklmnopqrstuvwxyz    "), (24, 40))
    ImageDraw.Draw(page).multiline_text((8, 8), "\n".join("".join(line) for line in letters), fill=ink, font=font)
    return np.asarray(page)
