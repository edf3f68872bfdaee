// Package catalogue is the images that workspaces may start from: which digest
// stands behind a name, who vouches for it, and who approved it. It joins what
// trust decides, what the store keeps and what the engine holds, and is asked
// at every start. Tags are resolved here, when an entry is added, and nowhere
// else.
package catalogue

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/policy"
	"github.com/baileyhq/bailey/internal/trust"
	trustpolicy "github.com/baileyhq/bailey/internal/trust/policy"
)

// A Store keeps entries and evidence.
type Store interface {
	Images(ctx context.Context) ([]bailey.Image, error)
	AddImage(ctx context.Context, img bailey.Image) (bailey.Image, error)
	ChangeImage(ctx context.Context, id, superseded string, change func(*bailey.Image) error) (bailey.Image, error)
	Evidence(ctx context.Context, repository, digest string) (bailey.StoredEvidence, error)
	SaveEvidence(ctx context.Context, e bailey.StoredEvidence) error
}

// An Engine holds images.
type Engine interface {
	Probe(ctx context.Context) (engine.Capabilities, error)
	Image(ctx context.Context, digest string) (engine.Image, error)
	Pull(ctx context.Context, ref string, progress func(percent int)) error
	Load(ctx context.Context, archive io.Reader) error
	Save(ctx context.Context, digest string) (io.ReadCloser, error)
}

// Config is what a Service needs. Store, Engine, Policies and Audit are
// required.
type Config struct {
	Store    Store
	Engine   Engine
	Policies func() *trustpolicy.Policy // in force; asked at every decision
	Source   trust.Source               // registries; nil: none is ever asked
	Audit    audit.Appender
	Layouts  []string              // directories with OCI layouts NAME.oci and their signatures NAME.sigstore.json
	Transfer string                // directory through which images come and go as files; "": none do
	Key      string                // file of the key that countersigns; "": none
	Platform string                // "" means linux/amd64
	Changed  func(context.Context) // told when another digest stands behind a name; may be nil
	Log      *slog.Logger          // nil means silence
	Now      func() time.Time      // nil means time.Now

	// Fresh asks whether somebody proved lately enough who they are to change
	// anything here; nil: nobody is asked.
	Fresh func(actor bailey.Actor) error
}

// A Service is the catalogue. Its methods may be called concurrently.
type Service struct {
	cfg   Config
	log   *slog.Logger
	trust *trust.Verifier

	scanning sync.Mutex // held while layouts are looked at

	mu      sync.Mutex             // guards what follows
	layouts map[string]layoutState // by repository: what was seen last
	pulls   map[string]*pull       // by digest
}

// New returns a Service. Layouts are looked at by [Service.Scan].
func New(cfg Config) (*Service, error) {
	if cfg.Store == nil || cfg.Engine == nil || cfg.Policies == nil || cfg.Audit == nil {
		return nil, errors.New("catalogue: Config needs Store, Engine, Policies and Audit")
	}
	if cfg.Transfer != "" {
		if err := os.MkdirAll(cfg.Transfer, 0o700); err != nil {
			return nil, fmt.Errorf("catalogue: make the transfer folder: %w", err)
		}
	}
	cfg.Platform = cmp.Or(cfg.Platform, "linux/amd64")
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Changed == nil {
		cfg.Changed = func(context.Context) {}
	}
	s := &Service{cfg: cfg, log: cfg.Log, layouts: map[string]layoutState{}, pulls: map[string]*pull{}}
	var err error
	s.trust, err = trust.New(trust.Config{
		Policies: cfg.Policies, Source: source{s}, Store: evidence{cfg.Store}, Platform: cfg.Platform, Now: cfg.Now, Log: cfg.Log,
	})
	return s, err
}

// Run looks at the layouts again and again until ctx ends: an image that was
// built and signed can be launched without a restart.
func (s *Service) Run(ctx context.Context) error {
	const each = 15 * time.Second
	tick := time.NewTicker(each)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			s.Scan(ctx)
		}
	}
}

