package catalogue_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/catalogue"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/engine/enginetest"
	"github.com/baileyhq/bailey/internal/trust/policy"
	"github.com/baileyhq/bailey/internal/trust/sign"
	"github.com/baileyhq/bailey/internal/trust/trusttest"
)

var signedAt = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func TestAnAdministratorAddsAndApprovesAndAUserStarts(t *testing.T) {
	w := newWorld(t)
	digest, config := w.push("team/torch", "v1", "torch one", true)
	w.pullable("team/torch", digest, config)
	ref := w.registry.Host + "/team/torch:v1"

	_, err := w.images.Add(t.Context(), w.alice, "torch", ref)
	w.refused("alice adds an image", err, bailey.Denied, "only administrators")
	if e := w.journal.last(audit.AccessDenied); e.Actor.Name != "alice" {
		t.Errorf("the journal does not know that alice tried: %+v", e)
	}
	added, err := w.images.Add(t.Context(), w.admin, "torch", ref)
	w.must(err)
	if added.State != bailey.ImageVerified || added.Digest != digest || !strings.HasPrefix(added.Signer, "team (key sha256:") {
		t.Errorf("added = %+v", added.Image)
	}
	_, err = w.verify("torch", "")
	w.refused("a start before the approval", err, bailey.Denied, "nobody has approved", "torch")
	_, err = w.images.Approve(t.Context(), w.alice, "torch")
	w.refused("alice approves", err, bailey.Denied)
	_, err = w.images.Approve(t.Context(), w.admin, "torch")
	w.must(err)
	w.registry.Requests()

	r, err := w.verify("torch", "")
	w.must(err)
	if r.Digest != digest || r.Started != config || r.Policy != "teams" || r.Class != "allowed" || !strings.Contains(r.Words, "signed by team") {
		t.Errorf("receipt = %+v", r)
	}
	e := w.journal.last(audit.ImageDecided)
	if e.Outcome != audit.Success || e.Attrs.Digest != digest || e.Attrs.Policy != w.policy.Load().Hash || e.Attrs.Verdict != "allowed met" || e.Attrs.Signer != r.Signer {
		t.Errorf("journal = %+v", e)
	}
	var told []int
	w.must(w.images.Fetch(t.Context(), r, func(p int) { told = append(told, p) }))
	if len(told) == 0 || told[len(told)-1] != 100 {
		t.Errorf("told %v, want it to end with 100", told)
	}
	if asked := w.registry.Requests(); len(asked) != 0 {
		t.Errorf("a start asked the registry: %v", asked)
	}
	list, err := w.images.List(t.Context(), w.alice)
	w.must(err)
	if len(list) != 1 || !list[0].Here || list[0].State != bailey.ImageApproved {
		t.Errorf("alice sees %+v", list)
	}
	_, err = w.images.List(t.Context(), bailey.Actor{})
	w.refused("nobody lists", err, bailey.Denied)
}

// Somebody moves the tag to another image after the approval, and somebody on
// the machine tags another image with the name.
func TestAMovedTagAndATamperedTwin(t *testing.T) {
	w := newWorld(t)
	digest, config := w.push("team/torch", "v1", "torch one", true)
	w.pullable("team/torch", digest, config)
	ref := w.registry.Host + "/team/torch:v1"
	_, err := w.images.Add(t.Context(), w.admin, "torch", ref)
	w.must(err)
	_, err = w.images.Approve(t.Context(), w.admin, "torch")
	w.must(err)

	twin, twinConfig := w.push("team/torch", "v1", "torch with a guest", false)
	r, err := w.verify("torch", "")
	w.must(err)
	if r.Digest != digest || r.Started != config {
		t.Errorf("after the tag was moved %s starts, want %s", r.Digest, digest)
	}
	w.fake.SetImages(enginetest.Image{Image: engine.Image{ID: twinConfig, Labels: map[string]string{engine.LabelImage: "torch"}, Tags: []string{"torch:v1"}}})
	for _, what := range []string{twin, twinConfig} {
		_, err = w.verify("torch", what)
		w.refused("the twin starts", err, bailey.Denied, "not what was signed and approved")
	}
	if e := w.journal.last(audit.ImageDecided); e.Outcome != audit.Refused || e.Reason != audit.Untrusted {
		t.Errorf("journal = %+v", e)
	}
	// Added by an administrator, it is a candidate and says why.
	e, err := w.images.Add(t.Context(), w.admin, "torch", ref)
	w.must(err)
	if e.State != bailey.ImageCandidate || !strings.Contains(e.Words, "nobody signed the image") {
		t.Errorf("the unsigned twin is %s: %s", e.State, e.Words)
	}
	_, err = w.images.Approve(t.Context(), w.admin, "torch")
	w.refused("the twin is approved", err, bailey.Denied, "cannot be approved")
	if r, err := w.verify("torch", ""); err != nil || r.Digest != digest {
		t.Errorf("after all that %s starts, %v; want %s", r.Digest, err, digest)
	}
}

