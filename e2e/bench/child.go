package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/baileyhq/bailey/e2e/bench/measure"
)

// A child is a process that the bench started and will end.
type child struct {
	cmd   *exec.Cmd
	in    io.Closer     // closing it tells our own helpers to end
	lines chan string   // its stdout, line by line; closed at its end
	done  chan struct{} // closed when it has ended
	errs  *tail
}

// A tail keeps the last of what a process said.
type tail struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.b.Len() > 64<<10 {
		t.b.Reset()
	}
	return t.b.Write(p)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(t.b.String())
}

// start starts a process in a group of its own, so that a Ctrl-C reaches the
// bench alone, which then ends what it started.
func start(env []string, name string, args ...string) (*child, error) {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c := &child{cmd: cmd, lines: make(chan string, 1024), done: make(chan struct{}), errs: &tail{}}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	c.in = in
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = c.errs
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(c.done)
		for s := bufio.NewScanner(out); s.Scan(); {
			select {
			case c.lines <- s.Text():
			default: // nobody listens any more
			}
		}
		close(c.lines)
		_ = cmd.Wait()
	}()
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

func (c *child) usage() (measure.Usage, error) { return measure.Of(c.pid()) }

// line returns the next line of its stdout.
func (c *child) line(ctx context.Context, patience time.Duration) (string, error) {
	select {
	case l, ok := <-c.lines:
		if !ok {
			return "", c.ended()
		}
		return l, nil
	case <-time.After(patience):
		return "", fmt.Errorf("%s said nothing for %v: %s", c.cmd.Path, patience, c.errs)
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (c *child) ended() error {
	<-c.done
	return fmt.Errorf("%s ended (%v): %s", c.cmd.Path, c.cmd.ProcessState, c.errs)
}

// stop ends it and waits.
func (c *child) stop() {
	_ = c.in.Close()
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(5 * time.Second):
		_ = c.cmd.Process.Kill()
		<-c.done
	}
}

// until asks every few milliseconds until ok, an error, or the end of patience.
func until(ctx context.Context, patience time.Duration, what string, ok func() (bool, error)) error {
	deadline := time.Now().Add(patience)
	for {
		yes, err := ok()
		if yes {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %v", what, patience)
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run1 runs a command to its end and returns stdout; the error has stderr.
func run1(ctx context.Context, name string, args ...string) (string, error) {
	var out, errb bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errb
	if err := cmd.Run(); err != nil {
		return "", errors.Join(fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err), errors.New(strings.TrimSpace(errb.String())))
	}
	return strings.TrimSpace(out.String()), nil
}
