package agent

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey/internal/agent/inbox"
	"github.com/baileyhq/bailey/internal/agent/terminal"
	"github.com/baileyhq/bailey/internal/agent/wire"
)

// How a process is ended whose person is gone: its input ends, then it is hung
// up, then it is killed. A process that somebody wants to be gone has less time.
const (
	waitForEOF    = 500 * time.Millisecond
	waitForHangup = 2 * time.Second
	waitAtOnce    = 200 * time.Millisecond
)

// drainTime is how long the end of a process waits for the rest of its output.
// A child that it left behind may hold the output open for ever.
const drainTime = 200 * time.Millisecond

// maxSessions bounds the processes that people run at one time.
const maxSessions = 256

// sessions runs what people start from outside: shells, commands, the sftp
// server. Each has a connection of its own, and ends with it.
type sessions struct {
	kids *reaper
	dir  string // where they begin
	self string // the agent's own socket, to which nobody is connected
	bufs *buffers

	mu      sync.Mutex // guards what follows
	env     []string   // what they get; nil: the workspace is not ready for them
	running int
	calls   map[string]*call // by id: callers at listeners, waiting to be taken
}

func newSessions(kids *reaper, dir, self string, bufs *buffers) *sessions {
	return &sessions{kids: kids, dir: dir, self: self, bufs: bufs, calls: map[string]*call{}}
}

// open lets people in, with that environment.
func (x *sessions) open(env []string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.env = env
}

// answer does what a connection asks of the agent itself.
func (x *sessions) answer(ctx context.Context, c duplex, req request, early []byte) {
	switch req.verb {
	case "exec":
		x.exec(ctx, c, early)
	case "listen":
		x.listen(ctx, c, early)
	case "connect":
		x.connect(ctx, c, early)
	case "accept":
		if caller := x.takeCall(req.call); caller != nil {
			defer caller.Close() //nolint:errcheck // the tunnel has ended
			x.bufs.tunnel(c, caller, early)
		}
	}
}

// enter counts a session in and returns its environment.
func (x *sessions) enter() ([]string, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.env == nil:
		return nil, errors.New("the workspace is still being prepared; try again in a moment")
	case x.running >= maxSessions:
		return nil, fmt.Errorf("%d sessions are running in this workspace; end some", x.running)
	}
	x.running++
	return x.env, nil
}

func (x *sessions) leave() {
	x.mu.Lock()
	x.running--
	x.mu.Unlock()
}

// A frames is the way back to the server. Its methods may be called
// concurrently.
type frames struct {
	mu sync.Mutex // held for the length of a write: frames do not mix
	c  io.Writer
}

func (f *frames) send(t wire.Type, payload []byte) error {
	return f.write(wire.Append(nil, t, payload[:min(len(payload), wire.MaxPayload)]))
}

// write sends a frame that is already whole.
func (f *frames) write(frame []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, err := f.c.Write(frame)
	return err
}

// first reads the first frame and the JSON in it.
func first(c duplex, r *wire.Reader, into any) error {
	if err := c.SetReadDeadline(time.Now().Add(lineTimeout)); err != nil {
		return err
	}
	t, payload, err := r.Next()
	if err != nil {
		return err
	}
	if t != wire.Start {
		return fmt.Errorf("%w: %q comes first", wire.ErrFrame, byte(t))
	}
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	return c.SetReadDeadline(time.Time{})
}

// exec serves one process on a connection.
func (x *sessions) exec(ctx context.Context, c duplex, early []byte) {
	r := wire.NewReader(io.MultiReader(bytes.NewReader(early), c))
	var cmd wire.Command
	if first(c, r, &cmd) != nil {
		return
	}
	out := &frames{c: c}
	env, err := x.enter()
	if err == nil {
		defer x.leave()
		var p *process
		if p, err = x.spawn(cmd, env); err == nil {
			p.serve(ctx, c, r, out)
			return
		}
	}
	_ = out.send(wire.Failed, []byte(err.Error()))
	_ = c.CloseWrite()
}

// A process is what somebody started, with our ends of its streams.
type process struct {
	*child
	stdin  *os.File // with a terminal, the same file as stdout
	stdout *os.File
	stderr *os.File // nil with a terminal
	tty    bool

	queue *inbox.Queue
}

