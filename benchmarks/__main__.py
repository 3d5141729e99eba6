"""`python -m benchmarks`: measure the service and its peers in turn, write the JSON and the plot."""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import torch

from benchmarks.bare import BareLoop
from benchmarks.contenders import OURS, Contender, contenders, with_int8_file
from benchmarks.decoding import measure_decoding
from benchmarks.document import draw
from benchmarks.environments import REQUIREMENTS, ROOT, version_of
from benchmarks.latency import measure_idle, measure_paces
from benchmarks.results import Results, Row
from benchmarks.turns import take_turn
from service.model.card import Precision
from service.model.file import read_manifest
from service.model.hardware import has_native_bf16
from service.processors import usable_processors
from training.run.provenance import git_commit, processor_name

IMAGE: Final = ROOT / "examples" / "slice.png"
JSON: Final = ROOT / "docs" / "performance.json"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark, then write the results and the plot; `make docs` writes the tables."""
    options = _parser().parse_args(arguments)
    if options.quick:
        options.rounds, options.seconds, options.paced_seconds = 1, 5, 15
    with tempfile.TemporaryDirectory() as folder:
        results = _measure(options, Path(folder))
    options.json.write_text(results.model_dump_json(indent=1) + "\n")
    draw(results, ROOT / "docs")
    return 0


def _measure(options: argparse.Namespace, work: Path) -> Results:
    """Measure every contender in every round, then the service alone: latency below capacity, and idle."""
    models: Path = options.models.resolve()
    precisions: list[Precision] = ["fp32", "int8"]
    if has_native_bf16(torch.device("cpu")):
        precisions.insert(1, "bf16")
    bare = {precision: BareLoop(models, precision, IMAGE.read_bytes()) for precision in precisions}
    everyone = contenders(models, usable_processors(), precisions, options.peers)
    rows = [_row(contender) for contender in everyone]
    for turn in range(options.rounds):
        order = range(len(rows)) if turn % 2 == 0 else reversed(range(len(rows)))  # so that a drift affects all equally
        for place in order:
            contender = everyone[place]
            rows[place] = take_turn(contender, rows[place], bare[contender.precision], IMAGE, options.seconds, work)
    ours = [contender for contender in everyone if contender.name == OURS]
    if (best := _best_peer(everyone, rows)) is not None and "int8" in bare:
        fair = with_int8_file(best)
        row = _row(fair)
        for _ in range(options.rounds):
            row = take_turn(fair, row, bare["int8"], IMAGE, options.seconds, work)
        rows.append(row)
    return Results(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        commit=git_commit(),
        processor=processor_name(),
        processors=usable_processors(),
        torch=torch.__version__,
        model=f"{bare['fp32'].card.name} {bare['fp32'].card.version}",
        files={file.name: file.sha256[:12] for file in read_manifest(models).files},
        image=IMAGE.relative_to(ROOT).as_posix(),
        seconds=options.seconds,
        rows=rows,
        paces=[pace for service in ours for pace in measure_paces(service, IMAGE, work / "log", options.paced_seconds)],
        idle=[measure_idle(service, bare[service.precision], IMAGE, work / "log") for service in ours],
        decoding=measure_decoding(ours[-1], IMAGE, options.seconds, options.rounds, work),
    )


def _row(contender: Contender) -> Row:
    return Row(
        name=contender.name,
        setting=contender.setting,
        precision=contender.precision,
        version=version_of(contender.name) if contender.name in REQUIREMENTS else "",
        visits=[],
    )


def _best_peer(everyone: Sequence[Contender], rows: Sequence[Row]) -> Contender | None:
    """Find the peer with the highest rate at 16 connections; None without peers that ran."""
    ran = [(row.rate(16), place) for place, row in enumerate(rows) if row.name != OURS and row.visits]
    return everyone[max(ran)[1]] if ran else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="number of turns of each contender")
    parser.add_argument("--seconds", type=int, default=10, help="duration of each load in seconds")
    parser.add_argument("--paced-seconds", type=int, default=30, help="duration of each load below capacity in seconds")
    parser.add_argument(
        "--quick", action="store_true", help="one turn with loads of 5 s: about 20 minutes on two processors"
    )
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="folder with the model files")
    parser.add_argument(
        "--peers", nargs="*", choices=sorted(REQUIREMENTS), default=sorted(REQUIREMENTS), help="peers to measure"
    )
    parser.add_argument("--json", type=Path, default=JSON, help="file for the results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
