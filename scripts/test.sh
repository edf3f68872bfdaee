#!/usr/bin/env bash
# Every tier, one after the other, each installing and starting what it needs
# and stopping only what it started. A tier that cannot run fails loudly.
# TIERS="lint unit" chooses some. Two are smaller unless they are asked for by
# name, because whole they take long: ssh (TIERS=ssh: transfers of a gigabyte,
# crowds of ten thousand), and mutants, which is left out (TIERS=mutants).
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"
need_root test
need_go
tiers=${TIERS:-lint unit race postgres trust sign-in scanners docker ssh browser}
[ -n "${TIERS:-}" ] || export BAILEY_TEST_SHORT=${BAILEY_TEST_SHORT-1}
passed=0 failed=0 failures=

stop_postgres=""
stop_slapd=""
cleanup() {
  [ -z "$stop_postgres" ] || scripts/postgres.sh stop || true
  [ -z "$stop_slapd" ] || scripts/slapd.sh stop || true
}
trap cleanup EXIT

tier() {
  local name=$1; shift
  case " $tiers " in *" $name "*) ;; *) return 0 ;; esac
  say "tier $name"
  if "$@"; then
    passed=$((passed + 1)); say "tier $name passed"
  else
    failed=$((failed + 1)); failures="$failures $name"; say "tier $name FAILED"
  fi
}

lint() { make --no-print-directory lint; }

unit() { go test ./... && (cd tools/imagepack && go test ./...); }

# The race detector needs cgo; the rooms with the most goroutines are worth it.
race() {
  CGO_ENABLED=1 go test -race -short ./internal/audit ./internal/guard ./internal/gatehouse ./internal/identity ./internal/edge/... \
    ./internal/gateway ./internal/workspace ./internal/catalogue ./internal/vault ./internal/filter ./internal/rulebook ./internal/egress/... ./internal/store ./internal/config ./internal/agent ./internal/engine/...
}

postgres() {
  stop_postgres=yes
  scripts/postgres.sh start || return 1
  local url
  url=$(scripts/postgres.sh url) || return 1
  BAILEY_TEST_POSTGRES=$url go test -count=1 ./internal/store/...
}

# What the real cosign signs we verify, and the other way round.
trust() {
  local tools
  tools=$(scripts/cosign.sh) || return 1
  BAILEY_TEST_COSIGN=$tools go test -count=1 -timeout 10m -run Cosign ./internal/trust
}

# Company accounts on a real OpenLDAP: TLS, nested groups, a locked account.
sign_in() {
  stop_slapd=yes
  local dir
  dir=$(scripts/slapd.sh start) || return 1
  BAILEY_TEST_SLAPD=$dir go test -count=1 -timeout 5m -run Slapd ./internal/ldap ./internal/company
}

docker() {
  scripts/dockerd.sh start || return 1
  make --no-print-directory -s build || return 1
  scripts/images.sh all || return 1
  scripts/sign-images.sh || return 1
  # One image is enough to see that the packer is still deterministic; pytorch
  # takes the same way and three times as long.
  scripts/images.sh notebook --check-reproducible || return 1
  export BAILEY_TEST_DOCKER=1
  go test -count=1 -timeout 20m ./internal/engine/docker/... || return 1
  go test -count=1 -timeout 10m -run TestOnDocker ./internal/workspace || return 1
  go test -count=1 -timeout 10m -run TestOnDocker ./internal/catalogue || return 1
  go test -count=1 -timeout 15m ./e2e || return 1
  scripts/smoke.sh
}

browser() { scripts/browser.sh; }

say "packages from Debian"
scripts/deps.sh --test || die "the packages that the tests need could not be installed"
tier lint lint
tier unit unit
tier race race
tier postgres postgres
tier trust trust
tier sign-in sign_in
tier mutants scripts/mutants.sh
tier scanners scripts/scanners.sh
tier docker docker
tier ssh scripts/ssh.sh
tier browser browser
[ -z "$failures" ] || echo "failed tiers:$failures"
echo "tiers: $passed passed, $failed failed"
[ "$failed" = 0 ]
