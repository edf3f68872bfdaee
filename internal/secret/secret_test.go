package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/secret"
)

const canary = "hunter2-canary"

// holder has the secret in an unexported field, where fmt calls no methods.
type holder struct {
	inner secret.Value
	Outer secret.Value
}

func TestAValueNeverPrints(t *testing.T) {
	v := secret.New(canary)
	h := holder{inner: v, Outer: v}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%T %v"} {
		for _, arg := range []any{v, &v, h, &h, []secret.Value{v}, map[string]secret.Value{"k": v}} {
			got := fmt.Sprintf(verb, arg)
			if strings.Contains(got, canary) || strings.Contains(got, fmt.Sprintf("%x", canary)) {
				t.Errorf("Sprintf(%q, %T) = %q shows the secret", verb, arg, got)
			}
		}
	}
	var buf bytes.Buffer
	slog.New(slog.NewJSONHandler(&buf, nil)).Info("m", slog.Any("a", v), slog.Any("b", h))
	slog.New(slog.NewTextHandler(&buf, nil)).Info("m", slog.Any("a", v), slog.Any("b", h))
	if strings.Contains(buf.String(), canary) {
		t.Errorf("slog shows the secret: %s", buf.String())
	}
	b, err := json.Marshal(h)
	if err != nil || strings.Contains(string(b), canary) {
		t.Errorf("json.Marshal = %s, %v; want no secret", b, err)
	}
	if v.Reveal() != canary {
		t.Errorf("Reveal() = %q, want %q", v.Reveal(), canary)
	}
}

func TestRandomValuesDiffer(t *testing.T) {
	a, b := secret.Random(32), secret.Random(32)
	if a.Equal(b) || !a.Equal(a) {
		t.Error("two random secrets are equal, or one differs from itself")
	}
	if a.Hash() == b.Hash() || len(a.Hash()) != 64 {
		t.Errorf("hashes %q, %q; want two different ones of 64 digits", a.Hash(), b.Hash())
	}
	if !(secret.Value{}).Empty() || a.Empty() {
		t.Error("Empty is wrong")
	}
}
