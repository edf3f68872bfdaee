package witness_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/recording"
	"github.com/baileyhq/bailey/internal/sshlive"
	"github.com/baileyhq/bailey/internal/store"
	"github.com/baileyhq/bailey/internal/witness"
)

// A world is a service on a real store, real files and a real journal.
type world struct {
	*witness.Service

	t       *testing.T
	dir     string
	store   *store.Store
	live    *sshlive.Registry
	journal *journal
	limits  witness.Limits
	reserve int64
	now     time.Time
}

// A journal is the real one, which can be made to fail.
type journal struct {
	*audit.Journal

	mu   sync.Mutex // guards full
	full bool
}

func (j *journal) Append(ctx context.Context, e audit.Event) error {
	j.mu.Lock()
	full := j.full
	j.mu.Unlock()
	if full {
		return audit.ErrUnwritable
	}
	return j.Journal.Append(ctx, e)
}

func (j *journal) fail(full bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.full = full
}

func open(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), live: &sshlive.Registry{}, reserve: 1, now: time.Now()}
	var err error
	if w.store, err = store.Open(t.Context(), store.Config{Path: filepath.Join(w.dir, "state.db"), Key: bytes.Repeat([]byte{1}, 32)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.store.Close() })
	j, err := audit.Open(audit.Config{Dir: filepath.Join(w.dir, "audit")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	w.journal = &journal{Journal: j}
	w.restart()
	return w
}

// restart makes the service anew, as a server does that begins.
func (w *world) restart() {
	w.t.Helper()
	r, err := recording.New(recording.Config{Dir: filepath.Join(w.dir, "recordings"), Key: bytes.Repeat([]byte{2}, 32), Reserve: w.reserve, Flush: time.Millisecond})
	if err != nil {
		w.t.Fatal(err)
	}
	w.Service, err = witness.New(w.t.Context(), witness.Config{
		Store: w.store, Recorder: r, Live: w.live, Audit: w.journal, Server: "here",
		Limits: func() witness.Limits { return w.limits }, Now: func() time.Time { return w.now },
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func meta(kind sshlive.Kind, strict bool) sshlive.Meta {
	return sshlive.Meta{
		ID: bailey.NewID(), ConnID: "c", Kind: kind, UserID: "alice-id", User: "alice", Workspace: "lab", Class: "small",
		TTY: kind == sshlive.Shell, Started: time.Now(), Strict: strict,
	}
}

var admin = bailey.Actor{UserID: "root", Name: "root", Role: bailey.RoleAdmin, Method: "password"}

func (w *world) begin(m sshlive.Meta) sshlive.Recording {
	w.t.Helper()
	r, err := w.Begin(w.t.Context(), m)
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func (w *world) row(id string) bailey.SSHSession {
	w.t.Helper()
	s, err := w.store.SSHSession(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) events(action audit.Action) []audit.Event {
	w.t.Helper()
	all, err := w.journal.Search(w.t.Context(), audit.Filter{Action: string(action)})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// text returns what a recording shows.
func (w *world) text(id string) (text string, end error) {
	w.t.Helper()
	r, err := w.Open(w.t.Context(), admin, id)
	if err != nil {
		w.t.Fatal(err)
	}
	defer r.Close() //nolint:errcheck // only read
	for {
		rec, err := r.Next()
		if err != nil {
			return text, err
		}
		if rec.Code == recording.Output || rec.Code == recording.Input {
			text += rec.Text
		}
	}
}

// Somebody fills the disk so that what they do goes unseen. A strict class has
// no session then; another's goes on, and the journal has that it is not seen.
func TestAFullDiskHidesNothingOfAStrictClass(t *testing.T) {
	w := open(t)
	w.reserve = 1 << 62
	w.restart()
	strict, loose := meta(sshlive.Shell, true), meta(sshlive.Shell, false)
	_, err := w.Begin(t.Context(), strict)
	if e, ok := errors.AsType[*bailey.Error](err); !ok || e.Kind != bailey.Unavailable || !strings.Contains(e.Msg, "recorded") || !errors.Is(err, recording.ErrFull) {
		t.Errorf("a strict session on a full disk: %v", err)
	}
	if row := w.row(strict.ID); row.EndedAt.IsZero() || row.Recording != bailey.RecordingCut {
		t.Errorf("the refused session is %+v in the index", row)
	}
	r := w.begin(loose)
	if err := r.Output([]byte("unseen")); err != nil {
		t.Errorf("a session that need not be recorded: %v", err)
	}
	if err := r.Close(sshlive.End{ExitCode: 0}); err != nil {
		t.Error(err)
	}
	if row := w.row(loose.ID); row.Recording != bailey.RecordingCut || row.Exit != 0 {
		t.Errorf("the unrecorded session is %+v in the index", row)
	}
	cut := w.events(audit.RecordingCut)
	if len(cut) != 2 || cut[0].Reason != audit.DiskFull || cut[0].Target.ID == cut[1].Target.ID {
		t.Errorf("the journal has %+v", cut)
	}
}

// When the index cannot be written, a strict session does not begin.
func TestNoIndexNoStrictSession(t *testing.T) {
	w := open(t)
	if err := w.store.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Begin(t.Context(), meta(sshlive.Forward, true)); bailey.KindOf(err) != bailey.Unavailable {
		t.Errorf("strict without an index: %v", err)
	}
	if _, err := w.Begin(t.Context(), meta(sshlive.Forward, false)); err != nil {
		t.Errorf("best effort without an index: %v", err)
	}
}

// Nobody looks without a trace: when the journal does not take it, they do not.
func TestNoJournalNoLook(t *testing.T) {
	w := open(t)
	m := meta(sshlive.Shell, true)
	r := w.begin(m)
	killed := false
	entry := w.live.Add(m, func(string) { killed = true })
	w.journal.fail(true)
	if _, _, err := w.Watch(t.Context(), admin, m.ID); bailey.KindOf(err) != bailey.Unavailable {
		t.Errorf("watch: %v", err)
	}
	if err := w.Kill(t.Context(), admin, m.ID); bailey.KindOf(err) != bailey.Unavailable || killed {
		t.Errorf("kill: %v, killed %v", err, killed)
	}
	if err := r.Close(sshlive.End{ExitCode: -1}); !errors.Is(err, audit.ErrUnwritable) {
		t.Errorf("the end of a recording whose digest is nowhere: %v", err)
	}
	entry.Remove()
	if _, err := w.Open(t.Context(), admin, m.ID); bailey.KindOf(err) != bailey.Unavailable {
		t.Errorf("replay: %v", err)
	}
	if err := w.Delete(t.Context(), admin, m.ID); bailey.KindOf(err) != bailey.Unavailable {
		t.Errorf("delete: %v", err)
	}
	w.now, w.limits.Keep = w.now.Add(48*time.Hour), time.Hour
	if err := w.Sweep(t.Context()); !errors.Is(err, audit.ErrUnwritable) {
		t.Errorf("sweep: %v", err)
	}
	w.journal.fail(false)
	if text, err := w.text(m.ID); text != "" || err == nil {
		t.Errorf("the recording that nobody could delete: %q, %v", text, err)
	}
}

// A server that was killed: the next one says so of its sessions, and what was
// recorded can be read.
func TestAServerThatWasKilled(t *testing.T) {
	w := open(t)
	m, f := meta(sshlive.Shell, true), meta(sshlive.Forward, true)
	m.Target = ""
	f.Target = "127.0.0.1:8888"
	r := w.begin(m)
	w.begin(f)
	if err := r.Output([]byte("before")); err != nil {
		t.Fatal(err)
	}
	for {
		if text, _ := w.text(m.ID); text == "before" { // it is on disk
			break
		}
	}
	w.restart()
	if row := w.row(m.ID); row.End != "lost" || row.Recording != bailey.RecordingCut {
		t.Errorf("the shell: %+v", row)
	}
	if row := w.row(f.ID); row.End != "lost" || row.Recording != bailey.RecordingNone || row.Target != "127.0.0.1:8888" {
		t.Errorf("the forward: %+v", row)
	}
	if text, end := w.text(m.ID); text != "before" || !errors.Is(end, recording.ErrCut) {
		t.Errorf("what is left: %q, %v", text, end)
	}
}

// What is typed is kept only where the configuration says so.
func TestInputIsKeptOnlyWhenAsked(t *testing.T) {
	w := open(t)
	for _, keep := range []bool{false, true} {
		w.limits.Input = keep
		m := meta(sshlive.Shell, true)
		r := w.begin(m)
		for _, err := range []error{r.Output([]byte("Password: ")), r.Input([]byte("hunter2\r")), r.Resize(10, 10), r.Event(sshlive.Event{Kind: sshlive.Signalled, Path: "INT"})} {
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := r.Close(sshlive.End{ExitCode: 0}); err != nil {
			t.Fatal(err)
		}
		if text, _ := w.text(m.ID); strings.Contains(text, "hunter2") != keep {
			t.Errorf("input kept: %v; recorded %q", keep, text)
		}
	}
}

// Old recordings go, then the oldest until the rest fits; a living one stays;
// each that goes is in the journal.
func TestRetention(t *testing.T) {
	w := open(t)
	var ids []string
	for i := range 4 {
		m := meta(sshlive.Shell, true)
		r := w.begin(m)
		noise := make([]byte, 20_000)
		for j := range noise {
			noise[j] = byte('!' + (j*j*7+j*i*13+i)%90)
		}
		if err := r.Output(noise); err != nil {
			t.Fatal(err)
		}
		if err := r.Close(sshlive.End{ExitCode: 0}); err != nil {
			t.Fatal(err)
		}
		at := w.now.Add(time.Duration(i-4) * 24 * time.Hour) // 4, 3, 2 and 1 days old
		if err := os.Chtimes(filepath.Join(w.dir, "recordings", m.ID+".rec"), at, at); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, m.ID)
	}
	living := meta(sshlive.Shell, true)
	living.ID = ids[1]
	entry := w.live.Add(living, func(string) {})
	gone := func(want ...bool) {
		t.Helper()
		for i, id := range ids {
			row := w.row(id)
			_, err := os.Stat(filepath.Join(w.dir, "recordings", id+".rec"))
			if missing := os.IsNotExist(err); missing != want[i] || (row.Recording == bailey.RecordingDeleted) != want[i] {
				t.Errorf("recording %d: file missing %v, index %s; want gone %v", i, missing, row.Recording, want[i])
			}
		}
	}
	sweep := func(l witness.Limits) {
		t.Helper()
		w.limits = l
		if err := w.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	sweep(witness.Limits{})
	gone(false, false, false, false)
	sweep(witness.Limits{Keep: 60 * time.Hour}) // 4 and 3 days are too old; one of them lives
	gone(true, false, false, false)
	entry.Remove()
	size := w.row(ids[3]).Size
	sweep(witness.Limits{Size: size + 100}) // room for one
	gone(true, true, true, false)
	var reasons []audit.Reason
	for _, e := range w.events(audit.RecordingGone) {
		reasons = append(reasons, e.Reason)
	}
	if len(reasons) != 3 || reasons[0] != audit.TooOld || reasons[1] != audit.TooMuch || reasons[2] != audit.TooMuch {
		t.Errorf("the journal says %v", reasons)
	}
}
