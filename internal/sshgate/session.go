package sshgate

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/sshgate/files"
	"github.com/baileyhq/bailey/internal/sshlive"
	"github.com/baileyhq/bailey/internal/workspace"
)

const (
	chunk      = 32 << 10
	maxChunk   = 4 * chunk // of who sends much
	maxEnv     = 64
	maxEnvText = 16 << 10 // of all variables together
	maxCommand = 24 << 10 // with its environment it must fit into one frame
	failedCode = 255      // what ssh itself uses for its own failures
)

// envAllowed is what clients may set: how text looks, and what VS Code says
// about itself. Everything else could steer a program, and needs no SSH to be
// set by whoever is inside.
var envAllowed = regexp.MustCompile(`^(?:LANG|LANGUAGE|LC_[A-Z]{1,20}|TERM|COLORTERM|NO_COLOR|TZ|VSCODE_[A-Z0-9_]{1,56})$`)

// A session is one session channel: a shell, a command or sftp.
type session struct {
	c    *conn
	ch   ssh.Channel
	self *channel

	// These belong to the goroutine of the requests, until something is started.
	env     []string
	envText int
	tty     bool
	term    string
	cols    uint16
	rows    uint16
	modes   []byte
	lend    bool // the client's agent
	started bool

	mu     sync.Mutex // guards the rest
	proc   *workspace.Process
	entry  *sshlive.Entry
	rec    *recording
	screen *outlet // of a terminal
	reason string  // why it was ended from here
}

// session serves a session channel.
func (c *conn) session(nc ssh.NewChannel) {
	s := &session{c: c}
	s.self = &channel{end: s.end}
	if why := c.enter(s.self, true); why != "" {
		_ = nc.Reject(ssh.ResourceShortage, "bailey: "+why)
		return
	}
	defer c.leave(s.self)
	ch, requests, err := nc.Accept()
	if err != nil {
		return
	}
	s.ch = ch
	defer ch.Close() //nolint:errcheck // it has ended
	var running sync.WaitGroup
	for req := range requests {
		ok := s.request(req, &running)
		if req.WantReply && !s.isStart(req.Type) {
			_ = req.Reply(ok, nil)
		}
	}
	// The client closed the channel, or is gone: so is what it ran.
	s.mu.Lock()
	proc := s.proc
	s.mu.Unlock()
	if proc != nil {
		_ = proc.Close()
	}
	running.Wait()
}

func (*session) isStart(kind string) bool {
	return kind == "shell" || kind == "exec" || kind == "subsystem"
}

// request does what a request asks for. Those that start something answer
// themselves: the answer comes before the first byte.
func (s *session) request(req *ssh.Request, running *sync.WaitGroup) bool {
	switch req.Type {
	case "shell", "exec", "subsystem":
		if s.started {
			_ = req.Reply(false, nil) // one for each channel, RFC 4254, 6.5
			return false
		}
		s.started = true
		running.Go(func() { s.start(req) })
		return true
	case "pty-req":
		return !s.started && !s.tty && s.pty(req.Payload)
	case "env":
		return !s.started && s.setenv(req.Payload)
	case "auth-agent-req@openssh.com":
		if s.started {
			return false
		}
		return s.borrow()
	case "window-change":
		return s.resize(req.Payload)
	case "signal":
		return s.signal(req.Payload)
	}
	return false // x11-req, break, and what nobody has heard of
}

// borrow notes that the client's agent is to be lent, where class and key let
// it. The answer is true: a client that was told yes and finds no agent inside
// looks for a fault of its own. What is asked for before the workspace is known
// waits for it, as the command that follows would.
func (s *session) borrow() bool {
	_, p, at, err := s.c.route(s.c.ctx)
	if err != nil {
		return false // the command that follows says why
	}
	if s.lend = p.AgentForwarding && !s.c.grant.NoAgentForwarding; !s.lend {
		s.c.refused(s.c.ctx, sshlive.Agent, at.ws, 0)
	}
	return s.lend
}

func (s *session) pty(payload []byte) bool {
	var p struct {
		Term                      string
		Cols, Rows, Width, Height uint32
		Modes                     string
	}
	if ssh.Unmarshal(payload, &p) != nil || s.c.grant.NoPTY || len(p.Modes) > 1024 {
		return false
	}
	s.tty, s.term = true, clean(p.Term, 64)
	s.cols, s.rows, s.modes = clamp(p.Cols), clamp(p.Rows), []byte(p.Modes)
	return true
}

func clamp(n uint32) uint16 { return uint16(min(n, 2000)) }

