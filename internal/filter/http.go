package filter

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"mime"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/baileyhq/bailey/internal/inspect"
	"github.com/baileyhq/bailey/internal/jupyter"
)

// Bounds of what is looked into whole.
const (
	// MaxWhole is the largest body that is taken apart: a notebook, a file in
	// the editor, an archive.
	MaxWhole = 64 << 20
	// maxUnpacked is how much an archive may unpack to.
	maxUnpacked = 256 << 20
	maxEntries  = 4096
	maxJSON     = 8 << 20 // larger JSON of unknown shape is looked at as text
	sniffed     = 4 << 10
)

// An Exchange is one HTTP request and its answer under inspection. It is not
// safe for concurrent use.
type Exchange struct {
	scope  *Scope
	route  Route
	method string
	path   string // within Jupyter, decoded
	file   string // the path of the file it is about, from /workspace
	view   *view
}

// hashed are static files with a hash in their name: they are the image's, not
// a user's, and the browser keeps them by that name.
var hashed = regexp.MustCompile(`^/(?:static|lab/extensions|nbextensions)/[\w@./+%~-]*[.-][0-9a-f]{8,64}\.(?:js|mjs|css|map|woff2?|ttf|eot|svg|png|wasm)$`)

// Exchange returns the inspection of a request. p is the decoded path.
func (s *Scope) Exchange(method, p string) *Exchange {
	e := &Exchange{scope: s, method: method, path: p, route: Page, view: s.view()}
	clean := path.Clean("/" + p)
	if rest, ok := strings.CutPrefix(clean, "/api/contents"); ok && (rest == "" || rest[0] == '/') {
		e.route, e.file = Contents, rest
		for _, tail := range []string{"/checkpoints", "/trust"} {
			if i := strings.LastIndex(rest, tail); i >= 0 && (rest[i+len(tail):] == "" || rest[i+len(tail)] == '/') && i > 0 {
				e.file = rest[:i]
			}
		}
	} else if rest, ok := strings.CutPrefix(clean, "/nbconvert/"); ok {
		_, file, _ := strings.Cut(rest, "/")
		e.route, e.file = Convert, "/"+file
	} else if rest, ok := strings.CutPrefix(clean, "/files/"); ok {
		e.route, e.file = Files, "/"+rest
	}
	if e.file != "" {
		e.file = "/workspace" + e.file
	}
	return e
}

// Static reports whether the answer is a file of the image that is known by its
// hash, and need not be looked at.
func (e *Exchange) Static() bool {
	return (e.method == "GET" || e.method == "HEAD") && hashed.MatchString(e.path) && path.Clean(e.path) == e.path
}

// Refused returns why the request may not be made at all; nil when it may.
func (e *Exchange) Refused() *Refusal {
	if e.route == Convert {
		switch format, _, _ := strings.Cut(strings.TrimPrefix(path.Clean("/"+e.path), "/nbconvert/"), "/"); format {
		case "pdf", "webpdf", "qtpdf", "qtpng":
			return &Refusal{Reason: "a notebook as " + format + " cannot be looked into; export it as HTML and print that"}
		}
	}
	return nil
}

func (e *Exchange) way(input bool) way {
	return way{scope: e.scope, route: e.route, input: input, path: e.file}
}

// Whole reports whether request bodies must be read whole, which takes the
// editor's placeholders out of files that are saved.
func (e *Exchange) Whole() bool {
	return e.route == Contents && (e.method == "PUT" || e.method == "POST" || e.method == "PATCH")
}

// Request judges a whole request body and returns what goes on. The error is a
// *Refusal.
func (e *Exchange) Request(body []byte) (_ []byte, err error) {
	w := e.way(true)
	var out []byte
	err = w.guarded(func() (err error) {
		if out, err = e.request(w, body); err != nil {
			return err
		}
		return nil
	})
	if err != nil {
		return nil, w.refusal(err)
	}
	return out, nil
}

