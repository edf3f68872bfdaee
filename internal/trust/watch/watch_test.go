package watch_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/baileyhq/bailey/internal/trust/policy"
	"github.com/baileyhq/bailey/internal/trust/trusttest"
	"github.com/baileyhq/bailey/internal/trust/watch"
)

// tileLog is a log of the second kind, with real hashes, over HTTP.
type tileLog struct {
	*httptest.Server

	mu     sync.Mutex
	bodies [][]byte
	hashes []tlog.Hash
	key    ed25519.PrivateKey
}

func newTileLog(t *testing.T) *tileLog {
	t.Helper()
	l := &tileLog{}
	_, l.key, _ = ed25519.GenerateKey(rand.Reader)
	l.Server = httptest.NewServer(l)
	t.Cleanup(l.Close)
	return l
}

func (l *tileLog) reader() tlog.HashReader {
	return tlog.HashReaderFunc(func(at []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(at))
		for i, x := range at {
			out[i] = l.hashes[x]
		}
		return out, nil
	})
}

func (l *tileLog) add(bodies ...[]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range bodies {
		more, err := tlog.StoredHashes(int64(len(l.bodies)), b, l.reader())
		if err != nil {
			panic(err)
		}
		l.hashes, l.bodies = append(l.hashes, more...), append(l.bodies, b)
	}
}

func (l *tileLog) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.URL.Path == "/checkpoint" {
		root, err := tlog.TreeHash(int64(len(l.bodies)), l.reader())
		if err != nil {
			panic(err)
		}
		body := fmt.Sprintf("log.test\n%d\n%s\n", len(l.bodies), base64.StdEncoding.EncodeToString(root[:]))
		fmt.Fprintf(w, "%s\n— log.test %s\n", body, base64.StdEncoding.EncodeToString(append([]byte("hint"), ed25519.Sign(l.key, []byte(body))...)))
		return
	}
	// "/tile/<level or entries>/<number>[.p/<width>]"
	path := strings.TrimPrefix(r.URL.Path, "/tile/")
	level, rest, _ := strings.Cut(path, "/")
	number, width, partial := strings.Cut(rest, ".p/")
	n, wide := int64(0), 256
	for group := range strings.SplitSeq(strings.ReplaceAll(number, "x", ""), "/") {
		var g int64
		_, _ = fmt.Sscan(strings.TrimLeft(group, "0")+"", &g)
		n = n*1000 + g
	}
	if partial {
		_, _ = fmt.Sscan(width, &wide)
	}
	if level == "entries" {
		for _, b := range l.bodies[n*256 : n*256+int64(wide)] {
			_ = binary.Write(w, binary.BigEndian, uint16(len(b)))
			_, _ = w.Write(b)
		}
		return
	}
	var lv int
	_, _ = fmt.Sscan(level, &lv)
	data, err := tlog.ReadTileData(tlog.Tile{H: 8, L: lv, N: n, W: wide}, l.reader())
	if err != nil {
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write(data)
}

