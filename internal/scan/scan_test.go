package scan_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey/internal/gitrepo"
	"github.com/baileyhq/bailey/internal/inspect"
	"github.com/baileyhq/bailey/internal/scan"
)

// token is what the scanner must find, and no other scanner in this file.
const token = "hf_" + "QzKvTbWnRmXyLpGdHsJcFaUeYtPqZwNxMr"

var rules = sync.OnceValues(func() (*inspect.Set, error) { return inspect.Compile(inspect.Config{}) })

// newScanner returns a scanner and what it could not look at.
func newScanner(t *testing.T, cfg scan.Config) (*scan.Scanner, *[]string) {
	t.Helper()
	set, err := rules()
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	problems := &[]string{}
	cfg.Set = set
	cfg.Problem = func(name string, err error) {
		mu.Lock()
		defer mu.Unlock()
		*problems = append(*problems, fmt.Sprintf("%s: %v", filepath.Base(name), err))
	}
	s, err := scan.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s, problems
}

func write(t *testing.T, dir, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// places says where findings are, below dir.
func places(dir string, found []scan.Finding) []string {
	var got []string
	for _, f := range found {
		p := fmt.Sprintf("%s:%d:%d %s", strings.TrimPrefix(f.Path, filepath.ToSlash(dir)+"/"), f.Line, f.Column, f.Rule)
		if f.Part != "" {
			p += fmt.Sprintf(" cell %d %s", f.Cell, f.Part)
		}
		got = append(got, p)
	}
	return got
}

func zipped(t *testing.T, files ...string) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	for i := 0; i < len(files); i += 2 {
		w, err := z.Create(files[i])
		if err == nil {
			_, err = w.Write([]byte(files[i+1]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func gzipped(t *testing.T, text []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	if _, err := z.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func tarred(t *testing.T, name, text string) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))})
	if err == nil {
		_, err = w.Write([]byte(text))
	}
	if err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func utf16le(text string) []byte {
	out := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(text)) {
		out = append(out, byte(u), byte(u>>8))
	}
	return out
}

func TestEveryKindOfFileIsLookedInto(t *testing.T) {
	dir := t.TempDir()
	nb := map[string]any{"nbformat": 4, "nbformat_minor": 5, "metadata": map[string]any{}, "cells": []any{
		map[string]any{"cell_type": "code", "metadata": map[string]any{}, "source": []string{"# é\n", "print(t) # " + token + " bailey:allow\n"}, "outputs": []any{
			map[string]any{"output_type": "stream", "name": "stdout", "text": []string{"first\n", token + " bailey:allow\n"}},
		}},
	}}
	nbText, err := json.MarshalIndent(nb, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	inner := zipped(t, "deep/c.txt", "\n\nx="+token+"\n")
	write(t, dir, "a.txt", []byte("nothing\n größe "+token+"\n"))
	write(t, dir, "allowed.txt", []byte(token+" # bailey:allow\n"+token+" # gitleaks:allow\n"))
	write(t, dir, "b.ipynb", nbText)
	write(t, dir, "broken.ipynb", []byte(`{"cells": [`+token))
	write(t, dir, "c.zip", zipped(t, "one.txt", token, "two.zip", string(inner), "dir/", ""))
	write(t, dir, "d.tar.gz", gzipped(t, tarred(t, "d/e.txt", "x\n"+token)))
	write(t, dir, "f.log.gz", gzipped(t, []byte(token)))
	write(t, dir, "g-utf16.txt", utf16le("x "+token+"\r\n"))
	write(t, dir, "h.dat", append([]byte{0, 1, 2, 3, 0, 0}, token...))
	write(t, dir, "empty", nil)
	write(t, dir, ".git/config", []byte(token))
	write(t, dir, "node_modules/x/index.js", []byte(token))
	if err := os.Symlink("a.txt", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}

	s, problems := newScanner(t, scan.Config{})
	found, err := s.Paths(t.Context(), []string{dir})
	if err != nil {
		t.Fatal(err)
	}
	const rule = "huggingface-access-token"
	want := []string{
		"a.txt:2:8 " + rule,
		"b.ipynb:12:0 " + rule + " cell 1 output stdout",
		"broken.ipynb:1:12 " + rule,
		"c.zip!one.txt:1:1 " + rule,
		"c.zip!two.zip!deep/c.txt:3:3 " + rule,
		"d.tar.gz!d.tar!d/e.txt:2:1 " + rule,
		"f.log.gz!f.log:1:1 " + rule,
		"g-utf16.txt:1:3 " + rule,
	}
	if d := cmp.Diff(want, places(dir, found)); d != "" {
		t.Errorf("Paths (-want +got):\n%s", d)
	}
	if len(*problems) > 0 {
		t.Errorf("problems: %q", *problems)
	}
	if _, skipped := s.Counts(); skipped != 1 {
		t.Errorf("%d files were skipped, want the binary one", skipped)
	}
	s, _ = newScanner(t, scan.Config{Binary: true})
	if found, err := s.Paths(t.Context(), []string{filepath.Join(dir, "h.dat")}); err != nil || len(found) != 1 {
		t.Errorf("with Binary: %v, %v; want one finding", found, err)
	}
	if found, err := s.Reader(t.Context(), "(stdin)", bytes.NewReader(nbText)); err != nil || len(found) != 1 || found[0].Cell != 1 {
		t.Errorf("a notebook on stdin: %v, %v; want one finding in cell 1", found, err)
	}
	printed, err := json.Marshal(found)
	if err != nil || bytes.Contains(printed, []byte(token[3:])) {
		t.Errorf("the findings hold the value: %v", err)
	}
}

// What cannot be looked at is told, and the rest is looked at all the same.
func TestHostileFilesAreToldAndLeftBehind(t *testing.T) {
	dir := t.TempDir()
	bomb := bytes.Repeat([]byte{'0'}, 1<<20)
	nested := []byte(token)
	for range 5 {
		nested = zipped(t, "z.zip", string(nested))
	}
	write(t, dir, "deep.zip", nested)
	write(t, dir, "cut.zip", zipped(t, "a", token)[:40])
	write(t, dir, "cut.gz", gzipped(t, append(bytes.Clone(bomb), token...))[:100])
	write(t, dir, "slip.zip", zipped(t, "../../../etc/passwd", token))
	write(t, dir, "notgz.gz", []byte("\x1f\x8b\x08garbage"))
	write(t, dir, "z.txt", []byte(token))
	if os.Getuid() != 0 {
		path := write(t, dir, "secret.txt", []byte(token))
		if err := os.Chmod(path, 0); err != nil {
			t.Fatal(err)
		}
	}
	s, problems := newScanner(t, scan.Config{})
	found, err := s.Paths(t.Context(), []string{dir})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"slip.zip!../../../etc/passwd:1:1 huggingface-access-token", "z.txt:1:1 huggingface-access-token"}, places(dir, found)); d != "" {
		t.Errorf("Paths (-want +got):\n%s", d)
	}
	for _, name := range []string{"z.zip", "cut.zip", "cut", "notgz.gz"} {
		if !strings.Contains(strings.Join(*problems, "\n"), name) {
			t.Errorf("nobody was told about %s: %q", name, *problems)
		}
	}
}

