package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/baileyhq/bailey/internal/client"
	"github.com/baileyhq/bailey/internal/sshconfig"
	"github.com/baileyhq/bailey/internal/sshkey"
)

// sshDir returns ~/.ssh, making it when asked to.
func sshDir(create bool) (string, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		return "", &failure{code: exitFailure, msg: "find your home folder", hint: "set HOME", err: err}
	}
	dir := filepath.Join(home, ".ssh")
	if create {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return "", &failure{code: exitFailure, msg: "make " + dir, err: err}
		}
	}
	return dir, nil
}

// writeWhole writes a file whole or not at all, keeping the mode of the one
// that is there. A link is followed: what it leads to is replaced, not the link.
func writeWhole(path string, text []byte, mode os.FileMode) (err error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	if info, err := os.Stat(path); err == nil {
		if !info.Mode().IsRegular() {
			return &failure{code: exitFailure, msg: path + " is no plain file", hint: "move it away and try again"}
		}
		mode = info.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".bailey-*") // made 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// readFile returns a file's content; nothing for one that is not there.
func readFile(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, &failure{code: exitFailure, msg: "read " + path, err: err}
	}
	return b, nil
}

// door asks the server where its SSH door is. What it says is checked before
// anything is made of it.
func (r *remote) door(ctx context.Context) (sshconfig.Door, error) {
	a, err := r.api.SshAccessWithResponse(ctx)
	if err != nil {
		return sshconfig.Door{}, unreachable(err)
	}
	if a.JSON200 == nil {
		return sshconfig.Door{}, refusal(a.StatusCode(), a.Body)
	}
	if !a.JSON200.Open {
		return sshconfig.Door{}, &failure{code: exitRefused, msg: "this server has no SSH door", hint: `an administrator opens it in the configuration: see "ssh" in docs/configuration.md`}
	}
	d := sshconfig.Door{
		Server: r.p.URL, Host: a.JSON200.Host, Port: int(a.JSON200.Port), User: a.JSON200.User, HostKeys: a.JSON200.HostKeys,
	}
	if a.JSON200.HostCa != nil {
		d.HostCA = *a.JSON200.HostCa
	}
	if err := d.Check(); err != nil {
		return d, &failure{code: exitFailure, msg: err.Error(), hint: "is it a bailey server?"}
	}
	return d, nil
}

// keysOf lists the keys of the account, or with a name of somebody else's.
func (r *remote) keysOf(ctx context.Context, user string) ([]client.SSHKey, error) {
	if user != "" {
		a, err := r.api.ListUserSSHKeysWithResponse(ctx, user)
		if err != nil {
			return nil, unreachable(err)
		}
		if a.JSON200 == nil {
			return nil, refusal(a.StatusCode(), a.Body)
		}
		return a.JSON200.Keys, nil
	}
	a, err := r.api.ListSSHKeysWithResponse(ctx)
	if err != nil {
		return nil, unreachable(err)
	}
	if a.JSON200 == nil {
		return nil, refusal(a.StatusCode(), a.Body)
	}
	return a.JSON200.Keys, nil
}

// identities returns the files of the keys that the account knows, for
// IdentityFile lines: a client that offers every key it has is sent away after
// six. With none, ssh offers what it always offers.
func (r *remote) identities(ctx context.Context) ([]string, error) {
	dir, err := sshDir(false)
	if err != nil {
		return nil, err
	}
	keys, err := r.keysOf(ctx, "")
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, k := range keys {
		known[k.Fingerprint] = true
	}
	var files []string
	if _, err := os.Stat(filepath.Join(dir, sshconfig.KeyName+"-cert.pub")); err == nil {
		files = append(files, "~/.ssh/"+sshconfig.KeyName)
	}
	pubs, _ := filepath.Glob(filepath.Join(dir, "*.pub")) // the pattern is well-formed
	for _, pub := range pubs {
		text, err := os.ReadFile(pub)
		if err != nil || strings.HasSuffix(pub, "-cert.pub") {
			continue
		}
		if key, err := sshkey.ParseLine(string(text)); err == nil && known[key.Fingerprint] {
			files = append(files, "~/.ssh/"+strings.TrimSuffix(filepath.Base(pub), ".pub"))
		}
	}
	return files, nil
}
