package sshgate

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

var errSFTP = &bailey.Error{Kind: bailey.Invalid, Msg: "this is not SFTP as bailey reads it; the session was ended"}

// An sftpWatch follows an sftp session from outside: which files are read and
// written, how much of them, and what the filter says about them. It changes
// nothing; what it cannot read ends the session.
type sftpWatch struct {
	s    *session
	at   *place
	kind filter.PipeKind

	mu      sync.Mutex // guards the rest: both directions meet here
	in, out sftpReader
	pending map[uint32]sftpAsked
	files   map[string]*sftpFile
	writing *sftpFile // whose bytes the present packet of the client has
	reading *sftpFile // and of the server
}

// An sftpAsked is a question that is not answered yet.
type sftpAsked struct {
	op     byte
	path   string
	to     string
	handle string
	offset uint64
}

// An sftpFile is an open file.
type sftpFile struct {
	path      string
	up, down  int64
	reads     *filter.Pipe
	writes    *filter.Pipe
	nextRead  uint64
	nextWrite uint64
}

func newSFTP(s *session, at *place, p Policy) *sftpWatch {
	w := &sftpWatch{s: s, at: at, kind: filter.Watched, pending: map[uint32]sftpAsked{}, files: map[string]*sftpFile{}}
	if p.Files == FilesBlock {
		w.kind = filter.Guarded
	}
	return w
}

// up follows what the client sends.
func (w *sftpWatch) up(p []byte) error { return w.follow(&w.in, p, w.asked, w.wrote) }

// down follows what the server sends.
func (w *sftpWatch) down(p []byte) error { return w.follow(&w.out, p, w.answered, w.read) }

func (w *sftpWatch) follow(r *sftpReader, p []byte, head func([]byte) (int, error), body func([]byte) error) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	err := r.feed(p, head, body)
	if refusal, ok := errors.AsType[*filter.Refusal](err); ok {
		w.s.blocked(refusal)
	} else if err != nil {
		go w.s.endAlone(errSFTP.Msg)
	}
	return err
}

// close tells of the files that are still open.
func (w *sftpWatch) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for handle := range w.files {
		w.closed(handle)
	}
}

func (w *sftpWatch) event(kind sshlive.EventKind, path, to string, size int64, up, ok bool) {
	w.s.rec.event(sshlive.Event{At: time.Now(), Kind: kind, Path: cut(path, 4<<10), To: cut(to, 4<<10), Size: size, Up: up, OK: ok})
}

// An sftpReader cuts one direction into packets. Of each it collects what
// matters; a file's bytes pass by.
type sftpReader struct {
	head  []byte // of the present packet: its length, type, and what follows
	left  int    // bytes of the packet still to come; valid when sized
	sized bool
	body  bool // the rest of the packet is a file's bytes
	skip  bool // or nothing that matters
}

// feed takes the next bytes. head is called with what there is of a packet; it
// returns how many bytes of it are not a file's (0: it needs more).
func (r *sftpReader) feed(p []byte, head func([]byte) (int, error), body func([]byte) error) error {
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
				return errSFTP
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

// sftpText reads a string and what follows it.
func sftpText(p []byte) (text string, rest []byte, ok bool) {
	s, rest, ok := cutString(p)
	return string(s), rest, ok
}

// asked follows a client's packet.
func (w *sftpWatch) asked(p []byte) (int, error) {
	if len(p) < 5 {
		return 0, errSFTP
	}
	kind, id, rest := p[0], binary.BigEndian.Uint32(p[1:]), p[5:]
	if kind == 1 { // INIT
		return 0, nil
	}
	w.writing = nil
	a := sftpAsked{op: kind}
	ok := true
	switch kind {
	case sftpOpen, sftpSetstat, sftpRemove, sftpMkdir, sftpRmdir:
		a.path, _, ok = sftpText(rest)
	case sftpClose, sftpFsetstat:
		a.handle, _, ok = sftpText(rest)
		if f := w.files[a.handle]; f != nil {
			a.path = f.path
		}
	case sftpRead:
		if a.handle, rest, ok = sftpText(rest); ok && len(rest) >= 8 {
			a.offset = binary.BigEndian.Uint64(rest)
		}
	case sftpWrite:
		handle, rest, whole := sftpText(rest)
		if !whole || len(rest) < 12 {
			if len(p) > 1024 {
				return 0, errSFTP // handles are 256 bytes at most
			}
			return 0, nil // not all of its head is there yet
		}
		f := w.files[handle]
		if f == nil {
			f = &sftpFile{} // of a handle that was never given out: the server will say so
		}
		a.handle = handle
		offset := binary.BigEndian.Uint64(rest)
		if f.writes == nil || offset != f.nextWrite {
			f.writes = w.pipe(true, f.path)
		}
		f.nextWrite, w.writing = offset, f
		return len(p) - len(rest) + 12, w.pend(id, a)
	case sftpRename, sftpSymlink:
		if a.path, rest, ok = sftpText(rest); ok {
			a.to, _, ok = sftpText(rest)
		}
	case sftpExtended:
		var name string
		if name, rest, ok = sftpText(rest); ok {
			switch name {
			case "posix-rename@openssh.com", "hardlink@openssh.com":
				a.op = sftpRename
				if name[0] == 'h' {
					a.op = sftpSymlink
				}
				if a.path, rest, ok = sftpText(rest); ok {
					a.to, _, ok = sftpText(rest)
				}
			}
		}
	}
	if !ok {
		return 0, errSFTP
	}
	return 0, w.pend(id, a)
}

// pend remembers a question.
func (w *sftpWatch) pend(id uint32, a sftpAsked) error {
	if len(w.pending) >= sftpMaxPending {
		return errSFTP
	}
	w.pending[id] = a
	return nil
}

// wrote follows a file's bytes on their way in.
func (w *sftpWatch) wrote(p []byte) error {
	f := w.writing
	if f == nil || len(p) == 0 {
		return nil
	}
	f.up += int64(len(p))
	f.nextWrite += uint64(len(p))
	_, err := f.writes.Write(p)
	return err
}

// pipe opens the filter on a file's bytes.
func (w *sftpWatch) pipe(input bool, path string) *filter.Pipe {
	return w.at.scope.Pipe(filter.SSH, input, w.kind, 0, path)
}

// answered follows a server's packet.
func (w *sftpWatch) answered(p []byte) (int, error) {
	if len(p) < 5 {
		return 0, errSFTP
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
				f.reads = w.pipe(false, f.path)
			}
			f.nextRead, w.reading = a.offset, f
		}
		return 9, nil
	case sftpHandle:
		if handle, _, ok := sftpText(rest); ok && asked && a.op == sftpOpen {
			if len(w.files) >= sftpMaxHandles {
				return 0, errSFTP
			}
			w.files[handle] = &sftpFile{path: a.path}
		}
	case sftpStatus:
		if asked && len(rest) >= 4 {
			w.done(a, binary.BigEndian.Uint32(rest) == 0)
		}
	}
	return 0, nil
}

// read follows a file's bytes on their way out.
func (w *sftpWatch) read(p []byte) error {
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
func (w *sftpWatch) done(a sftpAsked, ok bool) {
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
func (w *sftpWatch) closed(handle string) {
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
				w.s.blocked(refusal)
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
