"""The network of the model file: lung finder, view checker, lesion network and calibration."""

import copy
from typing import Final

import torch
from torch import nn

from training.network.lesion_network import AppearanceProbe, LesionNetwork, pyramid_and_probed, surest_lesion
from training.network.lung_box import crop, find_box, place_back, set_tone
from training.network.lung_finder import LungFinder, shrink
from training.network.vgg import fold_batch_norms
from training.network.view_checker import ViewChecker

MAP_SIZE: Final = 80
"""Cells a side of the returned maps, which cover the whole slice."""

UNCALIBRATED: Final = (1.0, 0.0)
"""Slope and offset without effect."""

FEWEST_LUNG: Final = 0.006
"""Smallest share of the slice that readable lungs take."""


class LesionReader(nn.Module):
    """The model file's network.

    `forward`: uint8 (N, 1, S, S) -> float32 tensors by name:

    - `lesion_probability` (N,): of a lesion in these lungs, from the surest lesion cell; calibrated.
    - `covid_given_lesion` (N,): of COVID-19 rather than another disease, from the lesions' appearance; calibrated.
    - `probability` (N,): of COVID, their product.
    - `heatmap` (N, 80, 80): probability of lesion at each cell of the slice, 0 outside the lungs.
    - `lungs` (N, 80, 80): probability of lung.
    - `lung_involvement` (N, 3): lesion area over lung area of both lungs, of the left and of the right one, taken as
      the halves of the box; the patient's left is the picture's right.
    - `lung_fraction` (N,): lung area over the slice's area.
    - `no_lungs`, `several_panels`, `turned`, `inverted`, `wrong_window` (N,): 0 to 1, scores of the reasons to refuse
      the picture.

    Args:
        finder: finds the lungs; in evaluation mode.
        views: detects turned and inverted slices and other windows; in evaluation mode.
        network: reads lungs and lesions; in evaluation mode.
        appearance: fitted to this network's maps.
        box_size: height and width of the picture inside the lung box, as the network was trained with.
        of_lesion, of_covid: slope and offset of the calibration of both probabilities, on log odds (Platt 1999).
    """

    def __init__(
        self,
        finder: LungFinder,
        views: ViewChecker,
        network: LesionNetwork,
        appearance: AppearanceProbe,
        box_size: tuple[int, int],
        of_lesion: tuple[float, float] = UNCALIBRATED,
        of_covid: tuple[float, float] = UNCALIBRATED,
    ) -> None:
        super().__init__()
        self.finder = copy.deepcopy(finder)
        self.views = copy.deepcopy(views)
        self.normalise = copy.deepcopy(network.normalise)
        self.features = fold_batch_norms(network.features)
        self.decoder = copy.deepcopy(network.decoder)
        self.appearance = copy.deepcopy(appearance)
        self.height, self.width = box_size
        self.map_size = MAP_SIZE
        self.fewest_lung = FEWEST_LUNG
        self.of_lesion = of_lesion
        self.of_covid = of_covid

    @torch.jit.export
    def look(self, slices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Find the lungs and crop them.

        Returns:
            VGG's input (N, 3, height, width), box (N, 4), lung (N, 1, 64, 64), kind of picture (N, 2), views (N, 3).
        """
        grey = slices.float() / 255
        small = shrink(grey)
        seen = small.to(self.normalise.mean.dtype)
        cells, kind = self.finder(seen)
        views = self.views(seen)
        lung = torch.sigmoid(cells)
        box = find_box(lung[:, 0])
        inside = crop(grey, box, self.height, self.width)
        picture = set_tone(inside, crop(lung, box, self.height, self.width))
        return self.normalise(255 * picture), box, lung, kind, views

    @torch.jit.export
    def check(self, lung: torch.Tensor, kind: torch.Tensor, views: torch.Tensor) -> dict[str, torch.Tensor]:
        """Score the reasons to refuse a picture, from the results of `look`: float32 (N,) by name."""
        judged, shown = torch.sigmoid(kind), torch.sigmoid(views)
        area = (lung > 0.5).float().mean((1, 2, 3))
        return {
            "no_lungs": torch.maximum(judged[:, 0], (1.0 - area / self.fewest_lung).clamp(0.0, 1.0)),
            "several_panels": judged[:, 1],
            "turned": shown[:, 0],
            "inverted": shown[:, 1],
            "wrong_window": shown[:, 2],
        }

    def forward(self, slices: torch.Tensor) -> dict[str, torch.Tensor]:
        seen, box, lung, kind, views = self.look(slices)
        maps, probed = pyramid_and_probed(dequantised(self.features(seen)))
        cells = self.decoder(maps)
        lung_cells = torch.sigmoid(cells[:, :1])
        lesion_cells = torch.sigmoid(cells[:, 1:]) * lung_cells
        appearance = self.appearance(probed, lung_cells, lesion_cells)
        lesion_probability = torch.sigmoid(self.of_lesion[0] * surest_lesion(lesion_cells) + self.of_lesion[1])
        covid_given_lesion = torch.sigmoid(self.of_covid[0] * appearance + self.of_covid[1])

        placed = place_back(torch.cat([lesion_cells, lung_cells], 1), box, self.map_size, self.map_size)
        answer = self.check(lung, kind, views)
        answer["lesion_probability"] = lesion_probability
        answer["covid_given_lesion"] = covid_given_lesion
        answer["probability"] = lesion_probability * covid_given_lesion
        answer["heatmap"] = placed[:, 0]
        answer["lungs"] = placed[:, 1]
        answer["lung_involvement"] = involvement(lung_cells[:, 0], lesion_cells[:, 0])
        answer["lung_fraction"] = (lung > 0.5).float().mean((1, 2, 3))
        return answer


def dequantised(maps: list[torch.Tensor]) -> list[torch.Tensor]:
    """Convert int8 maps to float32."""
    return [map_.dequantize() if map_.is_quantized else map_ for map_ in maps]


def involvement(lung: torch.Tensor, lesion: torch.Tensor) -> torch.Tensor:
    """Lesion area over lung area, float (N, h, w) each -> (N, 3): both, patient's left, patient's right."""
    half = lung.shape[2] // 2
    shares: list[torch.Tensor] = []
    for low, high in ((0, lung.shape[2]), (half, lung.shape[2]), (0, half)):
        lungs = (lung[:, :, low:high] > 0.5).float()
        lesions = ((lesion[:, :, low:high] > 0.5).float() * lungs).sum((1, 2))
        shares.append(lesions / lungs.sum((1, 2)).clamp_min(1.0))
    return torch.stack(shares, dim=1)
