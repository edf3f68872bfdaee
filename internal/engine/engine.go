// Package engine is the contract between bailey and whatever runs containers.
// It says what a workspace's container may be ([Spec], which cannot express
// privilege), what the strict profile gives every one of them, and what an
// engine must do ([Engine]). It starts nothing itself; internal/engine/docker
// does. A conformance suite for every implementation is in enginetest.
package engine

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"github.com/baileyhq/bailey/internal/secret"
)

// Failures that callers choose by. Engines wrap them.
var (
	ErrNotFound    = errors.New("no such container")
	ErrNoImage     = errors.New("no such image")
	ErrUnavailable = errors.New("the engine does not answer")
	ErrConflict    = errors.New("the container is in a state that forbids this")
	ErrHostile     = errors.New("the workspace's socket is not what it should be")
)

// A Spec is all that a workspace's container may differ in. It has no field
// that could express privilege: no capabilities, no host namespaces, no host
// paths, no devices but leased GPUs, no published ports, no user but a number
// from the tenants' range, no environment that names NVIDIA or the loader. What
// Network can say is how far the workspace reaches, never by which path or to
// whom: that is decided outside, at the other end of the socket.
// Everything else is the profile's ([Strict]).
type Spec struct {
	Run       string // ULID of the run; with Instance it names the container, so Create is idempotent on it
	Workspace string // ULID
	Owner     string // ULID of the user
	Name      string // the owner's name, for USER and passwd; checked grammar
	Class     string

	Image    string // "sha256:<64 hex>": the image ID or manifest digest that was approved, never a tag
	UID      int    // 20000–59999; gid is the same number
	VolumeID string // mounted on /workspace

	CPUMillis   int64
	MemoryBytes int64
	ShmBytes    int64
	TmpBytes    int64
	Pids        int64
	GPUs        []string // UUIDs leased to this run; empty: none visible

	JupyterToken secret.Value      // handed to the agent in a file only the tenant can read
	BasePath     string            // Jupyter's base URL, "/" as a rule
	Env          map[string]string // names by EnvAllowed only
	StopGrace    time.Duration     // from the first signal to the kill; 0 means 10 s
	// Secrets become files in /run/secrets, for the tenant alone to read. They
	// are no part of the Hash: what a container is made with is decided when it
	// is made.
	Secrets map[string]secret.Value // by file name
	Network Network                 // empty means NetworkNone
}

// A Status is what an engine knows of one container of ours.
type Status struct {
	ID        string // the engine's id
	Run       string // labels, as they were given in the Spec
	Workspace string
	Owner     string
	Class     string
	Image     string // image ID that the engine really started
	SpecHash  string // hash of the Spec it was created from
	Running   bool
	StartedAt time.Time // changes with every start, also one the engine did by itself
	EndedAt   time.Time
	ExitCode  int
	OOMKilled bool
	Error     string // the engine's own words when a start failed
}

// Usage is what a container consumes now.
type Usage struct {
	CPUNanos    uint64 // total since start
	MemoryBytes uint64
	MemoryLimit uint64
	Pids        uint64
	OOMKills    uint64
}

// A Finding is one way in which a live container differs from what its Spec
// and the profile say.
type Finding struct {
	Control string // e.g. "capabilities", "seccomp", "uid"
	Want    string
	Got     string
}

// Capabilities says what an engine and its host can do.
type Capabilities struct {
	Kind           string // "docker" or "fake"
	Version        string
	APIVersion     string
	RuncVersion    string
	CgroupVersion  string // "1" or "2"
	Seccomp        bool
	AppArmor       bool
	UsernsRemap    bool
	LiveRestore    bool
	CDI            bool // CDI device requests work
	GPUDriver      bool // an "nvidia" runtime or CDI devices exist
	DefaultRuntime string
	ByManifest     bool // an image's ID is the digest of its manifest, not of its configuration
	CPUs           int
	MemoryBytes    int64
	RootDir        string
	Warnings       []string
}

// An Event tells that something happened to one of our containers.
type Event struct {
	Run    string
	ID     string
	Action string // "start", "die", "oom", "destroy"; "resync" when events may have been lost
}

// An ExecSpec is a command to run beside the workspace's own processes, as its
// user, with the container's environment and limits. There is no other user.
type ExecSpec struct {
	Cmd        []string
	Env        []string // "K=V", names by EnvAllowed only
	Dir        string   // empty: /workspace
	TTY        bool
	Cols, Rows uint16 // initial size when TTY
}

// A Session is a running exec. Reads and writes may go on concurrently; Close
// may be called at any time and ends the streams.
type Session interface {
	Stdin() io.WriteCloser // closing it is the half-close
	Stdout() io.Reader
	Stderr() io.Reader // empty when TTY
	Resize(ctx context.Context, cols, rows uint16) error
	Wait(ctx context.Context) (exitCode int, err error)
	Close() error
}

