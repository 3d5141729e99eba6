import copy

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from training.data.batches import plain_inputs
from training.data.covid_ct import CovidCt
from training.learning.features import FeatureCache, head_features
from training.learning.linear_probe import held_out_logits, solve
from training.network.slice_network import SliceNetwork
from training.recipe import ProbeSettings, Recipe
from training.run.machine import Machine

FOLDS = torch.tensor([0, 1, -1, 0, 1, -1, 0, 1])
LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 0, 1])
VIEWS = 3


@pytest.fixture
def three_views() -> ProbeSettings:
    return ProbeSettings(views=VIEWS, penalty=1.0)


@pytest.fixture
def pooled() -> torch.Tensor:
    """Eight slices, three views one after the other."""
    return torch.randn(VIEWS * 8, 5, generator=torch.Generator().manual_seed(3))


def test_an_answer_is_that_of_a_probe_fitted_to_every_view_of_the_slices_of_other_folds_and_of_none(
    three_views: ProbeSettings, pooled: torch.Tensor
) -> None:
    labels = LABELS.repeat(VIEWS)
    (answers,) = held_out_logits(pooled, labels, FOLDS, three_views, [pooled[:8]])
    for each, fold in enumerate(FOLDS.tolist()):
        if fold < 0:
            assert answers[each].tolist() == [0, 0], "no fold holds it out"
            continue
        seen = [view * 8 + i for view in range(VIEWS) for i in range(8) if FOLDS[i] != fold]
        weight, bias = solve(pooled[seen].numpy(), labels[seen].numpy(), 1.0 * VIEWS)
        margin = pooled[each].numpy() @ weight + bias
        np.testing.assert_allclose(answers[each].numpy(), [-margin / 2, margin / 2], rtol=1e-5)


def test_no_view_of_a_held_out_slice_nor_its_label_moves_the_answers_to_its_fold(
    three_views: ProbeSettings, pooled: torch.Tensor
) -> None:
    plain, held_out = pooled[:8].clone(), FOLDS == 0
    (before,) = held_out_logits(pooled, LABELS.repeat(VIEWS), FOLDS, three_views, [plain])
    everywhere = held_out.repeat(VIEWS)
    altered, labels = pooled.clone(), LABELS.repeat(VIEWS)
    altered[everywhere] = -100 * altered[everywhere]
    labels[everywhere] = 1 - labels[everywhere]
    (after,) = held_out_logits(altered, labels, FOLDS, three_views, [plain])
    torch.testing.assert_close(after[held_out], before[held_out], rtol=0, atol=0)
    others = FOLDS == 1
    assert (after[others] - before[others]).abs().min() > 1e-3, "those probes did see them"


def test_features_are_taken_from_the_cache_for_the_same_network_alone(
    recipe: Recipe, machine: Machine, data: CovidCt
) -> None:
    torch.manual_seed(0)
    cache, images = FeatureCache(), plain_inputs(data.val, recipe.network.input_size)
    first = SliceNetwork(recipe.network)
    others = (recipe.override(magnify=1.25), recipe.override(layers="3_3,4_1"))
    kept = head_features(first, images, machine, "", cache)
    assert head_features(copy.deepcopy(first), images, machine, "", cache) is kept
    for changed in others:
        other = SliceNetwork(changed.network)
        other.load_state_dict(first.state_dict())
        own = head_features(other, images, machine, "", cache)
        torch.testing.assert_close(own, head_features(other, images, machine, ""))
        assert not torch.allclose(own, kept)


def test_altered_slices_are_answered_by_the_probe_of_their_fold(
    three_views: ProbeSettings, pooled: torch.Tensor
) -> None:
    labels, plain = LABELS.repeat(VIEWS), pooled[:8]
    shifted = plain + 1
    both = held_out_logits(pooled, labels, FOLDS, three_views, [plain, shifted])
    assert both.shape == (2, 8, 2)
    torch.testing.assert_close(both[:1], held_out_logits(pooled, labels, FOLDS, three_views, [plain]), rtol=0, atol=0)
    torch.testing.assert_close(both[1:], held_out_logits(pooled, labels, FOLDS, three_views, [shifted]), rtol=0, atol=0)
    assert not torch.equal(both[0], both[1])


@pytest.mark.parametrize("slices", [5, 200])
def test_the_solution_in_the_span_of_the_slices_is_that_in_all_features(slices: int) -> None:
    generator = np.random.default_rng(1)
    labels = np.arange(slices) % 2
    features = (generator.normal(1, 3, (slices, 20)) + 2 * labels[:, None]).astype(np.float32)
    weight, bias = solve(features, labels, 0.1)
    scaler = StandardScaler().fit(features)
    plain = Ridge(alpha=0.1 * 20).fit(scaler.transform(features), 2 * labels - 1)
    np.testing.assert_allclose(features @ weight + bias, plain.predict(scaler.transform(features)), atol=1e-5)
