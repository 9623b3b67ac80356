# The front door. Every target is one line that calls Python.
PYTHON ?= $(or $(shell command -v python3.11),$(shell command -v python3),python3)
TORCH ?= default
BIN := .venv/bin
RUN := $(BIN)/python
CRAWL ?=
PYTEST ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo report test test-fast check format bench-pretrain clean clean-runs kit data_prep recipes launch reports infra docs tests benchmarks

help: ## this page
	@awk 'BEGIN {FS = ":.*?## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z][a-zA-Z_-]*:.*?## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Try it
demo: setup ## raw crawl records -> cleaned corpus -> trained GPT -> report (CRAWL=path, folder or URL for your own WARC files)
	@$(BIN)/slipway chain demo $(if $(CRAWL),--set 'data.input.paths=["$(CRAWL)"]')

report: setup ## rebuild and name the newest report
	@$(BIN)/slipway report --last

##@ Set up
setup: ## make .venv from the lock and compile the extensions (TORCH=cpu for PyTorch without CUDA, PYTHON=path)
	@command -v $(PYTHON) >/dev/null || { echo "Found: no Python ($(PYTHON))"; echo "Expected: Python 3.11"; echo "Do: install it, or name it with make setup PYTHON=path"; exit 1; }
	@$(PYTHON) infra/environment.py --torch $(TORCH)

##@ Work on it
test: setup ## all tests (PYTEST='-k layout' to choose)
	@$(RUN) -m pytest $(PYTEST)

test-fast: setup ## only tests of one process, a minute or two
	@$(RUN) -m pytest tests/unit tests/contracts tests/style $(PYTEST)

check: setup ## format, lint, types, import contracts
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy && $(BIN)/lint-imports

format: setup ## write the format and mend what the linter can mend
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

##@ Measure it
bench-pretrain: setup ## tokens/s of the Megatron engine against a plain PyTorch loop, alternating
	@$(RUN) -m benchmarks.pretrain

##@ Clean up
clean: ## remove .venv and caches; runs stay
	@rm -rf .venv .cache build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
