#!/usr/bin/env bash
# All linters; prints what is wrong and exits 1.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"
bad=0
unformatted=$(git ls-files -z '*.go' ':!*.gen.go' | xargs -0 gofmt -l)
[ -z "$unformatted" ] || { echo "not formatted (make fmt):"; echo "$unformatted"; bad=1; }
go vet ./... || bad=1
bin/golangci-lint run ./... || bad=1
(cd tools/imagepack && go vet ./...) || bad=1
for f in images/*/Containerfile; do scripts/lint-containerfile.sh "$f" || bad=1; done
scripts/lint-containerfile.sh --self-test || bad=1
for f in scripts/*.sh .ci/run; do bash -n "$f" || bad=1; done
if command -v shellcheck >/dev/null; then shellcheck -x scripts/*.sh .ci/run || bad=1; fi
exit $bad
