import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from training.data.covid_ct import CovidCt
from training.evaluation.alterations import ALTERATIONS, altered, mask


@pytest.mark.parametrize("name", ALTERATIONS)
def test_altering_keeps_labels_and_paths(data: CovidCt, name: str) -> None:
    changed = altered(data.test, ALTERATIONS[name])
    assert [(s.path, s.label) for s in changed.slices] == [(s.path, s.label) for s in data.test.slices]


@pytest.mark.parametrize(
    ("name", "size"),
    [("reencoded", (256, 256)), ("masked", (60, 90)), ("downscaled", (112, 112)), ("upscaled", (120, 180))],
)
def test_alterations_give_slices_their_size(name: str, size: tuple[int, int]) -> None:
    ct_slice = np.random.default_rng(0).integers(0, 255, (1, 60, 90), dtype=np.uint8)
    changed = ALTERATIONS[name](ct_slice)
    assert changed.shape == (1, *size)
    assert changed.dtype == np.uint8


def test_masking_takes_the_frame_and_printed_letters_and_leaves_the_rest() -> None:
    page = Image.new("L", (200, 200), 90)
    drawing = ImageDraw.Draw(page)
    drawing.ellipse((60, 120, 140, 180), fill=250)  # a spine, too large for a mark
    plain = np.asarray(page)[np.newaxis]
    drawing.text((80, 40), "R 12", fill=255, font=ImageFont.load_default(size=18))
    printed = np.asarray(page)[np.newaxis]
    masked = mask(printed)
    inside = (slice(None), slice(12, -12), slice(12, -12))
    assert np.abs(printed[inside].astype(int) - plain[inside]).max() == 165
    assert np.abs(masked[inside].astype(int) - plain[inside]).max() <= 20
    assert masked[0, :12].max() == masked[0, :, -12:].max() == 0
