# Each target is one command that a person could type. See "make help".
SHELL := /bin/bash
export CGO_ENABLED := 0
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/baileyhq/bailey.Version=$(VERSION)
GO_SOURCES := $(shell find . -name '*.go' -not -path './tools/*' -not -path './.git/*') go.mod go.sum
WEB_SOURCES := $(shell find internal/console/templates internal/console/static internal/store/migrations internal/engine internal/catalogue internal/trust -type f 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help run build images test unit smoke bench lint fmt generate clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: ## install what is missing, build, start bailey, print its address (as root, on Debian)
	@scripts/run.sh

build: bin/bailey bin/bailey-agent ## build bin/bailey and bin/bailey-agent

bin/bailey: $(GO_SOURCES) $(WEB_SOURCES)
	@mkdir -p bin
	go build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/bailey

bin/bailey-agent: $(GO_SOURCES)
	@mkdir -p bin
	go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o $@ ./cmd/bailey-agent

images: bin/bailey ## build, sign and load the workspace images (as root)
	@scripts/deps.sh
	@scripts/dockerd.sh start
	@scripts/images.sh all
	@scripts/sign-images.sh

test: ## everything: lint, unit, PostgreSQL, Docker, browser (as root, on Debian)
	@scripts/test.sh

unit: ## the fast tier: no network, no root, no Docker
	go test ./...

smoke: ## drive the main job from outside, each step with its time (as root)
	@scripts/smoke.sh

bench: ## measure against the budgets and write docs/benchmarks.md (as root)
	@scripts/bench.sh

lint: bin/golangci-lint ## all linters
	@scripts/lint.sh

fmt: bin/golangci-lint ## format all Go code
	bin/golangci-lint fmt

generate: bin/oapi-codegen ## rebuild api/openapi.json and the Go client from the code
	go test ./internal/api -run TestTheCommittedDocumentIsTheCodes -update
	bin/oapi-codegen -config internal/client/oapi.yaml api/openapi.json

bin/golangci-lint bin/oapi-codegen: tools/go.mod tools/go.sum
	@mkdir -p bin
	cd tools && go build -o ../bin/ github.com/golangci/golangci-lint/v2/cmd/golangci-lint github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen
	@touch bin/golangci-lint bin/oapi-codegen

clean: ## remove what was built here; state, images and volumes stay
	rm -rf bin build
