package catalogue_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/catalogue"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/engine/enginetest"
	"github.com/baileyhq/bailey/internal/store"
	"github.com/baileyhq/bailey/internal/trust/policy"
	"github.com/baileyhq/bailey/internal/trust/registry"
	"github.com/baileyhq/bailey/internal/trust/sign"
	"github.com/baileyhq/bailey/internal/trust/trusttest"
)

// A journal remembers what was written, and can be full.
type journal struct {
	mu     sync.Mutex // guards the rest
	events []audit.Event
	full   error
}

func (j *journal) Append(_ context.Context, e audit.Event) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.full != nil {
		return j.full
	}
	j.events = append(j.events, e)
	return nil
}

// last returns the newest event of an action.
func (j *journal) last(action audit.Action) (last audit.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.events {
		if e.Action == action {
			last = e
		}
	}
	return last
}

// A world is a machine with a catalogue, a registry elsewhere, the team that
// signs images, and people.
type world struct {
	*testing.T

	registry *trusttest.Registry
	team     []byte // private key, PEM
	public   []byte
	dir      string
	engine   catalogue.Engine
	fake     *enginetest.Fake
	store    *store.Store
	journal  *journal
	policy   atomic.Pointer[policy.Policy]
	images   *catalogue.Service

	admin, alice bailey.Actor
}

func newWorld(t *testing.T) *world {
	t.Helper()
	fake := enginetest.NewFake(enginetest.Config{Images: []enginetest.Image{}})
	t.Cleanup(func() { _ = fake.Close() })
	w := newWorldOn(t, fake)
	w.fake = fake
	return w
}

func newWorldOn(t *testing.T, e catalogue.Engine) *world {
	t.Helper()
	w := &world{
		T: t, registry: trusttest.NewRegistry(t, true), dir: t.TempDir(), engine: e, journal: &journal{},
		admin: bailey.Actor{UserID: "u1", Name: "root", Role: bailey.RoleAdmin, Method: "password"},
		alice: bailey.Actor{UserID: "u2", Name: "alice", Role: bailey.RoleUser, Method: "password"},
	}
	var err error
	w.team, w.public, err = sign.GenerateKey()
	w.must(err)
	w.store, err = store.Open(t.Context(), store.Config{Path: filepath.Join(w.dir, "state.db"), Key: bytes.Repeat([]byte{7}, 32)})
	w.must(err)
	t.Cleanup(func() { _ = w.store.Close() })
	_, err = catalogue.EnsureKey(w.file("own.key"))
	w.must(err)
	w.trust(w.public)
	w.serve()
	return w
}

func (w *world) file(name string) string { return filepath.Join(w.dir, name) }

// trust puts a policy in force: images of the registry are signed by the key,
// or by this server's own; what is built here by its own.
func (w *world) trust(public []byte) {
	w.Helper()
	text := `version: 1
authorities:
  team: {key: {pem: "` + strings.ReplaceAll(string(public), "\n", `\n`) + `"}}
  own: {key: {file: own.pub}}
rules:
  - {name: teams, match: ["` + w.registry.Host + `/team/*"], require: {of: [team, own]}}
  - {name: built-here, match: ["localhost/bailey/*"], require: {of: [own]}}
`
	p, err := policy.Parse(w.file("policy.yaml"), []byte(text), os.ReadFile)
	w.must(err)
	w.policy.Store(p)
}

// serve starts a server on what is there, as after a restart.
func (w *world) serve() {
	w.Helper()
	reg, err := registry.New(registry.Config{})
	w.must(err)
	w.images, err = catalogue.New(catalogue.Config{
		Store: w.store, Engine: w.engine, Policies: w.policy.Load, Source: reg, Audit: w.journal,
		Layouts: []string{w.file("layouts")}, Transfer: w.file("transfer"), Key: w.file("own.key"),
	})
	w.must(err)
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// refused fails the test unless err is of the kind and says the words.
func (w *world) refused(doing string, err error, kind bailey.Kind, words ...string) {
	w.Helper()
	if err == nil || bailey.KindOf(err) != kind {
		w.Errorf("%s: %v (%v), want kind %v", doing, err, bailey.KindOf(err), kind)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			w.Errorf("%s: %q does not say %q", doing, err, word)
		}
	}
}

// push puts a signed image under a tag and says what pulling it gives.
func (w *world) push(repository, tag, name string, signed bool) (digest, config string) {
	w.Helper()
	digest = w.registry.Image(repository, tag, name)
	_, text, _ := trusttest.ImageManifest(name)
	config = trusttest.Digest(text)
	if signed {
		w.sign(repository, digest)
	}
	return digest, config
}

func (w *world) sign(repository, digest string) {
	w.Helper()
	key, err := sign.ParseKey(w.team)
	w.must(err)
	b, err := sign.Bundle(key, w.registry.Host+"/"+repository, digest, signedAt)
	w.must(err)
	w.registry.Attach(repository, digest, b)
}

// pullable makes the fake engine get config when it pulls the digest.
func (w *world) pullable(repository, digest, config string) {
	w.fake.SetRegistry(map[string]enginetest.Image{
		w.registry.Host + "/" + repository + "@" + digest: {Image: engine.Image{ID: config, Size: 1}, Digest: digest},
	})
}

func (w *world) verify(name, digest string) (bailey.Receipt, error) {
	return w.images.Verify(w.Context(), audit.By(w.alice), name, digest)
}
