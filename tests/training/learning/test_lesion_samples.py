from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.processes.parallel import BOX_SIZE, perfect_lungs, read_slices, samples_of
from training.data.ct_slices import CtSlice
from training.learning.lesion_samples import Batch, to_cells
from training.learning.lung_crops import FoundLungs, crop_lungs


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[CtSlice]:
    return read_slices(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def lungs(slices: list[CtSlice]) -> FoundLungs:
    return perfect_lungs(len(slices))


def test_a_crop_shows_the_lungs_dark_and_tissue_bright(slices: list[CtSlice], lungs: FoundLungs) -> None:
    crop = crop_lungs(slices[0], lungs.lung[0], lungs.box[0], BOX_SIZE, None)
    assert crop.grey.shape == BOX_SIZE
    assert crop.grey[crop.found_lung > 0.9].mean() < 0.4
    assert crop.grey[crop.found_lung < 0.01].mean() > 0.5


def test_lesion_and_picture_move_together(slices: list[CtSlice], lungs: FoundLungs) -> None:
    index = next(i for i, slice_ in enumerate(slices) if slice_.lesion is not None and slice_.lesion.any())
    crop = crop_lungs(slices[index], lungs.lung[index], lungs.box[index], BOX_SIZE, np.random.default_rng(3))
    assert crop.lesion is not None
    assert crop.lung is not None
    clear = (crop.lung > 0.9) & (crop.lesion < 0.1)
    assert crop.grey[crop.lesion > 0.9].mean() > crop.grey[clear].mean() + 0.1


def test_a_batch_has_every_kind_of_target(slices: list[CtSlice]) -> None:
    batch = samples_of(slices).batch(40)
    assert batch.pictures.shape == (40, 1, *BOX_SIZE)
    assert batch.lesion.shape == batch.lung.shape == (40, 1, 24, 32)
    labels = batch.label[batch.label_weight == 1]
    assert 0 < labels.sum() < len(labels)
    assert batch.lesion_weight[batch.label_weight == 1].eq(0).all(), "nobody drew their lesions"
    pasted = (batch.lesion_weight == 0.7) & (batch.lesion.sum((1, 2, 3)) > 0)
    assert pasted.any()
    assert (batch.lung_weight == 1).any()


def test_slices_that_are_labelled_as_clear_teach_their_label_alone(slices: list[CtSlice]) -> None:
    empty = np.zeros_like(slices[0].grey, np.bool_)
    known = [replace(slice_, lesion=empty) if slice_.kind == "labelled" else slice_ for slice_ in slices]
    batch = samples_of(known).batch(40)
    assert batch.lesion_weight[batch.label_weight == 1].eq(0).all()


def test_a_small_source_is_drawn_more_often_than_its_share(slices: list[CtSlice]) -> None:
    samples = samples_of(slices)
    drawn = [samples._choose([[0], list(range(1, 101))]) for _ in range(600)]
    assert drawn.count(0) / 600 == pytest.approx(1 / 11, abs=0.04)


def test_the_position_continues_the_same_sequence(slices: list[CtSlice]) -> None:
    first = samples_of(slices)
    first.batch(2)
    position = first.position()
    second = samples_of(slices, seed=9)
    second.seek(position)
    wanted: Batch = first.batch(2)
    for one, other in zip(wanted, second.batch(2), strict=True):
        assert torch.equal(one, other)


def test_cells_hold_the_share_of_the_mask() -> None:
    mask = np.zeros(BOX_SIZE, np.float32)
    mask[:2, :4] = 1
    assert to_cells(mask)[0, 0] == pytest.approx(0.5)
