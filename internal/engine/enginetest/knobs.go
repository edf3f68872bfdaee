package enginetest

import (
	"time"

	"github.com/baileyhq/bailey/internal/engine"
)

// What can lie where the agent's socket should be, for Plant.
const (
	SocketAgent   = ""          // the agent's own
	SocketAbsent  = "absent"    // the agent does not listen
	SocketLink    = "symlink"   // a link to a socket elsewhere
	SocketFile    = "file"      // a file
	SocketForeign = "root-sock" // a socket that is not the tenant's
	SocketPeer    = "root-peer" // the tenant's by name, but somebody else listens
)

func hostileSocket(kind string) bool { return kind != SocketAgent && kind != SocketAbsent }

// FailNext makes the next calls of a method ("Create", "Start", …) return
// these errors, one each; a nil lets one call through.
func (f *Fake) FailNext(method string, errs ...error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failures[method] = append(f.failures[method], errs...)
}

// Delay makes every call of a method wait before it does anything; 0 ends it.
func (f *Fake) Delay(method string, d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delays[method] = d
}

// Calls returns how often a method was called.
func (f *Fake) Calls(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[method]
}

// SetDown makes the daemon not answer (true), or answer again (false).
// Containers go on running, as with live-restore; watchers get a "resync" when
// it is back.
func (f *Fake) SetDown(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	back := f.down && !down
	f.down = down
	if back {
		f.resync()
	}
}

// Resync tells every watcher that events may have been lost.
func (f *Fake) Resync() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resync()
}

func (f *Fake) resync() {
	for w := range f.watchers {
		w.push(engine.Event{Action: "resync"})
	}
}

// DropEvents makes the next n events not reach anybody.
func (f *Fake) DropEvents(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dropEvents = n
}

// FailStarts makes every Start fail with err, as an engine does that is out of
// memory or lacks a device; nil ends it.
func (f *Fake) FailStarts(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.startErr = err
}

// with runs fn on the container of a run of this installation, if there is one.
func (f *Fake) with(run string, fn func(*box)) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.byRun(run)
	if b != nil {
		fn(b)
	}
	return b != nil
}

// Kill makes the running container of a run exit by itself. It reports whether
// there was one.
func (f *Fake) Kill(run string, exitCode int) bool {
	running := false
	f.with(run, func(b *box) {
		if running = b.status.Running; running {
			f.end(b, exitCode, false)
		}
	})
	return running
}

// OOM makes the running container of a run die for want of memory.
func (f *Fake) OOM(run string) bool {
	running := false
	f.with(run, func(b *box) {
		if running = b.status.Running; running {
			f.end(b, 137, true)
		}
	})
	return running
}

// Restart makes the running container of a run exit and start again, as a
// daemon does that somebody told to restart it: same id, another StartedAt.
func (f *Fake) Restart(run string) bool {
	running := false
	f.with(run, func(b *box) {
		if running = b.status.Running; running {
			f.end(b, 1, false)
			f.begin(b)
		}
	})
	return running
}

// Vanish removes the container of a run as somebody with access to the daemon
// would.
func (f *Fake) Vanish(run string) bool {
	return f.with(run, func(b *box) {
		if b.status.Running {
			f.end(b, 137, false)
		}
		delete(f.boxes, b.status.ID)
		f.emit(b, "destroy")
	})
}

// Tamper changes the live container of a run, so that Verify finds this.
func (f *Fake) Tamper(run string, found ...engine.Finding) bool {
	return f.with(run, func(b *box) { b.tampered = append(b.tampered, found...) })
}

// Plant puts something else where the agent's socket of a run should be.
func (f *Fake) Plant(run, kind string) bool {
	return f.with(run, func(b *box) { b.socket = kind })
}

// Stubborn makes the container of a run ignore SIGTERM: Stop then takes its
// whole grace.
func (f *Fake) Stubborn(run string) bool {
	return f.with(run, func(b *box) { b.stubborn = true })
}

// SetLogs sets what the container of a run has written so far.
func (f *Fake) SetLogs(run, text string) bool {
	return f.with(run, func(b *box) { b.logs = text })
}

// SetUsage sets what the container of a run consumes.
func (f *Fake) SetUsage(run string, u engine.Usage) bool {
	return f.with(run, func(b *box) { b.usage = u })
}

// SetImages replaces the images.
func (f *Fake) SetImages(images ...Image) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.images = images
}

// SetRegistry sets what can be pulled, by "repository@sha256:…".
func (f *Fake) SetRegistry(images map[string]Image) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.registry = images
}

// SetDial replaces what answers inside workspaces, for connections from now on.
func (f *Fake) SetDial(answer DialFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cfg.Dial = answer
}

// SetExec replaces what runs inside workspaces, for execs from now on.
func (f *Fake) SetExec(run ExecFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cfg.Exec = run
}
