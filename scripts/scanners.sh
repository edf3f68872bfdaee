#!/usr/bin/env bash
# What scanners say of the front door: h2spec (from the Go module proxy),
# sslscan and testssl.sh (from Debian). Findings that docs/security/scanners.md
# does not explain fail.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"
need_go
tools=${BAILEY_TEST_TOOLS:-/var/cache/bailey/tools}/scanners
mkdir -p "$tools"

if ! command -v testssl >/dev/null || ! command -v sslscan >/dev/null; then
  need_root "the scanners"
  apt-get install -y --no-install-recommends testssl.sh sslscan >/dev/null || die "testssl.sh and sslscan could not be installed from Debian"
fi
if [ ! -x "$tools/h2spec" ]; then
  build=$(mktemp -d)
  trap 'rm -rf "$build"' EXIT
  (
    cd "$build"
    go mod init h2spec-build >/dev/null 2>&1
    go get github.com/summerwind/h2spec/cmd/h2spec@v2.2.1+incompatible >/dev/null 2>&1
    go build -o "$tools/h2spec" github.com/summerwind/h2spec/cmd/h2spec
  ) || die "h2spec could not be built from the module proxy"
fi
BAILEY_TEST_SCANNERS=$tools go test -count=1 -timeout 15m -v -run 'TestH2spec|TestSslscan|TestTestssl' ./internal/edge
