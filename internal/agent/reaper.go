package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A reaper is the one place of the program that starts children and the one
// that waits for them. It must be: wait4(-1) takes whichever child has ended,
// so with a second waiter (exec.Cmd.Wait) the two would steal from each other.
type reaper struct {
	mu   sync.Mutex // guards ours, and spans fork and entry in it
	ours map[int]*child
}

// A child is a process that start started.
type child struct {
	pid  int
	done chan struct{} // closed by the reaper when it has ended
	code int           // valid after done: exit code, or 128 + signal

	signal int  // that ended it; 0: it exited
	core   byte // 1: it left a core
}

func newReaper() *reaper {
	return &reaper{ours: map[int]*child{}}
}

// run reaps on every SIGCHLD until ctx ends.
func (r *reaper) run(ctx context.Context, sigchld <-chan os.Signal) {
	for {
		r.reap()
		select {
		case <-ctx.Done():
			return
		case <-sigchld:
		}
	}
}

// reap collects every child that has ended.
func (r *reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		c := r.ours[pid]
		if c == nil {
			continue // an orphan
		}
		delete(r.ours, pid)
		c.code = ws.ExitStatus()
		if ws.Signaled() {
			c.code = 128 + int(ws.Signal())
			c.signal = int(ws.Signal())
			if ws.CoreDump() {
				c.core = 1
			}
		}
		close(c.done)
	}
}

// start starts path as the leader of its own process group. argv[0] is the
// name; the files are the child's 0, 1 and 2. It uses ForkExec rather than
// os/exec, whose Wait would be the second waiter.
func (r *reaper) start(path string, argv, env []string, dir string, files ...*os.File) (*child, error) {
	return r.startWith(&syscall.SysProcAttr{Setpgid: true}, path, argv, env, dir, files...)
}

// startWith is start for a child that is to be the leader of something else.
func (r *reaper) startWith(sys *syscall.SysProcAttr, path string, argv, env []string, dir string, files ...*os.File) (*child, error) {
	fds := make([]uintptr, len(files))
	for i, f := range files {
		fds[i] = f.Fd()
	}
	r.mu.Lock() // also keeps reap from taking a child whose exec failed
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Dir: dir, Env: env, Files: fds,
		Sys: sys,
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	c := &child{pid: pid, done: make(chan struct{})}
	r.ours[pid] = c
	return c, nil
}

// stop ends the child's process group: SIGTERM, and SIGKILL after the grace.
func (c *child) stop(grace time.Duration) {
	_ = unix.Kill(-c.pid, unix.SIGTERM)
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-c.done:
	case <-t.C:
	}
	_ = unix.Kill(-c.pid, unix.SIGKILL) // also what the leader left behind
	<-c.done
}

// endAll gives every other process of the workspace (training runs in tmux,
// SSH sessions) SIGTERM and the rest of the grace to save its work, then
// SIGKILL. Only PID 1 can name them all; elsewhere the group of Jupyter was
// all we started.
func endAll(grace time.Duration) {
	if os.Getpid() != 1 || unix.Kill(-1, unix.SIGTERM) != nil {
		return // nobody is left
	}
	// What an exec brought is no child of ours, so there is no SIGCHLD to wait
	// for: ask until the namespace is empty.
	for until := time.Now().Add(grace); time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		if unix.Kill(-1, 0) != nil {
			return
		}
	}
	_ = unix.Kill(-1, unix.SIGKILL)
}
