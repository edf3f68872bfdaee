// Package watch reads a transparency log for entries by our own identities
// that our builds do not know: somebody who got hold of a workflow or an
// account signs where everybody can see it. It reads Rekor v1 by its search
// and v2 by its tiles; whether an entry deserves an alarm is what its caller
// knows of its builds.
package watch

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/baileyhq/bailey/internal/trust/policy"
	"github.com/baileyhq/bailey/internal/trust/root"
)

// Limits of one answer and of one poll.
const (
	maxAnswer  = 64 << 20
	maxEntries = 100_000 // read by one poll of tiles
	batch      = 10      // entries that Rekor v1 hands out at once
)

// Config says which log is read, and for whom.
type Config struct {
	URL      string // "https://rekor.sigstore.dev", "https://log2025-1.rekor.sigstore.dev"
	Identity policy.Matcher
	Issuer   string // exact; "" means any
	Email    string // Rekor v1 only: what its search is asked for
	Root     *root.Root
	Client   *http.Client // nil means one with a timeout
}

// A State is how far a log was read. It is the caller's to keep between polls.
type State struct {
	Size int64    `json:"size,omitempty"` // v2: the tree that was read to its end
	Hash string   `json:"hash,omitempty"` // v2: its root
	Seen []string `json:"seen,omitempty"` // v1: entries that were reported or known
}

// An Entry is one signature that the log holds by an identity of ours.
type Entry struct {
	Log      string    `json:"log"`
	Index    int64     `json:"index"`
	UUID     string    `json:"uuid,omitempty"` // v1
	Identity string    `json:"identity"`
	Issuer   string    `json:"issuer"`
	Digest   string    `json:"digest,omitempty"` // of what was signed, as the entry says
	At       time.Time `json:"at,omitzero"`      // v1: when it was logged; v2: when the certificate began
}

// ErrLogMisbehaves is for a log whose answers contradict what it answered
// before, or what it signed.
var ErrLogMisbehaves = errors.New("the log contradicts itself")

// A Watcher reads one log. It is not safe for concurrent use.
type Watcher struct {
	cfg Config
	key crypto.PublicKey // of the log, if the root knows it
}

// New returns a Watcher.
func New(cfg Config) (*Watcher, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("watch log: %q is no address", cfg.URL)
	}
	cfg.URL = strings.TrimRight(cfg.URL, "/")
	if cfg.Client == nil {
		cfg.Client = &http.Client{Timeout: 30 * time.Second}
	}
	w := &Watcher{cfg: cfg}
	if cfg.Root != nil {
		for _, l := range cfg.Root.Material.RekorLogs() {
			if strings.TrimRight(l.BaseURL, "/") == cfg.URL {
				w.key = l.PublicKey
			}
		}
	}
	return w, nil
}

// Poll returns the entries since state that are by the identity, and how far
// it has read. A log is taken for v2 if it has a checkpoint. On a first poll
// of a v2 log it begins at the end: what was signed before is history.
func (w *Watcher) Poll(ctx context.Context, state State) ([]Entry, State, error) {
	text, err := w.get(ctx, "/checkpoint")
	if err == nil {
		return w.pollTiles(ctx, state, text)
	}
	if !errors.Is(err, errNotFound) {
		return nil, state, err
	}
	return w.pollSearch(ctx, state)
}

var errNotFound = errors.New("not there")

func (w *Watcher) get(ctx context.Context, path string) ([]byte, error) {
	return w.ask(ctx, http.MethodGet, path, nil)
}

func (w *Watcher) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, w.cfg.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("ask log: %w", err)
	}
	req.Header.Set("User-Agent", "bailey")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Accept", "application/json")
	}
	resp, err := w.cfg.Client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask log: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("ask log for %s: %w", path, err)
	case resp.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("ask log for %s: %w", path, errNotFound)
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("ask log for %s: it answered %s", path, resp.Status)
	case len(data) > maxAnswer:
		return nil, fmt.Errorf("ask log for %s: the answer is larger than 64 MiB", path)
	}
	return data, nil
}

