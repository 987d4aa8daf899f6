"""What `python3 -m code.main` does. No system, no config, INVALID, failed accuracy: all end with 0."""

from __future__ import annotations

import argparse

from standin import audit, engine, harness
from standin.faults import faults
from standin.log import LOG, configure
from standin.names import Benchmark, Scenario
from standin.registry import ConfigRegistry
from standin.request import Measurement, log_folder, parse, setting_of
from standin.systems import System, detected, matched


def measurements(arguments: argparse.Namespace, system: System) -> list[Measurement]:
    """Return the pairs that have a config; the others get a line at best."""
    benchmarks = [Benchmark(name) for name in arguments.benchmarks.split(",")]
    scenarios = [Scenario(name) for name in arguments.scenarios.split(",")]
    pairs = [(benchmark, scenario) for benchmark in benchmarks for scenario in scenarios]
    for pair in pairs:
        if "no-custom-file" not in faults(f"{pair[0].value}/{pair[1].value}/config"):
            ConfigRegistry.load_configs(*pair)
    setting = setting_of(arguments)
    folder = audit.log_folder(arguments.audit_test) if arguments.action == "run_audit_harness" else None
    found = []
    for benchmark, scenario in pairs:
        if not ConfigRegistry.has_pair(benchmark, scenario):
            continue  # Not even a line: so does the real tree.
        fields = ConfigRegistry.get(benchmark, scenario, system, setting)
        if fields is None or "no-config" in faults(f"{benchmark.value}/{scenario.value}/config"):
            text = f"{benchmark.value}.{scenario.value}.{system.value.system_id}"
            LOG.warning("No registered config for %s for WorkloadSetting(%s)", text, setting.shortname())
            continue
        given = {name: getattr(arguments, name) for name in ("min_duration", "min_query_count")}
        fields |= {name: value for name, value in given.items() if value is not None}
        found.append(
            Measurement(
                benchmark=benchmark,
                scenario=scenario,
                setting=setting,
                system_id=system.value.system_id,
                fields=fields,
                mode=arguments.test_mode,
                test_run=arguments.test_run,
                log_dir=folder or log_folder(arguments),
            )
        )
    return found


def main(argv: list[str]) -> None:
    """Run the action for every pair that has a config."""
    configure()
    arguments = parse(argv)
    machine = detected(f"{arguments.benchmarks}/{arguments.scenarios}")
    system = matched(machine)
    if system is None:
        LOG.info("Detected system did not match any known systems. Exiting. %s", machine)
        return
    LOG.info("Detected system ID: %s", system)
    for measurement in measurements(arguments, system):
        for name, value in sorted(measurement.fields.items()):
            print(f"{name} : {value}")
        if arguments.action == "generate_engines":
            engine.generate(measurement)
        elif arguments.action == "run_harness":
            harness.measure(measurement)
        elif arguments.action == "run_audit_harness":
            audit.run(measurement, arguments.audit_test)
        else:
            LOG.info("Action %s is not currently supported", arguments.action)