// The engine answers to the manifest's digest with an image of another
// configuration: whoever owns the registry's cache, or Docker's, did that.
func TestTheEngineHoldsSomethingElseUnderTheDigest(t *testing.T) {
	w := newWorld(t)
	digest, _ := w.push("team/torch", "v1", "torch one", true)
	_, err := w.images.Add(t.Context(), w.admin, "torch", w.registry.Host+"/team/torch@"+digest)
	w.must(err)
	_, err = w.images.Approve(t.Context(), w.admin, "torch")
	w.must(err)
	evil := "sha256:" + strings.Repeat("e", 64)
	w.fake.SetImages(enginetest.Image{Image: engine.Image{ID: evil}, Digest: digest})
	_, err = w.verify("torch", "")
	w.refused("it starts", err, bailey.Denied, "the engine holds sha256:eeeeeeeeeeee where the signed manifest names")
}

func TestARemovedKeyCountsAtTheNextStart(t *testing.T) {
	w := newWorld(t)
	digest, config := w.push("team/torch", "v1", "torch one", true)
	w.pullable("team/torch", digest, config)
	_, err := w.images.Add(t.Context(), w.admin, "torch", w.registry.Host+"/team/torch:v1")
	w.must(err)
	_, err = w.images.Approve(t.Context(), w.admin, "torch")
	w.must(err)
	if _, err := w.verify("torch", ""); err != nil {
		t.Fatal(err)
	}
	_, other, err := sign.GenerateKey()
	w.must(err)
	w.registry.Fault(down)
	w.trust(other)
	_, err = w.verify("torch", "")
	w.refused("after the key was taken away", err, bailey.Denied, "torch", "may not start")
	w.trust(w.public)
	if _, err := w.verify("torch", ""); err != nil {
		t.Errorf("after the key came back: %v", err)
	}
}

func down(rw http.ResponseWriter, _ *http.Request) bool {
	rw.WriteHeader(http.StatusServiceUnavailable)
	return true
}

func TestWithTheRegistryDownWhatWasApprovedStartsAcrossARestart(t *testing.T) {
	w := newWorld(t)
	digest, config := w.push("team/torch", "v1", "torch one", true)
	w.fake.SetImages(enginetest.Image{Image: engine.Image{ID: config}, Digest: digest})
	_, err := w.images.Add(t.Context(), w.admin, "torch", w.registry.Host+"/team/torch:v1")
	w.must(err)
	_, err = w.images.Approve(t.Context(), w.admin, "torch")
	w.must(err)
	unknown, _ := w.push("team/torch", "v2", "torch two", true)

	w.registry.Fault(down)
	w.serve()
	if r, err := w.verify("torch", ""); err != nil || r.Started != config {
		t.Errorf("receipt = %+v, %v; want the approved image", r, err)
	}
	_, err = w.images.Add(t.Context(), w.admin, "torch", w.registry.Host+"/team/torch@"+unknown)
	w.refused("an unknown image is added", err, bailey.Unavailable, "cannot be looked at")
	if strings.Contains(err.Error(), "is unsigned") {
		t.Errorf("could not look became not signed: %v", err)
	}
}

