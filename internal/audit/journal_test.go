package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func mustOpen(tb testing.TB, cfg Config) *Journal {
	tb.Helper()
	j, err := Open(cfg)
	if err != nil {
		tb.Fatalf("Open(%s): %v", cfg.Dir, err)
	}
	tb.Cleanup(func() { _ = j.Close() })
	return j
}

func mustAppend(tb testing.TB, j *Journal, events ...Event) {
	tb.Helper()
	for _, e := range events {
		if err := j.Append(tb.Context(), e); err != nil {
			tb.Fatal(err)
		}
	}
}

// fill writes n events in one go and closes the journal.
func fill(tb testing.TB, dir string, n int, segmentBytes int64) {
	tb.Helper()
	j, err := Open(Config{Dir: dir, Boot: "boot1", SegmentBytes: segmentBytes})
	if err != nil {
		tb.Fatal(err)
	}
	var last *batch
	for i := range n {
		mid, err := encodeBody(sampleEvent(i))
		if err != nil {
			tb.Fatal(err)
		}
		if last, err = j.enqueue(entry{"01jd3k8q9m4s7v2x5z8b1c4f6h", mid}); err != nil {
			tb.Fatal(err)
		}
		if segmentBytes > 0 { // one batch each, so that segments stay small
			<-last.done
		}
	}
	if err := j.Close(); err != nil {
		tb.Fatal(err)
	}
}

// all returns every event there is.
func all(tb testing.TB, j *Journal) []Event {
	tb.Helper()
	events, err := j.Search(tb.Context(), Filter{Limit: maxLimit})
	if err != nil {
		tb.Fatal(err)
	}
	return events
}

func verified(tb testing.TB, dir string) Report {
	tb.Helper()
	r, err := Verify(dir)
	if err != nil {
		tb.Fatalf("Verify: %v", err)
	}
	return r
}

func segmentFiles(tb testing.TB, dir string) []string {
	tb.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "journal-*.jsonl"))
	if err != nil || len(files) == 0 {
		tb.Fatalf("segments of %s: %q, %v", dir, files, err)
	}
	return files // sorted
}

func readFile(tb testing.TB, path string) []byte {
	tb.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

func writeFile(tb testing.TB, path string, data []byte) {
	tb.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		tb.Fatal(err)
	}
}

// quickDir is a directory in memory where there is one: for tests that make
// thousands of journals and are not about the disk.
func quickDir(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "audit") //nolint:usetesting // TempDir is on the disk
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func copyDir(tb testing.TB, from string) (to string) {
	tb.Helper()
	to = tb.TempDir()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		tb.Fatal(err)
	}
	return to
}

func TestAppendAndRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "audit")
	j := mustOpen(t, Config{Dir: dir, Boot: "boot1"})
	before := time.Now()
	mustAppend(t, j, sampleEvent(0), Event{Action: SignIn, Outcome: Failure, Reason: BadCredentials, Actor: Actor{Unknown: "k1:abcdef", IP: "2001:db8::1"}})
	got := all(t, j)
	if len(got) != 2 {
		t.Fatalf("got %d events, want 2: %+v", len(got), got)
	}
	for i, e := range got {
		if e.V != 1 || e.Seq != uint64(i+1) || e.Boot != "boot1" || len(e.ID) != 26 || e.TS.Before(before.Add(-time.Second)) || e.TS.Location() != time.UTC {
			t.Errorf("event %d has envelope %+v", i, e)
		}
	}
	if got[0].Prev != genesis || got[1].Prev != hashOf(bytes.SplitN(readFile(t, segmentFiles(t, dir)[0]), []byte("\n"), 2)[0]) {
		t.Errorf("prev = %q, %q; want the genesis and the hash of line 1", got[0].Prev, got[1].Prev)
	}
	want := sampleEvent(0)
	want.V, want.ID, want.TS, want.Boot, want.Seq, want.Prev = 1, got[0].ID, got[0].TS, "boot1", 1, genesis
	if diff := cmp.Diff(want, got[0]); diff != "" {
		t.Errorf("event 1 (-want +got):\n%s", diff)
	}
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("directory has mode %v, %v; want 0700", fi.Mode(), err)
	}
	for _, f := range append(segmentFiles(t, dir), filepath.Join(dir, "lock"), filepath.Join(dir, headFile)) {
		if fi, err := os.Stat(f); err != nil || fi.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v; want 0600", f, fi.Mode(), err)
		}
	}
}

