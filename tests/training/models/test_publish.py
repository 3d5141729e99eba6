import json
import subprocess
import sys
from pathlib import Path

import pytest

from service.model.card import MANIFEST_NAME
from service.model.file import load_on_cpu, read_manifest
from tests.support.networks.tiny import tiny_card, write_models
from training.errors import TrainingError
from training.models.promotion import promote
from training.models.publish import copy_model, publish, staging_folder


def write_model(folder: Path, version: str, auc: float = 0.9, source: str = "hospital") -> Path:
    """A loadable model with its plot, its predictions for 40 slices of a source, and its AUC; returns `folder`."""
    row = write_models(folder, tiny_card(0.5).model_copy(update={"version": version}))
    named = row.model_copy(update={"name": f"tiny-{version}.fp16.pt"})
    (folder / row.name).rename(folder / named.name)
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    manifest |= {"files": [named.model_dump()], "learned": auc > 0.55, "model": {"version": version}}
    (folder / MANIFEST_NAME).write_text(json.dumps(manifest))
    lower = round(20 * auc)  # negatives below all positives
    scores = [(1, 0.5)] * 20 + [(0, 0.1)] * lower + [(0, 0.9)] * (20 - lower)
    rows = [f"left-out,{source},{version}-{i},{i}.png,{label},{score}" for i, (label, score) in enumerate(scores)]
    (folder / "predictions.csv").write_text("\n".join(["set,source,group,file,label,probability", *rows]))
    (folder / "figures").mkdir()
    (folder / "figures" / "roc.png").write_text(version)
    return folder


def version_in(folder: Path) -> str:
    (file,) = read_manifest(folder).files
    return load_on_cpu(folder, file).card.version


def test_a_release_killed_at_any_change_leaves_the_old_or_the_new_model(tmp_path: Path) -> None:
    new, old = write_model(tmp_path / "new", "2.0.0"), write_model(tmp_path / "old", "1.0.0")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tests.support.processes.killed_release", *map(str, (new, old, out))]
    subprocess.run(command, check=True)
    folders = sorted(out.iterdir(), key=lambda path: int(path.name))
    versions = [version_in(folder) for folder in folders]
    assert len(versions) >= 20, "it is killed at 20 points"
    assert versions[0] == "1.0.0"
    assert versions[-1] == "2.0.0"
    assert versions == sorted(versions), "there is one switch"
    for folder in folders[:: len(folders) // 4]:
        copy_model(new, folder)  # the next release clears up
        assert version_in(folder) == "2.0.0"
        assert len(list(folder.glob("*.pt"))) == 1
        assert not (folder / ".new").exists()
        assert (folder / "figures" / "roc.png").read_text() == "2.0.0"
        assert "2.0.0-39" in (folder / "predictions.csv").read_text()


def test_the_text_of_the_card_stays_where_it_is(tmp_path: Path) -> None:
    new, old = write_model(tmp_path / "new", "2.0.0"), write_model(tmp_path / "old", "1.0.0")
    (old / "README.md").write_text("# the card")
    copy_model(new, old)
    assert (old / "README.md").read_text() == "# the card"
    assert version_in(old) == "2.0.0"


def test_an_incomplete_model_is_not_put_in_place(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "models", "1.0.0")
    staging = staging_folder(folder)
    with pytest.raises(TrainingError, match="no complete model to put in place"):
        publish(folder)
    manifest = (folder / MANIFEST_NAME).read_text().replace("tiny-1.0.0", "tiny-2.0.0")
    (staging / MANIFEST_NAME).write_text(manifest)
    with pytest.raises(TrainingError, match=r"tiny-2\.0\.0\.fp16\.pt: not the file of its manifest"):
        publish(folder)
    assert version_in(folder) == "1.0.0"


def test_a_better_model_replaces_the_one_in_place_after_the_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new, old = write_model(tmp_path / "new", "2.0.0", auc=0.9), write_model(tmp_path / "old", "1.0.0", auc=0.8)
    for folder in (new, old):
        (folder / "README.md").write_text(f"the card of {folder.name}")
    promote(new, old, anyway=False)
    assert (old / "README.md").read_text() == "the card of new", "the job made it"
    said = capsys.readouterr().out
    assert f"release: hospital: auc 0.800 in {old}, 0.900 in {new}, on the same 40 slices (+0.100, " in said
    assert version_in(old) == "2.0.0"


@pytest.mark.parametrize(
    ("auc", "reason"),
    [
        (0.85, "mean AUC on hospital is 0.850, not better than 0.850"),
        (0.6, "AUC on hospital is 0.600, lower than 0.850, beyond chance"),
        (0.5, "not better than chance"),
    ],
)
def test_a_model_that_is_no_better_needs_a_second_word(tmp_path: Path, auc: float, reason: str) -> None:
    new, old = write_model(tmp_path / "new", "2.0.0", auc), write_model(tmp_path / "old", "1.0.0", auc=0.85)
    with pytest.raises(TrainingError, match=f"is as it was: .*{reason}.*; add --release-anyway"):
        promote(new, old, anyway=False)
    assert version_in(old) == "1.0.0"
    promote(new, old, anyway=True)
    assert version_in(old) == "2.0.0"


@pytest.mark.parametrize("version", ["2.0.0", "1.9.9", "1.10.0rc1"])
def test_a_version_that_is_not_higher_is_never_released(tmp_path: Path, version: str) -> None:
    new, old = write_model(tmp_path / "new", version, auc=0.9), write_model(tmp_path / "old", "2.0.0", auc=0.8)
    with pytest.raises(TrainingError, match=r"has version 2\.0\.0, and .* is not higher; pass --model-version 2\.0\.1"):
        promote(new, old, anyway=True)
    assert version_in(old) == "2.0.0"


def test_models_without_predictions_for_the_same_slices_are_not_compared(tmp_path: Path) -> None:
    new, old = write_model(tmp_path / "new", "2.0.0", source="another"), write_model(tmp_path / "old", "1.0.0", 0.8)
    write_models(tmp_path / "without predictions")
    for folder in (old, tmp_path / "without predictions"):
        with pytest.raises(TrainingError, match="no predictions for the same left-out slices"):
            promote(new, folder, anyway=False)
    assert version_in(old) == "1.0.0"


def test_an_empty_folder_takes_any_model_that_learned(tmp_path: Path) -> None:
    new = write_model(tmp_path / "new", "2.0.0")
    promote(new, tmp_path / "models", anyway=False)
    assert version_in(tmp_path / "models") == "2.0.0"
    assert version_in(new) == "2.0.0", "the run keeps its model"
