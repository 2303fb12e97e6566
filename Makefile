# JOBS is the number of processes; auto: one for each core.
# Everything runs in .venv, which the first target that needs it makes from python3 (3.11 or newer) alone.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: html edition test quick browser-test kernel-test serve bench second-opinion clean help

PYTHON ?= $(shell for python in python3.11 python3; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
SITE := $(VENV)/site
STAMP := $(VENV)/installed
PIP := $(BIN)/python -m pip install -q -c constraints.txt
PORT ?= 8000
JOBS ?= auto

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)$$/\1|\2/p' Makefile | while IFS='|' read -r target text; do \
		printf '  make %-14s %s\n' "$$target" "$$text"; done

html: $(SITE) ## build the site into _build/html; any warning is an error
	@$(BIN)/sphinx-build -b html -W --keep-going -n -j $(JOBS) -d _build/doctrees . _build/html \
	|| { rm -rf _build/doctrees; exit 1; } # so that the next build warns again

edition: html ## the whole site as one page, into _build/edition, and printed where there is Chromium
	@$(BIN)/sphinx-build -b singlehtml -q -j $(JOBS) -d _build/doctrees . _build/edition
	@chromium=$$(command -v chromium || command -v google-chrome) \
	|| { echo "left out: the PDF: needs Chromium" >&2; exit 0; }; \
	$$chromium --headless --no-sandbox --disable-gpu --no-pdf-header-footer \
		--print-to-pdf=_build/edition/specctrl.pdf "file://$$PWD/_build/edition/index.html"

test: $(STAMP) $(VENV)/bochs ## ruff, mypy --strict, and every test and example
	$(BIN)/ruff check
	$(BIN)/mypy --strict src
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder # the examples of a page build on each other

quick: $(STAMP) ## what takes seconds: ruff, the floors, the vectors, and the tests of what is not committed
	$(BIN)/ruff check
	$(BIN)/lint-imports --no-cache
	$(BIN)/specctrl run vectors | tail -n 1
	.ci/changed | xargs -r $(BIN)/pytest -q -x

browser-test: html $(VENV)/browser ## every page in Chromium: requests, contrast, links, keyboard, search, paper
	$(BIN)/pytest browser -n $(JOBS) --dist load

serve: $(VENV)/serve ## serve the site on 127.0.0.1 (PORT=8000); build again and reload when a file changes
	$(BIN)/sphinx-autobuild --host 127.0.0.1 --port $(PORT) --watch src --watch vectors \
		--re-ignore '^$(CURDIR)/(\.|_build|bench|browser|tests)' --re-ignore '__pycache__' \
		-b html -q -n -j $(JOBS) -D page_policy=0 -D rule_evidence=0 -D docstring_prompts=0 \
		-d _build/doctrees-serve . _build/serve

bench: $(STAMP) ## measure, and print the figures
	$(BIN)/python bench/bench.py
	$(BIN)/python bench/explorers.py
	$(BIN)/python bench/kvm_exits.py
	$(BIN)/python bench/in_browser.py

second-opinion: $(STAMP) ## explore a fragment with TLC too (needs java and a network), and compare
	@$(BIN)/python bench/tla/compare.py

kernel-test: ## the series in a real kernel on Bochs, as root, from packages; no part of test
	reference/linux/run

clean: ## remove everything that was built, .venv too
	rm -rf $(VENV) _build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

$(VENV)/bochs: $(STAMP)
	@$(PIP) --only-binary bochscpu-python --no-build-isolation -e '.[bochs]' \
	&& touch $@ || echo "bochscpu-python could not be installed: nothing runs on Bochs' processor" >&2

$(VENV)/browser: $(STAMP)
	@$(PIP) --no-build-isolation -e '.[browser]' && touch $@ \
	|| echo "Playwright could not be installed: only what needs no browser is tested" >&2

$(VENV)/serve: $(SITE)
	$(PIP) --no-build-isolation -e '.[serve]'
	@touch $@

$(STAMP): $(SITE)
	$(PIP) --no-build-isolation -e '.[test]'
	@touch $@

$(SITE): pyproject.toml constraints.txt
	@[ -n "$(PYTHON)" ] || { echo "needs Python 3.11 or newer with its venv module" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) hatchling editables
	$(PIP) --no-build-isolation -e '.[docs,prove]'
	@touch $@
