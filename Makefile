# Millrace. `make help` lists what there is; `make run` and `make test` are all that a newcomer needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= $(shell scripts/toolchain.sh find-python)
VENV := .venv
BIN := $(VENV)/bin
CARGO := cargo
ENGINE := relay/engine
LOAD := tests/load
NODE_FOLDERS := tests/browser tests/clients/libdatachannel
PION := tests/clients/pion
RUST_SOURCES := $(shell find $(ENGINE) -name '*.rs' -not -path '*/target/*') $(ENGINE)/Cargo.lock $(wildcard $(ENGINE)/*/Cargo.toml)
ARGS ?=
INSTALL_LOCKED = $(BIN)/pip install -q --disable-pip-version-check --require-hashes -r
CHECK_TOOLCHAIN = scripts/toolchain.sh "$(or $(wildcard $(BIN)/python),$(PYTHON))" "$(CARGO)"
DEBIAN_PACKAGES = CARGO="$(CARGO)" scripts/debian-packages.sh

.PHONY: help
help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

.PHONY: run
run: build ## Build what is missing and start the relay on this machine's loopback
	@exec $(BIN)/millrace serve $(ARGS)

.PHONY: build
build: .stamp-engine ## Build the engine into the virtual environment

.PHONY: setup
setup: ## Install the Debian packages and Python packages that tests need too
	@$(DEBIAN_PACKAGES) test
	@$(CHECK_TOOLCHAIN)
	@$(MAKE) --no-print-directory .stamp-engine .stamp-dev .stamp-node .stamp-pion .stamp-test-servers

.stamp-venv: requirements/run.txt scripts/debian-packages.sh
	@$(DEBIAN_PACKAGES) build
	@$(CHECK_TOOLCHAIN)
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(INSTALL_LOCKED) requirements/run.txt
	@touch $@

# On a terminal cargo shows how far it is. What the lock lacks is not fetched.
DEVELOP = PIP_NO_INDEX=1 PIP_QUIET=1 VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop --release --locked
.stamp-engine: .stamp-venv pyproject.toml $(RUST_SOURCES)
	@$(CHECK_TOOLCHAIN)
	@echo "Building the engine (some minutes the first time) ..."
	@if [ -t 2 ]; then $(DEVELOP); else $(DEVELOP) --quiet >.build.log 2>&1 || { cat .build.log; exit 1; }; fi
	@touch $@

.stamp-dev: .stamp-engine requirements/dev.txt
	@$(DEBIAN_PACKAGES) test-fast
	@$(INSTALL_LOCKED) requirements/dev.txt
	@touch $@

.stamp-node: $(NODE_FOLDERS:%=%/package-lock.json)
	@for folder in $(NODE_FOLDERS); do (cd $$folder && npm ci --silent --no-audit --no-fund) || exit 1; done
	@touch $@

# Go itself is a locked Python package: pion needs 1.24 and Debian 12 has 1.19, and so every machine builds with the same one.
GO = CGO_ENABLED=0 GOTOOLCHAIN=local $(abspath $(BIN))/go

.stamp-pion: $(wildcard $(PION)/*.go) $(PION)/go.mod $(PION)/go.sum requirements/dev.txt | .stamp-dev
	@echo "Building the pion client (a minute or two the first time) ..."
	@cd $(PION) && $(GO) build -mod=readonly -buildvcs=false -trimpath -o build/client .
	@touch $@

.stamp-test-servers: scripts/test-servers.sh
	@scripts/test-servers.sh .test-servers
	@touch $@

.PHONY: test
test: setup ## Everything that CI runs
	@rm -f .beside.failed
	@$(MAKE) --no-print-directory -j2 beside test-python || { test ! -e .beside.failed || tail -n 40 .beside.log; exit 1; }

# Compilers take the time that the tests of Python wait. Those that measure time begin when all this is done
# (tests/timing.py), and make's own limit on jobs is not cargo's.
.PHONY: beside
beside:
	@MAKEFLAGS= flock --shared .quiet.lock nice -n 10 $(MAKE) --no-print-directory $(MAKEOVERRIDES) lint test-engine test-load >.beside.log 2>&1 \
		|| { touch .beside.failed; echo "beside the tests of Python something has failed: see .beside.log"; exit 1; }

.PHONY: lint
lint: setup ## Formatters, linters, levels of imports, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest millrace.relay._engine --mypy-config-file pyproject.toml
	$(BIN)/python scripts/licences.py
	cd $(ENGINE) && $(CARGO) fmt --check
	cd $(ENGINE) && $(CARGO) clippy --quiet --locked --all-targets -- -D warnings
	cd $(LOAD) && $(CARGO) fmt --check
	cd $(LOAD) && $(CARGO) clippy --quiet --locked --all-targets --target-dir ../../$(ENGINE)/target -- -D warnings
	cd $(PION) && test -z "$$($$($(GO) env GOROOT)/bin/gofmt -l . | tee /dev/stderr)"
	cd $(PION) && $(GO) vet -mod=readonly .

.PHONY: test-engine
test-engine: ## The engine's unit, vector, scenario, property and corpus tests
	cd $(ENGINE) && $(CARGO) test --quiet --locked

.PHONY: test-load
test-load: ## The load generator's own tests; they measure nothing
	cd $(LOAD) && $(CARGO) test --quiet --locked --target-dir ../../$(ENGINE)/target

.PHONY: test-python
test-python: setup ## Unit, contract, simulation, system and browser tests
	$(BIN)/pytest -n auto --dist loadgroup --no-loadscope-reorder --durations=30

.PHONY: test-fast
test-fast: .stamp-dev ## Engine, unit, contract and simulation tests: no browser, no running relay
	cd $(ENGINE) && $(CARGO) test --quiet --locked
	$(BIN)/pytest tests/unit tests/contract tests/sim

BENCH_SERVER = $(BIN)/python $(LOAD)/servers/millrace.py$(if $(filter spread,$(SCENARIO)), --workers 2)
BENCH_ARGS = $(if $(VIEWERS),--viewers $(VIEWERS)) $(if $(SECONDS),--seconds $(SECONDS)) \
	$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(PROFILE),--profile $(PROFILE)) \
	$(if $(AGAINST),--server $(LOAD)/servers/$(AGAINST).sh) $(ARGS)

.PHONY: bench
bench: build ## Measure: SCENARIO=video VIEWERS=50,200 SECONDS=10 ROUNDS=3 PROFILE=both (tests/load/README.md)
	@$(CARGO) run --release --quiet --locked --manifest-path $(LOAD)/Cargo.toml -- \
		$(or $(SCENARIO),video) --server "$(BENCH_SERVER)" $(BENCH_ARGS)

.PHONY: bench-engine
bench-engine: ## What forwarding costs in the engine alone: CASE=video-gcm; CALLGRIND=1 counts instructions (needs Debian's `valgrind`)
	cd $(ENGINE) && $(CARGO) bench --quiet --locked -p millrace-core --bench forward -- $(if $(CALLGRIND),--callgrind) $(CASE)

.PHONY: chaos
chaos: setup ## Kill, replace and reload workers at random for SECONDS (default 180), from a SEED
	MILLRACE_CHAOS_SECONDS=$(or $(SECONDS),180) MILLRACE_CHAOS_SEED=$(or $(SEED),1) $(BIN)/pytest -s tests/system/test_chaos.py

.PHONY: soak
soak: build ## Viewers come and go for SECONDS (an hour): memory, descriptors and latency must stay flat
	@$(CARGO) run --release --quiet --locked --manifest-path $(LOAD)/Cargo.toml -- \
		soak --server "$(BIN)/python $(LOAD)/servers/millrace.py" --seconds $(or $(SECONDS),3600) \
		$(if $(VIEWERS),--viewers $(VIEWERS)) $(if $(PROFILE),--profile $(PROFILE)) $(ARGS)

.PHONY: kills
kills: setup ## Measure the gap of 50 sessions while their workers are killed KILLS times (default 20); needs a quiet machine
	@$(CARGO) run --release --quiet --locked --manifest-path $(LOAD)/Cargo.toml -- kills --kills $(or $(KILLS),20) \
		--server "$(BIN)/python $(LOAD)/servers/millrace.py --workers 2 --set workers.quick_death_seconds=1" $(ARGS)
	MILLRACE_KILLS=$(or $(KILLS),20) $(BIN)/pytest -s tests/system/test_kills.py

.PHONY: fuzz
fuzz: ## Run every fuzz target for SECONDS (default 60) each; needs a nightly toolchain and cargo-fuzz
	cd $(ENGINE)/fuzz && for target in $$($(CARGO) +nightly fuzz list); do \
		$(CARGO) +nightly fuzz run $$target -- -max_total_time=$(or $(SECONDS),60) || exit 1; done

.PHONY: miri
miri: ## Check the arena's unsafe code under Miri; needs a nightly toolchain with the miri component
	cd $(ENGINE) && $(CARGO) +nightly miri test --locked -p millrace-arena

.PHONY: model
model: ## Try the arena's protocols in every order, interrupted MORE (default 1) times more often than `cargo test` does
	cd $(ENGINE) && MILLRACE_INTERRUPTIONS=$(or $(MORE),1) $(CARGO) test --quiet --locked -p millrace-models -- --nocapture

.PHONY: check-deploy
check-deploy: ## Have promtool check the Prometheus files; needs Debian's `prometheus` package
	cd deploy/prometheus && promtool check config prometheus.yml

.PHONY: check-systemd
check-systemd: setup ## Run the unit under a real systemd, a call through all that can happen; needs root, `debootstrap`, `systemd-container`
	$(BIN)/python -m tests.booted.check_unit

.PHONY: dist
dist: .stamp-dev ## Wheels for x86-64 and aarch64, and a package for this Debian, in dist/
	@$(CHECK_TOOLCHAIN)
	@CARGO="$(CARGO)" scripts/dist.sh $(BIN)/python wheels
	@CARGO="$(CARGO)" scripts/dist.sh $(BIN)/python deb

.PHONY: check-dist
check-dist: dist ## Install what `make dist` has made in fresh roots without a network, and have it serve; needs root and `debootstrap`
	$(BIN)/python -m tests.booted.check_dist

.PHONY: check-install
check-install: .stamp-dev ## Time `make run` of the last commit on a fresh Debian, RELEASE=trixie or both, THEN="make test-fast"; needs root, `debootstrap`
	$(BIN)/python -m tests.booted.check_install $(or $(RELEASE),$(if $(THEN),trixie)) $(if $(THEN),"$(THEN)")

.PHONY: format
format: setup ## Format everything
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	cd $(ENGINE) && $(CARGO) fmt
	cd $(LOAD) && $(CARGO) fmt
	cd $(PION) && $(GO) fmt

# For every Linux and Python that Millrace runs on, not for this machine alone.
COMPILE = UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
	--fork-strategy fewest --generate-hashes pyproject.toml --group build $(ARGS)

.PHONY: man
man: .stamp-dev ## Write deploy/millrace.1 from the command's own help
	SOURCE_DATE_EPOCH=0 COLUMNS=80 $(BIN)/argparse-manpage --module millrace.master.operator.arguments --function parser --project-name millrace --prog millrace \
		--description "a WebRTC media relay: one box, one UDP port" --manual-title Millrace --format single-commands-section --output $(or $(OUTPUT),deploy/millrace.1)

.PHONY: lock
lock: ## Pin what pyproject.toml, Cargo.toml, package.json and go.mod ask for; ARGS=--upgrade takes newer Python packages
	@test -x $(BIN)/uv || $(MAKE) --no-print-directory .stamp-dev
	$(COMPILE) -o requirements/run.txt
	$(COMPILE) --group work -c requirements/run.txt -o requirements/dev.txt
	for folder in $(ENGINE) $(ENGINE)/fuzz $(LOAD); do $(CARGO) metadata --manifest-path $$folder/Cargo.toml --format-version 1 >/dev/null || exit 1; done
	for folder in $(NODE_FOLDERS); do (cd $$folder && npm install --package-lock-only --ignore-scripts --omit-lockfile-registry-resolved --silent --no-audit --no-fund) || exit 1; done
	cd $(PION) && $(GO) mod tidy

.PHONY: audit
audit: .stamp-dev ## Look known vulnerabilities of all dependencies up; needs the Internet, cargo-audit and pip-audit, and is no part of `test`
	@for tool in cargo-audit pip-audit; do command -v $$tool >/dev/null || { \
		echo "$$tool: found none, expected one on PATH: \`cargo install cargo-audit\`, \`pipx install pip-audit\`" >&2; exit 1; }; done
	for folder in $(ENGINE) $(ENGINE)/fuzz $(LOAD); do $(CARGO) audit --file $$folder/Cargo.lock || exit 1; done
	pip-audit --strict --disable-pip --require-hashes -r requirements/dev.txt
	for folder in $(NODE_FOLDERS); do (cd $$folder && npm audit --package-lock-only --audit-level low) || exit 1; done

.PHONY: clean
clean: ## Remove what builds and tests made
	rm -rf $(VENV) .stamp-* .build.log .beside.* .quiet* $(ENGINE)/target $(LOAD)/target relay/_engine*.so \
		$(NODE_FOLDERS:%=%/node_modules) $(PION)/build tests/artifacts
