// Package scan looks for secrets and personal data in what lies still: files,
// notebooks, archives and the history of a repository. It decides what is read
// and as what, where in it a finding stands, and which findings are known
// already; what is a finding is package inspect's judgement.
//
// Values are never kept: a [Finding] says where, and a [Baseline] holds salted
// hashes that are slow to guess.
package scan

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"github.com/baileyhq/bailey/internal/inspect"
	"github.com/baileyhq/bailey/internal/notebook"
)

// whole is the largest text that is read into memory; larger ones are streamed.
const whole = 64 << 20

// Marks say, on the line where a finding begins, that it is none. They count in text and in sources of notebooks, never in outputs.
var Marks = []string{"bailey:allow", "gitleaks:allow"}

// Config says how to look. Only Set must be given.
type Config struct {
	Set      *inspect.Set
	Least    inspect.Mode // the mildest mode that is reported; Unset means Alert
	Binary   bool         // look into files that are no text, too
	Baseline *Baseline    // what is known already; nil means nothing
	// Problem is told what could not be looked at, and why. It may be called
	// concurrently; nil means nobody is told.
	Problem func(name string, err error)
}

// A Finding is a place where a rule matched.
type Finding struct {
	Rule   string       `json:"rule"`
	Mode   inspect.Mode `json:"mode"`
	Path   string       `json:"path"`             // a member of an archive stands behind "!"
	Line   int          `json:"line"`             // of the file, from 1; 0 when unknown
	Column int          `json:"column"`           // in characters, from 1; 0 when unknown
	Cell   int          `json:"cell,omitempty"`   // of a notebook, from 1
	Part   string       `json:"part,omitempty"`   // of the cell: source, output stdout, …
	Commit string       `json:"commit,omitempty"` // the first that has it
	Offset int64        `json:"offset"`           // in bytes; in a notebook from the start of the part
	Length int64        `json:"length"`
	Lane   string       `json:"lane,omitempty"` // how the text had to be read: see package inspect
	Known  bool         `json:"known,omitempty"`

	last int // the line where it ends
}

// A Scanner looks at files. It may be used concurrently.
type Scanner struct {
	cfg Config

	mu      sync.Mutex // guards the rest
	skipped int
	files   int
}

// New returns a Scanner.
func New(cfg Config) (*Scanner, error) {
	if cfg.Set == nil {
		return nil, errors.New("scan: no rules")
	}
	cfg.Least = cmp.Or(cfg.Least, inspect.Alert)
	if cfg.Problem == nil {
		cfg.Problem = func(string, error) {}
	}
	return &Scanner{cfg: cfg}, nil
}

// Counts returns how many files were looked at, members of archives included,
// and how many were left out because they are no text.
func (s *Scanner) Counts() (files, skipped int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files, s.skipped
}

func (s *Scanner) count(files, skipped int) {
	s.mu.Lock()
	s.files += files
	s.skipped += skipped
	s.mu.Unlock()
}

// Paths looks at files and, below directories, at every regular file: links are
// not followed, and .git is left out. What cannot be read is told to Problem.
// The error is ctx's, or that a path does not exist.
func (s *Scanner) Paths(ctx context.Context, paths []string) ([]Finding, error) {
	for _, p := range paths {
		if _, err := os.Stat(p); err != nil {
			return nil, fmt.Errorf("scan: %w", err)
		}
	}
	var (
		mu    sync.Mutex // guards found
		found = map[int][]Finding{}
	)
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	n := 0
	visit := func(name string) {
		i := n
		n++
		g.Go(func() error {
			fs := s.file(gctx, name)
			if len(fs) > 0 {
				mu.Lock()
				found[i] = fs
				mu.Unlock()
			}
			return gctx.Err()
		})
	}
	for _, p := range paths {
		if err := s.walk(gctx, p, visit); err != nil {
			_ = g.Wait() // the same: the context ended
			return nil, err
		}
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var all []Finding
	for i := range n {
		all = append(all, found[i]...)
	}
	return all, nil
}

// walk calls visit for every file below root.
func (s *Scanner) walk(ctx context.Context, root string, visit func(string)) error {
	if info, err := os.Stat(root); err == nil && !info.IsDir() {
		visit(root)
		return ctx.Err()
	}
	// With the slash a link that the person named is followed.
	return filepath.WalkDir(root+string(filepath.Separator), func(name string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			s.cfg.Problem(name, err)
			if d != nil && d.IsDir() {
				return fs.SkipDir
			}
		case d.IsDir():
			if d.Name() == ".git" {
				return fs.SkipDir
			}
		case d.Type().IsRegular():
			visit(name)
		}
		return nil
	})
}

