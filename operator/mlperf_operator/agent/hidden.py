"""Texts without the credentials in them: what a store or a library says reaches logs and the run's status."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from mlperf_operator.naming import ACCESS_KEY, SECRET_KEY, SESSION_TOKEN

SHORTEST = 6
"""Shorter values are no credentials of any store, and are parts of ordinary words."""


def of_upload(values: Mapping[str, str]) -> Hidden:
    """Return what hides the credentials of an upload; certificates are no secret."""
    return Hidden({key: values.get(key, "").strip() for key in (ACCESS_KEY, SECRET_KEY, SESSION_TOKEN)})


class Hidden:
    """Replaces values by their names, also where they are written as in a URL."""

    def __init__(self, values: Mapping[str, str]) -> None:
        forms = {
            form: f"({name})"
            for name, value in values.items()
            if len(value) >= SHORTEST
            for form in (value, quote(value, safe=""), quote(value))
        }
        # A value may be part of another one.
        self._forms = dict(sorted(forms.items(), key=lambda item: -len(item[0])))

    def within(self, text: str) -> str:
        """Return a text without the values."""
        for form, name in self._forms.items():
            text = text.replace(form, name)
        return text
