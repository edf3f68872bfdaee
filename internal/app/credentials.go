package app

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/baileyhq/bailey/internal/secret"
)

// maxCredentials bounds the file of sign-ins.
const maxCredentials = 256 << 10

// credentials reads sign-ins to registries out of a file that docker login
// writes, at every use, so that a changed password counts. Without a file, or
// without an entry, there is none; a file that others may read is not used.
func credentials(path string, log *slog.Logger) func(host string) (string, secret.Value, bool) {
	if path == "" {
		return nil
	}
	return func(host string) (string, secret.Value, bool) {
		auths, err := readCredentials(path)
		if err != nil {
			log.Warn("sign-ins to registries not read", slog.String("file", path), slog.String("error", err.Error()))
			return "", secret.Value{}, false
		}
		names := []string{host}
		if host == "docker.io" { // what docker login calls it
			names = append(names, "https://index.docker.io/v1/", "index.docker.io")
		}
		for _, name := range names {
			text, err := base64.StdEncoding.DecodeString(auths[name])
			user, password, ok := strings.Cut(string(text), ":")
			if err == nil && ok && user != "" {
				return user, secret.New(strings.TrimRight(password, "\x00")), true
			}
		}
		return "", secret.Value{}, false
	}
}

// readCredentials returns "user:password" in base64 by registry.
func readCredentials(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, &os.PathError{Op: "read", Path: path, Err: os.ErrPermission} // others may read it: chmod 600
	}
	var c struct {
		Auths map[string]struct {
			Auth string `json:"auth"`
		} `json:"auths"`
	}
	if err := json.NewDecoder(io.LimitReader(f, maxCredentials)).Decode(&c); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for host, a := range c.Auths {
		out[host] = a.Auth
	}
	return out, nil
}
