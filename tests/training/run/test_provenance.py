"""Origin of a result."""

import pytest

from training.run.provenance import without_folders


@pytest.mark.parametrize(
    ("argument", "recorded"),
    [
        ("/data/sets/covid-ct", "covid-ct"),
        ("--run=/scratch/me/first run/", "--run=first run/"),
        ("vgg16_bn=/weights/vgg16.pth", "vgg16_bn=vgg16.pth"),
        ("runs/lesion", "runs/lesion"),
        ("--threads", "--threads"),
    ],
)
def test_a_recorded_command_has_no_folders_of_its_machine(argument: str, recorded: str) -> None:
    assert without_folders(argument) == recorded
