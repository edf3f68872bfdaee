// Package archtest holds the map of the house: which package may import which.
// The map is rooms.txt; the test compares it with the code.
package archtest

import (
	_ "embed"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/baileyhq/bailey"

//go:embed rooms.txt
var rooms string

// TestRooms reads the sources itself rather than asking "go list": the go
// command caches a passing test until a file the test opened changes, and it
// cannot see what a child process opens.
func TestRooms(t *testing.T) {
	allowed := map[string][]string{}
	for line := range strings.Lines(rooms) {
		if f := strings.Fields(line); len(f) > 0 && f[0] != "#" {
			allowed[f[0]] = f[1:]
		}
	}
	found := readRooms(t, filepath.Join("..", ".."))
	for room, r := range found {
		may, ok := allowed[room]
		if !ok {
			t.Errorf("%s is not on the map: add it to rooms.txt", room)
			continue
		}
		for _, imp := range r.imports {
			if !slices.Contains(may, imp) && !slices.Contains(may, "*") {
				t.Errorf("%s imports %s, which rooms.txt does not allow", room, imp)
			}
		}
		if r.docs != 1 {
			t.Errorf("%s has %d package comments; one file, named like the package, says what it decides", room, r.docs)
		}
	}
	for room := range allowed {
		if _, ok := found[room]; !ok {
			t.Errorf("rooms.txt names %s, which is gone", room)
		}
	}
}

// TestOneRoomEach keeps the words that one room alone may say.
func TestOneRoomEach(t *testing.T) {
	only := map[string][]string{
		"database/sql":             {"internal/store"},
		"github.com/jackc/pgx/v5":  {"internal/store"},
		"github.com/moby/moby/":    {"internal/engine/docker"},
		"golang.org/x/crypto/argo": {"internal/password"},
		"golang.org/x/crypto/bcry": {"internal/password"},
		"golang.org/x/crypto/scry": {"internal/password"},
		"golang.org/x/crypto/ssh":  {"internal/sshgate", "internal/sshgate/hostkey", "internal/sshkey", "internal/identity"},
		"golang.org/x/net/":        {"internal/egress/rules"}, // internationalised names
		"github.com/spf13/cobra":   {"internal/cli"},
		"github.com/goccy/go-yaml": {"internal/config", "internal/cli", "internal/trust/policy"},
		"github.com/danielgtaylor": {"internal/api"},
		"github.com/zricethezav/":  {"internal/inspect/rules"},
		"github.com/pelletier/":    {"internal/inspect/rules"},
		"github.com/sigstore/":     {"internal/trust", "internal/trust/root", "internal/trust/update"},
		"cel.dev/":                 {"internal/trust/policy"},
	}
	for room, r := range readRooms(t, filepath.Join("..", "..")) {
		for _, imp := range r.foreign {
			for prefix, rooms := range only {
				if strings.HasPrefix(imp, prefix) && !slices.Contains(rooms, room) {
					t.Errorf("%s imports %s, which belongs to %v", room, imp, rooms)
				}
			}
		}
	}
}

type room struct {
	imports []string // ours, relative to the module
	foreign []string // everybody else's
	docs    int      // package comments in non-test files
}

// readRooms returns every package below root by its path, with what its
// non-test files import. Packages that exist for tests alone (enginetest,
// storetest, e2e) are left out.
func readRooms(t *testing.T, root string) map[string]*room {
	t.Helper()
	found := map[string]*room{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if name == "testdata" || name == "node_modules" || name == "e2e" || name == "tools" ||
				strings.HasSuffix(name, "test") || strings.HasPrefix(name, ".") && path != root {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, src, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		r := found[filepath.ToSlash(dir)]
		if r == nil {
			r = &room{}
			found[filepath.ToSlash(dir)] = r
		}
		if f.Doc != nil {
			r.docs++
		}
		for _, spec := range f.Imports {
			imp, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if imp == module {
				r.imports = append(r.imports, ".")
			} else if rel, ok := strings.CutPrefix(imp, module+"/"); ok {
				r.imports = append(r.imports, rel)
			} else {
				r.foreign = append(r.foreign, imp)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
