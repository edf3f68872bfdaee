package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/baileyhq/bailey/internal/agent/home"
)

// A jupyter keeps one Jupyter server running.
type jupyter struct {
	p     Process
	log   *slog.Logger
	cfg   config
	py    home.Python
	found bool // py is there
	kids  *reaper
	state string // private directory on tmpfs: token, runtime files
	null  *os.File
}

// newJupyter copies the token to a file only we can read and makes Jupyter's
// runtime directory. Both are on tmpfs: neither the token nor the copy of it
// that Jupyter writes into its runtime file outlives the run.
func newJupyter(p Process, log *slog.Logger, cfg config, py home.Python, found bool, kids *reaper) (*jupyter, error) {
	token, err := cfg.token()
	if err != nil {
		return nil, fmt.Errorf("read token: %w", err)
	}
	state, err := p.privateDir()
	if err != nil {
		return nil, err
	}
	j := &jupyter{p: p, log: log, cfg: cfg, py: py, found: found, kids: kids, state: state}
	err = errors.Join(
		home.WriteNew(j.tokenFile(), token, 0o600),
		os.Mkdir(filepath.Join(state, "runtime"), 0o700),
		os.Mkdir(filepath.Join(state, "config"), 0o700),
		os.Mkdir(filepath.Join(state, "data"), 0o700),
	)
	if err == nil {
		j.null, err = os.Open(os.DevNull)
	}
	if err != nil {
		j.clean()
		return nil, err
	}
	return j, nil
}

func (j *jupyter) tokenFile() string { return filepath.Join(j.state, "token") }

func (j *jupyter) clean() {
	if j.null != nil {
		_ = j.null.Close()
	}
	_ = os.RemoveAll(j.state)
}

// keep runs Jupyter until ctx ends, restarting it when it dies, and returns 0;
// or, when it cannot be started at all, the code it ended with.
func (j *jupyter) keep(ctx context.Context, begin time.Time) int {
	var plan plan
	for {
		safe := plan.safe()
		started := time.Now()
		c, err := j.start(safe)
		if err == nil {
			j.log.InfoContext(ctx, "jupyter started", slog.Int("pid", c.pid), slog.Bool("safe_mode", safe),
				slog.Float64("agent_ms", ms(begin)))
			select {
			case <-ctx.Done():
				c.stop(j.cfg.grace() * 3 / 4) // the rest is for everything else
				return 0
			case <-c.done:
			}
		}
		out := outcome{ran: time.Since(started), cannot: err != nil}
		if err != nil {
			out.code = codeOf(err)
			j.log.ErrorContext(ctx, "jupyter does not start", slog.Bool("safe_mode", safe), slog.String("err", err.Error()))
		} else {
			out.code = c.code
			j.log.WarnContext(ctx, "jupyter ended", slog.Int("code", c.code), slog.Bool("safe_mode", safe), slog.Float64("ran_ms", ms(started)))
		}
		wait, give := plan.after(out)
		if give {
			return cmp.Or(out.code, exitFailed)
		}
		if plan.safe() && !safe {
			j.log.WarnContext(ctx, "jupyter keeps ending early; starting it in safe mode, without the packages and settings of the workspace",
				slog.String("hint", "undo the last pip install or configuration change, then stop and start the workspace"))
		}
		select {
		case <-ctx.Done():
			return 0
		case <-time.After(wait):
		}
	}
}

// early is how soon an end counts as a failed start.
const early = 20 * time.Second

const (
	maxVenvFails = 2
	maxSafeFails = 3
	maxWait      = 30 * time.Second
)

// A plan decides how Jupyter is started next, from how it ended before. Its
// zero value starts it with the workspace's own packages.
type plan struct {
	up        bool // it has run for a while, in this life of the agent
	venvFails int  // early ends in a row, with the workspace's packages
	safeFails int  // and without
}

// An outcome is how one life of Jupyter ended.
type outcome struct {
	ran    time.Duration
	code   int
	cannot bool // it did not even start
}

func (p *plan) safe() bool { return p.venvFails >= maxVenvFails }

