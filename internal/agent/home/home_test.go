package home

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/agent/home/hometest"
)

// A place is a home and its venv.
type place struct{ Home, Venv string }

// testHome returns a fresh home, and the image's Python.
func testHome(t *testing.T, image string) (place, Python) {
	t.Helper()
	home := t.TempDir()
	cfg := place{home, filepath.Join(home, ".venv")}
	py, ok := FindPython(cfg.Venv+"/bin:"+image+"/bin", cfg.Venv)
	if !ok {
		t.Fatalf("no python found in %s", image)
	}
	return cfg, py
}

func TestFindPython(t *testing.T) {
	image := hometest.Image(t, "3.13", "exit 0")
	_, py := testHome(t, image)
	if want := (Python{filepath.Join(image, "bin/python3"), filepath.Join(image, "bin/python3.13"), "3.13", image}); py != want {
		t.Errorf("FindPython = %+v, want %+v", py, want)
	}

	plain := t.TempDir() // /opt/python/bin/python3 is the program itself
	for _, dir := range []string{"bin", "lib/python3.12"} {
		if err := os.MkdirAll(filepath.Join(plain, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	hometest.Write(t, filepath.Join(plain, "bin/python3"), "#!/bin/sh\n", 0o755)
	hometest.Write(t, filepath.Join(plain, "lib/python3.12/os.py"), "", 0o644)
	shim := t.TempDir() // a version manager's wrapper has no library beside it
	hometest.Write(t, filepath.Join(shim, "python3"), "#!/bin/sh\n", 0o755)
	if py, ok := FindPython("relative:"+shim+":"+plain+"/bin", ""); !ok || py.Version != "3.12" || py.Prefix != plain {
		t.Errorf("FindPython = %+v, %v; want 3.12 of %s", py, ok, plain)
	}
}

func TestVenvIsMadeOnceAndKept(t *testing.T) {
	image := hometest.Image(t, "3.13", `echo "$0 $*"`)
	cfg, py := testHome(t, image)
	if errs := Prepare(cfg.Home, cfg.Venv, py, true); errs != nil {
		t.Fatalf("Prepare: %v", errs)
	}
	cfgText := hometest.Read(t, filepath.Join(cfg.Venv, "pyvenv.cfg"))
	for _, want := range []string{"home = " + image + "/bin\n", "include-system-site-packages = true\n", "version = 3.13\n"} {
		if !strings.Contains(cfgText, want) {
			t.Errorf("pyvenv.cfg = %q, want %q in it", cfgText, want)
		}
	}
	if real, err := filepath.EvalSymlinks(filepath.Join(cfg.Venv, "bin/python")); err != nil || real != py.Real {
		t.Errorf("bin/python is %s, %v; want %s", real, err, py.Real)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(cfg.Venv, "bin/pip3"), "install", "a b").CombinedOutput()
	if want := cfg.Venv + "/bin/python3 -m pip install a b\n"; err != nil || string(out) != want {
		t.Errorf("pip ran %q, %v; want %q", out, err, want)
	}
	if spec := hometest.Read(t, filepath.Join(cfg.Venv, "share/jupyter/kernels/python3/kernel.json")); !strings.Contains(spec, cfg.Venv+"/bin/python3") {
		t.Errorf("kernel.json = %s, want the venv's python in it", spec)
	}
	if got := hometest.Read(t, filepath.Join(cfg.Venv, "share/jupyter/kernels/python3/logo-svg.svg")); got != "<svg/>" {
		t.Errorf("logo = %q", got)
	}
	for dir, mode := range map[string]fs.FileMode{".cache": 0o700, ".local": 0o700, ".local/bin": 0o700, ".config": 0o700} {
		if fi, err := os.Stat(filepath.Join(cfg.Home, dir)); err != nil || fi.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, %v; want %v", dir, fi.Mode(), err, mode)
		}
	}

	// A second start, also one on a newer image, adds and changes nothing that
	// is the tenant's.
	pkg := filepath.Join(cfg.Venv, "lib/python3.13/site-packages/mine.py")
	hometest.Write(t, pkg, "X = 42", 0o644)
	hometest.Write(t, filepath.Join(cfg.Venv, "pyvenv.cfg"), "home = /elsewhere\n", 0o644)
	hometest.Write(t, filepath.Join(cfg.Home, ".profile"), "# mine", 0o644)
	if err := os.Rename(filepath.Join(image, "bin/python3.13"), filepath.Join(image, "bin/python3.14")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(image, "bin/python3")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("python3.14", filepath.Join(image, "bin/python3")); err != nil {
		t.Fatal(err)
	}
	newer, _ := FindPython(image+"/bin", cfg.Venv)
	if errs := Prepare(cfg.Home, cfg.Venv, newer, true); errs != nil {
		t.Fatalf("second prepare: %v", errs)
	}
	for path, want := range map[string]string{pkg: "X = 42", filepath.Join(cfg.Venv, "pyvenv.cfg"): "home = /elsewhere\n", filepath.Join(cfg.Home, ".profile"): "# mine"} {
		if got := hometest.Read(t, path); got != want {
			t.Errorf("%s is now %q, want %q", path, got, want)
		}
	}
	if _, err := os.Stat(filepath.Join(cfg.Venv, "lib/python3.14/site-packages")); err != nil {
		t.Errorf("no place for the newer Python's packages: %v", err)
	}
}

// TestPrepareTouchesNothingForeign: whatever the tenant has put in the way
// stays, and no half venv is left when one cannot be made.
func TestPrepareTouchesNothingForeign(t *testing.T) {
	image := hometest.Image(t, "3.13", "exit 0")
	t.Run("dangling symlink as venv", func(t *testing.T) {
		cfg, py := testHome(t, image)
		if err := os.Symlink("/nowhere", cfg.Venv); err != nil {
			t.Fatal(err)
		}
		_ = Prepare(cfg.Home, cfg.Venv, py, true)
		if to, err := os.Readlink(cfg.Venv); err != nil || to != "/nowhere" {
			t.Errorf("the venv is now %q, %v", to, err)
		}
	})
	t.Run("symlink as .profile is not followed", func(t *testing.T) {
		cfg, py := testHome(t, image)
		aim := filepath.Join(t.TempDir(), "aim")
		if err := os.Symlink(aim, filepath.Join(cfg.Home, ".profile")); err != nil {
			t.Fatal(err)
		}
		_ = Prepare(cfg.Home, cfg.Venv, py, true)
		if _, err := os.Lstat(aim); err == nil {
			t.Error("prepare wrote through a symlink")
		}
	})
	t.Run("no python", func(t *testing.T) {
		cfg, _ := testHome(t, image)
		if errs := Prepare(cfg.Home, cfg.Venv, Python{}, false); errs != nil {
			t.Errorf("Prepare: %v", errs)
		}
		if _, err := os.Lstat(cfg.Venv); err == nil {
			t.Error("a venv was made of nothing")
		}
	})
	t.Run("home that cannot be written", func(t *testing.T) {
		cfg, py := testHome(t, image)
		cfg.Home, cfg.Venv = "/proc/self/nope", "/proc/self/nope/.venv"
		if errs := Prepare(cfg.Home, cfg.Venv, py, true); len(errs) == 0 {
			t.Error("prepare found no problem")
		}
	})
	t.Run("half-made venv is taken away", func(t *testing.T) {
		cfg, py := testHome(t, image)
		py.Version = "3.13/../../../../../../proc/x" // a place that cannot be made
		if errs := Prepare(cfg.Home, cfg.Venv, py, true); len(errs) == 0 {
			t.Error("prepare found no problem")
		}
		left, _ := filepath.Glob(filepath.Join(cfg.Home, ".venv*"))
		if len(left) > 0 {
			t.Errorf("left behind: %q", left)
		}
	})
}

// TestProfilePutsTheVenvBack runs the real shell: /etc/profile has reset PATH.
func TestProfilePutsTheVenvBack(t *testing.T) {
	cfg, py := testHome(t, hometest.Image(t, "3.13", "exit 0"))
	if errs := Prepare(cfg.Home, cfg.Venv, py, true); errs != nil {
		t.Fatal(errs)
	}
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `. "$HOME/.profile"; . "$HOME/.profile"; echo "$PATH"`)
	cmd.Env = []string{"HOME=" + cfg.Home, "PATH=/usr/bin:/bin"}
	out, err := cmd.CombinedOutput()
	if want := cfg.Venv + "/bin:" + cfg.Home + "/.local/bin:/usr/bin:/bin\n"; err != nil || string(out) != want {
		t.Errorf("PATH = %q, %v; want %q", out, err, want)
	}
}
