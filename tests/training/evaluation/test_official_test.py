import numpy as np

from service.imaging.decode import to_input
from tests.support.sources.lesion_sources import draw_chest
from training.data.covid_ct import LabelledSlice, Split
from training.data.ct_slices import SLICE_SIZE, CtSlice
from training.evaluation.alterations import ALTERATIONS
from training.evaluation.official_test import alter
from training.network.lung_finder import LungFinder


def test_slices_are_altered_at_the_size_of_their_files_like_in_every_other_command() -> None:
    """Slices that are already scaled lose less when they are altered, so robustness would be published too well."""
    grey = draw_chest(0, lesion=True, size=600).grey[None]
    originals = Split("test", (LabelledSlice("a.png", 1, "", "PNG L", grey),))
    scaled = to_input(grey, SLICE_SIZE)
    sets = alter(originals, [CtSlice("covid-ct", "a.png", "a", "labelled", scaled[0], 1)], LungFinder().eval())
    assert sets.keys() == {"plain", *ALTERATIONS, "lung_box_only"}
    for name, change in ALTERATIONS.items():
        (altered,) = sets[name]
        assert np.array_equal(altered.grey, to_input(change(grey), SLICE_SIZE)[0]), name
        assert not np.array_equal(altered.grey, to_input(change(scaled), SLICE_SIZE)[0]), name
        assert (altered.name, altered.label) == ("a.png", 1)
