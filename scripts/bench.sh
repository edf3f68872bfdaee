#!/usr/bin/env bash
# Measures bailey against the budgets of its design, in turns with its peers,
# and writes docs/benchmarks.md. It starts a server of its own (temporary state,
# free ports) and removes what it made. A missed budget is a result; what cannot
# be measured ends it with an error.
#
#   scripts/bench.sh                       everything
#   scripts/bench.sh -only launch,get      some parts: launch get ws audit password guessing memory filter trust egress ssh
#   scripts/bench.sh -quick                a smoke of the bench; writes nothing
#   scripts/bench.sh -profile DIR …        keep profiles of bailey under load
#   scripts/bench.sh -render               write the document again, with new notes
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"
export CGO_ENABLED=0
need_root bench
need_go
command -v npm >/dev/null || die "npm is not installed" "install Node.js 20 or newer with npm: the peer, configurable-http-proxy, needs both"
scripts/deps.sh
scripts/dockerd.sh start
make --no-print-directory -s build
scripts/images.sh all
scripts/sign-images.sh
scripts/cosign.sh >/dev/null
say "the peer from npm, and the bench's own helpers"
mkdir -p build/bench
cp e2e/bench/peers/package.json e2e/bench/peers/package-lock.json e2e/bench/peers/gc.cjs build/bench/
if ! cmp -s build/bench/package-lock.json build/bench/node_modules/.installed; then
  npm ci --prefix build/bench --no-audit --no-fund --silent
  cp build/bench/package-lock.json build/bench/node_modules/.installed
fi
go build -trimpath -o build/bench/ ./e2e/bench/backend ./e2e/bench/gwserver
exec go run ./e2e/bench "$@"
