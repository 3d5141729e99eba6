import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from training.data.covid_ct import CovidCt, Split
from training.evaluation.alterations import ALTERATIONS, altered, downscale, mask, reencode, upscale
from training.evaluation.scores import score
from training.report.shortcut_audit import audit_shortcuts, header_rule


def with_formats(split: Split, formats: tuple[str, str]) -> Split:
    return Split(split.name, tuple(replace(slice_, encoding=formats[slice_.label]) for slice_ in split.slices))


def test_altering_keeps_labels_and_paths(data: CovidCt) -> None:
    for name, alter in ALTERATIONS.items():
        changed = altered(data.test, alter)
        assert [(s.path, s.label) for s in changed.slices] == [(s.path, s.label) for s in data.test.slices], name
        for slice_ in changed.slices:
            assert slice_.pixels.dtype == np.uint8
            assert slice_.pixels.shape[0] == 1


def test_reencoding_gives_every_slice_the_same_size(data: CovidCt) -> None:
    assert {reencode(slice_.pixels).shape for slice_ in data.test.slices} == {(1, 256, 256)}


def test_scaling_goes_down_to_half_of_the_input_and_up_to_twice_the_slice() -> None:
    ct_slice = np.random.default_rng(0).integers(0, 255, (1, 60, 90), dtype=np.uint8)
    assert downscale(ct_slice).shape == (1, 112, 112)
    assert upscale(ct_slice).shape == (1, 120, 180)


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


def test_the_header_rule_is_perfect_where_the_format_gives_the_label_away(data: CovidCt) -> None:
    telling = CovidCt(*(with_formats(split, ("JPEG RGB", "PNG RGBA")) for split in data))
    rule = header_rule(telling, seed=0)
    assert rule.formats == {"JPEG RGB": 0.0, "PNG RGBA": 1.0}
    assert (rule.accuracy, rule.auc) == (1.0, 1.0)


def test_the_header_rule_is_worth_nothing_where_all_files_have_one_format(data: CovidCt) -> None:
    assert header_rule(data, seed=0).auc == 0.5


def test_the_audit_shows_changes_and_scores_within_a_format(data: CovidCt) -> None:
    """A predictor that looks at brightness is hardly moved; one that looks at the size is."""

    def by_brightness(split: Split) -> torch.Tensor:
        return torch.tensor([float(slice_.pixels.mean()) / 255 for slice_ in split.slices])

    def by_size(split: Split) -> torch.Tensor:
        return torch.tensor([float(slice_.pixels.shape[1] == 48) * slice_.label for slice_ in split.slices])

    for predict, moved in ((by_brightness, False), (by_size, True)):
        probabilities = predict(data.test)
        plain = score(probabilities, data.test.labels, 0.5, seed=0)
        changed = {"reencoded": predict(altered(data.test, reencode))}
        audit = audit_shortcuts(data, plain, probabilities, changed, seed=0)
        assert (audit.variants["reencoded"].auc_change < -0.2) == moved
        (subset,) = audit.formats.values()
        assert (subset.count, subset.positives) == (8, 4)
        assert subset.auc is not None
        assert subset.auc.value == pytest.approx(plain.figures["auc"].value)


def test_formats_are_read_from_the_files_themselves(data: CovidCt) -> None:
    assert {slice_.encoding for split in data for slice_ in split.slices} == {"PNG L"}
    file = io.BytesIO()
    Image.new("RGBA", (20, 20)).save(file, "PNG")
    with Image.open(file) as image:
        assert (image.format, image.mode) == ("PNG", "RGBA")
