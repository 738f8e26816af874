SHELL := /bin/bash
.DEFAULT_GOAL := help

export CGO_ENABLED ?= 0
export GOFLAGS ?= -buildvcs=false

E2E  := go run ./e2e/cmd/ebbtide-e2e
TOOL := go tool -modfile=hack/lint/go.mod
PROTO := go tool -modfile=hack/proto/go.mod
TEST := $(TOOL) gotestsum --format=pkgname --hide-summary=skipped --

# Packages whose tests are worth the race detector's price.
RACE := ./worker/... ./scaler/backlog/... ./scaler/decision/... ./scaler/externalscaler/... ./scaler/policy/... ./scheduler-plugin/drainpack/... ./scheduler-plugin/fleet/... ./scheduler-plugin/lifetime/... ./e2e/proc/...

##@ See it
.PHONY: demo up down status logs load publish clean
demo: ## Run a morning of 200 scans on a local cluster (DEMO_JSON=path writes the summary)
	@$(E2E) demo $(if $(DEMO_JSON),--json $(DEMO_JSON))

up: ## Start a local cluster in the background and print how to use it; NODES=2: real nodes with KEDA, to install the charts on
	@$(E2E) up $(if $(NODES),--nodes $(NODES))

down: ## Stop the cluster of make up
	@$(E2E) down

status: ## Print the addresses of that cluster
	@$(E2E) status

logs: ## List the logs of its components; make logs C=karpenter prints one
	@$(E2E) logs $(C)

load: ## Load an image's archive onto the nodes of make up NODES=2 (IMAGE=scanner.tar; default: bin/images/*.tar)
	@$(E2E) load $(IMAGE)

N ?= 20
publish: ## Send it N scans (default 20)
	@$(E2E) publish --messages $(N)

# Tools, clusters and npm packages are in the user's cache folder.
CACHE = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ebbtide

clean: down ## Stop the cluster, and remove everything that was built: bin/, results, tools (1.3 GB, half an hour to build) and npm packages
	rm -rf bin bench/out e2e/out dashboards/preview/node_modules $(CACHE)

##@ Build
.PHONY: tools build images generate snapshots release-dry-run
tools: ## Build the tools of a local cluster and install Debian's packages; does nothing if they exist
	@$(E2E) tools

build: ## Build the programs into bin/
	go build -o bin/ ./cmd/...

images: ## Build the container images into bin/images (ARCH=amd64, VERSION=0.1.0, PUSH=registry.example/ebbtide)
	go run ./images/images-build $(if $(ARCH),-arch $(ARCH)) $(if $(VERSION),-version $(VERSION)) $(if $(PUSH),-push $(PUSH))

release-dry-run: ## Create every artifact of a release in bin/release, and serve images and charts from a registry on this machine (VERSION=0.1.0)
	go run ./hack/release -version $(or $(VERSION),0.1.0) -serve

# The folder of the tools' binaries, asked for once when it is first needed.
TOOLS = $(eval TOOLS := $(shell $(E2E) tools --show-folder))$(TOOLS)

# Templates of the chart as kustomize's, without what only helm or one version of the configuration gives them.
render = set -o pipefail; $(TOOLS)/helm template ebbtide charts/ebbtide -n ebbtide-system -f manifests/values.yaml --set $(1) --show-only 'templates/$(2).yaml' | \
	grep -v -e helm.sh/chart: -e app.kubernetes.io/managed-by: -e app.kubernetes.io/version: -e ebbtide.dev/config: -e '^\# Source:' -e '^$$'

generate: tools ## Generate code, manifests, dashboards and reference pages
	go generate ./api/... ./dashboards
	$(PROTO) buf generate
	cp manifests/crd/ebbtide.dev_scalingpolicies.yaml manifests/scheduler/config/scheduler-config.yaml charts/ebbtide/files/
	go run ./hack/values charts/ebbtide docs/reference/values.md
	go run ./hack/values charts/scan-jobs docs/reference/values-scan-jobs.md
	go run ./hack/values charts/batch-jobs-min-nodes docs/reference/values-batch-jobs-min-nodes.md
	$(call render,tls.mode=none,scaler/*) > manifests/scaler/scaler.yaml
	$(call render,tls.mode=none,scheduler/*) > manifests/scheduler/scheduler.yaml
	$(call render,tls.mode=existing,scaler/triggerauthentication) > manifests/overlays/production/triggerauthentication.yaml
	$(call render,metrics.podMonitor.enabled=true,*/monitor) > manifests/prometheus/monitors.yaml

