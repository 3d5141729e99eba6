from collections import Counter
from functools import partial
from pathlib import Path
from typing import cast

import pytest
import torch
from torch import nn

from tests.training.ct_folders import write_labelled_folders
from training.config import METHODS, Pretraining
from training.data import CovidCt
from training.errors import TrainingError
from training.joint import BalancedBatches, DomainBatchNorm, Joint
from training.machine import Machine
from training.network import SliceNetwork
from training.other_ct import CtFolders, CtSet, set_of
from training.views import shrink

SMALL = METHODS["joint"].override(layers="2_1", trainable="all", view_size=32, batch_size=8)


@pytest.fixture(scope="module")
def sets(data: CovidCt, tmp_path_factory: pytest.TempPathFactory) -> list[CtSet]:
    """8 slices of each class of COVID-CT, and 3 of each of another."""
    folder = write_labelled_folders(tmp_path_factory.mktemp("joint") / "other", 3)
    return [set_of(data.train, 40), CtFolders((), partial(shrink, side=40)).read_labelled(folder)]


def make(sets: list[CtSet], settings: Pretraining, machine: Machine) -> Joint:
    torch.manual_seed(0)
    return Joint(SliceNetwork(settings.recipe()), sets, settings, machine)


def test_batches_have_as_many_of_each_group_and_an_epoch_has_every_slice() -> None:
    groups = [[0, 1, 2, 3, 4], [5, 6, 7], [8, 9], [10]]
    batches = list(BalancedBatches(groups, 8, seed=0))
    assert len(batches) == len(BalancedBatches(groups, 8, seed=0)) == 3
    for batch in batches:
        assert [len([i for i in batch if i in group]) for group in groups] == [2, 2, 2, 2]
    seen = Counter(index for batch in batches for index in batch)
    assert set(seen) == set(range(11))
    assert max(seen[index] - seen[other] for group in groups for index in group for other in group) <= 1
    assert batches == list(BalancedBatches(groups, 8, seed=0))
    assert batches != list(BalancedBatches(groups, 8, seed=1))


def test_a_batch_is_balanced_over_classes_and_sets(sets: list[CtSet], machine: Machine) -> None:
    batches = list(make(sets, SMALL, machine).batches(epoch=1))
    assert len(batches) == 4
    for views, labels, domains in batches:
        assert views.shape == (8, 1, 32, 32)
        kinds = Counter(zip(labels.tolist(), domains.tolist(), strict=True))
        assert kinds == {(0, 0): 2, (1, 0): 2, (0, 1): 2, (1, 1): 2}


def test_domains_share_weights_and_only_its_own_slices_move_a_domains_statistics() -> None:
    start = nn.BatchNorm2d(3)
    norm = DomainBatchNorm(start, 2).train()
    first, second = (cast(nn.BatchNorm2d, each) for each in norm.norms)
    norm.domain = 1
    norm(5 + torch.randn(4, 3, 8, 8))
    assert torch.equal(cast(torch.Tensor, first.running_mean), torch.zeros(3))
    assert (cast(torch.Tensor, second.running_mean) > 0.4).all()
    assert len(list(norm.parameters())) == 2
    with torch.no_grad():
        first.weight.fill_(2.0)
    assert torch.equal(second.weight, torch.full((3,), 2.0))
    assert torch.equal(start.weight, torch.ones(3))


def test_a_step_sends_each_set_through_its_own_statistics_and_head(sets: list[CtSet], machine: Machine) -> None:
    joint = make(sets, SMALL, machine)
    views, labels, domains = next(iter(joint.batches(epoch=1)))
    views[domains == 1] = 255
    joint._network.train()
    step = joint.step([views, labels, domains])
    assert step.right in range(9)
    step.loss.backward()  # type: ignore[no-untyped-call]
    assert all(head.weight.grad is not None for head in cast(nn.ModuleList, joint.heads))
    ours, theirs = (cast(nn.BatchNorm2d, each) for each in joint._norms[0].norms)
    # a white image has no variance away from its borders, noise has
    assert cast(torch.Tensor, ours.running_var).mean() > cast(torch.Tensor, theirs.running_var).mean()


def test_layers_that_do_not_learn_keep_one_batch_norm(sets: list[CtSet], machine: Machine) -> None:
    network = SliceNetwork(SMALL.recipe())
    for layer in list(network.features)[:5]:
        layer.requires_grad_(False)
    Joint(network, sets, SMALL, machine)
    kinds = [type(layer) for layer in network.features if isinstance(layer, nn.BatchNorm2d | DomainBatchNorm)]
    assert kinds == [nn.BatchNorm2d, nn.BatchNorm2d, DomainBatchNorm]
    assert not make(sets, SMALL.override(freeze_batch_norm=True), machine)._norms


def test_one_set_and_batches_that_can_not_be_balanced_are_refused(
    sets: list[CtSet], machine: Machine, tmp_path: Path
) -> None:
    with pytest.raises(TrainingError, match=r"--method joint needs --other-ct DIR with the folders COVID and NonCOVID"):
        make(sets[:1], SMALL, machine)
    with pytest.raises(TrainingError, match=r"--batch-size 10: must be a multiple of 4"):
        make(sets, SMALL.override(batch_size=10), machine)
