# Two commands do everything on a fresh machine: `make book` and `make test`.
# Needed beforehand: GNU make, and Python 3.11 or newer with venv.

PYTHON ?= python3
PORT ?= 8000
VENV := .venv
PY := $(VENV)/bin/python
UV := $(VENV)/bin/uv

# One thread a process: committed outputs and checked outputs come from the same arithmetic,
# and two processes do not fight over two cores.
THREADS := 1
JOBS := 2
ONE_THREAD = OMP_NUM_THREADS=$(THREADS) MKL_NUM_THREADS=$(THREADS) OPENBLAS_NUM_THREADS=$(THREADS) TQDM_DISABLE=1

PAGES := $(shell find book -type f -not -path '*/__pycache__/*' -not -name '*.partial*')
CHAPTERS := $(wildcard notebooks/*.ipynb)
PACKAGE := $(shell find sigreg -name '*.py')

.DEFAULT_GOAL := help
.PHONY: help book pdf test unit mutants faults records nbval processors colab links notebooks serve data bench gpu lock stamp clean sphinx

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

book: _build/.book  ## build the book into _build/html

test: $(VENV)/.peers  ## run every check: style, notebooks, unit tests, site; a summary ends it
	@$(PY) book/_tools/check.py

pdf: _build/.book $(VENV)/.peers  ## print the book into one PDF, linked from its first page (needs chromium)
	$(PY) book/_tools/printed.py _build/html

unit: $(VENV)/.peers  ## unit tests and doctests only
	$(ONE_THREAD) $(PY) -m pytest -q -n 2 --dist worksteal --durations 10

mutants: $(VENV)/.peers  ## plant faults in the package and see that the tests notice (an hour; goes on where it ended)
	$(ONE_THREAD) $(PY) tests/mutants.py

faults: $(VENV)/.peers  ## plant faults in the chapters and see that their checks notice; writes book/faults.md (half an hour)
	$(ONE_THREAD) $(PY) book/_tools/faults.py run

records: $(VENV)/.peers  ## run a cheap unit of every stored record again and compare the numbers
	$(ONE_THREAD) $(PY) -m sigreg.lab.reproduce verify all --units 1 --cheapest --within 600 --device cpu

nbval: $(VENV)/.peers  ## run every chapter again and compare its outputs
	$(ONE_THREAD) SIGREG_DEVICE=cpu $(PY) -m pytest -q -n $(JOBS) --dist loadfile -o addopts= -o testpaths=notebooks -p no:cacheprovider \
	  --nbval --nbval-current-env --nbval-cell-timeout 300 notebooks

processors: $(VENV)/.peers  ## the same as other processors and two threads would run it (an hour)
	@$(PY) book/_tools/check.py processors

colab: $(VENV)/.book  ## rehearse every chapter with Colab's packages (about 5 GB, in .venv/colab)
	$(ONE_THREAD) $(PY) book/_tools/colab.py --out _build/colab

sphinx: $(VENV)/.book  ## build the book with plain Sphinx, without Jupyter Book, into _build/plain
	$(PY) book/_tools/plain.py
	$(PY) book/_tools/site.py _build/plain/html

links: $(VENV)/.book  ## ask every address the book links to (needs the network)
	$(VENV)/bin/jupyter-book build . --builder linkcheck --path-output _build/links

notebooks: $(VENV)/.book  ## execute the chapters whose code or package changed
	$(PY) book/_tools/pairs.py run --jobs 2

serve: book  ## build, then serve the book on this machine (PORT=8000)
	@echo "The book is at http://127.0.0.1:$(PORT)  (stop with Ctrl-C)"
	@$(PY) -m http.server --bind 127.0.0.1 --directory _build/html $(PORT) >/dev/null 2>&1

data: $(VENV)/.book  ## fetch or find the whole FashionMNIST and verify it
	$(PY) -m sigreg.lab.data

bench: $(VENV)/.peers  ## time the package beside other implementations
	for script in benchmarks/*.py; do $(PY) $$script || exit 1; done

PARTS ?= tests,bench,chapters,records
DEVICE ?= cuda
SIZE ?= full
WITHIN ?= 480
# A bare machine has no environment of ours, only a PYTHON with torch. DEVICE=cpu SIZE=tiny tries every part in little.
gpu:  ## on a machine with a GPU: tests, times, chapters, studies (SIGREG_DATA=FOLDER)
	$(PYTHON) -m sigreg.lab.gpu --parts $(PARTS) --device $(DEVICE) --size $(SIZE) --within $(WITHIN)

lock: $(VENV)/.uv  ## resolve requirements.in again
	$(UV) pip compile --quiet --universal --python-version 3.11 --no-header requirements.in -o requirements.txt
	$(UV) pip compile --quiet --universal --python-version 3.11 --no-header benchmarks/requirements.in -o benchmarks/requirements.txt

stamp: $(VENV)/.book  ## copy the repository address of _config.yml wherever it is needed
	$(PY) book/_tools/stamp.py
	$(PY) book/_tools/pairs.py run --jobs 2

clean:  ## remove what was built; the environment stays
	rm -rf _build build dist .pytest_cache .ruff_cache .mypy_cache *.egg-info
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(VENV)/.uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed, found: $$($(PYTHON) --version). Try: make PYTHON=python3.12 book"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check uv
	@touch $@

# The package itself is installed in place, without its dependencies: the lock has them.
$(VENV)/.book: requirements.txt pyproject.toml | $(VENV)/.uv
	$(UV) pip install --quiet --python $(PY) -r requirements.txt
	$(UV) pip install --quiet --python $(PY) --no-deps -e .
	@touch $@

$(VENV)/.peers: benchmarks/requirements.txt $(VENV)/.book
	$(UV) pip install --quiet --python $(PY) -r benchmarks/requirements.txt
	@touch $@

_build/.book: $(VENV)/.book _config.yml _toc.yml $(PAGES) $(CHAPTERS) $(PACKAGE)
	rm -rf _build/html
	$(VENV)/bin/jupyter-book build . --all -W --keep-going -n -q
	@touch $@
	@echo "The book is in _build/html/index.html"
