import cv2
import numpy as np
import torch

from tests.support.sources.lesion_sources import draw_chest
from training.data.ct_slices import CtSlice
from training.data.windows import estimate_hounsfield, show
from training.learning.lung_crops import FoundLungs
from training.learning.lung_pictures import LungPictures
from training.learning.view_pictures import ViewPictures
from training.learning.view_training import ViewTraining, train_view_checker
from training.network.lung_finder import shrink
from training.network.view_checker import VIEWS
from training.run.machine import Machine
from training.run.seeding import seed_everything


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
    lungs = np.stack([cv2.resize(each.lung.astype(np.float32), (64, 64)) for each in slices if each.lung is not None])
    found = FoundLungs(lungs.astype(np.float16), np.zeros((len(slices), 4), np.float32))
    return ViewPictures(slices, found, LungPictures(slices, [], rng), rng)


def test_a_batch_has_every_view_and_pictures_without_one() -> None:
    batch = _pictures().batch(60)
    assert batch.pictures.shape == (60, 1, 128, 128)
    assert 0 <= batch.pictures.min() < batch.pictures.max() <= 1
    assert (batch.views.sum(0) > 5).all()
    assert batch.views.sum(1).eq(0).sum() > 10


def test_a_trained_checker_tells_inverted_slices_and_other_windows() -> None:
    seed_everything(0)
    checker = train_view_checker(_pictures(), ViewTraining(70, 16, 5e-3, Machine(torch.device("cpu"), None, 0)))
    greys = np.stack([_chest(seed).grey for seed in range(100, 106)]).astype(np.float32) / np.float32(255)
    lung = draw_chest(0, lesion=False, size=64)[1].astype(np.float32)
    soft = [show(estimate_hounsfield(each, lung), (40, 400)) for each in greys]
    shown = {"inverted": 1 - greys, "wrong_window": np.stack(soft)}
    with torch.inference_mode():
        usual = checker(shrink(torch.from_numpy(greys)[:, None])).sigmoid().mean(0)
        for name, pictures in shown.items():
            views = checker(shrink(torch.from_numpy(pictures)[:, None])).sigmoid().mean(0)
            assert views[VIEWS.index(name)] > usual[VIEWS.index(name)] + 0.2, name
