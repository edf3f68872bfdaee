#!/usr/bin/env bash
# Installs, from Debian, what building and running bailey needs and this
# machine lacks. With nothing to do it changes nothing, asks no mirror, and is
# done in a moment.
#
#   scripts/deps.sh           what the host needs: Docker Engine, image building
#   scripts/deps.sh --test    and what the tests need: a browser, PostgreSQL, ssh
#   scripts/deps.sh --check   only say what is missing; exit 1 if anything is
#
# A Docker Engine that is already there, from Docker's own packages or from
# anywhere else, is used as it is and never replaced. A docker command alone is
# not an engine: what counts is dockerd, or a daemon that answers.
set -euo pipefail

base=(
	ca-certificates
	curl
	debian-archive-keyring # the signatures of the suite the images come from
	git
	iptables # dockerd's networks
	jq
	make
	mmdebstrap
	procps
)
tests=(
	busybox-static # the test image of engine/docker
	chromium
	fonts-dejavu-core
	fonts-wqy-microhei # the console speaks Chinese too; screenshots need glyphs
	gcc       # the race detector needs cgo
	ldap-utils
	slapd # the directory of the sign-in tests
	libc6-dev
	openssh-client
	postgresql
	shellcheck
)

say() { printf 'deps: %s\n' "$*" >&2; }
die() { # what, why, what next
	say "$1"
	shift
	local line
	for line in "$@"; do printf '      %s\n' "$line" >&2; done
	exit 1
}
usage() {
	sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0" >&2
	exit 2
}

installed() {
	[[ $(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

# have_engine is true when a Docker Engine is here, whoever installed it.
have_engine() {
	command -v dockerd >/dev/null && return 0
	[[ -x /usr/sbin/dockerd || -x /usr/local/sbin/dockerd ]] && return 0
	command -v docker >/dev/null &&
		timeout 5 docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

want_tests=no
check_only=no
for arg in "$@"; do
	case $arg in
	--test) want_tests=yes ;;
	--check) check_only=yes ;;
	*) usage ;;
	esac
done

if [[ ! -r /etc/debian_version ]] || ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
	die "this machine is not Debian" \
		"The script installs Debian packages with apt-get, which is not here." \
		"Install these by other means, then carry on: a Docker Engine (20.10 or newer)," \
		"mmdebstrap, jq, git, make, curl. The bailey binary itself needs none but the engine."
fi

want=("${base[@]}")
[[ $want_tests == yes ]] && want+=("${tests[@]}")

missing=()
for package in "${want[@]}"; do
	installed "$package" || missing+=("$package")
done
# An older keyring may be installed that does not know the suite of the images.
if [[ ! -e /usr/share/keyrings/debian-archive-trixie-stable.gpg && " ${missing[*]} " != *" debian-archive-keyring "* ]]; then
	missing+=(debian-archive-keyring)
fi
if ! have_engine; then
	missing+=(docker.io)
fi
# From Debian 13 on the docker command is a package of its own.
if ! command -v docker >/dev/null && [[ -n $(apt-cache search --names-only '^docker-cli$' 2>/dev/null) ]]; then
	missing+=(docker-cli)
fi

if ((${#missing[@]} == 0)); then
	say "nothing to do: everything is installed"
	exit 0
fi
if [[ $check_only == yes ]]; then
	say "missing: ${missing[*]}"
	exit 1
fi
if ((EUID != 0)); then
	die "cannot install ${missing[*]}" \
		"Only root installs packages, and this is user $(id -un)." \
		"Run: sudo $0${*:+ $*}"
fi

say "installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
apt=(apt-get -q -y -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 -o Dpkg::Use-Pty=0)
# apt's own words go to stderr: stdout is for data, and this script has none.
if ! "${apt[@]}" update >&2; then
	die "cannot refresh the package lists" \
		"apt-get update failed; its reason is above (no network, no mirror, or a bad clock)." \
		"Repair /etc/apt/sources.list*, then run this again."
fi
if ! "${apt[@]}" install --no-install-recommends "${missing[@]}" >&2; then
	die "cannot install ${missing[*]}" \
		"apt-get install failed; its reason is above." \
		"If packages are half installed: dpkg --configure -a, then apt-get -f install, then this again."
fi

for package in "${missing[@]}"; do
	installed "$package" || die "$package is still missing" \
		"apt-get said it was done, but dpkg does not list it as installed." \
		"Look at: dpkg -l $package"
done
have_engine || die "there is still no dockerd" \
	"docker.io is installed, but no dockerd is in PATH or /usr/sbin." \
	"Look at: dpkg -L docker.io"
say "done"
