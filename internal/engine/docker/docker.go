// Package docker runs workspaces on one machine's Docker Engine, 20.10 to 29.
// It turns a Spec into a container of the strict profile, keeps the host's side
// of it (volumes, the run's files, the way in through the agent's socket), and
// reads the live container back to see that it is what it should be. Containers
// that do not carry this installation's label do not exist for it.
package docker

import (
	"cmp"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/secret"
)

// DefaultHost is where Docker listens when nothing else is configured.
const DefaultHost = "unix:///var/run/docker.sock"

// Config is what an Engine needs.
type Config struct {
	Host      string       // "unix:///…"; empty means DefaultHost. Only this machine's engine: volumes and sockets are reached through the file system
	Instance  string       // ULID of this installation; required
	Root      string       // absolute directory of ours: volumes/<id> and run/<run> are kept in it; required
	AgentPath string       // absolute path of the static bailey-agent binary; required
	Log       *slog.Logger // nil discards

	// Credentials returns the sign-in to a registry ("docker.io", "host:port"),
	// for pulls; nil means none.
	Credentials func(host string) (user string, password secret.Value, ok bool)
}

// An Engine is a Docker Engine as [engine.Engine]. Make one with [New]. Its
// methods may be called concurrently.
type Engine struct {
	cfg     Config
	api     *client.Client
	raw     *http.Client // the same daemon, for the one answer that api cannot express
	log     *slog.Logger
	volumes *os.File // directory Root/volumes
	runs    *os.File // directory Root/run

	ctx    context.Context //nolint:containedctx // the life of the background reapers, ended by Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // demultiplexers and reapers of execs

	mu     sync.Mutex // guards the rest
	closed bool
	facts  *facts    // what the daemon said last
	read   time.Time // when it did
	making map[string]*runLock
	outs   map[string]*egressListener // by run
}

var _ engine.Engine = (*Engine)(nil)

// New checks cfg, makes the directories and returns an Engine. It does not
// talk to Docker yet: the daemon may come later.
func New(cfg Config) (*Engine, error) {
	cfg.Host = cmp.Or(cfg.Host, DefaultHost)
	if !strings.HasPrefix(cfg.Host, "unix:///") {
		return nil, fmt.Errorf("docker: host %q is not unix:///…: workspaces are reached through this machine's file system", cfg.Host)
	}
	if err := engine.CheckID("instance", cfg.Instance); err != nil {
		return nil, fmt.Errorf("docker: %w", err)
	}
	if err := checkAgent(cfg.AgentPath); err != nil {
		return nil, fmt.Errorf("docker: %w", err)
	}
	volumes, runs, err := openState(cfg.Root)
	if err != nil {
		return nil, fmt.Errorf("docker: %w", err)
	}
	return newEngine(cfg, volumes, runs)
}

// newEngine returns an Engine of a checked Config.
func newEngine(cfg Config, volumes, runs *os.File) (*Engine, error) {
	api, err := client.New(client.WithHost(cfg.Host), client.WithUserAgent("bailey"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("docker: %w", err), volumes.Close(), runs.Close())
	}
	ctx, cancel := context.WithCancel(context.Background()) //nolint:forbidigo // ended by Close; see the field
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Engine{
		cfg: cfg, api: api, raw: unixClient(strings.TrimPrefix(cfg.Host, "unix://")), log: cfg.Log, volumes: volumes, runs: runs,
		ctx: ctx, cancel: cancel, making: map[string]*runLock{}, outs: map[string]*egressListener{},
	}, nil
}

// Close ends background work and lets go of the daemon. Containers go on.
func (e *Engine) Close() error {
	e.mu.Lock()
	e.closed = true
	for _, l := range e.outs {
		_ = l.UnixListener.Close()
	}
	clear(e.outs)
	e.mu.Unlock()
	e.cancel()
	e.wg.Wait()
	e.raw.CloseIdleConnections()
	return errors.Join(e.api.Close(), e.volumes.Close(), e.runs.Close())
}

// unixClient returns an HTTP client of the server on a Unix socket.
func unixClient(path string) *http.Client {
	var dialer net.Dialer
	return &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		},
		MaxIdleConns: 4, IdleConnTimeout: 30 * time.Second,
	}}
}

// background runs f on a goroutine that Close waits for; after Close it does
// not, and reports false.
func (e *Engine) background(f func()) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.closed {
		e.wg.Go(f)
	}
	return !e.closed
}

// checkAgent makes sure that what every workspace runs first is a static
// program that only its owner can change.
func checkAgent(path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("agent path %q is not absolute", path)
	}
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("agent %s needs a dynamic loader, which images may not have or may replace: build it with CGO_ENABLED=0", path)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if info.Mode().Perm()&0o111 != 0o111 || info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("agent %s has mode %04o; it must be executable by all and writable by its owner only (chmod 0755)", path, info.Mode().Perm())
	}
	return nil
}

// agentOf returns the agent that a container should have: ours, or one that an
// earlier version of us has installed beside it and that is still what its name
// says. So an upgrade stops no workspace.
func (e *Engine) agentOf(c container.InspectResponse) string {
	for _, m := range c.Mounts {
		if m.Destination == engine.AgentBinary && m.Source != e.cfg.AgentPath && installedBeside(m.Source, e.cfg.AgentPath) {
			return m.Source
		}
	}
	return e.cfg.AgentPath
}

// AgentName returns the name under which an agent is installed beside others:
// it holds the hash of the content.
func AgentName(content []byte) string {
	sum := sha256.Sum256(content)
	return agentPrefix + hex.EncodeToString(sum[:8])
}

const (
	agentPrefix = "bailey-agent-"
	maxAgent    = 64 << 20
)

// installedBeside reports whether path is an agent in the folder of ours, which
// nobody but root writes to, under the name of its content.
func installedBeside(path, ours string) bool {
	dir, name := filepath.Split(path)
	if dir != filepath.Dir(ours)+"/" || !strings.HasPrefix(name, agentPrefix) {
		return false
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() //nolint:errcheck // read only
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm()&0o022 != 0 || info.Size() > maxAgent {
		return false
	}
	content, err := io.ReadAll(io.LimitReader(f, maxAgent))
	return err == nil && name == AgentName(content)
}

// wrap adds what we were doing, and the engine's sentinel that fits what the
// daemon or the connection to it said.
func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	if sentinel := sentinelFor(err); sentinel != nil {
		return fmt.Errorf("%s: %w: %w", doing, sentinel, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

func sentinelFor(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		return engine.ErrUnavailable
	}
	switch {
	case client.IsErrConnectionFailed(err), cerrdefs.IsUnavailable(err),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return engine.ErrUnavailable // the daemon stopped, also in the middle of an answer
	case cerrdefs.IsNotFound(err):
		return engine.ErrNotFound
	case cerrdefs.IsConflict(err):
		return engine.ErrConflict
	}
	return nil
}

// A runLock lets one Create of a run go on at a time.
type runLock struct {
	sync.Mutex
	users int // guarded by Engine.mu
}

// lockRun waits until no other Create of this run is under way.
func (e *Engine) lockRun(run string) (unlock func()) {
	e.mu.Lock()
	l := e.making[run]
	if l == nil {
		l = &runLock{}
		e.making[run] = l
	}
	l.users++
	e.mu.Unlock()
	l.Lock()
	return func() {
		l.Unlock()
		e.mu.Lock()
		defer e.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(e.making, run)
		}
	}
}
