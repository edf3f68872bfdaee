package audit

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// smallJournal has nine events in three segments, closed.
func smallJournal(tb testing.TB) (dir string, files []string) {
	tb.Helper()
	dir = quickDir(tb)
	fill(tb, dir, 9, 1500)
	files = segmentFiles(tb, dir)
	if r := verified(tb, dir); !r.OK || r.Events != 9 || r.Head != 9 || len(files) < 3 {
		tb.Fatalf("Verify = %+v with %d segments, want 9 good events in 3 or more", r, len(files))
	}
	return dir, files
}

// TestEveryChangedByteIsFound flips, removes and doubles every single byte of
// a closed journal, head.json included.
func TestEveryChangedByteIsFound(t *testing.T) {
	dir, files := smallJournal(t)
	for _, path := range append(files, filepath.Join(dir, headFile)) {
		orig := readFile(t, path)
		for i := range orig {
			for what, changed := range map[string][]byte{
				"one bit": append(append(bytes.Clone(orig[:i]), orig[i]^1), orig[i+1:]...),
				"removed": append(bytes.Clone(orig[:i]), orig[i+1:]...),
				"doubled": append(append(bytes.Clone(orig[:i+1]), orig[i]), orig[i+1:]...),
			} {
				if bytes.Equal(changed, orig) {
					continue
				}
				writeFile(t, path, changed)
				if r := verified(t, dir); r.OK || r.Break == nil {
					t.Fatalf("%s: byte %d (%q) %s: Verify = %+v, want a break", filepath.Base(path), i, orig[i], what, r)
				}
			}
		}
		writeFile(t, path, orig)
	}
	if r := verified(t, dir); !r.OK {
		t.Fatalf("restored: Verify = %+v", r)
	}
}

// TestEveryMovedLineIsFound removes, doubles and swaps lines, and cuts and
// swaps files.
func TestEveryMovedLineIsFound(t *testing.T) {
	dir, files := smallJournal(t)
	check := func(what string) {
		t.Helper()
		if r := verified(t, dir); r.OK || r.Break == nil || r.Break.Segment == "" {
			t.Errorf("%s: Verify = %+v, want a break with its place", what, r)
		}
	}
	for n, path := range files {
		orig := readFile(t, path)
		lines := bytes.SplitAfter(orig, []byte("\n"))
		lines = lines[:len(lines)-1]
		for i := range lines {
			removed := bytes.Join(append(append([][]byte{}, lines[:i]...), lines[i+1:]...), nil)
			writeFile(t, path, removed)
			check("line removed")
			doubled := bytes.Join(append(append([][]byte{}, lines[:i+1]...), lines[i:]...), nil)
			writeFile(t, path, doubled)
			check("line doubled")
			for k := range i {
				swapped := append([][]byte{}, lines...)
				swapped[i], swapped[k] = swapped[k], swapped[i]
				writeFile(t, path, bytes.Join(swapped, nil))
				check("lines swapped")
			}
			writeFile(t, path, bytes.Join(lines[:i], nil))
			check("file cut off")
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		check("file removed")
		writeFile(t, path, orig)
		if n > 0 {
			other := readFile(t, files[n-1])
			writeFile(t, files[n-1], orig)
			writeFile(t, path, other)
			check("files swapped")
			writeFile(t, files[n-1], other)
			writeFile(t, path, orig)
		}
	}
}

// TestRewrittenChainIsFound: somebody changes a line and recomputes every hash
// after it. Only head.json tells.
func TestRewrittenChainIsFound(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, 5, 0)
	path := segmentFiles(t, dir)[0]
	at, out := beginning(), []byte(nil)
	for line := range bytes.Lines(readFile(t, path)) {
		e, err := decode(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			t.Fatal(err)
		}
		if e.Seq == 2 {
			e.Actor.Name = "mallory"
		}
		mid, err := encodeBody(e)
		if err != nil {
			t.Fatal(err)
		}
		out, at = at.appendLine(out, e.ID, e.Boot, e.TS, mid)
	}
	writeFile(t, path, out)
	r := verified(t, dir)
	if r.OK || r.Break.Segment != headFile || !strings.Contains(r.Break.Reason, "line 5") {
		t.Errorf("Verify = %+v (%v), want head.json not to agree on line 5", r, r.Break)
	}
	// What nothing in the directory can tell, and the documentation says so:
	// head.json rewritten as well.
	if err := writeHead(dir, at); err != nil {
		t.Fatal(err)
	}
	if r := verified(t, dir); !r.OK {
		t.Errorf("Verify = %+v: it is better than its documentation says", r)
	}
}

func TestVerifySaysWhere(t *testing.T) {
	dir, files := smallJournal(t)
	data := readFile(t, files[1])
	lines := bytes.SplitAfter(data, []byte("\n"))
	writeFile(t, files[1], bytes.Join(lines[1:], nil))
	r := verified(t, dir)
	if r.OK || r.Break.Segment != filepath.Base(files[1]) || r.Break.Line != 1 || r.Events != r.Break.Seq-1 {
		t.Errorf("Verify = %+v, break %+v; want line 1 of %s", r, r.Break, filepath.Base(files[1]))
	}
	if r.First.IsZero() || r.Last.Before(r.First) {
		t.Errorf("times %v to %v, want those of the good part", r.First, r.Last)
	}
}