func TestCountersigningWhatNobodySigned(t *testing.T) {
	w := newWorld(t)
	digest, config := w.push("team/plain", "v1", "plain", false)
	w.fake.SetImages(enginetest.Image{Image: engine.Image{ID: config}, Digest: digest})
	e, err := w.images.Add(t.Context(), w.admin, "plain", w.registry.Host+"/team/plain:v1")
	w.must(err)
	if e.State != bailey.ImageCandidate {
		t.Fatalf("an unsigned image is %s", e.State)
	}
	_, err = w.images.Countersign(t.Context(), w.alice, "plain")
	w.refused("alice countersigns", err, bailey.Denied)
	e, err = w.images.Countersign(t.Context(), w.admin, "plain")
	w.must(err)
	if e.State != bailey.ImageVerified || !strings.HasPrefix(e.Signer, "own (key") {
		t.Errorf("countersigned = %+v", e.Image)
	}
	_, err = w.images.Approve(t.Context(), w.admin, "plain")
	w.must(err)

	// Somebody fills the registry with junk, and the evidence is fetched anew
	// because another policy wants more than is stored.
	for i := range 40 {
		w.registry.Attach("team/plain", digest, []byte(`{"junk":`+strings.Repeat("1", i+1)+`}`))
	}
	_, other, err := sign.GenerateKey()
	w.must(err)
	w.trust(other)
	w.serve()
	if r, err := w.verify("plain", ""); err != nil || !strings.HasPrefix(r.Signer, "own (key") {
		t.Errorf("receipt = %+v, %v; want our signature to hold", r, err)
	}
}

func TestARetiredImageSendsPeopleOn(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"old", "next"} {
		w.push("team/"+name, "v1", name, true)
		_, err := w.images.Add(t.Context(), w.admin, name, w.registry.Host+"/team/"+name+":v1")
		w.must(err)
		_, err = w.images.Approve(t.Context(), w.admin, name)
		w.must(err)
	}
	_, err := w.images.Retire(t.Context(), w.admin, "old", "it has a hole", "nowhere")
	w.refused("a redirect to nothing", err, bailey.Invalid)
	_, err = w.images.Retire(t.Context(), w.admin, "old", "line\nbreak", "")
	w.refused("a message of two lines", err, bailey.Invalid)
	_, err = w.images.Retire(t.Context(), w.alice, "old", "", "")
	w.refused("alice retires", err, bailey.Denied)
	_, err = w.images.Retire(t.Context(), w.admin, "old", "it has a hole", "")
	w.must(err)
	_, err = w.verify("old", "")
	w.refused("a retired image starts", err, bailey.Denied, "is retired: it has a hole")
	_, err = w.images.Retire(t.Context(), w.admin, "old", "it has a hole", "next")
	w.must(err)
	r, err := w.verify("old", "")
	w.must(err)
	if r.Image != "next" || !strings.Contains(r.Words, "image old is retired: it has a hole; next starts in its place") {
		t.Errorf("receipt = %+v", r)
	}
}

// In doubt it stays shut: what cannot be written down is not allowed.
func TestAFullJournalStartsNothing(t *testing.T) {
	w := newWorld(t)
	w.push("team/torch", "v1", "torch one", true)
	_, err := w.images.Add(t.Context(), w.admin, "torch", w.registry.Host+"/team/torch:v1")
	w.must(err)
	w.journal.full = audit.ErrUnwritable
	_, err = w.images.Approve(t.Context(), w.admin, "torch")
	w.refused("an approval", err, bailey.Unavailable, "nothing was changed")
	w.journal.full = nil
	_, err = w.images.Approve(t.Context(), w.admin, "torch")
	w.must(err)
	w.journal.full = audit.ErrUnwritable
	_, err = w.verify("torch", "")
	w.refused("a start", err, bailey.Unavailable)
}

