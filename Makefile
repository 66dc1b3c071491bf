# The two commands to begin with: `make demo` and `make test`. `make help` lists the others.
# Everything is installed into .venv; choose another Python with `make demo PYTHON=python3.12`.

PYTHON ?= python3
WORKDIR ?= runs/demo
COMPARISON ?= runs/compare
SEEDS ?= 3
WORKERS ?= 2
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo compare test test-all lint costs docs docs-tables clean

help:  ## list these commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | awk -F'|' '{printf "%-14s %s\n", $$1, $$2}'

demo: $(VENV)/.installed-demo  ## from labels of generated images to masks and a network, with a report
	$(BIN)/python -m wsss_jax.main --config configs/seam_shapes.py --workdir $(WORKDIR) $(ARGS)
	@for file in $(WORKDIR)/report.html $(WORKDIR)/report.png; do if [ -f "$$file" ]; then echo "Look at $$file"; fi; done

compare: $(VENV)/.installed-demo  ## all methods on generated images in one table (three seeds; SEEDS=1 for one)
	$(BIN)/python -m wsss_jax.compare --workdir $(COMPARISON) --seeds $(SEEDS) \
	    --configs cam_shapes,ssenet_shapes,puzzlecam_shapes,seam_shapes,pss_shapes,ecsnet_shapes,seg_shapes $(ARGS)

test: $(VENV)/.installed-test  ## the quick tests (ARGS="tests/losses/test_losses.py -k hardest" for a part)
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile $(ARGS)

test-all: $(VENV)/.installed-test  ## all tests, the slow ones too
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile -m "" $(ARGS)

lint: $(VENV)/.installed-test $(VENV)/.installed-lint  ## style, format, types and directions of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

costs: $(VENV)/.installed-test  ## record the costs of programs (make costs REASON="Batch norm is folded")
	$(BIN)/python -m tests.costs.record --reason "$(REASON)"

docs-tables: $(VENV)/.installed-demo  ## the tables of settings in docs/settings.md
	$(BIN)/python docs/make_tables.py

docs: $(VENV)/.installed-docs  ## the pages as a site, in build/docs (open build/docs/index.html)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

clean:  ## remove the environment, caches and the demo's results
	rm -rf $(VENV) $(WORKDIR) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment; a stamp per extra, redone when the pins or the dependencies change. A broken
# environment (its Python gone, a set-up that was interrupted) is repaired by the same rule.
$(VENV)/.installed-%: pyproject.toml constraints.txt
	@command -v $(PYTHON) > /dev/null || { echo "No $(PYTHON) found: install Python 3.11 to 3.13, or name one: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "Python 3.11 to 3.13 is needed, $(PYTHON) is %d.%d: name another one, as in make PYTHON=python3.12" % v)'
	@$(BIN)/python -c 'import pip' 2> /dev/null || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing into $(VENV) (about a minute and 1.3 GB the first time) ..."
	@$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt \
	    -e "$(if $(filter demo,$*),.,.[$*])" > $(VENV)/install.log 2>&1 \
	    || { tail -n 15 $(VENV)/install.log; echo "Installing failed; the whole log: $(VENV)/install.log"; exit 1; }
	@touch $@
