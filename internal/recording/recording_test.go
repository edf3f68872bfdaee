package recording_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/recording"
)

var key = bytes.Repeat([]byte{7}, 32)

func recorder(t *testing.T, change func(*recording.Config)) (*recording.Recorder, string) {
	t.Helper()
	cfg := recording.Config{Dir: filepath.Join(t.TempDir(), "recordings"), Key: key, Reserve: 1}
	if change != nil {
		change(&cfg)
	}
	r, err := recording.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r, cfg.Dir
}

func shell(id string) recording.Meta {
	return recording.Meta{
		SSHSession: bailey.SSHSession{ID: id, User: "alice", Workspace: "ml", Kind: bailey.SSHShell, BeganAt: time.Unix(1_700_000_000, 0).UTC()},
		Terminal:   true, Term: "xterm-256color", Cols: 100, Rows: 30,
	}
}

// record makes a recording of the texts, each in a chunk of its own when apart.
func record(t *testing.T, r *recording.Recorder, texts ...string) string {
	t.Helper()
	id := bailey.NewID()
	s, err := r.Begin(shell(id))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range texts {
		if err := s.Output([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if sum, err := s.Close(); err != nil || !sum.Whole || sum.Digest == "" {
		t.Fatalf("Close: %+v, %v", sum, err)
	}
	return id
}

// read returns what a recording gives, and how it ends.
func read(r *recording.Reader) (text string, events []recording.Event, end error) {
	for {
		rec, err := r.Next()
		if err != nil {
			return text, events, err
		}
		switch rec.Code {
		case recording.Output:
			text += rec.Text
		case recording.Noted:
			events = append(events, *rec.Event)
		case recording.Input, recording.Resize:
			text += "<" + string(rec.Code) + ":" + rec.Text + ">"
		}
	}
}

func reopen(t *testing.T, r *recording.Recorder, id string) *recording.Reader {
	t.Helper()
	read, err := r.Open(id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = read.Close() })
	return read
}

func TestWhatHappenedIsReadBack(t *testing.T) {
	r, dir := recorder(t, nil)
	id := bailey.NewID()
	s, err := r.Begin(shell(id))
	if err != nil {
		t.Fatal(err)
	}
	zero := 0
	for _, do := range []func() error{
		func() error { return s.Output([]byte("caf\xc3")) }, // half a character
		func() error { return s.Resize(120, 40) },
		func() error { return s.Output([]byte("\xa9 \x1b[31m\xff\x00\r\n")) },
		func() error { return s.Input([]byte("ls\r")) },
		func() error { return s.Event(recording.Event{Kind: "sftp.write", Path: "/workspace/\xffx", Direction: "up", Size: 5 << 32}) },
		func() error { return s.Event(recording.Event{Kind: "exit", Exit: &zero}) },
		func() error { return s.Output([]byte("half\xe4\xb8")) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Close(); err != nil {
		t.Fatal(err)
	}
	got := reopen(t, r, id)
	if got.Meta.ID != id || got.Meta.User != "alice" || got.Meta.Cols != 100 || got.Meta.Term != "xterm-256color" {
		t.Errorf("meta %+v", got.Meta)
	}
	text, events, end := read(got)
	if want := "caf<r:120x40>é \x1b[31m\uFFFD\x00\r\n<i:ls\r>half\uFFFD"; text != want || !errors.Is(end, io.EOF) {
		t.Errorf("read %q, %v; want %q to the end", text, end, want)
	}
	if len(events) != 2 || events[0].Path != "/workspace/\uFFFDx" || events[0].Size != 5<<32 || events[1].Exit == nil || *events[1].Exit != 0 {
		t.Errorf("events %+v", events)
	}
	if err := s.Output([]byte("x")); err == nil {
		t.Error("a recording that has ended takes more")
	}
	b, err := os.ReadFile(filepath.Join(dir, id+".rec"))
	if err != nil || bytes.Contains(b, []byte("alice")) || bytes.Contains(b, []byte("workspace")) {
		t.Errorf("the file can be read without the key (%v)", err)
	}
	if info, err := os.Stat(filepath.Join(dir, id+".rec")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file has mode %v, %v", info.Mode(), err)
	}
}

// Every way to change a file is found: a flipped bit anywhere, two chunks
// exchanged, one left out or doubled, the end cut or something put after it,
// one file in another's place, another key.
func TestTampering(t *testing.T) {
	r, dir := recorder(t, nil)
	big := strings.Repeat("0123456789abcdef", 4096) // more than a chunk each
	id := record(t, r, "A"+big, "B"+big, "C"+big, "D"+big)
	whole, err := os.ReadFile(filepath.Join(dir, id+".rec"))
	if err != nil {
		t.Fatal(err)
	}
	want, _, _ := read(reopen(t, r, id))
	chunks := split(t, whole)
	if len(chunks) < 6 {
		t.Fatalf("only %d chunks: the test needs more", len(chunks))
	}
	try := func(name string, file []byte, allowed ...error) {
		t.Helper()
		got, err := recording.NewReader(bytes.NewReader(file), key, id)
		var text string
		if err == nil {
			text, _, err = read(got)
		}
		if !slices.ContainsFunc(allowed, func(a error) bool { return errors.Is(err, a) }) {
			t.Errorf("%s: %v, want one of %v", name, err, allowed)
		}
		if !strings.HasPrefix(want, text) {
			t.Errorf("%s: what was read is not a beginning of what was written", name)
		}
	}
	bad := []error{recording.ErrDamaged, recording.ErrForeign, recording.ErrWrongKey, recording.ErrCut}
	for i := 0; i < len(whole); i += 61 {
		file := bytes.Clone(whole)
		file[i] ^= 1 << (i % 8)
		try("a flipped bit", file, bad...)
	}
	join := func(order ...int) []byte {
		var b []byte
		for _, i := range order {
			b = append(b, chunks[i]...)
		}
		return b
	}
	last := len(chunks) - 1
	try("two chunks exchanged", join(0, 1, 3, 2, last), recording.ErrDamaged)
	try("a chunk left out", join(0, 1, 3), recording.ErrDamaged)
	try("a chunk doubled", join(0, 1, 2, 2), recording.ErrDamaged)
	try("the end in the middle", join(0, 1, last), recording.ErrDamaged)
	try("no end", join(0, 1, 2), recording.ErrCut)
	try("half a chunk", whole[:len(whole)-5], recording.ErrCut)
	try("half a head", append(join(0, 1), chunks[2][:7]...), recording.ErrCut)
	try("something after the end", append(bytes.Clone(whole), 0), recording.ErrDamaged)
	try("a chunk after the end", append(bytes.Clone(whole), chunks[2]...), recording.ErrDamaged)
	try("nothing", nil, recording.ErrCut)
	try("a head", whole[:48], recording.ErrCut)
	try("another kind of file", []byte("{\"version\":2}"), recording.ErrForeign)

	other := record(t, r, "other")
	b, err := os.ReadFile(filepath.Join(dir, other+".rec"))
	if err != nil {
		t.Fatal(err)
	}
	try("another recording", b, recording.ErrDamaged)
	if _, err := recording.NewReader(bytes.NewReader(whole), bytes.Repeat([]byte{8}, 32), id); !errors.Is(err, recording.ErrWrongKey) {
		t.Errorf("another key: %v", err)
	}
}

// split cuts a file into its head and its chunks by the lengths in their heads.
func split(t *testing.T, file []byte) [][]byte {
	t.Helper()
	parts := [][]byte{file[:48]}
	for rest := file[48:]; len(rest) > 0; {
		n := 13 + (int(rest[1])<<24 | int(rest[2])<<16 | int(rest[3])<<8 | int(rest[4]))
		parts, rest = append(parts, rest[:n]), rest[n:]
	}
	return parts
}

// A server that is killed leaves a beginning, which says that it is one.
func TestACrashLeavesABeginning(t *testing.T) {
	r, _ := recorder(t, func(c *recording.Config) { c.Flush = time.Millisecond })
	id := bailey.NewID()
	s, err := r.Begin(shell(id))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Output([]byte("before")); err != nil {
		t.Fatal(err)
	}
	for {
		got := reopen(t, r, id)
		text, _, end := read(got)
		if !errors.Is(end, recording.ErrCut) {
			t.Fatalf("a recording that was not ended ends with %v", end)
		}
		if text == "before" {
			break // it was flushed; nothing has closed the file
		}
	}
	if _, err := r.Begin(shell(id)); bailey.KindOf(err) != bailey.Conflict {
		t.Errorf("the same recording twice: %v", err)
	}
	if _, err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSeek(t *testing.T) {
	r, _ := recorder(t, nil)
	var texts []string
	for i := range 40 {
		texts = append(texts, strings.Repeat(string(rune('a'+i%26)), 8<<10))
	}
	id := record(t, r, texts...)
	all := reopen(t, r, id)
	var records []recording.Record
	for {
		rec, err := all.Next()
		if err != nil {
			break
		}
		records = append(records, rec)
	}
	if len(records) != 40 {
		t.Fatalf("%d records", len(records))
	}
	got := reopen(t, r, id)
	for _, i := range []int{39, 0, 20, 5, 33} {
		if err := got.Seek(records[i].At); err != nil {
			t.Fatal(err)
		}
		rec, err := got.Next()
		if err != nil || rec.At > records[i].At {
			t.Fatalf("after a seek to record %d: %v at %v, want at most %v", i, err, rec.At, records[i].At)
		}
		found := false
		for err == nil && !found {
			found = rec.At == records[i].At && rec.Text == records[i].Text
			rec, err = got.Next()
		}
		if !found {
			t.Errorf("record %d does not come after a seek to it", i)
		}
	}
	if err := got.Seek(0); err != nil {
		t.Fatal(err)
	}
	if text, _, end := read(got); text != strings.Join(texts, "") || !errors.Is(end, io.EOF) {
		t.Errorf("from the beginning again: %d bytes, %v", len(text), end)
	}
}

// Somebody fills the disk so that the rest goes unseen: the recording ends,
// every later call says why, and what was taken down before can be read.
func TestAFullDisk(t *testing.T) {
	r, _ := recorder(t, func(c *recording.Config) { c.Reserve = 1 << 62 })
	if _, err := r.Begin(shell(bailey.NewID())); !errors.Is(err, recording.ErrFull) {
		t.Errorf("Begin on a full disk: %v", err)
	}
	if files, err := r.Files(); err != nil || len(files) != 0 {
		t.Errorf("a refused recording left %v, %v", files, err)
	}
}

func TestTheLimitOfOneRecording(t *testing.T) {
	r, _ := recorder(t, func(c *recording.Config) { c.Max, c.Queue = 64<<10, 32<<10 })
	id := bailey.NewID()
	s, err := r.Begin(shell(id))
	if err != nil {
		t.Fatal(err)
	}
	noise := make([]byte, 4<<10)
	for i := range noise {
		noise[i] = byte('!' + (i*i*31+i)%90)
	}
	for err == nil {
		for i := range noise {
			noise[i] = byte('!' + (int(noise[i])*131+i*17+7)%90)
		}
		err = s.Output(noise)
	}
	if !errors.Is(err, recording.ErrTooLong) {
		t.Fatalf("a recording without an end: %v", err)
	}
	sum, err := s.Close()
	if !errors.Is(err, recording.ErrTooLong) || sum.Whole || sum.Size > 64<<10 || sum.Digest != "" {
		t.Errorf("Close: %+v, %v", sum, err)
	}
	text, _, end := read(reopen(t, r, id))
	if !errors.Is(end, recording.ErrCut) || text == "" {
		t.Errorf("what is left: %d bytes, %v", len(text), end)
	}
}

// Of a command without a terminal a beginning is kept, so that a shell without
// a terminal does not go unseen, and a backup does not fill the disk.
func TestACommandsOutputIsKeptInPart(t *testing.T) {
	for _, tt := range []struct {
		exec int64
		want string
	}{{10, "0123456789"}, {-1, ""}, {1 << 20, "0123456789abcdef01"}} {
		r, _ := recorder(t, func(c *recording.Config) { c.Exec = tt.exec })
		m := shell(bailey.NewID())
		m.Kind, m.Terminal, m.Command = bailey.SSHExec, false, "cat"
		s, err := r.Begin(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"01234567", "89abcdef", "01"} {
			if err := s.Output([]byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := s.Close(); err != nil {
			t.Fatal(err)
		}
		text, events, end := read(reopen(t, r, m.ID))
		limited := len(events) == 1 && events[0].Kind == "limit"
		if text != tt.want || !errors.Is(end, io.EOF) || limited != (tt.exec == 10) {
			t.Errorf("with %d: %q, events %v, %v; want %q", tt.exec, text, events, end, tt.want)
		}
	}
}

// Many at once, each much more than the queue: nobody gets stuck, nothing is
// lost, nothing is mixed.
func TestManyAtOnce(t *testing.T) {
	r, _ := recorder(t, func(c *recording.Config) { c.Queue, c.Total = 64<<10, 128<<10 })
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			line := strings.Repeat(string(rune('a'+i)), 1000)
			id := bailey.NewID()
			s, err := r.Begin(shell(id))
			if err != nil {
				t.Error(err)
				return
			}
			for range 300 {
				if err := s.Output([]byte(line)); err != nil {
					t.Error(err)
				}
			}
			if _, err := s.Close(); err != nil {
				t.Error(err)
			}
			got, err := r.Open(id)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = got.Close() }()
			if text, _, end := read(got); text != strings.Repeat(line, 300) || !errors.Is(end, io.EOF) {
				t.Errorf("%d bytes of session %d, %v", len(text), i, end)
			}
		})
	}
	wg.Wait()
}

// An id names a file and nothing else.
func TestIDsAreNoPaths(t *testing.T) {
	r, dir := recorder(t, nil)
	if err := os.WriteFile(filepath.Join(dir, "..", "x.rec"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"../x", "", "x", "..", strings.Repeat("A", 26), strings.Repeat("a", 25) + "/", strings.Repeat("a", 26) + "\n"} {
		if _, err := r.Open(id); bailey.KindOf(err) != bailey.NotFound {
			t.Errorf("Open(%q): %v", id, err)
		}
		if err := r.Remove(id); bailey.KindOf(err) != bailey.NotFound {
			t.Errorf("Remove(%q): %v", id, err)
		}
		if _, err := r.Begin(shell(id)); bailey.KindOf(err) != bailey.NotFound {
			t.Errorf("Begin(%q): %v", id, err)
		}
	}
	id := bailey.NewID()
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, id+".rec")); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Open(id); err == nil {
		t.Error("a link was followed")
	}
}

func TestCast(t *testing.T) {
	r, _ := recorder(t, nil)
	id := bailey.NewID()
	s, err := r.Begin(shell(id))
	if err != nil {
		t.Fatal(err)
	}
	for _, do := range []func() error{
		func() error { return s.Output([]byte("hello\r\n")) },
		func() error { return s.Resize(90, 20) },
		func() error { return s.Event(recording.Event{Kind: "signal", Signal: "INT\x1b]0;x"}) },
		func() error { return s.Output([]byte("evil")) },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Close(); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := recording.Cast(&b, reopen(t, r, id), func(s string) string { return strings.ReplaceAll(s, "evil", "good") }); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	var head struct {
		Version, Width, Height int
		Timestamp              int64
	}
	if err := json.Unmarshal([]byte(lines[0]), &head); err != nil || head.Version != 2 || head.Width != 100 || head.Height != 30 || head.Timestamp != 1_700_000_000 {
		t.Errorf("head %s (%v)", lines[0], err)
	}
	var got []string
	for _, line := range lines[1:] {
		var parts [3]any
		if err := json.Unmarshal([]byte(line), &parts); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		got = append(got, parts[1].(string)+" "+parts[2].(string))
	}
	if want := []string{"o hello\r\n", "r 90x20", "m signal INT·]0;x", "o good"}; !slices.Equal(got, want) {
		t.Errorf("lines %q, want %q", got, want)
	}
	b.Reset()
	if err := recording.Lines(&b, reopen(t, r, id), nil); err != nil || !strings.HasSuffix(b.String(), "\n{\"end\":\"whole\"}\n") {
		t.Errorf("Lines: %v, %s", err, b.String())
	}
}

// Whatever a file holds, reading it ends, without a panic and in bounded
// memory, and what is damaged never reads as whole.
func FuzzReader(f *testing.F) {
	r, err := recording.New(recording.Config{Dir: f.TempDir(), Key: key, Reserve: 1})
	if err != nil {
		f.Fatal(err)
	}
	const id = "01234567890123456789012345"
	s, err := r.Begin(shell(id))
	if err != nil {
		f.Fatal(err)
	}
	_ = s.Output([]byte(strings.Repeat("hello ", 1000)))
	if _, err := s.Close(); err != nil {
		f.Fatal(err)
	}
	got, err := r.Open(id)
	if err != nil {
		f.Fatal(err)
	}
	_ = got.Close()
	files, err := filepath.Glob(filepath.Join(f.TempDir(), "..", "*", id+".rec"))
	if err != nil || len(files) == 0 {
		f.Fatal("no file", err)
	}
	whole, err := os.ReadFile(files[0])
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole)
	f.Add(whole[:60])
	f.Add([]byte("baileyR1"))
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := recording.NewReader(bytes.NewReader(file), key, id)
		if err != nil {
			return
		}
		_, _, end := read(r)
		if errors.Is(end, io.EOF) && !bytes.Equal(file, whole) {
			t.Errorf("a file that is not ours reads as whole")
		}
		if err := r.Seek(time.Hour); err == nil {
			_, _, _ = read(r)
		}
	})
}

// Lines come from a server that may be anybody's.
func FuzzParseLine(f *testing.F) {
	for _, line := range []string{`[0.5,"o","x"]`, `[1e300,"o","x"]`, `[0,"r","80x24"]`, `[0,"r","0x0"]`, `[0,"e",{"kind":"exit","exit":0}]`, `[0,"e",null]`, `[]`} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		rec, err := recording.ParseLine(line)
		if err != nil {
			return
		}
		if rec.At < 0 || rec.Code == recording.Noted && rec.Event == nil {
			t.Errorf("ParseLine(%q) = %+v", line, rec)
		}
	})
}
