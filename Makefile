# Two commands are all a newcomer needs: `make demo` and `make test`.
# Each makes its own virtual environment on a machine with Python >= 3.11 alone.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN ?= runs/demo

.PHONY: demo test install lint bench clean

# A demo that was interrupted is continued; `make demo RUN=runs/other` starts another.
demo: $(STAMP)
	$(BIN)/contraction-nets train --data digits --hidden 60 --epochs 20 --learning-rate 1e-2 \
		--lipschitz-weight 3e-4 --projection cvxpy --threads 2 --out $(RUN) \
		$(if $(wildcard $(RUN)/config.json),--resume)
	$(BIN)/contraction-nets report $(RUN)

test: $(STAMP)
	$(BIN)/python -m pytest -n 2

install: $(STAMP)

# The pinned torch is installed with everything else: -c keeps pip from a newer
# release that would pull gigabytes of CUDA libraries.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Writes benchmarks/results/*.json and draws docs/images/compare_*.svg; two hours on two cores.
# MNIST=FOLDER adds what is measured on MNIST.
bench: $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python -m pytest -q benchmarks/test_kernels.py --benchmark-json=benchmarks/results/kernels.json
	$(BIN)/python benchmarks/projection.py
	$(BIN)/python benchmarks/certify.py
	$(BIN)/python benchmarks/tightness.py $(if $(MNIST),--data $(MNIST))
	$(BIN)/python benchmarks/random_nets.py
	$(BIN)/python benchmarks/random_boxes.py --jobs 2
	$(BIN)/python benchmarks/scaling.py
	$(if $(MNIST),$(BIN)/python benchmarks/epoch.py --data-dir $(MNIST))

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
