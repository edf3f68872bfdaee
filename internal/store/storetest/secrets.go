package storetest

import (
	"strings"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/secret"
)

func knownSecrets() []story {
	return []story{
		{"a registered secret is set, replaced, listed without its value, and forgotten", secretLife},
		{"what cannot be a secret is refused", secretRefused},
	}
}

func secretLife(w *world) {
	admin := w.user("root1", bailey.RoleAdmin)
	first := "any bytes: \x00\xff\n" + strings.Repeat("x", bailey.MaxSecretBytes-14)
	set := func(name, class, value string) bailey.KnownSecret {
		k, err := w.SetSecret(w.Context(), bailey.KnownSecret{Name: name, Class: class, CreatedBy: admin.ID}, secret.New(value))
		w.must(err)
		return k
	}
	set("HF_TOKEN", "", "one")
	set("a.b-c_d", "pytorch", first)
	again := set("HF_TOKEN", "notebook", "two-two")
	if again.Bytes != 7 || again.Class != "notebook" || again.CreatedAt.IsZero() {
		w.Errorf("SetSecret = %+v", again)
	}
	if again.Mode != "" {
		w.Errorf("the mode is %q, and nobody said one", again.Mode)
	}
	// A mode stays when the value is exchanged, until another is given.
	for _, step := range []struct{ give, want string }{{"block", "block"}, {"", "block"}, {"log_only", "log_only"}, {"", "log_only"}} {
		k, err := w.SetSecret(w.Context(), bailey.KnownSecret{Name: "HF_TOKEN", Class: "notebook", Mode: step.give, CreatedBy: admin.ID}, secret.New("two-two"))
		w.must(err)
		if k.Mode != step.want {
			w.Errorf("given mode %q, it is %q, want %q", step.give, k.Mode, step.want)
		}
		again = k
	}
	all, err := w.Secrets(w.Context())
	w.must(err)
	if len(all) != 2 || all[0] != again || all[1].Name != "a.b-c_d" || all[1].Bytes != len(first) || all[1].CreatedBy != admin.ID {
		w.Errorf("Secrets = %+v", all)
	}
	values, err := w.SecretValues(w.Context())
	w.must(err)
	if len(values) != 2 || values["HF_TOKEN"].Reveal() != "two-two" || values["a.b-c_d"].Reveal() != first {
		w.Errorf("SecretValues has %d values, or they are not what was set", len(values))
	}
	w.must(w.DeleteSecret(w.Context(), "HF_TOKEN"))
	w.refused(w.DeleteSecret(w.Context(), "HF_TOKEN"), bailey.NotFound, "secret")
	if values, err = w.SecretValues(w.Context()); err != nil || len(values) != 1 {
		w.Errorf("after the deletion there are %d values, %v; want 1", len(values), err)
	}
}

func secretRefused(w *world) {
	for name, tt := range map[string]struct{ class, value, word string }{
		"../x":                  {"", "value", "name of a secret"},
		"":                      {"", "value", "name of a secret"},
		".hidden":               {"", "value", "name of a secret"},
		strings.Repeat("a", 65): {"", "value", "name of a secret"},
		"empty":                 {"", "", "bytes"},
		"large":                 {"", strings.Repeat("x", bailey.MaxSecretBytes+1), "bytes"},
		"class":                 {"No Class", "value", "class"},
	} {
		_, err := w.SetSecret(w.Context(), bailey.KnownSecret{Name: name, Class: tt.class}, secret.New(tt.value))
		w.refused(err, bailey.Invalid, tt.word)
	}
	_, err := w.SetSecret(w.Context(), bailey.KnownSecret{Name: "mode", Mode: "off"}, secret.New("value"))
	w.refused(err, bailey.Invalid, "mode")
	if all, err := w.Secrets(w.Context()); err != nil || len(all) != 0 {
		w.Errorf("Secrets = %v, %v; want none", all, err)
	}
}
