"""`python -m benchmarks.scaling`: time a slice on one processor, simulate bursts, write the tables of docs/scaling.md.

`--document-only` uses the times in docs/scaling.json; with the same times the tables are the same.
"""

import argparse
import math
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import torch
import yaml

from benchmarks.document import replace_parts, table
from benchmarks.environments import ROOT
from benchmarks.scaling.autoscaler import Policy, Settings
from benchmarks.scaling.burst import Load, Outcome, PodModel, simulate
from benchmarks.scaling.pass_times import measure
from service.model.card import Precision
from service.model.file import read_manifest
from service.processors import usable_processors
from training.run.record import Record, processor_name

DOCUMENT: Final = ROOT / "docs" / "scaling.md"
JSON: Final = ROOT / "docs" / "scaling.json"
KUBERNETES: Final = ROOT / "deploy" / "kubernetes"
PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "int8")
START_SECONDS: Final = (10, 40, 180)
"""Image on the node; image pulled first; node added first."""
_LOAD: Final = 0.5
"""Rate before the burst, as a share of what the least replicas can do."""

_LONG_SECONDS: Final = 1200


class PassTimes(Record):
    """Measured times, and the machine that they come from.

    Attributes:
        seconds: of each pass on one processor, by precision and round.
    """

    date: str
    processor: str
    processors: int
    torch: str
    files: dict[str, str]
    image: str
    seconds: dict[Precision, list[list[float]]]

    def median_ms(self, precision: Precision) -> float:
        """Return the median over rounds of a round's median."""
        return 1000 * median(median(each) for each in self.seconds[precision])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure unless only the document is wanted, then simulate and write the document."""
    options = _parser().parse_args(arguments)
    if not options.document_only:
        _measured(options.models.resolve(), options.rounds).write(JSON)
    times = PassTimes.model_validate_json(JSON.read_bytes())
    replace_parts(DOCUMENT, parts(times))
    return 0


def parts(times: PassTimes) -> dict[str, str]:
    """Return the tables of the document by the name of their markers."""
    return quick_parts(times) | {"burst": _bursts(times), "triggers": _triggers(times)}


def quick_parts(times: PassTimes) -> dict[str, str]:
    """Return what needs no simulation."""
    return {"times": _times(times), "sizes": _sizes(times), "settings": _settings(shipped())}


def pod(times: PassTimes, precision: Precision, start_seconds: float) -> PodModel:
    """Return the pod of the overlay `cpu` with the measured times."""
    deployment = yaml.safe_load((KUBERNETES / "base" / "deployment.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    settings = yaml.safe_load((KUBERNETES / "base" / "kustomization.yaml").read_text())["configMapGenerator"][0]
    values = dict(each.split("=", 1) for each in settings["literals"])
    return PodModel(
        processors=int(container["resources"]["limits"]["cpu"]),
        most_requests=int(values["COVIDCT_MAX_CONCURRENT_REQUESTS"]),
        service_seconds=np.concatenate([np.asarray(each) for each in times.seconds[precision]]),
        start_seconds=start_seconds,
    )


def shipped() -> Settings:
    """Return the autoscaler's settings of the overlay `monitoring`."""
    return Settings.read(KUBERNETES / "overlays" / "monitoring" / "scaledobject.yaml")


def _measured(models: Path, rounds: int) -> PassTimes:
    image = ROOT / "examples" / "slice.png"
    return PassTimes(
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        processor=processor_name(),
        processors=usable_processors(),
        torch=torch.__version__,
        files={file.name: file.sha256[:12] for file in read_manifest(models).files},
        image=image.relative_to(ROOT).as_posix(),
        seconds={each: measure(models, each, image, rounds) for each in PRECISIONS},
    )


def _times(times: PassTimes) -> str:
    rows = []
    for precision, rounds in times.seconds.items():
        medians = ", ".join(f"{1000 * median(each):.0f}" for each in rounds)
        rate = 1000 / times.median_ms(precision)
        rows.append([precision, medians, f"{times.median_ms(precision):.0f}", f"{rate:.2f}"])
    head = ["precision", "medians of the rounds, ms", "median, ms", "slices a second and processor"]
    return (
        f"{times.date}, {times.processor}, pinned to one of two shared processors, torch "
        f"{times.torch}, `{times.image}`.\n\n{table(head, rows)}"
    )


def _sizes(times: PassTimes) -> str:
    """Replicas at the autoscaler's target of use, so that a third of the processors is spare."""
    share = shipped().processor_share or 1.0
    head = [
        "slices a second",
        "precision",
        "replicas of 2 processors",
        "processors",
        "nodes of 32 processors",
        "memory",
    ]
    rows = []
    for rate in (10, 1_000, 100_000):
        for precision in times.seconds:
            processors = pod(times, precision, 0).processors
            replicas = math.ceil(rate * times.median_ms(precision) / 1000 / (processors * share))
            nodes = math.ceil(replicas / 15)  # two processors of a node are for the system
            rows.append(
                [f"{rate:,}", precision, f"{replicas:,}", f"{2 * replicas:,}", f"{nodes:,}", f"{2 * replicas:,} GiB"]
            )
    return table(head, rows)


def _settings(settings: Settings) -> str:
    targets = f"a mean wait of {settings.queue_seconds} s; processors used at {settings.processor_share:.0%}"
    return (
        f"{settings.least} to {settings.most} pods. Targets: {targets}. Up: {_policies(settings.up)}. "
        f"Down: {_policies(settings.down)}, after {settings.window_seconds} s."
    )


def _policies(policies: Iterable[Policy]) -> str:
    return " or ".join(
        f"{each.value}{' %' if each.type == 'Percent' else ' pods'} in {each.period_seconds} s" for each in policies
    )


def _bursts(times: PassTimes) -> str:
    head = ["precision", "new pods after", *_OUTCOME]
    rows = []
    for precision in times.seconds:
        for start in START_SECONDS:
            model = pod(times, precision, start)
            outcome = simulate(shipped(), model, Load(_LOAD * model.capacity * shipped().least))
            rows.append([precision, f"{start} s", *_shown(outcome)])
    return table(head, rows)


def _triggers(times: PassTimes) -> str:
    settings = shipped()
    variants = {
        "wait and processors (shipped)": settings,
        "wait alone": settings.only(queue=True),
        "processors alone": settings.only(processors=True),
        "no autoscaler, 2 pods": settings.fixed(settings.least),
        "no autoscaler, 20 pods": settings.fixed(settings.most),
    }
    model = pod(times, "int8", 40)
    load = Load(_LOAD * model.capacity * settings.least, burst_seconds=_LONG_SECONDS)
    rows = [[name, *_shown(simulate(each, model, load))] for name, each in variants.items()]
    return table(["triggers", *_OUTCOME], rows)


_OUTCOME: Final = [
    "p50",
    "p99",
    "p99 after 5 minutes",
    "refused with 503",
    "last refusal after",
    "most pods",
    "pod hours",
]


def _shown(outcome: Outcome) -> Iterable[str]:
    yield f"{outcome.p50_seconds:.2f} s"
    yield f"{outcome.p99_seconds:.1f} s"
    yield f"{outcome.settled_p99_seconds:.1f} s"
    yield f"{100 * outcome.refused:.1f} %"
    yield f"{outcome.refused_seconds:.0f} s" if outcome.refused else "none"
    yield f"{outcome.most_replicas}"
    yield f"{outcome.replica_hours:.1f}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="number of measurements of each precision")
    parser.add_argument("--models", type=Path, default=ROOT / "models", help="folder with the model files")
    parser.add_argument("--document-only", action="store_true", help="measure nothing, use docs/scaling.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
