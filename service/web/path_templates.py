"""Path templates, matched before routing."""

from starlette.routing import compile_path


class PathTemplates:
    """Path templates of some routes, such as `/v2/models/{name}/infer`."""

    def __init__(self, *templates: str) -> None:
        self._patterns = [(compile_path(template)[0], template) for template in templates]

    def match(self, path: str) -> str | None:
        """Return the template that `path` matches, or None."""
        return next((template for pattern, template in self._patterns if pattern.fullmatch(path)), None)