// after takes an outcome in and says how long to wait before the next start,
// or that it is pointless: it has never worked, not even in safe mode.
func (p *plan) after(o outcome) (wait time.Duration, give bool) {
	if o.ran >= early {
		*p = plan{up: true, venvFails: p.venvFails}
		if !p.safe() {
			p.venvFails = 0
		}
		return time.Second, false
	}
	if !p.safe() {
		p.venvFails++
		if o.cannot { // the interpreter itself is broken; no need to ask twice
			p.venvFails = maxVenvFails
		}
		return 100 * time.Millisecond, false
	}
	p.safeFails++
	if !p.up && p.safeFails >= maxSafeFails {
		return 0, true
	}
	return min(time.Second<<min(p.safeFails-1, 10), maxWait), false
}

// codeOf gives a failed start the code that a shell would.
func codeOf(err error) int {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 127
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.ENOEXEC):
		return 126
	}
	return exitFailed
}

// start starts Jupyter once.
func (j *jupyter) start(safe bool) (*child, error) {
	argv, err := j.command(safe)
	if err != nil {
		return nil, err
	}
	// Python before 3.11 puts the working directory on the module path and
	// cannot be told not to: a notebook folder with a random.py in it would
	// break the server.
	dir := j.cfg.Jupyter.Root
	if !j.py.KnowsP() {
		dir = "/"
	}
	return j.kids.start(argv[0], argv, j.environ(safe), dir, j.null, j.p.Stdout, j.p.Stderr)
}

// command returns Jupyter's command line. There is no secret on it: everyone
// in the workspace can read it.
func (j *jupyter) command(safe bool) ([]string, error) {
	argv, err := j.program(safe)
	if err != nil {
		return nil, err
	}
	host, port := j.cfg.splitAddr()
	argv = append(argv,
		"--ServerApp.ip="+host,
		"--ServerApp.port="+port,
		"--ServerApp.port_retries=0",
		"--ServerApp.base_url="+j.cfg.Jupyter.BasePath,
		"--ServerApp.root_dir="+j.cfg.Jupyter.Root,
		"--ServerApp.open_browser=False",
		"--ServerApp.quit_button=False",
		"--ServerApp.terminals_enabled=True",
		// Nothing reaches this port but through the agent, which is the same
		// as through the gateway or the tenant's own SSH; the Host check
		// against rebinding guards browsers on the same machine.
		"--ServerApp.allow_remote_access=True",
		// What idles is the server's to judge.
		"--ServerApp.shutdown_no_activity_timeout=0",
		"--MappingKernelManager.cull_idle_timeout=0",
		"--TerminalManager.cull_inactive_timeout=0",
		// There is no network to ask for news, updates or extensions.
		"--LabApp.news_url=None",
		"--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
		"--LabApp.extension_manager=readonly",
	)
	if dir := j.labDir(safe); dir != "" {
		argv = append(argv, "--LabApp.app_dir="+dir)
	}
	return argv, nil
}

// program chooses what to run: JupyterLab in the venv's Python, the image's
// jupyter-lab whatever its interpreter, or a Jupyter server without the Lab.
func (j *jupyter) program(safe bool) ([]string, error) {
	own := j.sitePackages()
	exe, flags := filepath.Join(j.cfg.Venv, "bin", "python3"), []string(nil)
	if j.py.KnowsP() {
		flags = []string{"-P"} // not the working directory
	}
	if safe {
		flags = []string{"-I"} // nor PYTHON* variables, nor ~/.local
	}
	if safe || j.cfg.Venv == "" {
		exe = j.py.Exe
	}
	if safe {
		own = nil
	}
	for _, module := range []string{"jupyterlab", "jupyter_server"} {
		if j.found && j.py.Has(module, own...) {
			return slices.Concat([]string{exe}, flags, []string{"-m", module}), nil
		}
		if lab, ok := lookPath(cmp.Or(getenv(j.p.Env, "PATH"), home.DefaultPath), "jupyter-lab"); ok {
			return []string{lab}, nil
		}
	}
	return nil, fmt.Errorf("this image has no JupyterLab and no Jupyter server: %w", fs.ErrNotExist)
}

