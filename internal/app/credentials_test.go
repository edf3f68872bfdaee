package app

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// A sign-in is for the registry that it was made for, and for no other; a file
// that others may read is not used.
func TestCredentialsAreForOneRegistry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "registries.json")
	// alice:secret:with:colons and bob:pw
	text := `{"auths":{"registry.example:5000":{"auth":"YWxpY2U6c2VjcmV0OndpdGg6Y29sb25z"},"https://index.docker.io/v1/":{"auth":"Ym9iOnB3"},"broken.example":{"auth":"%%%"}}}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	of := credentials(path, slog.New(slog.DiscardHandler))
	for host, want := range map[string]string{
		"registry.example:5000": "alice/secret:with:colons", "docker.io": "bob/pw",
		"registry.example": "", "registry.example:5001": "", "evil.example": "", "broken.example": "", "": "",
	} {
		user, password, ok := of(host)
		got := ""
		if ok {
			got = user + "/" + password.Reveal()
		}
		if got != want {
			t.Errorf("sign-in to %q = %q, want %q", host, got, want)
		}
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, ok := of("docker.io"); ok {
		t.Error("a file that others may read was used")
	}
	if credentials("", nil) != nil {
		t.Error("there are sign-ins without a file")
	}
}
