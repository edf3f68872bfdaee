package gitrepo_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey/internal/gitrepo"
)

// git runs git in dir, without the settings of whoever runs the test.
func git(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func newRepo(t *testing.T) (string, *gitrepo.Repo) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	dir := t.TempDir()
	git(t, dir, "init", "-q", "-b", "main")
	r, err := gitrepo.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir, r
}

func TestStagedAreTheLinesThatAreNew(t *testing.T) {
	dir, r := newRepo(t)
	write(t, dir, "a.txt", "one\ntwo\nthree\n")
	write(t, dir, "gone.txt", "x\n")
	write(t, dir, "with space.txt", "x\n")
	git(t, dir, "add", ".")
	git(t, dir, "commit", "-q", "-m", "first")
	write(t, dir, "a.txt", "one\n@@ -1,1 +1,1 @@\n++ x\nthree\nfour\n")
	write(t, dir, "größe/neu.txt", "x\ny\n")
	git(t, dir, "rm", "-q", "gone.txt")
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	git(t, dir, "add", ".")
	write(t, dir, "a.txt", "not staged\n")

	changes, err := r.Staged(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]gitrepo.Lines{}
	for _, c := range changes {
		got[c.Path] = c.Added
		if c.Mode.IsFile() != (c.Path != "link") {
			t.Errorf("%s has mode %s", c.Path, c.Mode)
		}
	}
	want := map[string][]gitrepo.Lines{"a.txt": {{From: 2, To: 3}, {From: 5, To: 5}}, "größe/neu.txt": {{From: 1, To: 2}}, "link": nil}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Staged (-want +got):\n%s", d)
	}
}

func TestHistoryHoldsWhatWasDeleted(t *testing.T) {
	dir, r := newRepo(t)
	write(t, dir, "a.txt", "the old text\n")
	git(t, dir, "add", ".")
	git(t, dir, "commit", "-q", "-m", "first words")
	first := git(t, dir, "rev-parse", "HEAD")
	git(t, dir, "rm", "-q", "a.txt")
	git(t, dir, "commit", "-q", "-m", "second words")
	git(t, dir, "checkout", "-q", "-b", "other")
	write(t, dir, "b.bin", strings.Repeat("x", 5000))
	git(t, dir, "add", ".")
	git(t, dir, "commit", "-q", "-m", "third")
	git(t, dir, "checkout", "-q", "main")

	blobs, err := r.Blobs(t.Context())
	if err != nil || len(blobs) != 2 {
		t.Fatalf("Blobs = %v, %v; want two", blobs, err)
	}
	var names []string
	for _, b := range blobs {
		names = append(names, b.Name)
	}
	got := map[string]string{}
	err = r.Read(t.Context(), names, 1000, func(i int, size int64, content []byte) error {
		if content == nil {
			got[blobs[i].Path] = "too large"
		} else {
			got[blobs[i].Path] = string(content)
		}
		return nil
	})
	if d := cmp.Diff(map[string]string{"a.txt": "the old text\n", "b.bin": "too large"}, got); d != "" || err != nil {
		t.Errorf("Read: %v (-want +got):\n%s", err, d)
	}
	for _, b := range blobs {
		commit, err := r.FirstCommit(t.Context(), b.Name)
		if b.Path == "a.txt" && (commit != first || err != nil) {
			t.Errorf("FirstCommit(a.txt) = %s, %v; want %s", commit, err, first)
		}
	}
	messages, err := r.Messages(t.Context())
	if err != nil || len(messages) != 3 || !strings.Contains(string(messages[len(messages)-1].Text), "first words") {
		t.Errorf("Messages = %d, %v; want three, the first last", len(messages), err)
	}
	stop := errors.New("enough")
	if err := r.Read(t.Context(), names, 1000, func(int, int64, []byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("Read = %v, want what visit returned", err)
	}
}

// A repository from somewhere else names programs in its settings. Looking at
// it must not run them.
func TestARepositoryCannotRunPrograms(t *testing.T) {
	dir, r := newRepo(t)
	write(t, dir, "a.txt", "one\n")
	git(t, dir, "add", ".")
	git(t, dir, "commit", "-q", "-m", "first")
	mark := filepath.Join(t.TempDir(), "ran")
	script := filepath.Join(t.TempDir(), "evil")
	if err := os.WriteFile(script, []byte("#!/bin/sh\ntouch "+mark+"\ncat \"$1\" 2>/dev/null\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"core.fsmonitor", "diff.external", "diff.evil.textconv", "diff.evil.command", "core.pager", "pager.log", "pager.diff", "filter.evil.clean", "filter.evil.smudge", "gpg.program", "core.sshCommand"} {
		git(t, dir, "config", key, script)
	}
	git(t, dir, "config", "log.showSignature", "true")
	write(t, dir, ".gitattributes", "*.txt diff=evil\n")
	write(t, dir, "a.txt", "two\n")
	git(t, dir, "-c", "core.fsmonitor=false", "add", ".")
	_ = os.Remove(mark)

	if _, err := r.Staged(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := r.Messages(t.Context()); err != nil {
		t.Error(err)
	}
	if blobs, err := r.Blobs(t.Context()); err != nil || len(blobs) == 0 {
		t.Error(blobs, err)
	} else if _, err := r.FirstCommit(t.Context(), blobs[0].Name); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("a program of the repository's settings ran")
	}
}

func TestSettingsAreSetAndRemoved(t *testing.T) {
	dir, r := newRepo(t)
	for range 2 {
		if err := r.Configure(t.Context(), "filter.x.clean", "cat"); err != nil {
			t.Fatal(err)
		}
	}
	if got := git(t, dir, "config", "filter.x.clean"); got != "cat" {
		t.Errorf("filter.x.clean = %q", got)
	}
	for range 2 {
		if err := r.Configure(t.Context(), "filter.x.clean", ""); err != nil {
			t.Errorf("remove a setting: %v", err)
		}
	}
	git(t, dir, "config", "core.hooksPath", "my hooks")
	if got, err := r.Path(t.Context(), "hooks/pre-commit"); err != nil || got != filepath.Join(r.Root, "my hooks/pre-commit") {
		t.Errorf("Path = %q, %v", got, err)
	}
}

func TestOutsideOfARepository(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	t.Setenv("GIT_CEILING_DIRECTORIES", "/")
	if _, err := gitrepo.Open(t.Context(), t.TempDir()); !errors.Is(err, gitrepo.ErrNone) {
		t.Errorf("Open = %v, want ErrNone", err)
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := gitrepo.Open(t.Context(), t.TempDir()); !errors.Is(err, gitrepo.ErrNoGit) {
		t.Errorf("Open = %v, want ErrNoGit", err)
	}
}
