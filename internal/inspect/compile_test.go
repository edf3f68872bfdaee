package inspect_test

import (
	"testing"
	"time"

	"github.com/baileyhq/bailey/internal/inspect"
)

func TestDefaultsCompile(t *testing.T) {
	begin := time.Now()
	s, err := inspect.Compile(inspect.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d rules in %v, hash %s", len(s.Rules()), time.Since(begin), s.Hash())
}
