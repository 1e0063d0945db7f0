# Every task in Muster. It needs Linux, GNU make, and Python 3.11 or later, and installs the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

PACKAGES := contracts contracts/client services/runtime services/enrollment services/entitlements services/billing services/notify infra/operator infra/local
MIGRATIONS := $(wildcard services/*/*/migrations/*.sql)
MODULES := muster_contracts muster_entitlements_client muster_runtime muster_enrollment muster_entitlements muster_billing muster_notify muster_operator muster_local

# The fault tests; some of them are next to other tests of their subject, and those that run long or kill whole
# processes again and again are left to `make faults`. For the long run: the number of kills, the test of a consumer that
# is a million events behind, and the file for the measurements.
HOSTILE := tests/integration/runtime/core/test_hostile.py
POOLER := tests/faults/pooler
BURST := tests/integration/runtime/core/test_burst.py
STARVATION := tests/integration/runtime/core/test_starvation.py
PROCESSES := tests/integration/entitlements/test_process.py
LONG := $(PROCESSES)::test_an_import_killed_again_and_again_ends_as_a_clean_run \
	$(PROCESSES)::test_a_withdrawal_killed_again_and_again_revokes_every_seat_once \
	tests/integration/entitlements/test_usage_killed.py tests/integration/entitlements/test_copies_killed.py \
	tests/contract/subscribers/test_table.py::test_a_table_stays_exactly_in_step_however_often_the_subscriber_is_killed \
	tests/integration/operator/test_topic_plan.py::test_with_three_brokers_an_acknowledged_event_is_on_two
FUZZ := tests/integration/fuzzing
FAULTS := $(HOSTILE) $(BURST) $(STARVATION) tests/faults --ignore=$(POOLER) $(LONG)
KILLS ?= 200
BACKLOG := tests/integration/runtime/core/test_flood.py::test_a_consumer_that_is_far_behind_stays_small_and_serves_every_agency
FINDINGS := $(CURDIR)/build/faults.jsonl

# What the long tests of the cluster do more of: upgrades restart every Deployment, and more pods are killed at once.
QUICK_ALONE := $(addprefix tests/cluster/quick/test_traffic.py::,test_every_deployment_is_restarted test_a_pod_of_each_role_is_deleted)

# More arguments for the program that a target runs, for example: make demo ARGS="--seats 500"
ARGS ?=

SHELL := /bin/bash -euo pipefail
.DEFAULT_GOAL := help

##@ Try it
demo: venv ## Run the program's first year on a new stack, and prove that its books balance
	$(BIN)/muster demo $(ARGS)

up: venv ## Start the stack and leave it running
	$(BIN)/muster up $(ARGS)

status: venv ## Show what runs and whether it is ready
	$(BIN)/muster status $(ARGS)

down: venv ## Stop the stack; its data stays
	$(BIN)/muster down $(ARGS)

##@ Deploy it
images: venv ## Build the images of the services, the operator, and the test servers to build/images, as root
	$(BIN)/python -m infra.images build $(ARGS)

images-test: venv ## Test what is in the images and how they run, on a Docker engine of the tests' own
	$(MAKE) --no-print-directory images ARGS=
	@PATH="$$PATH:/usr/sbin" command -v dockerd > /dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends docker.io > /dev/null && { service docker stop > /dev/null 2>&1 || true; }; }
	$(BIN)/python -m pytest tests/images $(ARGS)

bundle: venv ## Write one file with the images, the chart, the SBOMs, the pages, and checksums, to install without a network
	$(BIN)/python -m infra.images bundle $(ARGS)

##@ Work on it
test: venv ## Run the tests on real servers; `make e2e` and `make faults` have those that take long
	$(BIN)/python -m pytest -n 4 --dist worksteal $(LONG:%=--deselect=%) --deselect=$(HOSTILE) --deselect=$(STARVATION) --deselect=$(FUZZ) $(ARGS)

e2e: venv ## Test whole stacks: the year, every runbook, installs from wheels, secured stacks
	$(BIN)/python -m pytest -n 3 --dist worksteal tests/e2e $(ARGS)

chart-test: venv ## Render the chart for every version of Kubernetes, and check what comes out
	MUSTER_CHART_VERSIONS=all $(BIN)/python -m pytest tests/chart $(ARGS)

chart-helm: venv ## Compare what Helm 3 and Helm 4 render, which Go builds in build/: it takes minutes
	$(BIN)/python -m tests.chart.helm_versions build

faults: venv ## Test every fault that Muster must survive: kills, pauses, lost answers, full disks
	MUSTER_TEST_HOSTILE=20000 $(BIN)/python -m pytest -n 2 --dist worksteal $(FAULTS) $(ARGS)

fuzz: venv ## Send each service requests that Schemathesis makes from its OpenAPI document; MUSTER_FUZZ_EXAMPLES=8 for more
	$(BIN)/python -m pytest -n 2 --dist worksteal $(FUZZ) $(ARGS)

faults-pooler: venv ## Test Muster behind PgBouncer, which this target needs installed
	@PATH="$$PATH:/usr/sbin" command -v pgbouncer > /dev/null || { echo "PgBouncer is not installed: apt-get install pgbouncer" >&2; exit 1; }
	$(BIN)/python -m pytest $(POOLER) $(ARGS)

faults-long: venv ## Run the faults for longer, then KILLS kills at random points of live traffic; write docs/faults.md
	mkdir -p $(dir $(FINDINGS)) && rm -f $(FINDINGS)
	FAULT_FINDINGS=$(FINDINGS) FAULT_AWAY_SECONDS=120 MUSTER_TEST_HOSTILE=20000 $(BIN)/python -m pytest $(FAULTS) $(ARGS)
	MUSTER_TEST_BACKLOG=1000000 MUSTER_TEST_BURST=1000000 $(BIN)/python -m pytest $(BACKLOG) $(BURST)
	$(BIN)/python -m tests.faults.report $(FINDINGS)
	$(BIN)/python -m tests.faults.live --kills $(KILLS)

bench: venv ## Measure throughput, latency, CPU, and memory against their limits on real servers
	$(BIN)/python -m tests.bench $(ARGS)

bench-quick: venv ## Check that every benchmark runs; its numbers are too small to measure speed
	$(BIN)/python -m tests.bench --quick $(ARGS)

lint: venv ## Check style, spelling, types, imports, images, and migrations
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy $(MODULES:%=-p %)
	$(BIN)/mypy tests infra/chart infra/images infra/supply_chain
	$(BIN)/lint-imports
	$(BIN)/hadolint infra/images/Dockerfile
	for file in $(MIGRATIONS); do sed '/^-- migrate:down/,$$d' $$file | $(BIN)/squawk --stdin-filepath $$file; done

supply-chain: venv sbom ## Make the SBOM, check every license, and look for secrets
	$(BIN)/python -m infra.supply_chain.licenses $(ARGS)
	$(BIN)/python -m infra.supply_chain.find_secrets

sbom: venv ## Write SBOMs of the lock and the packages to build/: CycloneDX and SPDX
	$(BIN)/python -m infra.supply_chain.sbom make build/muster.cdx.json
	$(BIN)/python -m infra.supply_chain.spdx build/muster.cdx.json build/muster.spdx.json

metrics-check: venv ## Check metrics and alerts with promtool, which this target needs installed
	@command -v promtool > /dev/null || { echo "promtool is not installed: apt-get install prometheus" >&2; exit 1; }
	$(BIN)/python -m tests.support.metrics_page | promtool check metrics
	promtool check rules infra/alerts/*.yml
	promtool test rules infra/alerts/tests/*.yml
	$(BIN)/python -m tests.chart.dashboards | promtool check rules /dev/stdin

format: venv ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

cluster: ## Start a Kubernetes cluster on this machine, as root; NODES=3 for three nodes
	infra/cluster/cluster.sh up

cluster-down: ## Stop the cluster
	infra/cluster/cluster.sh down

cluster-test-quick: venv ## Test the chart on a real cluster of two nodes, as root
	$(MAKE) --no-print-directory images ARGS=
	tests/cluster/run 2 tests/cluster/quick $(ARGS)

cluster-test: venv ## Test it on three nodes: drains, kills, upgrades, and a year too
	$(MAKE) --no-print-directory images ARGS=
	tests/cluster/run 3 tests/cluster/quick tests/cluster/long $(QUICK_ALONE:%=--deselect=%) $(ARGS)

contracts: venv ## Generate schemas, examples, and AsyncAPI from the event models
	$(BIN)/python -m muster_contracts.generate

chart: venv ## Generate what the chart copies: facts of the code, alerts, its schema and table of values
	$(BIN)/python -m infra.chart.generate

contracts-check: venv ## Reject an event change that breaks a reader of any release
	$(BIN)/python -m muster_contracts.generate --check
	$(BIN)/python -m muster_contracts.compatibility

release-contracts: venv ## Release the current events: make release-contracts VERSION=0.7.0
	$(BIN)/python -m muster_contracts.compatibility --release "$(VERSION)"
	sed -i 's/^__version__ = .*/__version__ = "$(VERSION)"/' contracts/muster_contracts/__init__.py
	sed -i 's/"muster-contracts==[^"]*"/"muster-contracts==$(VERSION)"/' $(PACKAGES:%=%/pyproject.toml)
	$(BIN)/python -m muster_contracts.generate

lock: venv ## Lock the newest versions that requirements.in allows
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url requirements.in -o requirements.lock

clean: ## Remove generated files, but keep the data of stacks
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

help: ## Show the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' Makefile

.PHONY: cluster cluster-down cluster-test cluster-test-quick demo up status down images images-test bundle test chart chart-test e2e chart-helm fuzz faults faults-pooler faults-long bench bench-quick lint supply-chain sbom metrics-check format contracts contracts-check release-contracts lock clean help venv

# The virtual environment. If two makes run at once, the second waits and finds it complete.
venv:
	@flock Makefile $(MAKE) --silent --no-print-directory $(INSTALLED)

$(INSTALLED): requirements.lock $(PACKAGES:%=%/pyproject.toml)
	echo "Setting up $(VENV), once" >&2
	$(PYTHON) -c 'import sys; sys.exit("Muster needs Python 3.11 or later: make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > $(VENV)/uv.lock
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(VENV)/uv.lock
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --require-hashes -r requirements.lock
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation $(PACKAGES:%=-e %)
	touch $@