func (e *Exchange) request(w way, body []byte) ([]byte, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return body, nil
	}
	m, err := jupyter.ParseModel(body)
	if err != nil {
		return nil, err
	}
	look := func(_ jupyter.Place, text []byte) ([]byte, error) {
		if e.view.settings.TrustInput {
			return text, nil
		}
		return w.text(e.view, text)
	}
	masked := e.view.settings.Sources == MaskSources
	changed := false
	put := func(p jupyter.Place, text []byte) ([]byte, error) {
		if _, err := look(p, text); err != nil {
			return nil, err
		}
		if masked && !p.Output && bytes.Contains(text, maskMark) {
			return nil, &Refusal{Reason: "this file was shown with masks; saving it would lose what they stand for"}
		}
		got, err := e.scope.restore(text)
		changed = changed || err == nil && !bytes.Equal(got, text)
		return got, err
	}
	out, err := m.Append(make([]byte, 0, len(body)+256), look, func(dst, raw []byte) ([]byte, error) {
		return e.content(dst, raw, m, put, func(data []byte) ([]byte, error) {
			if !isText(data) {
				return data, nil
			}
			return put(jupyter.Place{}, data)
		})
	})
	if err != nil || !changed {
		return body, err
	}
	return out, nil
}

// content rewrites the content of a model by its type and format.
func (e *Exchange) content(dst, raw []byte, m jupyter.Model, text jupyter.Visit, data func([]byte) ([]byte, error)) ([]byte, error) {
	encoded, isString := jupyter.String(raw)
	switch {
	case m.Type == "notebook" && !isString:
		return jupyter.RewriteNotebook(dst, raw, text)
	case m.Format == "base64" && isString:
		b, err := base64.StdEncoding.DecodeString(strings.NewReplacer("\n", "", "\r", "").Replace(encoded))
		if err != nil {
			return nil, fmt.Errorf("%w: content that is not base64", jupyter.ErrMalformed)
		}
		got, err := data(b)
		if err != nil {
			return nil, err
		}
		if bytes.Equal(got, b) {
			return jupyter.Quote(dst, []byte(encoded)), nil
		}
		return jupyter.Quote(dst, []byte(base64.StdEncoding.EncodeToString(got))), nil
	}
	return jupyter.Copy(dst, raw, text)
}

// Incoming returns a stream that looks at a request body without changing it;
// nil when nobody asked for that.
func (e *Exchange) Incoming() *Body {
	if e.view.settings.TrustInput {
		return nil
	}
	w := e.way(true)
	return &Body{way: w, stream: w.stream(e.view, inspect.Document, 0, 0), keep: true}
}

// An Answer says how a body is to be looked at.
type Answer uint8

// The ways.
const (
	AsWhole  Answer = iota // read whole, at most MaxWhole, and given to Whole
	AsStream               // given to a Body piece by piece
)

// Plan decides how an answer is looked at, from its declared type and its first
// bytes.
func (e *Exchange) Plan(contentType string, head []byte, length int64) Answer {
	kind, _, _ := mime.ParseMediaType(contentType)
	switch {
	case e.route == Contents, e.route == Convert:
		return AsWhole
	case isArchive(head):
		if length <= MaxWhole {
			return AsWhole
		}
		e.scope.filter.cfg.Report(Finding{Subject: e.scope.subject, Route: e.route, Sampled: length})
	case isUTF16(head), strings.HasSuffix(e.path, ".ipynb"):
		if length >= 0 && length <= MaxWhole {
			return AsWhole
		}
	case kind == "application/json" && length >= 0 && length <= maxJSON:
		return AsWhole
	}
	return AsStream
}

func isArchive(b []byte) bool {
	return bytes.HasPrefix(b, []byte("PK\x03\x04")) || bytes.HasPrefix(b, []byte{0x1f, 0x8b, 8})
}

func isUTF16(b []byte) bool {
	return bytes.HasPrefix(b, []byte{0xff, 0xfe}) || bytes.HasPrefix(b, []byte{0xfe, 0xff})
}

// AnswerWhole judges a whole answer and returns what the client gets. The error is a
// *Refusal.
func (e *Exchange) AnswerWhole(contentType string, body []byte) ([]byte, error) {
	w := e.way(false)
	var out []byte
	err := w.guarded(func() (err error) {
		out, err = e.whole(w, contentType, body)
		return err
	})
	if err != nil {
		return nil, w.refusal(err)
	}
	return out, nil
}

