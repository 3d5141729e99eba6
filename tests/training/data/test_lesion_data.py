import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from training.commands.source_table import source_table
from training.data.covid_ct import read_covid_ct
from training.data.lesion_data import LesionPaths, read_lesion_inputs
from training.data.patients import known_patients
from training.generated.sources import SourceSizes, write_clear, write_labelled, write_sources

SIZES = SourceSizes({"train": 3, "val": 2, "test": 3}, 3, 3, 1, 3, 3)


@pytest.fixture
def paths(tmp_path: Path) -> LesionPaths:
    """Small sources that differ."""
    folder = write_sources(tmp_path, SIZES)
    return LesionPaths(
        data=folder / "covid-ct",
        lesions=folder / "lesions",
        clear=folder / "clear",
        labelled=(folder / "hospital",),
        other=folder / "other",
        counts="any",
    )


def test_sources_that_differ_have_no_problems_and_a_row_each(paths: LesionPaths) -> None:
    inputs = read_lesion_inputs(paths)
    assert inputs.problems == []
    assert inputs.data is not None
    assert len(inputs.data.train) == 10 + 6 + 6 + 3
    header, *rows = source_table(inputs.slices).splitlines()
    assert header.split()[:4] == ["read", "for", "source", "slices"]
    assert [row.split()[-9:] for row in rows if row.startswith("--lesions")] == [
        ["drawn", "6", "0", "0", "6", "3", "6", "3", "6"]
    ]
    assert len(rows) == 6


@pytest.mark.parametrize("change", ["none", "scaled and compressed"])
def test_a_slice_of_official_test_in_a_training_source_is_refused_with_both_names(
    paths: LesionPaths, change: str
) -> None:
    test_slice = paths.data / "Images-processed" / "CT_COVID" / "covidtest1.png"
    copy = paths.labelled[0] / "COVID" / "mine.jpg"
    if change == "none":
        shutil.copy(test_slice, copy.with_suffix(".png"))
    else:
        Image.open(test_slice).resize((70, 64)).save(copy, quality=60)
    (problem,) = read_lesion_inputs(paths, allow_copies=True).problems
    assert "official test and --labelled" in problem
    assert "covid-ct/CT_COVID/covidtest1.png and hospital/COVID/mine." in problem


@pytest.mark.parametrize("use", ["lesions", "clear", "unseen", "other"])
def test_every_source_is_compared_with_official_test(paths: LesionPaths, tmp_path: Path, use: str) -> None:
    """Wherever it lies: a slice of test among the pictures that are not slices would be trained on too."""
    source = write_clear(tmp_path / "more", 1) if use == "unseen" else getattr(paths, use)
    (source / "0.png").unlink(missing_ok=True)
    name = "0-0.png" if use == "lesions" else "mine.png"
    shutil.copy(paths.data / "Images-processed" / "CT_COVID" / "covidtest1.png", source / name)
    changed: dict[str, Any] = {use: source}
    (problem,) = read_lesion_inputs(replace(paths, **changed), allow_copies=True).problems
    assert problem.startswith(
        f"official test and --{use} show the same pictures: covid-ct/CT_COVID/covidtest1.png and "
    )


def test_a_folder_that_is_given_twice_is_refused(paths: LesionPaths) -> None:
    twice = replace(paths, labelled=(*paths.labelled, paths.labelled[0] / ".." / "hospital"))
    message = f"is the folder of --labelled {paths.labelled[0]} too; its slices would count twice"
    assert message in read_lesion_inputs(twice).problems[0]
    unseen = replace(paths, unseen=paths.clear)
    assert any("is the folder of --clear too" in problem for problem in read_lesion_inputs(unseen).problems)


def test_a_picture_in_two_sources_is_refused_unless_it_is_allowed(paths: LesionPaths, tmp_path: Path) -> None:
    copied = replace(paths, unseen=write_clear(tmp_path / "more", 1))
    (problem,) = read_lesion_inputs(copied).problems
    assert problem.startswith("--clear and --unseen show the same pictures: clear/0.png and more/0.png")
    assert read_lesion_inputs(copied, allow_copies=True).problems == []


def test_two_folders_of_one_name_and_the_same_files_are_refused(paths: LesionPaths, tmp_path: Path) -> None:
    other = write_labelled(tmp_path / "copy" / "hospital", 3)
    inputs = read_lesion_inputs(replace(paths, labelled=(*paths.labelled, other)), allow_copies=True)
    assert any("both have a slice hospital/" in problem for problem in inputs.problems)


def test_all_problems_are_collected(paths: LesionPaths, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (paths.lesions / "0-0.png").write_bytes(b"no picture")
    inputs = read_lesion_inputs(replace(paths, clear=tmp_path / "empty"))
    assert inputs.data is None
    assert len(inputs.problems) == 2
    assert any("0-0.png" in problem for problem in inputs.problems)
    assert any("empty: no images, which are files named *.png" in problem for problem in inputs.problems)


def test_masks_next_to_slices_and_hidden_files_are_not_slices(paths: LesionPaths) -> None:
    shutil.copy(paths.clear / "0.png", paths.clear / "0.lung.png")
    (paths.clear / "._0.png").write_bytes(b"a resource fork")
    inputs = read_lesion_inputs(paths)
    assert inputs.problems == []
    assert len(inputs.slices["--clear"]) == 3


def test_drawn_sources_name_a_patient_for_each_slice(tmp_path: Path) -> None:
    folder = write_sources(tmp_path, SIZES) / "covid-ct"
    for split in read_covid_ct(folder, "any"):
        patients = known_patients(None, folder, split)
        assert patients is not None
        assert len(set(patients)) == len(split.slices)