// TestLineIsCanonical: what the writer assembles by hand is byte for byte what
// encoding/json makes of the event.
func TestLineIsCanonical(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, Config{Dir: dir})
	mustAppend(t, j, sampleEvent(1), Event{Action: Stop, Outcome: Refused, Reason: NotAllowed, Target: Target{Name: `<b>&"\é漢`}, Attrs: Attrs{GPUs: []string{"GPU-1", "GPU-2"}, Status: 403}})
	for line := range bytes.Lines(readFile(t, segmentFiles(t, dir)[0])) {
		if _, err := decode(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			t.Errorf("line %s: %v", line, err)
		}
	}
}

func TestReopenContinues(t *testing.T) {
	dir := t.TempDir()
	for boot := range 4 {
		j := mustOpen(t, Config{Dir: dir, Boot: "boot" + strconv.Itoa(boot), SegmentBytes: 1000})
		mustAppend(t, j, sampleEvent(0), sampleEvent(1), sampleEvent(2))
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if err := j.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		if err := j.Append(t.Context(), sampleEvent(0)); !errors.Is(err, ErrUnwritable) {
			t.Errorf("Append after Close = %v, want ErrUnwritable", err)
		}
	}
	r := verified(t, dir)
	if !r.OK || r.Events != 12 || r.Head != 12 || r.Segments < 4 {
		t.Errorf("Verify = %+v, want 12 good events in several segments", r)
	}
}

func TestOneProcessAtATime(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, Config{Dir: dir})
	second, err := Open(Config{Dir: dir})
	if err == nil {
		_ = second.Close()
		t.Fatal("a second Open of the same directory succeeded")
	}
	if !strings.Contains(err.Error(), "another process") || !strings.Contains(err.Error(), dir) {
		t.Errorf("second Open = %q, want it to say that another process has %s", err, dir)
	}
	mustAppend(t, j, sampleEvent(0)) // the first is none the worse
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, Config{Dir: dir})
}

// TestConcurrentAppends: 64 writers, no gap, nothing lost, each writer's own
// events in its own order.
func TestConcurrentAppends(t *testing.T) {
	const writers, each = 64, 1000
	dir := t.TempDir()
	j := mustOpen(t, Config{Dir: dir, SegmentBytes: 4 << 20})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				e := sampleEvent(i + 1)
				e.Actor.Name = "w" + strconv.Itoa(w)
				if err := j.Append(t.Context(), e); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if r := verified(t, dir); !r.OK || r.Events != writers*each || r.Segments < 2 {
		t.Fatalf("Verify = %+v, want %d good events", r, writers*each)
	}
	next := map[string]int64{}
	seq := uint64(0)
	for _, f := range segmentFiles(t, dir) {
		for line := range bytes.Lines(readFile(t, f)) {
			var e Event
			if err := json.Unmarshal(line, &e); err != nil {
				t.Fatal(err)
			}
			if seq++; e.Seq != seq {
				t.Fatalf("event %d has number %d", seq, e.Seq)
			}
			if next[e.Actor.Name]++; e.Attrs.Count != next[e.Actor.Name] {
				t.Fatalf("event %d of %s came as its %d.", e.Attrs.Count, e.Actor.Name, next[e.Actor.Name])
			}
		}
	}
}