func (e *Exchange) whole(w way, contentType string, body []byte) ([]byte, error) {
	kind, _, _ := mime.ParseMediaType(contentType)
	visit := w.visit(e.view)
	switch {
	case len(body) == 0:
		return body, nil
	case e.route == Contents && kind == "application/json" && bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")):
		return e.model(w, body)
	case isArchive(body):
		return e.archive(w, body)
	case isUTF16(body):
		return w.utf16(e.view, body)
	case jupyter.IsNotebook(body):
		return jupyter.RewriteNotebook(make([]byte, 0, len(body)), body, visit)
	case kind == "application/json" && jupyter.Valid(body) == nil:
		if w.quiet(e.view, body) {
			return body, nil
		}
		return jupyter.Copy(make([]byte, 0, len(body)), body, visit)
	case isText(body) || isTextType(kind):
		return w.text(e.view, body)
	}
	return w.binary(e.view, body), nil
}

// model rewrites a model of the contents API for the editor.
func (e *Exchange) model(w way, body []byte) ([]byte, error) {
	m, err := jupyter.ParseModel(body)
	if err != nil {
		return nil, err
	}
	if m.Content == nil || m.Type == "directory" {
		if w.quiet(e.view, body) {
			return body, nil // no lists of it are joined
		}
	}
	visit := w.visit(e.view)
	edited := func(p jupyter.Place, text []byte) ([]byte, error) {
		if p.Output {
			return visit(p, text)
		}
		return w.source(e.view, text)
	}
	if m.Type == "directory" {
		edited = visit // names of what is in it
	}
	return m.Append(make([]byte, 0, len(body)+256), visit, func(dst, raw []byte) ([]byte, error) {
		return e.content(dst, raw, m, edited, func(data []byte) ([]byte, error) {
			switch {
			case isText(data):
				return w.source(e.view, data)
			case isUTF16(data):
				out, err := w.utf16(e.view, data)
				if err == nil && !bytes.Equal(out, data) {
					return nil, &Refusal{Reason: "this file holds what may not leave the workspace, in UTF-16, which the editor could not save again"}
				}
				return out, err
			case isArchive(data):
				return e.archive(w, data)
			}
			return w.binary(e.view, data), nil
		})
	})
}

// utf16 looks at text in UTF-16, and writes it in UTF-16 again.
func (w way) utf16(v *view, b []byte) ([]byte, error) {
	var order interface {
		binary.ByteOrder
		binary.AppendByteOrder
	} = binary.LittleEndian
	if b[0] == 0xfe {
		order = binary.BigEndian
	}
	units := make([]uint16, 0, len(b)/2)
	for i := 2; i+1 < len(b); i += 2 {
		units = append(units, order.Uint16(b[i:]))
	}
	text := []byte(string(utf16.Decode(units)))
	got, err := w.text(v, text)
	if err != nil || bytes.Equal(got, text) {
		return b, err
	}
	out := slices.Clone(b[:2])
	for _, u := range utf16.Encode([]rune(string(got))) {
		out = order.AppendUint16(out, u)
	}
	return out, nil
}

