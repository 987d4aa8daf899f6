"""Runs inside a copy of the tree, in its own Python: asks the tree's code what it makes of our files.

A request comes as JSON on standard input, the answer goes as JSON to the file that the first argument names: the
tree's own code logs to both output streams.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import json
import sys
import types
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

ABSENT = ("submission_checker", "nvmitten", "tensorrt")
"""What code.main imports of the container, and this does not use: MLCommons' checker, the builder library, TensorRT."""


class _Absent(types.ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__ = []

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        # A name in CamelCase is a base class.
        return MagicMock() if name.islower() or name.isupper() else type(name, (), {})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, fullname: str, *_: object) -> importlib.machinery.ModuleSpec | None:
        if fullname.split(".", maxsplit=1)[0] not in ABSENT:
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Absent(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def main() -> None:
    """Answer the request."""
    request = json.load(sys.stdin)
    sys.path.insert(0, str(Path.cwd()))
    sys.meta_path.append(_Finder())
    tree = types.SimpleNamespace(
        main=importlib.import_module("code.main"),
        constants=importlib.import_module("code.common.constants"),
        fields=importlib.import_module("code.common.fields"),
        systems=importlib.import_module("code.common.systems.system_list"),
        audit=importlib.import_module("code.actionhandler.run_audit"),
        code=importlib.import_module("code"),
    )
    answer: dict[str, Any] = {"runs": [_run(tree, wanted) for wanted in request["runs"]]}
    if request["facts"]:
        answer |= {"systems": _systems(tree), "fields": _fields(tree, request["benchmarks"], request["fields"])}
        answer["exempt"] = _exempt(tree, request["benchmarks"])
    Path(sys.argv[1]).write_text(json.dumps(answer))


def _run(tree: types.SimpleNamespace, wanted: dict[str, Any]) -> dict[str, Any]:
    """Go through the tree's own main with a command line; return the configurations that it would act on."""
    acted: list[Any] = []
    tree.main.dispatch_action = lambda *arguments: acted.append(arguments)
    tree.main.turn_off_mps = lambda: None
    system = tree.systems.KnownSystem[wanted["system"]]
    try:
        tree.main.main(tree.main.parse_main_args(wanted["arguments"]), system.value)
        return {"acted": [_acted(tree, config, workload) for _, config, workload in acted]}
    except Exception as error:  # noqa: BLE001 - whatever the tree raises is the answer
        return {"error": f"{type(error).__name__}: {error}"}


def _acted(tree: types.SimpleNamespace, config: dict[str, Any], workload: types.SimpleNamespace) -> dict[str, Any]:
    values = {name: value for name, value in config.items() if isinstance(value, bool | int | float | str | dict)}
    values = json.loads(json.dumps(values))
    # The tree's own check of the batch sizes' keys, which comes only when an engine is built. It changes the map.
    config = {**config, "gpu_batch_size": dict(config["gpu_batch_size"])}
    tree.code.convert_to_component_aliased_enum(config)
    tree.code.validate_batch_size(config)
    return {
        "values": values,
        "harness": workload.harness_type.name,
        "accuracy": workload.accuracy_target.name,
        "power": workload.power_setting.name,
    }


def _systems(tree: types.SimpleNamespace) -> dict[str, Any]:
    found = {}
    for system in tree.systems.KnownSystem:
        accelerators = system.value.accelerator_conf
        named = [gpu.name for gpu in accelerators.get_accelerators()]
        # A slice of a GPU may be named by a bare string.
        names = [name for own in named for name in (str(own), *getattr(own, "aliases", ()))]
        found[system.name] = {"count": accelerators.num_gpus(), "names": names, "id": system.value.system_id}
    return found


def _fields(tree: types.SimpleNamespace, benchmarks: Sequence[str], names: Sequence[str]) -> dict[str, Any]:
    """Return type and places of config fields, asked as the registry asks when it takes a class."""
    found = {}
    for name in names:
        if name not in tree.fields.Fields.__members__:
            continue
        field = tree.fields.Fields[name].value
        places = [place for *where, place in _places(tree, benchmarks) if field.supports(None, *where)]
        kind = getattr(field.value_type, "__name__", "") or str(field.value_type)
        found[name] = {"type": kind, "required": field.required, "places": places}
    return found


def _places(tree: types.SimpleNamespace, benchmarks: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    known, constants = tree.systems.KnownSystem.A100_SXM4_40GBx8, tree.constants
    for benchmark in map(constants.Benchmark.get_match, benchmarks):
        for scenario in constants.Scenario:
            for power in constants.PowerSetting:
                setting = constants.WorkloadSetting(power_setting=power)
                yield benchmark, scenario, known, setting, [benchmark.valstr(), scenario.valstr(), power.valstr()]


def _exempt(tree: types.SimpleNamespace, benchmarks: Sequence[str]) -> dict[str, list[str]]:
    """Return the audits that do nothing, by benchmark."""
    found = {}
    for name in benchmarks:
        handler = object.__new__(tree.audit.RunAuditHandler)
        handler.benchmark_conf = {"benchmark": tree.constants.Benchmark.get_match(name)}
        found[name] = [test.valstr() for test in tree.constants.AuditTest if _is_exempt(handler, test.valstr())]
    return found


def _is_exempt(handler: types.SimpleNamespace, test: str) -> bool:
    handler.test_name = test
    return bool(handler.is_exempt)


if __name__ == "__main__":
    main()
