import dataclasses
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.training.ct_folders import write_labelled_folders
from tests.training.data_set import png
from training.__main__ import main
from training.config import METHODS, Recipe
from training.data import LABELS, CovidCt, Split
from training.errors import TrainingError
from training.fitting import Fitting, fit
from training.machine import Machine
from training.objective import TensorBatch
from training.other_ct import set_of
from training.pretraining import PretrainingJob, PretrainingRun, _read_sets, learning_rate, pretrain

SMALL: dict[str, object] = {
    "layers": "4_1",
    "resize": 40,
    "view_size": 32,
    "epochs": 2,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "projection_width": 16,
    "projection_size": 8,
}
TRAINED = ("features.27.", "features.28.")
"""4_1 and its batch norm in VGG-19."""
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module")
def other_ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labelled_folders(tmp_path_factory.mktemp("pretraining") / "other", 2)


@pytest.fixture(scope="module", params=METHODS)
def job(
    request: pytest.FixtureRequest,
    machine: Machine,
    weights: Path,
    other_ct: Path,
    data: CovidCt,
    tmp_path_factory: pytest.TempPathFactory,
) -> PretrainingJob:
    """One of each method, done."""
    folder = tmp_path_factory.mktemp(request.param)
    settings = METHODS[request.param].override(**SMALL)
    job = PretrainingJob(settings, machine, weights, (other_ct,), folder / "run", folder / "out" / "vgg19_bn.pth")
    done = pretrain(job, data)
    assert [record.epoch for record in done.history] == [1, 2]
    assert (done.source, done.count) == (weights.name, 16 + 4)
    return job


def elsewhere(job: PretrainingJob, folder: Path) -> PretrainingJob:
    """The same, to be done again."""
    return dataclasses.replace(job, run_folder=folder / "run", out=folder / "again.pth")


