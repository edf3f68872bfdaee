// Package agent is what runs inside a workspace: PID 1, with the tenant's own
// rights and no more. It connects the workspace's Unix socket to the loopback
// addresses inside, carries what the workspace sends out to the server's
// socket, keeps Jupyter running, reaps orphans, and serves dial and sftp over
// the stdio of an exec.
//
// Nothing it says is trusted outside: policy, audit and identity stay in the
// server. What it protects is the tenant's own comfort (a broken package does
// not lock the tenant out) and the loopback rule, which keeps a stolen
// connection from becoming a way into any network the workspace may have.
//
// # How a gateway talks to Jupyter through it
//
// Jupyter listens on 127.0.0.1:8888 with the run's token. The gateway sends
// "Host: 127.0.0.1:8888", rewrites a matching Origin to
// "http://127.0.0.1:8888", and adds "Authorization: token …". Requests with
// the token pass Jupyter's XSRF check, which stays on for all others.
package agent

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey/internal/agent/home"
)

// Exit codes of the program, besides Jupyter's own.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
	exitConfig = 78 // EX_CONFIG of sysexits.h
)

const usage = `bailey-agent runs inside a workspace.

  bailey-agent run [--config FILE]      be the workspace's first process
  bailey-agent dial tcp HOST:PORT       connect stdin and stdout to a loopback port
  bailey-agent dial unix PATH           connect them to a Unix socket
  bailey-agent sftp [--dir DIR]         serve SFTP on stdin and stdout
  bailey-agent serve --socket PATH      answer on a socket, without Jupyter
  bailey-agent version                  print the version
`

// A Process is what the program was started with. The streams are files
// because Jupyter inherits two of them.
type Process struct {
	Args                  []string // without the program's name
	Env                   []string
	Version               string
	Stdin, Stdout, Stderr *os.File
}

// Main runs the command that p.Args names and returns the exit code.
func Main(p Process) int {
	if len(p.Args) == 0 {
		fmt.Fprint(p.Stderr, usage)
		return exitUsage
	}
	// The root of the program: there is nobody above to hand a context down.
	ctx := context.Background()
	switch cmd, args := p.Args[0], p.Args[1:]; cmd {
	case "run":
		return p.run(ctx, args)
	case "dial":
		return p.dial(ctx, args)
	case "sftp":
		return p.sftp(args)
	case "serve":
		return p.serve(ctx, args)
	case "version", "--version":
		fmt.Fprintln(p.Stdout, p.Version)
		return exitOK
	case "help", "-h", "--help":
		fmt.Fprint(p.Stdout, usage)
		return exitOK
	default:
		fmt.Fprintf(p.Stderr, "bailey-agent: unknown command %.40q\n\n%s", cmd, usage)
		return exitUsage
	}
}

// run is the life of a workspace's first process.
func (p Process) run(ctx context.Context, args []string) int {
	begin := time.Now()
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	flags.SetOutput(p.Stderr)
	path := flags.String("config", "/etc/bailey/agent.json", "configuration `file`")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return exitUsage
	}
	log := slog.New(slog.NewJSONHandler(p.Stdout, nil))

	cfg, err := loadConfig(*path)
	if err != nil {
		log.ErrorContext(ctx, "configuration refused", slog.String("file", *path), slog.String("err", err.Error()))
		return exitConfig
	}
	// Before anything is forked: a child that ends before we listen for it
	// would stay a zombie.
	sig := watchSignals()
	defer sig.stop()
	kids := newReaper()
	if os.Getpid() != 1 {
		// Under another init (docker run --init, a test) orphans go to the
		// nearest subreaper, which keeps the story the same.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			log.WarnContext(ctx, "orphans will not be reaped", slog.String("err", err.Error()))
		}
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan struct{})
	go func() { // ends with ctx; waited for below
		defer close(done)
		kids.run(ctx, sig.child)
	}()
	defer func() { stop(); <-done }()

	srv, err := listen(cfg.Socket, p.Version)
	if err != nil {
		log.ErrorContext(ctx, "cannot listen", slog.String("socket", cfg.Socket), slog.String("err", err.Error()))
		return exitFailed
	}
	defer srv.close()
	srv.people = newSessions(kids, cfg.Jupyter.Root, srv.self, srv.bufs)
	go srv.serve(ctx) // ends with close, which waits for it
	if cfg.Egress != (egressConfig{}) {
		out, err := listenEgress(cfg.Egress)
		if err != nil {
			// Without a way out there is still a workspace.
			log.ErrorContext(ctx, "no way out", slog.String("listen", cfg.Egress.Listen), slog.String("err", err.Error()))
		} else {
			defer out.close()
			go out.serve(ctx) // ends with close, which waits for it
		}
	}

	return p.keep(ctx, log, cfg, kids, sig, srv.people, begin)
}

// serve answers on a socket until it is told to stop: dialling, sessions and
// listeners, with the environment it was started with.
func (p Process) serve(ctx context.Context, args []string) int {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	flags.SetOutput(p.Stderr)
	path := flags.String("socket", "", "`path` of the socket")
	dir := flags.String("dir", "/workspace", "`directory` that sessions begin in")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 || *path == "" {
		return exitUsage
	}
	sig := watchSignals()
	defer sig.stop()
	kids := newReaper()
	ctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { // ends with ctx; waited for below
		defer close(done)
		kids.run(ctx, sig.child)
	}()
	defer func() { stop(); <-done }()
	srv, err := listen(*path, p.Version)
	if err != nil {
		fmt.Fprintf(p.Stderr, "bailey-agent: %v\n", err)
		return exitFailed
	}
	defer srv.close()
	srv.people = newSessions(kids, *dir, srv.self, srv.bufs)
	srv.people.open(p.Env)
	go srv.serve(ctx) // ends with close, which waits for it
	<-sig.end
	return exitOK
}

