"""Tables of the documents, made from the code; `make docs` writes them with cog, and `make lint` checks them."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import yaml
from prometheus_client.metrics import MetricWrapperBase

from benchmarks import document
from benchmarks.results import Results
from service.metrics import Metrics
from service.model.card import Interval
from service.settings import Settings
from service.web.app import create_app
from service.web.openapi.problem_examples import PROBLEM_EXAMPLES

ROOT = Path(__file__).parents[1]

_SOURCES: Final = {
    "sars-cov-2-ct": "SARS-CoV-2-CT, left out",
    "covid-ct-md": "COVID-CT-MD (COVID-19, other pneumonia, normal), left out",
    "covid-ct": "COVID-CT, papers and patients left out",
    "test": "COVID-CT, official test (203 slices)",
    "test_corrected": "the same, four label errors corrected",
}
"""Rows of the README's results, by name in metrics.json."""


def settings() -> str:
    """List every setting with its default and description."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = "" if field.default is None else str(field.default)
        rows.append((f"`COVIDCT_{name.upper()}`", f"`{default}`" if default else "", field.description or ""))
    return _table(("variable", "default", "description"), rows)


def routes() -> str:
    """List every route of the OpenAPI document, except those of one model version, with its summary."""
    rows = [
        (f"`{method.upper()} {path}`", operation["summary"])
        for path, operations in create_app(Settings()).openapi()["paths"].items()
        for method, operation in operations.items()
        if "/versions/" not in path
    ]
    return _table(("route", "answer"), rows)


def errors() -> str:
    """List every error code that reaches a client, with its status and an example of `detail`."""
    problems = sorted(PROBLEM_EXAMPLES, key=lambda problem: problem.status)
    return _table(
        ("status", "`code`", "`detail`, for example"), [(str(p.status), f"`{p.code}`", p.detail) for p in problems]
    )


def metrics() -> str:
    """List every metric with its type, labels and description."""
    metrics = [metric for metric in vars(Metrics()).values() if isinstance(metric, MetricWrapperBase)]
    rows = []
    for metric in metrics:
        (family,) = metric.describe()
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)  # noqa: SLF001 - it has no public name
        rows.append((f"`{name}`", family.type, labels, family.documentation))
    return _table(("metric", "type", "labels", "description"), rows)


def alerts() -> str:
    """List every alert with its severity and description."""
    groups = yaml.safe_load((ROOT / "docker" / "prometheus" / "rules.yml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    rows = [(f"`{rule['alert']}`", rule["labels"]["severity"], rule["annotations"]["description"]) for rule in rules]
    return _table(("alert", "severity", "meaning and what to do"), rows)


def results() -> str:
    """List the published figures of the shipped model: left-out sources, then the official test."""
    content = json.loads((ROOT / "models" / "metrics.json").read_text())
    every = content["judgement"]["sources"] | content["splits"]
    return _table(
        ("", "AUC", "threshold", "sensitivity", "specificity", "accuracy"),
        [(text, *_result(every[name], content)) for name, text in _SOURCES.items() if name in every],
    )


def _result(scores: dict[str, Any], content: dict[str, Any]) -> tuple[str, ...]:
    """Return AUC, threshold and rates of one row; a left-out source has a threshold that it did not choose."""
    auc = _written(scores["figures"]["auc"])
    nested = scores.get("nested")
    if nested:
        sides = [_written(nested["rates"][name]) for name in ("sensitivity", "specificity")]
        return auc, f"{nested['threshold']:.2f}", *sides, ""
    threshold = scores.get("threshold") or next(iter(content["judgement"]["operating_points"].values()))["threshold"]
    figures = [_written(scores["figures"][name]) for name in ("sensitivity", "specificity", "accuracy")]
    return auc, f"{threshold:.2f}", *figures


def _written(figure: dict[str, float]) -> str:
    interval = Interval.model_validate(figure)
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def benchmark(part: str) -> str:
    """Make one part of the performance page from the results of `make bench`."""
    results = Results.model_validate_json((ROOT / "docs" / "performance.json").read_bytes())
    text: str = getattr(document, part)(results)
    return text


def make_targets() -> str:
    """List the targets of the Makefile with their help texts, as `make help` does."""
    rows = re.findall(r"^([a-z-]+):.*?## (.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    return _table(("command", "description"), [(f"`make {name}`", text) for name, text in rows])


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
