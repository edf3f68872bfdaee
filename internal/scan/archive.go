package scan

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"unicode/utf16"
)

// Limits of archives. What lies beyond them is told to Problem.
const (
	maxDepth   = 3       // archives in archives
	maxMembers = 200_000 // of one file, whatever the depth
	maxBytes   = 4 << 30 // unpacked, of one file, whatever the depth
)

// ErrTooMuch is told to Problem for an archive whose end was not reached.
var ErrTooMuch = errors.New("archive not wholly looked at")

// A budget is what may still be unpacked of one file.
type budget struct {
	bytes   int64
	members int
}

func newBudget() *budget { return &budget{bytes: maxBytes, members: maxMembers} }

// reader returns r, ending with an error when the budget is spent.
func (b *budget) reader(r io.Reader) io.Reader { return &budgetReader{b, r} }

type budgetReader struct {
	b *budget
	r io.Reader
}

func (r *budgetReader) Read(p []byte) (int, error) {
	if r.b.bytes <= 0 {
		return 0, fmt.Errorf("%w: more than %d GiB unpacked", ErrTooMuch, int64(maxBytes)>>30)
	}
	n, err := r.r.Read(p)
	r.b.bytes -= int64(n)
	return n, err
}

// sniff is how many bytes tell what a file is.
const sniff = 8192

type kind int

const (
	kindText kind = iota
	kindUTF16
	kindBinary
	kindZip
	kindGzip
	kindBzip2
	kindTar
)

// kindOf tells what a file is by its first bytes.
func kindOf(data []byte) kind {
	head := data[:min(len(data), sniff)]
	switch {
	case bytes.HasPrefix(head, []byte("PK\x03\x04")), bytes.HasPrefix(head, []byte("PK\x05\x06")):
		return kindZip
	case bytes.HasPrefix(head, []byte("\x1f\x8b\x08")):
		return kindGzip
	case bytes.HasPrefix(head, []byte("BZh")) && len(head) > 10 && bytes.Equal(head[4:10], []byte("1AY&SY")):
		return kindBzip2
	case len(head) > 262 && string(head[257:262]) == "ustar":
		return kindTar
	case looksUTF16(head):
		return kindUTF16
	case bytes.IndexByte(head, 0) >= 0:
		return kindBinary
	}
	return kindText
}

// looksUTF16 reports whether head begins with a byte order mark, or has a zero
// in every other byte, as plain text in UTF-16 has.
func looksUTF16(head []byte) bool {
	if len(head) < 4 || bytes.HasPrefix(head, []byte{0xff, 0xfe, 0, 0}) {
		return false
	}
	if head[0] == 0xff && head[1] == 0xfe || head[0] == 0xfe && head[1] == 0xff {
		return true
	}
	var zero [2]int
	for i, c := range head {
		if c == 0 {
			zero[i%2]++
		}
	}
	half := len(head) / 2
	return zero[0] == 0 && zero[1] > half*9/10 || zero[1] == 0 && zero[0] > half*9/10
}

// fromUTF16 returns the text in UTF-8.
func fromUTF16(data []byte) []byte {
	var order binary.ByteOrder = binary.LittleEndian
	if data[0] == 0xfe && data[1] == 0xff || data[0] == 0 {
		order = binary.BigEndian
	}
	units := make([]uint16, len(data)/2)
	for i := range units {
		units[i] = order.Uint16(data[2*i:])
	}
	if len(units) > 0 && units[0] == 0xfeff {
		units = units[1:]
	}
	return []byte(string(utf16.Decode(units)))
}

// inside returns the look at a member.
func (l *look) inside(member string) *look {
	return &look{s: l.s, name: l.name + "!" + member, depth: l.depth + 1, left: l.left, commit: l.commit}
}

// member looks at one file of an archive, and reports whether to go on.
func (l *look) member(ctx context.Context, name string, r io.Reader) ([]Finding, bool) {
	if l.left.members--; l.left.members < 0 {
		l.problem(fmt.Errorf("%w: more than %d members", ErrTooMuch, maxMembers))
		return nil, false
	}
	in := l.inside(name)
	if in.depth > maxDepth {
		in.problem(fmt.Errorf("%w: archives nest deeper than %d", ErrTooMuch, maxDepth))
		return nil, true
	}
	found := in.run(ctx, l.left.reader(r), nil, 0)
	return found, l.left.bytes > 0 && ctx.Err() == nil
}

// zip looks at the members of a zip archive: wheels, jars, office documents and
// NumPy's npz are such, too.
func (l *look) zip(ctx context.Context, at io.ReaderAt, size int64) []Finding {
	z, err := zip.NewReader(at, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // nothing is written anywhere
		l.problem(fmt.Errorf("read the zip archive: %w", err))
		return nil
	}
	var found []Finding
	for _, f := range z.File {
		if f.FileInfo().IsDir() {
			continue
		}
		if f.Flags&1 != 0 {
			l.inside(f.Name).problem(errors.New("is encrypted"))
			continue
		}
		r, err := f.Open()
		if err != nil {
			l.inside(f.Name).problem(err)
			continue
		}
		more, ok := l.member(ctx, f.Name, r)
		_ = r.Close() // read to its end or given up
		found = append(found, more...)
		if !ok {
			break
		}
	}
	return found
}

// unpack looks at what a compressed file or a tar archive holds.
func (l *look) unpack(ctx context.Context, kind kind, r io.Reader) []Finding {
	inner := strings.TrimSuffix(path.Base(l.name), path.Ext(l.name))
	switch kind {
	case kindGzip:
		z, err := gzip.NewReader(r)
		if err != nil {
			l.problem(fmt.Errorf("unpack: %w", err))
			return nil
		}
		found, _ := l.member(ctx, inner, z)
		return found
	case kindBzip2:
		found, _ := l.member(ctx, inner, bzip2.NewReader(r))
		return found
	case kindTar:
		return l.tar(ctx, tar.NewReader(r))
	case kindText, kindUTF16, kindBinary, kindZip:
	}
	return nil
}

func (l *look) tar(ctx context.Context, t *tar.Reader) []Finding {
	var found []Finding
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			l.problem(fmt.Errorf("read the tar archive: %w", err))
			return found
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		more, ok := l.member(ctx, h.Name, t)
		found = append(found, more...)
		if !ok {
			return found
		}
	}
}
