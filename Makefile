# Two commands matter: `make quickstart` and `make test`. Both make the virtual environment when it is missing.
PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name))))
VENV := .venv
STAMP := $(VENV)/.installed
AIRFLOW := .venv-airflow

.PHONY: quickstart test test-slow airflow lint venv clean

quickstart: venv
	$(VENV)/bin/spherecast run quickstart

test: venv
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile -m "not slow" $(ARGS)

# Files in their order: by the number of their tests, the longest would come last and alone.
test-slow: venv
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m slow $(ARGS)

lint: venv
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

venv: $(STAMP)

$(STAMP): setup.cfg pyproject.toml
	@test -n "$(PYTHON)" && "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Spherecast needs Python 3.11 or newer; name one with make PYTHON=/path/to/python"; exit 1; }
	@test -x $(VENV)/bin/python || { echo "Making $(VENV) with $(PYTHON)"; $(PYTHON) -m venv $(VENV); }
	@echo "Installing Spherecast and what it needs into $(VENV) (about 2 GB, one to three minutes)"
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --progress-bar off --editable '.[simulate,test]'
	@echo "Installed $$($(VENV)/bin/python -m pip --disable-pip-version-check list 2>/dev/null | tail -n +3 | wc -l) packages"
	@touch $@

# Airflow has an environment of its own, as it would on a server; the tests marked `airflow` run where it is.
airflow: $(AIRFLOW)/.installed

$(AIRFLOW)/.installed: setup.cfg
	@test -x $(AIRFLOW)/bin/python || $(PYTHON) -m venv $(AIRFLOW)
	@echo "Installing Apache Airflow into $(AIRFLOW) (about 300 MB)"
	@$(AIRFLOW)/bin/python -m pip install --quiet --disable-pip-version-check --progress-bar off "$$(sed -n 's/^airflow = //p' setup.cfg)"
	@touch $@

clean:
	rm -rf $(VENV) $(AIRFLOW) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .mypy_cache