// keep prepares the home, runs Jupyter until told to stop, and then ends all
// that runs.
func (p Process) keep(ctx context.Context, log *slog.Logger, cfg config, kids *reaper, sig *signals, people *sessions, begin time.Time) int {
	log.InfoContext(ctx, "agent started", slog.String("version", p.Version), slog.String("socket", cfg.Socket), slog.Int("uid", os.Getuid()))
	if n, err := placeSecrets(secretsFrom, secretsTo); err != nil {
		log.WarnContext(ctx, "secrets not all placed", slog.Int("placed", n), slog.String("err", err.Error()))
	}
	py, found := home.FindPython(getenv(p.Env, "PATH"), cfg.Venv)
	for _, problem := range home.Prepare(cfg.Home, cfg.Venv, py, found) {
		// A full or read-only volume must not keep people from their
		// workspace: they can still look, download and delete.
		log.WarnContext(ctx, "home not fully prepared", slog.String("err", problem.Error()))
	}
	if err := home.Apt(cfg.Home, getenv(p.Env, "APT_CONFIG"), getenv(p.Env, "APT_MIRROR")); err != nil {
		log.WarnContext(ctx, "apt not prepared", slog.String("err", err.Error()))
	}
	lab, err := newJupyter(p, log, cfg, py, found, kids)
	if err != nil {
		log.ErrorContext(ctx, "cannot prepare jupyter", slog.String("err", err.Error()))
		return exitConfig
	}
	defer lab.clean()
	people.open(lab.environ(false))

	jctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan int, 1)
	go func() { ended <- lab.keep(jctx, begin) }() // received below in every case

	select {
	case s := <-sig.end:
		log.InfoContext(ctx, "stopping", slog.String("signal", s.String()))
		asked := time.Now()
		stop()
		<-ended // lab.keep returns within the grace
		endAll(cfg.grace() - time.Since(asked))
		log.InfoContext(ctx, "stopped", slog.Float64("took_ms", ms(asked)))
		return exitOK
	case code := <-ended:
		log.ErrorContext(ctx, "jupyter cannot be started", slog.Int("code", code))
		endAll(time.Second)
		return code
	}
}

// ms is the time since t in milliseconds, as the logs say it.
func ms(t time.Time) float64 { return float64(time.Since(t).Microseconds()) / 1000 }

// signals are those that the agent acts on.
type signals struct {
	end   chan os.Signal // SIGTERM, SIGINT
	child chan os.Signal // SIGCHLD
	other chan os.Signal // swallowed
}

// watchSignals starts listening. SIGPIPE and SIGHUP are caught and dropped
// rather than ignored: what is ignored stays ignored in every child, and
// `yes | head` in a terminal would then print errors.
func watchSignals() *signals {
	s := &signals{end: make(chan os.Signal, 1), child: make(chan os.Signal, 1), other: make(chan os.Signal, 1)}
	signal.Notify(s.end, unix.SIGTERM, unix.SIGINT)
	signal.Notify(s.child, unix.SIGCHLD)
	signal.Notify(s.other, unix.SIGPIPE, unix.SIGHUP)
	return s
}

func (s *signals) stop() {
	signal.Stop(s.end)
	signal.Stop(s.child)
	signal.Stop(s.other)
}

// dial connects stdin and stdout to an address inside.
func (p Process) dial(ctx context.Context, args []string) int {
	if len(args) != 2 {
		fmt.Fprint(p.Stderr, usage)
		return exitUsage
	}
	t, err := parseTarget(args[0], args[1])
	if err != nil {
		fmt.Fprintf(p.Stderr, "bailey-agent: %v\n", err)
		return exitUsage
	}
	conn, err := t.connect(ctx)
	if err != nil {
		fmt.Fprintf(p.Stderr, "bailey-agent: %v\n", err)
		return exitFailed
	}
	defer conn.Close() //nolint:errcheck // nothing is left to lose
	// Not waited for: reading stdin cannot be interrupted, and when the other
	// side has finished talking there is nobody left to read for.
	go func() {
		if _, err := io.Copy(conn, p.Stdin); err == nil {
			_ = conn.CloseWrite()
		}
	}()
	if _, err := io.Copy(p.Stdout, conn); err != nil && !errors.Is(err, syscall.EPIPE) {
		fmt.Fprintf(p.Stderr, "bailey-agent: %v\n", err)
		return exitFailed
	}
	return exitOK
}

// duplex is a stream whose two directions end separately.
type duplex interface {
	net.Conn
	syscall.Conn
	CloseRead() error
	CloseWrite() error
}

// privateDir makes a fresh 0700 directory under the temporary directory.
func (p Process) privateDir() (string, error) {
	tmp := getenv(p.Env, "TMPDIR")
	if !filepath.IsAbs(tmp) {
		tmp = "/tmp"
	}
	return os.MkdirTemp(tmp, "bailey-agent-")
}
