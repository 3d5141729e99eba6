from dataclasses import replace

import numpy as np
import torch

from training.data.covid_ct import CovidCt, Split
from training.evaluation.heatmap_check import check_heatmap

SIDE = 96


class SpotNetwork(torch.nn.Module):
    """COVID where the brightest of 12 x 12 cells is bright; its map is honest or upside down."""

    def __init__(self, honest: bool) -> None:
        super().__init__()
        self.sign = 1 if honest else -1

    def forward(self, slices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        cells = torch.nn.functional.avg_pool2d(slices.float() / 255, 8)[:, 0]
        probability = torch.sigmoid(20 * (cells.amax((1, 2)) - 0.5))
        return probability, torch.zeros(len(slices)), self.sign * (cells - 0.5)


def spotted(data: CovidCt) -> Split:
    """Dark slices; those of COVID have one bright cell somewhere."""
    generator = np.random.default_rng(0)
    scans = []
    for scan in data.test.scans:
        grey = np.full((1, SIDE, SIDE), 20, np.uint8)
        if scan.label:
            row, column = 8 * generator.integers(0, 12, 2)
            grey[0, row : row + 8, column : column + 8] = 255
        scans.append(replace(scan, ct_slice=grey))
    return Split("test", tuple(scan for scan in scans if scan.label))


def test_an_honest_map_names_the_cells_that_matter(data: CovidCt) -> None:
    check = check_heatmap(SpotNetwork(honest=True), spotted(data), 0.5, SIDE, torch.device("cpu"), seed=1)
    assert check.count == 4
    assert check.top_drop > 0.9
    assert check.share >= 0.5
    assert check.random_drop < check.top_drop


def test_a_map_of_what_does_not_matter_is_found_out(data: CovidCt) -> None:
    check = check_heatmap(SpotNetwork(honest=False), spotted(data), 0.5, SIDE, torch.device("cpu"), seed=1)
    assert check.top_drop < 0.1
    assert check.share == 0.0


def test_only_slices_that_were_called_rightly_count(data: CovidCt) -> None:
    wrong = Split("test", tuple(replace(scan, label=0) for scan in spotted(data).scans[:3]) + spotted(data).scans[3:])
    assert check_heatmap(SpotNetwork(honest=True), wrong, 0.5, SIDE, torch.device("cpu"), seed=1).count == 1
