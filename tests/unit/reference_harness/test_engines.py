"""Engines carry their config, and only the config that they carry can run them."""

from __future__ import annotations

import pytest

from unit.reference_harness.bench import Bench


def generate(bench: Bench, **values: object) -> dict[str, bytes]:
    bench.override("Offline", {"offline_expected_qps": 10000, **values})
    done = bench.run("Offline", target="generate_engines")
    assert done.returncode == 0, done.stdout
    return bench.engines()


def test_the_same_config_gives_the_same_engine(bench: Bench) -> None:
    first = generate(bench)
    assert len(first) == 1
    assert generate(bench) == first


@pytest.mark.parametrize("values", [{"quantize_bits": 8}, {"batch_size": 16}])
def test_another_config_gives_another_engine(bench: Bench, values: dict[str, int]) -> None:
    (plain,) = generate(bench).values()
    both = generate(bench, **values)
    assert len(both) == 2
    assert len({plain, *both.values()}) == 2


def test_engines_lie_where_the_operator_looks_for_them(bench: Bench) -> None:
    generate(bench)
    assert list((bench.tree / "build" / "engines").glob("**/digits/Offline/*"))


def test_a_run_without_its_engine_says_what_to_do(bench: Bench) -> None:
    done = bench.run("Offline", "--test_run", target="run_harness")
    assert done.returncode != 0
    assert "run `make generate_engines` with the same RUN_ARGS first" in done.stdout


def test_an_engine_of_another_config_is_refused(bench: Bench) -> None:
    generate(bench, quantize_bits=8)
    (engine,) = (bench.tree / "build" / "engines").rglob("*.onnx")
    engine.rename(engine.with_name(engine.name.replace("-w8.", "-w32.")))
    bench.override("Offline", {"offline_expected_qps": 10000})
    done = bench.run("Offline", "--test_run", target="run_harness")
    assert done.returncode != 0
    assert "run `make generate_engines` again" in done.stdout
