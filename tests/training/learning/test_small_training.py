from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from tests.support.sources.lesion_sources import draw_chest, write_clear, write_lesions, write_other
from training.data.ct_slices import CtSlice, read_images, read_lesions
from training.data.tables import read_rows
from training.data.windows import estimate_hounsfield, show
from training.learning import small_training
from training.learning.lung_crops import FoundLungs
from training.learning.lung_pictures import LungBatch, LungPictures
from training.learning.other_pictures import OtherPictures
from training.learning.small_training import SmallTraining, train_lung_finder, train_view_checker
from training.learning.view_pictures import ViewPictures
from training.network.lung_finder import LungFinder, shrink
from training.network.view_checker import VIEWS
from training.run.machine import Machine
from training.run.seeding import seed_everything


@pytest.mark.usefixtures("thin")
def test_a_few_steps_find_drawn_lungs_and_tell_noise_from_slices(tmp_path: Path) -> None:
    torch.manual_seed(0)
    lesions = read_lesions(write_lesions(tmp_path / "lesions"))
    clear = read_images(write_clear(tmp_path / "clear"), "clear")
    other = read_images(write_other(tmp_path / "other"), "other")
    pictures = LungPictures([*lesions, *clear], other, np.random.default_rng(0))
    machine = Machine(torch.device("cpu"), None, 0)
    finder = train_lung_finder(pictures, SmallTraining(50, 4, 1e-2, machine, tmp_path / "finder.ckpt"))
    slice_ = lesions[0]
    assert slice_.lung is not None
    with torch.inference_mode():
        cells, kind = finder(shrink(torch.from_numpy(slice_.grey)[None, None].float() / 255))
    lung = torch.from_numpy(slice_.lung[::5, ::5])
    inside = cells[0, 0].sigmoid()
    assert inside[lung].mean() > inside[~lung].mean() + 0.4
    assert kind.shape == (1, 2)


def test_a_batch_has_slices_other_pictures_and_contact_sheets(tmp_path: Path) -> None:
    lesions = read_lesions(write_lesions(tmp_path / "lesions", volumes=1, slices=14))
    other = read_images(write_other(tmp_path / "other"), "other")
    batch = LungPictures(lesions, other, np.random.default_rng(1)).batch(60)
    not_slices, panels = batch.kind[:, 0] == 1, batch.kind[:, 1] == 1
    assert not_slices.any()
    assert panels.any()
    assert batch.lung[not_slices].sum() == 0
    assert (batch.lung_weight[panels] == 0).all()
    slices = ~not_slices & ~panels
    assert batch.lung[slices].flatten(1).amax(1).gt(0).any()


class _ContactSheetsAlone(LungPictures):
    def batch(self, size: int) -> LungBatch:
        batch = super().batch(60)
        panels = batch.kind[:, 1] == 1
        return LungBatch(*(tensor[panels][:size] for tensor in batch))


@pytest.mark.usefixtures("thin")
def test_a_batch_of_contact_sheets_alone_keeps_the_weights_finite(tmp_path: Path) -> None:
    lesions = read_lesions(write_lesions(tmp_path / "lesions", volumes=1, slices=1))
    pictures = _ContactSheetsAlone(lesions, [], np.random.default_rng(0))
    machine = Machine(torch.device("cpu"), None, 0)
    finder = train_lung_finder(pictures, SmallTraining(2, 2, 1e-2, machine, tmp_path / "finder.ckpt"))
    assert all(value.isfinite().all() for value in finder.state_dict().values())


@pytest.mark.usefixtures("thin")
def test_a_killed_training_continues_from_its_checkpoint_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lesions = read_lesions(write_lesions(tmp_path / "lesions", volumes=2, slices=1))
    monkeypatch.setattr(small_training, "_CHECKPOINT_STEPS", 2)
    machine = Machine(torch.device("cpu"), None, 0)

    def train(checkpoint: Path, steps_until_kill: int | None = None) -> LungFinder:
        torch.manual_seed(0)
        pictures = LungPictures(lesions, [], np.random.default_rng(0))
        if steps_until_kill is not None:
            batches = iter(range(steps_until_kill))
            batch = pictures.batch
            monkeypatch.setattr(pictures, "batch", lambda size: (next(batches), batch(size))[1])
        return train_lung_finder(pictures, SmallTraining(5, 2, 1e-2, machine, checkpoint))

    whole = train(tmp_path / "whole.ckpt")
    with pytest.raises(StopIteration):
        train(tmp_path / "killed.ckpt", steps_until_kill=3)
    again = train(tmp_path / "killed.ckpt")
    for one, other in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    rows, resumed = (read_rows(tmp_path / f"{name}-losses.csv", ("step", "loss")) for name in ("whole", "killed"))
    assert [(row["step"], row["loss"]) for row in resumed] == [(row["step"], row["loss"]) for row in rows]
    seconds = [float(row["seconds"]) for row in resumed]
    assert seconds == sorted(seconds), "of all processes that continued it"


def _chest(seed: int) -> CtSlice:
    """A drawn chest with a spine at the bottom and vessels in its lungs."""
    grey, lung, _ = draw_chest(seed, lesion=False, size=320)
    vessels = np.random.default_rng(seed).random((320, 320)) < 0.1
    grey = np.where(lung, 25 + 90 * vessels, grey)
    grey[225:265, 145:175] = 255
    return CtSlice("drawn", str(seed), str(seed), "lesions", grey.astype(np.uint8), lung=lung)


def _pictures() -> ViewPictures:
    slices = [_chest(seed) for seed in range(8)]
    rng = np.random.default_rng(0)
    lungs = np.stack(
        [cv2.resize(slice_.lung.astype(np.float32), (64, 64)) for slice_ in slices if slice_.lung is not None]
    )
    boxes = np.zeros((len(slices), 4), np.float32)
    return ViewPictures(slices, FoundLungs(lungs.astype(np.float16), boxes), OtherPictures(slices, [], rng), rng)


def test_a_batch_of_views_has_every_view_and_pictures_without_one() -> None:
    batch = _pictures().batch(60)
    assert batch.pictures.shape == (60, 1, 128, 128)
    assert 0 <= batch.pictures.min() < batch.pictures.max() <= 1
    assert (batch.views.sum(0) > 5).all()
    assert batch.views.sum(1).eq(0).sum() > 10


def test_a_trained_checker_tells_inverted_slices_and_other_windows(tmp_path: Path) -> None:
    seed_everything(0)
    machine = Machine(torch.device("cpu"), None, 0)
    checker = train_view_checker(_pictures(), SmallTraining(70, 16, 5e-3, machine, tmp_path / "views.ckpt"))
    greys = np.stack([_chest(seed).grey for seed in range(100, 106)]).astype(np.float32) / np.float32(255)
    lung = draw_chest(0, lesion=False, size=64)[1].astype(np.float32)
    soft = [show(estimate_hounsfield(grey, lung), (40, 400)) for grey in greys]
    shown = {"inverted": 1 - greys, "wrong_window": np.stack(soft)}
    with torch.inference_mode():
        usual = checker(shrink(torch.from_numpy(greys)[:, None])).sigmoid().mean(0)
        for name, pictures in shown.items():
            views = checker(shrink(torch.from_numpy(pictures)[:, None])).sigmoid().mean(0)
            assert views[VIEWS.index(name)] > usual[VIEWS.index(name)] + 0.2, name


def test_the_position_of_the_view_pictures_continues_the_same_sequence() -> None:
    first, second = _pictures(), _pictures()
    first.batch(3)
    second.seek(first.position())
    for one, other in zip(first.batch(20), second.batch(20), strict=True):
        assert torch.equal(one, other)
