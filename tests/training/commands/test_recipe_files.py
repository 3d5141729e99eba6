import re
from argparse import Namespace
from pathlib import Path

import pytest

from training.commands.options import read_recipe
from training.commands.parser import make_parser
from training.commands.recipe_files import preset_names, read_recipe_file, write_recipe_file
from training.lesion_recipe import LesionRecipe
from training.report_recipe import ReportRecipe

TRAIN = ["train", "--data", "x", "--lesions", "y", "--clear", "z", "--labelled", "one", "--labelled", "two"]


def recipe_of(options: Namespace) -> LesionRecipe:
    return read_recipe(options, LesionRecipe)


def test_a_written_recipe_repeats_the_run(tmp_path: Path) -> None:
    first = make_parser().parse_args([*TRAIN, "--steps", "7", "--corrections", "none", "--device", "cpu"])
    write_recipe_file(tmp_path, first, recipe_of(first))
    again = make_parser().parse_args(["train", "--config", str(tmp_path / "recipe.toml")])
    assert recipe_of(again) == recipe_of(first) == LesionRecipe(steps=7)
    assert again.labelled == [Path("one").resolve(), Path("two").resolve()]
    assert (again.corrections, again.device, again.clear) == (None, "cpu", Path("z").resolve())
    assert again.run == Path("runs/lesion"), "another run folder is for the command line"


def test_a_written_recipe_of_the_report_is_valid_in_any_folder(tmp_path: Path) -> None:
    first = make_parser().parse_args(["report", "--data", "x", "--weights", "vgg19_bn=my.pth", "--seeds", "3", "4"])
    write_recipe_file(tmp_path, first, read_recipe(first, ReportRecipe))
    again = make_parser().parse_args(["report", "--config", str(tmp_path / "recipe.toml")])
    assert again.weights == [f"vgg19_bn={Path('my.pth').resolve()}"]
    assert (again.data, again.seeds) == (Path("x").resolve(), [3, 4])


@pytest.mark.parametrize("option", ["--config ", "--config="])
def test_the_command_line_comes_before_the_file(tmp_path: Path, option: str) -> None:
    (tmp_path / "mine.toml").write_text('command = "report"\nseeds = [1, 2]\nlearning-rate = 0.001\n')
    config = ["report", "--data", "x", *f"{option}{tmp_path / 'mine.toml'}".split()]
    plain, changed = make_parser().parse_args(config), make_parser().parse_args([*config, "--seeds", "5"])
    assert (plain.seeds, plain.learning_rate) == ([1, 2], "0.001")
    assert (changed.seeds, changed.learning_rate) == ([5], "0.001")


@pytest.mark.parametrize("name", ["demo", "lesion", "report", "report-0.001"])
def test_every_preset_has_options_that_there_are(name: str) -> None:
    command = "train" if name in ("demo", "lesion") else "report"
    rest = [] if name == "demo" else TRAIN[1:] if command == "train" else ["--data", "x"]
    options = make_parser().parse_args([command, "--config", name, *rest])
    assert name in preset_names()
    for option in read_recipe_file(name, command):
        assert getattr(options, option.replace("-", "_")) is not None


def test_the_demo_names_every_number_of_steps_so_that_it_stays_short() -> None:
    options = read_recipe_file("demo", "train")
    steps = [name.replace("_", "-") for name in LesionRecipe.model_fields if name.endswith("steps")]
    assert len(steps) == 6
    assert all(options[name] <= 80 for name in steps)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('command = "report"', r"it is for the command report, not train"),
        ("steps = ", r"can't read the file"),
        ("stepz = 3", r"unknown option --stepz=3; did you mean --steps\?"),
        (None, r"no such file, nor a preset \(demo, lesion, report, report-0\.001\)"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(
    tmp_path: Path, content: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SystemExit) as ended:
        make_parser().parse_args([*TRAIN, "--config", str(path)])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)
