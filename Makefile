# Two commands are all a newcomer needs: `make demo` and `make test`.
# Each makes its own virtual environment on a machine with Python >= 3.11 alone.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: test install clean

install: $(STAMP)

# The pinned torch is installed with everything else: -c keeps pip from a newer
# release that would pull gigabytes of CUDA libraries.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

test: $(STAMP)
	$(BIN)/python -m pytest

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
