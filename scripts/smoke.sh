#!/usr/bin/env bash
# Drives the main job from outside against a server of its own (temporary state,
# free ports), and removes everything it made.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"
need_root smoke
need_go
scripts/deps.sh
scripts/dockerd.sh start
make --no-print-directory -s build
scripts/images.sh all
scripts/sign-images.sh
exec go run ./e2e/smoke "$@"
