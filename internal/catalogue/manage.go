package catalogue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/policy"
	"github.com/baileyhq/bailey/internal/trust"
)

// An Entry is an image of the catalogue with what is known of it now.
type Entry struct {
	bailey.Image

	Here    bool          // the engine holds it
	Fetched int           // percent, while it is being fetched; -1: it is not
	Verdict trust.Verdict // of [Service.Show] only
}

// List returns the catalogue by name, newest first.
func (s *Service) List(ctx context.Context, actor bailey.Actor) ([]Entry, error) {
	if err := s.allow(ctx, actor, policy.ImageList); err != nil {
		return nil, err
	}
	all, err := s.cfg.Store.Images(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Entry, 0, len(all))
	for _, img := range all {
		out = append(out, s.entry(ctx, img))
	}
	return out, nil
}

func (s *Service) entry(ctx context.Context, img bailey.Image) Entry {
	e := Entry{Image: img, Fetched: -1}
	ids := []string{img.Digest}
	for _, p := range img.Platforms {
		ids = append(ids, p.Config, p.Manifest)
	}
	e.Here = slices.ContainsFunc(ids, func(id string) bool {
		_, err := s.cfg.Engine.Image(ctx, id)
		return id != "" && err == nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.pulls[img.Repository+"@"+img.Digest]; ok {
		e.Fetched = p.percent
	}
	return e
}

// Show returns one entry with the decision about it as it is now. ref is a
// name, an id, a digest, or name@digest.
func (s *Service) Show(ctx context.Context, actor bailey.Actor, ref string) (Entry, error) {
	if err := s.allow(ctx, actor, policy.ImageList); err != nil {
		return Entry{}, err
	}
	img, err := s.named(ctx, ref)
	if err != nil {
		return Entry{}, err
	}
	e := s.entry(ctx, img)
	e.Verdict, err = s.decide(ctx, img, false)
	return e, err
}

// named returns the entry that a person means: under a name the approved one,
// or else the newest.
func (s *Service) named(ctx context.Context, ref string) (bailey.Image, error) {
	name, digest, _ := strings.Cut(ref, "@")
	if all, err := s.cfg.Store.Images(ctx); err == nil {
		for _, img := range all {
			if img.ID == ref {
				return img, nil
			}
		}
	}
	img, err := s.find(ctx, name, digest)
	if bailey.KindOf(err) == bailey.Denied { // the words of a start, not of a question
		err = &bailey.Error{Kind: bailey.NotFound, Msg: "there is no such image in the catalogue", Hint: "bailey image ls lists what is there"}
	}
	return img, err
}

// pending returns the entry of a name that waits for a decision: the newest
// that is neither approved nor retired, or else what named returns.
func (s *Service) pending(ctx context.Context, ref string) (bailey.Image, error) {
	all, err := s.cfg.Store.Images(ctx)
	if err != nil {
		return bailey.Image{}, err
	}
	for _, img := range all {
		if img.Name == ref && (img.State == bailey.ImageCandidate || img.State == bailey.ImageVerified) {
			return img, nil
		}
	}
	return s.named(ctx, ref)
}

// Add resolves a reference once, looks at what is signed, and adds the digest
// to the catalogue under a name: verified when the policy allows it, else a
// candidate, with the reason. Nothing starts from either before [Service.Approve].
func (s *Service) Add(ctx context.Context, actor bailey.Actor, name, reference string) (Entry, error) {
	if err := s.allow(ctx, actor, policy.ImageManage); err != nil {
		return Entry{}, err
	}
	if err := bailey.CheckName("image", name); err != nil {
		return Entry{}, err
	}
	ref, err := trust.ParseReference(reference)
	if err != nil || ref.Tag == "" && ref.Digest == "" || isLocal(ref.Repository) {
		return Entry{}, &bailey.Error{
			Kind: bailey.Invalid, Msg: "that is not the name of an image in a registry",
			Hint: "write REGISTRY/REPOSITORY:TAG or REGISTRY/REPOSITORY@sha256:…; what is built here is added by itself", Cause: err,
		}
	}
	v, err := s.trust.Decide(ctx, trust.Request{Image: ref, Refresh: true})
	if err != nil {
		return Entry{}, fmt.Errorf("add image %s: %w", name, err)
	}
	switch {
	case v.Class == trust.Unavailable:
		return Entry{}, &bailey.Error{Kind: bailey.Unavailable, Msg: "image " + ref.String() + " cannot be looked at: " + v.Msg, Hint: v.Hint}
	case v.Rule == "" || !bailey.IsDigest(v.Digest): // no registry is asked that no rule names
		return Entry{}, &bailey.Error{
			Kind: bailey.Denied, Msg: "image " + ref.String() + " cannot be added: " + v.Msg,
			Hint: "add a rule that matches " + ref.Repository + " to the image policy; it counts within a second", Cause: v.Err(),
		}
	}
	img := bailey.Image{
		Name: name, Repository: ref.Repository, Tag: ref.Tag, Digest: v.Digest, Source: bailey.FromRegistry, State: bailey.ImageCandidate, AddedBy: actor.Name,
	}
	if v.ConfigDigest != "" {
		img.Platforms = []bailey.ImagePlatform{{Platform: s.cfg.Platform, Manifest: v.PlatformDigest, Config: v.ConfigDigest}}
	}
	if ev, err := (evidence{s.cfg.Store}).Evidence(ctx, img.Repository, img.Digest); err == nil {
		img.Size = sizeOf(ev, v.PlatformDigest)
	}
	note(&img, v)
	if v.Class == trust.Allowed {
		img.State = bailey.ImageVerified
	}
	if err := s.before(ctx, s.change(audit.By(actor), audit.ImageAdd, img)); err != nil {
		return Entry{}, err
	}
	if img, err = s.cfg.Store.AddImage(ctx, img); err != nil {
		return Entry{}, err
	}
	e := s.entry(ctx, img)
	e.Verdict = v
	return e, nil
}

// Approve makes an image the one that starts under its name, if the policy
// allows it now. The one that was approved before is retired.
func (s *Service) Approve(ctx context.Context, actor bailey.Actor, ref string) (Entry, error) {
	if err := s.allow(ctx, actor, policy.ImageManage); err != nil {
		return Entry{}, err
	}
	img, err := s.pending(ctx, ref)
	if err != nil {
		return Entry{}, err
	}
	v, err := s.decide(ctx, img, false)
	if err != nil {
		return Entry{}, fmt.Errorf("approve image %s: %w", img.Name, err)
	}
	if !v.Starts() { // a rule that only warns leaves it to the administrator
		s.refused(ctx, audit.By(actor), img, audit.Untrusted, verdictOf(v), v)
		kind := bailey.Denied
		if v.Class == trust.Unavailable || v.Class == trust.Stale {
			kind = bailey.Unavailable
		}
		return Entry{}, &bailey.Error{
			Kind: kind, Msg: "image " + img.Name + " cannot be approved: " + v.Msg,
			Hint: "to vouch for it yourself: bailey image countersign " + img.Name,
		}
	}
	if err := s.before(ctx, s.change(audit.By(actor), audit.ImageApprove, img)); err != nil {
		return Entry{}, err
	}
	img, err = s.cfg.Store.ChangeImage(ctx, img.ID, "another one was approved under this name", func(i *bailey.Image) error {
		note(i, v)
		i.State, i.DecidedAt, i.Message, i.Redirect = bailey.ImageApproved, s.cfg.Now().UTC(), "", ""
		if len(i.Platforms) == 0 && v.ConfigDigest != "" {
			i.Platforms = []bailey.ImagePlatform{{Platform: s.cfg.Platform, Manifest: v.PlatformDigest, Config: v.ConfigDigest}}
		}
		return nil
	})
	if err != nil {
		return Entry{}, err
	}
	s.cfg.Changed(ctx)
	e := s.entry(ctx, img)
	e.Verdict = v
	return e, nil
}

// maxMessage bounds what is said of a retired image.
const maxMessage = 300

// Retire takes an image out of use. message is for whoever wants to launch it;
// redirect, if not empty, names the image that starts in its place.
func (s *Service) Retire(ctx context.Context, actor bailey.Actor, ref, message, redirect string) (Entry, error) {
	if err := s.allow(ctx, actor, policy.ImageManage); err != nil {
		return Entry{}, err
	}
	img, err := s.named(ctx, ref)
	if err != nil {
		return Entry{}, err
	}
	if len(message) > maxMessage || strings.ContainsFunc(message, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
		return Entry{}, &bailey.Error{Kind: bailey.Invalid, Msg: fmt.Sprintf("the message is longer than %d bytes, or has line breaks in it", maxMessage), Hint: "one short line"}
	}
	if redirect != "" {
		next, err := s.find(ctx, redirect, "")
		if err != nil || next.State != bailey.ImageApproved || next.Name == img.Name {
			return Entry{}, &bailey.Error{Kind: bailey.Invalid, Msg: "there is no approved image " + clip(redirect) + " to start in its place", Hint: "bailey image ls lists them"}
		}
	}
	if err := s.before(ctx, s.change(audit.By(actor), audit.ImageRetire, img)); err != nil {
		return Entry{}, err
	}
	img, err = s.cfg.Store.ChangeImage(ctx, img.ID, "", func(i *bailey.Image) error {
		i.State, i.DecidedAt, i.Message, i.Redirect = bailey.ImageRetired, s.cfg.Now().UTC(), message, redirect
		return nil
	})
	if err != nil {
		return Entry{}, err
	}
	s.cfg.Changed(ctx)
	return s.entry(ctx, img), nil
}

func clip(name string) string {
	if bailey.CheckName("image", name) != nil {
		return "of that name"
	}
	return name
}

// ownRepository is where the store keeps our signatures of others' images:
// apart, so that asking a registry anew does not lose them.
func ownRepository(repository string) string { return "countersigned/" + repository }

// Countersign vouches for an image with the installation's own key: for those
// that nobody signs, or nobody that the policy knows.
func (s *Service) Countersign(ctx context.Context, actor bailey.Actor, ref string) (Entry, error) {
	if err := s.allow(ctx, actor, policy.ImageManage); err != nil {
		return Entry{}, err
	}
	img, err := s.pending(ctx, ref)
	if err != nil {
		return Entry{}, err
	}
	key, err := ReadKey(s.cfg.Key)
	if errors.Is(err, fs.ErrNotExist) {
		return Entry{}, &bailey.Error{Kind: bailey.Unavailable, Msg: "this server has no key to sign with", Hint: "name one with trust.key in the configuration", Cause: err}
	}
	if err != nil {
		return Entry{}, err
	}
	stored := evidence{s.cfg.Store}
	ev, err := stored.Evidence(ctx, img.Repository, img.Digest)
	if err != nil {
		// What is signed has been seen: its manifest, at the least.
		return Entry{}, &bailey.Error{Kind: bailey.Conflict, Msg: "nothing of image " + img.Name + " has been looked at yet", Hint: "add it again when its registry answers: bailey image add", Cause: err}
	}
	bundle, err := key.bundle(img.Repository, img.Digest)
	if err != nil {
		return Entry{}, err
	}
	if err := s.before(ctx, s.change(audit.By(actor), audit.ImageSign, img)); err != nil {
		return Entry{}, err
	}
	own := bundleItem(img.Digest, bundle)
	if err := stored.SaveEvidence(ctx, trust.Evidence{
		Repository: ownRepository(img.Repository), Digest: img.Digest, Collected: s.cfg.Now().UTC(), Items: []trust.Item{own},
	}); err != nil {
		return Entry{}, err
	}
	ev.Items = append(ev.Items, own)
	if err := s.trust.Offer(ctx, ev); err != nil {
		return Entry{}, err
	}
	v, err := s.decide(ctx, img, false)
	if err != nil {
		return Entry{}, err
	}
	img, err = s.cfg.Store.ChangeImage(ctx, img.ID, "", func(i *bailey.Image) error {
		note(i, v)
		if v.Class == trust.Allowed && i.State == bailey.ImageCandidate {
			i.State = bailey.ImageVerified
		}
		return nil
	})
	e := s.entry(ctx, img)
	e.Verdict = v
	return e, err
}

// countersigned adds our own signatures to what a registry has.
func (s *Service) countersigned(ctx context.Context, ev trust.Evidence) trust.Evidence {
	own, err := evidence{s.cfg.Store}.Evidence(ctx, ownRepository(ev.Repository), ev.Digest)
	if err != nil {
		return ev
	}
	// First: a registry full of junk must not push them out of the budget.
	ev.Items = append(append([]trust.Item{}, own.Items...), ev.Items...)
	return ev
}

// Prefetch brings an image to the engine before anybody waits for it, if the
// policy allows it. It returns at once; [Service.List] says how far it is.
func (s *Service) Prefetch(ctx context.Context, actor bailey.Actor, ref string) (Entry, error) {
	if err := s.allow(ctx, actor, policy.ImageManage); err != nil {
		return Entry{}, err
	}
	img, err := s.named(ctx, ref)
	if err != nil {
		return Entry{}, err
	}
	v, err := s.decide(ctx, img, false)
	if err != nil {
		return Entry{}, err
	}
	if !v.Starts() {
		s.refused(ctx, audit.By(actor), img, audit.Untrusted, verdictOf(v), v)
		return Entry{}, inCatalogue(img, v.Err())
	}
	e := s.entry(ctx, img)
	if e.Here || e.Fetched >= 0 {
		return e, nil
	}
	if err := s.before(ctx, s.change(audit.By(actor), audit.ImageFetch, img)); err != nil {
		return Entry{}, err
	}
	r := bailey.Receipt{Image: img.Name, Repository: img.Repository, Digest: img.Digest, Source: img.Source}
	p, started := s.begin(ctx, img.Repository+"@"+img.Digest, func(ctx context.Context, tell func(int)) error {
		return s.bring(ctx, r, tell)
	})
	if !started && p.err != nil {
		return Entry{}, p.err
	}
	e.Fetched = 0
	return e, nil
}

// change is the event of a change to the catalogue.
func (s *Service) change(by audit.Actor, action audit.Action, img bailey.Image) audit.Event {
	return audit.Event{
		Actor: by, Action: action, Outcome: audit.Success,
		Target: audit.Target{Kind: "image", ID: img.ID, Name: img.Name},
		Attrs:  audit.Attrs{Digest: img.Digest, Signer: img.Signer},
	}
}

// A pull is a fetch that goes on, for everybody who waits for it.
type pull struct {
	done chan struct{} // closed when err is set
	err  error

	percent int // guarded by Service.mu
}

// begin starts a fetch, or joins the one that goes on. It goes on when whoever
// asked goes away: the next one will want it too.
func (s *Service) begin(ctx context.Context, key string, do func(ctx context.Context, tell func(int)) error) (p *pull, started bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.pulls[key]; ok {
		return p, false
	}
	p = &pull{done: make(chan struct{})}
	s.pulls[key] = p
	go func() { // ends with the engine's answer, or by its own limit
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pullTime)
		defer cancel()
		err := do(ctx, func(percent int) {
			s.mu.Lock()
			p.percent = max(p.percent, percent)
			s.mu.Unlock()
		})
		if err != nil {
			s.log.WarnContext(ctx, "image not fetched", slog.String("image", key), slog.Any("error", err))
		}
		s.mu.Lock()
		p.err = err
		delete(s.pulls, key)
		s.mu.Unlock()
		close(p.done)
	}()
	return p, true
}

// follow waits for a fetch and tells how far it is.
func (s *Service) follow(ctx context.Context, p *pull, progress func(percent int)) error {
	const each = 500 * time.Millisecond
	tick := time.NewTicker(each)
	defer tick.Stop()
	told := -1
	for {
		select {
		case <-p.done:
			if p.err == nil && progress != nil {
				progress(100)
			}
			return p.err
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			s.mu.Lock()
			percent := p.percent
			s.mu.Unlock()
			if progress != nil && percent > told {
				told = percent
				progress(percent)
			}
		}
	}
}

// Fetch brings the image of a receipt to the engine: by digest from its
// repository, or from the layout it was built to. Those who want the same image
// at once share one fetch. It implements workspace.Verifier.
func (s *Service) Fetch(ctx context.Context, r bailey.Receipt, progress func(percent int)) error {
	p, _ := s.begin(ctx, r.Repository+"@"+r.Digest, func(ctx context.Context, tell func(int)) error {
		return s.bring(ctx, r, tell)
	})
	return s.follow(ctx, p, progress)
}

func (s *Service) bring(ctx context.Context, r bailey.Receipt, progress func(percent int)) error {
	var err error
	switch r.Source {
	case bailey.FromLayout:
		err = s.loadLayout(ctx, r.Repository, r.Digest, progress)
	case bailey.FromRegistry:
		err = s.cfg.Engine.Pull(ctx, r.Repository+"@"+r.Digest, progress)
	default:
		return &bailey.Error{
			Kind: bailey.Unavailable, Msg: "image " + r.Image + " came with a file and is not on this machine any more",
			Hint: "import it again: bailey image import FILE",
		}
	}
	if errors.Is(err, engine.ErrNoImage) {
		return &bailey.Error{
			Kind: bailey.Unavailable, Msg: "the registry of image " + r.Image + " does not have " + short(r.Digest) + " any more",
			Hint: "an administrator adds and approves a newer one: bailey image add", Cause: err,
		}
	}
	return err
}

// sizeOf is what there is to pull of a manifest among the evidence.
func sizeOf(ev trust.Evidence, manifestDigest string) int64 {
	for _, it := range ev.Items {
		if it.Kind == trust.ImageManifest && it.Digest == manifestDigest {
			if m, err := decodeManifest(it.Data); err == nil {
				return m.size()
			}
		}
	}
	return 0
}