func TestAFileLargerThanMemoryIsStreamed(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 65 MiB")
	}
	dir := t.TempDir()
	var text bytes.Buffer
	line := []byte(strings.Repeat("x ", 499) + "\n")
	text.WriteString(token + "\n" + token + " bailey:allow\n")
	for text.Len() < 65<<20 {
		text.Write(line)
	}
	lines := bytes.Count(text.Bytes(), []byte("\n"))
	text.WriteString("é " + token + "\n")
	write(t, dir, "big.log", text.Bytes())
	s, problems := newScanner(t, scan.Config{})
	found, err := s.Paths(t.Context(), []string{dir})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"big.log:1:1 huggingface-access-token", fmt.Sprintf("big.log:%d:3 huggingface-access-token", lines+1)}
	if d := cmp.Diff(want, places(dir, found)); d != "" || len(*problems) > 0 {
		t.Errorf("Paths (-want +got):\n%s%q", d, *problems)
	}
}

func TestABaselineKnowsWhatWasAccepted(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "baseline.json")
	write(t, dir, "src/a.txt", []byte(token+"\n"))
	src := []string{filepath.Join(dir, "src")}

	if _, err := scan.LoadBaseline(file, false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("LoadBaseline of nothing = %v, want os.ErrNotExist", err)
	}
	b, err := scan.LoadBaseline(file, true)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := newScanner(t, scan.Config{Baseline: b})
	if found, err := s.Paths(t.Context(), src); err != nil || len(found) != 1 || found[0].Known {
		t.Fatalf("first run = %v, %v; want one new finding", found, err)
	}
	if err := b.Save(file); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil || bytes.Contains(text, []byte(token[3:])) {
		t.Fatalf("the baseline holds the value (%v)", err)
	}

	other := "hf_" + "aBcQzKvTbWnRmXyLpGdHsJcFaUeYtPqZwN"
	write(t, dir, "src/a.txt", []byte("moved\n"+token+"\n"+other+"\n"))
	if b, err = scan.LoadBaseline(file, false); err != nil {
		t.Fatal(err)
	}
	s, _ = newScanner(t, scan.Config{Baseline: b})
	found, err := s.Paths(t.Context(), src)
	if err != nil || len(found) != 2 || !found[0].Known || found[1].Known {
		t.Errorf("second run = %+v, %v; want the first known and the second new", found, err)
	}

	write(t, dir, "baseline.json", []byte(`{"version": 1, "salt": "00", "rounds": 1, "findings": []}`))
	if _, err := scan.LoadBaseline(file, true); !errors.Is(err, scan.ErrBaseline) {
		t.Errorf("LoadBaseline of a weak one = %v, want ErrBaseline", err)
	}
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
}

func TestGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	dir := t.TempDir()
	git(t, dir, "init", "-q")
	write(t, dir, "a.txt", []byte("old "+token+"\n"))
	git(t, dir, "add", ".")
	git(t, dir, "commit", "-q", "-m", "first")
	write(t, dir, "a.txt", []byte("old "+token+"\nnew line\n"))
	write(t, dir, "b.txt", []byte("x\n"+token+"\n"))
	git(t, dir, "add", ".")
	repo, err := gitrepo.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	s, _ := newScanner(t, scan.Config{})
	found, err := s.Staged(t.Context(), repo)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"b.txt:2:1 huggingface-access-token"}, places("", found)); d != "" {
		t.Errorf("Staged (-want +got):\n%s", d)
	}

	git(t, dir, "rm", "-q", "-f", "a.txt", "b.txt")
	git(t, dir, "commit", "-q", "--allow-empty", "-m", "remove it; it was "+token)
	found, err = s.History(t.Context(), repo)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"a.txt:1:5 huggingface-access-token", "(commit message):2:19 huggingface-access-token"}, places("", found)); d != "" {
		t.Errorf("History (-want +got):\n%s", d)
	}
	if len(found) == 2 && (len(found[0].Commit) < 40 || found[0].Commit == found[1].Commit) {
		t.Errorf("commits %q and %q", found[0].Commit, found[1].Commit)
	}
}

func TestRecords(t *testing.T) {
	in := strings.Join([]string{
		`{"text": "nothing"}`,
		`{"id": 7, "text": "é ` + token + `", "TEXT": "benign"}`,
		``,
		`not JSON`,
		`{"text": 5}`,
		`{"text": "` + token + `", "text": "benign"}`,
		`{"other": "` + token + `"}`,
		`{"text": "\u0068f_` + token[3:] + `\n` + token + `"}`,
		`[1]`,
		`{"text": "x"} {"text": "y"}`,
		`{"text": "` + token + `"}`,
	}, "\n")
	s, _ := newScanner(t, scan.Config{})
	var got, bad []string
	err := s.Records(t.Context(), strings.NewReader(in), func(f scan.RecordFinding) error {
		got = append(got, fmt.Sprintf("%d %s %d+%d", f.Record, f.Rule, f.Offset, f.Length))
		return nil
	}, func(e *scan.RecordError) { bad = append(bad, e.Error()) })
	if err != nil {
		t.Fatal(err)
	}
	const rule = "huggingface-access-token"
	if d := cmp.Diff([]string{"1 " + rule + " 3+37", "7 " + rule + " 0+37", "7 " + rule + " 38+37", "10 " + rule + " 0+37"}, got); d != "" {
		t.Errorf("findings (-want +got):\n%s", d)
	}
	want := []string{
		"line 4: is no JSON object", `line 5: the value of "text" is no string`, `line 6: has the key "text" twice`,
		`line 7: has no key "text"`, "line 9: is no JSON object", "line 10: has something behind the JSON object",
	}
	if d := cmp.Diff(want, bad); d != "" {
		t.Errorf("bad lines (-want +got):\n%s", d)
	}
}

func TestAnEndedContextEndsTheScan(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.txt", []byte(token))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s, _ := newScanner(t, scan.Config{})
	if _, err := s.Paths(ctx, []string{dir}); !errors.Is(err, context.Canceled) {
		t.Errorf("Paths = %v, want context.Canceled", err)
	}
	if err := s.Records(ctx, strings.NewReader(`{"text":"x"}`), nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Records = %v, want context.Canceled", err)
	}
	if _, err := s.Paths(t.Context(), []string{filepath.Join(dir, "none")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Paths = %v, want os.ErrNotExist", err)
	}
}

// FuzzContent: whatever a file is, looking at it ends, without a panic.
func FuzzContent(f *testing.F) {
	f.Add([]byte("x " + token + "\n"))
	f.Add([]byte("PK\x03\x04"))
	f.Add([]byte("\x1f\x8b\x08\x00"))
	f.Add(utf16le("x"))
	f.Add([]byte{0, 'a'})
	f.Add([]byte(`{"nbformat":4,"cells":[{"source":"` + token + `"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, _ := newScanner(t, scan.Config{Binary: true})
		for _, name := range []string{"a.txt", "a.ipynb"} {
			found, err := s.Reader(t.Context(), name, bytes.NewReader(data))
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range found {
				if f.Line < 1 {
					t.Errorf("a finding in %q has line %d", data, f.Line)
				}
			}
		}
	})
}