// Names returns the digest behind each approved name, and behind each name that
// is out of use: that still leads to another image, or to a message.
func (s *Service) Names(ctx context.Context) (approved, retired map[string]string, err error) {
	all, err := s.cfg.Store.Images(ctx)
	if err != nil {
		return nil, nil, err
	}
	approved, retired = map[string]string{}, map[string]string{}
	for _, img := range slices.Backward(all) { // the newest of a name last
		switch img.State {
		case bailey.ImageApproved:
			approved[img.Name] = img.Digest
		case bailey.ImageRetired:
			retired[img.Name] = img.Digest
		case bailey.ImageCandidate, bailey.ImageVerified:
		}
	}
	return approved, retired, nil
}

// holds reports whether the entry is about that digest: the one that was
// signed, or one that it names.
func holds(img bailey.Image, digest string) bool {
	return img.Digest == digest || slices.ContainsFunc(img.Platforms, func(p bailey.ImagePlatform) bool {
		return p.Manifest == digest || p.Config == digest
	})
}

// find returns the entry of a name, or of a digest under a name, the approved
// one before others and newer ones before older.
func (s *Service) find(ctx context.Context, name, digest string) (bailey.Image, error) {
	all, err := s.cfg.Store.Images(ctx)
	if err != nil {
		return bailey.Image{}, err
	}
	if bailey.IsDigest(name) {
		name, digest = "", name
	}
	var found *bailey.Image
	named := false
	for i := range all {
		img := &all[i]
		if name != "" && img.Name != name {
			continue
		}
		named = named || name != ""
		if digest != "" && !holds(*img, digest) {
			continue
		}
		if found == nil || found.State != bailey.ImageApproved && img.State == bailey.ImageApproved {
			found = img
		}
	}
	if found != nil {
		return *found, nil
	}
	return bailey.Image{}, unknown(name, digest, named)
}

// unknown says why an image that the catalogue does not have may not start.
func unknown(name, digest string, named bool) error {
	what := cmp.Or(name, short(digest))
	switch {
	case named && digest != "":
		return &bailey.Error{
			Kind: bailey.Denied,
			Msg:  fmt.Sprintf("image %s may not start: what this machine has under that name (%s) is not what was signed and approved", what, short(digest)),
			Hint: "bailey image ls shows what was; somebody has built or loaded another image under the name",
		}
	case digest != "":
		return &bailey.Error{
			Kind: bailey.Denied,
			Msg:  fmt.Sprintf("image %s (%s) may not start: it is not signed by anyone the image policy trusts, and is not in the catalogue", what, short(digest)),
			Hint: "make images signs what it builds; an administrator adds others: bailey image add, and approves them",
		}
	}
	return &bailey.Error{
		Kind: bailey.NotFound, Msg: "there is no image " + what + " in the catalogue",
		Hint: "bailey image ls lists what is there",
	}
}

// short is the beginning of a digest, for people.
func short(digest string) string {
	if len(digest) > 19 {
		return digest[:19]
	}
	return digest
}

// allow returns nil if the actor may do action to the catalogue.
func (s *Service) allow(ctx context.Context, actor bailey.Actor, action policy.Action) error {
	if policy.Decide(actor, action, policy.Thing{}) {
		if action == policy.ImageManage && s.cfg.Fresh != nil {
			return s.cfg.Fresh(actor)
		}
		return nil
	}
	s.record(ctx, audit.Event{
		Actor: audit.By(actor), Action: audit.AccessDenied, Target: audit.Target{Kind: "image"},
		Outcome: audit.Refused, Reason: audit.NotAllowed,
	})
	return &bailey.Error{
		Kind: bailey.Denied, Msg: "only administrators may change the catalogue of images",
		Hint: "ask an administrator; bailey image ls shows what is there",
	}
}

