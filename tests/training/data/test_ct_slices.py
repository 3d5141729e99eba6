from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.sources.lesion_sources import draw_chest, write_labelled, write_lesions
from training.commands.recipe_files import KNOWN_LABEL_ERRORS
from training.data.ct_slices import SLICE_SIZE, read_corrections, read_images, read_labelled, read_lesions
from training.data.tables import read_rows
from training.errors import TrainingError


def test_folders_of_both_classes_are_read_with_their_labels(tmp_path: Path) -> None:
    slices = read_labelled(write_labelled(tmp_path / "hospital", count=2))
    assert [(slice_.source, slice_.label) for slice_ in slices] == [("hospital", 0)] * 2 + [("hospital", 1)] * 2
    assert all(slice_.grey.shape == (SLICE_SIZE, SLICE_SIZE) for slice_ in slices)


def test_masks_are_read_at_the_size_of_the_slice(tmp_path: Path) -> None:
    clear = [slice_ for slice_ in read_lesions(write_lesions(tmp_path / "lesions")) if slice_.name == "0-2.png"]
    (slice_,) = clear
    assert slice_.lung is not None
    assert slice_.lesion is not None
    assert slice_.lung.shape == slice_.grey.shape
    assert slice_.grey[slice_.lung].mean() < slice_.grey[~slice_.lung].mean()
    assert not slice_.lesion.any()


def test_a_table_may_have_one_class_lungs_and_slices_without_lesion(tmp_path: Path) -> None:
    grey, lung, _ = draw_chest(0, lesion=False)
    for name, picture in (("a.png", grey), ("a.lung.png", (255 * lung).astype(np.uint8)), ("b.png", grey)):
        Image.fromarray(picture).save(tmp_path / name)
    (tmp_path / "slices.csv").write_text(
        "file,label,source,patient,lesions\na.png,NonCOVID,emphysema,1,none\nb.png,NonCOVID,emphysema,,\n"
    )
    clear, unknown = read_labelled(tmp_path)
    assert [(slice_.source, slice_.group, slice_.label) for slice_ in (clear, unknown)] == [
        ("emphysema", "1", 0),
        ("emphysema", "b.png", 0),
    ]
    assert clear.lung is not None
    assert clear.lesion is not None
    assert clear.lung.any()
    assert not clear.lesion.any()
    assert unknown.lung is unknown.lesion is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,source\na.png,x\n", r"slices\.csv: no column label"),
        ("file,label,source,patient\n", r"slices\.csv: the table has no rows"),
        ("file,label,source,patient\na.png,COVID,x,1\na.png,COVID,x,1\n", r"a\.png is listed twice"),
        ("file,label,source,patient\na.png,covid,x,1\n", r"a\.png has label 'covid'; labels are NonCOVID and COVID"),
        ("file,label,source,patient,finding\na.png,COVID,x,1,well\n", r"a\.png has finding 'well'; findings are"),
    ],
)
def test_a_table_that_can_not_be_used_is_refused_with_its_file(tmp_path: Path, table: str, message: str) -> None:
    (tmp_path / "slices.csv").write_text(table)
    with pytest.raises(TrainingError, match=message):
        read_labelled(tmp_path)


def test_a_mask_of_another_size_is_refused_with_both_sizes(tmp_path: Path) -> None:
    folder = write_lesions(tmp_path / "lesions", volumes=1)
    Image.fromarray(np.zeros((10, 12), np.uint8)).save(folder / "0-0.lesion.png")
    with pytest.raises(TrainingError, match=r"0-0\.lesion\.png: the mask has \(12, 10\) pixels, its slice \(96, 96\)"):
        read_lesions(folder)


def test_a_missing_folder_of_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nowhere: no such folder"):
        read_images(tmp_path / "nowhere", "clear")


def test_corrections_turn_controls_into_negatives_and_drop_slices_without_lesion(tmp_path: Path) -> None:
    table = tmp_path / "notes.csv"
    table.write_text(
        "file,split,class,problem,evidence\n"
        "a.png,train,COVID,a control without COVID-19,caption\n"
        "b.png,train,COVID,no lesion in the slice,caption\n"
        "c.jpg,train,NonCOVID,the same picture as a COVID test slice (x.png),correlation\n"
    )
    assert read_corrections(table) == {"CT_COVID/a.png": 0, "CT_COVID/b.png": None, "CT_NonCOVID/c.jpg": None}


def test_the_list_of_label_errors_that_ships_corrects_four_slices_of_test_and_leaves_five_of_train_out() -> None:
    corrections = read_corrections(KNOWN_LABEL_ERRORS)
    rows = read_rows(KNOWN_LABEL_ERRORS, ("file", "split", "class", "problem", "evidence"))
    assert len(rows) == len(corrections) == 14
    assert all(row["evidence"] for row in rows)
    by_split = [(row["split"], corrections[f"CT_{row['class']}/{row['file']}"]) for row in rows]
    assert Counter(by_split) == {("test", 0): 4, ("train", 0): 5, ("train", None): 5}