// layout writes an OCI layout of one image, as make images does.
func (w *world) layout(name, content string) (dir, digest, config string) {
	w.Helper()
	manifest, configText, layer := trusttest.ImageManifest(content)
	dir = w.file("layouts/" + name + ".oci")
	w.must(os.RemoveAll(dir))
	blobs := filepath.Join(dir, "blobs", "sha256")
	w.must(os.MkdirAll(blobs, 0o755))
	for _, b := range [][]byte{manifest, configText, layer} {
		w.must(os.WriteFile(filepath.Join(blobs, strings.TrimPrefix(trusttest.Digest(b), "sha256:")), b, 0o644))
	}
	index := trusttest.JSON(map[string]any{"schemaVersion": 2, "manifests": []any{trusttest.Descriptor(trusttest.OCIManifest, manifest)}})
	w.must(os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644))
	return dir, trusttest.Digest(manifest), trusttest.Digest(configText)
}

func TestWhatIsBuiltHereIsSignedAndApprovedByItself(t *testing.T) {
	w := newWorld(t)
	dir, digest, config := w.layout("notebook", "first build")
	w.fake.SetImages(enginetest.Image{Image: engine.Image{ID: config}})
	w.images.Scan(t.Context())
	_, err := w.verify("notebook", "")
	w.refused("an unsigned build starts", err, bailey.Denied, "image notebook (localhost/bailey/notebook@", "nobody signed the image")
	list, err := w.images.List(t.Context(), w.alice)
	w.must(err)
	if len(list) != 1 || list[0].State != bailey.ImageCandidate || list[0].Words == "" {
		t.Errorf("the catalogue has %+v, want a candidate that says why", list)
	}

	key, err := catalogue.ReadKey(w.file("own.key"))
	w.must(err)
	if d, wrote, err := catalogue.SignLayout(key, dir); err != nil || !wrote || d != digest {
		t.Errorf("SignLayout = %s, %t, %v", d, wrote, err)
	}
	if _, wrote, err := catalogue.SignLayout(key, dir); err != nil || wrote {
		t.Errorf("signing again wrote: %t, %v", wrote, err)
	}
	w.images.Scan(t.Context())
	r, err := w.verify("notebook", config) // as the engine lists it
	w.must(err)
	if r.Digest != digest || r.Started != config || r.Source != bailey.FromLayout {
		t.Errorf("receipt = %+v", r)
	}

	// Another build under the old signature: not ours until it is signed.
	_, second, secondConfig := w.layout("notebook", "second build")
	w.images.Scan(t.Context())
	if r, err := w.verify("notebook", ""); err != nil || r.Digest != digest {
		t.Errorf("after an unsigned build %s starts, %v; want the signed %s", r.Digest, err, digest)
	}
	if _, wrote, err := catalogue.SignLayout(key, dir); err != nil || !wrote {
		t.Errorf("the second build was not signed: %v", err)
	}
	w.fake.SetImages(enginetest.Image{Image: engine.Image{ID: secondConfig}})
	w.images.Scan(t.Context())
	if r, err := w.verify("notebook", ""); err != nil || r.Digest != second || r.Started != secondConfig {
		t.Errorf("receipt = %+v, %v; want the second build", r, err)
	}
	_, err = w.verify("notebook", digest)
	w.refused("the first build starts after the second", err, bailey.Denied, "is retired: a newer build was signed")
}

// An administrator who asks over the network names files of the transfer folder
// and nothing else.
func TestImportReadsOnlyTheTransferFolder(t *testing.T) {
	w := newWorld(t)
	w.must(os.WriteFile(w.file("secret.tar"), []byte("x"), 0o600))
	w.must(os.Symlink(w.file("secret.tar"), w.file("transfer/link.tar")))
	for _, name := range []string{"", ".", "..", "../secret.tar", w.file("secret.tar"), ".hidden", "a/b", "link.tar"} {
		_, err := w.images.Import(t.Context(), w.admin, catalogue.Import{File: name})
		w.refused("import "+name, err, bailey.Invalid)
	}
	_, err := w.images.Import(t.Context(), w.alice, catalogue.Import{File: "x.tar"})
	w.refused("alice imports", err, bailey.Denied)
	_, err = w.images.Import(t.Context(), w.admin, catalogue.Import{File: "x.tar"})
	w.refused("import of nothing", err, bailey.NotFound, "transfer folder")
}

