// Package wire is how the server and the agent inside a workspace talk about
// one process: frames of at most 32 KiB on a connection of its own. It holds
// the words and reads them; it believes nothing. Whoever is at the other end
// may be hostile, so a frame that is too long or of an unknown type is an
// error, and nothing is allocated by what a length says.
package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// MaxPayload is the most that a frame carries.
const MaxPayload = 32 << 10

// HeaderSize is how many bytes come before the payload: its type and length.
const HeaderSize = 5

// Window is how many bytes of input may be on their way to a process before
// it has taken any: a process that does not read must not keep a signal from
// reaching it.
const Window = 256 << 10

// A Type says what a frame is.
type Type byte

// From the server to the agent.
const (
	Start    Type = 'S' // JSON of a Command; the first frame, once
	Input    Type = 'I' // for the process's standard input
	InputEnd Type = 'E' // its end
	Resize   Type = 'W' // columns and rows, two bytes each
	Signal   Type = 'G' // one byte: the signal's number
	End      Type = 'K' // the process is to end now, with all it left in its group
)

// From the agent to the server.
const (
	Started Type = 'T' // the process runs; of a connection: it is made, and its bytes follow
	Output  Type = 'O' // from its standard output, or its terminal
	Errors  Type = 'R' // from its standard error
	Taken   Type = 'C' // four bytes: so much of the input was taken
	Exited  Type = 'X' // exit code, signal, core dumped: one byte each
	Failed  Type = 'F' // words: it could not be started; the last frame
	Bound   Type = 'B' // of a listener: where it listens
	Caller  Type = 'N' // of a listener: somebody called; a Call in JSON
)

// ErrFrame is wrapped by every error about what the other side sent.
var ErrFrame = errors.New("malformed frame")

func (t Type) known() bool {
	switch t {
	case Start, Input, InputEnd, Resize, Signal, End, Started, Output, Errors, Taken, Exited, Failed, Bound, Caller:
		return true
	}
	return false
}

// PutHeader fills in the header of a frame whose payload lies behind it:
// frame[HeaderSize:] is what is carried.
func PutHeader(frame []byte, t Type) {
	frame[0] = byte(t)
	binary.BigEndian.PutUint32(frame[1:HeaderSize], uint32(len(frame)-HeaderSize)) //nolint:gosec // at most MaxPayload
}

// Append appends a whole frame to dst.
func Append(dst []byte, t Type, payload []byte) []byte {
	dst = append(dst, byte(t))
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(payload))) //nolint:gosec // at most MaxPayload
	return append(dst, payload...)
}

// A Reader reads frames. Its buffer is small while little comes, grows to
// several of the largest frames while much does, and is all that it ever holds.
type Reader struct {
	r    io.Reader
	buf  []byte
	from int
	to   int
	full bool // the last read filled the buffer: more waits
	idle int  // reads of little in a row
}

// The sizes of a Reader's buffer. The middle one holds the largest frame.
const (
	little = 4 << 10
	middle = 64 << 10
	much   = 256 << 10
	calm   = 16 // reads of little until a large buffer is given back
)

// NewReader returns a Reader of r.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Next returns the next frame. The payload is valid until the call after.
// io.EOF is a clean end, between two frames.
func (r *Reader) Next() (Type, []byte, error) {
	if err := r.fill(HeaderSize); err != nil {
		return 0, nil, err
	}
	t, size, err := r.head()
	if err != nil {
		return 0, nil, err
	}
	if err := r.fill(size); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	payload := r.buf[r.from+HeaderSize : r.from+size]
	r.from += size
	return t, payload, nil
}

// head reads the next frame's header, which is there, and returns the length of
// the whole.
func (r *Reader) head() (t Type, size int, err error) {
	t = Type(r.buf[r.from])
	n := binary.BigEndian.Uint32(r.buf[r.from+1:])
	switch {
	case !t.known():
		return 0, 0, fmt.Errorf("%w: type %q", ErrFrame, byte(t))
	case n > MaxPayload:
		return 0, 0, fmt.Errorf("%w: %d bytes", ErrFrame, n)
	}
	return t, HeaderSize + int(n), nil
}

// NextRun is like Next, and joins what the frames that follow carry if they are
// of the same type and have come already: bytes of one stream are one piece to
// their reader, however they were framed. Frames of other types it returns one by
// one, if joined says so.
func (r *Reader) NextRun(joined func(Type) bool) (Type, []byte, error) {
	t, payload, err := r.Next()
	if err != nil || !joined(t) {
		return t, payload, err
	}
	begin, end := r.from-len(payload), r.from
	for {
		size := r.another(t)
		if size == 0 {
			break
		}
		end += copy(r.buf[end:], r.buf[r.from+HeaderSize:r.from+size])
		r.from += size
	}
	return t, r.buf[begin:end], nil
}

// another returns the length of the next frame if it is of a type and has come;
// else 0. What is wrong with it is said when it is its turn.
func (r *Reader) another(t Type) int {
	if r.to-r.from < HeaderSize {
		return 0
	}
	next, size, err := r.head()
	if err != nil || next != t || r.to-r.from < size {
		return 0
	}
	return size
}

// Rest returns a copy of what was read and belongs to no frame that Next gave
// out: where frames end and plain bytes follow, the first of them.
func (r *Reader) Rest() []byte {
	return append([]byte(nil), r.buf[r.from:r.to]...)
}

// fill makes sure that n bytes are there.
func (r *Reader) fill(n int) error {
	if r.to-r.from >= n {
		return nil
	}
	r.room(n)
	for r.to-r.from < n {
		m, err := r.r.Read(r.buf[r.to:])
		r.to += m
		if r.full = r.to == len(r.buf); m > little/2 {
			r.idle = 0
		} else {
			r.idle++
		}
		if err != nil && r.to-r.from < n {
			if errors.Is(err, io.EOF) && r.to > r.from {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// room makes room for n bytes, and chooses the buffer's size.
func (r *Reader) room(n int) {
	rest := r.buf[r.from:r.to]
	size := max(len(r.buf), little)
	switch {
	case n > size, r.full && size < middle:
		size = middle
	case r.full:
		size = much
	case r.idle >= calm && len(rest) == 0 && n <= little:
		size = little
	}
	switch {
	case size != len(r.buf):
		buf := make([]byte, size)
		r.from, r.to, r.buf = 0, copy(buf, rest), buf
	case r.from == r.to:
		r.from, r.to = 0, 0
	case r.from+n > len(r.buf):
		r.from, r.to = 0, copy(r.buf, rest)
	}
	r.full = false
}

// A Command is what a process is started with. It runs as the workspace's user
// with the environment that the workspace's own terminals have.
type Command struct {
	// Shell is run by the user's shell with -c. When it and Args are empty, the
	// shell itself is started, as after a sign-in.
	Shell string `json:"shell,omitempty"`
	// Args is a program and its arguments, without a shell; "bailey-agent" as
	// the program is the agent itself.
	Args  []string `json:"args,omitempty"`
	Env   []string `json:"env,omitempty"` // "K=V", on top
	Dir   string   `json:"dir,omitempty"` // empty: /workspace, or / when it is not there
	TTY   bool     `json:"tty,omitempty"`
	Cols  uint16   `json:"cols,omitempty"`
	Rows  uint16   `json:"rows,omitempty"`
	Modes []byte   `json:"modes,omitempty"` // of the terminal, as RFC 4254, 8, encodes them
}

// A Socket is what a listener is to listen on: "tcp" with a loopback address
// and a port (0: any), "unix" with a path, or "agent" for a fresh path that
// nobody knows yet. Of a connection it is what to connect to.
type Socket struct {
	Network string `json:"network"`
	Addr    string `json:"addr,omitempty"`
}

// A Call is somebody who called at a listener.
type Call struct {
	ID   string `json:"id"`   // 32 hex digits: what to dial to take the call
	From string `json:"from"` // of a tcp listener: the caller's address
}
