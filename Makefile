# The front door. Every target is one line that calls Python.
PYTHON ?= $(or $(shell command -v python3.11),$(shell command -v python3),python3)
TORCH ?= default
BIN := .venv/bin
RUN := $(BIN)/python
CRAWL ?=
RECIPE ?= pretrain/tiny
ON ?= laptop
ARGS ?=
CLUSTER ?= minikube
PYTEST ?=

.DEFAULT_GOAL := help
.PHONY: help setup setup-cloud demo launch up down scale doctor images minikube report test test-all test-fast test-tools check format bench-launch bench-data bench-pretrain clean clean-runs kit data_prep recipes launch reports infra docs tests benchmarks

help: ## this page
	@awk 'BEGIN {FS = ":.*?## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z][a-zA-Z_-]*:.*?## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Try it
demo: setup ## raw crawl records -> cleaned corpus -> trained GPT -> report (CRAWL=path, folder or URL for your own WARC files)
	@$(BIN)/slipway chain demo $(if $(CRAWL),--set 'data.input.paths=["$(CRAWL)"]')

report: setup ## rebuild and name the newest report
	@$(BIN)/slipway report --last

##@ Launch it elsewhere
launch: setup ## one recipe and what it needs (RECIPE=pretrain/tiny ON=laptop|ssh|kubernetes|minikube|aws or a file; ARGS='--fallback')
	@$(BIN)/slipway run $(RECIPE) --on $(ON) --with-parents $(ARGS)

scale: setup ## a scaling study (RECIPE=... ON=... ARGS='--ranks 1,2,4 --mode strong --repeats 3')
	@$(BIN)/slipway scale $(RECIPE) --on $(ON) $(ARGS)

doctor: setup ## check the hosts of a target, and the network between every pair (ON=...)
	@$(BIN)/slipway doctor --on $(ON) $(ARGS)

up: setup setup-cloud ## rent the machines of a target of kind aws: shows the price first (ON=aws)
	@$(BIN)/slipway up --on $(if $(filter laptop,$(ON)),aws,$(ON)) $(ARGS)

down: setup setup-cloud ## destroy them, and check that nothing is left (ON=aws)
	@$(BIN)/slipway down --on $(if $(filter laptop,$(ON)),aws,$(ON)) $(ARGS)

images: setup ## build the container image for CPUs (ARGS=cuda for the other)
	@$(RUN) -m infra.images $(or $(ARGS),cpu)

minikube: setup ## image, demo on two pods, report, all on a local cluster (CLUSTER=minikube|kind|k3s)
	@$(RUN) -m infra.minikube $(CLUSTER) $(ARGS)

##@ Set up
setup: ## make .venv from the lock and compile the extensions (TORCH=cpu for PyTorch without CUDA, PYTHON=path)
	@command -v $(PYTHON) >/dev/null || { echo "Found: no Python ($(PYTHON))"; echo "Expected: Python 3.11"; echo "Do: install it, or name it with make setup PYTHON=path"; exit 1; }
	@$(PYTHON) infra/environment.py --torch $(TORCH)

setup-cloud: setup ## make .venv-cloud: Ansible with the AWS collection, and an emulator of the API for tests
	@$(RUN) -m infra.cloud_environment

test-tools: ## install what the slower tests start: sshd, namespaces, buildah, podman (Debian and Ubuntu, as root)
	@apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$(grep -v '^#' requirements/debian-tests.txt)

##@ Work on it
test: setup ## the tests but the slowest (PYTEST='-k layout' to choose)
	@$(RUN) -m pytest -m "not slow and not images and not cloud" $(PYTEST)

test-all: setup setup-cloud ## all tests: also those that build images, start many hosts, and rent from a cloud's emulator
	@$(RUN) -m pytest $(PYTEST)

test-fast: setup ## only tests of one process, a minute or two
	@$(RUN) -m pytest tests/unit tests/contracts tests/style $(PYTEST)

check: setup ## format, lint, types, import contracts
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports

format: setup ## write the format and mend what the linter can mend
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

##@ Measure it
bench-launch: setup ## seconds to the first step on two hosts: slipway against bare torchrun (ON=target, or hosts emulated here)
	@$(RUN) -m benchmarks.launch $(if $(filter laptop,$(ON)),,--on $(ON)) $(ARGS)

bench-data: setup ## crawl pages to clean text: pages a CPU second and quality against stock datatrove (ARGS='--warc FILES', --quick)
	@$(RUN) -m infra.peer_environment && $(RUN) -m benchmarks.data $(ARGS)

bench-pretrain: setup ## tokens/s against a plain PyTorch loop and Hugging Face Trainer; layouts, saving, two processes (ARGS=--quick)
	@$(RUN) -m benchmarks.pretrain $(ARGS)

##@ Clean up
clean: ## remove .venv, .venv-cloud, .venv-peers and caches; runs stay
	@rm -rf .venv .venv-cloud .venv-peers .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
