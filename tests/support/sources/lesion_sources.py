"""Generated slices of several small sources, laid out as the recipe `lesion` reads them."""

from PIL import Image

from tests.support.sources.covid_ct import Lists, png
from training.generated.sources import draw_chest, write_clear, write_labelled, write_lesions, write_other

__all__ = ["chest_files", "draw_chest", "write_clear", "write_labelled", "write_lesions", "write_other"]


def chest_files(lists: Lists) -> dict[str, dict[str, bytes]]:
    """Class -> file name -> PNG of a drawn chest, for COVID-CT's layout."""
    files: dict[str, dict[str, bytes]] = {"COVID": {}, "NonCOVID": {}}
    for seed, ((_, label), names) in enumerate(lists.items()):
        for number, name in enumerate(names):
            files[label][name] = png(
                Image.fromarray(draw_chest(1000 + 100 * seed + number, lesion=label == "COVID").grey)
            )
    return files
