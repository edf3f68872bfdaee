package sshgate

import (
	"errors"
	"io"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/sshlive"
	"github.com/baileyhq/bailey/internal/workspace"
)

// pipeKind says how the output of a task is looked at.
func pipeKind(t task, tty bool, p Policy) filter.PipeKind {
	switch {
	case tty:
		return filter.Screen
	case t.kind == sshlive.SFTP:
		return filter.Unseen // file by file, see package files
	case p.Output == OutputWatch, isTransfer(t.line):
		return filter.Watched
	}
	return filter.Guess
}

// inputKind says how what goes into a task is looked at. Nothing of it is ever
// changed.
func inputKind(t task, tty bool) filter.PipeKind {
	switch {
	case t.kind == sshlive.SFTP:
		return filter.Unseen
	case tty:
		return filter.Text
	}
	return filter.Watched
}

// An sftpSeen is what is done about what is seen in an sftp session.
type sftpSeen struct {
	s    *session
	at   *place
	kind filter.PipeKind
}

func (s *session) seen(at *place, p Policy) sftpSeen {
	kind := filter.Watched
	if p.Files == FilesBlock {
		kind = filter.Guarded
	}
	return sftpSeen{s: s, at: at, kind: kind}
}

// Pipe implements [files.Seen].
func (w sftpSeen) Pipe(input bool, path string) *filter.Pipe {
	return w.at.scope.Pipe(filter.SSH, input, w.kind, 0, path)
}

// Event implements [files.Seen].
func (w sftpSeen) Event(e sshlive.Event) { w.s.rec.event(e) }

// Refused implements [files.Seen].
func (w sftpSeen) Refused(r *filter.Refusal) { w.s.blocked(r) }

// isTransfer reports whether a command speaks a protocol of its own on its
// output: masking in it would corrupt what is transferred.
func isTransfer(line string) bool {
	first, rest, _ := strings.Cut(strings.TrimLeft(line, " "), " ")
	switch path.Base(strings.Trim(first, `'"`)) {
	case "scp", "rsync", "rrsync", "sftp-server", "bailey-agent", "borg", "restic", "unison", "mutagen-agent", "rclone",
		"git-upload-pack", "git-receive-pack", "git-upload-archive", "git-lfs-authenticate", "git-lfs-transfer", "hg", "svnserve":
		return true
	case "git":
		return strings.HasPrefix(rest, "upload-") || strings.HasPrefix(rest, "receive-")
	}
	return false
}

// An outlet is one way out of a session: through the filter, into the
// recording, to those who watch, and to the client.
type outlet struct {
	s     *session
	w     io.Writer
	shown bool // to people, not a protocol's own words: sftp's files are told one by one

	// size is how large the terminal became, columns above 32 bits of rows; 0: no
	// news. It is no call that waits for mu: a client that does not read holds
	// that, and its requests must go on being read.
	size atomic.Uint64

	mu    sync.Mutex // held for the length of a write: what a timer lets go keeps its place
	pipe  *filter.Pipe
	timer *time.Timer
	err   error
}

func newOutlet(s *session, pipe *filter.Pipe, w io.Writer, shown bool) *outlet {
	return &outlet{s: s, pipe: pipe, w: w, shown: shown}
}

// write takes what the process has written.
func (o *outlet) write(p []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return o.err
	}
	if n := o.size.Swap(0); n > 0 {
		o.pipe.Resize(int(n>>32), int(uint32(n))) //nolint:gosec // each has four digits
	}
	out, err := o.pipe.Write(p)
	o.deliver(out, err)
	if due := o.pipe.Due(); due > 0 && o.err == nil {
		if o.timer == nil {
			o.timer = time.AfterFunc(due, o.flush)
		} else {
			o.timer.Reset(due)
		}
	}
	return o.err
}

// deliver passes on what the filter let through. The caller holds mu.
func (o *outlet) deliver(out []byte, err error) {
	if err != nil {
		o.err = err
		if r, ok := errors.AsType[*filter.Refusal](err); ok {
			o.s.blocked(r)
		}
		return
	}
	if len(out) == 0 {
		return
	}
	if o.shown {
		o.s.rec.output(out) // of a command without a terminal it keeps a beginning
		o.s.entry.Show(out)
	}
	o.s.entry.Carried(0, len(out))
	if len(out) > chunk { // several packets
		o.s.c.line.Cork()
		defer o.s.c.line.Uncork()
	}
	if _, err := o.w.Write(out); err != nil {
		o.err = errClient
	}
}

// flush lets go of what has waited for long enough.
func (o *outlet) flush() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		out, err := o.pipe.Tick()
		o.deliver(out, err)
	}
}

// close lets go of everything.
func (o *outlet) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.timer != nil {
		o.timer.Stop()
	}
	if o.err == nil {
		out, err := o.pipe.Close()
		o.deliver(out, err)
	}
	if o.err == nil {
		o.err = io.ErrClosedPipe
	}
}

// blocked ends a session in which the filter found what it does not let pass.
func (s *session) blocked(r *filter.Refusal) {
	s.rec.event(sshlive.Event{Kind: sshlive.Blocked, Path: r.Rule})
	go s.endAlone(r.Reason) // not from here: a writer of the channel may hold this goroutine
}

// outputs is what a process writes.
type outputs struct {
	s         *session
	at        *place
	out, errs *outlet
	watch     func(p []byte) error // of sftp: what it says; nil: nobody asks
	counts    bool                 // output is activity: bytes are transferred
}

// Stdout implements [workspace.Out].
func (o *outputs) Stdout(p []byte) error {
	if o.counts {
		o.s.c.touch(o.at)
	}
	if o.watch != nil {
		if err := o.watch(p); err != nil {
			return err
		}
	}
	return o.out.write(p)
}

// Stderr implements [workspace.Out].
func (o *outputs) Stderr(p []byte) error { return o.errs.write(p) }

// An inlet is the way into a session.
type inlet struct {
	s     *session
	at    *place
	proc  *workspace.Process
	pipe  *filter.Pipe
	typed bool                 // in a terminal
	watch func(p []byte) error // of sftp: what the client says; nil: nobody asks
}

// copy carries what the client sends until it ends.
func (i *inlet) copy(from io.Reader) {
	buf := make([]byte, chunk)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if i.pass(buf[:n]) != nil {
				break
			}
			if n == len(buf) && n < maxChunk { // more waits than fits
				buf = make([]byte, maxChunk)
			}
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				_, _ = i.pipe.Close()
				_ = i.proc.CloseWrite()
			}
			return
		}
	}
	// Nobody takes it any more: what the client still sends is thrown away, so
	// that its answers keep coming.
	_, _ = io.CopyBuffer(io.Discard, from, buf)
}

func (i *inlet) pass(p []byte) error {
	i.s.c.touch(i.at)
	i.s.entry.Carried(len(p), 0)
	if i.typed {
		i.s.rec.input(p)
	}
	if _, err := i.pipe.Write(p); err != nil {
		if r, ok := errors.AsType[*filter.Refusal](err); ok {
			i.s.blocked(r)
		}
		return err
	}
	if i.watch != nil {
		if err := i.watch(p); err != nil {
			return err
		}
	}
	_, err := i.proc.Write(p)
	return err
}
