# `make demo` and `make test` need nothing but Python: they make .venv and install into it, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo test check lint types unit test-slow test-browser release-check docs-site bench bench-training bench-lr bench-lr-test bench-diagnosis bench-cycles bench-gpu bench-start docs clean
.DEFAULT_GOAL := help

help: ## list what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# A stamp per set of extras: a second call installs nothing until pyproject.toml or the pins change.
$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e ".[demo]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e ".[dev]"
	@touch $@ $(VENV)/.demo

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP_INSTALL) -e ".[docs]"
	@touch $@

demo: $(VENV)/.demo ## the main job on real digits: find, train, report.html
	$(BIN)/cyclewise demo

test: check unit ## lint, types and tests

check: lint types ## lint and types only

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

unit: $(VENV)/.dev
	$(BIN)/python -m pytest -m "not slow and not browser" -n 2 --dist loadfile

test-slow: $(VENV)/.dev ## what the default run leaves out: two processes over gloo, Ray, the pages' examples, the demo
	$(BIN)/python -m pytest -m "slow and not browser" -n 2 --dist loadfile

test-browser: $(VENV)/.dev ## the report in headless Chromium (installs Debian's where there is none)
	@command -v chromium >/dev/null || { apt-get update -qq && apt-get install -y -qq chromium; }
	CYCLEWISE_REQUIRE_BROWSER=1 $(BIN)/python -m pytest -m browser

release-check: $(VENV)/.dev ## build wheel and sdist, install the wheel into an empty environment, run the README's example
	$(BIN)/python scripts/release_check.py

docs: $(VENV)/.dev ## make the gallery and all pictures of the documentation anew
	$(BIN)/python docs/pictures/readme.py
	$(BIN)/python docs/gallery.py
	$(BIN)/python -m docs.range_test
	$(BIN)/python -m docs.super_convergence
	$(BIN)/python -m docs.on_a_gpu
	$(BIN)/python -m docs.experiments
	$(BIN)/python -m docs.starting_points
	$(BIN)/python -m docs.test_functions
	OMP_NUM_THREADS=1 $(BIN)/python -m docs.understanding

docs-site: $(VENV)/.docs ## build the documentation site into build/site, warnings as errors, and check it
	rm -rf build/site
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/site
	$(BIN)/python scripts/check_site.py build/site

bench: $(VENV)/.dev ## benchmarks that take a minute; results go to benchmarks/results
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/scheduler_step.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/lr_find_cost.py

bench-training: $(VENV)/.dev ## the loop beside a hand-written one, a hundred kills, snapshot ensembles
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/training_loop.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/kill_resume.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/snapshot_ensemble.py

bench-lr: $(VENV)/.dev ## regret, interval and refusals of lr_find on the development tasks
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.lr_regret.regret development --num-steps 100 50 300 --with-length
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.lr_regret.refusals

bench-lr-test: $(VENV)/.dev ## the same on the test tasks; every look is written down
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.lr_regret.regret test --num-steps 100 50 300 --with-length

bench-diagnosis: $(VENV)/.dev ## findings on planted troubles and healthy runs, development half
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.diagnosis.run development

bench-gpu: ## Fashion-MNIST in seconds, what a step costs, the whole set; ten minutes on a GPU, by the Python that sees it
	PYTHONPATH=src $(PYTHON) -m benchmarks.gpu.fashion judge --widths 32 --patches 0 --epochs 8 10
	PYTHONPATH=src $(PYTHON) -m benchmarks.gpu.steps
	PYTHONPATH=src $(PYTHON) -m benchmarks.super_convergence.run --images 60000 --seeds 8 --equal-seeds 9 --workers 4

bench-start: $(VENV)/.dev ## found starts against random ones; half an hour on one core
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.start_search.batched
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.start_search.settings
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.start_search.run

bench-cycles: $(VENV)/.dev ## fewer iterations, and the article's claims on digits; an hour on one core, goes on when killed
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.super_convergence.run
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/article.py --small

clean: ## remove the environment and everything built
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
