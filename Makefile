# Privity. `make` lists the targets; `make demo` and `make test` need only Python 3.11 and a package index.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
DEMO_ARGS ?=
TEST_ARGS ?=
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 22

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "Privity needs Python 3.11 or newer: set PYTHON=..." >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Privity needs Python 3.11 or newer: set PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade 'pip>=25'

# Stamps hold what was installed: a change of the two files installs again.
$(VENV)/.run: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --constraint constraints.txt --editable '.[client,server,serve,evaluate,export,prepare,reinforce,search,audit-page]'
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install --constraint constraints.txt --editable '.[client,server,serve,evaluate,export,prepare,reinforce,search,audit-page,test]'
	@touch $@ $(VENV)/.run

.PHONY: venv
venv: $(VENV)/.test ## Set up .venv with everything, tests included

.PHONY: demo
demo: $(VENV)/.run ## A whole federation on this machine (DEMO_ARGS="--out DIR --data FILE ...")
	$(BIN)/privity demo $(DEMO_ARGS)

.PHONY: check
check: $(VENV)/.test ## Format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: test
test: $(VENV)/.test ## The whole suite, warnings as errors
	$(BIN)/privity model pull smollm2-135m-instruct
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(TEST_ARGS)

.PHONY: faults
faults: $(VENV)/.test ## Kill and cut off real processes in every phase (half an hour)
	$(BIN)/python -m pytest -m soak tests/flow $(TEST_ARGS)

.PHONY: mutants
mutants: $(VENV)/.test ## Break the private core, and delete each check of the verifier; tests must notice
	$(BIN)/python tests/mutants/run.py --jobs 2
	$(BIN)/python tests/mutants/checks.py --jobs 2

.PHONY: faults-audit
faults-audit: $(VENV)/.test ## Kill a log's writers, fail every file system call of an append (needs strace)
	$(BIN)/python -m bench.faults_audit --json

INTEROP ?= .interop

.PHONY: interop
interop: $(VENV)/.test ## Tools that are not ours check our logs and releases (needs node; Go from Debian)
	@for tool in 'oms model-signing==1.1.1 pyOpenSSL' 'cose scitt-cose==0.5.0'; do set -- $$tool; \
		test -d $(INTEROP)/$$1 || { $(PYTHON) -m venv $(INTEROP)/$$1 && name=$$1 && shift && \
		$(INTEROP)/$$name/bin/pip install --quiet "$$@"; }; done
	@test -d $(INTEROP)/aics || { $(PYTHON) -m venv $(INTEROP)/aics && $(INTEROP)/aics/bin/pip install \
		--quiet cryptography && $(INTEROP)/aics/bin/pip install --quiet --ignore-requires-python \
		--no-deps aics-tlog==0.2.1 aics-witness==0.1.0; }
	@mkdir -p $(INTEROP)/npm && cd $(INTEROP)/npm && npm install --silent --no-fund --no-audit \
		'@sigstore/verify@4.1.3'
	PRIVITY_INTEROP=$(abspath $(INTEROP)) $(BIN)/python -m pytest tests/interop

.PHONY: fuzz
fuzz: $(VENV)/.test ## Fuzz every parser of foreign bytes with atheris (FUZZ_ARGS="--seconds 60 note")
	$(PIP) install 'atheris>=2.3'
	$(BIN)/python tests/fuzz/run.py $(FUZZ_ARGS)

.PHONY: flips-audit
flips-audit: $(VENV)/.test ## Flip every bit and cut at every length of a bundle of 300 entries
	$(BIN)/python -m bench.flips_audit --json

.PHONY: bench
bench: $(VENV)/.test ## What the numbers come from (BENCH=training, BENCH_ARGS="--quick ..."); lists them without BENCH
ifdef BENCH
	$(BIN)/python bench/$(BENCH).py --json $(BENCH_ARGS)
else
	@for file in $$(grep -l __main__ bench/*.py); do \
		printf '  BENCH=%-16s%s\n' "$$(basename $$file .py)" "$$(sed -n '1s/^"""//p' $$file)"; done
endif

.PHONY: offline-kit
offline-kit: $(BIN)/python ## Wheels, base model and checksums for a machine without network, in dist/kit
	PYTHON=$(BIN)/python docker/kit.sh

.PHONY: try-kit
try-kit: ## Install dist/kit in an empty network namespace, role by role (Linux)
	docker/try_kit.sh

.PHONY: images
images: ## The four container images from dist/kit, each built and tried (root, buildah; BASE=image)
	docker/images.sh
	docker/try_networks.sh

SOAK_MINUTES ?= 10

.PHONY: soak
soak: $(VENV)/.test ## Whether the service's memory stays flat (SOAK_MINUTES=10)
	$(BIN)/python bench/serving.py --soak $(SOAK_MINUTES) --json

.PHONY: clean
clean: ## Remove .venv and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .hypothesis .import_linter_cache
