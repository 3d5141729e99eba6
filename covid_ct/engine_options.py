"""Options of the commands that choose the engine."""

import argparse
import os
from pathlib import Path

from covid_ct.engines import Engine, LocalEngine, RemoteEngine
from covid_ct.errors import UsageError
from covid_ct.models import find_models


def add_local_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a model here."""
    places = "default: ./models, else that of the clone that this was installed from"
    parser.add_argument("--models", type=Path, metavar="DIR", help=f"folder with the model ({places})")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="(auto: a GPU if any)")


def add_service_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a service, and the threshold of either."""
    parser.add_argument("--url", help="ask the service at this address instead of a local model")
    parser.add_argument("--api-key", help="API key for --url; better in COVIDCT_API_KEY, which no process list shows")
    parser.add_argument(
        "--operating-point",
        metavar="NAME",
        help="threshold of the model's card for the label (default: the card's, or the service's)",
    )


def check_engine_options(options: argparse.Namespace) -> None:
    """Check that model and service are not mixed.

    Raises:
        UsageError: they are.
    """
    if options.url and (options.models or options.device != "auto"):
        raise UsageError("--models and --device are for a model here; leave them out with --url")
    if options.api_key and not options.url:
        raise UsageError("--api-key is for a service; name it with --url")


def api_key(options: argparse.Namespace) -> str | None:
    """Return the key of the options, else that of the environment."""
    return options.api_key or os.environ.get("COVIDCT_API_KEY")


def open_engine(options: argparse.Namespace) -> Engine:
    """Open the engine of the options.

    Raises:
        UsageError: the options of model and service are mixed.
        ClientError: no model or no service.
    """
    check_engine_options(options)
    if options.url:
        return RemoteEngine(options.url, api_key(options), options.operating_point)
    return LocalEngine(find_models(options.models), options.device, operating_point=options.operating_point)
