#!/usr/bin/env bash
# From an empty Debian machine with Go to a running bailey: installs what is
# missing, builds, loads the images, starts the server in the foreground.
# BAILEY_ARGS adds flags to "bailey up"; Ctrl-C stops the server, workspaces go on.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"
need_root run
need_go
say "packages from Debian"
scripts/deps.sh
say "Docker"
scripts/dockerd.sh start
say "bailey and bailey-agent"
make --no-print-directory -s build
say "workspace images"
scripts/images.sh all
scripts/sign-images.sh
say "starting"
# shellcheck disable=SC2086 # BAILEY_ARGS is a list of flags
exec bin/bailey up ${BAILEY_ARGS:-}
