# Every target first makes what it needs, so each works from a fresh clone: Debian 12 with git, make, Python 3.11 with venv.

# The first Python that is new enough. PYTHON=/usr/bin/python3 chooses another.
PYTHON ?= $(shell for python in python3 python3.11 python3.12 python3.13 /usr/bin/python3; do \
	"$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v "$$python"; break; }; done)
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo test check format docs bench soak clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1 \2/p' $(MAKEFILE_LIST) | while read -r make target text; do \
		printf '  make %-8s %s\n' "$$target" "$$text"; done

demo: $(READY) ## a hub and four hospitals on this machine; SCENE=4 repeats one scene
	@$(BIN)/paroma demo $(if $(SCENE),--scene $(SCENE))

test: $(READY) ## the whole suite, on SQLite and on PostgreSQL
	@sh tests/bring.sh chromium swtpm tpm2-tools softhsm2 npm:tests/web/provider
	@$(BIN)/python -m pytest --store=both $(ARGS)

check: $(READY) ## lint, format, types, import contracts, docs that still match
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m pytest -q tests/kernel/test_house.py $(wildcard tests/docs)

format: $(READY) ## put the code in its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY) ## the documentation, as pages in build/docs
	$(BIN)/sphinx-build -W --keep-going -b html docs build/docs

bench: $(READY) ## one of the figures that we claim: NAME=round; without NAME, their names
	@$(BIN)/paroma bench $(or $(NAME),--help)

soak: $(READY) ## the longer proofs: SEEDS=1000 simulated federations, then the exhaustive searches
	$(BIN)/python -m paroma.lab.simulation --brief 1000-$$((999 + $(or $(SEEDS),1000)))
	$(BIN)/python -m pytest -m soak --store=both -v $(ARGS)

clean: ## remove the environment and what was built
	rm -rf .venv build

# The lock file's own line for uv, with its hashes, brings uv; uv brings the rest. The stamp comes last, so that an
# interrupted installation is taken up again.
$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or later with venv is needed: apt install python3-venv' >&2; exit 1; }
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	@sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > .venv/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $@
