#!/usr/bin/env bash
# Makes sure that a Docker daemon answers, on hosts with systemd and without.
#
#   scripts/dockerd.sh start    start one, unless one answers already
#   scripts/dockerd.sh stop     end the one this script started, and no other
#   scripts/dockerd.sh status   say which one answers; exit 3 if none does
#
# A daemon that answers already is used and never stopped. The one started here
# runs with --live-restore: when it stops or dies, containers keep running, and
# the next start finds them again.
#
#   BAILEY_DOCKERD_DIR       pid file and log (default /var/run/bailey-dockerd)
#   BAILEY_DOCKERD_TIMEOUT   seconds to wait for an answer (default 60)
#   BAILEY_DOCKERD_ARGS      more arguments for dockerd, split at spaces
#   DOCKER_HOST              the daemon to look for, as for the docker command
set -euo pipefail

dir=${BAILEY_DOCKERD_DIR:-/var/run/bailey-dockerd}
patience=${BAILEY_DOCKERD_TIMEOUT:-60}
socket=/var/run/docker.sock
pid_file=$dir/dockerd.pid
log=$dir/dockerd.log

say() { printf 'dockerd: %s\n' "$*" >&2; }
die() { # what, why, what next
	say "$1"
	shift
	local line
	for line in "$@"; do printf '         %s\n' "$line" >&2; done
	exit 1
}

# server_version prints the version of the daemon that answers, if one does.
server_version() {
	if [[ -z ${DOCKER_HOST:-} ]] && command -v curl >/dev/null; then
		[[ -S $socket ]] || return 1
		curl --silent --fail --max-time 5 --unix-socket "$socket" http://docker/version |
			sed -n 's/.*"Version":"\([^"]*\)","ApiVersion".*/\1/p' | grep . && return 0
	fi
	# curl is missing, or the answer was laid out in a way sed did not expect.
	timeout 10 docker version --format '{{.Server.Version}}' 2>/dev/null | grep .
}

# started_at prints when the living process $1 began, in clock ticks since boot.
# Pid and start together name one process for good: a recycled pid has another start.
started_at() {
	local stat fields
	stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
	# The command name, in parentheses, may hold spaces: count fields after it.
	read -r -a fields <<<"${stat##*) }"
	# A dead process keeps its entry until its parent has asked for it, and not
	# every machine's process 1 asks.
	[[ ${fields[0]} != Z ]] || return 1
	printf '%s\n' "${fields[19]}"
}

