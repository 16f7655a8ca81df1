# Every target sets itself up: a fresh machine needs Python >= 3.11 and make, nothing else.

PYTHON ?= python3
BIN := .venv/bin
# CPU wheels where one is offered; an unbounded torch resolves to a CUDA build of several GB.
TORCH := torch==2.13.*

.PHONY: help demo test lint unit robust mutants docs wheel hooks faults fuzz setup clean

help: ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

demo: setup ## train the embedded ripples and print their cut-offs
	$(BIN)/audiostride train ripples --out runs/demo-$$(date +%Y%m%d-%H%M%S)
	$(BIN)/audiostride cutoffs $$(ls -d runs/demo-* | tail -n 1)

test: lint unit ## lint, types, all tests

PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q
robust: setup ## the tests on one core, on two, with fewer vector instructions, from three other random states
	taskset -c 0 env $(PYTEST)
	taskset -c 0,1 env OMP_NUM_THREADS=2 $(BIN)/python -m pytest -q
	ONEDNN_MAX_CPU_ISA=SSE41 ATEN_CPU_CAPABILITY=default MKL_ENABLE_INSTRUCTIONS=SSE4_2 $(PYTEST) -n auto --dist loadfile
	for seed in 1 2 3; do TEST_SEED=$$seed $(PYTEST) -n auto --dist loadfile || exit 1; done

mutants: setup ## plant faults and count those that the quick tests notice
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[mutants]"
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants.py --planted
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutants.py

faults: setup ## kills, full disks, damaged files: the figures of docs/reliability.md (root, for a small tmpfs)
	OMP_NUM_THREADS=1 $(BIN)/python tests/faults.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/attack.py

fuzz: setup ## a coverage-guided fuzzer at everything that reads a file, five minutes each
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[fuzz]"
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz.py

lint: setup ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

unit: setup ## all tests, slow ones too, doctests and the snippets of the documentation
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

docs: setup ## the documentation site, build/site/index.html; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

wheel: setup ## wheel and sdist into dist/; the wheel is tried in an environment outside of the checkout
	rm -rf dist
	$(BIN)/python -m build --no-isolation
	.ci/try_wheel $(BIN)/python dist/*.whl

hooks: setup ## run the linters at every commit
	$(BIN)/pre-commit install

setup: .venv/installed ## the environment, .venv

.venv/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "audiostride needs Python >= 3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev,docs]"
	# Only its pure-Python filters are used, as an oracle; its compiled part may not fit this torch.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps "torchaudio==2.11.*"
	# A HEAR model is checked by HEAR's own validator, which asks for TensorFlow and an old Python but needs neither.
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python "hearvalidator==2021.0.6"
	touch $@

clean: ## remove the environment
	rm -rf .venv