func TestVerifyNoJournal(t *testing.T) {
	if r, err := Verify(t.TempDir()); err == nil {
		t.Errorf("Verify of an empty directory = %+v, want an error", r)
	}
	if _, err := Verify(filepath.Join(t.TempDir(), "nowhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Verify of nothing = %v, want fs.ErrNotExist", err)
	}
	dir := t.TempDir()
	if err := mustOpen(t, Config{Dir: dir}).Close(); err != nil {
		t.Fatal(err)
	}
	if r := verified(t, dir); !r.OK || r.Events != 0 {
		t.Errorf("Verify of a journal without events = %+v, want OK", r)
	}
}

// TestVerifyBesideTheServer: what is being written is not a break.
func TestVerifyBesideTheServer(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, Config{Dir: dir, SegmentBytes: 20_000})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 1000 {
			if err := j.Append(t.Context(), sampleEvent(i)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	for {
		if r := verified(t, dir); !r.OK {
			t.Errorf("Verify = %+v: %v", r, r.Break)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

// FuzzSegment holds that no bytes in a segment make Verify or Open panic, that
// Verify accepts nothing that Open refuses, and that whatever Open accepts can
// be written to and is whole afterwards unless Verify saw a break before.
func FuzzSegment(f *testing.F) {
	dir := f.TempDir()
	fill(f, dir, 3, 0)
	good := readFile(f, segmentFiles(f, dir)[0])
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(append(bytes.Clone(good), '\n'))
	f.Add(bytes.Replace(good, []byte("alice"), []byte("alicf"), 1))
	f.Add(bytes.Repeat([]byte{0}, 40000))
	f.Add([]byte(nil))
	mid, err := encodeBody(sampleEvent(0))
	if err != nil {
		f.Fatal(err)
	}
	first := hashOf(bytes.SplitN(good, []byte("\n"), 2)[0])
	f.Fuzz(func(t *testing.T, data []byte) {
		dir := quickDir(t)
		writeFile(t, segmentPath(dir, 1), data)
		if err := writeHead(dir, end{1, first}); err != nil {
			t.Fatal(err)
		}
		before := verified(t, dir)
		j, err := open(Config{Dir: dir}) // no goroutines: the fuzzer wants the same path for the same input
		if err != nil {
			if before.OK {
				t.Fatalf("Verify accepts what Open refuses: %v\n%q", err, data)
			}
			return
		}
		_, err = j.commit(&batch{entries: []entry{{"01jd3k8q9m4s7v2x5z8b1c4f6h", mid}}})
		if err := errors.Join(err, j.f.Close(), j.lock.Close()); err != nil {
			t.Fatal(err)
		}
		if after := verified(t, dir); !after.OK && before.OK {
			t.Fatalf("good before, and after an append %+v\n%q", after.Break, data)
		}
	})
}

// FuzzDecode holds that whatever is taken for an event is written the same way
// again.
func FuzzDecode(f *testing.F) {
	dir := f.TempDir()
	fill(f, dir, 1, 0)
	f.Add(bytes.TrimSuffix(readFile(f, segmentFiles(f, dir)[0]), []byte("\n")))
	f.Add([]byte(`{"v":1}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := decode(line)
		if err != nil {
			return
		}
		if seq, ok := seqOf(line); ok && seq != e.Seq {
			t.Errorf("number %d by the quick look and %d by the decoder in %q", seq, e.Seq, line)
		}
	})
}

// FuzzNames holds that no name breaks a line or its canonical form.
func FuzzNames(f *testing.F) {
	f.Add("alice", "sha256:00")
	f.Add("a\nb\x00\u202e", `"},"prev":"`)
	f.Add(strings.Repeat("\xff", 100), "\u2028<&>")
	f.Fuzz(func(t *testing.T, a, b string) {
		e := sampleEvent(0)
		e.Actor.Name, e.Target.Name, e.Attrs.Image, e.Attrs.GPUs = a, b, a, []string{b}
		mid, err := encodeBody(e)
		if err != nil {
			t.Fatal(err)
		}
		line, at := beginning().appendLine(nil, "01jd3k8q9m4s7v2x5z8b1c4f6h", "boot", sampleTime, mid)
		if n := bytes.Count(line, []byte("\n")); n != 1 {
			t.Fatalf("%d newlines in %q", n, line)
		}
		line = line[:len(line)-1]
		if _, err := decode(line); err != nil {
			t.Errorf("%q: %v", line, err)
		}
		if next, err := beginning().follow(line); err != nil || next != at {
			t.Errorf("%q: follow = %v, %v; want %v", line, next, err, at)
		}
	})
}