func (s *session) setenv(payload []byte) bool {
	var p struct{ Name, Value string }
	if ssh.Unmarshal(payload, &p) != nil || !envAllowed.MatchString(p.Name) || strings.ContainsAny(p.Value, "\x00\n\r") {
		return false
	}
	if s.envText += len(p.Name) + len(p.Value) + 2; len(s.env) >= maxEnv || s.envText > maxEnvText/4 {
		return false
	}
	s.env = append(s.env, p.Name+"="+p.Value)
	return true
}

func (s *session) resize(payload []byte) bool {
	var p struct{ Cols, Rows, Width, Height uint32 }
	if !s.tty || ssh.Unmarshal(payload, &p) != nil {
		return false
	}
	cols, rows := clamp(p.Cols), clamp(p.Rows)
	s.mu.Lock()
	proc, entry, rec, screen := s.proc, s.entry, s.rec, s.screen
	s.mu.Unlock()
	if screen != nil {
		screen.size.Store(uint64(cols)<<32 | uint64(rows))
	}
	if proc == nil {
		s.cols, s.rows = cols, rows // not started yet: it begins with this size
		return !s.started
	}
	entry.Resized(int(cols), int(rows))
	rec.resize(int(cols), int(rows))
	return proc.Resize(cols, rows) == nil
}

// signals are those of RFC 4254, 6.10.
var signals = map[string]syscall.Signal{
	"ABRT": syscall.SIGABRT, "ALRM": syscall.SIGALRM, "FPE": syscall.SIGFPE, "HUP": syscall.SIGHUP, "ILL": syscall.SIGILL,
	"INT": syscall.SIGINT, "KILL": syscall.SIGKILL, "PIPE": syscall.SIGPIPE, "QUIT": syscall.SIGQUIT, "SEGV": syscall.SIGSEGV,
	"TERM": syscall.SIGTERM, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2,
}

func (s *session) signal(payload []byte) bool {
	var p struct{ Name string }
	if ssh.Unmarshal(payload, &p) != nil {
		return false
	}
	sig, ok := signals[p.Name]
	s.mu.Lock()
	proc, rec := s.proc, s.rec
	s.mu.Unlock()
	if !ok || proc == nil {
		return false
	}
	rec.event(sshlive.Event{Kind: sshlive.Signalled, Path: p.Name, OK: true})
	return proc.Signal(sig) == nil
}

// fail answers a start that is not one, in words, and ends the channel.
func (s *session) fail(req *ssh.Request, err error) {
	_ = req.Reply(true, nil)
	s.failed(err)
}

func (s *session) failed(err error) {
	text := say(err) + "\r\n"
	if !s.tty {
		text = strings.ReplaceAll(text, "\r\n", "\n")
	}
	_, _ = s.ch.Stderr().Write([]byte(text))
	s.exit(workspace.Exit{Code: failedCode})
	_ = s.ch.Close()
}

// exit tells the client how it ended.
func (s *session) exit(e workspace.Exit) {
	if e.Signal != 0 {
		for name, sig := range signals {
			if sig == e.Signal {
				_, _ = s.ch.SendRequest("exit-signal", false, ssh.Marshal(struct {
					Name          string
					Core          bool
					Message, Lang string
				}{Name: name, Core: e.Core}))
				return
			}
		}
	}
	_, _ = s.ch.SendRequest("exit-status", false, binary.BigEndian.AppendUint32(nil, uint32(e.Code))) //nolint:gosec // 0 to 255
}

// A task is what a start comes to, once policy and key have had their say.
type task struct {
	kind sshlive.Kind
	line string // as it was asked for
	cmd  workspace.Command
}