// An Image is what an engine has under one digest.
type Image struct {
	ID     string // "sha256:…" of its configuration
	Labels map[string]string
	Size   int64
	Tags   []string // names that lead to it; none when a newer build took them
}

// An Engine runs workspaces' containers. Every method may be called
// concurrently. Methods on a container that is gone return [ErrNotFound]; when
// the engine itself does not answer, [ErrUnavailable].
//
//nolint:interfacebloat // the one provider-side contract of the house, with a conformance suite
type Engine interface {
	// Probe asks the engine what it can do. It is cheap enough for a health check.
	Probe(ctx context.Context) (Capabilities, error)
	// Images lists the images that carry the label dev.bailey.image.
	Images(ctx context.Context) ([]Image, error)
	// Image returns the image under a digest or ID; [ErrNoImage] if it is not there.
	Image(ctx context.Context, digest string) (Image, error)
	// Pull fetches an image by digest: ref is "repository@sha256:…", a tag is
	// refused. progress, if not nil, is told in percent how much is there, never
	// less than before, by one goroutine. What the engine holds afterwards is
	// asked with Image. [ErrNoImage] when the registry has no such image.
	Pull(ctx context.Context, ref string, progress func(percent int)) error
	// Load reads a Docker archive ("docker save"). The names in it are the
	// archive's own claim; what it holds is asked by digest, with Image.
	Load(ctx context.Context, archive io.Reader) error
	// Save returns the image under a digest as a Docker archive. The caller
	// closes it. [ErrNoImage] if it is not there.
	Save(ctx context.Context, digest string) (io.ReadCloser, error)
	// EnsureVolume makes the volume, 0700 and owned by uid; idempotent. A
	// volume that belongs to another uid is an error, never re-owned.
	EnsureVolume(ctx context.Context, volumeID string, uid int) error
	// RemoveVolume deletes a volume and all that is in it; idempotent.
	RemoveVolume(ctx context.Context, volumeID string) error
	// Create makes the container and what it mounts, without starting it.
	// It is idempotent on Spec.Run: a second call returns the same id, and
	// [ErrConflict] if the Spec differs. After creating it compares the image
	// the engine stored with Spec.Image.
	Create(ctx context.Context, s Spec) (id string, err error)
	// Start starts a created or stopped container.
	Start(ctx context.Context, id string) error
	// Stop sends SIGTERM, waits the Spec's grace, then kills. A container that
	// is not running is no error.
	Stop(ctx context.Context, id string) error
	// Remove deletes the container (killing it if it runs) and its run
	// directory, never its volume; idempotent.
	Remove(ctx context.Context, id string) error
	Inspect(ctx context.Context, id string) (Status, error)
	// List returns every container of this instance, running or not. Foreign
	// containers are never listed and never touched.
	List(ctx context.Context) ([]Status, error)
	// Watch streams events until ctx ends, reconnecting by itself; after each
	// reconnect it sends "resync". The channel is closed when ctx is done.
	Watch(ctx context.Context) <-chan Event
	// Exec runs a command in the container as the tenant.
	Exec(ctx context.Context, id string, e ExecSpec) (Session, error)
	// Dial connects, through the agent, to an address that the workspace
	// itself can reach on its loopback: network "tcp" with "127.0.0.1:8888",
	// or "unix" with a path inside. What answers is hostile: [ErrHostile] when
	// the socket is not a socket of the tenant. The connection supports
	// CloseWrite. Nothing listening shows as EOF on the first read.
	Dial(ctx context.Context, run string, uid int, network, addr string) (net.Conn, error)
	// Egress listens where the agent of a run of network mode proxied sends what
	// the workspace sends out. Every accepted connection was opened by a process
	// of uid in that workspace; what it says is hostile. The connections support
	// CloseWrite. A newer listener of the same run takes the place of an older
	// one, also of one that another process of this installation left behind;
	// the agent finds it without a restart. [ErrNotFound] when there is no such
	// run, or none that reaches out this way. Accept fails with [net.ErrClosed]
	// after Close, and when the run was removed.
	Egress(ctx context.Context, run string, uid int) (net.Listener, error)
	// Logs returns the container's own output, newest tail lines, at most
	// maxBytes.
	Logs(ctx context.Context, id string, tail int, maxBytes int64) ([]byte, error)
	Stats(ctx context.Context, id string) (Usage, error)
	// Verify reads the live container back and compares it with the Spec and
	// the profile. No findings means it is what it should be. An error means
	// that it could not look, which callers treat like a finding.
	Verify(ctx context.Context, id string, s Spec) ([]Finding, error)
	Close() error
}
