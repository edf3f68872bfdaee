package config

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// FuzzLoad proves that no file makes Load panic, run away or take memory
// without bound, that what it refuses comes with a reason, and that what it
// accepts survives being shown and read again.
func FuzzLoad(f *testing.F) {
	for _, tt := range badFiles {
		f.Add([]byte(tt.text))
	}
	for _, name := range []string{filepath.Join("..", "..", "config", "bailey.example.yaml")} {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		path := filepath.Join(dir, "bailey.yaml")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := Load(t.Context(), Source{Path: path})
		if err != nil {
			e, ok := errors.AsType[*Errors](err)
			if !ok || len(e.Problems) == 0 || e.Error() == "" {
				t.Fatalf("Load = %v (%T), want *Errors with a problem", err, err)
			}
			for _, p := range e.Problems {
				if p.What == "" || p.Why == "" || p.Fix == "" {
					t.Fatalf("a problem without what, why or remedy: %+v", p)
				}
			}
			for _, r := range e.Error() {
				if r < ' ' && r != '\n' || r == 0x7f {
					t.Fatalf("the message has the control character %U in it: %q", r, e.Error())
				}
			}
			return
		}
		shown, err := cfg.Show(true)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, shown, 0o600); err != nil {
			t.Fatal(err)
		}
		again, err := Load(t.Context(), Source{Path: path})
		if err != nil {
			t.Fatalf("Load of what Show wrote: %v\n%s", err, shown)
		}
		if d := differ(cfg, again, func(string) bool { return true }); len(d) > 0 {
			t.Fatalf("Show changed %v:\n%s", d, shown)
		}
	})
}

// TestLargeFiles feeds the largest files of the shapes that are worst for the
// YAML library, and looks at time and memory.
func TestLargeFiles(t *testing.T) {
	size := maxBytes - 100
	files := map[string]string{
		"open brackets":   strings.Repeat("[", size),
		"lists in lists":  strings.Repeat("- ", size/2),
		"question marks":  strings.Repeat("? ", size/2),
		"tags":            strings.Repeat("!a ", size/3),
		"anchors":         strings.Repeat("&a ", size/3),
		"colons":          strings.Repeat("a: ", size/3),
		"one key":         strings.Repeat("a: b\n", maxLines-2),
		"commas":          "[" + strings.Repeat("1,", maxTokens/2-10) + "]",
		"flow map":        "{" + strings.Repeat("a: b,", maxTokens/4-10) + "}",
		"literal":         "a: |\n" + strings.Repeat(" \n", maxLines-3),
		"one long string": "state: \"" + strings.Repeat("x", size-20) + "\"",
		"one long key":    strings.Repeat("x", size-20) + ": 1",
		"tabs":            strings.Repeat("\t", size),
		"not UTF-8":       strings.Repeat("\xff", size),
		"wide":            strings.Repeat("笔", size/3),
		"comments":        strings.Repeat("#", size),
		"quotes":          strings.Repeat("'", size),
		"many users":      "quotas:\n  users:\n" + users(4000),
	}
	for name, text := range files {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			begin := time.Now()
			_, err := Load(t.Context(), Source{Path: write(t, text)})
			runtime.ReadMemStats(&after)
			if name == "many users" && err != nil || name != "many users" && name != "comments" && name != "tabs" && err == nil {
				t.Errorf("Load = %.300v", err)
			}
			if len(text) > maxBytes {
				t.Errorf("the test's file is too large itself: %d bytes", len(text))
			}
			if took, used := time.Since(begin), (after.TotalAlloc-before.TotalAlloc)>>20; took > time.Minute || used > 1024 {
				t.Errorf("Load took %s and %d MiB in all", took, used)
			}
		})
	}
}

func users(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString("    u" + string(rune('a'+i/676%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i%26)) + string(rune('a'+i/17576)) + ": {workspaces: 3, cpus: 8, memory: 32GiB, gpus: 1}\n")
	}
	return b.String()
}
