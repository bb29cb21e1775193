# What a newcomer needs: `make demo` and `make test`. Both first make .venv, which takes a few minutes once.

PYTHON ?= python3
# An index that has the torch build you want, for example one without CUDA: make TORCH_INDEX=<url> test
TORCH_INDEX ?=
WORKERS ?= 2

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help demo test test-slow lint format docs bench results wheel constraints clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# pip writes last, so a broken installation leaves no stamp and is repeated.
.venv/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install --quiet -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	$(PIP) install --quiet -c constraints.txt -e ".[test,docs]"
	# For its files; what it would install beside them pins an old sbi.
	$(PIP) install --quiet --no-deps -c constraints.txt sbibm
	touch $@

demo: .venv/.installed ## Train a small model on real data and write runs/demo/report.html
	$(BIN)/diffeo demo --out runs/demo

# One thread per worker: two workers with two threads each would fight over two cores.
test: .venv/.installed ## Run the fast tests and the examples in the docstrings
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests src/diffeo --doctest-modules -m "not slow" \
	  -n $(WORKERS) --cov=diffeo --cov-report=term:skip-covered

test-slow: .venv/.installed ## Run the tests marked slow
	$(BIN)/python -m pytest tests -m slow

lint: .venv/.installed ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.installed ## Mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/.installed ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: .venv/.installed ## Speed beside the bare networks and the peers that are installed
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.images
	$(BIN)/python -m benchmarks.autoregressive
	$(BIN)/python -m benchmarks.continuous
	$(BIN)/python -m benchmarks.residual

with_data = $(if $(DIFFEO_DATA),$(BIN)/python scripts/$(1),@echo "scripts/$(1) needs DIFFEO_DATA: left out")

results: .venv/.installed ## Measure again what the documentation shows (half a day; what is stored is not repeated)
	$(BIN)/python scripts/results.py
	$(BIN)/python scripts/figures.py
	$(BIN)/python scripts/numerics.py
	$(BIN)/python scripts/peers.py
	$(BIN)/python scripts/tails.py
	$(BIN)/python scripts/images.py digits
	$(BIN)/python scripts/ablation.py
	$(BIN)/python scripts/dequantization.py
	$(BIN)/python scripts/memory.py
	$(BIN)/python scripts/convex.py estimators gaussians densities digits
	$(BIN)/python scripts/continuous.py densities
	$(BIN)/python scripts/continuous.py samplers
	$(BIN)/python scripts/continuous.py digits
	$(BIN)/python scripts/residual.py memory
	$(BIN)/python scripts/residual.py densities
	$(BIN)/python scripts/residual.py digits
	$(BIN)/python scripts/large_tables.py
	$(BIN)/python scripts/sbi_tasks.py
	$(call with_data,editing.py)
	$(call with_data,anomaly.py --omniglot runs/omniglot.npz)
	$(call with_data,anomaly.py digits-glow $(foreach m,mnist cifar10 omniglot,results/models/glow-$(m)))
	$(call with_data,translating.py)
	$(call with_data,strings.py)
	$(call with_data,images.py cifar10)
	$(call with_data,images.py mnist)
	$(call with_data,tables.py)
	$(call with_data,convex.py uci)
	$(call with_data,continuous.py uci)
	$(call with_data,residual.py mnist)
	$(call with_data,tables_synthetic.py) # with the package copulas, of the extra bench
	$(BIN)/python scripts/restoring.py # needs the packages of the extra bench

wheel: .venv/.installed ## Build the wheel into dist/ and use it outside the checkout
	bash scripts/check_wheel.sh

constraints: .venv/.installed ## Write constraints.txt again from what .venv holds
	$(BIN)/python scripts/pin.py > constraints.txt.new
	mv constraints.txt.new constraints.txt

clean: ## Remove builds and caches; .venv and runs stay
	rm -rf build dist site htmlcov .coverage .coverage.* .hypothesis \
	  .mypy_cache .pytest_cache .ruff_cache
