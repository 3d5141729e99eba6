"""Answers of the service to real test slices equal those that the evaluation wrote."""

import csv
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from PIL import Image

from tests.support.processes.server import ROOT, Server, running

TOLERANCE = 1e-4
"""predictions.csv has six decimals; the rest is the order of additions, which differs between processors."""


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    """Twenty test slices, evenly spread over both classes, with what the evaluation says of them."""
    with (ROOT / "models" / "predictions.csv").open(newline="") as file:
        test = [row for row in csv.DictReader(file) if row["set"] == "test"]
    assert len(test) == 203
    return test[::10][:20]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """The shipped model in the precision that the evaluation computes in."""
    with running(ROOT / "models", precision="fp32", threads=2, out_of_distribution="flag") as server:
        yield server


def read(root: Path, path: str) -> bytes:
    folder = path.split("/")[0]
    unzipped = root / "Images-processed" / path
    if unzipped.is_file():
        return unzipped.read_bytes()
    with zipfile.ZipFile(root / "Images-processed" / f"{folder}.zip") as archive:
        return archive.read(path)


def probability(server: Server, data: bytes) -> float:
    response = httpx2.post(f"{server.url}/predict", files={"image": data}, timeout=60)
    assert response.status_code == 200, response.text
    return float(response.json()["probability"])


def test_the_probability_over_http_is_the_evaluations_slice_by_slice(
    covid_ct_root: Path, rows: list[dict[str, str]], server: Server
) -> None:
    assert {row["label"] for row in rows} == {"0", "1"}
    for row in rows:
        assert probability(server, read(covid_ct_root, row["file"])) == pytest.approx(
            float(row["probability"]), abs=TOLERANCE
        ), row["file"]


def test_writing_a_real_slice_in_the_other_class_file_format_changes_nothing(
    covid_ct_root: Path, rows: list[dict[str, str]], server: Server
) -> None:
    """RGBA PNG means COVID in this data set, RGB means mostly NonCOVID; the network must not be able to tell."""
    for row in rows[::7]:
        original = read(covid_ct_root, row["file"])
        expected = probability(server, original)
        grey = Image.open(io.BytesIO(original)).convert("L")
        for mode in ("L", "RGB", "RGBA"):
            file = io.BytesIO()
            grey.convert(mode).save(file, "PNG")
            assert probability(server, file.getvalue()) == expected, (row["file"], mode)
