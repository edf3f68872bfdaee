package home

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Apt lets somebody who is not root use apt for what needs no root: look
// for packages and download them. Its lists and its cache go into the home, the
// rest of its state stays the image's. With a mirror the image's own sources are
// left aside. The file is what APT_CONFIG names; without one nothing is written.
func Apt(home, file, mirror string) error {
	if file == "" {
		return nil
	}
	cache := filepath.Join(home, ".cache", "apt")
	var conf strings.Builder
	set := func(name, value string) { fmt.Fprintf(&conf, "%s %q;\n", name, value) }
	set("Dir::State", cache+"/state/")
	set("Dir::State::status", "/var/lib/dpkg/status")
	set("Dir::Cache", cache+"/")
	set("Acquire::Retries", "0") // what was refused once is refused again
	var errs []error
	for _, dir := range []string{"state/lists/partial", "archives/partial"} {
		errs = append(errs, os.MkdirAll(filepath.Join(cache, dir), 0o700))
	}
	if mirror != "" && !strings.ContainsAny(mirror, " \t\r\n[]") {
		release, err := os.ReadFile("/etc/os-release")
		suite := codename(string(release))
		if err == nil && suite == "" {
			err = errors.New("the image does not say which suite its packages are of")
		}
		if err != nil {
			return errors.Join(append(errs, fmt.Errorf("point apt to the mirror: %w", err))...)
		}
		list := filepath.Join(filepath.Dir(file), "apt-sources.list")
		errs = append(errs, replaceFile(list, "deb "+mirror+" "+suite+" main\n"))
		set("Dir::Etc::sourcelist", list)
		set("Dir::Etc::sourceparts", "/dev/null")
	}
	return errors.Join(append(errs, replaceFile(file, conf.String()))...)
}

// codename returns the suite that an os-release file names.
func codename(release string) string {
	for line := range strings.Lines(release) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			name = strings.Trim(name, `"'`)
			if strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == "" {
				return name
			}
		}
	}
	return ""
}

// replaceFile writes a file of ours anew.
func replaceFile(name, text string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return WriteNew(name, text, 0o644)
}
