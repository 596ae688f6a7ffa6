# make demo   sets everything up, draws cells, classifies them, prints the differential
# make test   sets everything up and runs the whole suite without a display
# make check  format, lint, types, import contracts, plugin manifest

VENV := .venv
BIN := $(VENV)/bin
# The first Python that is new enough and can make environments.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.14 python3.11; do \
	$$python -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)

.PHONY: demo test check format clean
.DELETE_ON_ERROR:

demo: $(VENV)/.base
	$(BIN)/wbc-batch draw -o demo
	$(BIN)/wbc-batch classify demo/slides -o demo/report --force

test: $(VENV)/.dev
	sh tests/debian-packages.sh
	$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/npe2 validate wbc-napari

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) demo build dist

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer with the venv module is needed" \
		"(on Debian: apt-get install python3 python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamps make second runs start at once; they are older than a changed pyproject.toml.
$(VENV)/.base: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[napari,dev]"
	@touch $@
