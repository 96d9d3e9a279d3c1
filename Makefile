# Two commands that work on a fresh machine: make demo, make test. Everything they need is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
BROWSER_STAMP := .venv/.installed-browser

.PHONY: demo test test-all lint bench-digits bench-fashion bench-loop tables pictures clean

demo: $(STAMP)
	@$(BIN)/convsmith train digits --name demo
	@echo "make demo: done. Open the report named above in a browser."

test: $(STAMP) lint
	@$(BIN)/python -m pytest -q -n 2 --dist loadscope
	@echo "make test: linters, types, import rules and tests passed."

test-all: $(STAMP) $(BROWSER_STAMP) lint
	@$(BIN)/python -m pytest -q -m ""
	@echo "make test-all: everything passed."

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports

bench-digits: $(STAMP)
	@$(BIN)/python benchmarks/accuracy.py digits --seeds 5

bench-fashion: $(STAMP)
	@$(BIN)/python benchmarks/accuracy.py fashion-mnist --budget 5m --seeds 3

bench-loop: $(STAMP)
	@$(BIN)/python benchmarks/loop.py

tables: $(STAMP)
	@$(BIN)/python benchmarks/tables.py

pictures: $(STAMP) $(BROWSER_STAMP)
	@$(BIN)/python docs/pictures.py $(RUN)
	@$(BIN)/python docs/lessons/pictures.py

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "Convsmith needs Python 3.11 or newer: make PYTHON=python3.11"'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing into .venv (the first time this downloads PyTorch) ..."
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

$(BROWSER_STAMP): $(STAMP)
	@$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[dev,browser]"
	@touch $@

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
