#!/usr/bin/env bash
# Runs a private PostgreSQL 15 or newer for the tests, from Debian's packages.
#
#   scripts/postgres.sh start    start it, unless it runs, and print its URL
#   scripts/postgres.sh url      print the URL of the one that runs; exit 3 if none
#   scripts/postgres.sh stop     end the one this script started, and no other
#
# It listens on a Unix socket and on a free port of 127.0.0.1, asks for a
# password made for this one cluster, and keeps its files in a directory of its
# own, which stop removes. It does not wait for the disk (fsync is off): it is
# for tests, never for anybody's data. Other clusters are left alone.
#
#   BAILEY_POSTGRES_DIR       where it lives (default /tmp/bailey-postgres-UID)
#   BAILEY_POSTGRES_BIN       folder of initdb and pg_ctl (default: the newest
#                             of /usr/lib/postgresql/*/bin)
#   BAILEY_POSTGRES_TIMEOUT   seconds to wait for an answer (default 60)
set -euo pipefail
umask 077
export LC_ALL=C

dir=${BAILEY_POSTGRES_DIR:-/tmp/bailey-postgres-$(id -u)}
patience=${BAILEY_POSTGRES_TIMEOUT:-60}
data=$dir/data
log=$dir/postgres.log
url_file=$dir/url

say() { printf 'postgres: %s\n' "$*" >&2; }
die() { # what, why, what next
	say "$1"
	shift
	local line
	for line in "$@"; do printf '          %s\n' "$line" >&2; done
	exit 1
}

# as_owner runs a command as the user the cluster belongs to: PostgreSQL refuses
# to run as root.
as_owner() {
	if ((EUID == 0)); then
		# Its own directory is one that both may enter.
		(cd / && exec setpriv --reuid=postgres --regid=postgres --init-groups -- env HOME=/tmp PATH="$PATH" LC_ALL=C "$@")
	else
		"$@"
	fi
}

find_bin() {
	local candidate found=
	if [[ -n ${BAILEY_POSTGRES_BIN:-} ]]; then
		[[ -x $BAILEY_POSTGRES_BIN/initdb && -x $BAILEY_POSTGRES_BIN/pg_ctl ]] || return 1
		printf '%s\n' "$BAILEY_POSTGRES_BIN"
		return 0
	fi
	while IFS= read -r candidate; do
		[[ -x $candidate/initdb && -x $candidate/pg_ctl ]] && found=$candidate
	done < <(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V)
	[[ -n $found ]] && printf '%s\n' "$found"
}

# ours is true when the directory is one this script made and nobody else could
# have put there: /tmp is everybody's.
ours() {
	[[ -d $dir && ! -L $dir && $(stat -c %u "$dir") == "$EUID" && -f $dir/made-by-bailey ]]
}

# our_pid prints the pid of the server in our data directory, if it runs. The
# pid file alone is not enough: the pid may be somebody else's by now.
our_pid() {
	local pid cwd
	ours || return 1
	[[ -r $data/postmaster.pid ]] || return 1
	read -r pid <"$data/postmaster.pid" || return 1
	[[ $pid =~ ^[0-9]+$ ]] || return 1
	# A postmaster's working directory is its data directory.
	cwd=$(readlink "/proc/$pid/cwd" 2>/dev/null) || return 1
	[[ $cwd == "$(readlink -f "$data")" ]] || return 1
	printf '%s\n' "$pid"
}

# answers is true when the server of the URL takes connections. The URL, with
# its password, stays off the command line, which everybody can read.
answers() {
	local url
	[[ -r $url_file ]] && read -r url <"$url_file" || return 1
	[[ $url =~ @127\.0\.0\.1:([0-9]+)/ ]] || return 1
	"$bin/pg_isready" --quiet --timeout=3 --host=127.0.0.1 --port="${BASH_REMATCH[1]}"
}

# free_port prints a port of 127.0.0.1 that nobody listens on.
free_port() {
	local port try
	for try in {1..50}; do
		port=$((20000 + (RANDOM * 32768 + RANDOM + try) % 12000))
		# A port that refuses the connection is free.
		if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
			printf '%s\n' "$port"
			return 0
		fi
	done
	return 1
}

# make_cluster initialises the data directory with a password of its own.
make_cluster() {
	local password_file=$dir/password
	head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$password_file"
	if ((EUID == 0)); then
		chown postgres:postgres "$data" "$password_file"
	fi
	as_owner "$bin/initdb" --pgdata="$data" --username=bailey --pwfile="$password_file" \
		--auth=scram-sha-256 --encoding=UTF8 --locale=C --no-sync >"$log" 2>&1 || {
		tail -n 20 "$log" >&2
		die "cannot make a cluster in $data" "initdb failed; its reason is above." \
			"Make room in ${dir%/*}, or set BAILEY_POSTGRES_DIR to another place."
	}
	cat >>"$data/postgresql.conf" <<-EOF
		# Added by scripts/postgres.sh: for tests only.
		listen_addresses = '127.0.0.1'
		unix_socket_directories = '$data'
		unix_socket_permissions = 0700
		max_connections = 200
		shared_buffers = '64MB'
		fsync = off
		synchronous_commit = off
		full_page_writes = off
	EOF
}

