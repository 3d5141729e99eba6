"""Filling of the Markdown templates that lie next to the code."""

from collections.abc import Callable, Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape


def fill_template(path: Path, filters: Mapping[str, Callable[..., str | object]], **values: object) -> str:
    """Fill a Jinja template with values; a name that it uses and that is not passed is an error."""
    environment = Environment(
        loader=FileSystemLoader(path.parent),
        autoescape=select_autoescape(),  # of HTML alone
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= filters
    return environment.get_template(path.name).render(values)