// pollTiles reads a v2 log from where it was left to its end, and checks that
// it is the same log, grown.
func (w *Watcher) pollTiles(ctx context.Context, state State, text []byte) ([]Entry, State, error) {
	tree, err := w.checkpoint(text)
	if err != nil {
		return nil, state, err
	}
	hashes := tlog.TileHashReader(tree, &tiles{ctx: ctx, w: w})
	if state.Size > tree.N {
		return nil, state, fmt.Errorf("%w: it had %d entries and has %d", ErrLogMisbehaves, state.Size, tree.N)
	}
	if state.Size > 0 {
		old, err := tlog.TreeHash(state.Size, hashes)
		if err != nil {
			return nil, state, fmt.Errorf("read tree of log: %w", err)
		}
		if old.String() != state.Hash {
			return nil, state, fmt.Errorf("%w: the tree of its first %d entries was %s and is %s", ErrLogMisbehaves, state.Size, state.Hash, old)
		}
	}
	next := State{Size: tree.N, Hash: tree.Hash.String()}
	if state.Size == 0 {
		return nil, next, nil
	}
	var found []Entry
	for i := state.Size; i < tree.N; {
		if i-state.Size >= maxEntries {
			// Go on from here next time.
			h, err := tlog.TreeHash(i, hashes)
			if err != nil {
				return nil, state, fmt.Errorf("read tree of log: %w", err)
			}
			return found, State{Size: i, Hash: h.String()}, nil
		}
		tile := i / 256
		bodies, err := w.bundle(ctx, tile, min(256, tree.N-tile*256))
		if err != nil {
			return nil, state, err
		}
		first := i - tile*256
		var at []int64
		for k := first; k < int64(len(bodies)); k++ {
			at = append(at, tlog.StoredHashIndex(0, tile*256+k))
		}
		want, err := hashes.ReadHashes(at)
		if err != nil {
			return nil, state, fmt.Errorf("read tree of log: %w", err)
		}
		for k, body := range bodies[first:] {
			if tlog.RecordHash(body) != want[k] {
				return nil, state, fmt.Errorf("%w: entry %d is not what its tree says", ErrLogMisbehaves, i)
			}
			if e, ok := w.match(body); ok {
				e.Index = i
				found = append(found, e)
			}
			i++
		}
	}
	return found, next, nil
}