// task decides what a start comes to.
func (s *session) task(req *ssh.Request, p Policy) (task, error) {
	var asked struct{ Text string }
	if req.Type != "shell" {
		if ssh.Unmarshal(req.Payload, &asked) != nil {
			return task{}, bailey.Errorf(bailey.Invalid, "the request cannot be read")
		}
	}
	if len(asked.Text) > maxCommand || strings.ContainsRune(asked.Text, 0) {
		return task{}, bailey.Errorf(bailey.Invalid, "the command is longer than %d bytes, or has a NUL in it", maxCommand)
	}
	sftp := task{sshlive.SFTP, "sftp", workspace.Command{Args: []string{"bailey-agent", "sftp"}}}
	force := s.c.grant.ForceCommand
	if force == "" {
		force = p.ForceCommand
	}
	switch {
	case p.Access == NoAccess:
		return task{}, errDenied("this class of workspaces has no SSH")
	case force == "internal-sftp":
		return sftp, nil
	case force != "":
		s.env = append(s.env, "SSH_ORIGINAL_COMMAND="+asked.Text)
		return task{sshlive.Exec, force, workspace.Command{Shell: force}}, nil
	case req.Type == "subsystem" && asked.Text == "sftp":
		return sftp, nil
	case req.Type == "subsystem":
		return task{}, bailey.Errorf(bailey.Invalid, "there is no subsystem of that name; sftp is one")
	case p.Access == SFTPOnly:
		return task{}, errDenied("this class of workspaces allows sftp alone, no commands")
	case p.Access != "" && p.Access != Full:
		return task{}, errDenied("this class of workspaces has no SSH")
	case req.Type == "shell":
		return task{sshlive.Shell, "", workspace.Command{}}, nil
	case asked.Text == "":
		return task{}, bailey.Errorf(bailey.Invalid, "there is no command")
	}
	return task{sshlive.Exec, asked.Text, workspace.Command{Shell: asked.Text}}, nil
}

func errDenied(msg string) error {
	return &bailey.Error{Kind: bailey.Denied, Msg: msg, Hint: "an administrator decides it in the class's ssh settings"}
}

// start runs what a request asks for, to its end.
func (s *session) start(req *ssh.Request) {
	ctx := s.c.ctx
	route, p, at, err := s.c.route(ctx)
	if err != nil {
		s.fail(req, err)
		return
	}
	t, err := s.task(req, p)
	if err != nil {
		if bailey.KindOf(err) == bailey.Denied {
			s.c.refused(ctx, sshlive.Exec, at.ws, 0)
		}
		if req.Type == "subsystem" && bailey.KindOf(err) == bailey.Invalid {
			_ = req.Reply(false, nil)
			_ = s.ch.Close()
			return
		}
		s.fail(req, err)
		return
	}
	if t.kind == sshlive.SFTP {
		s.tty = false
	}
	m := s.c.meta(t.kind)
	m.WorkspaceID, m.Workspace, m.Class, m.Run = at.ws.ID, at.ws.Name, at.ws.Class, at.ws.RunID
	m.Command, m.Strict = cut(t.line, 4<<10), p.Recording == RecordStrict
	m.TTY, m.Term, m.Cols, m.Rows = s.tty, s.term, int(s.cols), int(s.rows)
	target := audit.Target{Kind: "workspace", ID: at.ws.ID, Name: at.ws.Name}
	attrs := audit.Attrs{Session: m.ID, Kind: string(m.Kind), Class: m.Class, Run: m.Run, Key: m.Fingerprint}
	if err := s.c.record(ctx, audit.Event{Action: audit.SSHSession, Target: target, Outcome: audit.Success, Attrs: attrs}); err != nil {
		s.fail(req, err)
		return
	}
	rec, err := s.c.begin(ctx, m, p)
	if err != nil {
		s.fail(req, err)
		return
	}
	end := sshlive.End{ExitCode: -1}
	defer func() {
		s.mu.Lock()
		if s.reason != "" {
			end.Reason = s.reason
		}
		entry := s.entry
		s.mu.Unlock()
		if entry != nil {
			end.Up, end.Down = entry.Totals()
			entry.Remove()
		}
		end.At = time.Now()
		rec.close(end)
		attrs.Up, attrs.Down, attrs.Millis, attrs.Exit = end.Down, end.Up, time.Since(m.Started).Milliseconds(), end.ExitCode
		_ = s.c.record(ctx, audit.Event{Action: audit.SSHEnd, Target: target, Outcome: audit.Success, Attrs: attrs})
	}()

	stopLending := s.prepare(ctx, route, p, at, &t.cmd)
	defer stopLending()
	proc, err := route.Exec(ctx, t.cmd)
	if err != nil {
		s.fail(req, err)
		return
	}
	defer proc.Close() //nolint:errcheck // it has ended
	entry := s.c.g.cfg.Live.Add(m, func(reason string) { go s.endAlone(reason) })
	s.mu.Lock()
	s.proc, s.entry, s.rec = proc, entry, rec
	s.mu.Unlock()
	if rec != nil {
		rec.onFailure(func() { go s.endAlone("sessions of this class are recorded, and the recording failed") })
	}
	_ = req.Reply(true, nil)
	s.carry(proc, t, p, at, &end)
}

