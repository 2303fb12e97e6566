# JOBS is the number of processes; auto: one for each core.
# Everything runs in .venv, which the first target that needs it makes from python3 (3.11 or newer) alone.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: html edition test quick browser-test kernel-test serve dist bench second-opinion clean help

PYTHON ?= $(shell for python in python3.11 python3; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
SITE := $(VENV)/site
STAMP := $(VENV)/installed
INSTALL := locks/install $(BIN)/python
PORT ?= 8000
JOBS ?= auto

# $(call optional,LOCK,WHAT IS LACKING): a file that is not the locked one is an error here too (3), anything else is said.
optional = if $(INSTALL) site test $(1); then touch $@; else [ $$? != 3 ] && echo "$(2)" >&2; fi

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

test: $(STAMP) $(VENV)/bochs ## ruff, mypy --strict, and every test and example that needs no browser
	$(BIN)/ruff check
	$(BIN)/mypy --strict src
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder # the examples of a page build on each other

quick: $(STAMP) ## what takes seconds: ruff, the floors, the vectors, and the tests of what is not on main yet
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

dist: $(SITE) ## wheel and source archive of the commit, into dist/: the same bytes wherever they are built
	@[ -z "$$(git status --porcelain)" ] || { echo "there are local changes, and only a commit is built" >&2; exit 1; }
	$(BIN)/python -m hatchling build --clean -d dist

bench: $(STAMP) $(VENV)/browser $(VENV)/cluster $(VENV)/bench ## measure everything: one table, kept in bench/history.json, and its plots
	$(BIN)/python bench/bench.py
	$(BIN)/python bench/plots.py

second-opinion: $(STAMP) ## explore a fragment with TLC too (needs java and a network), and compare
	@$(BIN)/python bench/tla/compare.py

kernel-test: ## the series in a real kernel on Bochs, as root, from packages; no part of test
	reference/linux/run

clean: ## remove everything that was built, .venv too
	rm -rf $(VENV) _build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

$(VENV)/bochs: $(STAMP) locks/bochs.txt
	@$(call optional,bochs,bochscpu-python could not be installed: nothing runs on Bochs' processor)

$(VENV)/browser: $(STAMP) locks/browser.txt
	@$(call optional,browser,Playwright could not be installed: only what needs no browser is tested)

$(VENV)/proofs-c: $(STAMP) locks/proofs-c.txt
	@$(call optional,proofs-c,ESBMC could not be installed: the claims about the reference in C are not proven)

$(VENV)/cluster: $(STAMP) locks/cluster.txt
	@$(call optional,cluster,dask.distributed could not be installed: no shards on a cluster)

$(VENV)/bench: $(STAMP) locks/bench.txt
	@$(call optional,bench,matplotlib could not be installed: what was measured is not drawn)

$(VENV)/serve: $(SITE) locks/serve.txt
	$(INSTALL) site serve
	@touch $@

$(STAMP): $(SITE) locks/test.txt
	$(INSTALL) site test
	@touch $@

$(SITE): pyproject.toml locks/site.txt
	@[ -n "$(PYTHON)" ] || { echo "needs Python 3.11 or newer with its venv module" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(INSTALL) site
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@
