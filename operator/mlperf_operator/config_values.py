"""Checks of configuration values against the fields that a harness has; what passes is safe to write as a literal."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from typing import Any

from mlperf_operator.suites import FieldType

Value = bool | int | float | str | dict[str, int]

_WORD = re.compile(r"[A-Za-z0-9_]{1,63}")
_DECIMAL = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")
_MAX_NUMBER = 2**63
_SHOWN = 60
"""How much of a wrong value is shown."""


def checked(fields: Mapping[str, FieldType], values: Mapping[str, Any]) -> tuple[dict[str, Value], list[str]]:
    """Return the values as their fields' types, and what is wrong with the others."""
    good: dict[str, Value] = {}
    problems = []
    for name, value in values.items():
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            hint = f"; did you mean {near[0]}?" if near else "."
            problems.append(f"there is no field {name}{hint} Possible: {', '.join(sorted(fields))}")
            continue
        try:
            good[name] = _coerced(value, fields[name])
        except ValueError:
            problems.append(f"{name} must be {_TYPE_NAMES[fields[name]]}, not {_shown(value)}")
    return good, problems


def _shown(value: object) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= _SHOWN else f"{value[:_SHOWN]}...")
    if value is None or isinstance(value, bool | float):
        return repr(value)
    return str(value) if isinstance(value, int) and abs(value) < _MAX_NUMBER else f"a {type(value).__name__}"


_TYPE_NAMES: Mapping[FieldType, str] = {
    "Integer": "an integer from 0",
    "Number": "a number from 0",
    "Boolean": "true or false",
    "Word": "a word of letters, digits and _",
    "Map": "a map of benchmark to integer",
}


def _coerced(value: object, kind: FieldType) -> Value:
    """Return the value as the field's type; a string, as overrides have it, is read as one."""
    if kind == "Boolean":
        return _boolean(value)
    if kind == "Map" and isinstance(value, dict):
        return {_word(key, "-."): _integer(number) for key, number in value.items()}
    if kind == "Word":
        return _word(value)
    if kind == "Integer":
        return _integer(value)
    if kind == "Number":
        return _number(value)
    raise ValueError(value)


def _boolean(value: object) -> bool:
    if value is True or value == "true":
        return True
    if value is False or value == "false":
        return False
    raise ValueError(value)


def _word(value: object, also: str = "") -> str:
    if isinstance(value, str) and _WORD.fullmatch(value.translate(dict.fromkeys(map(ord, also), "_"))):
        return value
    raise ValueError(value)


def _integer(value: object) -> int:
    number = _number(value)
    if isinstance(number, float):
        raise ValueError(value)  # noqa: TRY004 - 2.5 is of a wrong value, not of a wrong type
    return number


def _number(value: object) -> int | float:
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = float(value) if "." in value else int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MAX_NUMBER:
        raise ValueError(value)
    return int(value) if math.floor(value) == value else value