// TestCrash cuts the last file at every byte of the last two lines, as a crash
// in the middle of a write would. Open must succeed, every line that was whole
// must still be there, and writing must go on.
func TestCrash(t *testing.T) {
	orig := quickDir(t)
	fill(t, orig, 5, 0)
	data := readFile(t, segmentFiles(t, orig)[0])
	lines := bytes.SplitAfter(data, []byte("\n"))[:5]
	two := len(lines[3]) + len(lines[4])
	// The head of a moment before: it vouches for the first three.
	at := end{3, hashOf(bytes.TrimSuffix(lines[2], []byte("\n")))}
	for cut := len(data) - two; cut < len(data); cut++ {
		dir := quickDir(t)
		path := segmentPath(dir, 1)
		writeFile(t, path, data[:cut])
		if err := writeHead(dir, at); err != nil {
			t.Fatal(err)
		}
		whole := bytes.Count(data[:cut], []byte("\n"))
		torn := data[bytes.LastIndexByte(data[:cut], '\n')+1 : cut]
		if r := verified(t, dir); !r.OK || r.Torn != int64(len(torn)) {
			t.Fatalf("cut at %d: Verify = %+v, want OK with %d torn bytes", cut, r, len(torn))
		}
		var log bytes.Buffer
		j, err := Open(Config{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if got := all(t, j); len(got) != whole {
			t.Fatalf("cut at %d: %d events, want %d", cut, len(got), whole)
		}
		mustAppend(t, j, sampleEvent(9))
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if r := verified(t, dir); !r.OK || r.Events != uint64(whole+1) {
			t.Fatalf("cut at %d: Verify = %+v, want %d good events", cut, r, whole+1)
		}
		kept, err := os.ReadFile(path + ".0.torn")
		if len(torn) > 0 && (!bytes.Equal(kept, torn) || !strings.Contains(log.String(), "torn")) {
			t.Fatalf("cut at %d: kept %q, %v and logged %q; want %q kept, with a warning", cut, kept, err, &log, torn)
		}
		if len(torn) == 0 && !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("cut at %d: a torn file without a torn line: %q, %v", cut, kept, err)
		}
	}
}

// TestCrashGarbage: a power cut may leave zeros, or half a line and a newline.
func TestCrashGarbage(t *testing.T) {
	for name, garbage := range map[string]string{
		"zeros":                      strings.Repeat("\x00", 50),
		"more zeros than a line":     strings.Repeat("\x00", 3*maxLine),
		"more zeros, then a newline": strings.Repeat("\x00", 3*maxLine) + "\n",
		"half a line and a newline":  `{"v":1,"id":"01` + "\n",
		"an empty line":              "\n",
	} {
		dir := t.TempDir()
		fill(t, dir, 3, 0)
		path := segmentFiles(t, dir)[0]
		writeFile(t, path, append(readFile(t, path), garbage...))
		j, err := Open(Config{Dir: dir})
		if err != nil {
			t.Errorf("%s: Open: %v", name, err)
			continue
		}
		mustAppend(t, j, sampleEvent(0))
		if err := j.Close(); err != nil {
			t.Fatal(err)
		}
		if r := verified(t, dir); !r.OK || r.Events != 4 {
			t.Errorf("%s: Verify = %+v, want 4 good events", name, r)
		}
		if kept := readFile(t, path+".0.torn"); string(kept) != garbage {
			t.Errorf("%s: kept %d bytes, want the %d of it", name, len(kept), len(garbage))
		}
	}
}

// TestOpenRefusesCorruption: what no crash does, Open does not repair.
func TestOpenRefusesCorruption(t *testing.T) {
	orig := t.TempDir()
	fill(t, orig, 9, 1500)
	files := segmentFiles(t, orig)
	if len(files) < 3 {
		t.Fatalf("only %d segments", len(files))
	}
	lastSeg := filepath.Base(files[len(files)-1])
	for name, tt := range map[string]struct {
		damage func(dir string)
		want   string
	}{
		"a letter in the first line": {func(dir string) {
			p := filepath.Join(dir, filepath.Base(files[0]))
			writeFile(t, p, bytes.Replace(readFile(t, p), []byte("alice"), []byte("malik"), 1))
		}, filepath.Base(files[0]) + ":2: does not continue"},
		"a letter in the very last line": {func(dir string) {
			p := filepath.Join(dir, lastSeg)
			data := readFile(t, p)
			i := bytes.LastIndex(data, []byte("alice"))
			copy(data[i:], "malik")
			writeFile(t, p, data)
		}, "head.json: line 9 is not the one that was written"},
		"a line taken out": {func(dir string) {
			p := filepath.Join(dir, filepath.Base(files[0]))
			_, rest, _ := bytes.Cut(readFile(t, p), []byte("\n"))
			writeFile(t, p, rest)
		}, filepath.Base(files[0]) + ":1: number 2 where 1 should be"},
		"a file taken out": {func(dir string) {
			if err := os.Remove(filepath.Join(dir, filepath.Base(files[1]))); err != nil {
				t.Fatal(err)
			}
		}, filepath.Base(files[2]) + ": begins with"},
		"the last file taken out": {func(dir string) {
			if err := os.Remove(filepath.Join(dir, lastSeg)); err != nil {
				t.Fatal(err)
			}
		}, "the end was cut off"},
		"the last file emptied": {func(dir string) {
			writeFile(t, filepath.Join(dir, lastSeg), nil)
		}, "the end was cut off"},
		"a torn line that was acknowledged": {func(dir string) {
			p := filepath.Join(dir, lastSeg)
			data := readFile(t, p)
			writeFile(t, p, data[:len(data)-1])
		}, lastSeg},
		"no head": {func(dir string) {
			if err := os.Remove(filepath.Join(dir, headFile)); err != nil {
				t.Fatal(err)
			}
		}, "head.json: missing"},
		"a file in between": {func(dir string) {
			writeFile(t, filepath.Join(dir, "journal-5.jsonl"), nil)
		}, "journal-5.jsonl"},
		"a link for a file": {func(dir string) {
			p := filepath.Join(dir, lastSeg)
			if err := errors.Join(os.Rename(p, p+".x"), os.Symlink(p+".x", p)); err != nil {
				t.Fatal(err)
			}
		}, lastSeg},
	} {
		dir := copyDir(t, orig)
		tt.damage(dir)
		j, err := Open(Config{Dir: dir, SegmentBytes: 1500})
		if err == nil {
			_ = j.Close()
			t.Errorf("%s: Open succeeded", name)
			continue
		}
		var brk *Break
		if !errors.As(err, &brk) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Open = %q, want a Break with %q", name, err, tt.want)
		}
		if r := verified(t, dir); r.OK || r.Break == nil {
			t.Errorf("%s: Verify = %+v, want a break", name, r)
		}
	}
}

