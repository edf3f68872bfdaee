#!/usr/bin/env bash
# Installs the real cosign, of both versions that are in use, for the tests of
# the tier "trust", and prints the folder they are in. It takes minutes of CPU
# once; afterwards nothing.
#
#   BAILEY_TEST_TOOLS   where to; default /var/cache/bailey/tools
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
need_go
tools=${BAILEY_TEST_TOOLS:-/var/cache/bailey/tools}
install() {
  local major=$1 version=$2
  local to=$tools/cosign-$version
  [ -x "$to/cosign" ] && return
  say "cosign $version (minutes, once)"
  mkdir -p "$to"
  # Outside of our module: its dependencies are not ours.
  (cd / && GOFLAGS=-p=2 CGO_ENABLED=0 GOBIN=$to nice -n 15 go install "github.com/sigstore/cosign/$major/cmd/cosign@$version") ||
    die "cosign $version could not be built" "the module proxy must be reachable once"
}
install v2 v2.6.5
install v3 v3.1.3
echo "$tools"