def read(path: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return state


def assert_same(one: Path, other: Path) -> None:
    torch.testing.assert_close(read(one), read(other), rtol=0, atol=0)


def test_what_was_not_trained_is_as_it_was_and_the_rest_has_moved(job: PretrainingJob, weights: Path) -> None:
    before, after = read(weights), read(job.out)
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    learnt = {name for name in before if name.startswith(TRAINED)}
    kept = set() if job.settings.method == "joint" else {name for name in learnt if name.endswith(STATISTICS)}
    # a batch norm takes a convolution's bias away again, so that it need not get a gradient
    assert moved | {"features.27.bias"} == learnt - kept | {"features.27.bias"}


def test_the_statistics_that_are_written_are_those_of_covid_ct(job: PretrainingJob) -> None:
    layers, written = torch.load(job.run_folder / "last.pt", weights_only=True)["layers"], read(job.out)
    ours, theirs = (f"features.28.norms.{domain}.running_mean" for domain in (0, 1))
    assert (ours in layers) == (job.settings.method == "joint")
    if ours in layers:
        assert torch.equal(written["features.28.running_mean"], layers[ours])
        assert not torch.equal(layers[theirs], layers[ours])


def test_the_file_is_what_train_takes_as_weights(
    job: PretrainingJob, recipe: Recipe, machine: Machine, data: CovidCt, tmp_path: Path
) -> None:
    fitted = fit(Fitting(recipe.override(epochs=0), machine, job.out, tmp_path / "run"), data)
    written = read(job.out)
    assert fitted.source == "vgg19_bn.pth"
    for name, value in fitted.network.features.state_dict().items():
        torch.testing.assert_close(value, written[f"features.{name}"], rtol=0, atol=0)


def test_a_run_killed_in_the_middle_of_an_epoch_ends_as_one_that_was_not(
    job: PretrainingJob, data: CovidCt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(Exception):
        pass

    whole = PretrainingRun.train_epoch

    def dying(run: PretrainingRun, batches: Iterable[TensorBatch], title: str) -> tuple[float, float | None]:
        def until_killed() -> Iterator[TensorBatch]:
            yield next(iter(batches))
            raise KilledError

        return whole(run, until_killed() if run.history else batches, title)

    again = elsewhere(job, tmp_path)
    monkeypatch.setattr(PretrainingRun, "train_epoch", dying)
    with pytest.raises(KilledError):
        pretrain(again, data)
    monkeypatch.undo()
    assert not again.out.exists()
    assert len(pretrain(again, data).history) == 2
    assert_same(job.out, again.out)


def test_a_finished_run_trains_no_further_and_writes_the_same_file(
    job: PretrainingJob, data: CovidCt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(PretrainingRun, "train_epoch")
    again = dataclasses.replace(job, out=tmp_path / "again.pth")
    pretrain(again, data)
    assert_same(job.out, again.out)


def test_slices_of_validation_and_test_play_no_part(job: PretrainingJob, data: CovidCt, tmp_path: Path) -> None:
    other = data._replace(val=Split("val", data.val.scans[:1]), test=Split("test", data.test.scans[:1]))
    again = elsewhere(job, tmp_path)
    pretrain(again, other)
    assert_same(job.out, again.out)


def test_no_slice_of_validation_or_test_is_learnt_from_even_if_a_folder_has_them(
    job: PretrainingJob, data: CovidCt, tmp_path: Path
) -> None:
    for split in data:
        for number, scan in enumerate(split.scans):
            path = tmp_path / LABELS[scan.label] / f"{split.name}-{number}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(png(Image.fromarray(scan.ct_slice[0])))
    sets = _read_sets(dataclasses.replace(job, other_ct=(tmp_path,)), data)
    assert [len(each.images) for each in sets] == [16, 16]
    learnt = {image.numpy().tobytes() for each in sets for image in each.images}
    side = job.settings.resize
    assert learnt == {image.numpy().tobytes() for image in set_of(data.train, side).images}
    for split in (data.val, data.test):
        assert not learnt & {image.numpy().tobytes() for image in set_of(split, side).images}


def test_another_run_in_the_same_folder_is_refused_and_nothing_is_lost(
    job: PretrainingJob, data: CovidCt, other_ct: Path, tmp_path: Path
) -> None:
    changed = {name: value + 1 if name.startswith("features.0.") else value for name, value in read(job.out).items()}
    torch.save(changed, tmp_path / "changed.pth")
    fewer = data._replace(train=Split("train", data.train.scans[1:]))
    for other, slices, field in (
        (dataclasses.replace(job, settings=job.settings.override(epochs=3)), data, "epochs"),
        (dataclasses.replace(job, other_ct=(other_ct, other_ct)), data, "sha256 of other data"),
        (dataclasses.replace(job, weights=tmp_path / "changed.pth"), data, "sha256 of starting weights"),
        (job, fewer, "sha256 of train data"),
    ):
        with pytest.raises(TrainingError, match=rf"this run has {field} = .*--fresh"):
            pretrain(other, slices)
    assert (job.run_folder / "last.pt").exists()


def test_a_damaged_checkpoint_is_named(job: PretrainingJob, data: CovidCt, tmp_path: Path) -> None:
    again = elsewhere(job, tmp_path)
    again.run_folder.mkdir()
    (again.run_folder / "last.pt").write_bytes(b"half a checkpoint")
    with pytest.raises(TrainingError, match=r"last\.pt: not a checkpoint of this run.*--fresh"):
        pretrain(again, data)


def test_a_loss_that_is_not_finite_stops_the_run_with_advice(
    job: PretrainingJob, data: CovidCt, tmp_path: Path
) -> None:
    spoilt = read(job.out)
    spoilt["features.27.weight"].fill_(float("nan"))
    torch.save(spoilt, tmp_path / "spoilt.pth")
    with pytest.raises(TrainingError, match=r"epoch 1/2: the loss is not finite; lower --learning-rate"):
        pretrain(dataclasses.replace(elsewhere(job, tmp_path), weights=tmp_path / "spoilt.pth"), data)


def test_all_convolutions_learn_when_asked(machine: Machine, weights: Path, data: CovidCt, tmp_path: Path) -> None:
    settings = METHODS["vicreg"].override(**SMALL | {"layers": "2_1", "trainable": "all", "epochs": 1})
    pretrain(PretrainingJob(settings, machine, weights, (), tmp_path / "run", tmp_path / "all.pth"), data)
    before, after = read(weights), read(tmp_path / "all.pth")
    convolutions = [f"features.{place}.weight" for place in (0, 3, 7, 10)]
    assert [torch.equal(before[name], after[name]) for name in convolutions] == [False, False, False, True]


def test_the_learning_rate_is_constant_or_falls_along_a_cosine() -> None:
    settings = METHODS["vicreg"].override(learning_rate=1.0, epochs=4)
    assert {learning_rate(settings, epoch) for epoch in range(1, 5)} == {1.0}
    falling = [learning_rate(settings.override(schedule="cosine"), epoch) for epoch in range(1, 5)]
    assert falling == pytest.approx([1.0, 0.854, 0.5, 0.146], abs=1e-3)


def arguments(data_root: Path, weights: Path, *others: str) -> list[str]:
    command = ["pretrain", "--data", str(data_root), "--counts", "any", "--weights", str(weights), "--device", "cpu"]
    fields = [text for name, value in SMALL.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    return [*command, *fields, *others]


def test_the_command_says_what_it_wrote(
    data_root: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--run", str(tmp_path / "run")]
    assert main(arguments(data_root, weights, "--method", "simclr", "--epochs", "1", *folder)) == 0
    printed = capsys.readouterr()
    assert "vgg19_bn 4_1 to 4_1: simclr, 16 slices, epoch 1: loss " in printed.out
    assert f"written: {tmp_path / 'run' / 'vgg19_bn.pth'}; other layers are those of {weights.name}" in printed.out
    assert (tmp_path / "run" / "vgg19_bn.pth").exists()
    assert "epoch 1: loss " in printed.err


def test_a_mistake_is_one_line_on_stderr_and_status_1(
    data_root: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def error_of(*others: str) -> str:
        assert main(arguments(data_root, weights, "--run", str(tmp_path / "run"), *others)) == 1
        return [line for line in capsys.readouterr().err.splitlines() if "error: " in line][-1]

    assert "pretraining field epochs = '0'" in error_of("--method", "vicreg", "--epochs", "0")
    assert "no such folder; --other-ct must" in error_of("--method", "vicreg", "--other-ct", str(tmp_path / "none"))
    assert "--method joint needs --other-ct DIR" in error_of("--method", "joint")
    monkeypatch.setitem(sys.modules, "lightly", None)
    assert "--method vicreg needs lightly, which is not installed: pip install" in error_of("--method", "vicreg")
