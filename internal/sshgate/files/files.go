// Package files follows an SFTP session from outside: which files are read and
// written, how much of them, and what is done to them. It reads both directions
// and changes nothing; what becomes of what it sees, its caller decides. Both
// sides are foreign, so what it cannot read is an error, and nothing is
// allocated by what a length says.
package files

import (
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/sshlive"
)

const (
	sftpMaxPacket  = 1 << 20  // longer ones no client and no server sends
	sftpHead       = 10 << 10 // of a packet that is looked at: two paths and their attributes
	sftpMaxPending = 4096     // questions that are not answered
	sftpMaxHandles = 1024
)

// The packets of SFTP version 3 that matter here.
const (
	sftpOpen     = 3
	sftpClose    = 4
	sftpRead     = 5
	sftpWrite    = 6
	sftpSetstat  = 9
	sftpFsetstat = 10
	sftpRemove   = 13
	sftpMkdir    = 14
	sftpRmdir    = 15
	sftpRename   = 18
	sftpSymlink  = 20
	sftpStatus   = 101
	sftpHandle   = 102
	sftpData     = 103
	sftpExtended = 200
)

// ErrProtocol says that something is no SFTP, or more of it than anybody needs.
var ErrProtocol = &bailey.Error{Kind: bailey.Invalid, Msg: "this is not SFTP as bailey reads it; the session was ended"}

// Seen is what a Watch tells. Its methods are called by the goroutine that
// carries the bytes, never two at once.
type Seen interface {
	// Pipe opens the filter on a file's bytes; input: they go into the workspace.
	Pipe(input bool, path string) *filter.Pipe
	// Event says what became of a file.
	Event(e sshlive.Event)
	// Refused says that the filter does not let a file's bytes pass.
	Refused(r *filter.Refusal)
}

// A Watch follows one session. Its methods may be called concurrently.
type Watch struct {
	to Seen

	mu      sync.Mutex // guards the rest: both directions meet here
	in, out reader
	pending map[uint32]question
	files   map[string]*file
	writing *file // whose bytes the present packet of the client has
	reading *file // and of the server
}

// A question is a question that is not answered yet.
type question struct {
	op     byte
	path   string
	to     string
	handle string
	offset uint64
}

// A file is an open file.
type file struct {
	path      string
	up, down  int64
	reads     *filter.Pipe
	writes    *filter.Pipe
	nextRead  uint64
	nextWrite uint64
}

// New returns a Watch of a session that begins.
func New(to Seen) *Watch {
	return &Watch{to: to, pending: map[uint32]question{}, files: map[string]*file{}}
}

// Up follows what the client sends. An error ends the session: a
// [filter.Refusal], or [ErrProtocol].
func (w *Watch) Up(p []byte) error { return w.follow(&w.in, p, w.asked, w.wrote) }

// Down follows what the server sends.
func (w *Watch) Down(p []byte) error { return w.follow(&w.out, p, w.answered, w.read) }

func (w *Watch) follow(r *reader, p []byte, head func([]byte) (int, error), body func([]byte) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := r.feed(p, head, body)
	if refusal, ok := errors.AsType[*filter.Refusal](err); ok {
		w.to.Refused(refusal)
	}
	return err
}

// Close tells of the files that are still open.
func (w *Watch) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for handle := range w.files {
		w.closed(handle)
	}
}

func (w *Watch) event(kind sshlive.EventKind, path, to string, size int64, up, ok bool) {
	w.to.Event(sshlive.Event{At: time.Now(), Kind: kind, Path: cut(path, 4<<10), To: cut(to, 4<<10), Size: size, Up: up, OK: ok})
}

// A reader cuts one direction into packets. Of each it collects what
// matters; a file's bytes pass by.
type reader struct {
	head  []byte // of the present packet: its length, type, and what follows
	left  int    // bytes of the packet still to come; valid when sized
	sized bool
	body  bool // the rest of the packet is a file's bytes
	skip  bool // or nothing that matters
}

