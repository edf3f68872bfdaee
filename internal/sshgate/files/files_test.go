package files

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/inspect"
	"github.com/baileyhq/bailey/internal/sshlive"
)

// A notebook notes what it is told; the filter looks at nothing.
type notebook struct {
	scope  *filter.Scope
	events []string
}

func newNotebook(tb testing.TB) func() *notebook {
	tb.Helper()
	set, err := inspect.Compile(inspect.Config{})
	if err != nil {
		tb.Fatal(err)
	}
	f, err := filter.New(filter.Config{Rules: set, Report: func(filter.Finding) {}})
	if err != nil {
		tb.Fatal(err)
	}
	scope := f.For(filter.Subject{UserID: "u", WorkspaceID: "w"}, nil)
	return func() *notebook { return &notebook{scope: scope} }
}

func (n *notebook) Pipe(input bool, path string) *filter.Pipe {
	return n.scope.Pipe(filter.SSH, input, filter.Unseen, 0, path)
}

func (n *notebook) Event(e sshlive.Event) {
	n.events = append(n.events, fmt.Sprint(e.Kind, " ", e.Path, " ", e.To, " ", e.Size, " ", e.Up, " ", e.OK))
}

func (*notebook) Refused(*filter.Refusal) {}

func packet(kind byte, fields ...any) []byte {
	body := []byte{kind}
	for _, f := range fields {
		switch v := f.(type) {
		case int:
			body = binary.BigEndian.AppendUint32(body, uint32(v))
		case uint64:
			body = binary.BigEndian.AppendUint64(body, v)
		case string:
			body = append(binary.BigEndian.AppendUint32(body, uint32(len(v))), v...)
		}
	}
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// A step is what one side sends.
type step struct {
	up   bool
	data []byte
}

// story is a file that is written and read, a link, and a rename.
func story() []step {
	up, down := true, false
	return []step{
		{up, packet(1, 3)},
		{down, packet(2, 3)},
		{up, packet(sftpOpen, 1, "/workspace/a", 26, 0)},
		{down, packet(sftpHandle, 1, "h1")},
		{up, packet(sftpWrite, 2, "h1", uint64(0), strings.Repeat("x", 5000))},
		{down, packet(sftpStatus, 2, 0, "ok", "")},
		{up, packet(sftpRead, 3, "h1", uint64(0), 4096)},
		{down, packet(sftpData, 3, strings.Repeat("y", 4096))},
		{up, packet(sftpClose, 4, "h1")},
		{down, packet(sftpStatus, 4, 0, "ok", "")},
		{up, packet(sftpSymlink, 5, "a", "/workspace/link")},
		{down, packet(sftpStatus, 5, 0, "ok", "")},
		{up, packet(sftpExtended, 6, "posix-rename@openssh.com", "/workspace/a", "/workspace/b")},
		{down, packet(sftpStatus, 6, 4, "no", "")},
	}
}

// turns cuts what both sides send into steps, one after the other's.
func turns(up, down []byte, each int) (steps []step) {
	for len(up)+len(down) > 0 {
		n, m := min(each, len(up)), min(each, len(down))
		steps = append(steps, step{true, up[:n]}, step{false, down[:m]})
		up, down = up[n:], down[m:]
	}
	return steps
}

// play feeds steps in pieces of so many bytes.
func play(w *Watch, steps []step, piece int) error {
	for _, s := range steps {
		feed := w.Down
		if s.up {
			feed = w.Up
		}
		for len(s.data) > 0 {
			k := min(piece, len(s.data))
			if err := feed(s.data[:k]); err != nil {
				return err
			}
			s.data = s.data[k:]
		}
	}
	return nil
}

func TestWhatIsSeen(t *testing.T) {
	fresh := newNotebook(t)
	want := []string{
		"sftp.read /workspace/a  4096 false true", "sftp.write /workspace/a  5000 true true",
		"sftp.link a /workspace/link 0 true true", "sftp.rename /workspace/a /workspace/b 0 true false",
	}
	for _, piece := range []int{1, 7, 1 << 20} {
		n := fresh()
		w := New(n)
		if err := play(w, story(), piece); err != nil {
			t.Errorf("in pieces of %d: %v", piece, err)
		}
		w.Close()
		if strings.Join(n.events, "\n") != strings.Join(want, "\n") {
			t.Errorf("in pieces of %d it is seen as\n%s\nwant\n%s", piece, strings.Join(n.events, "\n"), strings.Join(want, "\n"))
		}
	}
}

// What is no SFTP, or more questions and files than anybody has, ends the session
// instead of filling the server's memory.
func TestWhatIsNoSFTP(t *testing.T) {
	fresh := newNotebook(t)
	var questions []byte
	for i := range sftpMaxPending + 1 {
		questions = append(questions, packet(sftpRemove, i, "x")...)
	}
	w := New(fresh())
	var err error
	for i := 0; i <= sftpMaxHandles && err == nil; i++ {
		if err = w.Up(packet(sftpOpen, i, "x", 1, 0)); err == nil {
			err = w.Down(packet(sftpHandle, i, fmt.Sprint(i)))
		}
	}
	if !errors.Is(err, ErrProtocol) {
		t.Errorf("more files than anybody opens: %v", err)
	}
	for name, up := range map[string][]byte{
		"an empty packet":      {0, 0, 0, 0},
		"a packet of 4 GiB":    {255, 255, 255, 255, 1},
		"a cut path":           {0, 0, 0, 9, sftpRemove, 0, 0, 0, 1, 0, 0, 1, 0},
		"a handle of 1 KiB":    packet(sftpWrite, 1, strings.Repeat("h", 2000), uint64(0), "x")[:1500],
		"too many questions":   questions,
		"a shell's prompt":     []byte("bash-5.2$ "),
		"a packet that is cut": {0, 0, 0, 2, sftpOpen, 0},
	} {
		if err := play(New(fresh()), []step{{true, up}}, 1<<20); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: %v, want a refusal", name, err)
		}
	}
}

// FuzzWatch feeds what anybody may send, both ways: it neither fails nor keeps
// more than its bounds, and sees the same however the bytes are cut.
func FuzzWatch(f *testing.F) {
	var up, down []byte
	for _, s := range story() {
		if s.up {
			up = append(up, s.data...)
		} else {
			down = append(down, s.data...)
		}
	}
	f.Add(up, down, uint16(21), uint8(3))
	f.Add([]byte{0, 0, 0, 5, sftpWrite, 0, 0, 0, 1}, []byte{0, 0, 0, 9, sftpData, 0, 0, 0, 1, 0, 0, 0, 0}, uint16(9), uint8(1))
	fresh := newNotebook(f)
	f.Fuzz(func(t *testing.T, up, down []byte, turn uint16, piece uint8) {
		whole, cut := fresh(), fresh()
		steps := turns(up, down, int(turn)+1)
		w := New(whole)
		a, b := play(w, steps, 1<<20), play(New(cut), steps, int(piece)+1)
		if (a == nil) != (b == nil) {
			t.Fatalf("whole: %v, in pieces of %d: %v", a, int(piece)+1, b)
		}
		if strings.Join(whole.events, "\n") != strings.Join(cut.events, "\n") {
			t.Fatalf("whole it is seen as %q, in pieces of %d as %q", whole.events, int(piece)+1, cut.events)
		}
		if len(w.in.head) > sftpHead || len(w.out.head) > sftpHead || len(w.pending) > sftpMaxPending || len(w.files) > sftpMaxHandles {
			t.Fatalf("it keeps %d and %d bytes, %d questions, %d files", len(w.in.head), len(w.out.head), len(w.pending), len(w.files))
		}
	})
}