// checkpoint reads a signed tree head, and checks the signature if the log's
// key is known.
func (w *Watcher) checkpoint(text []byte) (tlog.Tree, error) {
	body, signatures, ok := strings.Cut(string(text), "\n\n")
	lines := strings.Split(body, "\n")
	if !ok || len(lines) < 3 {
		return tlog.Tree{}, errors.New("read checkpoint of log: not of the right form")
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 {
		return tlog.Tree{}, errors.New("read checkpoint of log: it has no size")
	}
	hash, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(hash) != sha256.Size {
		return tlog.Tree{}, errors.New("read checkpoint of log: it has no hash")
	}
	if w.key != nil && !signed(w.key, body+"\n", signatures) {
		return tlog.Tree{}, fmt.Errorf("%w: its checkpoint is not signed with its key", ErrLogMisbehaves)
	}
	return tlog.Tree{N: size, Hash: tlog.Hash(hash)}, nil
}

// signed reports whether one of a note's signatures is by the key. The hint in
// front of it is a hint.
func signed(key crypto.PublicKey, body, signatures string) bool {
	sum := sha256.Sum256([]byte(body))
	for line := range strings.Lines(signatures) {
		f := strings.Fields(line)
		if len(f) != 3 || f[0] != "—" {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(f[2])
		if err != nil || len(raw) <= 4 {
			continue
		}
		switch k := key.(type) {
		case ed25519.PublicKey:
			if ed25519.Verify(k, []byte(body), raw[4:]) {
				return true
			}
		case *ecdsa.PublicKey:
			if ecdsa.VerifyASN1(k, sum[:], raw[4:]) {
				return true
			}
		}
	}
	return false
}

// bundle fetches entries of one tile: each is two bytes of length and a body.
func (w *Watcher) bundle(ctx context.Context, n, width int64) ([][]byte, error) {
	data, err := w.get(ctx, "/tile/entries/"+tilePath(n, width))
	if err != nil {
		return nil, err
	}
	var all [][]byte
	for len(data) > 0 && int64(len(all)) < width {
		if len(data) < 2 || len(data) < 2+int(binary.BigEndian.Uint16(data)) {
			return nil, errors.New("read entries of log: cut short")
		}
		size := int(binary.BigEndian.Uint16(data))
		all = append(all, data[2:2+size])
		data = data[2+size:]
	}
	if int64(len(all)) != width {
		return nil, fmt.Errorf("read entries of log: %d of %d are there", len(all), width)
	}
	return all, nil
}

// tilePath writes a tile's number in groups of three digits.
func tilePath(n, width int64) string {
	s := fmt.Sprintf("%03d", n%1000)
	for n >= 1000 {
		n /= 1000
		s = fmt.Sprintf("x%03d/%s", n%1000, s)
	}
	if width < 256 {
		s += fmt.Sprintf(".p/%d", width)
	}
	return s
}

// tiles hands the hashes of a v2 log to package tlog, which checks them.
type tiles struct {
	ctx context.Context //nolint:containedctx // tlog.TileReader has none
	w   *Watcher
}

func (t *tiles) Height() int { return 8 }

func (t *tiles) ReadTiles(want []tlog.Tile) ([][]byte, error) {
	all := make([][]byte, len(want))
	for i, tile := range want {
		data, err := t.w.get(t.ctx, fmt.Sprintf("/tile/%d/%s", tile.L, tilePath(tile.N, int64(tile.W))))
		if err != nil {
			return nil, err
		}
		if len(data) != tile.W*sha256.Size {
			return nil, errors.New("read tile of log: of the wrong size")
		}
		all[i] = data
	}
	return all, nil
}

func (t *tiles) SaveTiles([]tlog.Tile, [][]byte) {}

// pollSearch asks a v1 log for the entries of an e-mail address: its index
// knows no other names.
func (w *Watcher) pollSearch(ctx context.Context, state State) ([]Entry, State, error) {
	if w.cfg.Email == "" {
		return nil, state, errors.New("watch log: Rekor v1 can be searched for e-mail addresses only; watch a v2 log for workflows")
	}
	query, err := json.Marshal(map[string]string{"email": w.cfg.Email})
	if err != nil {
		return nil, state, fmt.Errorf("write query: %w", err)
	}
	data, err := w.ask(ctx, http.MethodPost, "/api/v1/index/retrieve", query)
	if err != nil {
		return nil, state, err
	}
	var uuids []string
	if err := json.Unmarshal(data, &uuids); err != nil {
		return nil, state, fmt.Errorf("read answer of log: %w", err)
	}
	seen := map[string]bool{}
	for _, u := range state.Seen {
		seen[u] = true
	}
	next := State{Seen: append([]string{}, state.Seen...)}
	var fresh []string
	for _, u := range uuids {
		if !seen[u] {
			seen[u] = true
			fresh = append(fresh, u)
		}
	}
	var found []Entry
	for len(fresh) > 0 {
		some := fresh[:min(batch, len(fresh))]
		fresh = fresh[len(some):]
		entries, err := w.retrieve(ctx, some)
		if err != nil {
			return nil, state, err
		}
		found = append(found, entries...)
		next.Seen = append(next.Seen, some...)
	}
	return found, next, nil
}

func (w *Watcher) retrieve(ctx context.Context, uuids []string) ([]Entry, error) {
	query, err := json.Marshal(map[string]any{"entryUUIDs": uuids})
	if err != nil {
		return nil, fmt.Errorf("write query: %w", err)
	}
	data, err := w.ask(ctx, http.MethodPost, "/api/v1/log/entries/retrieve", query)
	if err != nil {
		return nil, err
	}
	var answer []map[string]struct {
		Body  string `json:"body"`
		Index int64  `json:"logIndex"`
		Time  int64  `json:"integratedTime"`
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return nil, fmt.Errorf("read answer of log: %w", err)
	}
	var found []Entry
	for _, one := range answer {
		for uuid, e := range one {
			body, err := base64.StdEncoding.DecodeString(e.Body)
			if err != nil {
				continue
			}
			if m, ok := w.match(body); ok {
				m.UUID, m.Index, m.At = uuid, e.Index, time.Unix(e.Time, 0).UTC()
				found = append(found, m)
			}
		}
	}
	return found, nil
}

// match reads an entry's body and compares the identity of its certificate.
// Bodies come in several kinds; what they have in common is a certificate
// somewhere in them.
func (w *Watcher) match(body []byte) (Entry, bool) {
	var v any
	if json.Unmarshal(body, &v) != nil {
		return Entry{}, false
	}
	var e Entry
	found := false
	walk(v, 0, func(key, text string) {
		switch {
		case !found && (key == "content" || key == "rawBytes" || key == "publicKey" || key == "verifier"):
			leaf := certificate(text)
			if leaf == nil {
				return
			}
			for _, name := range names(leaf) {
				if issuer := issuerOf(leaf); w.cfg.Identity.Match(name) && (w.cfg.Issuer == "" || issuer == w.cfg.Issuer) {
					e = Entry{Log: w.cfg.URL, Identity: name, Issuer: issuer, At: leaf.NotBefore.UTC(), Digest: e.Digest}
					found = true
				}
			}
		case e.Digest == "" && (key == "value" || key == "digest"):
			if sum, err := hex.DecodeString(text); err == nil && len(sum) == sha256.Size {
				e.Digest = "sha256:" + text
			} else if sum, err := base64.StdEncoding.DecodeString(text); err == nil && len(sum) == sha256.Size {
				e.Digest = "sha256:" + hex.EncodeToString(sum)
			}
		}
	})
	return e, found
}

// walk visits every text in a value of JSON with the name it has.
func walk(v any, depth int, visit func(key, text string)) {
	if depth > 20 {
		return
	}
	switch x := v.(type) {
	case map[string]any:
		for k, one := range x {
			if s, ok := one.(string); ok {
				visit(k, s)
			} else {
				walk(one, depth+1, visit)
			}
		}
	case []any:
		for _, one := range x {
			walk(one, depth+1, visit)
		}
	}
}

// certificate reads a certificate in base64, of DER or of PEM, or returns nil.
func certificate(text string) *x509.Certificate {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil
	}
	if block, _ := pem.Decode(raw); block != nil {
		raw = block.Bytes
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil
	}
	return c
}

func names(c *x509.Certificate) []string {
	all := append([]string{}, c.EmailAddresses...)
	for _, u := range c.URIs {
		all = append(all, u.String())
	}
	return all
}

func issuerOf(c *x509.Certificate) string {
	old := ""
	for _, e := range c.Extensions {
		switch e.Id.String() {
		case "1.3.6.1.4.1.57264.1.8":
			var s string
			if rest, err := asn1.Unmarshal(e.Value, &s); err == nil && len(rest) == 0 {
				return s
			}
		case "1.3.6.1.4.1.57264.1.1":
			old = string(e.Value)
		}
	}
	return old
}