// feed takes the next bytes. head is called with what there is of a packet; it
// returns how many bytes of it are not a file's (0: it needs more).
func (r *reader) feed(p []byte, head func([]byte) (int, error), body func([]byte) error) error {
	for len(p) > 0 {
		if !r.sized {
			n := min(4-len(r.head), len(p))
			r.head = append(r.head, p[:n]...)
			p = p[n:]
			if len(r.head) < 4 {
				return nil
			}
			size := binary.BigEndian.Uint32(r.head)
			if size == 0 || size > sftpMaxPacket {
				return ErrProtocol
			}
			r.left, r.sized, r.body, r.skip, r.head = int(size), true, false, false, r.head[:0]
			continue
		}
		n := min(len(p), r.left)
		part := p[:n]
		p = p[n:]
		r.left -= n
		if !r.body && !r.skip {
			room := min(len(part), sftpHead-len(r.head))
			r.head = append(r.head, part[:room]...)
			part = part[room:]
			done, err := 0, error(nil)
			if len(r.head) == sftpHead || r.left == 0 || len(r.head) >= 5 && hasBody(r.head[0]) {
				if done, err = head(r.head); err != nil {
					return err
				}
			}
			switch {
			case done > 0:
				r.body = true
				if err := body(r.head[done:]); err != nil {
					return err
				}
			case len(r.head) == sftpHead:
				r.skip = true
			}
		}
		if r.body && len(part) > 0 {
			if err := body(part); err != nil {
				return err
			}
		}
		if r.left == 0 {
			r.sized, r.head = false, r.head[:0]
		}
	}
	return nil
}

// hasBody reports whether a packet ends in a file's bytes.
func hasBody(kind byte) bool { return kind == sftpWrite || kind == sftpData }

// cutText reads a string and what follows it.
func cutText(p []byte) (text string, rest []byte, ok bool) {
	s, rest, ok := cutBytes(p)
	return string(s), rest, ok
}

// asked follows a client's packet.
func (w *Watch) asked(p []byte) (int, error) {
	if len(p) < 5 {
		return 0, ErrProtocol
	}
	kind, id, rest := p[0], binary.BigEndian.Uint32(p[1:]), p[5:]
	if kind == 1 { // INIT
		return 0, nil
	}
	w.writing = nil
	a := question{op: kind}
	ok := true
	switch kind {
	case sftpOpen, sftpSetstat, sftpRemove, sftpMkdir, sftpRmdir:
		a.path, _, ok = cutText(rest)
	case sftpClose, sftpFsetstat:
		a.handle, _, ok = cutText(rest)
		if f := w.files[a.handle]; f != nil {
			a.path = f.path
		}
	case sftpRead:
		if a.handle, rest, ok = cutText(rest); ok && len(rest) >= 8 {
			a.offset = binary.BigEndian.Uint64(rest)
		}
	case sftpWrite:
		handle, rest, whole := cutText(rest)
		if !whole || len(rest) < 12 {
			if len(p) > 1024 {
				return 0, ErrProtocol // handles are 256 bytes at most
			}
			return 0, nil // not all of its head is there yet
		}
		f := w.files[handle]
		if f == nil {
			f = &file{} // of a handle that was never given out: the server will say so
		}
		a.handle = handle
		offset := binary.BigEndian.Uint64(rest)
		if f.writes == nil || offset != f.nextWrite {
			f.writes = w.to.Pipe(true, f.path)
		}
		f.nextWrite, w.writing = offset, f
		return len(p) - len(rest) + 12, w.pend(id, a)
	case sftpRename, sftpSymlink:
		if a.path, rest, ok = cutText(rest); ok {
			a.to, _, ok = cutText(rest)
		}
	case sftpExtended:
		var name string
		if name, rest, ok = cutText(rest); ok {
			switch name {
			case "posix-rename@openssh.com", "hardlink@openssh.com":
				a.op = sftpRename
				if name[0] == 'h' {
					a.op = sftpSymlink
				}
				if a.path, rest, ok = cutText(rest); ok {
					a.to, _, ok = cutText(rest)
				}
			}
		}
	}
	if !ok {
		return 0, ErrProtocol
	}
	return 0, w.pend(id, a)
}

