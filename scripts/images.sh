#!/usr/bin/env bash
# Builds bailey's workspace images from Debian packages, without a registry, and
# loads them into Docker. An image that is already there is left as it is.
#
#   scripts/images.sh [notebook|pytorch|all]   all is the default
#     --refresh              build again, with the packages Debian has today
#     --check-reproducible   build a second time and compare; loads nothing new
#     --no-load              write the OCI layout only; needs no Docker
#
# For every image there is afterwards, in BAILEY_CACHE:
#   NAME.json   image_id, manifest_digest, created, packages_sha256, tag, …
#   NAME.oci/   the image as an OCI layout, for a registry or another host
#   NAME.packages   every package in it, with its version
#
#   BAILEY_CACHE            default /var/cache/bailey/images; on a real disk
#   BAILEY_DEBIAN_MIRROR, BAILEY_DEBIAN_SECURITY_MIRROR
#                           default: what apt on this machine uses for Debian,
#                           or deb.debian.org
# images/README.md says what is in the images and why they are reproducible.
set -euo pipefail
umask 022
export LC_ALL=C TZ=UTC

here=$(cd "$(dirname "$0")/.." && pwd)
cache=${BAILEY_CACHE:-/var/cache/bailey/images}
work=
child=

say() { printf 'images: [%3d s] %s\n' "$SECONDS" "$*" >&2; }
die() { # what, why, what next
	printf 'images: %s\n' "$1" >&2
	shift
	local line
	for line in "$@"; do printf '        %s\n' "$line" >&2; done
	exit 1
}

# --- Leaving nothing behind --------------------------------------------------

# remove_tree deletes a half-made root file system: first what is mounted in it
# (it may be this machine's /dev), then the files, never across a mount.
remove_tree() {
	local mount
	[[ -n $1 && -d $1 ]] || return 0
	awk -v dir="$1/" 'index($2, dir) == 1 { print $2 }' /proc/self/mounts | sort -r |
		while read -r mount; do umount -l "$mount" || true; done
	rm -rf --one-file-system "$1"
}

# cleanup is called by the trap below.
# shellcheck disable=SC2317
cleanup() {
	local status=$?
	trap - EXIT
	trap '' INT TERM HUP
	if [[ -n $child ]] && kill -0 "$child" 2>/dev/null; then
		# mmdebstrap leads a process group of its own; it unmounts when asked to end.
		kill -TERM -- "-$child" 2>/dev/null || true
		for _ in {1..50}; do
			kill -0 "$child" 2>/dev/null || break
			sleep 0.1
		done
		kill -KILL -- "-$child" 2>/dev/null || true
		wait "$child" 2>/dev/null || true
	fi
	remove_tree "$work"
	exit "$status"
}
trap cleanup EXIT
trap 'say interrupted; exit 130' INT
trap 'say "asked to end"; exit 143' TERM HUP

# --- What to build, and whether it is there ----------------------------------

# packages_of prints the package names of an image, those of the images it
# builds on first.
packages_of() {
	local line
	while IFS= read -r line || [[ -n $line ]]; do
		line=${line%%#*}
		line=${line//[[:space:]]/}
		case $line in
		'') ;;
		@*) packages_of "${line#@}" ;;
		*) printf '%s\n' "$line" ;;
		esac
	done <"$here/images/$1/packages.txt"
}

# inputs_of prints a digest of everything in this repository that the image
# depends on. The packages themselves are not among it: see --refresh.
inputs_of() {
	{
		printf 'architecture %s\n' "$(dpkg --print-architecture)"
		packages_of "$1"
		cd "$here"
		find scripts/images.sh images/suite.env images/dpkg.cfg images/substitutes.txt images/rootfs \
			"images/$1/image.json" tools/imagepack -type f ! -name '*_test.go' -print0 |
			sort -z | xargs -0 sha256sum
	} | sha256sum | cut -d' ' -f1
}

field() { jq -r --arg key "$2" '.[$key] // empty' "$cache/$1.json" 2>/dev/null; }

is_built() {
	[[ -s $cache/$1.json && -s $cache/$1.oci/index.json && $(field "$1" inputs) == "$2" ]]
}

# is_loaded is true when Docker has the image. Docker names an image by its
# configuration; with the containerd store, by its manifest.
is_loaded() {
	local id
	for id in "$(field "$1" image_id)" "$(field "$1" manifest_digest)"; do
		[[ -n $id ]] && docker image inspect "$id" >/dev/null 2>&1 && return 0
	done
	return 1
}

