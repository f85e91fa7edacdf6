# `make demo` and `make test` do everything on a machine with Python 3.11 or newer; see README.md.

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
OUT    ?= runs/exp_cglow_attack.ipynb
# DATA, ROOT and PRESET are shorthands: `make demo DATA=folder ROOT=~/faces PRESET=full`
GIVEN   = $(if $(DATA),-r data "$(DATA)") $(if $(ROOT),-r root "$(ROOT)") $(if $(PRESET),-r preset "$(PRESET)") $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help demo test bench export clean readme check-python

help:
	@echo 'make demo     train, attack and repair; ARGS="-p eps 4" sets a parameter, DATA, ROOT and PRESET are shorthands'
	@echo 'make test     the whole test suite; ARGS="-k drift" selects'
	@echo 'make bench    the speed comparison'
	@echo 'make export   notebooks -> inpaint_nb/'
	@echo 'make clean    strip what does not belong into committed notebooks'
	@echo 'make readme   nbs/index.ipynb -> README.md'
	@echo 'Another Python: make PYTHON=python3.12 ...'

check-python:
	@command -v $(PYTHON) > /dev/null || { echo "there is no $(PYTHON) here; name another one: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v >= (3, 11) or sys.exit("inpaint_nb needs Python 3.11 or newer, but this is %d.%d; name another one: make PYTHON=python3.12 ..." % v)'

$(STAMP): setup.py settings.ini constraints.txt | check-python
	@echo "Installing into $(VENV), once; it takes a few minutes"
	$(PYTHON) -m venv $(VENV)
	$(PIP) "$$(grep '^torch==' constraints.txt)" setuptools wheel
	$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	@mkdir -p figures runs $(dir $(OUT)) && touch $(VENV)/.started
	$(BIN)/papermill nbs/exp_cglow_attack.ipynb $(OUT) $(GIVEN)
	@echo; echo "The notebook with all its pictures: $(OUT)"; echo "The table, the figures and the numbers:"
	@find figures runs -type f -newer $(VENV)/.started ! -name '*.ipynb' ! -name '.*' \( -name '*.md' -o -name '*.png' -o -name '*.csv' -o -name '*.json' \) | sort | sed 's/^/  /'

bench: $(STAMP)
	@mkdir -p runs
	$(BIN)/papermill nbs/exp_benchmarks.ipynb runs/exp_benchmarks.ipynb $(ARGS)

test: $(STAMP)
	$(BIN)/python -m pytest tests -ra --durations=10 -p no:cacheprovider $(ARGS)

export: $(STAMP)
	$(BIN)/nbdev_export

clean: $(STAMP)
	$(BIN)/nbdev_clean

readme: $(STAMP)
	$(BIN)/python tests/readme.py
