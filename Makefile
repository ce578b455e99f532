# What CI runs is what stands here: .ci/run calls these targets.

GO          ?= go
STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOFUMPT     := mvdan.cc/gofumpt@v0.12.0
DEADCODE    := golang.org/x/tools/cmd/deadcode@v0.52.0
PLATFORMS   := $(foreach os,linux windows darwin freebsd,$(os)/amd64 $(os)/arm64)
FUZZTIME    ?= 5s
# Nothing here speaks HTTP/2: half a MiB less.
TAGS        := nethttpomithttp2
# Packages with tests that count what the race detector distorts, as
# allocations: they leave those out under it.
COUNTING    := $(patsubst %/race_test.go,./%,$(shell find pkg -name race_test.go))

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build both programs into bin/
	@mkdir -p bin
	CGO_ENABLED=0 $(GO) build -trimpath -tags $(TAGS) -ldflags '-s -w' -o bin/ ./cmd/...

.PHONY: run
run: build ## run the demo; CONFIG=my.json or LINK=vmess://… runs your own
ifdef CONFIG
	@exec bin/vmess-local run -c '$(CONFIG)'
else ifdef LINK
	@exec bin/vmess-local run '$(LINK)'
else
	@exec bin/vmess-local demo
endif

.PHONY: test
test: tools ## run all tests; installs what they need where it can
	@race=-race; command -v gcc >/dev/null || race=; set -ex; \
	GO='$(GO)' .ci/gotest $$race -timeout 20m -- ./...; [ -z "$$race" ] || $(GO) test $(COUNTING)
	@.ci/tools missing

.PHONY: tools
tools: ## install what the tests need (Debian, as root)
	@.ci/tools install

.PHONY: fmt
fmt: ## format the sources
	$(GO) run $(GOFUMPT) -w cmd pkg

.PHONY: lint
lint: ## check formatting, vet, staticcheck, unused code
	@bad="$$($(GO) run $(GOFUMPT) -l cmd pkg)"; [ -z "$$bad" ] || { echo "make fmt would change:" $$bad; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	@dead="$$($(GO) run $(DEADCODE) -test ./...)"; [ -z "$$dead" ] || { echo "$$dead"; exit 1; }
	$(GO) mod tidy -diff
	$(GO) mod verify

.PHONY: cross
cross: tools ## build for every supported system, run the demo on other processors
	@set -e; for p in $(PLATFORMS); do \
	  echo "build $$p"; \
	  CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -trimpath -tags $(TAGS) -o /dev/null ./cmd/vmess-local; \
	  CGO_ENABLED=0 GOOS=$${p%/*} GOARCH=$${p#*/} $(GO) build -trimpath -tags $(TAGS) -o /dev/null ./cmd/vmess-server; \
	  case $$p in */amd64) GOOS=$${p%/*} GOARCH=$${p#*/} CGO_ENABLED=0 $(GO) vet ./...;; esac; \
	done
	@.ci/processors

.PHONY: windows
windows: tools ## run the Windows build under Wine
	@.ci/windows

.PHONY: release
release: ## make archives, Debian packages, checksums and SBOM into dist/
	@$(GO) run ./pkg/internal/release -out dist

.PHONY: bench
bench: ## measure against V2Ray; BENCH=cpu|server|syscalls|conn|mux|udp|rtt|page|idle|rest ROUNDS=3
	@BENCH='$(BENCH)' ROUNDS='$(ROUNDS)' $(GO) run ./pkg/internal/bench

.PHONY: soak
soak: ## move streams over bad roads for DURATION (10m), with WORKERS (200)
	@mkdir -p bin
	@$(GO) test -c -o bin/e2e.test ./pkg/internal/e2e
	@cd pkg/internal/e2e && CI=true ../../../bin/e2e.test -test.run '^TestSoak$$' -test.v -test.timeout 0 \
	  -soak '$(or $(DURATION),10m)' -soak.workers '$(or $(WORKERS),200)'

.PHONY: healthy
healthy: ## 10,000 healthy requests through every kind of server's ending, none of which may be reported
	$(GO) test -count 1 -v ./pkg/internal/e2e -run '^TestHealthyEndingsAreQuiet$$' -healthy '$(or $(COUNT),10000)' -timeout 30m -parallel 2

.PHONY: screens
screens: ## keep pictures of the status page in dist/screens; UPDATE=1 makes the one in docs anew
	@CI=true $(GO) test ./pkg/internal/e2e -count=1 -run '^Test(Status|Server)Page' -screens "$(CURDIR)/dist/screens" $(if $(UPDATE),-update)
	@ls dist/screens

.PHONY: load
load: ## memory behind slow readers for DURATION (30s), 9,000 tunnels on both servers
	$(GO) test -count 1 -v ./pkg/internal/e2e -run '^TestMemoryStaysFlat$$' -watch '$(or $(DURATION),30s)' -parallel 8
	$(GO) test -count 1 -v ./pkg/internal/e2e -run '^TestCrowd$$' -crowd ours
	$(GO) test -count 1 -v ./pkg/internal/e2e -run '^TestCrowd$$' -crowd v2ray

.PHONY: profile
profile: ## CPU profiles of the client under load, into dist/; BENCH=cpu|udp
	@BENCH='$(BENCH)' $(GO) run ./pkg/internal/bench -profile dist

.PHONY: fuzz
fuzz: ## fuzz each target for FUZZTIME (5s)
	@.ci/fuzz $(FUZZTIME)