// record writes an event whose effect does not depend on it.
func (s *Service) record(ctx context.Context, e audit.Event) {
	if err := s.cfg.Audit.Append(context.WithoutCancel(ctx), e); err != nil {
		s.log.ErrorContext(ctx, "event not in the audit journal", slog.String("action", string(e.Action)), slog.Any("error", err))
	}
}

// before writes an event that must be in the journal before its effect.
func (s *Service) before(ctx context.Context, e audit.Event) error {
	if err := s.cfg.Audit.Append(context.WithoutCancel(ctx), e); err != nil {
		return &bailey.Error{
			Kind: bailey.Unavailable, Msg: "the audit journal cannot be written, so nothing was changed",
			Hint: "an administrator frees space on the disk of the state directory", Cause: err,
		}
	}
	return nil
}

// evidence is the store as trust knows it: a record as JSON, and blobs.
type evidence struct{ store Store }

// An item is a piece of evidence without its data, which is the blob of that
// name. The name is ours: what the item says of itself is not believed.
type item struct {
	trust.Item

	Blob string `json:"blob"`
}

type record struct {
	Items    []item `json:"items"`
	Skipped  int    `json:"skipped,omitempty"`
	Requests int    `json:"requests,omitempty"`
}

// Evidence implements trust.Store.
func (e evidence) Evidence(ctx context.Context, repository, digest string) (trust.Evidence, error) {
	stored, err := e.store.Evidence(ctx, repository, digest)
	if bailey.KindOf(err) == bailey.NotFound {
		return trust.Evidence{}, trust.ErrNoEvidence
	}
	if err != nil {
		return trust.Evidence{}, err
	}
	var r record
	if err := json.NewDecoder(strings.NewReader(stored.Record)).Decode(&r); err != nil {
		return trust.Evidence{}, fmt.Errorf("stored evidence of %s@%s: %w", repository, digest, err)
	}
	out := trust.Evidence{Repository: repository, Digest: digest, Collected: stored.Collected, Skipped: r.Skipped, Requests: r.Requests}
	for _, it := range r.Items {
		data, ok := stored.Blobs[it.Blob]
		if !ok {
			continue // somebody changed it: it is as good as not there
		}
		it.Data = data
		out.Items = append(out.Items, it.Item)
	}
	return out, nil
}

// SaveEvidence implements trust.Store.
func (e evidence) SaveEvidence(ctx context.Context, ev trust.Evidence) error {
	stored := bailey.StoredEvidence{Repository: ev.Repository, Digest: ev.Digest, Collected: ev.Collected, Blobs: map[string][]byte{}}
	r := record{Skipped: ev.Skipped, Requests: ev.Requests, Items: []item{}}
	for _, it := range ev.Items {
		name := digestOf(it.Data)
		stored.Blobs[name] = it.Data
		it.Data = nil
		r.Items = append(r.Items, item{Item: it, Blob: name})
	}
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode evidence: %w", err)
	}
	stored.Record = string(text)
	return e.store.SaveEvidence(ctx, stored)
}

// source asks a layout about what is in a layout, and registries about the rest.
type source struct{ s *Service }

// Resolve implements trust.Source.
func (s source) Resolve(ctx context.Context, ref trust.Reference) (string, error) {
	if s.s.cfg.Source == nil || isLocal(ref.Repository) {
		return "", &trust.UnavailableError{What: "no registry is asked about " + ref.Repository}
	}
	return s.s.cfg.Source.Resolve(ctx, ref)
}

// Collect implements trust.Source.
func (s source) Collect(ctx context.Context, ref trust.Reference, want trust.Want) (trust.Evidence, error) {
	if isLocal(ref.Repository) {
		return s.s.collectLayout(ref)
	}
	if s.s.cfg.Source == nil {
		return trust.Evidence{}, &trust.UnavailableError{What: "no registry is asked about " + ref.Repository}
	}
	ev, err := s.s.cfg.Source.Collect(ctx, ref, want)
	if err != nil {
		return ev, err
	}
	return s.s.countersigned(ctx, ev), nil
}
