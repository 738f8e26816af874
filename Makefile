SHELL := /bin/bash
.DEFAULT_GOAL := help

export CGO_ENABLED ?= 0
export GOFLAGS ?= -buildvcs=false

E2E  := go run ./e2e/cmd/ebbtide-e2e
TOOL := go tool -modfile=hack/lint/go.mod
PROTO := go tool -modfile=hack/proto/go.mod
TEST := $(TOOL) gotestsum --format=pkgname --hide-summary=skipped --

# Packages whose tests are worth the race detector's price.
RACE := ./worker/... ./scaler/backlog/... ./scaler/decision/... ./scaler/externalscaler/... ./scaler/policy/... ./scheduler-plugin/fleet/... ./scheduler-plugin/lifetime/... ./e2e/proc/...

##@ See it
.PHONY: demo up down status logs publish
demo: ## Play a morning of 200 scans on a real local cluster (DEMO_JSON=path writes the summary)
	@$(E2E) demo $(if $(DEMO_JSON),--json $(DEMO_JSON))

up: ## Start the same cluster in the background and say how to use it
	@$(E2E) up

down: ## Stop the cluster that make up started
	@$(E2E) down

status: ## Say where that cluster is
	@$(E2E) status

logs: ## List its components' logs; make logs C=karpenter prints one
	@$(E2E) logs $(C)

N ?= 20
publish: ## Send it N scans (default 20)
	@$(E2E) publish --messages $(N)

##@ Build
.PHONY: tools build images generate
tools: ## Build the tools of a local cluster and install Debian's packages; nothing to do when they are there
	@$(E2E) tools

build: ## Build the programs into bin/
	go build -o bin/ ./cmd/...

images: ## Build the container images into bin/images (ARCH=amd64|arm64)
	go run ./images/build $(if $(ARCH),-arch $(ARCH))

generate: ## Generate code, manifests, dashboards and reference pages
	go generate ./api/... ./dashboards
	$(PROTO) buf generate
	cp manifests/crd/ebbtide.dev_scalingpolicies.yaml manifests/scheduler/config/scheduler-config.yaml charts/ebbtide/files/

##@ Test
.PHONY: test lint generated unit race e2e-demo e2e-node e2e-calendar e2e-scheduler e2e-calibration dashboards-pictures fuzz
test: tools lint generated race unit e2e-node e2e-demo e2e-calendar e2e-scheduler e2e-calibration ## Everything: lint, unit, integration and the scenarios

lint: ## Lint and check the formatting
	$(TOOL) golangci-lint run ./...
	$(PROTO) buf lint
	$(PROTO) buf breaking --against proto/baseline.binpb

generated: generate ## Check that generated files are current
	@git diff --exit-code -- api charts manifests proto docs/reference || { echo "generated files are not current: run make generate and commit"; exit 1; }

race: tools ## Unit and integration tests of the concurrent packages, with the race detector
	CGO_ENABLED=1 $(TEST) -race $(RACE)

unit: tools ## Unit and integration tests of the other packages
	$(TEST) $$(go list ./... | grep -v -e /e2e/scenario $(foreach p,$(RACE),-e ebbtide/$(patsubst ./%/...,%,$(p))))

e2e-demo: tools ## The demo as a test
	$(TEST) -timeout 20m -count=1 -run TestDemo ./e2e/scenario

e2e-node: tools ## Scans in containers on a real kubelet node, with crashes and failures among them
	$(TEST) -timeout 20m -count=1 -run TestNode ./e2e/scenario

e2e-calendar: tools ## A shift: push, a period's start and end, an edit while scans run, a broker's restart
	$(TEST) -timeout 20m -count=1 -run TestCalendar ./e2e/scenario

e2e-scheduler: tools ## The scheduler is killed again and again while pods come
	$(TEST) -timeout 20m -count=1 -run TestScheduler ./e2e/scenario

e2e-calibration: tools ## The same 320 scans on the cluster and in the simulator agree within 10% (OVERLAY=file.svg draws both)
	$(TEST) -timeout 20m -count=1 -run TestCalibration ./e2e/scenario $(if $(OVERLAY),-args -overlay $(abspath $(OVERLAY)))

dashboards-pictures: ## Draw the dashboards of the cluster that make up started into docs/pictures, by Grafana's components (MINUTES=10)
	dashboards/preview/pictures.sh $(or $(MINUTES),10)

fuzz: ## Fuzz the calendar against a clock on the wall (T=1m)
	go test ./scaler/calendar -run '^$$' -fuzz FuzzAgainstWalk -fuzztime $(or $(T),1m)

##@ Measure
.PHONY: bench-scaler bench-churn bench-packing bench-scheduler bench-karpenter
bench-scaler: tools ## Cost of polling 1,000 queues, beside KEDA's own rabbitmq scaler; writes bench/out/scaler.json
	go run ./bench/scaler

bench-churn: tools ## Jobs, waits and pod-seconds of 2,000 messages, beside KEDA's own rabbitmq trigger; writes bench/out/churn.json
	@$(E2E) churn

bench-packing: ## Node-hours of packers on replayed loads; writes bench/out/packing.json (TRACE=file.csv adds a load)
	go run ./bench/packing $(if $(TRACE),-trace $(TRACE))

bench-scheduler: tools ## Pods per second in scheduler_perf beside the stock scheduler; writes bench/out/scheduler.json
	@mkdir -p bench/out
	folder=$$($(E2E) tools --show-folder) && cd bench/scheduler && PATH="$$folder:$$PATH" KUBE_CACHE_MUTATION_DETECTOR=false ARTIFACTS=$$(mktemp -d) \
		go test -run '^$$' -bench Scheduler -benchtime 1x -timeout 2h -out ../out/scheduler.json .

bench-karpenter: tools ## Node-seconds of the same pods with the stock scheduler, MostAllocated and DrainPack; writes bench/out/karpenter.json
	@$(E2E) packing

##@ Help
.PHONY: help
help: ## Show this
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