// TestFieldsAreTamed: names come from outside; whoever prints a line must get
// one line.
func TestFieldsAreTamed(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, Config{Dir: dir})
	evil := "a\nb\r\x1b[31m\x00\u009b\u202e\u2028\xff" + strings.Repeat("漢", 100)
	e := Event{
		Actor:  Actor{evil, evil, evil, evil, evil, evil},
		Action: AccessDenied, Outcome: Refused, Reason: ForeignOrigin,
		Target: Target{evil, evil, evil},
		Attrs:  Attrs{Class: evil, Image: evil, Run: evil, GPUs: []string{evil}, Role: evil, Digest: evil, Host: evil, Rule: evil, Mode: evil, Route: evil, Length: evil, Sum: evil, Signer: evil, Policy: evil, Root: evil, Verdict: evil},
	}
	mustAppend(t, j, e)
	data := readFile(t, segmentFiles(t, dir)[0])
	if n := bytes.Count(data, []byte("\n")); n != 1 {
		t.Errorf("one event made %d lines", n)
	}
	got := all(t, j)[0]
	if want := "ab[31m\ufffd" + strings.Repeat("漢", 18); got.Actor.Name != want {
		t.Errorf("name = %q (%d bytes), want %q", got.Actor.Name, len(got.Actor.Name), want)
	}
	eachString(reflect.ValueOf(got), func(s string) {
		if len(s) > maxSigner || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x202e || r == 0x2028 }) {
			t.Errorf("field %q was not tamed", s)
		}
	})
	if e.Attrs.GPUs[0] != evil {
		t.Errorf("Append changed the caller's event")
	}
	image := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	mustAppend(t, j, Event{Action: Launch, Outcome: Success, Attrs: Attrs{Image: image}})
	if got := all(t, j)[1].Attrs.Image; got != image {
		t.Errorf("image = %q, want it whole: %q", got, image)
	}
}

func eachString(v reflect.Value, f func(string)) {
	switch v.Kind() { //nolint:exhaustive // numbers have no text
	case reflect.String:
		f(v.String())
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				eachString(v.Field(i), f)
			}
		}
	case reflect.Slice:
		for i := range v.Len() {
			eachString(v.Index(i), f)
		}
	}
}