// archive looks into a zip or gzip file. An export that we find something in is
// packed again without it; any other archive is refused, since what is inside
// may be checked by sums that we cannot mend.
func (e *Exchange) archive(w way, b []byte) ([]byte, error) {
	if b[0] == 0x1f {
		data, err := unpack(func() (io.ReadCloser, error) { return gzip.NewReader(bytes.NewReader(b)) }, maxUnpacked)
		if err != nil {
			return nil, err
		}
		return b, w.unchanged(e.view, data)
	}
	zr, err := zip.NewReader(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return w.binary(e.view, b), nil //nolint:nilerr // no archive after all, for any reader
	}
	if len(zr.File) > maxEntries {
		return nil, &Refusal{Reason: fmt.Sprintf("an archive of more than %d files cannot be looked into", maxEntries)}
	}
	var out bytes.Buffer
	zw := zip.NewWriter(&out)
	left, changed := int64(maxUnpacked), false
	for _, f := range zr.File {
		if name, err := w.text(e.view, []byte(f.Name)); err != nil || string(name) != f.Name {
			return nil, &Refusal{Reason: "a name in this archive holds what may not leave the workspace"}
		}
		data, err := unpack(f.Open, left)
		if err != nil {
			return nil, err
		}
		left -= int64(len(data))
		got := data
		switch {
		case e.route != Convert || isArchive(data):
			err = w.unchanged(e.view, data)
		case jupyter.IsNotebook(data):
			got, err = jupyter.RewriteNotebook(nil, data, w.visit(e.view))
			changed = changed || !bytes.Equal(got, data)
		case isText(data):
			got, err = w.text(e.view, data)
			changed = changed || !bytes.Equal(got, data)
		default:
			err = w.unchanged(e.view, data)
		}
		if err != nil {
			return nil, err
		}
		to, err := zw.CreateHeader(&zip.FileHeader{Name: f.Name, Method: zip.Deflate, Modified: f.Modified})
		if err != nil {
			return nil, err
		}
		if _, err := to.Write(got); err != nil {
			return nil, err
		}
	}
	if err := zw.Close(); err != nil {
		return nil, err
	}
	// Bytes that no entry accounts for would pass unseen; the new archive has none.
	if changed || e.route == Convert {
		return out.Bytes(), nil
	}
	return w.binary(e.view, b), nil
}

// unchanged refuses data that would have to be changed.
func (w way) unchanged(v *view, data []byte) error {
	var got []byte
	var err error
	if isText(data) {
		got, err = w.text(v, data)
	} else {
		got = w.binary(v, data)
	}
	if err == nil && !bytes.Equal(got, data) {
		err = &Refusal{Reason: "this archive holds what may not leave the workspace; download the files themselves"}
	}
	return err
}

// unpack reads what an archive holds, up to a limit.
func unpack(open func() (io.ReadCloser, error), limit int64) ([]byte, error) {
	r, err := open()
	if err != nil {
		return nil, &Refusal{Reason: "this archive cannot be unpacked, so it cannot be looked into"}
	}
	defer func() { _ = r.Close() }()
	data, err := io.ReadAll(io.LimitReader(r, limit+1))
	if int64(len(data)) > limit {
		return nil, &Refusal{Reason: fmt.Sprintf("this archive unpacks to more than %d MiB, which is not looked into", maxUnpacked>>20)}
	}
	if err != nil {
		return nil, &Refusal{Reason: "this archive cannot be unpacked, so it cannot be looked into"}
	}
	return data, nil
}

func isTextType(kind string) bool {
	return strings.HasPrefix(kind, "text/") || strings.HasSuffix(kind, "json") || strings.HasSuffix(kind, "xml") || strings.HasSuffix(kind, "javascript")
}

// A Body is an answer, or a request, that is looked at piece by piece. It is
// not safe for concurrent use.
type Body struct {
	way    way
	stream *inspect.Stream
	keep   bool // what passes is not changed
	ended  bool
	failed *Refusal
}

// Stream returns the Body of an answer. Text is masked in it; in what is no
// text known secrets end it.
func (e *Exchange) Stream(contentType string, head []byte, interactive bool) *Body {
	w := e.way(false)
	kind, _, _ := mime.ParseMediaType(contentType)
	how := inspect.Document
	if interactive {
		how = inspect.Batch
	}
	if isText(head) || isTextType(kind) || len(head) < shortest {
		return &Body{way: w, stream: w.stream(e.view, how, 0, 0)}
	}
	cfg := inspect.StreamConfig{
		Set:        e.view.ends,
		ScanConfig: w.scan(e.view, inspect.Document),
		Report:     func(f inspect.Finding) { w.report(f, false) },
	}
	return &Body{way: w, stream: inspect.NewStream(cfg)}
}

// Write takes the next piece and appends to dst what may pass. The error is a
// *Refusal, and stays.
func (b *Body) Write(dst, p []byte) ([]byte, error) {
	return b.do(dst, p, func(dst []byte) ([]byte, error) { return b.stream.Write(dst, p) })
}

// Held reports whether something waits.
func (b *Body) Held() bool { return !b.keep && b.stream.Held() > 0 }

