package enginetest

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/engine"
)

// Config is what a Fake has. The zero Config is an engine with one image,
// FakeImage, in whose workspaces nothing listens.
type Config struct {
	Images []Image  // nil means one: FakeImage
	Dial   DialFunc // what answers inside; nil means nothing listens
	Exec   ExecFunc // what runs inside; nil means Tools
}

// An Image is one that a Fake has.
type Image struct {
	engine.Image

	Digest string // manifest digest it was pulled under; may be empty
}

// FakeImage is the ID of the image that a Fake has by default.
const FakeImage = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// A Fake is an engine in memory. It keeps every promise of [engine.Engine],
// time included: what it waits for, it waits for on timers and channels, so it
// can live in a synctest bubble. Close it at the end of the test; that ends
// everything it runs.
type Fake struct {
	*daemon

	instance string
}

var _ engine.Engine = (*Fake)(nil)

// daemon is what several installations share.
type daemon struct {
	cfg    Config
	ctx    context.Context //nolint:containedctx // the life of what runs inside, ended by Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // dial and exec functions

	mu         sync.Mutex // guards the rest, and every box
	closed     bool
	down       bool
	boxes      map[string]*box // by id
	volumes    map[string]int  // "instance/id" to uid
	images     []Image
	registry   map[string]Image // by "repository@sha256:…"
	watchers   map[*watcher]bool
	failures   map[string][]error // what the next calls of a method return
	delays     map[string]time.Duration
	calls      map[string]int
	dropEvents int
	startErr   error
}

// box is a container.
type box struct {
	status   engine.Status
	spec     engine.Spec
	instance string
	tampered []engine.Finding
	socket   string // what lies where the agent's socket should be; see Plant
	stubborn bool
	logs     string
	usage    engine.Usage
	stop     chan struct{} // closed when the current start ends
	conns    []*conn       // the ends inside
	out      *listener     // the newest of Egress
}

// NewFake returns an engine with nothing running.
func NewFake(cfg Config) *Fake {
	if cfg.Exec == nil {
		cfg.Exec = Tools
	}
	images := slices.Clone(cfg.Images)
	if cfg.Images == nil {
		images = []Image{{Image: engine.Image{ID: FakeImage, Labels: map[string]string{engine.LabelImage: "notebook"}, Size: 400 << 20}}}
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &Fake{instance: bailey.NewID(), daemon: &daemon{
		cfg: cfg, ctx: ctx, cancel: cancel, images: images,
		boxes: map[string]*box{}, volumes: map[string]int{}, watchers: map[*watcher]bool{},
		failures: map[string][]error{}, delays: map[string]time.Duration{}, calls: map[string]int{},
	}}
}

// Other returns a second installation on the same daemon.
func (f *Fake) Other() *Fake { return &Fake{instance: bailey.NewID(), daemon: f.daemon} }

// Close ends everything that runs inside and waits for it.
func (f *Fake) Close() error {
	f.mu.Lock()
	f.closed = true
	for _, b := range f.boxes {
		if b.out != nil {
			_ = b.out.Close() // in memory: never fails
		}
		if b.status.Running {
			f.end(b, 137, false)
		}
	}
	f.mu.Unlock()
	f.cancel()
	f.wg.Wait()
	return nil
}

// enter begins a method: it counts the call, waits the delay, and returns the
// failure that a test asked for.
func (f *Fake) enter(ctx context.Context, method string) error {
	f.mu.Lock()
	f.calls[method]++
	delay := f.delays[method]
	f.mu.Unlock()
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", method, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if queue := f.failures[method]; len(queue) > 0 {
		f.failures[method] = queue[1:]
		if queue[0] != nil {
			return fmt.Errorf("%s: %w", method, queue[0])
		}
	}
	if f.down || f.closed {
		return fmt.Errorf("%s: %w", method, engine.ErrUnavailable)
	}
	return nil
}

// own returns a container of this installation; mu is held.
func (f *Fake) own(id string) (*box, error) {
	b := f.boxes[id]
	if b == nil || b.instance != f.instance {
		return nil, fmt.Errorf("container %s: %w", id, engine.ErrNotFound)
	}
	return b, nil
}

