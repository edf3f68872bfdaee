#!/usr/bin/env bash
# Runs a private OpenLDAP server for the tests, from Debian's slapd, with a CA of
# its own, people, nested groups, a referral and a locked account.
#
#   scripts/slapd.sh start   start it, unless it runs, and print its folder
#   scripts/slapd.sh stop    end the one this script started, and no other
#
# It listens on two free ports of 127.0.0.1 (LDAPS, and LDAP with StartTLS), and
# keeps its files in a folder of its own, which stop removes. The folder's file
# env has what tests need to know, one NAME=VALUE a line. It is for tests alone.
#
#   BAILEY_SLAPD_DIR   where it lives (default /tmp/bailey-slapd-UID)
set -euo pipefail
umask 077
export LC_ALL=C

dir=${BAILEY_SLAPD_DIR:-/tmp/bailey-slapd-$(id -u)}
base=dc=example,dc=org

say() { printf 'slapd: %s\n' "$*" >&2; }
die() { # what, why, what next
	say "$1"
	shift
	local line
	for line in "$@"; do printf '       %s\n' "$line" >&2; done
	exit 1
}

ours() { [[ -d $dir && ! -L $dir && $(stat -c %u "$dir") == "$EUID" && -f $dir/made-by-bailey ]]; }

# our_pid prints the pid of the server that reads our configuration, if it runs.
our_pid() {
	local pid
	ours || return 1
	[[ -r $dir/slapd.pid ]] || return 1
	read -r pid <"$dir/slapd.pid" || return 1
	[[ $pid =~ ^[0-9]+$ ]] || return 1
	tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qxF "$dir/slapd.conf" || return 1
	printf '%s\n' "$pid"
}

free_port() {
	local port try
	for try in {1..50}; do
		port=$((20000 + (RANDOM * 32768 + RANDOM + try) % 12000))
		if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
			printf '%s\n' "$port"
			return 0
		fi
	done
	return 1
}

certificates() {
	openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=bailey test directory CA" \
		-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign \
		-keyout "$dir/ca.key" -out "$dir/ca.crt" 2>/dev/null
	openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=directory" \
		-keyout "$dir/server.key" -out "$dir/server.csr" 2>/dev/null
	printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n' >"$dir/ext"
	openssl x509 -req -in "$dir/server.csr" -CA "$dir/ca.crt" -CAkey "$dir/ca.key" -CAcreateserial -days 2 \
		-extfile "$dir/ext" -out "$dir/server.crt" 2>/dev/null
}

configuration() {
	cat >"$dir/slapd.conf" <<-EOF
		include /etc/ldap/schema/core.schema
		include /etc/ldap/schema/cosine.schema
		include /etc/ldap/schema/inetorgperson.schema
		pidfile $dir/slapd.pid
		modulepath /usr/lib/ldap
		moduleload back_mdb
		moduleload ppolicy
		moduleload memberof
		TLSCACertificateFile $dir/ca.crt
		TLSCertificateFile $dir/server.crt
		TLSCertificateKeyFile $dir/server.key
		TLSProtocolMin 3.3
		security ssf=1
		sizelimit 500
		database mdb
		maxsize 67108864
		suffix "$base"
		rootdn "cn=root,$base"
		rootpw root-of-the-tests
		directory $dir/data
		dbnosync
		overlay ppolicy
		ppolicy_default "cn=policy,$base"
		access to attrs=userPassword by anonymous auth by * none
		access to * by dn.exact="cn=bailey,ou=services,$base" read by * none
	EOF
}

person() { # uid, password, more lines
	printf 'dn: uid=%s,ou=people,%s\nobjectClass: inetOrgPerson\nuid: %s\ncn: %s\nsn: %s\nmail: %s@example.org\nuserPassword: %s\n%s\n' \
		"$1" "$base" "$1" "$1" "$1" "$1" "$2" "${3-}"
}
group() { # cn, ou, members
	local cn=$1 ou=$2 m
	shift 2
	printf 'dn: cn=%s,%s\nobjectClass: groupOfNames\ncn: %s\n' "$cn" "$ou" "$cn"
	for m in "$@"; do printf 'member: %s\n' "$m"; done
	printf '\n'
}

