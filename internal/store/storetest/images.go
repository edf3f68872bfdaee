package storetest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey"
)

// A Catalogue is what the suite asks of a store about images.
type Catalogue interface {
	Images(ctx context.Context) ([]bailey.Image, error)
	Image(ctx context.Context, id string) (bailey.Image, error)
	AddImage(ctx context.Context, img bailey.Image) (bailey.Image, error)
	ChangeImage(ctx context.Context, id, superseded string, change func(*bailey.Image) error) (bailey.Image, error)
	Evidence(ctx context.Context, repository, digest string) (bailey.StoredEvidence, error)
	SaveEvidence(ctx context.Context, e bailey.StoredEvidence) error
}

func images() []story {
	return []story{
		{"AnImageFromCandidateToRetired", imageLife},
		{"OneDigestOfANameIsApproved", oneApproved},
		{"TwoAdministratorsApproveAtOnce", approveAtOnce},
		{"EvidenceIsKeptByItsContent", evidenceLife},
		{"ARunKeepsItsReceipt", runReceipt},
	}
}

// hexDigest is the digest of a text.
func hexDigest(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func candidate(name, version string) bailey.Image {
	return bailey.Image{
		Name: name, Repository: "registry.example/" + name, Digest: hexDigest(version), Source: bailey.FromRegistry,
		State: bailey.ImageCandidate, RekorIndex: -1, AddedBy: "alice",
		Platforms: []bailey.ImagePlatform{{Platform: "linux/amd64", Manifest: hexDigest(version), Config: hexDigest("config of " + version)}},
	}
}

func imageLife(w *world) {
	ctx := w.Context()
	img, err := w.AddImage(ctx, candidate("torch", "one"))
	w.must(err)
	want := candidate("torch", "one")
	want.ID, want.AddedAt = img.ID, w.clock.Now()
	read, err := w.Image(ctx, img.ID)
	w.must(err)
	if diff := cmp.Diff(want, read); diff != "" {
		w.Errorf("image differs (-want +got):\n%s", diff)
	}
	w.refused(second(w.AddImage(ctx, candidate("torch", "one"))), bailey.Conflict, "already")
	w.refused(second(w.AddImage(ctx, candidate("Not A Name", "one"))), bailey.Invalid)
	loose := candidate("torch", "two")
	loose.Digest = "latest"
	w.refused(second(w.AddImage(ctx, loose)), bailey.Invalid)

	at := w.clock.move(time.Minute)
	read, err = w.ChangeImage(ctx, img.ID, "", func(i *bailey.Image) error {
		i.State, i.Signer, i.DecidedAt = bailey.ImageApproved, "key build", at
		i.Digest, i.Name = hexDigest("another"), "another" // not theirs to change
		return nil
	})
	w.must(err)
	want.State, want.Signer, want.DecidedAt = bailey.ImageApproved, "key build", at
	if diff := cmp.Diff(want, read); diff != "" {
		w.Errorf("image after approval differs (-want +got):\n%s", diff)
	}
	stop := errors.New("no")
	if _, err := w.ChangeImage(ctx, img.ID, "", func(i *bailey.Image) error { i.State = bailey.ImageRetired; return stop }); !errors.Is(err, stop) {
		w.Errorf("ChangeImage = %v, want the caller's own error", err)
	}
	if read, err := w.Image(ctx, img.ID); err != nil || read.State != bailey.ImageApproved {
		w.Errorf("after a change that failed the image is %s, %v; want approved", read.State, err)
	}
	w.refused(second(w.ChangeImage(ctx, bailey.NewID(), "", func(*bailey.Image) error { return nil })), bailey.NotFound)
	w.refused(second(w.Image(ctx, bailey.NewID())), bailey.NotFound)
}

func approve(i *bailey.Image) error { i.State = bailey.ImageApproved; return nil }

func oneApproved(w *world) {
	ctx := w.Context()
	first, err := w.AddImage(ctx, candidate("torch", "one"))
	w.must(err)
	w.clock.move(time.Hour)
	next, err := w.AddImage(ctx, candidate("torch", "two"))
	w.must(err)
	other, err := w.AddImage(ctx, candidate("notebook", "one"))
	w.must(err)
	for _, id := range []string{first.ID, other.ID, next.ID} {
		_, err := w.ChangeImage(ctx, id, "a newer one was approved", approve)
		w.must(err)
	}
	all, err := w.Images(ctx)
	w.must(err)
	var got []string
	for _, i := range all {
		got = append(got, i.Name+" "+string(i.State)+" "+i.Message)
	}
	want := []string{"notebook approved ", "torch approved ", "torch retired a newer one was approved"}
	if !slices.Equal(got, want) {
		w.Errorf("catalogue = %q, want %q", got, want)
	}
	third := candidate("torch", "three")
	third.State = bailey.ImageApproved
	w.refused(second(w.AddImage(ctx, third)), bailey.Conflict)
}

func approveAtOnce(w *world) {
	ctx := w.Context()
	var ids []string
	for _, version := range []string{"one", "two", "three", "four"} {
		img, err := w.AddImage(ctx, candidate("torch", version))
		w.must(err)
		ids = append(ids, img.ID)
	}
	errs := together(len(ids), func(i int) error {
		_, err := w.ChangeImage(ctx, ids[i], "superseded", approve)
		return err
	})
	if n := w.succeeded(errs); n != len(ids) {
		w.Errorf("%d of %d approvals succeeded", n, len(ids))
	}
	all, err := w.Images(ctx)
	w.must(err)
	approved := 0
	for _, i := range all {
		if i.State == bailey.ImageApproved {
			approved++
		}
	}
	if approved != 1 {
		w.Errorf("%d digests of one name are approved, want 1", approved)
	}
}

func evidenceLife(w *world) {
	ctx := w.Context()
	digest := hexDigest("image")
	shared, own := []byte("a manifest"), []byte("a signature\x00\xff")
	e := bailey.StoredEvidence{
		Repository: "registry.example/torch", Digest: digest, Collected: w.clock.Now(), Record: `{"items":[]}`,
		Blobs: map[string][]byte{hexDigest(string(shared)): shared, hexDigest(string(own)): own},
	}
	w.must(w.SaveEvidence(ctx, e))
	read, err := w.Evidence(ctx, e.Repository, digest)
	w.must(err)
	if diff := cmp.Diff(e, read); diff != "" {
		w.Errorf("evidence differs (-want +got):\n%s", diff)
	}
	w.refused(second(w.Evidence(ctx, "registry.example/evil", digest)), bailey.NotFound)
	w.refused(second(w.Evidence(ctx, e.Repository, hexDigest("other"))), bailey.NotFound)

	forged := e
	forged.Blobs = map[string][]byte{hexDigest("what it says"): []byte("what it is")}
	w.refused(w.SaveEvidence(ctx, forged), bailey.Invalid)

	// The same image elsewhere shares a blob; what nobody needs is forgotten.
	elsewhere := e
	elsewhere.Repository, elsewhere.Blobs = "mirror.example/torch", map[string][]byte{hexDigest(string(shared)): shared}
	w.must(w.SaveEvidence(ctx, elsewhere))
	e.Blobs, e.Record = map[string][]byte{}, `{"items":[],"again":true}`
	w.must(w.SaveEvidence(ctx, e))
	if read, err = w.Evidence(ctx, e.Repository, digest); err != nil || len(read.Blobs) != 0 || !strings.Contains(read.Record, "again") {
		w.Errorf("evidence after replacing it = %+v, %v", read, err)
	}
	if read, err = w.Evidence(ctx, elsewhere.Repository, digest); err != nil || len(read.Blobs) != 1 {
		w.Errorf("the other repository's evidence = %+v, %v; want its blob kept", read, err)
	}
}

func runReceipt(w *world) {
	ctx := w.Context()
	alice, bob := w.user("alice", bailey.RoleAdmin), w.user("bob", bailey.RoleUser)
	rq := request(w.workspace(alice, "nb"), small(0))
	rq.Run.Receipt = &bailey.Receipt{Image: "notebook", Digest: hexDigest("one"), Signer: "key build", RekorIndex: -1, DecidedAt: w.clock.Now()}
	run, err := w.BeginRun(ctx, rq)
	w.must(err)
	read, err := w.Run(ctx, run.ID)
	w.must(err)
	if diff := cmp.Diff(rq.Run.Receipt, read.Receipt); diff != "" {
		w.Errorf("receipt differs (-want +got):\n%s", diff)
	}
	if without := w.begin(w.workspace(bob, "nb"), 0); without.Receipt != nil {
		w.Errorf("bob's run has a receipt: %+v", without.Receipt)
	}
}