// pend remembers a question.
func (w *Watch) pend(id uint32, a question) error {
	if len(w.pending) >= sftpMaxPending {
		return ErrProtocol
	}
	w.pending[id] = a
	return nil
}

// wrote follows a file's bytes on their way in.
func (w *Watch) wrote(p []byte) error {
	f := w.writing
	if f == nil || len(p) == 0 {
		return nil
	}
	f.up += int64(len(p))
	f.nextWrite += uint64(len(p))
	_, err := f.writes.Write(p)
	return err
}

// answered follows a server's packet.
func (w *Watch) answered(p []byte) (int, error) {
	if len(p) < 5 {
		return 0, ErrProtocol
	}
	kind, id, rest := p[0], binary.BigEndian.Uint32(p[1:]), p[5:]
	if kind == 2 { // VERSION
		return 0, nil
	}
	if kind == sftpData && len(rest) < 4 {
		return 0, nil
	}
	a, asked := w.pending[id]
	delete(w.pending, id)
	w.reading = nil
	switch kind {
	case sftpData:
		if f := w.files[a.handle]; asked && a.op == sftpRead && f != nil {
			if f.reads == nil || a.offset != f.nextRead {
				f.reads = w.to.Pipe(false, f.path)
			}
			f.nextRead, w.reading = a.offset, f
		}
		return 9, nil
	case sftpHandle:
		if handle, _, ok := cutText(rest); ok && asked && a.op == sftpOpen {
			if len(w.files) >= sftpMaxHandles {
				return 0, ErrProtocol
			}
			w.files[handle] = &file{path: a.path}
		}
	case sftpStatus:
		if asked && len(rest) >= 4 {
			w.done(a, binary.BigEndian.Uint32(rest) == 0)
		}
	}
	return 0, nil
}

// read follows a file's bytes on their way out.
func (w *Watch) read(p []byte) error {
	f := w.reading
	if f == nil || len(p) == 0 {
		return nil
	}
	f.down += int64(len(p))
	f.nextRead += uint64(len(p))
	_, err := f.reads.Write(p)
	return err
}

// done tells what a question has come to.
func (w *Watch) done(a question, ok bool) {
	kinds := map[byte]sshlive.EventKind{
		sftpRemove: sshlive.FileRemove, sftpRmdir: sshlive.FileRemove, sftpMkdir: sshlive.FileMkdir,
		sftpRename: sshlive.FileRename, sftpSymlink: sshlive.FileLink, sftpSetstat: sshlive.FileAttr,
	}
	switch kind := kinds[a.op]; {
	case a.op == sftpClose:
		w.closed(a.handle)
	case a.op == sftpOpen && !ok:
		w.event(sshlive.FileOther, a.path, "", 0, false, false)
	case kind != "":
		w.event(kind, a.path, a.to, 0, true, ok)
	}
}

// closed tells how much of a file was carried.
func (w *Watch) closed(handle string) {
	f := w.files[handle]
	if f == nil {
		return
	}
	delete(w.files, handle)
	for _, p := range []*filter.Pipe{f.reads, f.writes} {
		if p == nil {
			continue
		}
		if _, err := p.Close(); err != nil {
			if refusal, ok := errors.AsType[*filter.Refusal](err); ok {
				w.to.Refused(refusal)
			}
		}
	}
	if f.down > 0 || f.up == 0 {
		w.event(sshlive.FileRead, f.path, "", f.down, false, true)
	}
	if f.up > 0 {
		w.event(sshlive.FileWrite, f.path, "", f.up, true, true)
	}
}

func cut(s string, n int) string { return s[:min(len(s), n)] }

// cutBytes reads a string as SSH writes it, and what follows it.
func cutBytes(in []byte) (s, rest []byte, ok bool) {
	if len(in) < 4 {
		return nil, nil, false
	}
	n := uint64(binary.BigEndian.Uint32(in))
	if n > uint64(len(in)-4) { //nolint:gosec // not negative
		return nil, nil, false
	}
	return in[4 : 4+n], in[4+n:], true
}
