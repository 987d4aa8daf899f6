"""The templates of templates/: Python, make and a Dockerfile. Each escapes what it is given for its own language."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined, Template


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mlperf_operator"),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - none of them is HTML
    )
    environment.filters["literal"] = repr
    return environment


def template(name: str) -> Template:
    """Return a template by its file's name; its filter `literal` writes a value as Python does."""
    return _environment().get_template(name)