// file looks at one file.
func (s *Scanner) file(ctx context.Context, name string) []Finding {
	f, err := os.Open(name)
	if err != nil {
		s.cfg.Problem(name, err)
		return nil
	}
	defer func() { _ = f.Close() }() // only read
	info, err := f.Stat()
	if err != nil {
		s.cfg.Problem(name, err)
		return nil
	}
	if info.Mode().IsDir() || info.Mode()&(fs.ModeDevice|fs.ModeNamedPipe|fs.ModeSocket) != 0 {
		s.cfg.Problem(name, errors.New("is no regular file; - reads from standard input"))
		return nil
	}
	l := &look{s: s, name: filepath.ToSlash(name), left: newBudget()}
	return l.run(ctx, f, f, info.Size())
}

// Reader looks at one stream, such as standard input.
func (s *Scanner) Reader(ctx context.Context, name string, r io.Reader) ([]Finding, error) {
	l := &look{s: s, name: name, left: newBudget()}
	found := l.run(ctx, r, nil, 0)
	return found, ctx.Err()
}

// A look is at one file, and at what is in it.
type look struct {
	s      *Scanner
	name   string
	depth  int // of archives in archives
	left   *budget
	commit string
}

// run reads r to its end and looks at it. at and size give the same bytes at
// random, where that is possible.
func (l *look) run(ctx context.Context, r io.Reader, at io.ReaderAt, size int64) []Finding {
	buf := bytes.NewBuffer(make([]byte, 0, min(size, whole)+bytes.MinRead))
	if _, err := buf.ReadFrom(io.LimitReader(&patient{ctx, r}, whole+1)); err != nil {
		l.problem(err)
		if ctx.Err() != nil {
			return nil
		}
	}
	head := buf.Bytes()
	if len(head) <= whole {
		return l.content(ctx, head)
	}
	rest := io.MultiReader(bytes.NewReader(head), r)
	switch kind := kindOf(head); kind {
	case kindZip:
		if at == nil {
			l.problem(fmt.Errorf("a zip archive of more than %d MiB is only read from a file", whole>>20))
			return nil
		}
		return l.zip(ctx, at, size)
	case kindGzip, kindBzip2, kindTar:
		return l.unpack(ctx, kind, rest)
	case kindBinary:
		if !l.s.cfg.Binary {
			l.s.count(0, 1)
			return nil
		}
	case kindText, kindUTF16:
	}
	return l.stream(ctx, rest)
}

// A patient reader reads until its context ends.
type patient struct {
	ctx context.Context //nolint:containedctx // io.Reader has no other way, and it lives for one call
	r   io.Reader
}

func (p *patient) Read(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	return p.r.Read(b)
}

func (l *look) problem(err error) { l.s.cfg.Problem(l.name, err) }

