package agent

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSecretsArePlacedForTheTenantAlone(t *testing.T) {
	from, to := t.TempDir(), filepath.Join(t.TempDir(), "secrets")
	for name, text := range map[string]string{"HF_TOKEN": "line\x00\xff\n", "b": "two"} {
		if err := os.WriteFile(filepath.Join(from, name), []byte(text), 0o400); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(from, "link")); err != nil {
		t.Fatal(err)
	}
	n, err := placeSecrets(from, to)
	if err != nil || n != 2 {
		t.Fatalf("placeSecrets = %d, %v; want 2", n, err)
	}
	got, err := os.ReadFile(filepath.Join(to, "HF_TOKEN"))
	if err != nil || string(got) != "line\x00\xff\n" {
		t.Errorf("HF_TOKEN = %q, %v", got, err)
	}
	for path, want := range map[string]os.FileMode{to: 0o700 | os.ModeDir, filepath.Join(to, "b"): 0o400} {
		if fi, err := os.Stat(path); err != nil || fi.Mode() != want {
			t.Errorf("%s has mode %v, %v; want %v", path, fi.Mode(), err, want)
		}
	}
	if _, err := os.Lstat(filepath.Join(to, "link")); err == nil {
		t.Error("a link was placed")
	}
	// What is there already is not overwritten: it would be somebody else's.
	if n, err := placeSecrets(from, to); err == nil || n != 0 {
		t.Errorf("a second time = %d, %v; want an error", n, err)
	}
	if n, err := placeSecrets(filepath.Join(from, "missing"), to); err != nil || n != 0 {
		t.Errorf("without secrets = %d, %v", n, err)
	}
}
