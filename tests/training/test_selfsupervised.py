import sys

import pytest
import torch

from training.config import METHODS, Pretraining
from training.data import CovidCt
from training.errors import TrainingError
from training.machine import Machine
from training.network import SliceNetwork
from training.other_ct import set_of
from training.selfsupervised import SelfSupervised, ViewPairs, require_lightly

SMALL = METHODS["vicreg"].override(
    layers="2_1", trainable="all", view_size=32, batch_size=4, projection_width=16, projection_size=8
)


@pytest.fixture(scope="module")
def images(data: CovidCt) -> tuple[torch.Tensor, ...]:
    return set_of(data.train, 40).images


def make(images: tuple[torch.Tensor, ...], settings: Pretraining, machine: Machine) -> SelfSupervised:
    torch.manual_seed(0)
    return SelfSupervised(SliceNetwork(settings.recipe()), images, settings, machine)


def test_two_views_of_a_slice_differ_and_depend_on_seed_epoch_and_index_alone(images: tuple[torch.Tensor, ...]) -> None:
    first, second = ViewPairs(images, SMALL, epoch=1)[3]
    assert {view.shape for view in (first, second)} == {(1, 32, 32)}
    assert {view.dtype for view in (first, second)} == {torch.uint8}
    assert not torch.equal(first, second)
    torch.manual_seed(123)  # what was drawn elsewhere does not matter
    again = ViewPairs(images, SMALL, epoch=1)
    _ = again[0]
    assert torch.equal(again[3][0], first)
    for other in (again[4], ViewPairs(images, SMALL, epoch=2)[3], ViewPairs(images, SMALL.override(seed=1), 1)[3]):
        assert not torch.equal(other[0], first)


def test_processes_that_make_views_make_the_same_ones(images: tuple[torch.Tensor, ...], machine: Machine) -> None:
    alone = list(make(images, SMALL, machine).batches(epoch=1))
    helped = list(make(images, SMALL, Machine(machine.device, None, workers=2)).batches(epoch=1))
    assert len(alone) == 4
    for ours, theirs in zip(alone, helped, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("method", ["vicreg", "simclr"])
def test_the_loss_is_smaller_where_the_views_are_the_same(
    method: str, images: tuple[torch.Tensor, ...], machine: Machine
) -> None:
    objective = make(images, SMALL.override(method=method), machine)
    first, second = next(iter(objective.batches(epoch=1)))
    with torch.no_grad():
        same, different = (objective.step([first, other]) for other in (first, second.flip(0)))
    assert same.right is None
    assert same.loss.dtype == torch.float32
    assert same.loss < different.loss


def test_fewer_slices_than_a_batch_are_refused(images: tuple[torch.Tensor, ...], machine: Machine) -> None:
    with pytest.raises(TrainingError, match=r"16 slices don't fill a batch; lower --batch-size 17"):
        make(images, SMALL.override(batch_size=17), machine)


def test_without_lightly_the_method_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightly", None)
    with pytest.raises(TrainingError, match=r"--method simclr needs lightly.*pip install .*pretraining"):
        require_lightly("simclr")
