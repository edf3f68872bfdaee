package workspace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/engine"
)

// A selfCheck runs a class's check once, beside the keeper. The zero value is
// ready.
type selfCheck struct {
	cancel  context.CancelFunc
	running sync.WaitGroup
}

const (
	checkTime  = 3 * time.Minute // importing torch from a cold disk takes long
	maxChecked = 64 << 10        // of what a check may say
)

// start begins the check of a run, unless it was begun before.
func (c *selfCheck) start(ctx context.Context, k *keeper) {
	kind := checkKind(k.run)
	if c.cancel != nil || kind == "" {
		return
	}
	ctx, c.cancel = context.WithCancel(ctx)
	k.out.put(k.stage("selfcheck", begun, "", 0))
	// What the goroutine needs is copied: the rest of k is the keeper's.
	s, run, wsID, out := k.s, k.run, k.wsID, k.out
	c.running.Go(func() {
		begin := time.Now()
		timed, cancel := context.WithTimeout(ctx, checkTime)
		defer cancel()
		words, err := s.checkInside(timed, run, kind)
		if ctx.Err() != nil {
			return // the run is ending, or the server: the next one checks
		}
		status := finished
		if err != nil {
			s.log.WarnContext(ctx, "self check failed", slog.String("workspace", wsID), slog.String("run", run.ID), slog.Any("error", err))
			status, words = broken, "failed: "+err.Error()
			if e, ok := errors.AsType[*runError](err); ok {
				words = "failed: " + e.reason // the cause is for the log
			}
		}
		if err := s.cfg.Store.SetSelfCheck(ctx, run.ID, words); err != nil {
			s.log.WarnContext(ctx, "self check not stored", slog.String("run", run.ID), slog.Any("error", err))
		}
		out.put(bailey.Stage{
			Workspace: wsID, Run: run.ID, Name: "selfcheck", Status: status, Detail: words, At: s.now(), Took: time.Since(begin),
		})
	})
}

// end ends the check and waits for it.
func (c *selfCheck) end() {
	if c.cancel != nil {
		c.cancel()
		c.running.Wait()
	}
}

// checkKind is the check that a run gets: "" for none.
func checkKind(run bailey.Run) string {
	switch kind := run.Class.SelfCheck; kind {
	case "", "none":
		return ""
	case "cuda":
		if len(run.GPUs) == 0 {
			return "torch" // there is no card to look for
		}
		return kind
	default:
		return kind
	}
}

// checkScript returns the Python program of a check. It prints one line of JSON.
func checkScript(kind string) string {
	switch kind {
	case "cuda":
		return `import json, torch
ok = torch.cuda.is_available()
n = torch.cuda.device_count()
total = float((torch.ones(2, 2, device="cuda") @ torch.ones(2, 2, device="cuda")).sum()) if ok else 0
print(json.dumps({"version": str(torch.__version__), "cuda": ok, "devices": n, "sum": total}))`
	case "torch":
		return `import json, torch
total = float((torch.ones(2, 2) @ torch.ones(2, 2)).sum())
print(json.dumps({"version": str(torch.__version__), "sum": total}))`
	case "python":
		return `import json, platform
import IPython, jupyter_server
print(json.dumps({"version": platform.python_version()}))`
	}
	return ""
}

// A checked is what a check says. The tenant's own packages say it, so it is
// shown to the tenant and decides nothing.
type checked struct {
	Version string  `json:"version"`
	CUDA    bool    `json:"cuda"`
	Devices int     `json:"devices"`
	Sum     float64 `json:"sum"`
}

