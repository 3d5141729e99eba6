from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.sources.lesion_sources import write_clear, write_lesions, write_other
from training.data.ct_slices import read_images, read_lesions
from training.learning import lung_training
from training.learning.lung_pictures import LungPictures
from training.learning.lung_training import LungTraining, train_lung_finder
from training.network.lung_finder import LungFinder, shrink
from training.run.machine import Machine


@pytest.mark.usefixtures("thin")
def test_a_few_steps_find_drawn_lungs_and_tell_noise_from_slices(tmp_path: Path) -> None:
    torch.manual_seed(0)
    lesions = read_lesions(write_lesions(tmp_path / "lesions"))
    clear = read_images(write_clear(tmp_path / "clear"), "clear")
    other = read_images(write_other(tmp_path / "other"), "other")
    pictures = LungPictures([*lesions, *clear], other, np.random.default_rng(0))
    machine = Machine(torch.device("cpu"), None, 0)
    finder = train_lung_finder(pictures, LungTraining(50, 4, 1e-2, machine))
    each = lesions[0]
    assert each.lung is not None
    with torch.inference_mode():
        found, kind = finder(shrink(torch.from_numpy(each.grey)[None, None].float() / 255))
    lung = torch.from_numpy(each.lung[::5, ::5])
    inside = found[0, 0].sigmoid()
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


@pytest.mark.usefixtures("thin")
def test_a_killed_training_continues_from_its_checkpoint_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lesions = read_lesions(write_lesions(tmp_path / "lesions", volumes=2, slices=1))
    monkeypatch.setattr(lung_training, "_CHECKPOINT_STEPS", 2)
    machine = Machine(torch.device("cpu"), None, 0)

    def train(checkpoint: Path, steps_until_kill: int | None = None) -> LungFinder:
        torch.manual_seed(0)
        pictures = LungPictures(lesions, [], np.random.default_rng(0))
        if steps_until_kill is not None:
            batches = iter(range(steps_until_kill))
            batch = pictures.batch
            monkeypatch.setattr(pictures, "batch", lambda size: (next(batches), batch(size))[1])
        return train_lung_finder(pictures, LungTraining(5, 2, 1e-2, machine, checkpoint))

    whole = train(tmp_path / "whole.ckpt")
    with pytest.raises(StopIteration):
        train(tmp_path / "killed.ckpt", steps_until_kill=3)
    again = train(tmp_path / "killed.ckpt")
    for one, other in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
