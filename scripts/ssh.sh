#!/usr/bin/env bash
# Has the SSH door tried by the clients that people have, against a bailey of
# its own on a real Docker. BAILEY_TEST_SHORT=1 makes transfers and crowds
# smaller; arguments go to go test (-run TestJump).
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"
need_root ssh
need_go
scripts/deps.sh --test
scripts/dockerd.sh start
make --no-print-directory -s build
scripts/images.sh notebook
scripts/sign-images.sh
export BAILEY_TEST_SSH=1
exec go test -count=1 -timeout 40m "$@" ./e2e/ssh
