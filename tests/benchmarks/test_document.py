"""The tables of the performance document come from the results."""

from pathlib import Path

import pytest

from benchmarks import document
from benchmarks.load import Measured
from benchmarks.results import Decoding, Idle, Pace, Results, Row, Visit


def visit(rate: float, bare: float) -> Visit:
    load = Measured(responses=100, seconds=100 / rate, p50_ms=200, p99_ms=300, failed=1)
    connections = (1, 4, 16, 64)
    return Visit(
        start_seconds=3.0,
        peak_mib=600.0,
        bare_rate=dict.fromkeys(connections, bare),
        loads=dict.fromkeys(connections, load),
    )


@pytest.fixture
def results() -> Results:
    rows = [
        Row(
            name="covid-ct",
            setting="fp32",
            precision="fp32",
            version="",
            visits=[visit(rate, 4.0) for rate in (3.0, 3.9, 3.8)],
        ),
        Row(name="ray", setting="as documented", precision="fp32", version="2.60", visits=[visit(1.9, 3.8)]),
        Row(name="bentoml", setting="tuned", precision="fp32", version="1.4", visits=[], failure="it ended"),
    ]
    return Results(
        date="2026-11-23",
        commit="0123456789abcdef-dirty",
        processor="a processor",
        processors=2,
        torch="2.15",
        model="covid-ct 2.0.0",
        files={"a.pt": "012345678901"},
        image="examples/slice.png",
        seconds=10,
        rows=rows,
        paces=[Pace(precision="fp32", arrivals="steady", share=0.8, count=100, p50_ms=250, p99_ms=300)],
        idle=[Idle(precision="fp32", count=100, http_ms=260, above_ms=2.1, bare_ms=258)],
        decoding=Decoding(
            precision="fp32",
            connections=16,
            png_rates=[4.0, 4.0, 2.0],
            dicom_rates=[3.8, 3.0, 1.9],
            dicom_bytes=200_000,
        ),
    )


def test_a_rate_and_its_share_of_the_bare_rate_are_medians_over_rounds(results: Results) -> None:
    assert results.rows[0].rate(4) == pytest.approx(3.8)
    assert results.rows[0].of_bare(4) == pytest.approx(0.95)


def test_tables_have_the_rates_and_ratios_of_the_results(results: Results) -> None:
    assert "commit 0123456-dirty, " in document.run(results)
    rates = document.throughput(results)
    assert "| ray 2.60 | as documented | 1.90 (0.50) |" in rates
    assert "| bentoml 1.4 | tuned | did not run: it ended |" in rates
    targets = document.targets(results)
    assert "| p99 / p50 at 80% of capacity, steady arrivals | 1.5 or less | 1.20 |" in targets
    assert "| rate of 512 x 512 lossless JPEG DICOM over that of PNG, 16 connections | 0.9 or more | 0.95 |" in targets
    assert "| share of the bare network's rate, 1 connection | 0.95 or more | 0.95 |" in targets
    assert "(ray, as documented), 16 connections | 1.1, 2, 4 or more | 2.00 |" in targets


def test_the_plot_is_written(results: Results, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    document.draw(results, tmp_path)
    assert (tmp_path / "images" / "performance-throughput.png").read_bytes().startswith(b"\x89PNG")
