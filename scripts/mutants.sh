#!/usr/bin/env bash
# Takes one defence away at a time and runs the attacks that it stands against:
# each of them must fail then. A test that passes without its defence proves
# nothing. The defences are in internal/mutant; in every other build they are
# constants, and this script looks that nothing of them is in a release.
#   scripts/mutants.sh [DEFENCE...]     all of them, or some
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"
need_go
export CGO_ENABLED=0

# DEFENCE PACKAGE TESTS
mutants='
Reads ./internal/gateway TestAttack01CrossWorkspaceRead$
CookieFilter ./internal/gateway TestAttack02CookieTossing$
CSRF ./internal/gateway TestAttack03CSRF$
SocketOrigin ./internal/gateway TestAttack04CSWSH$
SocketAuth ./internal/gateway TestAttack05UpgradeWithoutSignIn$
HeaderSpoof ./internal/gateway TestAttack06IdentityHeaderSpoof$
Address ./internal/edge TestAttack07NobodyChoosesTheirAddress$
ProxyHeader ./internal/edge TestAttack07ProxyHeaders$
Smuggling ./internal/edge TestNoRequestIsSmuggledBehindAChunkedOne$
Paths ./internal/edge TestWhatNoHandlerSees$
Redirects ./internal/gateway TestAttack10OpenRedirect$
Counters ./internal/identity TestSprayingAndStuffingEndEarly$|TestAllWaysToGuessShareOneLimit$
Known ./internal/identity TestNobodyLocksTheAdministratorOut$
SelfBan ./internal/guard TestABridgeIsSlowedNotBanned$|TestOurOwnAddressIsSlowedNotBanned$
HashQueue ./internal/password Queue
SecondFactor ./internal/identity TestASecondFactorIsAskedForOnEveryWayIn$
CodeOnce ./internal/identity TestACodeCountsOnce$
StepUp ./internal/identity TestWhatMattersTakesAFreshProof$
Places ./internal/identity TestAListOfAddressesHoldsAtEveryDoor$
Places ./internal/gateway TestAttack25WebSocketsEndWithABan$
Endings ./internal/gateway TestAttack25LongRequestsEndWithSessionAndRun$|TestAttack25SocketsEndWithWhatAllowedThem$
TunnelLimits ./internal/gateway TestAttack25TunnelLimits$
SlowBodies ./internal/edge TestUploadsMayBeLongButNotSlow$
'

out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
symbol=github.com/baileyhq/bailey/internal/mutant
bad=0 tried=0

# With the build tag and nothing taken away everything passes; else a failure
# below would mean nothing.
while read -r name package tests; do
  [ -n "$name" ] || continue
  [ $# = 0 ] || case " $* " in *" $name "*) ;; *) continue ;; esac
  tried=$((tried + 1))
  if ! go test -count=1 -tags bailey_mutant -run "$tests" "$package" >"$out/whole" 2>&1; then
    say "$name: its attack fails with the defence in place:"; tail -20 "$out/whole"; bad=1; continue
  fi
  if grep -q 'no tests to run' "$out/whole"; then say "$name: there is no test $tests in $package"; bad=1; continue; fi
  if go test -count=1 -timeout 3m -tags bailey_mutant -ldflags "-X $symbol.off=$name" -run "$tests" "$package" >"$out/without" 2>&1; then
    say "$name: $tests passes without the defence"; bad=1
  elif grep -q 'build failed\|setup failed' "$out/without"; then
    say "$name: does not build:"; tail -5 "$out/without"; bad=1
  else
    say "$name: the attack succeeds without it, as it must: $(grep -m1 -o -- '--- FAIL: [A-Za-z0-9]*\|panic: test timed out' "$out/without" || echo failed)"
  fi
done <<<"$mutants"
[ "$tried" -gt 0 ] || die "no such defence: $*"

if [ $# = 0 ]; then
  go build -o "$out/bailey" ./cmd/bailey
  if grep -aq "bailey_mutant\|internal/mutant\.off" "$out/bailey"; then
    say "a release has the seam in it"; bad=1
  fi
fi
[ "$bad" = 0 ] || die "mutants survive"
say "$tried defences were taken away, and each was missed"