// spawn starts a command.
func (x *sessions) spawn(cmd wire.Command, base []string) (_ *process, err error) {
	env := newEnviron(base)
	for _, kv := range cmd.Env {
		if k, v, ok := strings.Cut(kv, "="); ok && k != "" && !strings.ContainsRune(kv, 0) {
			env.set(k, v)
		}
	}
	path, argv, err := program(cmd, env.list)
	if err != nil {
		return nil, err
	}
	dir := cmd.Dir
	for _, candidate := range []string{dir, x.dir, "/"} {
		if fi, err := os.Stat(candidate); candidate != "" && err == nil && fi.IsDir() {
			dir = candidate
			break
		}
	}
	p := &process{tty: cmd.TTY, queue: inbox.New()}
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			_ = f.Close()
		}
		if err != nil {
			p.closeAll()
		}
	}()
	sys := &syscall.SysProcAttr{Setsid: true}
	if cmd.TTY {
		master, slave, err := terminal.Open(cmd)
		if err != nil {
			return nil, fmt.Errorf("open a terminal: %w", err)
		}
		p.stdin, p.stdout = master, master
		env.set("SSH_TTY", slave.Name())
		theirs = []*os.File{slave, slave, slave}
		sys.Setctty = true
	} else {
		for i, ours := range []**os.File{&p.stdin, &p.stdout, &p.stderr} { // pipes, whose other ends are the process's
			r, w, err := os.Pipe()
			if err != nil {
				return nil, err
			}
			if i == 0 {
				r, w = w, r
			}
			*ours = r
			theirs = append(theirs, w)
		}
	}
	if p.child, err = x.kids.startWith(sys, path, argv, env.list, dir, theirs...); err != nil {
		return nil, err
	}
	return p, nil
}

// program says what is started for a command, and under which name.
func program(cmd wire.Command, env []string) (path string, argv []string, err error) {
	if len(cmd.Args) > 0 {
		path = cmd.Args[0]
		switch {
		case path == "bailey-agent":
			path, err = os.Executable()
		case !strings.Contains(path, "/"):
			found, ok := lookPath(getenv(env, "PATH"), path)
			if !ok {
				return "", nil, fmt.Errorf("%.80q is not in this workspace", path)
			}
			path = found
		}
		return path, cmd.Args, err
	}
	for _, shell := range []string{getenv(env, "SHELL"), "/bin/bash", "/bin/sh"} {
		if !filepath.IsAbs(shell) || !executable(shell) {
			continue
		}
		if cmd.Shell != "" {
			return shell, []string{filepath.Base(shell), "-c", cmd.Shell}, nil
		}
		return shell, []string{"-" + filepath.Base(shell)}, nil
	}
	return "", nil, errors.New("this workspace has no shell")
}

// lookPath finds an executable on a PATH.
func lookPath(path, name string) (string, bool) {
	for dir := range strings.SplitSeq(path, ":") {
		if p := filepath.Join(dir, name); filepath.IsAbs(dir) && executable(p) {
			return p, true
		}
	}
	return "", false
}

func executable(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0
}

func (p *process) closeAll() {
	for _, f := range []*os.File{p.stdin, p.stdout, p.stderr} {
		if f != nil {
			_ = f.Close()
		}
	}
}

// serve carries the streams until the process has ended and everything was
// said, or until the connection is gone, with which the process goes too.
func (p *process) serve(ctx context.Context, c duplex, r *wire.Reader, out *frames) {
	if out.send(wire.Started, nil) != nil {
		p.queue.Close()
		p.closeAll()
		p.end(waitForEOF, waitForHangup)
		return
	}
	var pumps, others sync.WaitGroup
	pumps.Go(func() { pump(out, wire.Output, p.stdout) })
	if p.stderr != nil {
		pumps.Go(func() { pump(out, wire.Errors, p.stderr) })
	}
	drained := make(chan struct{}) // closed when all output was carried
	go func() { pumps.Wait(); close(drained) }()
	others.Go(func() { p.feed(out) })
	asked := make(chan bool, 1) // how the server's words ended: true: it wants an end now
	others.Go(func() { asked <- p.listen(r) })

	select {
	case <-p.done:
		// What it has written comes before the word that it is over, unless
		// something that it started holds its output open.
		select {
		case <-drained:
		case <-time.After(drainTime):
		case <-asked:
		}
		_ = out.send(wire.Exited, []byte{byte(p.code), byte(p.signal), p.core}) //nolint:gosec // both fit
		select {
		case <-drained:
		case now := <-asked: // the person does not wait for what was left behind
			if now {
				signalSession(p.pid, unix.SIGKILL)
			}
		case <-ctx.Done():
		}
		_ = c.CloseWrite()
	case now := <-asked:
		p.queue.Close()
		if now {
			p.end(0, waitAtOnce)
			signalSession(p.pid, unix.SIGKILL) // also jobs in groups of their own
		} else {
			p.end(waitForEOF, waitForHangup)
		}
		_ = out.send(wire.Exited, []byte{byte(p.code), byte(p.signal), p.core}) //nolint:gosec // both fit
	}
	p.queue.Close()
	p.closeAll()
	_ = c.CloseRead() // ends listen
	_ = c.Close()
	others.Wait()
	<-drained
}

// pump carries one output. What has come is read at once, into several frames
// if it is much: the pipe of a process that writes much is made larger for it.
func pump(out *frames, t wire.Type, from *os.File) {
	const frame = wire.HeaderSize + wire.MaxPayload
	raw, err := from.SyscallConn()
	if err != nil {
		return
	}
	buf := make([]byte, frame)
	for {
		n, err := readFrames(raw, buf)
		if n > 0 {
			sent := 0 // of buf, frames whole
			for rest := n; rest > 0; rest -= wire.MaxPayload {
				size := wire.HeaderSize + min(rest, wire.MaxPayload)
				wire.PutHeader(buf[sent:sent+size], t)
				sent += size
			}
			if out.write(buf[:sent]) != nil {
				_ = from.Close() // nobody reads: what writes must know
				return
			}
			if n == wire.MaxPayload && len(buf) == frame {
				widen(from)
				buf = make([]byte, manyFrames*frame)
			}
		}
		if err != nil || n == 0 {
			return // the end; of a terminal it looks like an error
		}
	}
}