// TestStolenIdentityIsSeen: somebody signs with our identity, in the midst of
// everybody else's entries.
func TestStolenIdentityIsSeen(t *testing.T) {
	sigstore := trusttest.NewSigstore(t)
	entry := func(email string) []byte {
		s := sigstore.SignV2(email, "https://accounts.example.org", trusttest.Statement(trusttest.Digest([]byte(email)), "x", nil))
		return s.Entries[0].GetCanonicalizedBody()
	}
	l := newTileLog(t)
	noise := entry("somebody@example.com")
	for range 300 { // more than one tile
		l.add(noise)
	}
	l.add(entry("build@ours.example")) // before we watched: history
	w, err := watch.New(watch.Config{URL: l.URL, Identity: policy.Exact("build@ours.example"), Issuer: "https://accounts.example.org"})
	if err != nil {
		t.Fatal(err)
	}
	poll := func(s watch.State) ([]watch.Entry, watch.State) {
		t.Helper()
		found, next, err := w.Poll(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		return found, next
	}
	found, state := poll(watch.State{})
	if len(found) != 0 || state.Size != 301 {
		t.Fatalf("the first poll found %v and read to %d, want nothing, to the end", found, state.Size)
	}
	l.add(noise, entry("build@ours.example.evil"), entry("build@ours.example"), noise)
	found, state = poll(state)
	if len(found) != 1 || found[0].Index != 303 || found[0].Identity != "build@ours.example" || found[0].Digest == "" {
		t.Fatalf("found %+v, want the entry at 303", found)
	}
	if found, _ = poll(state); len(found) != 0 {
		t.Errorf("a second poll finds it again: %+v", found)
	}

	// The log forgets: another tree of the same or a smaller size.
	l.mu.Lock()
	l.bodies, l.hashes = nil, nil
	l.mu.Unlock()
	for range 310 {
		l.add(noise)
	}
	if _, _, err := w.Poll(t.Context(), state); !errors.Is(err, watch.ErrLogMisbehaves) {
		t.Errorf("a log with another history: %v, want ErrLogMisbehaves", err)
	}
	if _, _, err := w.Poll(t.Context(), watch.State{Size: 9999, Hash: state.Hash}); !errors.Is(err, watch.ErrLogMisbehaves) {
		t.Errorf("a log that shrank: %v, want ErrLogMisbehaves", err)
	}
}

// TestEntryThatIsNotInTheTree: who answers for the log hides an entry.
func TestEntryThatIsNotInTheTree(t *testing.T) {
	l := newTileLog(t)
	l.add([]byte(`{"a":1}`), []byte(`{"a":2}`))
	w, err := watch.New(watch.Config{URL: l.URL, Identity: policy.Exact("x")})
	if err != nil {
		t.Fatal(err)
	}
	_, state, err := w.Poll(t.Context(), watch.State{})
	if err != nil {
		t.Fatal(err)
	}
	l.add([]byte(`{"a":3}`))
	l.mu.Lock()
	l.bodies[2] = []byte(`{"a":4}`)
	l.mu.Unlock()
	if _, _, err := w.Poll(t.Context(), state); !errors.Is(err, watch.ErrLogMisbehaves) {
		t.Errorf("Poll: %v, want ErrLogMisbehaves", err)
	}
}

// TestSearch reads a log of the first kind, by the e-mail address.
func TestSearch(t *testing.T) {
	sigstore := trusttest.NewSigstore(t)
	s := sigstore.Sign(sigstore.Issue(trusttest.Identity{Email: "build@ours.example", Issuer: "https://accounts.example.org"}), trusttest.Statement(trusttest.Digest(nil), "x", nil))
	uuids := []string{"24aa", "24bb"}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/index/retrieve":
			_ = json.NewEncoder(w).Encode(uuids)
		case "/api/v1/log/entries/retrieve":
			var q struct{ EntryUUIDs []string }
			_ = json.NewDecoder(r.Body).Decode(&q)
			var all []any
			for i, u := range q.EntryUUIDs {
				all = append(all, map[string]any{u: map[string]any{"body": base64.StdEncoding.EncodeToString(s.Entries[0].GetCanonicalizedBody()), "logIndex": 100 + i, "integratedTime": 1}})
			}
			_ = json.NewEncoder(w).Encode(all)
		default:
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()
	w, err := watch.New(watch.Config{URL: srv.URL, Identity: policy.Exact("build@ours.example"), Email: "build@ours.example"})
	if err != nil {
		t.Fatal(err)
	}
	found, state, err := w.Poll(t.Context(), watch.State{Seen: []string{"24aa"}})
	if err != nil || len(found) != 1 || found[0].UUID != "24bb" || found[0].Issuer != "https://accounts.example.org" {
		t.Fatalf("found %+v, %v, want 24bb alone", found, err)
	}
	if found, _, err = w.Poll(t.Context(), state); err != nil || len(found) != 0 {
		t.Errorf("a second poll finds %+v, %v", found, err)
	}
}

func FuzzLog(f *testing.F) {
	f.Add([]byte("log\n1\nAAAA\n\n— x y\n"), []byte{0, 1, 'x'})
	f.Add([]byte("log\n300\n"+base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n\n"), []byte{})
	f.Fuzz(func(t *testing.T, checkpoint, tile []byte) {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/checkpoint" {
				_, _ = w.Write(checkpoint)
				return
			}
			_, _ = w.Write(tile)
		}))
		defer srv.Close()
		w, err := watch.New(watch.Config{URL: srv.URL, Identity: policy.Exact("x")})
		if err != nil {
			t.Fatal(err)
		}
		_, _, _ = w.Poll(t.Context(), watch.State{Size: 1, Hash: "x"})
	})
}
