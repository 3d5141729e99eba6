"""The model that `covid-ct` uses without a service: its folder, and `covid-ct model show`."""

import json
from argparse import Namespace
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

from covid_ct.errors import ClientError
from service.model.card import MANIFEST_NAME

if TYPE_CHECKING:
    from service.model.card import Interval, ModelCard
    from service.model.choice import Choice
    from service.model.file import LoadedModel


_WITHOUT_THRESHOLD: Final = ("auc", "auprc")
"""Figures that are the same for every threshold."""


def find_models(named: Path | None) -> Path:
    """Find the models folder: `named`, else `models` here, else that of the clone that the package comes from.

    Raises:
        ClientError: no folder is named, and none has a manifest; one line with the folders that were tried.
    """
    if named is not None:
        return named
    folders = [Path("models"), *(clone / "models" for clone in _clones())]
    for folder in folders:
        if (folder / MANIFEST_NAME).is_file():
            return folder
    tried = ", ".join(str(folder / MANIFEST_NAME) for folder in dict.fromkeys(folders))
    raise ClientError(f"no model was found (tried {tried}); name its folder with --models DIR, or a service with --url")


def _clones() -> list[Path]:
    """List the folder of this source, and the one that pip installed from (PEP 610, direct_url.json)."""
    clones = [Path(__file__).resolve().parents[1]]
    try:
        origin = json.loads(distribution("covid-ct").read_text("direct_url.json") or "{}").get("url", "")
    except (PackageNotFoundError, ValueError):
        return clones
    address = urlsplit(origin)
    if address.scheme == "file":
        clones.append(Path(url2pathname(address.path)))
    return clones


def show_model(options: Namespace) -> int:
    """Print the model that this machine would use.

    Raises:
        ClientError: there is none, or it can't be used.
    """
    from service.errors import ModelFileError
    from service.model.choice import choose
    from service.model.file import load_on_cpu

    folder = find_models(options.models)
    try:
        choice = choose(folder, options.device)
        model = load_on_cpu(folder, choice.file)
    except ModelFileError as error:
        raise ClientError(str(error)) from error
    if options.json:
        print(json.dumps(_as_json(choice, model), indent=2))
    else:
        print("\n".join([*_file_lines(folder, choice, model), *_card_lines(model.card, choice)]))
    return 0


def _as_json(choice: "Choice", model: "LoadedModel") -> dict[str, Any]:
    return {
        "file": choice.file.name,
        "sha256": model.sha256,
        "device": choice.device.type,
        "precision": choice.precision,
        "precision_milliseconds": dict(choice.milliseconds),
        "agreement": None if choice.agreement is None else choice.agreement.model_dump(),
        "card": model.card.model_dump(mode="json"),
    }


def _file_lines(folder: Path, choice: "Choice", model: "LoadedModel") -> Iterator[str]:
    card, file = model.card, choice.file
    yield f"{card.name} {card.version}, {card.architecture}, {card.precision}, input side {card.input_size}"
    yield f"file      {(folder / file.name).resolve()}, {file.bytes} bytes, as released (its hash is the manifest's)"
    yield f"sha256    {model.sha256}"
    yield f"computes  {choice.precision} on {choice.device.type}, like a service here with its usual settings"
    if choice.milliseconds:
        times = ", ".join(f"{name} {milliseconds:.1f}" for name, milliseconds in choice.milliseconds.items())
        yield f"measured  milliseconds of one convolution here: {times}"


def _card_lines(card: "ModelCard", choice: "Choice") -> Iterator[str]:
    yield f"threshold {card.threshold:.4f} for {card.positive_label} ({card.threshold_rule})"
    for name in card.operating_points:
        point = card.operating_point(name)
        lesion = f", lesion {point.lesion_threshold:.4f}" if card.lesion_thresholds else ""
        purpose = f" ({point.purpose})" if point.purpose else ""
        yield f"point     {name} {point.threshold:.4f}{lesion}{purpose}"
    for check, threshold in card.checks.items():
        yield f"check     {check} above {threshold:.4f}"
    for source, figures in card.left_out_metrics.items():
        yield from _figure_lines(f"left out  {source}:", figures, card.threshold)
    yield from _figure_lines("test     ", card.test_metrics, card.threshold)
    if (agreement := choice.agreement) is not None:
        same = f"AUC {agreement.auc:.3f}, same label for {agreement.decisions_equal:.1%} of the test slices"
        yield f"this file {same}, probabilities differ by at most {agreement.largest_difference:.4f}"
    yield f"use       {card.intended_use}\nlimits    {card.limits}"


def _figure_lines(start: str, figures: "Mapping[str, Interval]", threshold: float) -> Iterator[str]:
    for name, figure in figures.items():
        at = "" if name in _WITHOUT_THRESHOLD else f" at {threshold:.2f}"
        yield f"{start} {name}{at} {figure.value:.3f} ({figure.low:.3f} to {figure.high:.3f})"
