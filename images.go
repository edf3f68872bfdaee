package bailey

import (
	"regexp"
	"time"
)

// An ImageState is where a catalogue entry is in its life.
type ImageState string

// The states of an image. Workspaces start from approved ones alone.
const (
	ImageCandidate ImageState = "candidate" // known, and the policy does not allow it (yet)
	ImageVerified  ImageState = "verified"  // the policy allows it; nobody has approved it
	ImageApproved  ImageState = "approved"  // may be launched, as long as the policy allows it
	ImageRetired   ImageState = "retired"   // no longer launched; Message and Redirect say what instead
)

// Valid reports whether s is a state that exists.
func (s ImageState) Valid() bool {
	return s == ImageCandidate || s == ImageVerified || s == ImageApproved || s == ImageRetired
}

// Where an image of the catalogue comes from.
const (
	FromRegistry = "registry" // pulled by digest from its repository
	FromLayout   = "layout"   // an OCI layout on this machine, loaded by whoever built it
	FromArchive  = "archive"  // imported from a file
)

// An Image is an entry of the catalogue: one digest under one name, and what is
// known of who signed it. What it says of signatures is what was found when it
// was looked at last; whether it may start is decided anew at every start.
type Image struct {
	ID         string          `json:"id"`
	Name       string          `json:"name"`          // what classes call it
	Repository string          `json:"repository"`    // "quay.io/jupyter/scipy-notebook"; without tag and digest
	Tag        string          `json:"tag,omitempty"` // the tag it was added by, for people; never resolved again
	Digest     string          `json:"digest"`        // "sha256:…" of the manifest or the index that was signed
	Platforms  []ImagePlatform `json:"platforms"`     // what the digest holds
	Source     string          `json:"source"`        // registry, layout or archive
	State      ImageState      `json:"state"`         //
	Signer     string          `json:"signer"`        // in words; empty: nobody that the policy trusts
	SignedAt   time.Time       `json:"signed_at"`     // zero: not known
	RekorIndex int64           `json:"rekor_index"`   // of the log entry; -1: none
	Policy     string          `json:"policy"`        // name of the rule that decided
	Words      string          `json:"words"`         // the decision in words
	Size       int64           `json:"size"`          // bytes to pull; 0: not known
	CreatedAt  time.Time       `json:"created_at"`    // when the image was built, by its own words; zero: not known
	AddedAt    time.Time       `json:"added_at"`      //
	AddedBy    string          `json:"added_by"`      // user's name
	DecidedAt  time.Time       `json:"decided_at"`    // when State was last changed
	Message    string          `json:"message"`       // of a retired one, for whoever wants to launch it
	Redirect   string          `json:"redirect"`      // of a retired one: name of the image that takes its place
}

// An ImagePlatform is one image of an index, or the only one of a manifest.
type ImagePlatform struct {
	Platform string `json:"platform"` // "linux/amd64"
	Manifest string `json:"manifest"` // "sha256:…"
	Config   string `json:"config"`   // "sha256:…" of the configuration: what Docker's classic store calls the image's ID
}

// A Receipt says what a run was started from and who vouches for it. It is
// frozen with the run.
type Receipt struct {
	Image      string    `json:"image"`       // catalogue name
	Repository string    `json:"repository"`  //
	Source     string    `json:"source"`      // where it comes from: registry, layout or archive
	Digest     string    `json:"digest"`      // what was signed
	Started    string    `json:"started"`     // what the engine was told to start: a digest too
	Signer     string    `json:"signer"`      // in words
	RekorIndex int64     `json:"rekor_index"` // -1: none
	Policy     string    `json:"policy"`      // name of the rule
	PolicyHash string    `json:"policy_hash"` // SHA-256 of the policy file, hex
	RootHash   string    `json:"root_hash"`   // SHA-256 of the trusted root, hex
	Class      string    `json:"class"`       // allowed, or why it started although not
	Words      string    `json:"words"`       // the decision in words
	DecidedAt  time.Time `json:"decided_at"`  //
	Engine     string    `json:"engine"`      // "docker 20.10.24"
}

var digestRE = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// IsDigest reports whether s is "sha256:" and 64 lower-case hex digits.
func IsDigest(s string) bool { return digestRE.MatchString(s) }

// StoredEvidence is what the store keeps of the evidence about one image in
// one repository: a record that says what was found, and the blobs it names.
// The store believes and interprets none of it.
type StoredEvidence struct {
	Repository string
	Digest     string
	Collected  time.Time
	Record     string            // JSON; names blobs by digest
	Blobs      map[string][]byte // by "sha256:…" of their content
}