snapshots: tools ## Update the snapshots of the charts' tests; review the changes
	$(TOOLS)/helm-unittest -u charts/*/

##@ Test
.PHONY: compat e2e-compat rabbitmq-releases test lint generated unit race test-release e2e-release e2e-demo e2e-install e2e-scans e2e-hostile e2e-calendar e2e-scheduler e2e-pod-groups e2e-drain e2e-calibration e2e-recommend e2e-recovery dashboards-pictures fuzz fuzz-calendar
test: ## Run everything: lint, unit and integration tests, scenarios; several at a time. Prints how long each part took
	go run ./hack/testrun

lint: ## Lint and check the formatting
	go tool -modfile=hack/lint/actionlint/go.mod actionlint
	$(TOOL) golangci-lint run --allow-parallel-runners ./...
	$(PROTO) buf lint
	$(PROTO) buf breaking --against proto/baseline.binpb

generated: generate ## Check that generated files are current
	@git diff --exit-code -- api charts manifests proto docs/reference || { echo "generated files are not current: run make generate and commit"; exit 1; }

race: tools ## Run unit and integration tests of the concurrent packages with the race detector
	CGO_ENABLED=1 $(TEST) -timeout 30m -race $(RACE)

unit: tools ## Run unit and integration tests of the other packages
	$(TEST) -timeout 30m $$(go list ./... | grep -v -e /e2e/scenario $(foreach p,$(RACE),-e ebbtide/$(patsubst ./%/...,%,$(p))))
	cd examples/eks && go test ./...

test-release: tools ## Create the artifacts of a release for this machine, push them to a registry in memory, pull and render them
	$(TEST) -timeout 45m -count=1 ./hack/release -args -artifacts

e2e-release: tools ## Create the artifacts of a release, and install them on real nodes: charts and images from a registry, the command with krew
	$(TEST) -timeout 45m -count=1 -run TestInstall ./hack/release -args -install

rabbitmq-releases: tools ## Test with single nodes and clusters of RabbitMQ 3.10, 4.0 and 4.3: node losses, partitions, hangs; takes minutes
	go run ./e2e/rabbitmq/releases
	$(TEST) -timeout 40m -count=1 -run TestReleases ./scaler/backlog/rabbitmq -args -releases
	$(TEST) -timeout 40m -count=1 -run TestReleases ./worker/rabbitmq -args -releases

e2e-demo: tools ## Run the demo as a test
	$(TEST) -timeout 20m -count=1 -run TestDemo ./e2e/scenario

e2e-install: tools ## Test KEDA and the chart on real kubelet nodes: a burst, an upgrade, a rollback, failing scans, an uninstall
	$(TEST) -timeout 45m -count=1 -run TestInstall ./e2e/scenario

e2e-scans: tools ## Test the chart of a scan queue on real kubelet nodes: gitleaks, engines in one pod and in several, a source store, hostile scans
	$(TEST) -timeout 40m -count=1 -run TestScans ./e2e/scenario

e2e-hostile: tools ## Run only the hostile scans of e2e-scans: they attack their worker, the store, another tenant and another engine
	$(TEST) -timeout 40m -count=1 -run TestScans/Hostile ./e2e/scenario

e2e-calendar: tools ## Test a shift: push, a period's start and end, an edit while scans run, a broker's restart
	$(TEST) -timeout 20m -count=1 -run TestCalendar ./e2e/scenario

e2e-scheduler: tools ## Kill the scheduler repeatedly while pods arrive
	$(TEST) -timeout 20m -count=1 -run TestScheduler ./e2e/scenario

e2e-pod-groups: tools ## Test pod groups: one that is too large blocks nobody, an incomplete one is held back, one that fits starts on one node
	$(TEST) -timeout 20m -count=1 -run TestPodGroups ./e2e/scenario

e2e-drain: tools ## Test an evening with draining on Karpenter's nodes: a burst ebbs, another interrupts a drain, idle workers give way, nodes empty
	$(TEST) -timeout 20m -count=1 -run TestDraining ./e2e/scenario

e2e-calibration: tools ## Check that the same 320 scans on the cluster and in the simulator agree (OVERLAY=file.svg draws both)
	$(TEST) -timeout 20m -count=1 -run TestCalibration ./e2e/scenario $(if $(OVERLAY),-args -overlay $(abspath $(OVERLAY)))

e2e-recommend: tools ## Apply what ebbtide recommend finds for a compressed day, and compare the same day with what was promised
	$(TEST) -timeout 30m -count=1 -run TestRecommend ./e2e/scenario

e2e-recovery: tools ## Run the drills: broker, scaler, scheduler, KEDA, nodes, API server and etcd fail during a burst (ABSENCE=10m, DRILL=scaler for one)
	$(TEST) -timeout 90m -count=1 -run TestRecovery ./e2e/scenario $(if $(ABSENCE)$(DRILL)$(RECOVERY_JSON),-args $(if $(ABSENCE),-absence $(ABSENCE)) $(if $(DRILL),-drill $(DRILL)) $(if $(RECOVERY_JSON),-recovery $(abspath $(RECOVERY_JSON))))

dashboards-pictures: ## Draw the dashboards of the cluster of make up with Grafana's components (MINUTES=10, TO=docs/pictures, NAMESPACE=scan, POLICY=scans)
	dashboards/preview/pictures.sh $(or $(MINUTES),10) $(or $(TO),docs/pictures) $(or $(NAMESPACE),scan) $(or $(POLICY),scans)

e2e-compat: tools ## From make compat, the cell of the oldest API server: packing, a leader change, RBAC and charts
	$(TEST) -timeout 20m -count=1 -run TestCompat ./e2e/scenario

compat: tools ## Test with other releases of Kubernetes, KEDA and Karpenter; write docs/reference/compatibility.md (CELL=kubernetes-1.34, LIST=1, BUILD=1, SUMS=1)
	@$(E2E) compat $(if $(CELL),--cell $(CELL)) $(if $(LIST),--list) $(if $(BUILD),--build) $(if $(SUMS),--sums)

fuzz: ## Fuzz the calendar against a wall clock (T=1m)
	go test ./scaler/calendar -run '^$$' -fuzz FuzzAgainstWalk -fuzztime $(or $(T),1m)

# The system's Python has Debian's modules; another one on the PATH need not have them.
ORACLE = /usr/bin/python3 -c 'import dateutil, icalendar' 2>/dev/null

fuzz-calendar: ## Compare random iCalendar files with Debian's python3-dateutil and python3-icalendar, which apt installs (T=10m, SEED=1)
	@$(ORACLE) || apt-get install -y --no-install-recommends python3-dateutil python3-icalendar || true
	@$(ORACLE) || { echo "fuzz-calendar needs Debian's packages python3-dateutil and python3-icalendar"; exit 1; }
	go run ./hack/fuzzcalendar -for $(or $(T),10m) $(if $(SEED),-seed $(SEED))

##@ Measure
.PHONY: soak-scaler bench-scaler bench-churn bench-packing bench-recommend bench-scheduler bench-karpenter bench-source bench-drain bench-startup
bench-scaler: tools ## Measure the cost of polling 1,000 queues, and KEDA's own rabbitmq scaler; writes bench/out/scaler.json
	go run ./bench/scaler

soak-scaler: ## Run 10,000 policies with edits, rotated Secrets, a killed broker and hostile policies: no wrong or slow answer, flat memory
	go run ./bench/soak

bench-churn: tools ## Measure jobs, waits and pod-seconds of 2,000 messages, and of KEDA's own rabbitmq trigger; writes bench/out/churn.json
	@go run ./bench/cluster churn

# Recorded workloads are not part of the source. DATA names their folder; data is the default.
bench-packing: DATA ?= $(wildcard data)
bench-packing: ## Measure node-hours of packers on replayed workloads, recorded ones first; writes bench/out/packing.json (DATA=FOLDER of CSV files, QUICK=1)
	go run ./bench/packing $(if $(DATA),-data $(DATA)) $(if $(QUICK),-seeds 2 -thins 1)

bench-recommend: ## Measure what each decision of ebbtide recommend is worth, on generated weeks (DATA=FOLDER adds all recorded workloads in it)
	go run ./bench/recommend $(if $(DATA),-data $(DATA))

bench-scheduler: tools ## Measure pods per second in scheduler_perf, and of the stock scheduler; writes bench/out/scheduler.json
	@mkdir -p bench/out
	cd bench/scheduler && PATH="$(TOOLS):$$PATH" KUBE_CACHE_MUTATION_DETECTOR=false ARTIFACTS=$$(mktemp -d) \
		go test -run '^$$' -bench Scheduler -benchtime 1x -timeout 2h -out ../out/scheduler.json .

bench-karpenter: tools ## Measure node-seconds of the same pods with the stock scheduler, MostAllocated and DrainPack; writes bench/out/karpenter.json (LOAD=FILE.csv for slices of a recorded workload, RUNS=5)
	@go run ./bench/cluster karpenter $(if $(LOAD),--load $(LOAD) --pods 400) $(if $(RUNS),--runs $(RUNS))

bench-source: ## Measure fetches per scan at the origin, with a clone for each and with the source store; writes bench/out/source.json
	go run ./bench/source

bench-drain: tools ## Measure nodes, pods and waits of a burst and of a morning: one message a pod, workers that keep consuming, the three rules, KEDA; writes bench/out/drain*.json (RUNS=5)
	go run ./bench/drain
	@go run ./bench/cluster drain $(if $(RUNS),--runs $(RUNS))

bench-startup: tools ## Measure each step between a message and its scan on real nodes; writes bench/out/startup.json (MESSAGES=20)
	@go run ./bench/cluster startup $(if $(MESSAGES),--messages $(MESSAGES))

##@ Help
.PHONY: help
help: ## Show this
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