// Probe implements [engine.Engine].
func (f *Fake) Probe(ctx context.Context) (engine.Capabilities, error) {
	if err := f.enter(ctx, "Probe"); err != nil {
		return engine.Capabilities{}, err
	}
	return engine.Capabilities{
		Kind: "fake", Version: "1.0", APIVersion: "1.0", RuncVersion: "1.0", CgroupVersion: "2", Seccomp: true, AppArmor: true,
		LiveRestore: true, DefaultRuntime: "fake", CPUs: 64, MemoryBytes: 512 << 30, RootDir: "/nowhere",
	}, nil
}

// Images implements [engine.Engine].
func (f *Fake) Images(ctx context.Context) ([]engine.Image, error) {
	if err := f.enter(ctx, "Images"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []engine.Image
	for _, img := range f.images {
		if _, ok := img.Labels[engine.LabelImage]; ok {
			out = append(out, img.Image)
		}
	}
	return out, nil
}

// Image implements [engine.Engine].
func (f *Fake) Image(ctx context.Context, digest string) (engine.Image, error) {
	if err := f.enter(ctx, "Image"); err != nil {
		return engine.Image{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.image(digest)
}

// image finds an image; mu is held.
func (f *Fake) image(ref string) (engine.Image, error) {
	if err := engine.CheckImage(ref); err != nil {
		return engine.Image{}, err
	}
	_, digest, named := strings.Cut(ref, "@")
	for _, img := range f.images {
		if img.ID == ref || img.Digest != "" && (img.Digest == ref || named && img.Digest == digest) {
			return img.Image, nil
		}
	}
	return engine.Image{}, fmt.Errorf("image %s: %w", ref, engine.ErrNoImage)
}

// Pull implements [engine.Engine]: from the images of [Fake.SetRegistry].
func (f *Fake) Pull(ctx context.Context, ref string, progress func(percent int)) error {
	if err := f.enter(ctx, "Pull"); err != nil {
		return err
	}
	if err := engine.CheckImage(ref); err != nil {
		return err
	}
	if !strings.Contains(ref, "@") {
		return &bailey.Error{Kind: bailey.Invalid, Msg: "an image is pulled from a repository: NAME@sha256:…"}
	}
	f.mu.Lock()
	img, ok := f.registry[ref]
	if ok {
		f.images = append(f.images, img)
	}
	f.mu.Unlock()
	if !ok {
		return fmt.Errorf("pull %s: %w", ref, engine.ErrNoImage)
	}
	if progress != nil {
		progress(50)
		progress(100)
	}
	return nil
}

// Load implements [engine.Engine]. What an archive holds is the ID of an image
// and nothing else.
func (f *Fake) Load(ctx context.Context, archive io.Reader) error {
	if err := f.enter(ctx, "Load"); err != nil {
		return err
	}
	b, err := io.ReadAll(io.LimitReader(archive, 128))
	if err != nil {
		return fmt.Errorf("load image: %w", err)
	}
	if err := engine.CheckImage(string(b)); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.images = append(f.images, Image{Image: engine.Image{ID: string(b), Size: 1}})
	return nil
}

// Save implements [engine.Engine]: a tar with the image's ID.
func (f *Fake) Save(ctx context.Context, digest string) (io.ReadCloser, error) {
	img, err := f.Image(ctx, digest)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	err = w.WriteHeader(&tar.Header{Name: "image", Size: int64(len(img.ID)), Mode: 0o644})
	if err == nil {
		_, err = io.WriteString(w, img.ID)
	}
	return io.NopCloser(&b), errors.Join(err, w.Close())
}

// EnsureVolume implements [engine.Engine].
func (f *Fake) EnsureVolume(ctx context.Context, volumeID string, uid int) error {
	if err := cmp.Or(f.enter(ctx, "EnsureVolume"), engine.CheckID("volume", volumeID), engine.CheckUID(uid)); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ensureVolume(volumeID, uid)
}

func (f *Fake) ensureVolume(volumeID string, uid int) error {
	key := f.instance + "/" + volumeID
	if owner, ok := f.volumes[key]; ok && owner != uid {
		return &bailey.Error{Kind: bailey.Conflict, Msg: "volume " + volumeID + " does not belong to this user"}
	}
	f.volumes[key] = uid
	return nil
}

// RemoveVolume implements [engine.Engine].
func (f *Fake) RemoveVolume(ctx context.Context, volumeID string) error {
	if err := cmp.Or(f.enter(ctx, "RemoveVolume"), engine.CheckID("volume", volumeID)); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.volumes, f.instance+"/"+volumeID)
	return nil
}

// Create implements [engine.Engine].
func (f *Fake) Create(ctx context.Context, s engine.Spec) (string, error) {
	if err := cmp.Or(f.enter(ctx, "Create"), s.Check()); err != nil {
		return "", err
	}
	s = s.Defaulted()
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, b := range f.boxes {
		if b.spec.Run != s.Run {
			continue
		}
		if b.instance != f.instance || b.status.SpecHash != s.Hash() {
			return "", fmt.Errorf("run %s has a container: %w", s.Run, engine.ErrConflict)
		}
		return id, nil
	}
	img, err := f.image(s.Image)
	if err != nil {
		return "", err
	}
	if err := f.ensureVolume(s.VolumeID, s.UID); err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(rand.Text()))
	id := hex.EncodeToString(sum[:])
	f.boxes[id] = &box{
		instance: f.instance, spec: s,
		status: engine.Status{
			ID: id, Run: s.Run, Workspace: s.Workspace, Owner: s.Owner, Class: s.Class, Image: img.ID, SpecHash: s.Hash(),
		},
		usage: engine.Usage{CPUNanos: 1, MemoryBytes: 64 << 20, MemoryLimit: uint64(max(0, s.MemoryBytes)), Pids: 2},
	}
	return id, nil
}

// Start implements [engine.Engine].
func (f *Fake) Start(ctx context.Context, id string) error {
	if err := f.enter(ctx, "Start"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.own(id)
	if err != nil {
		return err
	}
	if b.status.Running {
		return nil
	}
	if f.startErr != nil {
		b.status.Error = f.startErr.Error()
		return fmt.Errorf("start container %s: %w", id, f.startErr)
	}
	f.begin(b)
	return nil
}

// begin makes a container run; mu is held.
func (f *Fake) begin(b *box) {
	b.stop = make(chan struct{})
	b.status.Running, b.status.OOMKilled, b.status.ExitCode, b.status.Error = true, false, 0, ""
	b.status.StartedAt, b.status.EndedAt = time.Now(), time.Time{}
	f.emit(b, "start")
}

// end makes a running container stop; mu is held.
func (f *Fake) end(b *box, code int, oom bool) {
	b.status.Running, b.status.ExitCode, b.status.OOMKilled, b.status.EndedAt = false, code, oom, time.Now()
	close(b.stop)
	for _, c := range b.conns {
		_ = c.Close() // in memory: never fails
	}
	b.conns = nil
	if oom {
		b.usage.OOMKills++
		f.emit(b, "oom")
	}
	f.emit(b, "die")
}

// Stop implements [engine.Engine].
func (f *Fake) Stop(ctx context.Context, id string) error {
	if err := f.enter(ctx, "Stop"); err != nil {
		return err
	}
	f.mu.Lock()
	b, err := f.own(id)
	if err != nil || !b.status.Running {
		f.mu.Unlock()
		return err
	}
	code, stop := 0, b.stop
	if b.stubborn {
		code = 137
		f.mu.Unlock()
		timer := time.NewTimer(b.spec.StopGrace)
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return fmt.Errorf("stop container %s: %w", id, ctx.Err())
		case <-stop:
		case <-timer.C:
		}
		f.mu.Lock()
	}
	defer f.mu.Unlock()
	if b.status.Running && b.stop == stop {
		f.end(b, code, false)
	}
	return nil
}

// Remove implements [engine.Engine].
func (f *Fake) Remove(ctx context.Context, id string) error {
	if err := f.enter(ctx, "Remove"); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.own(id)
	if errors.Is(err, engine.ErrNotFound) {
		return nil
	}
	if b.status.Running {
		f.end(b, 137, false)
	}
	if b.out != nil {
		_ = b.out.Close() // in memory: never fails
	}
	delete(f.boxes, id)
	f.emit(b, "destroy")
	return nil
}

// Inspect implements [engine.Engine].
func (f *Fake) Inspect(ctx context.Context, id string) (engine.Status, error) {
	if err := f.enter(ctx, "Inspect"); err != nil {
		return engine.Status{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.own(id)
	if err != nil {
		return engine.Status{}, err
	}
	return b.status, nil
}

// List implements [engine.Engine].
func (f *Fake) List(ctx context.Context) ([]engine.Status, error) {
	if err := f.enter(ctx, "List"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []engine.Status
	for _, b := range f.boxes {
		if b.instance == f.instance {
			out = append(out, b.status)
		}
	}
	slices.SortFunc(out, func(a, b engine.Status) int { return strings.Compare(a.Run, b.Run) })
	return out, nil
}

// Dial implements [engine.Engine].
func (f *Fake) Dial(ctx context.Context, run string, uid int, network, addr string) (net.Conn, error) {
	if err := cmp.Or(f.enter(ctx, "Dial"), engine.CheckID("run", run), engine.CheckUID(uid), engine.CheckDial(network, addr)); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.byRun(run)
	switch {
	case b == nil:
		return nil, fmt.Errorf("dial workspace of run %s: %w", run, engine.ErrNotFound)
	case !hostileSocket(b.socket) && (!b.status.Running || b.socket == SocketAbsent):
		return nil, fmt.Errorf("dial workspace of run %s: %w: the agent does not listen", run, engine.ErrUnavailable)
	case hostileSocket(b.socket) || b.spec.UID != uid:
		return nil, fmt.Errorf("dial workspace of run %s: %w", run, engine.ErrHostile)
	}
	client, server := newConn(network + " " + addr)
	b.conns = append(slices.DeleteFunc(b.conns, (*conn).closed), server)
	answer := f.cfg.Dial
	call := DialCall{Run: run, Owner: b.spec.Name, UID: uid, Network: network, Addr: addr}
	f.wg.Go(func() {
		if answer == nil {
			_ = server.Close() // in memory: never fails
			return
		}
		answer(call, server)
	})
	return client, nil
}

// byRun returns this installation's container of a run; mu is held.
func (f *Fake) byRun(run string) *box {
	for _, b := range f.boxes {
		if b.spec.Run == run && b.instance == f.instance {
			return b
		}
	}
	return nil
}

// Logs implements [engine.Engine].
func (f *Fake) Logs(ctx context.Context, id string, tail int, maxBytes int64) ([]byte, error) {
	if err := f.enter(ctx, "Logs"); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.own(id)
	if err != nil || tail <= 0 || maxBytes <= 0 {
		return nil, err
	}
	lines := strings.SplitAfter(b.logs, "\n")
	if lines[len(lines)-1] == "" {
		lines = lines[:len(lines)-1]
	}
	text := strings.Join(lines[max(0, len(lines)-tail):], "")
	if over := int64(len(text)) - maxBytes; over > 0 {
		text = text[over:]
		if i := strings.IndexByte(text, '\n'); i >= 0 && i+1 < len(text) {
			text = text[i+1:]
		}
	}
	return []byte(text), nil
}

// Stats implements [engine.Engine].
func (f *Fake) Stats(ctx context.Context, id string) (engine.Usage, error) {
	if err := f.enter(ctx, "Stats"); err != nil {
		return engine.Usage{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.own(id)
	if err != nil {
		return engine.Usage{}, err
	}
	if !b.status.Running {
		return engine.Usage{}, fmt.Errorf("container %s does not run: %w", id, engine.ErrConflict)
	}
	return b.usage, nil
}

// Verify implements [engine.Engine].
func (f *Fake) Verify(ctx context.Context, id string, s engine.Spec) ([]engine.Finding, error) {
	if err := cmp.Or(f.enter(ctx, "Verify"), s.Check()); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	b, err := f.own(id)
	if err != nil {
		return nil, err
	}
	if !b.status.Running {
		return nil, fmt.Errorf("container %s does not run: %w", id, engine.ErrConflict)
	}
	found := slices.Clone(b.tampered)
	if want := s.Hash(); want != b.status.SpecHash {
		found = append(found, engine.Finding{Control: "label dev.bailey.spec", Want: want, Got: b.status.SpecHash})
	}
	return found, nil
}

// Specs returns the Specs of this installation's containers by run, for tests
// that look at what they were made from.
func (f *Fake) Specs() map[string]engine.Spec {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]engine.Spec{}
	for _, b := range f.boxes {
		if b.instance == f.instance {
			out[b.spec.Run] = b.spec
		}
	}
	return out
}

// Volumes returns the uid of each of this installation's volumes.
func (f *Fake) Volumes() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[string]int{}
	for key, uid := range maps.All(f.volumes) {
		if instance, id, _ := strings.Cut(key, "/"); instance == f.instance {
			out[id] = uid
		}
	}
	return out
}
