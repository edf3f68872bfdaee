# Shared by the scripts: messages with times, cleaning up, free ports. Sourced,
# never run.
# shellcheck shell=bash disable=SC2034
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
started=$(date +%s)

# say prints a line with the seconds since the script began.
say() { printf '[%4ds] %s\n' "$(($(date +%s) - started))" "$*" >&2; }

# die says what, why and what next, and ends the script.
die() {
  printf 'error: %s\n' "$1" >&2
  [ -z "${2:-}" ] || printf '  → %s\n' "$2" >&2
  exit "${3:-1}"
}

need_root() {
  [ "$(id -u)" = 0 ] || die "$1 must run as root: it talks to Docker and owns the volumes" "sudo make ${1}"
}

need_go() {
  command -v go >/dev/null || die "Go is not installed" "install Go 1.26 or newer and put it on PATH"
}

# free_port prints a TCP port on loopback that nobody listens on.
free_port() {
  local p
  for _ in $(seq 50); do
    p=$((20000 + RANDOM % 20000))
    (exec 3<>"/dev/tcp/127.0.0.1/$p") 2>/dev/null || { echo "$p"; return; }
  done
  die "no free port found on 127.0.0.1"
}