// prepare fills in what a command gets from the connection.
func (s *session) prepare(ctx context.Context, route workspace.Route, p Policy, at *place, cmd *workspace.Command) (stop func()) {
	stop = func() {}
	cmd.TTY, cmd.Cols, cmd.Rows, cmd.Modes = s.tty, s.cols, s.rows, s.modes
	env := s.env
	if s.term != "" {
		env = append(env, "TERM="+s.term)
	}
	client, clientPort, _ := net.SplitHostPort(s.c.sc.RemoteAddr().String())
	server, serverPort, _ := net.SplitHostPort(s.c.sc.LocalAddr().String())
	env = append(env, "SSH_CONNECTION="+strings.Join([]string{client, clientPort, server, serverPort}, " "),
		"SSH_CLIENT="+strings.Join([]string{client, clientPort, serverPort}, " "))
	if s.lend {
		if path, end, err := s.c.lendAgent(ctx, route, p, at); err == nil {
			env, stop = append(env, "SSH_AUTH_SOCK="+path), end
		}
	}
	cmd.Env = env
	return stop
}

// carry moves the bytes both ways until the process has ended.
func (s *session) carry(proc *workspace.Process, t task, p Policy, at *place, end *sshlive.End) {
	kind := pipeKind(t, s.tty, p)
	seen := at.scope.Pipe(filter.SSH, false, kind, int(s.cols), "")
	seen.Resize(int(s.cols), int(s.rows))
	out := newOutlet(s, seen, s.ch, t.kind != sshlive.SFTP)
	errs := newOutlet(s, at.scope.Pipe(filter.SSH, false, kind, 0, ""), s.ch.Stderr(), t.kind != sshlive.SFTP)
	in := &inlet{s: s, at: at, proc: proc, pipe: at.scope.Pipe(filter.SSH, true, inputKind(t, s.tty), 0, ""), typed: s.tty}
	if s.tty {
		s.mu.Lock()
		s.screen = out
		s.mu.Unlock()
	}
	o := &outputs{s: s, at: at, out: out, errs: errs, counts: !s.tty}
	if t.kind == sshlive.SFTP {
		w := files.New(s.seen(at, p))
		ended := func(err error) error {
			if errors.Is(err, files.ErrProtocol) {
				go s.endAlone(files.ErrProtocol.Msg) // not from here: a writer of the channel may hold this goroutine
			}
			return err
		}
		in.watch = func(p []byte) error { return ended(w.Up(p)) }
		o.watch = func(p []byte) error { return ended(w.Down(p)) }
		defer w.Close()
	}
	reading := make(chan struct{})
	go func() { // ends with the channel
		defer close(reading)
		in.copy(s.ch)
	}()
	err := proc.Output(o, func(e workspace.Exit) {
		end.ExitCode, end.Signal = e.Code, signalName(e.Signal)
		out.flush()
		errs.flush()
		s.exit(e)
	})
	out.close()
	errs.close()
	if end.ExitCode < 0 {
		// Its end was not seen: it was ended from here, or its container is gone.
		if s.why() == "" && err != nil && s.c.ctx.Err() == nil && s.c.why() == "" && !errors.Is(err, errClient) {
			_, _ = s.ch.Stderr().Write([]byte("bailey: the workspace went away\r\n"))
		}
		s.exit(workspace.Exit{Code: failedCode})
	}
	_ = s.ch.CloseWrite()
	_ = s.ch.Close()
	_ = proc.Close()
	<-reading
}

func signalName(sig syscall.Signal) string {
	for name, s := range signals {
		if s == sig {
			return name
		}
	}
	return ""
}

func (s *session) why() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
}

// end says why the session ends, and ends what runs. It returns when the
// client could have read it.
func (s *session) end(reason string) {
	s.mu.Lock()
	first := s.reason == ""
	if first {
		s.reason = reason
	}
	proc := s.proc
	s.mu.Unlock()
	if !first {
		return
	}
	if proc != nil {
		_ = proc.Kill()
	}
	if s.ch != nil {
		_, _ = s.ch.Stderr().Write([]byte("\r\nbailey: " + clean(reason, 200) + "\r\n"))
	}
}

// endAlone ends one session of a connection that goes on.
func (s *session) endAlone(reason string) {
	time.AfterFunc(farewell, func() {
		s.mu.Lock()
		proc := s.proc
		s.mu.Unlock()
		if proc != nil {
			_ = proc.Close() // Output ends, and with it the session
		}
	})
	s.end(reason)
}

func cut(s string, n int) string {
	if len(s) > n {
		return s[:n]
	}
	return s
}

// errClient says that the client does not take what it is sent.
var errClient = errors.New("the client is gone")
