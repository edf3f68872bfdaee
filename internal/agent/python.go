package agent

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const defaultPath = "/usr/local/bin:/usr/bin:/bin"

// A python is an interpreter of the image, found without running it: starting
// Python costs more than everything else the agent does before Jupyter.
type python struct {
	exe     string // /usr/bin/python3
	real    string // /usr/bin/python3.13, with no symlink in it
	version string // "3.13"
	prefix  string // /usr
}

var (
	pythonExe = regexp.MustCompile(`^python(3\.\d+)$`)
	pythonLib = regexp.MustCompile(`/lib/python(3\.\d+)/os\.py$`)
)

// findPython looks for python3 on the image's PATH, leaving out the venv.
func findPython(env []string, venv string) (python, bool) {
	search := getenv(env, "PATH")
	for _, dir := range filepath.SplitList(search + ":" + defaultPath) {
		if !filepath.IsAbs(dir) || venv != "" && filepath.Clean(dir) == filepath.Join(venv, "bin") {
			continue
		}
		if p, ok := pythonIn(dir); ok {
			return p, true
		}
	}
	return python{}, false
}

func pythonIn(dir string) (python, bool) {
	real, err := filepath.EvalSymlinks(filepath.Join(dir, "python3"))
	if err != nil || !executable(real) {
		return python{}, false
	}
	home := filepath.Dir(real)
	p := python{exe: filepath.Join(home, "python3"), real: real, prefix: filepath.Dir(home)}
	if !executable(p.exe) {
		p.exe = real
	}
	if m := pythonExe.FindStringSubmatch(filepath.Base(real)); m != nil {
		p.version = m[1]
		return p, true
	}
	// A plain file called python3: its library tells the version. A shim or
	// wrapper script has no library beside it and is passed over.
	libs, _ := filepath.Glob(filepath.Join(p.prefix, "lib", "python3.*", "os.py"))
	for _, lib := range libs {
		if m := pythonLib.FindStringSubmatch(lib); m != nil {
			p.version = m[1]
			return p, true
		}
	}
	return python{}, false
}

func executable(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
}

// has reports whether module is in one of the interpreter's own library
// directories, or in a further one.
func (p python) has(module string, more ...string) bool {
	v := "python" + p.version
	dirs := slices.Concat(more, []string{
		filepath.Join(p.prefix, "lib", v, "site-packages"),
		filepath.Join(p.prefix, "lib", v, "dist-packages"),
		filepath.Join(p.prefix, "lib", "python3", "dist-packages"),
		filepath.Join(p.prefix, "local", "lib", v, "dist-packages"),
	})
	return slices.ContainsFunc(dirs, func(dir string) bool {
		fi, err := os.Stat(filepath.Join(dir, module))
		return err == nil && fi.IsDir()
	})
}

// knowsP reports whether the interpreter has the option -P (3.11 and later).
func (p python) knowsP() bool {
	minor, err := strconv.Atoi(strings.TrimPrefix(p.version, "3."))
	return err == nil && minor >= 11
}

// lookPath finds an executable on a PATH.
func lookPath(path, name string) (string, bool) {
	for dir := range strings.SplitSeq(path, ":") {
		if p := filepath.Join(dir, name); filepath.IsAbs(dir) && executable(p) {
			return p, true
		}
	}
	return "", false
}
