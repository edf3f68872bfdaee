// Package home prepares the home of a workspace's user before anything runs in it:
// the shell's start-up files, a virtual environment on the image's Python, and
// where apt keeps what somebody without root downloads. It only ever adds; what is
// there is the tenant's. It runs nothing and asks no environment.
package home

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Prepare fills the home and makes the venv, which is empty if none is wanted. It
// only ever adds: what is there, of whatever kind, is the tenant's. It goes on
// after a problem and returns all of them. found says that there is a Python.
func Prepare(home, venv string, py Python, found bool) []error {
	var errs []error
	try := func(err error) {
		if err != nil && !errors.Is(err, fs.ErrExist) {
			errs = append(errs, err)
		}
	}
	for _, dir := range []string{".cache", ".config", ".local", ".local/bin", ".local/share"} {
		try(os.Mkdir(filepath.Join(home, dir), 0o700))
	}
	for name, text := range dotFiles(venv) {
		try(WriteNew(filepath.Join(home, name), text, 0o644))
	}
	if venv != "" && found {
		try(ensureVenv(venv, py))
	}
	return errs
}

// dotFiles are the shell's start-up files. Terminals and SSH start login
// shells, whose /etc/profile resets PATH; .profile puts the venv back.
func dotFiles(venv string) map[string]string {
	paths := `"$HOME/.local/bin"`
	if venv != "" {
		paths += " " + quote(venv+"/bin")
	}
	profile := `# Read by login shells. Yours to change: it is written once.
for dir in ` + paths + `; do
	case ":$PATH:" in
	*":$dir:"*) ;;
	*) PATH="$dir:$PATH" ;;
	esac
done
unset dir
export PATH
if [ -n "$BASH_VERSION" ] && [ -r "$HOME/.bashrc" ]; then
	. "$HOME/.bashrc"
fi
`
	const bashrc = `# Read by interactive bash. Yours to change: it is written once.
case $- in
*i*) ;;
*) return ;;
esac
HISTCONTROL=ignoreboth
shopt -s checkwinsize histappend
PS1='\u@\h:\w\$ '
alias ls='ls --color=auto'
alias ll='ls -l'
`
	return map[string]string{".profile": profile, ".bashrc": bashrc}
}

// ensureVenv makes the venv if there is none, in a directory beside it that is
// renamed when complete: a crash or a full disk leaves no half of one. It does
// by hand what "python -m venv --system-site-packages" does, in a hundredth of
// the time, and works where the image has no ensurepip.
func ensureVenv(venv string, py Python) error {
	if _, err := os.Lstat(venv); err == nil {
		return growVenv(venv, py)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(venv), ".venv-new-")
	if err != nil {
		return fmt.Errorf("make venv: %w", err)
	}
	err = fillVenv(tmp, venv, py)
	if err == nil {
		err = os.Rename(tmp, venv)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("make venv: %w", err), os.RemoveAll(tmp))
	}
	return nil
}

// growVenv gives an older venv of ours a place for the packages of the image's
// present Python. A venv with an interpreter of its own is left alone.
func growVenv(venv string, py Python) error {
	real, err := filepath.EvalSymlinks(filepath.Join(venv, "bin", "python3"))
	if err != nil || real != py.Real {
		return nil //nolint:nilerr // no interpreter, or another: not ours to judge
	}
	return os.MkdirAll(filepath.Join(venv, "lib", "python"+py.Version, "site-packages"), 0o755) //nolint:gosec // /workspace itself is 0700
}

// fillVenv writes a venv into dir that will be found at venv.
func fillVenv(dir, venv string, py Python) error {
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // as python -m venv; /workspace itself is 0700
		return err
	}
	for _, sub := range []string{"bin", "include", filepath.Join("lib", "python"+py.Version, "site-packages")} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil { //nolint:gosec // see above
			return err
		}
	}
	for name, to := range map[string]string{
		"bin/python3":             py.Exe,
		"bin/python":              "python3",
		"bin/python" + py.Version: "python3",
		"bin/pip3":                "pip",
		"lib64":                   "lib",
	} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		name, text string
		mode       fs.FileMode
	}{
		{"pyvenv.cfg", "home = " + filepath.Dir(py.Exe) + "\ninclude-system-site-packages = true\nversion = " + py.Version + "\nexecutable = " + py.Real + "\n", 0o644},
		{"pip.conf", "[global]\ndisable-pip-version-check = true\n", 0o644},
		{"bin/pip", "#!/bin/sh\nexec " + quote(venv+"/bin/python3") + " -m pip \"$@\"\n", 0o755},
		{"bin/activate", activate(venv), 0o644},
	} {
		if err := WriteNew(filepath.Join(dir, f.name), f.text, f.mode); err != nil {
			return err
		}
	}
	if !py.Has("ipykernel") {
		return nil
	}
	return kernelSpec(filepath.Join(dir, "share", "jupyter", "kernels", "python3"), venv, py)
}

// kernelSpec makes the kernel that runs in the venv. Without it Jupyter would
// offer the image's own, which does not see what "pip install" brought.
func kernelSpec(dir, venv string, py Python) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // /workspace itself is 0700
		return err
	}
	spec, err := json.MarshalIndent(map[string]any{
		"argv":         []string{venv + "/bin/python3", "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}"},
		"display_name": "Python 3 (ipykernel)",
		"language":     "python",
		"metadata":     map[string]any{"debugger": true},
	}, "", " ")
	if err != nil {
		return err
	}
	if err := WriteNew(filepath.Join(dir, "kernel.json"), string(spec)+"\n", 0o644); err != nil {
		return err
	}
	logos, _ := filepath.Glob(filepath.Join(py.Prefix, "share", "jupyter", "kernels", "python3", "logo-*"))
	for _, logo := range logos {
		if err := os.Symlink(logo, filepath.Join(dir, filepath.Base(logo))); err != nil {
			return err
		}
	}
	return nil
}

// activate is the script that people's habits and editors look for.
func activate(venv string) string {
	return `# Use with ". ` + venv + `/bin/activate"; terminals have it on PATH already.
VIRTUAL_ENV=` + quote(venv) + `
export VIRTUAL_ENV
_BAILEY_OLD_PATH=$PATH
PATH="$VIRTUAL_ENV/bin:$PATH"
export PATH
deactivate() {
	PATH=$_BAILEY_OLD_PATH
	export PATH
	unset VIRTUAL_ENV _BAILEY_OLD_PATH
	unset -f deactivate
}
`
}

// WriteNew writes a file that must not be there yet, not even as a symlink.
func WriteNew(path, text string, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// quote quotes s for a POSIX shell.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
