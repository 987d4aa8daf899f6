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
HACK := PYTHONPATH=hack:hack/local-cluster python -m
CHECKS := $(HACK) supply_chain

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
lint: setup ## ruff, import-linter, shellcheck, hadolint, and no generated file stale.
	@ruff check
	@ruff format --check
	@lint-imports
	@$(CHECKS) scripts dockerfiles
	@python -m mlperf_operator.crd --check

.PHONY: types
types: setup ## mypy, strict, tests too.
	@mypy

.PHONY: unit
unit: setup ## Unit and golden tests, with coverage.
	@$(PYTEST) --numprocesses=auto --cov --cov-report=term --cov-fail-under=90 tests/unit tests/golden

# After `programs`: the chart is rendered, and the programs are audited.
.PHONY: supply-chain
supply-chain: setup programs ## Manifests, workflows, known vulnerabilities, bills of materials.
	@$(CHECKS) manifests workflows go python sbom

# For the nightly workflow, where a database that does not answer is a failure. GOVULNDB: another one than go.sum's.
.PHONY: audit
audit: setup programs ## Known vulnerabilities of what we depend on; fails where they cannot be looked up.
	@$(CHECKS) --require-databases go python

# Kubernetes, Helm, an S3 server and Prometheus, built or fetched before the tests that need them: so the minutes show and count for no test.
# Exit code 2 is a refusal, whose reason is said here and by each test that it skips.
.PHONY: programs
programs: setup
	@$(CLUSTER) tools >/dev/null || [ $$? = 2 ]
	@python hack/s3_server.py >/dev/null || [ $$? = 2 ]
	@python hack/prometheus_server.py >/dev/null || [ $$? = 2 ]

.PHONY: integration
integration: setup programs ## Against a real API server without nodes, and the driver's agent on a real Debian root.
	@$(PYTEST) -m integration --timeout=600 tests/integration tests/node

.PHONY: e2e
e2e: setup programs ## On a real kubelet and containerd.
	@$(PYTEST) -m e2e --timeout=900 tests/e2e

# Nothing of NVIDIA's is in this repository: who has the tree can hold it against what we say about it.
.PHONY: test-nvidia-tree
test-nvidia-tree: setup ## TREE=<.../closed/NVIDIA of v4.1>: the tree takes our overrides and our Makefile.docker.
	@PYTHONPATH=hack python -m real_tree "$(TREE)"

# Neither MLCommons' checker nor official results are in this repository: docs/artifacts.md says where they are.
.PHONY: test-checker
test-checker: setup ## CHECKER=<submission_checker.py> SUBMISSION=<closed/NVIDIA of results v4.1>: it accepts a bundle.
	@MLPERF_SUBMISSION_CHECKER="$(CHECKER)" MLPERF_SUBMISSION="$(SUBMISSION)" \
		$(PYTEST) -m integration tests/integration/test_submission_checker.py

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

.PHONY: bench-parser
bench-parser: setup ## How fast logs are read on one core, and the memory that a detail log of 1 GB takes.
	@python hack/bench_parser.py

.PHONY: bench-chaos
bench-chaos: setup ## Faults on purpose, and what must hold after each; CHAOS="--seed 7 --only killed" is one of them again.
	@PYTHONPATH=hack:hack/local-cluster python hack/bench_chaos.py $(CHAOS)

.PHONY: bench-soak
bench-soak: setup ## Two hours of runs under random faults: memory, tasks, watches, files; SOAK="--minutes 3 --seed 7" is small.
	@PYTHONPATH=hack:hack/local-cluster python hack/bench_soak.py $(SOAK)

# In an environment of its own: only the plot needs what the group has.
.PHONY: bench-scale
bench-scale: setup ## Runs by the thousand on KWOK's nodes beside bare Jobs (75 minutes); SCALE="--runs 50 --nodes 50" is small.
	@PYTHONPATH=hack:hack/local-cluster uv run --quiet --isolated --no-default-groups --group bench python hack/bench_scale.py $(SCALE)

# In an environment of its own: atheris has packages for Linux on x86_64 alone.
.PHONY: fuzz
fuzz: setup ## Fuzz what reads text of others, for FUZZ_SECONDS (600) on one core.
	@PYTHONPATH=tests uv run --quiet --isolated --no-default-groups --group fuzz python hack/fuzz.py

.PHONY: release-dry-run
release-dry-run: setup ## All of a release that can be made here, into dist/, each part held against what it should be.
	@$(HACK) release dry-run

.PHONY: release-check
release-check: setup ## TAG=vX.Y.Z: the version is the same everywhere, and the changelog has it.
	@$(HACK) release check --tag "$(TAG)"

.PHONY: release-notes
release-notes: setup ## TAG=vX.Y.Z: what the changelog says of a release.
	@$(HACK) release notes --tag "$(TAG)"

.PHONY: release-contexts
release-contexts: setup ## The folders that a release's images are built from, into build/.
	@$(HACK) release contexts

.PHONY: release-bills
release-bills: setup ## Bills of materials, into dist/.
	@$(HACK) release bills

.PHONY: release-files
release-files: setup ## OPERATOR=<image> HARNESS=<image>: sdist, wheel, chart with these images, bills, checksums.
	@$(HACK) release packages
	@$(HACK) release chart "$(OPERATOR)" "$(HARNESS)"
	@$(HACK) release bills
	@$(HACK) release checksums

.PHONY: clean-cluster
clean-cluster: ## End every local cluster and leave nothing of them.
	@$(CLUSTER) down --all

.PHONY: clean
clean: ## Remove what was built in this folder.
	@rm -rf build dist .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* .import_linter_cache
