# The two commands of the README: `make run` and `make test`. Both do all the set-up they need.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
UP_OPTIONS ?= --demo

.PHONY: help setup run test check bench lock clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: ## the virtual environment and the system packages that running needs
	@scripts/setup run

run: setup ## start everything, place two demo calls to watch, stay up until Ctrl-C
	@$(VENV)/bin/offhook up $(UP_OPTIONS)

test: ## what CI runs: format, lint, types, import contracts, every test against real servers and real peers
	@scripts/setup test
	@scripts/check $(PYTEST_OPTIONS)

check: test ## the same

bench: setup ## the benchmarks, one by one: make bench NAME=live OPTIONS="answer --calls 4"
	@$(VENV)/bin/offhook bench $(NAME) $(OPTIONS)

lock: ## pin and hash every dependency anew
	@scripts/lock

clean: ## remove the virtual environment and caches (not the data folder, not the models)
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info artefacts