// sitePackages are the directories of the tenant's own packages.
func (j *jupyter) sitePackages() []string {
	v := filepath.Join("lib", "python"+j.py.Version, "site-packages")
	dirs := []string{filepath.Join(j.cfg.Home, ".local", v)}
	if j.cfg.Venv != "" {
		dirs = append(dirs, filepath.Join(j.cfg.Venv, v))
	}
	return dirs
}

// labDir is where JupyterLab's pages are, when its own guess would be wrong:
// in a venv it looks below the venv only.
func (j *jupyter) labDir(safe bool) string {
	const index = "share/jupyter/lab"
	there := func(prefix string) bool {
		_, err := os.Stat(filepath.Join(prefix, index, "static"))
		return err == nil
	}
	if safe || j.cfg.Venv == "" || there(j.cfg.Venv) {
		return ""
	}
	for _, prefix := range []string{j.py.Prefix, filepath.Join(j.py.Prefix, "local")} {
		if j.found && there(prefix) {
			return filepath.Join(prefix, index)
		}
	}
	return ""
}

// environ is what Jupyter and, through it, kernels and terminals get. The
// token is in it as a file name only, so that a notebook that prints its
// environment does not print the token.
func (j *jupyter) environ(safe bool) []string {
	env := newEnviron(j.p.Env)
	env.drop("JUPYTER_TOKEN", "JUPYTERLAB_DIR", "PYTHONHOME")
	env.set("HOME", j.cfg.Home)
	env.set("USER", j.cfg.User)
	env.set("LOGNAME", j.cfg.User)
	env.fill("SHELL", "/bin/bash")
	env.fill("LANG", "C.UTF-8")
	env.set("JUPYTER_TOKEN_FILE", j.tokenFile())
	env.set("JUPYTER_RUNTIME_DIR", filepath.Join(j.state, "runtime"))

	path := filepath.Join(j.cfg.Home, ".local", "bin")
	if j.cfg.Venv != "" {
		path = filepath.Join(j.cfg.Venv, "bin") + ":" + path
		env.set("VIRTUAL_ENV", j.cfg.Venv)
	}
	env.prepend("PATH", path, home.DefaultPath)
	if p := j.py.Prefix; j.found && p != "/usr" && p != "/usr/local" {
		// A Python elsewhere (conda, say) has its Jupyter files there, where a
		// server in the venv would not look.
		env.prepend("JUPYTER_PATH", filepath.Join(p, "share", "jupyter"), "")
		env.prepend("JUPYTER_CONFIG_PATH", filepath.Join(p, "etc", "jupyter"), "")
	}
	if safe {
		env.drop("PYTHONPATH", "PYTHONSTARTUP", "PYTHONUSERBASE", "VIRTUAL_ENV", "JUPYTER_PATH", "JUPYTER_CONFIG_PATH")
		env.set("PYTHONNOUSERSITE", "1") // for kernels, which do not inherit -I
		env.set("JUPYTER_CONFIG_DIR", filepath.Join(j.state, "config"))
		env.set("JUPYTER_DATA_DIR", filepath.Join(j.state, "data"))
	}
	return env.list
}

// environ is a list of K=V without doubles.
type environ struct{ list []string }

func newEnviron(from []string) *environ {
	e := &environ{}
	for _, kv := range from {
		if k, v, ok := strings.Cut(kv, "="); ok {
			e.set(k, v)
		}
	}
	return e
}

func (e *environ) drop(names ...string) {
	e.list = slices.DeleteFunc(e.list, func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		return slices.Contains(names, k)
	})
}

func (e *environ) set(k, v string) {
	e.drop(k)
	e.list = append(e.list, k+"="+v)
}

func (e *environ) fill(k, v string) {
	if getenv(e.list, k) == "" {
		e.set(k, v)
	}
}

// prepend puts v before what a path variable has, or before a default, and
// leaves out entries that are there twice.
func (e *environ) prepend(k, v, otherwise string) {
	var parts []string
	for p := range strings.SplitSeq(v+":"+cmp.Or(getenv(e.list, k), otherwise), ":") {
		if p != "" && !slices.Contains(parts, p) {
			parts = append(parts, p)
		}
	}
	e.set(k, strings.Join(parts, ":"))
}