start() {
	local port until try
	if our_pid >/dev/null && answers; then
		cat "$url_file"
		return 0
	fi
	if ((EUID == 0)); then
		id postgres >/dev/null 2>&1 || die "there is no user postgres here" \
			"PostgreSQL refuses to run as root, and Debian's package makes that user." "Run: scripts/deps.sh --test"
		command -v setpriv >/dev/null || die "there is no setpriv here" \
			"It is needed to become the user postgres." "Run: apt-get install util-linux"
	fi
	if [[ -e $dir || -L $dir ]] && ! ours; then
		die "$dir is there already, and this script did not make it" \
			"It may belong to somebody else." "Move it away, or set BAILEY_POSTGRES_DIR to another place."
	fi
	mkdir -p "$dir"
	: >"$dir/made-by-bailey"
	# Others may pass through on the way to the data, and see nothing.
	chmod 0711 "$dir"

	# Two starts at once make one server. It must not inherit the lock.
	exec 9>"$dir/lock"
	flock -w "$patience" 9 || die "another start is still under way" "It holds $dir/lock." "See $log"
	if our_pid >/dev/null && answers; then
		cat "$url_file"
		return 0
	fi
	if our_pid >/dev/null; then
		die "a server runs in $data, but does not answer" "Its log is $log." "Run: $0 stop, then $0 start"
	fi
	# One that was killed leaves its pid file behind, and nobody's data: begin
	# afresh rather than find out what else it left.
	if [[ ! -f $data/made || -e $data/postmaster.pid ]]; then
		rm -rf --one-file-system "$data"
		mkdir "$data"
		make_cluster
		: >"$data/made"
	fi

	# Somebody may take the port between looking and listening: try again.
	for try in 1 2 3 4 5; do
		port=$(free_port) || die "there is no free port on 127.0.0.1" \
			"50 ports between 20000 and 32000 were tried." "See: ss -ltn"
		if as_owner "$bin/pg_ctl" start --pgdata="$data" --silent --wait --timeout="$patience" \
			--log="$data/server.log" --options="-p $port" 9>&- >>"$log" 2>&1; then
			break
		fi
		if ((try == 5)) || ! grep -q 'could not bind\|Address already in use' "$data/server.log"; then
			tail -n 25 "$data/server.log" "$log" 2>/dev/null | cut -c -400 >&2
			die "PostgreSQL did not start" "Its log is above." "Repair that, or begin afresh: $0 stop"
		fi
	done
	printf 'postgres://bailey:%s@127.0.0.1:%s/postgres?sslmode=disable\n' "$(cat "$dir/password")" "$port" >"$url_file"

	until=$((SECONDS + patience))
	until answers; do
		((SECONDS < until)) || die "PostgreSQL is started, but does not answer" \
			"$patience s passed without an answer on port $port." "See $data/server.log"
		sleep 0.1
	done
	say "started, pid $(our_pid), $("$bin/postgres" --version)"
	cat "$url_file"
}

stop() {
	if [[ ! -e $dir ]]; then
		say "nothing to stop"
		return 0
	fi
	ours || die "$dir is not this script's" "It may belong to somebody else." "Look at it, and remove it by hand."
	local pid
	if pid=$(our_pid); then
		as_owner "$bin/pg_ctl" stop --pgdata="$data" --silent --mode=immediate --wait --timeout="$patience" >&2 ||
			die "PostgreSQL (pid $pid) did not stop in $patience s" "Its log is $data/server.log." "Run: kill -9 $pid, then $0 stop"
		say "stopped, pid $pid"
	else
		say "nothing runs; removing $dir"
	fi
	rm -rf --one-file-system "$dir"
}

url() {
	if our_pid >/dev/null && answers; then
		cat "$url_file"
		return 0
	fi
	say "it does not run; start it with: $0 start"
	return 3
}

case ${1:-} in
start | stop | url)
	(($# == 1)) || die "$1 takes no arguments" "Given: ${*:2}" "Run: $0 $1"
	bin=$(find_bin) || die "there is no PostgreSQL server here" \
		"initdb and pg_ctl are in no /usr/lib/postgresql/*/bin${BAILEY_POSTGRES_BIN:+, nor in $BAILEY_POSTGRES_BIN}." "Run: scripts/deps.sh --test"
	"$1"
	;;
*)
	sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0" >&2
	exit 2
	;;
esac
