"""The two halves of `make run`: generate_engines and run_harness.

As in NVIDIA's harness, the exit status is no verdict: an unknown system, a pair without config, LoadGen's INVALID and a
missed accuracy threshold all end with 0. Only what stops the work ends with 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from harness import engine, loadgen, results
from harness.configs_loader import load_configs
from harness.constants import CONFIG_VERSIONS, Benchmark, HarnessError, Scenario, TestMode, full_name
from harness.log import LOG, configure_logging
from harness.registry import ConfigRegistry, describe
from harness.scratch import BUILD, scratch
from harness.settings import CommandLine, RunSettings, run_settings
from harness.systems import DetectedSystem, SystemConfiguration, detect, match, register_custom_systems


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Parse RUN_ARGS; an unknown option is dropped without a word, as in NVIDIA's harness."""
    parser = argparse.ArgumentParser(prog="harness", allow_abbrev=False)
    parser.add_argument("--action", choices=("generate_engines", "run_harness"), required=True)
    parser.add_argument("--benchmarks", default=",".join(item.value for item in Benchmark))
    parser.add_argument("--scenarios", default=",".join(item.value for item in Scenario))
    parser.add_argument("--config_ver", default="default", choices=tuple(CONFIG_VERSIONS))
    parser.add_argument("--test_mode", default="PerformanceOnly")
    parser.add_argument("--test_run", action="store_true")
    parser.add_argument("--system_name")
    parser.add_argument("--min_duration", type=_positive)
    parser.add_argument("--min_query_count", type=_positive)
    return parser.parse_known_args(arguments)[0]


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive integer")
    return value


def log_folder() -> Path:
    """Return LOG_DIR, or the Makefile's default where it is unset."""
    folder = Path(os.environ.get("LOG_DIR") or BUILD / "logs" / "default")
    if not folder.is_absolute():
        raise HarnessError(f"LOG_DIR={folder} must be an absolute path")
    return folder


def find_settings(arguments: argparse.Namespace, system: SystemConfiguration) -> list[RunSettings]:
    """Return the settings of every requested pair that has a config."""
    setting = CONFIG_VERSIONS[arguments.config_ver]
    command_line = CommandLine(arguments.test_run, arguments.min_duration, arguments.min_query_count)
    found = []
    for benchmark in map(Benchmark.parse, arguments.benchmarks.split(",")):
        for scenario in map(Scenario.parse, arguments.scenarios.split(",")):
            load_configs(benchmark, scenario)
            config = ConfigRegistry.get(benchmark, scenario, system, setting)
            if config is None:
                LOG.warning("No registered config for %s", describe((benchmark, scenario, system.system_id, setting)))
            else:
                found.append(run_settings(config, command_line))
    return found


def run_pair(settings: RunSettings, mode: TestMode, detected: DetectedSystem) -> str:
    """Run one pair and return its line of the summary."""
    variant = full_name(settings.benchmark, settings.setting.accuracy_target)
    folder = log_folder() / settings.system_name / variant / settings.scenario.value
    folder.mkdir(parents=True, exist_ok=True)
    loadgen.run(settings, mode, folder)
    metadata = results.write_results(settings, mode, detected, folder)
    return f" {settings.config_name}:\n   {variant}: {metadata['summary_string']}"


def main(argv: list[str]) -> int:
    """Run the requested action; return the exit status."""
    arguments = parse_arguments(argv)
    mode = TestMode.parse(arguments.test_mode)
    scratch()
    log_folder()
    register_custom_systems()
    detected = detect()
    system = match(detected, arguments.system_name)
    if system is None:
        LOG.info(
            "Detected system did not match any known systems. Exiting. %s, asked for %s",
            detected,
            arguments.system_name or "any",
        )
        return 0
    LOG.info("Detected system ID: %s", system.system_id)
    summaries = []
    for settings in find_settings(arguments, system):
        if arguments.action == "generate_engines":
            engine.generate(settings)
        else:
            summaries.append(run_pair(settings, mode, detected))
    if summaries:
        print("\n======================== Result summaries: ========================\n")
        print("\n".join(summaries))
    return 0


if __name__ == "__main__":
    configure_logging()
    try:
        sys.exit(main(sys.argv[1:]))
    except HarnessError as error:
        LOG.error("%s", error)
        sys.exit(1)