// checkInside runs a check in the run's container, as its tenant, and returns
// the result in our words. An error is a result too: what does not work.
func (s *Service) checkInside(ctx context.Context, run bailey.Run, kind string) (string, error) {
	script := checkScript(kind)
	if script == "" {
		return "", fmt.Errorf("the class asks for a check that does not exist: %q", kind)
	}
	out, code, err := s.runInside(ctx, run.ContainerID, []string{"python3", "-c", script})
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return "", fmt.Errorf("it did not finish within %s", span(checkTime))
	case err != nil:
		return "", &runError{reason: "it could not be run", cause: err}
	case code != 0:
		return "", fmt.Errorf("%s cannot be used%s (exit code %d)", checkSubject(kind), exception(out.stderr), code)
	}
	return judge(kind, len(run.GPUs), out.stdout)
}

func checkSubject(kind string) string {
	switch kind {
	case "cuda":
		return "PyTorch on the GPU"
	case "torch":
		return "PyTorch"
	}
	return "IPython or Jupyter"
}

// judge turns a check's line into words.
func judge(kind string, gpus int, stdout []byte) (string, error) {
	var c checked
	if err := json.Unmarshal(stdout, &c); err != nil {
		return "", errors.New("its output is not what the check prints")
	}
	if !versionRE.MatchString(c.Version) {
		c.Version = "(unknown version)"
	}
	switch {
	case kind == "python":
		return "Python " + c.Version + " with IPython and Jupyter works", nil
	case kind == "cuda" && !c.CUDA:
		return "", fmt.Errorf("PyTorch %s is there but sees no GPU; %s leased", c.Version, many(gpus, "GPU"))
	case kind == "cuda" && c.Devices != gpus:
		return "", fmt.Errorf("PyTorch %s sees %s; %d leased", c.Version, many(c.Devices, "GPU"), gpus)
	case c.Sum != 8:
		return "", fmt.Errorf("PyTorch %s computes a 2×2 product wrongly", c.Version)
	case kind == "cuda":
		return fmt.Sprintf("PyTorch %s works on %s", c.Version, many(gpus, "GPU")), nil
	}
	return "PyTorch " + c.Version + " works", nil
}

var (
	versionRE   = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+_-]{0,39}$`)
	exceptionRE = regexp.MustCompile(`(?m)^([A-Za-z][A-Za-z0-9_.]{0,60}(?:Error|Exception))\b`)
)

// exception returns the name of the last Python exception in a traceback. The
// rest of it is the tenant's text and stays inside.
func exception(stderr []byte) string {
	all := exceptionRE.FindAllSubmatch(stderr, -1)
	if len(all) == 0 {
		return ""
	}
	return ": " + string(all[len(all)-1][1])
}

type output struct{ stdout, stderr []byte }

// runInside runs a command in a container and returns the beginning of what it
// wrote and its exit code. It ends with ctx, whatever the command does. It runs
// in "/": Python looks for modules where it is, and a notebook folder with a
// json.py in it would fail the check.
func (s *Service) runInside(ctx context.Context, containerID string, cmd []string) (output, int, error) {
	sess, err := s.cfg.Engine.Exec(ctx, containerID, engine.ExecSpec{Cmd: cmd, Dir: "/"})
	if err != nil {
		return output{}, 0, err
	}
	defer sess.Close() //nolint:errcheck // the result is known by then
	stop := context.AfterFunc(ctx, func() { _ = sess.Close() })
	defer stop()
	_ = sess.Stdin().Close() // it reads nothing

	var out output
	var reading sync.WaitGroup
	reading.Go(func() { out.stderr = beginning(sess.Stderr()) })
	out.stdout = beginning(sess.Stdout())
	reading.Wait()
	if ctx.Err() != nil {
		return output{}, 0, context.Cause(ctx)
	}
	code, err := sess.Wait(ctx)
	return out, code, err
}

// beginning reads a stream to its end, within reason, and keeps its beginning.
// What floods it stays blocked until its time is over.
func beginning(r io.Reader) []byte {
	kept, _ := io.ReadAll(io.LimitReader(r, maxChecked)) // a broken stream is a short one
	_, _ = io.CopyN(io.Discard, r, 16<<20)
	return kept
}
