// Package hometest makes what package home looks at.
package hometest

import (
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// Image makes a file tree like an image's /usr, whose python3 runs script.
func Image(t *testing.T, version, script string) (prefix string) {
	t.Helper()
	prefix = t.TempDir()
	for _, dir := range []string{"bin", "lib/python" + version, "lib/python3/dist-packages/ipykernel", "lib/python3/dist-packages/jupyterlab", "share/jupyter/lab/static", "share/jupyter/kernels/python3"} {
		if err := os.MkdirAll(filepath.Join(prefix, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	Write(t, filepath.Join(prefix, "bin", "python"+version), "#!/bin/sh\n"+script+"\n", 0o755)
	Write(t, filepath.Join(prefix, "share/jupyter/kernels/python3/logo-svg.svg"), "<svg/>", 0o644)
	if err := os.Symlink("python"+version, filepath.Join(prefix, "bin", "python3")); err != nil {
		t.Fatal(err)
	}
	return prefix
}

// Write writes a file.
func Write(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// Read returns what is in a file.
func Read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
