#!/usr/bin/env bash
# Signs the workspace images that scripts/images.sh has built, with the key of
# this machine, which is made the first time. An image is the same whoever signs
# it, so the signature lies beside the layout and building knows nothing of it.
#
#   BAILEY_CACHE   where the images are; default /var/cache/bailey/images
#   BAILEY_IMAGE_KEY   the private key; default /etc/bailey/trust/images.key
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"
need_root images
[ -x bin/bailey ] || make --no-print-directory -s build
shopt -s nullglob
layouts=("${BAILEY_CACHE:-/var/cache/bailey/images}"/*.oci)
[ "${#layouts[@]}" != 0 ] || die "there is no image to sign" "build them: make images"
exec bin/bailey image sign ${BAILEY_IMAGE_KEY:+--key "$BAILEY_IMAGE_KEY"} "${layouts[@]}"