func TestTheKeyIsForItsOwnerAlone(t *testing.T) {
	w := newWorld(t)
	w.must(os.Chmod(w.file("own.key"), 0o640))
	_, err := catalogue.ReadKey(w.file("own.key"))
	w.refused("a key that others may read", err, bailey.Invalid, "others may read")
	w.must(os.WriteFile(w.file("none.key"), []byte("no key"), 0o600))
	_, err = catalogue.EnsureKey(w.file("none.key"))
	w.refused("a file without a key", err, bailey.Invalid)
	if _, err := catalogue.ReadKey(w.file("missing.key")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ReadKey of nothing = %v", err)
	}
}

// What a first start writes is a policy, and refuses what it does not name.
func TestTheDefaultPolicyIsSound(t *testing.T) {
	w := newWorld(t)
	path := w.file("default/policy.yaml")
	w.must(catalogue.EnsurePolicy(path, catalogue.PublicPath(w.file("own.key"))))
	p, err := policy.Load(path)
	w.must(err)
	for repository, want := range map[string]string{
		"localhost/bailey/notebook": "built-here", "quay.io/jupyter/scipy-notebook": "jupyter", "docker.io/library/debian": "countersigned",
	} {
		if r := p.RuleFor(repository); r == nil || r.Name != want || r.Mode != policy.Enforce {
			t.Errorf("rule for %s = %+v, want %s", repository, r, want)
		}
	}
	w.must(os.WriteFile(path, []byte("version: 1\n"), 0o600))
	w.must(catalogue.EnsurePolicy(path, "elsewhere"))
	if text, _ := os.ReadFile(path); string(text) != "version: 1\n" {
		t.Errorf("an administrator's policy was overwritten: %s", text)
	}
}

// Docker's newer store knows an image by its manifest.
func TestAnEngineThatKnowsImagesByTheirManifest(t *testing.T) {
	w := newWorld(t)
	digest, config := w.push("team/torch", "v1", "torch one", true)
	w.fake.SetImages(enginetest.Image{Image: engine.Image{ID: digest}})
	_, err := w.images.Add(t.Context(), w.admin, "torch", w.registry.Host+"/team/torch:v1")
	w.must(err)
	_, err = w.images.Approve(t.Context(), w.admin, "torch")
	w.must(err)
	if r, err := w.verify("torch", ""); err != nil || r.Started != digest {
		t.Errorf("receipt = %+v, %v; want it started by %s, not %s", r, err, digest, config)
	}
}

// A hundred people launch one image that is not there: it is pulled once, also
// when the first of them goes away.
func TestAHundredLaunchesShareOnePull(t *testing.T) {
	w := newWorld(t)
	digest, config := w.push("team/torch", "v1", "torch one", true)
	w.pullable("team/torch", digest, config)
	_, err := w.images.Add(t.Context(), w.admin, "torch", w.registry.Host+"/team/torch:v1")
	w.must(err)
	_, err = w.images.Approve(t.Context(), w.admin, "torch")
	w.must(err)
	w.fake.Delay("Pull", time.Second) // long enough for everybody to come
	r, err := w.verify("torch", "")
	w.must(err)
	gone, leave := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() { first <- w.images.Fetch(gone, r, nil) }()
	for w.fake.Calls("Pull") == 0 {
		runtime.Gosched()
	}
	leave()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the first one who left: %v", err)
	}
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			if err := w.images.Fetch(t.Context(), r, nil); err != nil {
				t.Errorf("Fetch: %v", err)
			}
		})
	}
	all.Wait()
	if n := w.fake.Calls("Pull"); n != 1 {
		t.Errorf("the image was pulled %d times", n)
	}
}
