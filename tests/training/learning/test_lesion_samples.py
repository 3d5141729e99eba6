from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.sources.lesion_sources import draw_chest, write_clear, write_labelled, write_lesions
from training.data.ct_slices import CtSlice, read_images, read_labelled, read_lesions
from training.learning.lesion_samples import Batch, LesionSamples, to_cells
from training.learning.lung_crops import FoundLungs, crop_lungs
from training.network.lung_box import find_box

BOX_SIZE = 96, 128


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[CtSlice]:
    root = tmp_path_factory.mktemp("sources")
    return [
        *read_labelled(write_labelled(root / "hospital")),
        *read_lesions(write_lesions(root / "lesions")),
        *read_images(write_clear(root / "clear"), "clear"),
    ]


@pytest.fixture(scope="module")
def found(slices: list[CtSlice]) -> FoundLungs:
    """The drawn lungs, as a perfect finder would find them."""
    _, lung, _ = draw_chest(0, lesion=False, size=64)
    lungs = np.repeat(lung[None].astype(np.float16), len(slices), axis=0)
    return FoundLungs(lungs, find_box(torch.from_numpy(lungs).float()).numpy())


def _samples(slices: list[CtSlice], found: FoundLungs, seed: int = 0) -> LesionSamples:
    return LesionSamples(slices, found, {"hospital": 1.0, None: 0.0}, BOX_SIZE, np.random.default_rng(seed))


def test_a_crop_shows_the_lungs_dark_and_tissue_bright(slices: list[CtSlice], found: FoundLungs) -> None:
    crop = crop_lungs(slices[0], found.lung[0], found.box[0], BOX_SIZE, None)
    assert crop.grey.shape == BOX_SIZE
    assert crop.grey[crop.found > 0.9].mean() < 0.4
    assert crop.grey[crop.found < 0.01].mean() > 0.5


def test_lesion_and_picture_move_together(slices: list[CtSlice], found: FoundLungs) -> None:
    index = next(i for i, each in enumerate(slices) if each.lesion is not None and each.lesion.any())
    crop = crop_lungs(slices[index], found.lung[index], found.box[index], BOX_SIZE, np.random.default_rng(3))
    assert crop.lesion is not None
    assert crop.lung is not None
    clear = (crop.lung > 0.9) & (crop.lesion < 0.1)
    assert crop.grey[crop.lesion > 0.9].mean() > crop.grey[clear].mean() + 0.1


def test_a_batch_has_every_kind_of_target(slices: list[CtSlice], found: FoundLungs) -> None:
    batch = _samples(slices, found).batch(40)
    assert batch.pictures.shape == (40, 1, *BOX_SIZE)
    assert batch.lesion.shape == batch.lung.shape == (40, 1, 24, 32)
    assert batch.hinted.tolist() == [place % 3 == 0 for place in range(40)]
    labels = batch.label[batch.label_weight == 1]
    assert 0 < labels.sum() < len(labels)
    assert batch.lesion_weight[batch.label_weight == 1].eq(0).all(), "nobody drew their lesions"
    pasted = (batch.lesion_weight == 0.7) & (batch.lesion.sum((1, 2, 3)) > 0)
    assert pasted.any()
    assert (batch.lung_weight == 1).any()


def test_slices_that_are_known_to_have_no_lesion_teach_clear_lungs(slices: list[CtSlice], found: FoundLungs) -> None:
    empty = np.zeros_like(slices[0].grey, np.bool_)
    known = [replace(each, lesion=empty) if each.kind == "labelled" else each for each in slices]
    batch = _samples(known, found).batch(40)
    assert not batch.lesion_weight.eq(0).any()


def test_a_small_source_is_drawn_more_often_than_its_share(slices: list[CtSlice], found: FoundLungs) -> None:
    samples = _samples(slices, found)
    drawn = [samples._choose([[0], list(range(1, 101))]) for _ in range(600)]
    assert drawn.count(0) / 600 == pytest.approx(1 / 11, abs=0.04)


def test_the_position_continues_the_same_sequence(slices: list[CtSlice], found: FoundLungs) -> None:
    first = _samples(slices, found)
    first.batch(2)
    position = first.position()
    second = _samples(slices, found, seed=9)
    second.seek(position)
    wanted: Batch = first.batch(2)
    for one, other in zip(wanted, second.batch(2), strict=True):
        assert torch.equal(one, other)


def test_cells_hold_the_share_of_the_mask() -> None:
    mask = np.zeros(BOX_SIZE, np.float32)
    mask[:2, :4] = 1
    assert to_cells(mask)[0, 0] == pytest.approx(0.5)
