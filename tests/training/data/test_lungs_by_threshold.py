from pathlib import Path

from tests.support.sources.lesion_sources import write_lesions
from training.data.ct_slices import read_lesions
from training.data.lungs_by_threshold import segment_by_threshold


def test_clear_lungs_are_segmented_by_threshold(tmp_path: Path) -> None:
    lesions = read_lesions(write_lesions(tmp_path / "lesions", volumes=1))
    clear = lesions[-1]
    assert clear.lung is not None
    lung = segment_by_threshold(clear.grey)
    overlap = 2 * (lung & clear.lung).sum() / (lung.sum() + clear.lung.sum())
    assert overlap > 0.9