func TestAppendRefusesNonsense(t *testing.T) {
	j := mustOpen(t, Config{Dir: t.TempDir()})
	gpus := make([]string, 400)
	for i := range gpus {
		gpus[i] = "GPU-" + strings.Repeat("0", 36)
	}
	for name, e := range map[string]Event{
		"no action":           {Outcome: Success},
		"no outcome":          {Action: Launch},
		"free text as action": {Action: "user typed: hunter2", Outcome: Success},
		"free text as reason": {Action: Launch, Outcome: Success, Reason: "My password is hunter2"},
		"too big":             {Action: Launch, Outcome: Success, Attrs: Attrs{GPUs: gpus}},
	} {
		if err := j.Append(t.Context(), e); !errors.Is(err, ErrUnwritable) {
			t.Errorf("%s: Append = %v, want ErrUnwritable", name, err)
		}
	}
	if got := all(t, j); len(got) != 0 {
		t.Errorf("refused events are in the journal: %+v", got)
	}
	mustAppend(t, j, sampleEvent(0))
}

// TestCancelledAppendIsStillWritten is the attack of someone who hangs up
// right after a wrong password, so that the failure is never written.
func TestCancelledAppendIsStillWritten(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, Config{Dir: dir})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 50 {
		err := j.Append(ctx, Event{Action: SignIn, Outcome: Failure, Reason: BadCredentials})
		if err != nil && (!errors.Is(err, ErrUnwritable) || !errors.Is(err, context.Canceled)) {
			t.Errorf("Append = %v, want nil, or ErrUnwritable and Canceled", err)
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if r := verified(t, dir); !r.OK || r.Events != 50 {
		t.Errorf("Verify = %+v, want all 50 events", r)
	}
}

// TestEventHasNoFreeText is the canary of the types: a new field must be one of
// these, each of which is a closed set, a number, a time, an ID or a name that
// is cut and escaped. A secret.Value, an error, an any or a map has no place.
func TestEventHasNoFreeText(t *testing.T) {
	allowed := map[string]string{
		"V": "int", "TS": "time.Time", "Seq": "uint64",
		"Action": "audit.Action", "Outcome": "audit.Outcome", "Reason": "audit.Reason",
		"Attrs.Count": "int64", "Attrs.Status": "int", "Attrs.GPUs": "[]string",
		"Attrs.Input": "bool", "Attrs.Bytes": "int64", "Attrs.Scopes": "[]string",
		"Attrs.Port": "int", "Attrs.Up": "int64", "Attrs.Down": "int64", "Attrs.Millis": "int64",
		"Attrs.Serial": "uint64", "Attrs.Exit": "int", "Attrs.Size": "int64", "Attrs.Silent": "bool",
	}
	tamed := []string{ // by encodeBody, or made by the journal itself
		"ID", "Boot", "Prev",
		"Actor.ID", "Actor.Name", "Actor.Unknown", "Actor.Method", "Actor.Session", "Actor.IP",
		"Target.Kind", "Target.ID", "Target.Name",
		"Attrs.Class", "Attrs.Image", "Attrs.Run", "Attrs.Role", "Attrs.Digest",
		"Attrs.Signer", "Attrs.Policy", "Attrs.Root", "Attrs.Verdict",
		"Attrs.Rule", "Attrs.Mode", "Attrs.Route", "Attrs.Length", "Attrs.Sum", "Attrs.Host",
		"Attrs.Group", "Attrs.Owner", "Attrs.Source", "Attrs.Session", "Attrs.Kind", "Attrs.Key",
		"Attrs.Factor", "Attrs.Methods", "Attrs.Browser",
	}
	var walk func(prefix string, typ reflect.Type)
	walk = func(prefix string, typ reflect.Type) {
		for f := range typ.Fields() {
			path := prefix + f.Name
			switch {
			case f.Type == reflect.TypeFor[Actor](), f.Type == reflect.TypeFor[Target](), f.Type == reflect.TypeFor[Attrs]():
				walk(path+".", f.Type)
			case allowed[path] == f.Type.String():
			case f.Type.Kind() == reflect.String && f.Type.String() == "string" && slices.Contains(tamed, path):
			default:
				t.Errorf("field %s of type %s: is it free text? Then it has no place in the journal. If not, tame it in encodeBody and add it here", path, f.Type)
			}
		}
	}
	walk("", reflect.TypeFor[Event]())
}
