# Two commands do everything: `make quickstart` and `make test`.

PYTHON ?= python3
BIN := .venv/bin
# What is imported is compiled once, for all test processes and what they start, whatever the environment says.
PYTEST := env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder
QUICKSTART := sweeps/quickstart
SWEEPS := factorvae_gamma betavae_beta

# Under a minute on 2 cores: no Ray, no driver, no MLflow, no training but of a few steps. The longest come first.
FAST := test_imports trainables/test_stacked trainables/test_blocks trainables/models/test_models \
	$(addprefix trainables/data/test_,arrays cache custom data picture_set pictures sprites) \
	$(addprefix trainables/metrics/test_,examples gaussian_tc information mig modularity mutual_information) \
	$(addprefix trainables/test_,config encoding images ladder streams worker) \
	$(addprefix sweeper/scheduling/test_,estimate gpu_packs pack_queue placing) \
	$(addprefix sweeper/,analysis/test_results figures/test_factor_matching ledger/test_verify test_home) \
	search_spaces/test_sweeps test_cluster test_docs

.PHONY: install quickstart test test-system test-fast bench lint format wheel clean

install: .venv/installed

# The lock pins every package, so its installation needs no resolver's luck and no network beyond the index.
.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	@echo "Installing $$(grep -c '^[a-z].*==' requirements.lock) packages into .venv: 2 GB, a few minutes ..."
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

# Results go to ./sweeps, where the commands of the README look.
quickstart: install
	$(BIN)/python -m sweeper calibrate sprites --metric factor_vae_score
	$(BIN)/python -m sweeper run $(SWEEPS) --scale laptop
	@mkdir -p $(QUICKSTART)
	$(BIN)/python -m sweeper pareto $(SWEEPS) --scale laptop --csv $(QUICKSTART)/pareto.csv --plot $(QUICKSTART)/pareto.png \
		| grep '^Wrote'
	@echo
	@echo "For more, activate the environment in this shell: . .venv/bin/activate"
	@echo Then, for example: python -m sweeper status

# Three processes, since on two cores each waits a fifth of its time.
test: install
	$(PYTEST) --numprocesses 3 -m "not system"

# Whole programs: a cluster, killed drivers, an installed wheel.
test-system: install
	$(PYTEST) --numprocesses 2 -m system

test-fast: install
	$(PYTEST) --numprocesses 2 -m "not system" $(FAST:%=tests/%.py)

# At most ten minutes. Pythae is a baseline, not one of this project's packages: it gets a folder of its own.
BENCH_OUT ?= build/bench.json
bench: install
	$(BIN)/pip install --quiet --no-deps --upgrade --target build/pythae pythae==0.1.2
	PYTHONPATH=build/pythae $(BIN)/python -m benchmarks --out $(BENCH_OUT)

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# A build takes in what an earlier one left in build.
wheel: install
	rm -rf build dist
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

clean:
	rm -rf .venv build dist *.egg-info