// Tick appends to dst what has waited long enough.
func (b *Body) Tick(dst []byte) ([]byte, error) {
	return b.do(dst, nil, b.stream.Tick)
}

// Close appends the rest to dst. It may be called again, to no effect.
func (b *Body) Close(dst []byte) ([]byte, error) {
	if b.ended {
		return dst, nil
	}
	b.ended = true
	out, err := b.do(dst, nil, b.stream.Close)
	if n := b.stream.Sampled(); n > 0 && err == nil {
		b.way.scope.filter.cfg.Report(Finding{Subject: b.way.scope.subject, Route: b.way.route, Input: b.way.input, Sampled: n})
	}
	return out, err
}

func (b *Body) do(dst, p []byte, f func([]byte) ([]byte, error)) ([]byte, error) {
	if b.failed != nil {
		return dst, b.failed
	}
	out := dst
	err := b.way.guarded(func() (err error) {
		if b.keep {
			_, err = f(nil)
			out = append(out, p...)
			return err
		}
		out, err = f(dst)
		return err
	})
	if err != nil {
		b.failed = b.way.refusal(err)
		return out[:min(len(out), len(dst))], b.failed
	}
	return out, nil
}

// AnswerSmall is AnswerWhole or Stream, as Plan would have it, for an answer that
// is here as a whole. What it returns may be body itself. The error is a
// *Refusal.
func (e *Exchange) AnswerSmall(contentType string, body []byte) ([]byte, error) {
	if e.Plan(contentType, body[:min(len(body), sniffed)], int64(len(body))) == AsWhole {
		return e.AnswerWhole(contentType, body)
	}
	w := e.way(false)
	var out []byte
	err := w.guarded(func() (err error) {
		kind, _, _ := mime.ParseMediaType(contentType)
		if isText(body) || isTextType(kind) || len(body) < shortest {
			out, err = w.text(e.view, body)
			return err
		}
		out = body
		for _, f := range e.view.ends.Scan(w.scan(e.view, inspect.Document), body) {
			w.report(f, false)
			if f.Mode == inspect.Block {
				return &inspect.BlockedError{Rule: f.Rule, Offset: f.Offset}
			}
		}
		return nil
	})
	if err != nil {
		return nil, w.refusal(err)
	}
	return out, nil
}

// Headers makes the header of an answer fit to pass: names and values. A cookie
// in which something is masked is not set at all: half of it is no use, and what
// a page would keep of it comes back with every request.
func (e *Exchange) Headers(h map[string][]string) error {
	w := e.way(false)
	quiet := false
	err := w.guarded(func() error {
		s := scratches.Get().(*scratch)
		defer s.free()
		all := s.text[:0]
		for name, values := range h {
			all = append(append(all, name...), '\n')
			for _, v := range values {
				all = append(append(all, v...), '\n')
			}
		}
		s.text = all
		quiet = bytes.IndexByte(all, '%') < 0 && w.quiet(e.view, all)
		return nil
	})
	if err != nil {
		return w.refusal(err)
	}
	if quiet {
		return nil
	}
	for name, values := range h {
		if got, err := e.Header(name); err != nil {
			return err
		} else if got != name {
			delete(h, name)
			continue
		}
		kept := values[:0]
		for _, v := range values {
			got, err := e.Header(v)
			if err != nil {
				return err
			}
			if name != "Set-Cookie" || got == v {
				kept = append(kept, got)
			}
		}
		if h[name] = kept; len(kept) == 0 {
			delete(h, name)
		}
	}
	return nil
}

// Header returns the value of an answer's header as it may pass.
func (e *Exchange) Header(value string) (string, error) {
	w := e.way(false)
	var out []byte
	err := w.guarded(func() (err error) {
		text := value
		if plain, err := url.PathUnescape(value); err == nil {
			text = plain
		}
		if out, err = w.text(e.view, []byte(text)); err == nil && string(out) == text {
			out = []byte(value)
		}
		return err
	})
	if err != nil {
		return "", w.refusal(err)
	}
	if string(out) != value { // it was unescaped: a line end would begin another header
		for i, c := range out {
			if c < ' ' || c == 0x7f {
				out[i] = ' '
			}
		}
	}
	return string(out), nil
}