# --- Where packages come from ------------------------------------------------

# mirror prints the address that apt on this machine uses for label $1, which
# is Debian or Debian-Security; else $2.
mirror() {
	local uri
	# $(…) is apt's own notation.
	# shellcheck disable=SC2016
	uri=$(apt-get indextargets --format '$(LABEL) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
		awk -v label="$1" '$1 == label { print $2; exit }')
	printf '%s\n' "${uri:-$2}"
}

sources() {
	local main security signed='[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]'
	main=${BAILEY_DEBIAN_MIRROR:-$(mirror Debian http://deb.debian.org/debian)}
	security=${BAILEY_DEBIAN_SECURITY_MIRROR:-$(mirror Debian-Security http://deb.debian.org/debian-security)}
	printf 'deb %s %s %s main\n' \
		"$signed" "${main%/}" "$SUITE" \
		"$signed" "${main%/}" "$SUITE-updates" \
		"$signed" "${security%/}" "$SUITE-security"
}

# apt_options prints how apt on this machine reaches its mirrors: proxies,
# time-outs, and what it knows about their dates.
apt_options() {
	apt-config dump | grep -E '^Acquire::(https?|Check-Valid-Until|Check-Date|ForceIPv[46])\b.*"[^"]+";$' || true
	printf 'Acquire::Retries "3";\nAcquire::Languages "none";\nAPT::Install-Recommends "false";\n'
}

# substitutes_deb writes the package that stands in for images/substitutes.txt.
substitutes_deb() {
	local dir=$work/substitutes provides
	provides=$(sed 's/#.*//; s/[[:space:]]//g; /^$/d; s/$/ (= 999)/' "$here/images/substitutes.txt" | paste -sd, | sed 's/,/, /g')
	mkdir -p "$dir/DEBIAN"
	cat >"$dir/DEBIAN/control" <<-END
		Package: bailey-image-substitutes
		Version: 1
		Architecture: all
		Maintainer: bailey <https://github.com/baileyhq/bailey>
		Section: metapackages
		Priority: optional
		Provides: $provides
		Description: stands in for packages a bailey image does without
		 Empty. See images/substitutes.txt in the sources of bailey.
	END
	SOURCE_DATE_EPOCH=0 dpkg-deb --root-owner-group -Zgzip --build "$dir" "$work/substitutes.deb" >/dev/null
}

# --- Building ----------------------------------------------------------------

# bootstrap unpacks and configures the packages of image $1 into $work/root.
bootstrap() {
	local packages status=0
	packages=$(packages_of "$1" | sort -u | paste -sd,)
	substitutes_deb
	sources >"$work/sources.list"
	apt_options >"$work/apt.conf"
	mkdir -p "$cache/debs"
	export BAILEY_DEBS=$cache/debs BAILEY_SUBSTITUTES=$work/substitutes.deb

	# PYTHONHASHSEED: two compilations of one module are then equal, byte for byte.
	# The hooks are for the shell that mmdebstrap starts: $1 is its root.
	# shellcheck disable=SC2016
	PYTHONHASHSEED=0 SOURCE_DATE_EPOCH=0 TMPDIR=$work setsid mmdebstrap \
		--mode=root --format=directory --variant=minbase \
		--aptopt="$work/apt.conf" --dpkgopt="$here/images/dpkg.cfg" \
		--skip=download/empty,essential/unlink,cleanup/apt/cache \
		--setup-hook='mkdir -p "$1/var/cache/apt/archives/partial"; find "$BAILEY_DEBS" -name "*.deb" -exec cp -l -t "$1/var/cache/apt/archives" {} +' \
		--essential-hook='cp "$BAILEY_SUBSTITUTES" "$1/substitutes.deb" && chroot "$1" dpkg -i /substitutes.deb && rm "$1/substitutes.deb"' \
		--include="$packages" \
		"$SUITE" "$work/root" - <"$work/sources.list" \
		> >(tee "$work/log" | sed -n -u '/hook in shell\|as requested\|signed-by\|standard input/d; s/^I: //p' | while IFS= read -r line; do say "$1: ${line%...}"; done) 2>&1 &
	child=$!
	wait "$child" || status=$?
	child=
	if ((status != 0)); then
		tail -n 30 "$work/log" >&2
		die "cannot build $1" "mmdebstrap failed; its last lines are above." \
			"If a package or a mirror is at fault: repair images/$1/packages.txt or set BAILEY_DEBIAN_MIRROR, and run this again."
	fi
}

# keep_debs moves the downloaded packages of the image into the cache, prints
# the date of the newest, and forgets those nobody used for two weeks. The date
# is the one inside the file, so it is the same wherever it was fetched.
keep_debs() {
	local root=$1 file newest=0 date
	while IFS= read -r file; do
		[[ -e $root/var/cache/apt/archives/$file ]] || continue
		[[ -e $cache/debs/$file ]] || ln "$root/var/cache/apt/archives/$file" "$cache/debs/$file"
		# An ar archive: 8 bytes of magic, a name of 16, then the date in 12.
		date=$(dd if="$cache/debs/$file" bs=1 skip=24 count=12 status=none | tr -dc 0-9)
		((date > newest)) && newest=$date
		touch "$cache/debs/$file"
	done < <(dpkg-query --admindir="$root/var/lib/dpkg" -W -f='${Package}_${Version}_${Architecture}.deb\n' | sed 's/:/%3a/g')
	find "$cache/debs" -name '*.deb' -mtime +14 -delete
	printf '%s\n' "$newest"
}

# finish takes out of the root file system what is not the same every time, what
# a workspace must not have, and what nobody needs; and puts in what is ours.
finish() {
	local root=$1 file

	# Ours.
	cp -RT --no-preserve=all "$here/images/rootfs" "$root"
	find "$here/images/rootfs" -mindepth 1 -printf '%P\0' |
		while IFS= read -r -d '' file; do
			if [[ -d $root/$file ]]; then chmod 0755 "$root/$file"; else chmod 0644 "$root/$file"; fi
		done
	printf 'workspace:x:20000:20000:workspace:/workspace:/bin/bash\n' >>"$root/etc/passwd"
	printf 'workspace:x:20000:\n' >>"$root/etc/group"
	printf 'workspace:!:::::::\n' >>"$root/etc/shadow"
	printf 'workspace:!::\n' >>"$root/etc/gshadow"
	install -d -m 0755 -o 20000 -g 20000 "$root/workspace"

	# This machine's mirror and its ways to it stay here.
	rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/etc/apt/sources.list"
	mv "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap" "$root/etc/dpkg/dpkg.cfg.d/bailey"
	cat >"$root/etc/apt/sources.list.d/debian.sources" <<-END
		Types: deb
		URIs: http://deb.debian.org/debian
		Suites: $SUITE $SUITE-updates
		Components: main
		Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

		Types: deb
		URIs: http://deb.debian.org/debian-security
		Suites: $SUITE-security
		Components: main
		Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
	END
	: >"$root/etc/resolv.conf"
	: >"$root/etc/hostname"
	: >"$root/etc/machine-id"

	# No program runs with other rights than its caller's.
	find "$root" -xdev -perm /6000 ! -type l -exec chmod u-s,g-s {} +

	# What differs from one build to the next, or only takes room.
	rm -rf "${root:?}"/dev/* "$root"/run/* "$root"/tmp/* "$root"/var/tmp/* \
		"$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/cache/ldconfig/* \
		"$root"/var/cache/debconf/*-old "$root"/var/cache/fontconfig/* \
		"$root"/var/lib/dpkg/*-old "$root"/var/backups/* "$root"/var/lib/dbus/machine-id \
		"$root"/var/lib/systemd/random-seed "$root"/var/lib/systemd/catalog/database \
		"$root"/etc/{passwd,group,shadow,gshadow,subuid,subgid}- "$root"/etc/.pwd.lock \
		"$root"/usr/share/nodejs
	find "$root/var/log" -type f -delete
	# The day an account was made is the day of the build.
	sed -i -E 's/^([^:]*:[^:]*):[0-9]*:/\1::/' "$root/etc/shadow"
}

# build makes image $1 into directory $2: $1.oci, $1.json and $1.packages.
build() {
	local name=$1 out=$2 inputs=$3 newest version packages
	say "$name: building from $(packages_of "$name" | sort -u | wc -l) named packages of Debian $SUITE"
	mkdir -p "$work" "$out"
	bootstrap "$name"

	newest=$(keep_debs "$work/root")
	version=$SUITE-$(date -u -d "@$newest" +%Y%m%d)
	# shellcheck disable=SC2016
	dpkg-query --admindir="$work/root/var/lib/dpkg" -W -f='${Package} ${Version} ${Architecture}\n' | sort >"$out/$name.packages"
	packages=$(sha256sum "$out/$name.packages" | cut -d' ' -f1)
	say "$name: $(wc -l <"$out/$name.packages") packages, the newest of $(date -u -d "@$newest" +%F)"

	finish "$work/root"
	say "$name: packing $(du -sm "$work/root" | cut -f1) MB"
	tar --create --file "$work/rootfs.tar" --directory "$work/root" \
		--sort=name --format=gnu --numeric-owner --no-xattrs --no-acls .
	remove_tree "$work/root"
	"$cache/bin/imagepack" build -name "$name" -rootfs "$work/rootfs.tar" \
		-config "$here/images/$name/image.json" -created "$newest" -version "$version" \
		-packages-sha256 "$packages" -arch "$(go env GOARCH)" -layout "$out/$name.oci" >"$work/result.json"
	rm -f "$work/rootfs.tar"
	jq --arg inputs "$inputs" --arg tag "bailey/$name:$version" \
		'. + {tag: $tag, inputs: $inputs}' "$work/result.json" >"$out/$name.json"
}

# load hands image $1 to Docker, checks that what Docker has is what was built,
# and takes away what it replaces.
load() {
	local name=$1 tag
	tag=$(field "$name" tag)
	say "$name: loading into Docker"
	"$cache/bin/imagepack" save -layout "$cache/$name.oci" -tag "$tag" | docker load --quiet >/dev/null
	is_loaded "$name" || die "Docker does not have $name after loading it" \
		"It answers to neither $(field "$name" image_id) nor $(field "$name" manifest_digest)." \
		"Look at: docker images --no-trunc"
	remove_superseded "$name"
}

# remove_superseded takes away earlier builds of image $1. Images that somebody
# made from ours carry our label too: those have other tags, or more layers.
remove_superseded() {
	local id layers tags
	docker images --no-trunc --quiet --filter "label=dev.bailey.image=$1" | sort -u |
		while read -r id; do
			[[ $id != "$(field "$1" image_id)" && $id != "$(field "$1" manifest_digest)" ]] || continue
			layers=$(docker image inspect --format '{{len .RootFS.Layers}}' "$id" 2>/dev/null) || continue
			tags=$(docker image inspect --format '{{range .RepoTags}}{{println .}}{{end}}' "$id" | sed '/^$/d')
			[[ $layers == 1 ]] || continue
			! grep -qv "^bailey/$1:" <<<"${tags:-bailey/$1:}" || continue
			if docker image rm "$id" >/dev/null 2>&1; then
				say "$1: removed the superseded ${id:0:19}"
			else
				say "$1: kept the superseded ${id:0:19}: it is in use"
			fi
		done
}

# --- Checks before, and the order of things ----------------------------------

check_tools() {
	local tool
	((EUID == 0)) || die "cannot build images as $(id -un)" \
		"Unpacking packages with their owners needs root." "Run: sudo $0"
	for tool in mmdebstrap jq apt-get dpkg-deb setsid flock awk; do
		command -v "$tool" >/dev/null || die "there is no $tool here" \
			"Images are built with it." "Run: scripts/deps.sh"
	done
	command -v go >/dev/null || die "there is no go here" \
		"tools/imagepack, which packs the image, is built from source." \
		"Install Go 1.26 or newer and put it in PATH (sudo has a PATH of its own)."
	[[ -r /usr/share/keyrings/debian-archive-$SUITE-stable.gpg ]] || die "the Debian keyring does not know $SUITE" \
		"Without its key no package could be verified, and none would be installed." \
		"Run: apt-get update && apt-get install debian-archive-keyring, or scripts/deps.sh"
}

# check_room is about the worst moment: files, tar and layer at once, and the
# image in Docker's directory, which mostly is on the same disk.
check_room() {
	local need=2500 free
	[[ $1 != pytorch ]] || need=9000
	free=$(df -Pm "$cache" | awk 'NR == 2 { print $4 }')
	((free >= need)) || die "not enough room to build $1" \
		"$cache has $free MB free; a build takes up to $need MB for a while." \
		"Make room there, or set BAILEY_CACHE to a directory on another disk."
	case $(stat -f -c %T "$cache") in
	tmpfs | ramfs) die "$cache is in memory" "An image of some GB does not belong there." \
		"Set BAILEY_CACHE to a directory on a disk." ;;
	esac
}

build_imagepack() {
	mkdir -p "$cache/bin"
	(cd "$here/tools/imagepack" && GOWORK=off CGO_ENABLED=0 GOFLAGS=-mod=readonly go build -trimpath -buildvcs=false -o "$cache/bin/imagepack" .) ||
		die "cannot build tools/imagepack" "go build failed; its reason is above." "Run: cd tools/imagepack && go build ."
}

need_docker() {
	docker version --format '{{.Server.Version}}' >/dev/null 2>&1 || die "no Docker daemon answers" \
		"The images are to be loaded into one." "Run: scripts/dockerd.sh start, or use --no-load"
}

# lock waits for another run of this script, and clears what a killed one left.
lock() {
	[[ -z $work ]] || return 0
	mkdir -p "$cache/tmp"
	exec 9>"$cache/lock"
	if ! flock -n 9; then
		say "waiting for another build to end"
		flock 9
	fi
	local stale
	for stale in "$cache"/tmp/*; do
		[[ ! -e $stale ]] || remove_tree "$stale"
	done
	work=$(mktemp -d "$cache/tmp/build.XXXXXX")
	chmod 0755 "$work"
}

make_image() {
	local name=$1 inputs out
	inputs=$(inputs_of "$name")
	if [[ $refresh == no ]] && is_built "$name" "$inputs" && { [[ $load == no ]] || is_loaded "$name"; }; then
		say "$name: up to date, $(field "$name" image_id)"
		return 0
	fi
	[[ $load == no ]] || need_docker
	check_tools
	lock
	build_imagepack
	# Someone else may have built it while we waited.
	if [[ $refresh == yes ]] || ! is_built "$name" "$inputs"; then
		check_room "$name"
		out=$work/out
		build "$name" "$out" "$inputs"
		rm -rf "$cache/$name.oci" "$cache/$name.json"
		mv "$out/$name.oci" "$out/$name.packages" "$cache/"
		mv "$out/$name.json" "$cache/" # last: it says that the rest is there
	fi
	if [[ $load == yes ]] && ! is_loaded "$name"; then
		load "$name"
	fi
	say "$name: $(field "$name" image_id), $(($(field "$name" size) / 1000000)) MB, $(($(field "$name" compressed_size) / 1000000)) MB compressed"
}

check_reproducible() {
	local name=$1 out first second
	make_image "$name"
	check_tools
	lock
	build_imagepack
	check_room "$name"
	out=$work/again
	build "$name" "$out" "$(inputs_of "$name")"
	if ! cmp -s "$cache/$name.packages" "$out/$name.packages"; then
		diff "$cache/$name.packages" "$out/$name.packages" >&2 || true
		die "$name: Debian has other packages now" "The difference is above; another image is right then." \
			"Run: $0 $name --refresh --check-reproducible"
	fi
	first=$(field "$name" image_id)
	second=$(jq -r .image_id "$out/$name.json")
	if [[ $first != "$second" ]]; then
		diff <("$cache/bin/imagepack" list -layout "$cache/$name.oci") \
			<("$cache/bin/imagepack" list -layout "$out/$name.oci") | head -n 60 >&2 || true
		die "$name is not reproducible" "The first build is $first, the second $second; the files that differ are above." \
			"What differs belongs into finish() in scripts/images.sh."
	fi
	say "$name: reproducible: two builds, one image, $first"
	rm -rf "$out"
}

# main stands at the end so that bash has read the whole script before it begins:
# a build takes minutes, and someone may edit the file meanwhile.
main() {
	local arg name
	wanted=()
	refresh=no
	again=no
	load=yes
	for arg in "$@"; do
		case $arg in
		all) wanted=(notebook pytorch) ;;
		--refresh) refresh=yes ;;
		--check-reproducible) again=yes ;;
		--no-load) load=no ;;
		'' | -* | */*)
			sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0" >&2
			exit 2
			;;
		*)
			[[ -r $here/images/$arg/packages.txt ]] || die "there is no image $arg" \
				"images/$arg has no packages.txt." "Run: $0 notebook, $0 pytorch or $0 all"
			wanted+=("$arg")
			;;
		esac
	done
	((${#wanted[@]} > 0)) || wanted=(notebook pytorch)

	# shellcheck source-path=SCRIPTDIR/.. source=images/suite.env
	. "$here/images/suite.env"
	for name in "${wanted[@]}"; do
		if [[ $again == yes ]]; then check_reproducible "$name"; else make_image "$name"; fi
	done
}
main "$@"
exit
