package agent

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey/internal/agent/home"
	"github.com/baileyhq/bailey/internal/agent/home/hometest"
)

func TestPlan(t *testing.T) {
	const quick, long = time.Second, time.Minute
	type step struct {
		out  outcome
		safe bool // before it
		wait time.Duration
		give bool
	}
	const soonest = 100 * time.Millisecond
	for name, steps := range map[string][]step{
		"a broken package leads to safe mode after two tries": {
			{outcome{ran: quick, code: 1}, false, soonest, false},
			{outcome{ran: quick, code: 1}, false, soonest, false},
			{outcome{ran: long}, true, time.Second, false},
			{outcome{ran: quick}, true, time.Second, false}, // has worked once: never gives up
			{outcome{ran: quick}, true, 2 * time.Second, false},
			{outcome{ran: quick}, true, 4 * time.Second, false},
			{outcome{ran: quick}, true, 8 * time.Second, false},
			{outcome{ran: quick}, true, 16 * time.Second, false},
			{outcome{ran: quick}, true, 30 * time.Second, false},
			{outcome{ran: quick}, true, 30 * time.Second, false},
		},
		"a long life forgives early ends": {
			{outcome{ran: quick}, false, soonest, false},
			{outcome{ran: long, code: 137}, false, time.Second, false},
			{outcome{ran: quick}, false, soonest, false},
			{outcome{ran: long}, false, time.Second, false},
		},
		"an interpreter that is gone is not asked twice": {
			{outcome{cannot: true}, false, soonest, false},
			{outcome{ran: long}, true, time.Second, false},
		},
		"what never works is given up": {
			{outcome{ran: quick, code: 3}, false, soonest, false},
			{outcome{ran: quick, code: 3}, false, soonest, false},
			{outcome{ran: quick, code: 3}, true, time.Second, false},
			{outcome{ran: quick, code: 3}, true, 2 * time.Second, false},
			{outcome{ran: quick, code: 3}, true, 0, true},
		},
	} {
		var p plan
		for i, s := range steps {
			if p.safe() != s.safe {
				t.Errorf("%s: before step %d safe = %v, want %v", name, i, p.safe(), s.safe)
			}
			if wait, give := p.after(s.out); wait != s.wait || give != s.give {
				t.Errorf("%s: step %d: wait %v, give up %v; want %v, %v", name, i, wait, give, s.wait, s.give)
			}
		}
	}
}

// testJupyter is a jupyter in a fake image, with a token on file.
func testJupyter(t *testing.T, env ...string) *jupyter {
	t.Helper()
	image := hometest.Image(t, "3.13", "exit 0")
	cfg, py := testHome(t, image)
	cfg.Jupyter = jupyterConfig{Addr: "127.0.0.1:8888", BasePath: "/", Root: cfg.Home, TokenFile: filepath.Join(t.TempDir(), "token")}
	hometest.Write(t, cfg.Jupyter.TokenFile, "0123456789abcdef\n", 0o600)
	p := Process{Env: append([]string{"PATH=" + image + "/bin:/bin", "TMPDIR=" + t.TempDir()}, env...), Stdout: os.Stdout, Stderr: os.Stderr}
	j, err := newJupyter(p, slog.New(slog.DiscardHandler), cfg, py, true, newReaper())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.clean)
	return j
}

