#!/usr/bin/env bash
# The browser tier: Debian's Chromium, driven by Playwright, against a server of
# its own. BAILEY_SCREENSHOTS=DIR keeps pictures.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"
need_root browser
need_go
command -v npm >/dev/null || die "npm is not installed" "install Node.js 20 or newer with npm"
scripts/deps.sh --test
scripts/dockerd.sh start
make --no-print-directory -s build
scripts/images.sh all
scripts/sign-images.sh
cd e2e/browser
PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --no-audit --no-fund --silent
npm test --silent
