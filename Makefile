# Two commands do everything: `make quickstart` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
QUICKSTART := sweeps/quickstart
SWEEPS := factorvae_gamma betavae_beta

.PHONY: install quickstart test lint clean

install: .venv/installed

# The lock pins every package, so its installation needs no resolver's luck and no network beyond the index.
.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

quickstart: install
	$(BIN)/python -m sweeper run $(SWEEPS) --scale laptop --home $(QUICKSTART)
	$(BIN)/python -m sweeper calibrate sprites --metric factor_vae_score --home $(QUICKSTART)
	$(BIN)/python -m sweeper pareto $(SWEEPS) --scale laptop --home $(QUICKSTART) \
		--csv $(QUICKSTART)/pareto.csv --plot $(QUICKSTART)/pareto.png

test: install
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf .venv build *.egg-info
