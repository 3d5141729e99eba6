"""The folder of the model that `covid-ct` uses without a service."""

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from covid_ct.errors import ClientError
from service.model.card import MANIFEST_NAME


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
