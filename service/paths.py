"""Templates of paths, matched before the router has had its say."""

from starlette.routing import compile_path


class Templates:
    """Some routes' path templates, such as `/v2/models/{name}/infer`.

    Attributes:
        all: the templates.
    """

    def __init__(self, *templates: str) -> None:
        self.all = frozenset(templates)
        self._patterns = [(compile_path(template)[0], template) for template in templates]

    def match(self, path: str) -> str | None:
        """The template that `path` fits, or None."""
        return next((template for pattern, template in self._patterns if pattern.match(path)), None)