// manyFrames is how many frames are read and sent at once of a process that
// writes much.
const manyFrames = 4

// readFrames reads into the payloads of the frames that buf has room for, and
// returns how many bytes it read. It waits for the first.
func readFrames(raw syscall.RawConn, buf []byte) (n int, err error) {
	const frame = wire.HeaderSize + wire.MaxPayload
	var parts [manyFrames][]byte
	count := 0
	for at := 0; at < len(buf); at += frame {
		parts[count] = buf[at+wire.HeaderSize : at+frame]
		count++
	}
	werr := raw.Read(func(fd uintptr) bool {
		for {
			if n, err = unix.Readv(int(fd), parts[:count]); !errors.Is(err, unix.EINTR) {
				return !errors.Is(err, unix.EAGAIN)
			}
		}
	})
	return max(n, 0), cmp.Or(werr, err)
}

// widePipe is how much a pipe holds that carries much. It is the tenant's own
// allowance of pipe memory that is used (pipe-user-pages-soft): when that is
// spent, pipes stay as they are.
const widePipe = 256 << 10

// widen makes a pipe larger; a terminal it leaves alone.
func widen(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, widePipe)
	})
}

// feed gives the process its input. What a process does not read any more is
// taken all the same, and lost.
func (p *process) feed(out *frames) {
	wide := p.tty
	for {
		data, owed, ok := p.queue.Take()
		if !ok {
			break
		}
		if !wide && len(data) > wire.Window/4 {
			wide = true
			widen(p.stdin)
		}
		_, _ = p.stdin.Write(data)
		p.queue.Done()
		var taken [4]byte
		binary.BigEndian.PutUint32(taken[:], uint32(owed)) //nolint:gosec // at most wire.Window
		if out.send(wire.Taken, taken[:]) != nil {
			return
		}
	}
	if !p.tty {
		_ = p.stdin.Close()
	}
}

// listen does what the server says until the connection ends. It reports
// whether the server asked for an end now.
func (p *process) listen(r *wire.Reader) (now bool) {
	for {
		t, payload, err := r.Next()
		if err != nil {
			return false
		}
		switch t { //nolint:exhaustive // everything else is nothing that a server says here
		case wire.Input:
			if !p.queue.Put(payload) {
				return false // more than was allowed: it is not our server
			}
		case wire.InputEnd:
			if p.tty {
				p.queue.Add(4) // what a terminal knows as the end
			} else {
				p.queue.Close()
			}
		case wire.Resize:
			if p.tty && len(payload) == 4 {
				terminal.Resize(p.stdout, binary.BigEndian.Uint16(payload), binary.BigEndian.Uint16(payload[2:]))
			}
		case wire.Signal:
			if len(payload) == 1 {
				p.deliver(syscall.Signal(payload[0]))
			}
		case wire.End:
			return true
		default:
			return false
		}
	}
}

// deliver sends a signal where a key in the terminal would: to the group in the
// foreground, or to the process's own.
func (p *process) deliver(sig syscall.Signal) {
	select {
	case <-p.done:
		return // the number may be somebody else's
	default:
	}
	group := p.pid
	if p.tty {
		if fg := terminal.Foreground(p.stdout); fg > 0 {
			group = fg
		}
	}
	_ = unix.Kill(-group, sig)
}

// end ends the process and its group, unless it goes by itself.
func (p *process) end(eof, hangup time.Duration) {
	if p.tty {
		if fg := terminal.Foreground(p.stdout); fg > 0 && fg != p.pid {
			defer func() { _ = unix.Kill(-fg, unix.SIGKILL) }()
			_ = unix.Kill(-fg, unix.SIGHUP)
		}
	}
	if p.within(eof) {
		return // it went with its input; what it left behind was meant to stay
	}
	_ = unix.Kill(-p.pid, unix.SIGHUP)
	_ = unix.Kill(-p.pid, unix.SIGCONT) // what sleeps cannot go
	p.within(hangup)
	_ = unix.Kill(-p.pid, unix.SIGKILL)
	<-p.done
}

// within reports whether the process ends within that time.
func (p *process) within(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-p.done:
		return true
	case <-t.C:
		return false
	}
}

// signalSession sends a signal to every process of a session.
func signalSession(sid int, sig syscall.Signal) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return
	}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		stat, err := os.ReadFile("/proc/" + d.Name() + "/stat")
		if err != nil {
			continue
		}
		// After the name in brackets: state, parent, group, session.
		f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if len(f) > 3 && f[3] == strconv.Itoa(sid) {
			_ = unix.Kill(pid, sig)
		}
	}
}
