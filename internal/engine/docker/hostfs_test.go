package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/secret"
)

func openDir(t *testing.T, path string) *os.File {
	t.Helper()
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return dir
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// A tenant fills a volume with what makes removal go wrong: links to the
// host's files and directories, names that look like options, directories
// without permissions, and a depth that no recursion survives.
func TestRemoveTreeOfAHostileTenant(t *testing.T) {
	root := t.TempDir()
	precious := filepath.Join(root, "precious")
	if err := errors.Join(os.Mkdir(precious, 0o755), os.WriteFile(filepath.Join(precious, "file"), []byte("x"), 0o644)); err != nil {
		t.Fatal(err)
	}
	parent := filepath.Join(root, "volumes")
	vol := filepath.Join(parent, "v")
	if err := errors.Join(
		os.MkdirAll(filepath.Join(vol, "a", "b"), 0o755),
		os.Symlink(precious, filepath.Join(vol, "link")),
		os.Symlink(precious, filepath.Join(vol, "a", "link")),
		os.Symlink("/", filepath.Join(vol, "a", "b", "root")),
		os.Link(filepath.Join(precious, "file"), filepath.Join(vol, "hard")),
		os.WriteFile(filepath.Join(vol, "-rf"), nil, 0o644),
		os.Mkdir(filepath.Join(vol, "new\nline"), 0o000),
		unix.Mkfifo(filepath.Join(vol, "fifo"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	for i := range 3000 {
		if err := os.WriteFile(filepath.Join(vol, "a", fmt.Sprint(i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dig(t, vol, 1500)
	dir := openDir(t, parent)
	if err := removeTree(t.Context(), dir, "v"); err != nil {
		t.Fatalf("removeTree: %v", err)
	}
	if left, err := os.ReadDir(parent); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if text, err := os.ReadFile(filepath.Join(precious, "file")); err != nil || string(text) != "x" {
		t.Errorf("the host's file is %q, %v", text, err)
	}
	if err := removeTree(t.Context(), dir, "v"); err != nil {
		t.Errorf("removeTree of nothing: %v", err)
	}
}

// dig makes a chain of directories too long for any path.
func dig(t *testing.T, top string, depth int) {
	t.Helper()
	fd, err := unix.Open(top, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	for range depth {
		if err != nil {
			t.Fatal(err)
		}
		if err = unix.Mkdirat(fd, "deep", 0o755); err != nil {
			t.Fatal(err)
		}
		var next int
		next, err = unix.Openat(fd, "deep", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
}

// Something that is not a directory in a volume's place goes without being followed.
func TestRemoveTreeOfALink(t *testing.T) {
	root := t.TempDir()
	target := filepath.Join(root, "target")
	if err := errors.Join(os.Mkdir(target, 0o755), os.WriteFile(filepath.Join(target, "x"), nil, 0o644), os.Symlink(target, filepath.Join(root, "v"))); err != nil {
		t.Fatal(err)
	}
	if err := removeTree(t.Context(), openDir(t, root), "v"); err != nil {
		t.Fatal(err)
	}
	if exists(filepath.Join(root, "v")) || !exists(filepath.Join(target, "x")) {
		t.Error("the link stayed, or what it points to went")
	}
}

// A removal that is interrupted has already taken the tree away from its name,
// and the next one finishes it.
func TestRemoveTreeInterrupted(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "v", "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := openDir(t, root)
	if err := removeTree(ctx, dir, "v"); !errors.Is(err, context.Canceled) {
		t.Fatalf("removeTree with a cancelled context: %v", err)
	}
	if exists(filepath.Join(root, "v")) {
		t.Error("the tree is still under its name")
	}
	if err := sweep(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(root); len(left) != 0 {
		t.Errorf("sweep left %v", left)
	}
}

func TestWriteFileAt(t *testing.T) {
	root := t.TempDir()
	dir := openDir(t, root)
	secretFile := filepath.Join(root, "secret")
	if err := errors.Join(os.WriteFile(secretFile, []byte("old"), 0o600), os.Symlink(secretFile, filepath.Join(root, "f"))); err != nil {
		t.Fatal(err)
	}
	if err := writeFileAt(dir, "f", []byte("new"), 0o440, os.Getuid()); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(filepath.Join(root, "f"))
	if err != nil || info.Mode() != 0o440 {
		t.Errorf("mode %v, %v; want a file of 0440", info.Mode(), err)
	}
	if text, _ := os.ReadFile(secretFile); string(text) != "old" {
		t.Errorf("the write went through the link: %q", text)
	}
	if left, _ := filepath.Glob(filepath.Join(root, ".new-*")); len(left) != 0 {
		t.Errorf("temporary files stay: %v", left)
	}
	if err := writeFileAt(dir, "no/such", nil, 0o600, os.Getuid()); err == nil {
		t.Error("writing into a directory that is not there succeeds")
	}
}

func TestStateDirectory(t *testing.T) {
	for _, root := range []string{"", "relative"} {
		if _, _, err := openState(root); err == nil {
			t.Errorf("openState(%q) succeeds", root)
		}
	}
	open := filepath.Join(t.TempDir(), "open")
	if err := errors.Join(os.Mkdir(open, 0o755), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openState(open); err == nil || !strings.Contains(err.Error(), "0777") {
		t.Errorf("openState of a directory that everybody can write: %v", err)
	}
	planted := t.TempDir()
	if err := os.Symlink("/tmp", filepath.Join(planted, volumesDir)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openState(planted); err == nil {
		t.Error("openState follows a link in place of the volumes")
	}
}

// Two users: bob's uid never gets at alice's volume, whatever lies in its place.
func TestVolumesOfTwo(t *testing.T) {
	needRoot(t)
	e := bare(t)
	id := bailey.NewID()
	path := filepath.Join(e.volumes.Name(), id)
	if err := e.EnsureVolume(t.Context(), id, 20001); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o777); err != nil { // alice opens it up
		t.Fatal(err)
	}
	if err := e.EnsureVolume(t.Context(), id, 20002); bailey.KindOf(err) != bailey.Conflict {
		t.Errorf("EnsureVolume of alice's for bob: %v", err)
	}
	if err := e.EnsureVolume(t.Context(), id, 20001); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, %v; want 0700 again", info.Mode(), err)
	}
	for name, plant := range map[string]func(string) error{
		"link": func(p string) error { return os.Symlink(path, p) },
		"file": func(p string) error { return errors.Join(os.WriteFile(p, nil, 0o600), os.Chown(p, 20001, 20001)) },
		"dir":  func(p string) error { return os.Mkdir(p, 0o700) }, // root's
	} {
		other := bailey.NewID()
		if err := plant(filepath.Join(e.volumes.Name(), other)); err != nil {
			t.Fatal(err)
		}
		if err := e.EnsureVolume(t.Context(), other, 20001); bailey.KindOf(err) != bailey.Conflict {
			t.Errorf("EnsureVolume where a %s lies: %v, want a conflict", name, err)
		}
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: files are given to other users")
	}
}

func TestRunDirectory(t *testing.T) {
	needRoot(t)
	e := bare(t)
	s := testSpec().Defaulted()
	s.Secrets = map[string]secret.Value{"HF_TOKEN": secret.New("line\x00\n")}
	if err := e.makeRunDir(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(e.runs.Name(), s.Run)
	for path, want := range map[string]string{
		".": "drwx------ 0", "sock": "drwx------ 20001", "conf": "drwxr-xr-x 0", "conf/agent": "drwxr-xr-x 0", "conf/passwd": "-r--r--r-- 0", "conf/group": "-r--r--r-- 0",
		"conf/agent/agent.json": "-r--r--r-- 0", "conf/agent/jupyter-token": "-r-------- 20001",
		"conf/agent/secrets": "drwxr-xr-x 0", "conf/agent/secrets/HF_TOKEN": "-r-------- 20001",
	} {
		var st unix.Stat_t
		info, err := os.Lstat(filepath.Join(run, path))
		if err == nil {
			err = unix.Lstat(filepath.Join(run, path), &st)
		}
		if got := fmt.Sprintf("%v %d", info.Mode(), st.Uid); err != nil || got != want {
			t.Errorf("%s is %q, %v; want %q", path, got, err, want)
		}
	}
	const want = `{
	"socket": "/run/bailey/agent.sock",
	"jupyter": {
		"addr": "127.0.0.1:8888",
		"base_path": "/",
		"token_file": "/etc/bailey/jupyter-token",
		"root": "/workspace"
	},
	"home": "/workspace",
	"venv": "/workspace/.venv",
	"user": "alice"
}
`
	if text, err := os.ReadFile(filepath.Join(run, "conf/agent/agent.json")); err != nil || string(text) != want {
		t.Errorf("agent.json = %s, %v", text, err)
	}
	if text, err := os.ReadFile(filepath.Join(run, "conf/agent/jupyter-token")); err != nil || string(text) != testToken {
		t.Errorf("token file: %v, right %t", err, string(text) == testToken)
	}
	// Made again, nothing of before stays.
	if err := errors.Join(os.WriteFile(filepath.Join(run, "sock", "old"), nil, 0o600), e.makeRunDir(t.Context(), s)); err != nil {
		t.Fatal(err)
	}
	if exists(filepath.Join(run, "sock", "old")) {
		t.Error("a new run finds the socket directory of an old one")
	}
	id := strings.Repeat("ab", 32)
	if err := e.noteContainer(s.Run, id); err != nil {
		t.Fatal(err)
	}
	if got, err := e.runOf(id); err != nil || got != s.Run {
		t.Errorf("runOf = %q, %v; want %q", got, err, s.Run)
	}
}

func TestPasswd(t *testing.T) {
	for _, name := range []string{"alice", "root", "nobody", "tty"} {
		for what, text := range map[string]string{"passwd": string(passwd(name, 20001)), "group": string(group(name, 20001))} {
			if n := strings.Count("\n"+text, "\n"+name+":"); n != 1 {
				t.Errorf("%s of %s names them %d times:\n%s", what, name, n, text)
			}
			if !strings.Contains(text, name+":x:20001:") || !strings.HasSuffix(text, "\n") {
				t.Errorf("%s of %s:\n%s", what, name, text)
			}
		}
	}
}
