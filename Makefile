# Two commands do everything: `make demo` and `make test`. A fresh machine needs Python 3.11 to 3.13, make and a package index.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1 && { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
FITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
RAY := build/ray-venv
# pip's own index, where one is configured, is uv's too.
UV = index=$$($(BIN)/python -m pip config get global.index-url 2>/dev/null || true); \
	$${index:+env UV_DEFAULT_INDEX=$$index} env VIRTUAL_ENV=$(CURDIR)/$(VENV) UV_PYTHON_DOWNLOADS=never $(BIN)/uv
COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header
OUT ?= runs/demo
# Each worker imports TensorFlow: a gigabyte.
WORKERS ?= 2
SEEDS ?= 1 2 3 4 5

export FLWR_TELEMETRY_ENABLED := 0
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: demo test test-ray test-docker test-kubernetes check fix docs audit chaos bench bench-peers lock image-locks clean help

help: ## say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

demo: $(STAMP) ## train on handwritten digits with a real server and four real clients
	@rm -rf $(OUT)
	@$(BIN)/fl up --task digits --clients 4 --rounds 10 --strategy fedavg --seed 7 \
		--set local_epochs=10 --set partitioning=dirichlet --set alpha=1.0 --out $(OUT)

test: $(STAMP) ## run the fast tests
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

test-docker: $(STAMP) ## build the images and run the tests that need a Docker engine
	@$(BIN)/python -m pytest -n 0 -m docker tests/e2e $(PYTEST_ARGS)

test-ray: $(RAY)/.installed ## Flower's simulation on Ray, on one machine and two nodes, in an environment of its own
	@$(RAY)/bin/python -m pytest -n 0 -m ray tests/integration $(PYTEST_ARGS)

test-kubernetes: $(STAMP) ## install the chart on the testbed's node, and tell its story; needs root
	@$(BIN)/python -m pytest -n 0 -m kubernetes tests/e2e $(PYTEST_ARGS)

check: $(STAMP) ## lint, security rules, types, the direction of imports, known vulnerabilities
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest tests/test_imports.py
	@$(BIN)/python .ci/audit.py

fix: $(STAMP) ## what the linter and the formatter can put right
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: $(STAMP) ## write every generated page and schema again
	@$(BIN)/python docs/make_reference.py
	@$(BIN)/python deploy/helm/make_schema.py
	@$(BIN)/python benchmarks/readme.py
	@for script in attacks chaos client_memory thousand_nodes; do $(BIN)/python benchmarks/$$script.py --page || exit 1; done
	@$(BIN)/python benchmarks/peers/page.py

audit: $(STAMP) ## known vulnerabilities of what the lock names; fails where the service does not answer
	@AUDIT=required $(BIN)/python .ci/audit.py

chaos: $(STAMP) ## the federation among faults of every kind, with several seeds; reports go to build/chaos
	@CHAOS_SEEDS="$(SEEDS)" CHAOS_REPORT=build/chaos $(BIN)/python -m pytest tests/chaos -m chaos -s

bench: $(STAMP) ## measure; results go to benchmarks/results
	@$(BIN)/python benchmarks/aggregation.py
	@$(BIN)/python benchmarks/startup.py
	@$(BIN)/python benchmarks/deployed_round.py
	@$(BIN)/python benchmarks/readme.py

bench-peers: $(STAMP) ## measure beside other simulators, each in an environment of its own; PREFIX='a command'
	@$(BIN)/python benchmarks/peers/environments.py
	@$(BIN)/python benchmarks/peers/compare.py --prefix "$(PREFIX)"
	@$(BIN)/python benchmarks/peers/page.py

# uv installs the lock several times faster than pip; byte-compiling once saves seconds at every start of TensorFlow.
# A .venv of a Python that we do not run on, that has moved or was removed, is made anew.
$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Parterre needs Python 3.11, 3.12 or 3.13; none was found. Set PYTHON=/path/to/python3." >&2; exit 1; }
	@test ! -e $(VENV) || $(BIN)/python -c '$(FITS)' 2>/dev/null || { echo "$(VENV) is of another Python: it is made anew"; rm -rf $(VENV); }
	@test -x $(BIN)/python || { echo "making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv $(VENV); }
	@echo "installing $$(grep -c '^[a-z]' requirements.lock) packages into $(VENV), once: about 3 GB on the disk, and some minutes"
	@$(BIN)/python -m pip install -qq --disable-pip-version-check "$$(grep '^uv==' requirements.lock)"
	@$(UV) pip install --compile-bytecode -r requirements.lock
	@$(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

$(RAY)/.installed: $(STAMP)
	@mkdir -p build
	@$(UV) venv --quiet --allow-existing --python $(BIN)/python $(RAY)
	@$(UV) pip install --quiet --python $(RAY)/bin/python --compile-bytecode -r requirements.lock
	@$(UV) pip install --quiet --python $(RAY)/bin/python --compile-bytecode --no-build-isolation -c requirements.lock --editable '.[ray]'
	@touch $@

lock: ## resolve the lock again, for Python 3.11 to 3.13 at once, and the parts of it that go into each image
	@$(COMPILE) --upgrade --extra dev pyproject.toml -o requirements.lock
	@$(MAKE) --no-print-directory image-locks

image-locks: $(STAMP)
	@for role in client server; do \
		$(COMPILE) -c requirements.lock --override deploy/docker/not-in-$$role.txt pyproject.toml \
			| grep -vE "'(never|win32)'|>= '3.12'" > deploy/docker/$$role.lock || exit 1; \
	done
	@$(COMPILE) -c requirements.lock --extra gpu pyproject.toml | grep -E '^(nvidia-|tensorflow=)' | sed 's/ ;.*//' > deploy/docker/gpu.lock

clean: ## remove what was built
	@rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache
