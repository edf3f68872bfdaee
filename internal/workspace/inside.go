package workspace

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/agent/wire"
	"github.com/baileyhq/bailey/internal/engine"
)

// startLimit is how long the agent may take to say that a process runs, or a
// listener listens.
const startLimit = 15 * time.Second

// A Command is what to start inside a workspace: as its user, with the
// environment of its own terminals, and within the container's limits. There is
// no way to say another user.
type Command struct {
	Shell      string   // for the user's shell; empty, with Args: the shell itself
	Args       []string // a program without a shell; "bailey-agent" is the agent
	Env        []string // "K=V" on top
	TTY        bool
	Cols, Rows uint16
	Modes      []byte // of the terminal, as SSH encodes them
}

// An Exit is how a process ended.
type Exit struct {
	Code   int
	Signal syscall.Signal // 0: it exited by itself
	Core   bool
}

// A Process runs inside a workspace. Output is read by one goroutine; the other
// methods may be called concurrently. When the connection to it ends, whoever
// ends it, the process ends too.
type Process struct {
	conn net.Conn
	r    *wire.Reader

	wmu sync.Mutex // held for the length of a write: frames do not mix
	buf []byte     // guarded by wmu

	mu    sync.Mutex // guards the rest
	more  *sync.Cond
	space int // bytes of input that may be sent
	gone  bool
}

// An Out receives what a process writes. Its methods are called by one
// goroutine, do not keep what they get, and may wait: then the process waits.
type Out interface {
	Stdout(p []byte) error
	Stderr(p []byte) error
}

// Exec starts a command in the run that the route leads to. Invalid when it
// cannot be started, in the words of the workspace, which are foreign.
func (r Route) Exec(ctx context.Context, cmd Command) (*Process, error) {
	spec, err := json.Marshal(wire.Command{
		Shell: cmd.Shell, Args: cmd.Args, Env: cmd.Env, TTY: cmd.TTY, Cols: cmd.Cols, Rows: cmd.Rows, Modes: cmd.Modes,
	})
	if err != nil {
		return nil, err
	}
	conn, fr, _, err := r.ask(ctx, engine.AgentExec, spec, wire.Started)
	if err != nil {
		return nil, err
	}
	p := &Process{conn: conn, r: fr, space: wire.Window}
	p.more = sync.NewCond(&p.mu)
	return p, nil
}

// ask opens a connection to the agent, says what is wanted, and waits for the
// answer that it expects.
func (r Route) ask(ctx context.Context, verb string, spec []byte, want wire.Type) (net.Conn, *wire.Reader, []byte, error) {
	if len(spec) > wire.MaxPayload {
		return nil, nil, nil, bailey.Errorf(bailey.Invalid, "the command and its environment are longer than %d bytes", wire.MaxPayload)
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	conn, err := r.dial(ctx, engine.AgentNetwork, verb)
	if err != nil {
		return nil, nil, nil, err
	}
	forget := context.AfterFunc(ctx, func() { _ = conn.Close() })
	fr := wire.NewReader(conn)
	t, payload, err := answer(conn, fr, spec)
	if !forget() || err != nil {
		_ = conn.Close()
		return nil, nil, nil, &bailey.Error{
			Kind: bailey.Unavailable, Msg: "the workspace does not answer", Hint: "try again in a moment; if it stays so, stop and start it",
			Cause: errors.Join(fmt.Errorf("ask the agent: %w", err), context.Cause(ctx)),
		}
	}
	switch t { //nolint:exhaustive // another answer is a broken agent, see below
	case want:
		return conn, fr, payload, nil
	case wire.Failed:
		err = bailey.Errorf(bailey.Invalid, "%s", printable(payload))
	default:
		err = fmt.Errorf("ask the agent: %w: %q", wire.ErrFrame, byte(t))
	}
	_ = conn.Close()
	return nil, nil, nil, err
}

func answer(conn net.Conn, fr *wire.Reader, spec []byte) (wire.Type, []byte, error) {
	if _, err := conn.Write(wire.Append(nil, wire.Start, spec)); err != nil {
		return 0, nil, err
	}
	return fr.Next()
}

// printable is a workspace's own words in a form that does nothing to a
// terminal.
func printable(p []byte) string {
	const most = 200
	out := make([]byte, 0, most)
	for _, b := range p[:min(len(p), most)] {
		if b < ' ' || b > '~' {
			b = '?'
		}
		out = append(out, b)
	}
	return string(out)
}

// Output carries what the process writes to out until it has ended and all was
// said. exited is called once, as soon as the process itself has ended; what it
// left behind may still write. The error is out's, or says that the connection
// was lost, with which the process ended.
func (p *Process) Output(out Out, exited func(Exit)) error {
	over := false
	defer p.lost()
	for {
		t, payload, err := p.r.NextRun(carriesBytes)
		if errors.Is(err, io.EOF) && over {
			return nil
		}
		if err != nil {
			return fmt.Errorf("process in a workspace: %w", err)
		}
		switch t { //nolint:exhaustive // the others need nothing here
		case wire.Output:
			err = out.Stdout(payload)
		case wire.Errors:
			err = out.Stderr(payload)
		case wire.Taken:
			err = p.taken(payload)
		case wire.Exited:
			if over || len(payload) != 3 {
				return fmt.Errorf("process in a workspace: %w: ended twice", wire.ErrFrame)
			}
			over = true
			exited(Exit{Code: int(payload[0]), Signal: syscall.Signal(payload[1]), Core: payload[2] != 0})
		default:
			err = fmt.Errorf("process in a workspace: %w: %q", wire.ErrFrame, byte(t))
		}
		if err != nil {
			return err
		}
	}
}

// carriesBytes reports whether frames of a type are pieces of one stream.
func carriesBytes(t wire.Type) bool { return t == wire.Output || t == wire.Errors }

// taken notes that the process took some of its input.
func (p *Process) taken(payload []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(payload) != 4 {
		return wire.ErrFrame
	}
	n := binary.BigEndian.Uint32(payload)
	if n > wire.Window || p.space+int(n) > wire.Window {
		return fmt.Errorf("%w: took more than there was", wire.ErrFrame)
	}
	p.space += int(n)
	p.more.Broadcast()
	return nil
}

func (p *Process) lost() {
	p.mu.Lock()
	p.gone = true
	p.more.Broadcast()
	p.mu.Unlock()
}

// Write gives the process input. It waits while the process has not taken what
// it got before.
func (p *Process) Write(data []byte) (int, error) {
	written := 0
	for written < len(data) {
		n, err := p.reserve(min(len(data)-written, batch*wire.MaxPayload))
		if err != nil {
			return written, err
		}
		if err := p.frame(wire.Input, data[written:written+n]); err != nil {
			return written, err
		}
		written += n
	}
	return written, nil
}

// batch is how many frames are sent at once, at most.
const batch = 4

// reserve waits until something may be sent, and says how much.
func (p *Process) reserve(most int) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.space == 0 && !p.gone {
		p.more.Wait()
	}
	if p.gone {
		return 0, net.ErrClosed
	}
	n := min(most, p.space)
	p.space -= n
	return n, nil
}

// frame sends a frame, or as many as the payload takes.
func (p *Process) frame(t wire.Type, payload []byte) error {
	p.wmu.Lock()
	defer p.wmu.Unlock()
	p.buf = p.buf[:0]
	for {
		n := min(len(payload), wire.MaxPayload)
		p.buf = wire.Append(p.buf, t, payload[:n])
		if payload = payload[n:]; len(payload) == 0 {
			break
		}
	}
	_, err := p.conn.Write(p.buf)
	return err
}

// CloseWrite ends the input; the process goes on.
func (p *Process) CloseWrite() error { return p.frame(wire.InputEnd, nil) }

// Resize tells the terminal its size.
func (p *Process) Resize(cols, rows uint16) error {
	return p.frame(wire.Resize, binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, cols), rows))
}

// Signal sends a signal to what runs.
func (p *Process) Signal(sig syscall.Signal) error {
	return p.frame(wire.Signal, []byte{byte(sig)}) //nolint:gosec // bounded by the caller
}

// Kill ends the process and everything it started in its session, now. Output
// returns soon after.
func (p *Process) Kill() error {
	// A workspace that does not read does not listen to this either: then the
	// end of the connection says it.
	_ = p.conn.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	return p.frame(wire.End, nil)
}

// Close ends the connection, with which the process ends, a little more gently.
func (p *Process) Close() error {
	p.lost()
	err := p.conn.Close()
	if errors.Is(err, os.ErrClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Connect connects to something on the workspace's loopback, as Dial does, and
// waits until it is known to be there: Invalid, in the workspace's own words,
// when nobody listens.
func (r Route) Connect(ctx context.Context, network, addr string) (net.Conn, error) {
	if err := engine.CheckDial(network, addr); err != nil {
		return nil, err
	}
	if network == engine.AgentNetwork {
		return nil, bailey.Errorf(bailey.Invalid, "that is no address in a workspace")
	}
	spec, err := json.Marshal(wire.Socket{Network: network, Addr: addr})
	if err != nil {
		return nil, err
	}
	conn, fr, _, err := r.ask(ctx, engine.AgentConnect, spec, wire.Started)
	if errors.Is(err, io.EOF) {
		// An agent that was started by an older server knows no such request,
		// and closes: it connects without a word.
		return r.dial(ctx, network, addr)
	}
	if err != nil {
		return nil, err
	}
	if early := fr.Rest(); len(early) > 0 {
		return &spoken{conn, early}, nil
	}
	return conn, nil
}

// A spoken connection is one whose first bytes came with the agent's answer.
type spoken struct {
	net.Conn

	early []byte // not read yet; belongs to the reader
}

func (s *spoken) Read(p []byte) (int, error) {
	if len(s.early) == 0 {
		return s.Conn.Read(p)
	}
	n := copy(p, s.early)
	s.early = s.early[n:]
	return n, nil
}

// CloseWrite ends the sending half, where there is one.
func (s *spoken) CloseWrite() error {
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// A Listener listens inside a workspace.
type Listener struct {
	route Route
	conn  net.Conn
	r     *wire.Reader
	addr  string
}

// A Caller is somebody inside who connected to a Listener.
type Caller struct {
	net.Conn

	From string // of tcp: the caller's address, in the workspace's own words
}

// Listen listens on a loopback port ("tcp"), on a path ("unix"), or on a fresh
// path that belongs to nothing yet ("agent"). It ends with Close, and with the
// run.
func (r Route) Listen(ctx context.Context, network, addr string) (*Listener, error) {
	spec, err := json.Marshal(wire.Socket{Network: network, Addr: addr})
	if err != nil {
		return nil, err
	}
	conn, fr, bound, err := r.ask(ctx, engine.AgentListen, spec, wire.Bound)
	if err != nil {
		return nil, err
	}
	return &Listener{route: r, conn: conn, r: fr, addr: printable(bound)}, nil
}

// Addr is where it listens, in the workspace's own words.
func (l *Listener) Addr() string { return l.addr }

// Accept waits for the next caller. One goroutine calls it.
func (l *Listener) Accept(ctx context.Context) (*Caller, error) {
	t, payload, err := l.r.Next()
	if err != nil {
		return nil, err
	}
	var call wire.Call
	if t != wire.Caller || json.Unmarshal(payload, &call) != nil {
		return nil, fmt.Errorf("listener in a workspace: %w", wire.ErrFrame)
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	conn, err := l.route.dial(ctx, engine.AgentNetwork, engine.AgentAccept+call.ID)
	if err != nil {
		return nil, err
	}
	return &Caller{Conn: conn, From: printable([]byte(call.From))}, nil
}

// Close stops listening.
func (l *Listener) Close() error { return l.conn.Close() }
