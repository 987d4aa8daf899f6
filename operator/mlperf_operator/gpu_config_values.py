"""Checks of configuration values against the fields that a harness has; what passes is safe to write as a literal."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mlperf_operator.api.v1alpha1 import PowerSetting, Scenario
from mlperf_operator.suites import ConfigRule, FieldType

Value = bool | int | float | str | dict[str, int]

_WORD = re.compile(r"[A-Za-z0-9_]{1,63}")
_DECIMAL = re.compile(r"[0-9]{1,18}(\.[0-9]{1,18})?")
_MAX_NUMBER = 2**63
_SHOWN = 60
"""How much of a wrong value is shown."""


@dataclass(frozen=True)
class Place:
    """What a configuration is for, as far as it decides which fields it may have."""

    benchmark: str
    scenario: Scenario
    power: PowerSetting

    def has(self, rule: ConfigRule) -> bool:
        """Say whether a field of that rule exists here."""
        return (
            (not rule.benchmarks or self.benchmark in rule.benchmarks)
            and (not rule.scenarios or self.scenario in rule.scenarios)
            and (not rule.power_settings or self.power in rule.power_settings)
        )


def checked(
    fields: Mapping[str, FieldType], rules: Mapping[str, ConfigRule], place: Place, values: Mapping[str, Any]
) -> tuple[dict[str, Value], list[str]]:
    """Return the values as their fields' types, and what is wrong with the others."""
    good: dict[str, Value] = {}
    problems = []
    for name, value in values.items():
        if name not in fields:
            problems.append(_no_field(name, fields))
            continue
        rule = rules.get(name, ConfigRule())
        if not place.has(rule):
            problems.append(f"{name} is a field of {_where(rule)} alone; leave it out")
            continue
        try:
            good[name] = _coerced(value, fields[name])
        except ValueError:
            problems.append(f"{name} must be {_TYPE_NAMES[fields[name]]}, not {_shown(value)}")
            continue
        problems += [f"{name} {text}" for text in _broken(rule, good[name], place)]
    return good, problems


def missing(rules: Mapping[str, ConfigRule], place: Place, names: Iterable[str]) -> list[str]:
    """Return the fields that a configuration here needs and does not set."""
    return sorted({name for name, rule in rules.items() if rule.required and place.has(rule)} - set(names))


def _no_field(name: object, fields: Mapping[str, FieldType]) -> str:
    near = difflib.get_close_matches(str(name)[:_SHOWN], fields, n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    return f"there is no field {str(name)[:_SHOWN]}{hint} Possible: {', '.join(sorted(fields))}"


def _where(rule: ConfigRule) -> str:
    parts = (rule.benchmarks, [s.value for s in rule.scenarios], [p.value for p in rule.power_settings])
    return ", ".join(" and ".join(part) for part in parts if part)


def _broken(rule: ConfigRule, value: Value, place: Place) -> list[str]:
    """Return how a value of the right type breaks its field's rule."""
    if isinstance(value, dict):
        if rule.keyed_by_benchmark and set(value) != {place.benchmark}:
            return [f"must have the one key {place.benchmark}, not {_shown(', '.join(value))}"]
        return [text for number in value.values() for text in _out_of_range(rule, number)]
    if isinstance(value, str) and rule.words and value not in rule.words:
        return [f"must be one of {', '.join(rule.words)}, not {_shown(value)}"]
    return [] if isinstance(value, str | bool) else _out_of_range(rule, value)


def _out_of_range(rule: ConfigRule, number: float) -> list[str]:
    below = rule.minimum is not None and number < rule.minimum
    above = rule.maximum is not None and number > rule.maximum
    bounds = [
        f"{word} {bound:g}" for word, bound in (("from", rule.minimum), ("up to", rule.maximum)) if bound is not None
    ]
    return [f"must be {' '.join(bounds)}, not {number}"] if below or above else []


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
