package root_test

import (
	"testing"
	"time"

	"github.com/baileyhq/bailey/internal/trust/root"
)

func TestPublicGood(t *testing.T) {
	r, err := root.PublicGood()
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, p := range r.Parts() {
		kinds[p.Kind]++
	}
	if kinds["certificate authority"] < 1 || kinds["transparency log"] < 2 || kinds["certificate log"] < 1 || kinds["timestamp authority"] < 1 {
		t.Errorf("the embedded root has %v, want both logs, an authority, a certificate log and a timestamp authority", kinds)
	}
	// The digest that the signed targets.json of the TUF repository names.
	if want := "sha256:6494e21ea73fa7ee769f85f57d5a3e6a08725eae1e38c755fc3517c9e6bc0b66"; r.Hash != want {
		t.Errorf("the embedded root is %s, want %s", r.Hash, want)
	}
	if age, known := r.Age(r.Taken.Add(61 * 24 * time.Hour)); !known || age <= root.OldAfter {
		t.Errorf("after 61 days it is %s old, known %t", age, known)
	}
	if lost := r.Lost(r, time.Now()); len(lost) > 0 {
		t.Errorf("a root loses %v against itself", lost)
	}
}

func FuzzParse(f *testing.F) {
	r, err := root.PublicGood()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(r.JSON)
	f.Add([]byte(`{"tlogs":[{}],"certificateAuthorities":[{}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := root.Parse("fuzz", data, time.Time{}); err == nil && len(r.Parts()) == 0 {
			t.Error("a root of nothing was taken")
		}
	})
}