func TestCommand(t *testing.T) {
	j := testJupyter(t)
	argv, err := j.command(false)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{j.cfg.Venv + "/bin/python3", "-P", "-m", "jupyterlab"}; !slices.Equal(argv[:4], want) {
		t.Errorf("command starts with %q, want %q", argv[:4], want)
	}
	for _, want := range []string{"--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0", "--ServerApp.open_browser=False", "--LabApp.app_dir=" + j.py.Prefix + "/share/jupyter/lab"} {
		if !slices.Contains(argv, want) {
			t.Errorf("command = %q, want %q in it", argv, want)
		}
	}
	if joined := strings.Join(argv, " "); strings.Contains(joined, "0123456789abcdef") || strings.Contains(joined, "allow_root") || strings.Contains(joined, "xsrf") {
		t.Errorf("command = %q: it has the token, root or an XSRF switch in it", argv)
	}
	safe, err := j.command(true)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{j.py.Exe, "-I", "-m", "jupyterlab"}; !slices.Equal(safe[:4], want) {
		t.Errorf("safe mode starts with %q, want %q", safe[:4], want)
	}

	// A JupyterLab of the tenant's own brings its own pages.
	if err := os.MkdirAll(filepath.Join(j.cfg.Venv, "share/jupyter/lab/static"), 0o755); err != nil {
		t.Fatal(err)
	}
	if argv, err := j.command(false); err != nil || slices.ContainsFunc(argv, func(s string) bool { return strings.Contains(s, "app_dir") }) {
		t.Errorf("command = %q, %v; want no app_dir", argv, err)
	}
	// Older Python has no -P; without JupyterLab the plain server will do.
	j.py.Version = "3.10"
	if err := os.Rename(filepath.Join(j.py.Prefix, "lib/python3/dist-packages/jupyterlab"), filepath.Join(j.py.Prefix, "lib/python3/dist-packages/jupyter_server")); err != nil {
		t.Fatal(err)
	}
	if argv, err := j.command(false); err != nil || !slices.Equal(argv[1:3], []string{"-m", "jupyter_server"}) {
		t.Errorf("command = %q, %v; want -m jupyter_server", argv, err)
	}
	// A jupyter-lab with an interpreter of its own is preferred to that.
	hometest.Write(t, filepath.Join(j.py.Prefix, "bin/jupyter-lab"), "#!/bin/sh\n", 0o755)
	if argv, err := j.command(false); err != nil || argv[0] != filepath.Join(j.py.Prefix, "bin/jupyter-lab") {
		t.Errorf("command = %q, %v; want jupyter-lab", argv, err)
	}
	// Nothing at all is an error that says so.
	if err := os.Remove(filepath.Join(j.py.Prefix, "bin/jupyter-lab")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(j.py.Prefix, "lib/python3")); err != nil {
		t.Fatal(err)
	}
	if argv, err := j.command(false); err == nil || codeOf(err) != 127 {
		t.Errorf("command = %q, %v; want an error with code 127", argv, err)
	}
}

func TestEnviron(t *testing.T) {
	j := testJupyter(t, "JUPYTER_TOKEN=leak", "PYTHONPATH=/workspace/lib", "HOME=/root", "PIP_CACHE_DIR=/workspace/.cache/pip", "HOME=/twice")
	env := j.environ(false)
	for name, want := range map[string]string{
		"HOME":                j.cfg.Home,
		"USER":                "alice",
		"LOGNAME":             "alice",
		"VIRTUAL_ENV":         j.cfg.Venv,
		"PATH":                j.cfg.Venv + "/bin:" + j.cfg.Home + "/.local/bin:" + j.py.Prefix + "/bin:/bin",
		"PYTHONPATH":          "/workspace/lib",
		"PIP_CACHE_DIR":       "/workspace/.cache/pip",
		"JUPYTER_TOKEN":       "",
		"JUPYTER_TOKEN_FILE":  j.tokenFile(),
		"JUPYTER_RUNTIME_DIR": j.state + "/runtime",
		"JUPYTER_PATH":        j.py.Prefix + "/share/jupyter", // not /usr
	} {
		if got := getenv(env, name); got != want {
			t.Errorf("%s = %q, want %q", name, got, want)
		}
	}
	if all := strings.Join(env, "\n"); strings.Contains(all, "0123456789abcdef") || strings.Count(all, "HOME=") != 1 {
		t.Errorf("environment = %q: the token, or two homes, in it", env)
	}
	if got := hometest.Read(t, j.tokenFile()); got != "0123456789abcdef" {
		t.Errorf("token file = %q, want no newline", got)
	}
	if fi, err := os.Stat(j.tokenFile()); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("token file has mode %v, %v; want 0600", fi.Mode(), err)
	}

	safe := j.environ(true)
	for name, want := range map[string]string{"PYTHONPATH": "", "VIRTUAL_ENV": "", "PYTHONNOUSERSITE": "1", "JUPYTER_CONFIG_DIR": j.state + "/config"} {
		if got := getenv(safe, name); got != want {
			t.Errorf("in safe mode %s = %q, want %q", name, got, want)
		}
	}
}

// testHome returns a config with a fresh home, and the image's Python.
func testHome(t *testing.T, image string) (config, home.Python) {
	t.Helper()
	dir := t.TempDir()
	cfg := config{Home: dir, Venv: filepath.Join(dir, ".venv"), User: "alice"}
	py, ok := home.FindPython(cfg.Venv+"/bin:"+image+"/bin", cfg.Venv)
	if !ok {
		t.Fatalf("no python found in %s", image)
	}
	return cfg, py
}