# is_alive is true when process $1 lives and is the program $2.
is_alive() {
	local name
	[[ $1 =~ ^[0-9]+$ ]] && started_at "$1" >/dev/null || return 1
	name=$(tr '\0' '\n' <"/proc/$1/cmdline" 2>/dev/null | head -n 1) || return 1
	[[ ${name##*/} == "$2" ]]
}

# forget removes pid file $1 unless it names a living $2.
forget() {
	if [[ -s $1 ]] && ! is_alive "$(tr -dc 0-9 <"$1")" "$2"; then
		rm -f "$1"
	fi
}

# our_pid prints the pid of the daemon this script started, if it still runs.
our_pid() {
	local pid began
	[[ -r $pid_file ]] || return 1
	read -r pid began <"$pid_file" || return 1
	is_alive "$pid" dockerd && [[ $(started_at "$pid") == "$began" ]] || return 1
	printf '%s\n' "$pid"
}

# wait_for_answer polls until a daemon answers, process $1 (if given) is gone,
# or patience runs out.
wait_for_answer() {
	local until=$((SECONDS + patience)) began
	began=${1:+$(started_at "$1" || true)}
	while ((SECONDS < until)); do
		server_version >/dev/null && return 0
		if [[ -n ${1:-} && $(started_at "$1" || true) != "$began" ]]; then
			return 1
		fi
		sleep 0.1
	done
	return 1
}

find_dockerd() {
	local candidate
	for candidate in "$(command -v dockerd || true)" /usr/sbin/dockerd /usr/local/sbin/dockerd; do
		if [[ -n $candidate && -x $candidate ]]; then
			printf '%s\n' "$candidate"
			return 0
		fi
	done
	return 1
}

# in_daemon_json is true when the daemon's own file sets key $1. dockerd refuses
# to start when a setting is given both there and as a flag.
in_daemon_json() {
	[[ -r /etc/docker/daemon.json ]] && grep -q "\"$1\"[[:space:]]*:" /etc/docker/daemon.json
}

start() {
	local version dockerd pid
	if version=$(server_version); then
		say "a daemon answers already: Docker Engine $version"
		return 0
	fi
	if [[ -n ${DOCKER_HOST:-} && $DOCKER_HOST != "unix://$socket" && $DOCKER_HOST != unix:///run/docker.sock ]]; then
		die "no daemon answers at DOCKER_HOST=$DOCKER_HOST" \
			"This script starts only the daemon of this machine, at $socket." \
			"Start that one yourself, or unset DOCKER_HOST."
	fi
	if ((EUID != 0)); then
		die "cannot start a Docker daemon" \
			"No daemon answers, or this user ($(id -un)) may not open $socket; only root starts one." \
			"Run: sudo $0 start, or have an administrator add you to the docker group."
	fi

	if [[ -d /run/systemd/system ]]; then
		systemctl start docker || die "systemd could not start docker" \
			"Its reason is in the journal." "Look at: journalctl -u docker -n 50"
		wait_for_answer || die "docker is started, but does not answer" \
			"$patience s passed without an answer." "Look at: journalctl -u docker -n 50"
		say "started with systemd: Docker Engine $(server_version)"
		return 0
	fi

	dockerd=$(find_dockerd) || die "there is no dockerd here" \
		"A docker command alone is only a client." "Run: scripts/deps.sh"
	(umask 022 && mkdir -p "$dir")

	# Two starts at once must make one daemon. The daemon itself must not hold
	# the lock, so it does not inherit descriptor 9.
	exec 9>"$dir/lock"
	flock -w "$patience" 9 || die "another start is still under way" \
		"It holds $dir/lock for more than $patience s." "See: $0 status, and $log"
	if version=$(server_version); then
		say "a daemon answers already: Docker Engine $version"
		return 0
	fi

	local args=()
	in_daemon_json live-restore || args+=(--live-restore)
	in_daemon_json hosts || args+=(--host "unix://$socket")
	if [[ -n ${BAILEY_DOCKERD_ARGS:-} ]]; then
		local more
		read -r -a more <<<"$BAILEY_DOCKERD_ARGS"
		args+=("${more[@]}")
	fi

	# A killed daemon leaves two pid files. dockerd refuses to start while they
	# name any process at all: one that is dead but not buried, or a stranger that
	# was given the number since.
	forget /var/run/docker.pid dockerd
	forget /var/run/docker/containerd/containerd.pid containerd

	# The log grows from start to start and is kept; one old one stays beside it.
	if [[ -s $log ]] && (($(stat -c %s "$log") > 16 * 1024 * 1024)); then
		mv -f "$log" "$log.1"
	fi
	printf '%s starting %s %s\n' "$(date -u +%FT%TZ)" "$dockerd" "${args[*]}" >>"$log"
	# setsid forks only when it leads a process group, which a background job
	# of a script does not: the pid is dockerd's own.
	setsid nohup "$dockerd" "${args[@]}" </dev/null >>"$log" 2>&1 9>&- &
	pid=$!
	disown "$pid"
	printf '%s %s\n' "$pid" "$(started_at "$pid" || true)" >"$pid_file"

	if ! wait_for_answer "$pid"; then
		say "the last lines of $log:"
		tail -n 25 "$log" | cut -c -400 >&2
		if our_pid >/dev/null; then
			die "dockerd runs, but does not answer" \
				"$patience s passed without an answer on $socket; the log above says how far it came." \
				"Wait longer with BAILEY_DOCKERD_TIMEOUT, or end it: $0 stop"
		fi
		rm -f "$pid_file"
		die "dockerd ended at once" \
			"The log above says why; often cgroups are not mounted, or iptables is missing." \
			"Repair that, then run this again."
	fi
	say "started, pid $pid, log $log: Docker Engine $(server_version)"
}

stop() {
	local pid began until
	if ! pid=$(our_pid); then
		rm -f "$pid_file"
		if server_version >/dev/null; then
			say "left alone: the daemon that answers was not started by this script"
		else
			say "nothing to stop"
		fi
		return 0
	fi
	began=$(started_at "$pid")
	kill -TERM "$pid"
	until=$((SECONDS + 30))
	while [[ $(started_at "$pid" || true) == "$began" ]] && our_pid >/dev/null; do
		if ((SECONDS >= until)); then
			say "dockerd (pid $pid) did not end in 30 s: killing it; containers live on"
			kill -KILL "$pid" 2>/dev/null || true
			until=$((SECONDS + 3600))
		fi
		sleep 0.1
	done
	rm -f "$pid_file"
	say "stopped, pid $pid; the log stays in $log"
}

status() {
	local version pid
	if ! version=$(server_version); then
		if pid=$(our_pid); then
			say "dockerd runs (pid $pid), but does not answer; see $log"
		else
			say "no Docker daemon answers"
		fi
		return 3
	fi
	if pid=$(our_pid); then
		say "Docker Engine $version answers; started by this script, pid $pid, log $log"
	else
		say "Docker Engine $version answers; not started by this script"
	fi
}

case ${1:-} in
start | stop | status)
	(($# == 1)) || die "$1 takes no arguments" "Given: ${*:2}" "Run: $0 $1"
	"$1"
	;;
*)
	sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0" >&2
	exit 2
	;;
esac
