#!/usr/bin/env bash
# Checks Containerfiles for what a bailey image must not do.
#
#   scripts/lint-containerfile.sh [FILE…]     default: images/*/Containerfile
#   scripts/lint-containerfile.sh --self-test
#
#   from-digest    every FROM names an image by digest, a stage of the same file,
#                  or scratch. NAME@sha256:${ARG} counts if ARG has no default or
#                  64 hex digits: whatever else is given then is no image name.
#   user           the last stage ends as a numeric user who is not root
#   latest         no image is named by the tag latest
#   add-url        ADD fetches nothing from the network: no digest would hold it
#   pipe-to-shell  nothing fetched is piped into a shell or an interpreter
#   secret         no ENV, ARG or LABEL with a name or a value that looks secret:
#                  whoever pulls the image reads it
#
# A finding is FILE:LINE: rule: what. Exit 1 if there is one, 2 for bad usage.
set -euo pipefail

here=$(cd "$(dirname "$0")/.." && pwd)

# lint prints the findings of file $1.
lint() {
	awk -v file="$1" '
		# Debian'"'"'s awk, mawk, knows no {16} in patterns.
		function times(what, n,    all) { while (n-- > 0) all = all what; return all }
		BEGIN {
			known_secret = "(^|[^A-Za-z0-9])(AKIA|ASIA)" times("[A-Z0-9]", 16) \
				"|gh[pousr]_" times("[A-Za-z0-9]", 20) "|github_pat_|glpat-" \
				"|hf_" times("[A-Za-z0-9]", 20) "|sk-" times("[A-Za-z0-9_-]", 20) \
				"|xox[abprs]-|-----BEGIN [A-Z ]*PRIVATE KEY"
		}
		function finding(rule, what) { printf "%s:%d: %s: %s\n", file, start, rule, what; bad = 1 }
		function is_digest(s) { return s ~ /^[0-9a-f]+$/ && length(s) == 64 }

		# words splits an instruction into word[1..n], quotes kept.
		function words(text) { return split(text, word, /[ \t]+/) }

		function check_image(image,    at, digest, arg) {
			if (image == "scratch" || (tolower(image) in stage)) return
			at = index(image, "@sha256:")
			if (!at) { finding("from-digest", image " is not named by digest"); return }
			digest = substr(image, at + 8)
			if (is_digest(digest)) return
			if (digest ~ /^\$(\{[A-Za-z_][A-Za-z0-9_]*\}|[A-Za-z_][A-Za-z0-9_]*)$/) {
				arg = digest
				gsub(/[${}]/, "", arg)
				if (!(arg in global)) finding("from-digest", arg " is not an ARG from before FROM")
				else if (global[arg] != "" && !is_digest(global[arg])) finding("from-digest", "the default of " arg " is not 64 hex digits")
				return
			}
			finding("from-digest", "the digest of " image " is not 64 hex digits")
		}

		function check_secret(key, value) {
			gsub(/["\047]/, "", value)
			if (toupper(key) ~ /TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|PRIVATE|(API|ACCESS|SIGNING|ENCRYPTION|SSH)_?KEY/)
				finding("secret", key " looks like a secret")
			else if (value ~ known_secret)
				finding("secret", "the value of " key " looks like a secret")
			else if (value ~ /[a-z]+:\/\/[^\/@:]+:[^\/@]+@/)
				finding("secret", "the value of " key " has a password in an address")
		}

		# pairs checks NAME=value, quoted or not, and the old form NAME value.
		function pairs(text,    pair, eq) {
			if (text !~ /^[^ \t=]+=/) {
				pair = text; sub(/[ \t].*/, "", pair)
				check_secret(pair, substr(text, length(pair) + 2))
				return
			}
			while (match(text, /[A-Za-z_][A-Za-z0-9_.-]*=("[^"]*"|\047[^\047]*\047|[^ \t"\047]*)/)) {
				pair = substr(text, RSTART, RLENGTH)
				text = substr(text, RSTART + RLENGTH)
				eq = index(pair, "=")
				check_secret(substr(pair, 1, eq - 1), substr(pair, eq + 1))
			}
		}

		function instruction(text,    name, rest, n, i, value, flat) {
			name = text; sub(/[ \t].*/, "", name); name = toupper(name)
			rest = text; sub(/^[^ \t]+[ \t]*/, "", rest); sub(/[ \t]+$/, "", rest)
			n = words(rest)
			if (name == "FROM") {
				i = 1
				while (i <= n && word[i] ~ /^--/) i++
				froms++
				user = ""
				check_image(word[i])
				if (word[i] ~ /:latest(@|$)/) finding("latest", word[i])
				if (toupper(word[i + 1]) == "AS") stage[tolower(word[i + 2])] = 1
			} else if (name == "ARG") {
				if (!froms) {
					value = rest
					if (sub(/^[^=]*=/, "", value)) { gsub(/["\047]/, "", value); global[substr(rest, 1, index(rest, "=") - 1)] = value }
					else global[rest] = ""
					if (value ~ /:latest(@|$)/) finding("latest", rest)
				}
				if (index(rest, "=")) pairs(rest); else check_secret(rest, "")
			} else if (name == "ENV" || name == "LABEL") {
				pairs(rest)
			} else if (name == "USER") {
				user = rest; user_line = start
			} else if (name == "ADD") {
				if (tolower(rest) ~ /(https?|ftp|git):\/\/|git@/) finding("add-url", "ADD fetches from the network; COPY a file, or fetch it in RUN and check its digest")
			} else if (name == "COPY") {
				for (i = 1; i <= n; i++)
					if (word[i] ~ /^--from=/) {
						value = substr(word[i], 8)
						if (value !~ /^[0-9]+$/) check_image(value)
						if (value ~ /:latest(@|$)/) finding("latest", value)
					}
			} else if (name == "RUN") {
				flat = rest
				if (flat ~ /(curl|wget|fetch)[^|;&]*\|[ \t]*(sudo[ \t]+|env[ \t]+)?([\/a-z]*\/)?(ba|da|z|k|a)?sh([^a-z]|$)/ ||
				    flat ~ /(curl|wget|fetch)[^|;&]*\|[ \t]*(sudo[ \t]+)?([\/a-z]*\/)?(python|perl|ruby|node)[0-9.]*([^a-z]|$)/ ||
				    flat ~ /(^|[^a-z])((ba|da|z|k|a)?sh|eval|source|\.)[ \t]+(-c[ \t]+)?["\047]?(<\(|\$\(|`)[ \t]*(curl|wget)/)
					finding("pipe-to-shell", "what is fetched is run unseen; fetch it to a file and check its digest")
				if (flat ~ /docker[ \t]+(pull|run)[^;&|]*:latest/) finding("latest", "an image by the tag latest")
			} else if (name == "ONBUILD") {
				instruction(rest)
			}
		}

		{ sub(/\r$/, "") }
		# Comments go, even between the lines of one instruction.
		/^[ \t]*#/ { next }
		text == "" && /^[ \t]*$/ { next }
		{
			if (text == "") start = NR
			line = $0
			more = sub(/\\[ \t]*$/, "", line)
			sub(/^[ \t]+/, "", line)
			text = text (text == "" ? "" : " ") line
			if (more) next
			instruction(text)
			text = ""
		}
		END {
			if (text != "") instruction(text)
			start = NR
			if (!froms) finding("from-digest", "there is no FROM")
			else if (user == "") finding("user", "the last stage has no USER, so it runs as root or as the base says")
			else {
				start = user_line
				if (user !~ /^[1-9][0-9]*(:[1-9][0-9]*)?$/) finding("user", user " is root, or not a number")
			}
			exit bad
		}
	' "$1"
}

# self_test proves that the good examples pass and that every bad one is refused
# by the rule that it says in its first line, "# want: RULE".
self_test() {
	local dir=$here/images/cuda/testdata file want found failed=0 count=0
	for file in "$dir"/good-*.Containerfile "$here"/images/*/Containerfile; do
		count=$((count + 1))
		if ! found=$(lint "$file"); then
			printf 'self-test: %s should pass, but:\n%s\n' "$file" "$found" >&2
			failed=1
		fi
	done
	for file in "$dir"/bad-*.Containerfile; do
		count=$((count + 1))
		want=$(sed -n '1s/^# want: //p' "$file")
		if found=$(lint "$file"); then
			printf 'self-test: %s should be refused by %s, but passes\n' "$file" "$want" >&2
			failed=1
		elif [[ -z $want ]] || [[ $(sed -E 's/^[^ ]+ ([a-z-]+): .*/\1/' <<<"$found" | sort -u) != "$want" ]]; then
			printf 'self-test: %s should be refused by %s alone, but:\n%s\n' "$file" "${want:-its first line}" "$found" >&2
			failed=1
		fi
	done
	((failed == 0)) && printf 'self-test: %d Containerfiles judged as they should be\n' "$count"
	return "$failed"
}

case ${1:-} in
--self-test)
	self_test
	exit
	;;
-*)
	sed -n '2,/^set -/{/^#/s/^# \{0,1\}//p}' "$0" >&2
	exit 2
	;;
'') set -- "$here"/images/*/Containerfile ;;
esac
status=0
for file in "$@"; do
	if [[ ! -r $file ]]; then
		printf 'lint-containerfile: cannot read %s\n' "$file" >&2
		exit 2
	fi
	lint "$file" || status=1
done
exit "$status"
