//go:build !bailey_mutant

package mutant_test

import (
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey/internal/mutant"
)

// It compiles only while each of them is a constant, and is an error as soon as
// one is true: a program cannot be made to drop a defence.
const none = !(mutant.Reads || mutant.CookieFilter || mutant.CSRF || mutant.SocketOrigin || mutant.SocketAuth || mutant.HeaderSpoof ||
	mutant.Address || mutant.ProxyHeader || mutant.Smuggling || mutant.Paths || mutant.Redirects || mutant.Counters || mutant.Known ||
	mutant.SelfBan || mutant.HashQueue || mutant.SecondFactor || mutant.CodeOnce || mutant.StepUp || mutant.Places || mutant.Endings || mutant.TunnelLimits || mutant.SlowBodies)

func TestEveryDefenceStands(t *testing.T) {
	if !none {
		t.Error("a defence is off in an ordinary build")
	}
}

// Both lists and the script name the same defences: none without an attack that
// is tried without it.
func TestEveryDefenceIsTriedWithoutIt(t *testing.T) {
	names := func(file, pattern string) (found []string) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(pattern).FindAllSubmatch(text, -1) {
			found = append(found, string(m[1]))
		}
		slices.Sort(found)
		return slices.Compact(found)
	}
	off := names("mutant.go", `(?m)^\t(\w+) += false`)
	if len(off) < 10 {
		t.Fatalf("only %v were found", off)
	}
	if d := cmp.Diff(off, names("mutant_on.go", `(?m)^\t(\w+) += off == "(?:\w+)"`)); d != "" {
		t.Errorf("the two lists differ:\n%s", d)
	}
	if d := cmp.Diff(off, names("../../scripts/mutants.sh", `(?m)^(\w+) \./`)); d != "" {
		t.Errorf("scripts/mutants.sh (-list +script):\n%s", d)
	}
}
