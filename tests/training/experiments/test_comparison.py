import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from training.__main__ import main
from training.experiments.comparison import difference_of_auc

SMALL = [
    "--layers",
    "3_2,4_1",
    "--components",
    "8",
    "--input-size",
    "32",
    "--resize",
    "40",
    "--views",
    "1",
    "--magnify",
    "1",
]
SMALL += ["--counts", "any", "--device", "cpu", "--group-by", "patient"]


def run(data_root: Path, weights: Path, out: Path, *seeds: str, options: Sequence[str] = ()) -> int:
    networks = ["--architectures", "vgg19_bn", "--recipes", "best", "--seeds", *seeds]
    files = ["--data", str(data_root), "--weights", f"vgg19_bn={weights}", "--out", str(out)]
    return main(["compare", *files, *networks, *SMALL, *options])


def test_seeds_are_summed_up_and_what_has_ended_is_not_trained_again(
    data_root: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(data_root, weights, tmp_path, "0", "1") == 0
    first = json.loads((tmp_path / "compare.json").read_text())
    record = tmp_path / "vgg19_bn-best-0" / "trial.json"
    written = record.stat().st_mtime_ns
    assert run(data_root, weights, tmp_path, "0", "1") == 0
    assert record.stat().st_mtime_ns == written
    assert json.loads((tmp_path / "compare.json").read_text()) == first
    (row,) = first["rows"]
    assert (row["architecture"], row["recipe"], row["seeds"]) == ("vgg19_bn", "best", [0, 1])
    assert row["weights"].endswith("vgg19_bn.pth")
    trials = [json.loads((tmp_path / f"vgg19_bn-best-{seed}" / "trial.json").read_text()) for seed in (0, 1)]
    values = [trial["splits"]["test"]["figures"]["auc"]["value"] for trial in trials]
    assert row["test"]["auc"]["mean"] == pytest.approx(np.mean(values), abs=1e-4)
    assert row["test"]["auc"]["deviation"] == pytest.approx(np.std(values, ddof=1), abs=1e-4)
    for trial in trials:
        assert trial["reference"] == "out-of-fold"
        assert trial["splits"]["out-of-fold"]["count"] == 8, "without patients validation alone"
    values = [trial["splits"]["out-of-fold"]["figures"]["auc"]["value"] for trial in trials]
    assert row["chosen_on"]["auc"]["mean"] == pytest.approx(np.mean(values), abs=1e-4)
    assert "| vgg19_bn | best | 0, 1 |" in capsys.readouterr().out
    for name in ("roc", "confusion-vgg19_bn-best"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("fit_on", "reference", "count"), [("train+val", "out-of-fold", 24), ("train", "val", 8)])
def test_thresholds_are_chosen_on_what_the_recipe_leaves_to_choose_on(
    data_root: Path, weights: Path, patients: Path, tmp_path: Path, fit_on: str, reference: str, count: int
) -> None:
    assert run(data_root, weights, tmp_path, "0", options=["--patients", str(patients), "--fit-on", fit_on]) == 0
    trial = json.loads((tmp_path / "vgg19_bn-best-0" / "trial.json").read_text())
    assert trial["reference"] == reference
    assert set(trial["splits"]) == {reference, "test", "reencoded"}
    assert trial["splits"][reference]["count"] == count
    (row,) = json.loads((tmp_path / "compare.json").read_text())["rows"]
    assert row["threshold_rule"] == trial["threshold"]["rule"]
    assert row["chosen_on"]["auc"]["mean"] == trial["splits"][reference]["figures"]["auc"]["value"]


def test_a_recipe_may_have_other_seeds_and_fields_than_the_others(
    data_root: Path, weights: Path, tmp_path: Path
) -> None:
    options = ["--recipes", "best", "seed", "--seeds-for", "seed=3"]
    options += ["--head", "pooled", "--epochs", "1", "--trainable", "head"]
    assert run(data_root, weights, tmp_path, "0", "1", options=options) == 0
    rows = json.loads((tmp_path / "compare.json").read_text())["rows"]
    assert [(row["recipe"], row["seeds"]) for row in rows] == [("best", [0, 1]), ("seed", [3])]
    assert (tmp_path / "curves-vgg19_bn-seed.png").exists()


@pytest.mark.parametrize("text", ["seed", "seed=", "seed=one", "other=0"])
def test_seeds_for_must_name_a_recipe_and_numbers(
    data_root: Path, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--data", str(data_root), "--seeds-for", text, "--out", str(tmp_path)]) == 1
    assert f"--seeds-for {text}: must be" in capsys.readouterr().err


def test_weights_must_say_whose_they_are(data_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--data", str(data_root), "--weights", "vgg.pth", "--out", str(tmp_path)]) == 1
    assert "--weights vgg.pth: must be" in capsys.readouterr().err


def test_a_better_network_differs_by_more_than_nothing_and_the_same_one_by_nothing() -> None:
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], 100)
    good = labels + generator.normal(0, 0.5, (3, 200))
    poor = labels + generator.normal(0, 3, (3, 200))
    better = difference_of_auc(good, poor, labels)
    same = difference_of_auc(good, good, labels)
    assert better.value == pytest.approx(
        np.mean([roc_auc_score(labels, row) for row in good]) - np.mean([roc_auc_score(labels, row) for row in poor]),
        abs=1e-4,
    )
    assert better.low > 0.1
    assert better.low < better.value < better.high
    assert (same.low, same.value, same.high) == (0, 0, 0)
