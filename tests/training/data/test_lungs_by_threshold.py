from pathlib import Path

import numpy as np

from tests.support.sources.lesion_sources import draw_chest, write_lesions
from training.data.ct_slices import read_lesions
from training.data.lungs_by_threshold import segment_by_threshold, segment_with_lesions


def test_clear_lungs_are_segmented_by_threshold(tmp_path: Path) -> None:
    lesions = read_lesions(write_lesions(tmp_path / "lesions", volumes=1))
    clear = lesions[-1]
    assert clear.lung is not None
    found = segment_by_threshold(clear.grey)
    overlap = 2 * (found & clear.lung).sum() / (found.sum() + clear.lung.sum())
    assert overlap > 0.9


def test_a_dense_lesion_at_the_border_is_inside_its_lung() -> None:
    grey, lung, _ = draw_chest(0, lesion=False, size=320)
    dense = np.zeros_like(lung)
    dense[150:190, 20:80] = True
    dense &= lung
    grey[dense] = 215
    assert segment_by_threshold(grey)[dense].mean() < 0.3
    assert segment_with_lesions(grey)[dense].mean() > 0.8
    assert not segment_with_lesions(grey)[:30].any()
