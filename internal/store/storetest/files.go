package storetest

import (
	"bytes"
	"context"
	"strings"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/store"
)

// Files keeps certificates and their keys.
type Files interface {
	WriteFile(ctx context.Context, name string, content []byte) error
	ReadFile(ctx context.Context, name string) ([]byte, error)
	Files(ctx context.Context, name string) ([]bailey.StoredFile, error)
	RemoveFiles(ctx context.Context, name string) error
}

func files() []story {
	return []story{
		{"a certificate is kept, replaced, listed and removed with what is below it", fileLife},
		{"what cannot be a stored file is refused", fileRefused},
		{"two servers see each other's files", fileShared},
	}
}

func fileLife(w *world) {
	key := []byte("any bytes: \x00\xff")
	for _, name := range []string{"certs/ca/a.example/a.key", "certs/ca/a.example", "certs/ca/a.example-2/b.key", "certs/ca/a.example0", "certs/ca/a.exampl_"} {
		w.must(w.WriteFile(w.Context(), name, key))
	}
	w.must(w.WriteFile(w.Context(), "certs/ca/a.example/a.key", []byte("new")))
	if got, err := w.ReadFile(w.Context(), "certs/ca/a.example/a.key"); err != nil || string(got) != "new" {
		w.Errorf("ReadFile = %q, %v", got, err)
	}
	if got, err := w.ReadFile(w.Context(), "certs/ca/a.example0"); err != nil || !bytes.Equal(got, key) {
		w.Errorf("ReadFile = %q, %v", got, err)
	}
	under, err := w.Files(w.Context(), "certs/ca/a.example")
	w.must(err)
	if len(under) != 2 || under[0].Name != "certs/ca/a.example" || under[1].Name != "certs/ca/a.example/a.key" || under[1].Bytes != 3 || under[1].ModifiedAt.IsZero() {
		w.Errorf("Files = %+v", under)
	}
	w.must(w.RemoveFiles(w.Context(), "certs/ca/a.example"))
	w.must(w.RemoveFiles(w.Context(), "certs/ca/a.example"))
	_, err = w.ReadFile(w.Context(), "certs/ca/a.example/a.key")
	w.refused(err, bailey.NotFound, "stored file")
	all, err := w.Files(w.Context(), "")
	w.must(err)
	if len(all) != 3 {
		w.Errorf("after the removal there are %+v, want the three beside it", all)
	}
}

func fileRefused(w *world) {
	for _, name := range []string{"", "/a", "a/", "a//b", "a/../b", ".", "a\x00b", strings.Repeat("a", 513)} {
		w.refused(w.WriteFile(w.Context(), name, []byte("x")), bailey.Invalid, "name of a stored file")
		w.refused(w.RemoveFiles(w.Context(), name), bailey.Invalid, "name of a stored file")
	}
	w.refused(w.WriteFile(w.Context(), "a", make([]byte, store.MaxFileBytes+1)), bailey.Invalid, "at most")
}

func fileShared(w *world) {
	other := w.open(w.T, w.clock.Now)
	w.must(w.WriteFile(w.Context(), "a/b", []byte("one")))
	if got, err := other.ReadFile(w.Context(), "a/b"); err != nil || string(got) != "one" {
		w.Errorf("the other server reads %q, %v", got, err)
	}
}
