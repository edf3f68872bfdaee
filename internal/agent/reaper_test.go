package agent

import (
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey/internal/agent/home"
)

// newTestReaper runs a reaper that the test process's orphans come to.
func newTestReaper(t *testing.T) *reaper {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGCHLD)
	r := newReaper()
	done := make(chan struct{})
	go func() { defer close(done); r.run(t.Context(), ch) }()
	t.Cleanup(func() { // the context is done by now
		<-done
		signal.Stop(ch)
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
	})
	return r
}

func sh(t *testing.T, r *reaper, script string) *child {
	t.Helper()
	c, err := r.start("/bin/sh", []string{"sh", "-c", script}, []string{"PATH=" + home.DefaultPath}, "/")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(soon); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("still not: %s", what)
		}
	}
}

// TestReaper starts real children that end at once, end by a signal, and leave
// orphans behind, all at the same time: everyone gets their own status and no
// zombie stays.
func TestReaper(t *testing.T) {
	r := newTestReaper(t)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			c := sh(t, r, "(true &) ; exit "+strconv.Itoa(i))
			<-c.done
			if c.code != i {
				t.Errorf("child %d ended with %d, want %d", c.pid, c.code, i)
			}
		})
	}
	wg.Go(func() {
		c := sh(t, r, "kill -9 $$")
		if <-c.done; c.code != 128+9 {
			t.Errorf("killed child ended with %d, want 137", c.code)
		}
	})
	wg.Wait()
	waitFor(t, "every orphan reaped", func() bool { return !hasZombie(os.Getpid()) })
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.ours) != 0 {
		t.Errorf("%d of our children are still waited for", len(r.ours))
	}
}

// TestReaperFailedExec: the child of a failed exec is collected by start
// itself, and its number is not kept.
func TestReaperFailedExec(t *testing.T) {
	r := newTestReaper(t)
	for range 20 {
		if c, err := r.start("/no/such/program", []string{"x"}, nil, "/"); err == nil {
			t.Fatalf("start of nothing gave child %d", c.pid)
		}
	}
	if c := sh(t, r, "exit 7"); true {
		if <-c.done; c.code != 7 {
			t.Errorf("child ended with %d, want 7", c.code)
		}
	}
}

func TestChildStop(t *testing.T) {
	r := newTestReaper(t)
	polite := sh(t, r, "trap 'exit 3' TERM; echo; while :; do sleep 0.01; done")
	waitFor(t, "trap set", func() bool { return caught(polite.pid, unix.SIGTERM) })
	polite.stop(soon)
	if polite.code != 3 {
		t.Errorf("polite child ended with %d, want 3", polite.code)
	}
	stubborn := sh(t, r, "trap '' TERM; while :; do sleep 0.01; done")
	waitFor(t, "signal ignored", func() bool { return ignored(stubborn.pid, unix.SIGTERM) })
	stubborn.stop(50 * time.Millisecond)
	if stubborn.code != 128+9 {
		t.Errorf("stubborn child ended with %d, want 137", stubborn.code)
	}
}

func caught(pid int, s unix.Signal) bool  { return inMask(pid, "SigCgt:", s) }
func ignored(pid int, s unix.Signal) bool { return inMask(pid, "SigIgn:", s) }

func inMask(pid int, field string, s unix.Signal) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(data), field)
	mask, err := strconv.ParseUint(strings.Fields(rest)[0], 16, 64)
	return err == nil && mask&(1<<(s-1)) != 0
}
