package home

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// DefaultPath is where programs are looked for at the end.
const DefaultPath = "/usr/local/bin:/usr/bin:/bin"

// A Python is an interpreter of the image, found without running it: starting
// Python costs more than everything else the agent does before Jupyter.
type Python struct {
	Exe     string // /usr/bin/python3
	Real    string // /usr/bin/python3.13, with no symlink in it
	Version string // "3.13"
	Prefix  string // /usr
}

var (
	pythonExe = regexp.MustCompile(`^python(3\.\d+)$`)
	pythonLib = regexp.MustCompile(`/lib/python(3\.\d+)/os\.py$`)
)

// FindPython looks for python3 on the image's PATH, leaving out the venv.
func FindPython(search, venv string) (Python, bool) {
	for _, dir := range filepath.SplitList(search + ":" + DefaultPath) {
		if !filepath.IsAbs(dir) || venv != "" && filepath.Clean(dir) == filepath.Join(venv, "bin") {
			continue
		}
		if p, ok := pythonIn(dir); ok {
			return p, true
		}
	}
	return Python{}, false
}

func pythonIn(dir string) (Python, bool) {
	real, err := filepath.EvalSymlinks(filepath.Join(dir, "python3"))
	if err != nil || !executable(real) {
		return Python{}, false
	}
	home := filepath.Dir(real)
	p := Python{Exe: filepath.Join(home, "python3"), Real: real, Prefix: filepath.Dir(home)}
	if !executable(p.Exe) {
		p.Exe = real
	}
	if m := pythonExe.FindStringSubmatch(filepath.Base(real)); m != nil {
		p.Version = m[1]
		return p, true
	}
	// A plain file called python3: its library tells the version. A shim or
	// wrapper script has no library beside it and is passed over.
	libs, _ := filepath.Glob(filepath.Join(p.Prefix, "lib", "python3.*", "os.py"))
	for _, lib := range libs {
		if m := pythonLib.FindStringSubmatch(lib); m != nil {
			p.Version = m[1]
			return p, true
		}
	}
	return Python{}, false
}

func executable(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
}

// Has reports whether module is in one of the interpreter's own library
// directories, or in a further one.
func (p Python) Has(module string, more ...string) bool {
	v := "python" + p.Version
	dirs := slices.Concat(more, []string{
		filepath.Join(p.Prefix, "lib", v, "site-packages"),
		filepath.Join(p.Prefix, "lib", v, "dist-packages"),
		filepath.Join(p.Prefix, "lib", "python3", "dist-packages"),
		filepath.Join(p.Prefix, "local", "lib", v, "dist-packages"),
	})
	return slices.ContainsFunc(dirs, func(dir string) bool {
		fi, err := os.Stat(filepath.Join(dir, module))
		return err == nil && fi.IsDir()
	})
}

// KnowsP reports whether the interpreter has the option -P (3.11 and later).
func (p Python) KnowsP() bool {
	minor, err := strconv.Atoi(strings.TrimPrefix(p.Version, "3."))
	return err == nil && minor >= 11
}
