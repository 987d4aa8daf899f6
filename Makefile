# Everything that one does with this repository. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/mlperf-operator
export PATH := $(CURDIR)/.venv/bin:$(CACHE)/uv/bin:$(PATH)
export UV_PYTHON_DOWNLOADS := never
# As in hack/bootstrap.sh.
ifneq ($(wildcard /etc/ssl/certs/ca-certificates.crt),)
export UV_SYSTEM_CERTS ?= true
endif

CLUSTER := python3 hack/local-cluster/launcher.py
PYTEST := pytest --no-header

.PHONY: help
help: ## Show this list.
	@grep -hE '^[a-z0-9-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | awk -F ':[^#]*## ' '{printf "%-16s %s\n", $$1, $$2}'

.PHONY: setup
setup: ## Make .venv from uv.lock; installs what the machine lacks.
	@hack/bootstrap.sh >/dev/null

.PHONY: demo
demo: setup ## The main job for real: cluster, images, chart, one run with VALID results.
	@python hack/demo.py

.PHONY: test
test: setup ## Everything below, from lint to end to end; cleans up after itself.
	@hack/test.sh

.PHONY: lint
lint: setup ## ruff, import-linter, shellcheck, and no generated file stale.
	@ruff check
	@ruff format --check
	@lint-imports
	@shellcheck hack/*.sh .ci/run tests/e2e/standin_gpu/nvidia-smi
	@shellcheck -x tests/node/standin/lib.sh tests/node/standin/bin/*
	@python -m mlperf_operator.crd --check

.PHONY: types
types: setup ## mypy, strict, tests too.
	@mypy

.PHONY: unit
unit: setup ## Unit and golden tests, with coverage.
	@$(PYTEST) --cov --cov-report=term --cov-fail-under=90 tests/unit tests/golden

# Kubernetes and Helm, built before the tests that need them: so the minutes show and count for no test.
# Exit code 2 is a refusal, whose reason is said here and by each test that it skips.
.PHONY: programs
programs: setup
	@$(CLUSTER) tools >/dev/null || [ $$? = 2 ]

.PHONY: integration
integration: setup programs ## Against a real API server without nodes, and the driver's agent on a real Debian root.
	@$(PYTEST) -m integration --timeout=600 tests/integration tests/node

.PHONY: e2e
e2e: setup programs ## On a real kubelet and containerd.
	@$(PYTEST) -m e2e --timeout=900 tests/e2e

.PHONY: fmt
fmt: setup ## Format the code.
	@ruff format
	@ruff check --fix

.PHONY: generate
generate: setup ## Write what is generated: CRD, docs/api.md, manifests/, golden files.
	@python -m mlperf_operator.crd
	@python hack/render_manifests.py
	@UPDATE_GOLDEN=1 $(PYTEST) -q tests/golden

.PHONY: images
images: setup ## Build the operator's and the reference harness's images into the local cluster.
	@python hack/images.py

.PHONY: bench-overhead
bench-overhead: setup ## The reference harness on the host against the same in the run's pod.
	@python hack/bench_overhead.py

.PHONY: bench-latency
bench-latency: setup ## From MLPerfRun to Job, and the API requests of a run.
	@python hack/bench_latency.py

# The node that it changes is the one of tests/node.
.PHONY: bench-driver
bench-driver: setup ## The driver pod against the bare package manager, and a second run on a ready node.
	@PYTHONPATH=tests:hack/local-cluster python hack/bench_driver.py

.PHONY: clean-cluster
clean-cluster: ## End every local cluster and leave nothing of them.
	@$(CLUSTER) down --all

.PHONY: clean
clean: ## Remove what was built in this folder.
	@rm -rf build dist .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* .import_linter_cache