people() {
	local u=ou=people,$base g=ou=groups,$base
	cat <<-EOF
		dn: $base
		objectClass: dcObject
		objectClass: organization
		o: example
		dc: example

		dn: ou=people,$base
		objectClass: organizationalUnit
		ou: people

		dn: ou=groups,$base
		objectClass: organizationalUnit
		ou: groups

		dn: ou=services,$base
		objectClass: organizationalUnit
		ou: services

		dn: ou=sandbox,$base
		objectClass: organizationalUnit
		ou: sandbox

		dn: cn=bailey,ou=services,$base
		objectClass: organizationalRole
		objectClass: simpleSecurityObject
		cn: bailey
		userPassword: service-of-the-tests

		dn: cn=policy,$base
		objectClass: organizationalRole
		objectClass: pwdPolicy
		cn: policy
		pwdAttribute: userPassword
		pwdLockout: TRUE

	EOF
	person alice "violet harbour alice 62 lanterns"
	person bob "violet harbour bob 62 lanterns"
	person carol "violet harbour carol 62 lanterns"
	person mallory "violet harbour mallory 62 lanterns"
	person 'a(b)c*' "violet harbour star 62 lanterns"
	person admin "violet harbour admin 62 lanterns"
	# Direct, nested three deep, and a circle of groups.
	group research "$g" "uid=alice,$u"
	group vision "$g" "cn=research,$g" "uid=bob,$u"
	group staff "$g" "cn=vision,$g" "cn=circle,$g"
	group circle "$g" "cn=staff,$g"
	group bailey-admins "$g" "uid=carol,$u"
	# What somebody made who may make groups elsewhere.
	group bailey-admins "ou=sandbox,$base" "uid=mallory,$u"
	printf 'dn: ou=elsewhere,ou=people,%s\nobjectClass: referral\nobjectClass: extensibleObject\nou: elsewhere\nref: ldap://127.0.0.1:1/ou=people,dc=evil,dc=example\n\n' "$base"
}

start() {
	if our_pid >/dev/null; then
		printf '%s\n' "$dir"
		return 0
	fi
	command -v slapd >/dev/null || die "there is no slapd here" "It is Debian's package slapd." "Run: scripts/deps.sh --test"
	if [[ -e $dir || -L $dir ]]; then
		ours || die "$dir is there already, and this script did not make it" "It may belong to somebody else." "Move it away, or set BAILEY_SLAPD_DIR."
		rm -rf --one-file-system "$dir"
	fi
	mkdir -p "$dir/data"
	: >"$dir/made-by-bailey"
	certificates
	configuration
	people >"$dir/people.ldif"
	slapadd -q -f "$dir/slapd.conf" -b "$base" -l "$dir/people.ldif" >"$dir/slapadd.log" 2>&1 || {
		tail -n 20 "$dir/slapadd.log" >&2
		die "the test directory could not be filled" "slapadd failed; its reason is above." "Repair scripts/slapd.sh"
	}
	local try ldap ldaps until
	for try in 1 2 3 4 5; do
		ldap=$(free_port) && ldaps=$(free_port) || die "there is no free port on 127.0.0.1" "50 were tried." "See: ss -ltn"
		# It goes to the background by itself once it listens.
		slapd -f "$dir/slapd.conf" -h "ldap://127.0.0.1:$ldap/ ldaps://127.0.0.1:$ldaps/" -n bailey-test >"$dir/slapd.log" 2>&1 </dev/null && break
		((try < 5)) || die "slapd did not start" "Its words are in $dir/slapd.log: $(tail -n 3 "$dir/slapd.log")" "Try: slapd -d 1 -f $dir/slapd.conf"
	done
	until=$((SECONDS + 20))
	until LDAPTLS_CACERT=$dir/ca.crt ldapwhoami -x -H "ldaps://127.0.0.1:$ldaps" -D "cn=bailey,ou=services,$base" -w service-of-the-tests >/dev/null 2>&1; do
		((SECONDS < until)) || die "slapd is started, but does not answer" "20 s passed." "Try: slapd -d 1 -f $dir/slapd.conf"
		sleep 0.1
	done
	# dave was disabled by an administrator of the directory.
	{
		person dave "violet harbour dave 62 lanterns"
		printf '\ndn: uid=dave,ou=people,%s\nchangetype: modify\nadd: pwdAccountLockedTime\npwdAccountLockedTime: 000001010000Z\n' "$base"
	} | LDAPTLS_CACERT=$dir/ca.crt ldapmodify -a -x -H "ldaps://127.0.0.1:$ldaps" -D "cn=root,$base" -w root-of-the-tests >>"$dir/slapd.log" 2>&1 ||
		die "the locked account could not be made" "ldapmodify failed: $(tail -n 3 "$dir/slapd.log")" "Repair scripts/slapd.sh"
	printf 'LDAP=ldap://127.0.0.1:%s\nLDAPS=ldaps://127.0.0.1:%s\nCA=%s\nBASE=%s\nROOT_DN=cn=root,%s\nROOT_PASSWORD=root-of-the-tests\n' \
		"$ldap" "$ldaps" "$dir/ca.crt" "$base" "$base" >"$dir/env"
	say "started, pid $(our_pid)"
	printf '%s\n' "$dir"
}

stop() {
	[[ -e $dir ]] || {
		say "nothing to stop"
		return 0
	}
	ours || die "$dir is not this script's" "It may belong to somebody else." "Look at it, and remove it by hand."
	local pid try
	if pid=$(our_pid); then
		kill "$pid"
		for try in {1..100}; do
			[[ -e /proc/$pid ]] || break
			sleep 0.1
		done
		[[ ! -e /proc/$pid ]] || die "slapd (pid $pid) did not stop in 10 s" "Try $try was the last." "Run: kill -9 $pid, then $0 stop"
		say "stopped, pid $pid"
	fi
	rm -rf --one-file-system "$dir"
}

case ${1:-} in
start | stop) "$1" ;;
*)
	sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0" >&2
	exit 2
	;;
esac
