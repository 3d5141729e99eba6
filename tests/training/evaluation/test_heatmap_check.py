from dataclasses import replace

import numpy as np
import torch

from training.data.batches import plain_inputs
from training.data.covid_ct import CovidCt, Split
from training.evaluation.evaluate import predict
from training.evaluation.heatmap_check import HeatmapCheck, check_heatmap, cover

SIDE = 96


class SpotNetwork(torch.nn.Module):
    """COVID where the brightest of 12 x 12 cells is bright; its map is honest or upside down."""

    def __init__(self, honest: bool) -> None:
        super().__init__()
        self.sign = 1 if honest else -1

    def forward(self, slices: torch.Tensor) -> dict[str, torch.Tensor]:
        cells = torch.nn.functional.avg_pool2d(slices.float() / 255, 8)[:, 0]
        probability = torch.sigmoid(20 * (cells.amax((1, 2)) - 0.5))
        return {"probability": probability, "heatmap": self.sign * (cells - 0.5)}


def spotted(data: CovidCt) -> Split:
    """Dark slices; those of COVID have one bright cell somewhere."""
    generator = np.random.default_rng(0)
    slices = []
    for each in data.test.slices:
        grey = np.full((1, SIDE, SIDE), 20, np.uint8)
        if each.label:
            row, column = 8 * generator.integers(0, 12, 2)
            grey[0, row : row + 8, column : column + 8] = 255
        slices.append(replace(each, pixels=grey))
    return Split("test", tuple(each for each in slices if each.label))


def check(network: SpotNetwork, split: Split) -> HeatmapCheck:
    images, cpu = plain_inputs(split, SIDE), torch.device("cpu")
    plain = predict(network, images, cpu, "plain")
    covered = cover(images, plain.heatmaps, plain.probabilities >= 0.5, seed=1)
    answers = {name: predict(network, each, cpu, name).probabilities for name, each in covered.items()}
    return check_heatmap(plain.probabilities, answers, split.labels, 0.5)


def test_an_honest_map_names_the_cells_that_matter(data: CovidCt) -> None:
    result = check(SpotNetwork(honest=True), spotted(data))
    assert result.count == 4
    assert result.top_drop > 0.9
    assert result.share >= 0.5
    assert result.random_drop < result.top_drop


def test_a_map_of_what_does_not_matter_is_found_out(data: CovidCt) -> None:
    result = check(SpotNetwork(honest=False), spotted(data))
    assert result.top_drop < 0.1
    assert result.share == 0.0


def test_only_slices_that_were_called_rightly_count(data: CovidCt) -> None:
    wrong = Split("test", tuple(replace(each, label=0) for each in spotted(data).slices[:3]) + spotted(data).slices[3:])
    assert check(SpotNetwork(honest=True), wrong).count == 1
