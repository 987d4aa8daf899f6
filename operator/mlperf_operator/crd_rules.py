"""CEL rules of the CRD: what the API server refuses by itself, each with a sentence that says what is possible."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mlperf_operator.api.v1alpha1 import MAX_NAME_LENGTH, PowerSetting, SecurityProfile, TestMode
from mlperf_operator.suites import BUILT_IN, Suite

MUTABLE = ("suspend", "ttlSecondsAfterFinished")

Rule = dict[str, str]


def root_rules() -> list[Rule]:
    """Return the rules about the object as a whole."""
    return [
        {
            "rule": f"self.metadata.name.size() <= {MAX_NAME_LENGTH}",
            "message": f"metadata.name may have at most {MAX_NAME_LENGTH} characters: the run's pods add to it",
        }
    ]


def volume_rules() -> list[Rule]:
    """Return the rules about a volume."""
    kinds = ("claimName", "claimTemplate", "hostPath", "emptyDir")
    present = ", ".join(f"has(self.{kind})" for kind in kinds)
    return [
        {"rule": f"[{present}].filter(x, x).size() == 1", "message": f"set exactly one of {', '.join(kinds)}"},
    ]


def code_rules() -> list[Rule]:
    """Return the rules about where the code tree comes from."""
    return [{"rule": "has(self.claimName) != has(self.image)", "message": "set exactly one of claimName, image"}]


def expectation_rules() -> list[Rule]:
    """Return the rules about an expectation."""
    return [{"rule": "has(self.min) || has(self.max)", "message": "set min, max or both"}]


def spec_rules(spec: Mapping[str, Any]) -> list[Rule]:
    """Return the rules about spec: what may change, and what the built-in suites can run."""
    rules = [_immutable(field) for field in spec["properties"] if field not in MUTABLE]
    for suite in BUILT_IN.values():
        rules += _suite_rules(suite)
    rules += _option_rules()
    requested = "self.benchmarks.exists(b, b.name == x.benchmark && (!has(b.scenarios) || x.scenario in b.scenarios))"
    for field, absent in (
        ("gpuConfig.overrides", "!has(self.gpuConfig) || !has(self.gpuConfig.overrides)"),
        ("expectations", "!has(self.expectations)"),
    ):
        rules.append(
            {
                "rule": f"{absent} || self.{field}.all(x, {requested})",
                "message": f"{field} may only name benchmarks and scenarios that the run asks for",
            }
        )
    return rules


def _immutable(field: str) -> Rule:
    both = f"has(self.{field}) == has(oldSelf.{field})"
    only = " and ".join(MUTABLE)
    return {
        "rule": f"{both} && (!has(self.{field}) || self.{field} == oldSelf.{field})",
        "message": f"{field} is immutable: delete the MLPerfRun and create another; only {only} may change",
    }


def _suite_rules(suite: Suite) -> list[Rule]:
    other = f"self.suite != {_literal(suite.name)} || "
    rules = [
        _choice(other, "self.system", suite.systems, f"suite {suite.name} has the systems"),
        {
            "rule": f"{other}self.benchmarks.all(b, b.name in {_list(suite.benchmarks)})",
            "message": f"suite {suite.name} has the benchmarks {', '.join(suite.benchmarks)}",
        },
    ]
    for name, benchmark in suite.benchmarks.items():
        own = [scenario.value for scenario in benchmark.scenarios]
        rules.append(
            {
                "rule": f"{other}self.benchmarks.all(b, b.name != {_literal(name)} || !has(b.scenarios) || "
                f"b.scenarios.all(s, s in {_list(own)}))",
                "message": f"{name} in suite {suite.name} has the scenarios {', '.join(own)}",
            }
        )
        rules.append(_audit_rule(other, suite, name))
    rules.append(_max_q_rule(other, suite))
    versions = [version.value for version in suite.config_versions]
    why = sorted(set(suite.refused_config_versions.values()))
    text = f"suite {suite.name} has the config versions {', '.join(versions)}" + "".join(f"; {w}" for w in why)
    rules.append(
        {"rule": f"{other}!has(self.configVersion) || self.configVersion in {_list(versions)}", "message": text}
    )
    if suite.requires_scratch:
        rules.append(
            {
                "rule": f"{other}has(self.scratch) && !has(self.scratch.emptyDir)",
                "message": f"suite {suite.name} needs a scratch that outlives the pod: "
                "set scratch.claimName, claimTemplate or hostPath",
            }
        )
    return rules


def _option_rules() -> list[Rule]:
    """Return the rules that hold for every suite's audits and power settings."""
    modes = [mode.value for mode in TestMode]
    max_q, parity = PowerSetting.MAX_Q.value, SecurityProfile.HARNESS_PARITY.value
    return [
        {
            "rule": "!has(self.audits) || self.audits.size() == 0 || !has(self.testModes) || "
            f"self.testModes.size() == {len(modes)}",
            "message": f"audits compare with results of the same run: set testModes to {', '.join(modes)}",
        },
        {
            "rule": f"!has(self.powerSetting) || self.powerSetting != {_literal(max_q)} || "
            f"(has(self.securityProfile) && self.securityProfile == {_literal(parity)})",
            "message": f"powerSetting {max_q} needs securityProfile {parity}",
        },
        {
            "rule": f"!has(self.powerSetting) || self.powerSetting != {_literal(max_q)} || !has(self.audits) || "
            "self.audits.size() == 0",
            "message": f"audits are of powerSetting {PowerSetting.MAX_P.value} results only",
        },
    ]


def _audit_rule(other: str, suite: Suite, name: str) -> Rule:
    own = [audit.value for audit in suite.benchmarks[name].audits]
    has = f"the audits {', '.join(own)}" if own else "no audits"
    return {
        "rule": f"{other}!has(self.audits) || self.benchmarks.all(b, b.name != {_literal(name)}) || "
        f"self.audits.all(a, a in {_list(own)})",
        "message": f"{name} in suite {suite.name} has {has}",
    }


def _max_q_rule(other: str, suite: Suite) -> Rule:
    max_q, clauses, possible = PowerSetting.MAX_Q.value, [], []
    for name, benchmark in suite.benchmarks.items():
        own = [scenario.value for scenario in benchmark.max_q_scenarios]
        if own:
            # Without scenarios a run asks for all that the suite has.
            unnamed = "!has(b.scenarios) ||" if len(own) == len(benchmark.scenarios) else "has(b.scenarios) &&"
            clauses.append(f"b.name == {_literal(name)} && ({unnamed} b.scenarios.all(s, s in {_list(own)}))")
            possible += [f"{name} {scenario}" for scenario in own]
    has = f"{max_q} values for {', '.join(possible)}: ask for these only" if possible else f"no {max_q} values"
    return {
        "rule": f"{other}!has(self.powerSetting) || self.powerSetting != {_literal(max_q)} || "
        f"self.benchmarks.all(b, {' || '.join(clauses) or 'false'})",
        "message": f"suite {suite.name} has {has}",
    }


def _choice(other: str, value: str, possible: Iterable[str], text: str) -> Rule:
    return {"rule": f"{other}{value} in {_list(possible)}", "message": f"{text} {', '.join(possible)}"}


def _list(values: Iterable[str]) -> str:
    return "[" + ", ".join(_literal(value) for value in values) + "]"


def _literal(value: str) -> str:
    if "'" in value or "\\" in value:
        msg = f"{value!r} cannot stand in a CEL string"
        raise ValueError(msg)
    return f"'{value}'"
