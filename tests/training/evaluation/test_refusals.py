from typing import cast

import numpy as np
import pytest
import torch
from torch import nn

from training.data.ct_slices import CtSlice
from training.evaluation.refusals import measure_refusals
from training.network.lesion_network import AppearanceProbe, LesionNetwork
from training.network.lesion_reader import LesionReader
from training.network.lung_finder import LungFinder
from training.network.view_checker import ViewChecker
from training.run.machine import Machine

pytestmark = pytest.mark.usefixtures("thin")


class _FindsBright(nn.Module):
    """Finds lungs in the middle of every picture that is not black."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.full((1, 1, 64, 64), -9.0))
        with torch.no_grad():
            self.place[:, :, 16:48, 16:48] = 9.0

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        bright = (picture.mean((1, 2, 3)) > 0.1).float().view(-1, 1, 1, 1)
        return self.place * bright - 9 * (1 - bright), torch.full((len(picture), 2), -9.0)


def _slice(source: str, number: int, grey: int) -> CtSlice:
    return CtSlice(source, f"{number}.png", str(number), "clear", np.full((320, 320), grey, np.uint8))


def test_slices_without_lungs_are_not_shown_in_other_windows_because_they_are_refused_rightly() -> None:
    torch.manual_seed(0)
    network = LesionNetwork().eval()
    probe = AppearanceProbe(network.probed_channels)
    reader = LesionReader(LungFinder().eval(), ViewChecker().eval(), network, probe, (96, 128)).eval()
    reader.finder = cast(LungFinder, _FindsBright().eval())
    slices = [_slice("chest", 0, 128), _slice("chest", 1, 0), _slice("abdomen", 2, 0)]

    refusals = measure_refusals(reader, slices, {}, Machine(torch.device("cpu"), None, 0), seed=0)

    assert refusals.slices["chest"].count == 2
    assert refusals.slices["chest"].reasons["no_lungs"] == 0.5
    for shares in refusals.altered.values():
        assert {source: share.count for source, share in shares.items()} == {"chest": 1}