// content looks at a whole file in memory.
func (l *look) content(ctx context.Context, data []byte) []Finding {
	switch kind := kindOf(data); kind {
	case kindZip:
		return l.zip(ctx, bytes.NewReader(data), int64(len(data)))
	case kindGzip, kindBzip2, kindTar:
		return l.unpack(ctx, kind, bytes.NewReader(data))
	case kindUTF16:
		data = fromUTF16(data)
	case kindBinary:
		if !l.s.cfg.Binary {
			l.s.count(0, 1)
			return nil
		}
	case kindText:
	}
	l.s.count(1, 0)
	if strings.EqualFold(path.Ext(l.name), ".ipynb") || bytes.HasPrefix(data, []byte("{")) && bytes.Contains(data, []byte(`"nbformat"`)) {
		if parts, err := notebook.Parts(data); err == nil {
			return l.notebook(data, parts)
		} // else it is text like any other
	}
	return l.text(data)
}

func (l *look) config() inspect.ScanConfig {
	return inspect.ScanConfig{Path: l.name, TrustPath: true}
}

// text looks at plain text.
func (l *look) text(data []byte) []Finding {
	var found []Finding
	var lines lineIndex
	for _, f := range l.s.cfg.Set.Scan(l.config(), data) {
		if f.Mode < l.s.cfg.Least || marked(data, f.Offset) {
			continue
		}
		if lines == nil {
			lines = indexLines(data)
		}
		n := l.finding(f, data)
		n.Line, n.Column = lines.at(data, int(f.Offset))
		n.last, _ = lines.at(data, int(f.Offset+max(f.Length, 1)-1))
		found = append(found, n)
	}
	return found
}

// notebook looks at the parts of a notebook.
func (l *look) notebook(data []byte, parts []notebook.Part) []Finding {
	var found []Finding
	lines := indexLines(data)
	for i := range parts {
		p := &parts[i]
		for _, f := range l.s.cfg.Set.Scan(l.config(), p.Text) {
			if f.Mode < l.s.cfg.Least || p.Name == "source" && marked(p.Text, f.Offset) {
				continue
			}
			n := l.finding(f, p.Text)
			n.Cell, n.Part = p.Cell, strings.TrimSpace(p.Name+" "+p.Type)
			n.Line, _ = lines.at(data, p.Offset(int(f.Offset)))
			n.last, _ = lines.at(data, p.Offset(int(f.Offset+max(f.Length, 1)-1)))
			found = append(found, n)
		}
	}
	slices.SortStableFunc(found, func(a, b Finding) int { return cmp.Compare(a.Line, b.Line) })
	return found
}

// finding dresses a finding of package inspect, and asks the baseline. text is
// what f's offset is about, or nil.
func (l *look) finding(f inspect.Finding, text []byte) Finding {
	n := Finding{Rule: f.Rule, Mode: f.Mode, Path: l.name, Commit: l.commit, Offset: f.Offset, Length: f.Length, Lane: f.Lane}
	if b := l.s.cfg.Baseline; b != nil && text != nil {
		n.Known = b.seen(f.Rule, text[f.Offset:f.Offset+f.Length])
		b.note(f.Rule, l.name, text[f.Offset:f.Offset+f.Length])
	}
	return n
}

// marked reports whether the line where a finding begins says that it is none.
func marked(text []byte, offset int64) bool {
	start := bytes.LastIndexByte(text[:offset], '\n') + 1
	line := text[start:]
	if i := bytes.IndexByte(text[offset:], '\n'); i >= 0 {
		line = text[start : int(offset)+i]
	}
	return slices.ContainsFunc(Marks, func(m string) bool { return bytes.Contains(line, []byte(m)) })
}

// lineIndex holds the offsets at which lines begin.
type lineIndex []int

func indexLines(data []byte) lineIndex {
	lines := lineIndex{0}
	for at := 0; ; {
		i := bytes.IndexByte(data[at:], '\n')
		if i < 0 {
			return lines
		}
		at += i + 1
		lines = append(lines, at)
	}
}

// at returns the line and the column, in characters, of an offset.
func (x lineIndex) at(data []byte, offset int) (line, column int) {
	line, exact := slices.BinarySearch(x, offset)
	if exact {
		line++
	}
	return line, 1 + utf8.RuneCount(data[x[line-1]:offset])
}
