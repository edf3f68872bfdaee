package gateway_test

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/inspect"
)

// A disk is a Jupyter server's contents API and /files over a map.
type disk struct {
	mu    sync.Mutex
	files map[string]string
}

var modified = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func (d *disk) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if name, ok := strings.CutPrefix(r.URL.Path, "/files/"); ok {
		w.Header().Set("Etag", `"x"`)
		http.ServeContent(w, r, name, modified, strings.NewReader(d.files[name]))
		return
	}
	name := strings.TrimPrefix(r.URL.Path, "/api/contents/")
	kind, format := "file", "text"
	var content any = d.files[name]
	if strings.HasSuffix(name, ".ipynb") {
		kind, format, content = "notebook", "json", json.RawMessage(d.files[name])
	}
	if r.URL.Query().Get("format") == "base64" {
		kind, format, content = "file", "base64", base64.StdEncoding.EncodeToString([]byte(d.files[name]))
	}
	if r.Method == http.MethodPut {
		var m struct {
			Type, Format string
			Content      json.RawMessage
		}
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		text := string(m.Content)
		if m.Type != "notebook" {
			_ = json.Unmarshal(m.Content, &text)
			if m.Format == "base64" {
				b, _ := base64.StdEncoding.DecodeString(text)
				text = string(b)
			}
		}
		d.files[name] = text
		kind, format, content = m.Type, m.Format, nil
	}
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(map[string]any{"name": name, "path": name, "type": kind, "format": format, "content": content, "writable": true})
}

func (d *disk) read(name string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.files[name]
}

const adaToken = "Authorization: token bly_ada_secret"

// What an editor is shown with a mark in the token's place and saves again is
// the same file: whether it is text, base64 or a notebook, and also when the
// server forgot in between what the mark stands for.
func TestAMaskedFileSavedAgainIsTheSame(t *testing.T) {
	source, _ := json.Marshal("key = '" + aJWT + "'\nuse(key)\n")
	files := map[string]string{
		"a.py":     "# settings\nBearer " + aJWT + "\nemoji 😀 and a tab\t\r\nend",
		"nb.ipynb": `{"cells":[{"cell_type":"code","metadata":{},"outputs":[],"source":` + string(source) + `}],"metadata":{"t":"` + aJWT + `"},"nbformat":4,"nbformat_minor":5}`,
		"plain.md": "nothing here but tokenizers and 1234567890123\n",
	}
	for name, was := range files {
		for _, query := range []string{"?type=file&format=text&content=1", "?format=base64", "?type=notebook"} {
			if strings.HasSuffix(name, ".ipynb") == strings.Contains(query, "format=text") || !strings.HasSuffix(name, ".ipynb") && strings.Contains(query, "notebook") {
				continue
			}
			for _, forget := range []bool{false, true} {
				d := &disk{files: map[string]string{name: was}}
				w, _ := inspectedWorld(t, d, filter.Settings{})
				address := w.origin(adaSlug) + "/api/contents/" + name
				res, shown := w.ask(http.MethodGet, address+query, nil, adaToken)
				if res.StatusCode != http.StatusOK || strings.Contains(shown, aJWT[40:]) {
					t.Fatalf("%s%s: %d %s", name, query, res.StatusCode, shown)
				}
				if name == "a.py" && !strings.Contains(query, "base64") && !strings.Contains(shown, "Bearer [REDACTED:jwt]") {
					t.Errorf("%s shows %s", name, shown)
				}
				if forget { // another start of the gateway: same disk, same key
					w, _ = inspectedWorld(t, d, filter.Settings{})
					address = w.origin(adaSlug) + "/api/contents/" + name
				}
				res, body := w.ask(http.MethodPut, address, strings.NewReader(shown), adaToken, "Content-Type: application/json")
				if res.StatusCode != http.StatusOK || d.read(name) != was {
					t.Errorf("%s%s, forgotten %v: %d %s\non disk %q\nwas     %q", name, query, forget, res.StatusCode, body, d.read(name), was)
				}
			}
		}
	}
}

// A mark that nobody knows the meaning of, or half a mark, is not written over
// the text that it stood for.
func TestAnUnknownMarkIsNotSaved(t *testing.T) {
	d := &disk{files: map[string]string{"a.txt": "precious"}}
	w, _ := inspectedWorld(t, d, filter.Settings{})
	for _, mark := range []string{"[REDACTED:jwt]⟦dlp:0123456789abcdef⟧", "x⟦dlp:0123", "⟦dlp:0123456789abcdef⟧"} {
		body, _ := json.Marshal(map[string]string{"type": "file", "format": "text", "content": mark})
		res, answer := w.ask(http.MethodPut, w.origin(adaSlug)+"/api/contents/a.txt", bytes.NewReader(body), adaToken)
		if res.StatusCode != http.StatusForbidden || d.read("a.txt") != "precious" {
			t.Errorf("%s: %d %s; on disk %q", mark, res.StatusCode, answer, d.read("a.txt"))
		}
	}
}

// A notebook's outputs are masked for good; its code comes back.
func TestNotebookOutputsStayMasked(t *testing.T) {
	d := &disk{files: map[string]string{"n.ipynb": `{"cells":[{"cell_type":"code","source":["k='` + aJWT[:50] + `","` + aJWT[50:] + `'"],"outputs":[{"output_type":"stream","name":"stdout","text":["` + aJWT + `\n"]}]}],"nbformat":4,"nbformat_minor":5}`}}
	w, _ := inspectedWorld(t, d, filter.Settings{})
	_, shown := w.ask(http.MethodGet, w.origin(adaSlug)+"/api/contents/n.ipynb", nil, adaToken)
	_, _ = w.ask(http.MethodPut, w.origin(adaSlug)+"/api/contents/n.ipynb", strings.NewReader(shown), adaToken)
	want := `{"cells":[{"cell_type":"code","source":["k='` + aJWT + `'"],"outputs":[{"output_type":"stream","name":"stdout","text":["[REDACTED:jwt]\n"]}]}],"nbformat":4,"nbformat_minor":5}`
	if got := d.read("n.ipynb"); got != want {
		t.Errorf("on disk %s\nwant    %s", got, want)
	}
}

// A file cannot be fetched in parts that are too small to be seen through, nor
// asked for by what it was.
func TestRangesAreNotServed(t *testing.T) {
	d := &disk{files: map[string]string{"t.txt": "Bearer " + aJWT + "\n"}}
	w, _ := inspectedWorld(t, d, filter.Settings{})
	address := w.origin(adaSlug) + "/files/t.txt"
	for _, h := range []string{"Range: bytes=0-39", "Range: bytes=40-", `If-Range: "x"`, "If-Modified-Since: " + modified.Format(http.TimeFormat)} {
		res, body := w.ask(http.MethodGet, address, nil, adaToken, h)
		if res.StatusCode != http.StatusOK || body != "Bearer [REDACTED:jwt]\n" || res.Header.Get("Etag")+res.Header.Get("Last-Modified")+res.Header.Get("Accept-Ranges") != "" {
			t.Errorf("%s: %d %q %v", h, res.StatusCode, body, res.Header)
		}
	}
	if res, _ := w.ask(http.MethodHead, address, nil, adaToken); res.ContentLength > 0 {
		t.Errorf("HEAD tells the length %d", res.ContentLength)
	}
	partial := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Range", "bytes 0-39/100")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = io.WriteString(w, aJWT[:40])
	})
	w, _ = inspectedWorld(t, partial, filter.Settings{})
	if res, body := w.ask(http.MethodGet, w.origin(adaSlug)+"/files/t.txt", nil, adaToken); res.StatusCode < 500 || strings.Contains(body, "eyJ") {
		t.Errorf("a part nobody asked for: %d %s", res.StatusCode, body)
	}
}

func zipOf(files ...string) []byte {
	var b bytes.Buffer
	zw := zip.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		f, _ := zw.Create(files[i])
		_, _ = io.WriteString(f, files[i+1])
	}
	_ = zw.Close()
	return b.Bytes()
}

func gzipOf(text string) []byte {
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	_, _ = io.WriteString(zw, text)
	_ = zw.Close()
	return b.Bytes()
}

// serve answers everything with a body, under headers "Name: value", one per line.
func serve(header string, body []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for h := range strings.SplitSeq(header, "\n") {
			if name, value, ok := strings.Cut(h, ": "); ok {
				w.Header().Set(name, value)
			}
		}
		_, _ = w.Write(body)
	})
}

// Whatever else a workspace serves is looked at: kernelspec folders, proxied
// ports, compressed answers, headers, streams, archives.
func TestEveryRouteIsLookedAt(t *testing.T) {
	zipped := zipOf("out.md", "see "+aJWT+" end", "img.png", "\x89PNG\r\n\x1a\n\x00\x00")
	utf16 := []byte{0xff, 0xfe}
	for _, c := range "token " + aJWT + "\n" {
		utf16 = append(utf16, byte(c), 0)
	}
	big := strings.Repeat("all work and no play makes jack a dull boy\n", 60_000)
	for _, tt := range []struct {
		name, path, header string
		body               []byte
		status             int
		want               string // in the answer
	}{
		{"a kernelspec's file", "/kernelspecs/python3/logo.svg", "Content-Type: image/svg+xml", []byte("<svg>" + aJWT + "</svg>"), 200, "<svg>[REDACTED:jwt]</svg>"},
		{"a proxied port", "/proxy/8080/", "Content-Type: text/html", []byte("<p>" + aJWT + "</p>"), 200, "<p>[REDACTED:jwt]</p>"},
		{"text under an image's name", "/files/a.png", "Content-Type: image/png", []byte("hello " + aJWT), 200, "hello [REDACTED:jwt]"},
		{"gzip that nobody asked for", "/proxy/1/x", "Content-Encoding: gzip\nContent-Type: text/plain", gzipOf("x " + aJWT + " y"), 200, "x [REDACTED:jwt] y"},
		{"an unknown compression", "/proxy/1/x", "Content-Encoding: br\nContent-Type: text/plain", []byte("????" + aJWT), 503, "cannot be looked into"},
		{"a gzip file", "/files/x.gz", "Content-Type: application/gzip", gzipOf("x " + aJWT + " y"), 403, "archive"},
		{"an archive", "/files/x.zip", "Content-Type: application/zip", zipped, 403, "archive"},
		{"UTF-16", "/files/x.txt", "Content-Type: text/plain", utf16, 200, "["},
		{"JSON", "/api/kernelspecs", "Content-Type: application/json", []byte(`{"env":{"T":"` + aJWT + `"}}`), 200, `{"env":{"T":"[REDACTED:jwt]"}}`},
		{"an event stream", "/proxy/1/events", "Content-Type: text/event-stream", []byte("data: " + aJWT + "\n\n"), 200, "data: [REDACTED:jwt]\n\n"},
		{"a long text", "/files/long.txt", "Content-Type: text/plain", []byte(big + aJWT + "\n" + big), 200, "boy\n[REDACTED:jwt]\nall"},
		{"a download's name", "/proxy/1/d", "Content-Disposition: attachment; filename=\"" + aJWT + "\"", []byte("ok ok ok ok"), 200, "ok ok ok ok"},
		{"PDF", "/nbconvert/pdf/n.ipynb", "", nil, 403, "pdf"},
		{"a room's history", "/api/collaboration/timeline/x", "", []byte(aJWT), 403, "collaboration"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w, _ := inspectedWorld(t, serve(tt.header, tt.body), filter.Settings{})
			res, body := w.ask(http.MethodGet, w.origin(adaSlug)+tt.path, nil, adaToken)
			if res.StatusCode != tt.status || !strings.Contains(body, tt.want) {
				t.Errorf("%d %.300q, want %d with %q", res.StatusCode, body, tt.status, tt.want)
			}
			all := fmt.Sprint(res.Header) + body + strings.ReplaceAll(body, "\x00", "")
			if strings.Contains(all, aJWT) {
				t.Errorf("the token leaves: %.300q %v", body, res.Header)
			}
			if res.Header.Get("Content-Encoding") != "" {
				t.Errorf("Content-Encoding: %s", res.Header.Get("Content-Encoding"))
			}
		})
	}
	w, _ := inspectedWorld(t, serve("Content-Type: application/zip", zipped), filter.Settings{})
	_, body := w.ask(http.MethodGet, w.origin(adaSlug)+"/nbconvert/markdown/n.ipynb?download=true", nil, adaToken)
	zr, err := zip.NewReader(strings.NewReader(body), int64(len(body)))
	if err != nil {
		t.Fatalf("an export with several files: %v %.200q", err, body)
	}
	var got []string
	for _, f := range zr.File {
		r, _ := f.Open()
		b, _ := io.ReadAll(r)
		got = append(got, f.Name+" "+string(b))
	}
	if want := []string{"out.md see [REDACTED:jwt] end", "img.png \x89PNG\r\n\x1a\n\x00\x00"}; !slices.Equal(got, want) {
		t.Errorf("the export holds %q, want %q", got, want)
	}
}

// A small answer that unpacks to much costs one buffer, and an archive that
// does is refused.
func TestBombs(t *testing.T) {
	for _, tt := range []struct {
		header       string
		size, status int
	}{{"Content-Type: application/gzip", 300 << 20, 403}, {"Content-Encoding: gzip", 20 << 20, 200}} {
		w, _ := inspectedWorld(t, serve(tt.header, gzipOf(strings.Repeat("\x00", tt.size))), filter.Settings{})
		res, body := w.ask(http.MethodGet, w.origin(adaSlug)+"/files/bomb", nil, adaToken)
		if res.StatusCode != tt.status || tt.status == 200 && len(body) != tt.size {
			t.Errorf("%s: %d with %d bytes", tt.header, res.StatusCode, len(body))
		}
	}
}

// Static files whose name has a hash in it are the image's and pass as they are.
func TestOnlyHashedAssetsPassUnseen(t *testing.T) {
	w, _ := inspectedWorld(t, serve("Content-Type: text/javascript", []byte("var a='"+aJWT+"'")), filter.Settings{})
	for path, passes := range map[string]bool{
		"/static/lab/main.8d5afbb02e6c4d11.js":        true,
		"/static/lab/vendors-x_y.8d5afbb02e.js":       true,
		"/static/lab/main.js":                         false,
		"/files/main.8d5afbb02e6c4d11.js":             false,
		"/static/..%2ffiles/main.8d5afbb02e6c4d11.js": false,
		"/kernelspecs/static/lab.8d5afbb02e6c4d11.js": false,
	} {
		_, body := w.ask(http.MethodGet, w.origin(adaSlug)+path, nil, adaToken)
		if got := strings.Contains(body, aJWT); got != passes {
			t.Errorf("%s passes unseen: %v, want %v", path, got, passes)
		}
	}
}

// A rule that blocks refuses a download with the reason, and an upload.
func TestBlockedFiles(t *testing.T) {
	d := &disk{files: map[string]string{"t.txt": "Bearer " + aJWT + "\n"}}
	w, found := inspectedWorld(t, d, filter.Settings{Rules: map[string]inspect.Mode{"jwt": inspect.Block}})
	for _, path := range []string{"/files/t.txt", "/api/contents/t.txt"} {
		res, body := w.ask(http.MethodGet, w.origin(adaSlug)+path, nil, adaToken)
		if res.StatusCode != http.StatusForbidden || !strings.Contains(body, "rule jwt") || strings.Contains(body, "eyJ") {
			t.Errorf("%s: %d %s", path, res.StatusCode, body)
		}
	}
	body, _ := json.Marshal(map[string]string{"type": "file", "format": "text", "content": aJWT})
	if res, _ := w.ask(http.MethodPut, w.origin(adaSlug)+"/api/contents/t.txt", bytes.NewReader(body), adaToken); res.StatusCode != http.StatusForbidden {
		t.Errorf("an upload: %d", res.StatusCode)
	}
	if res, _ := w.ask(http.MethodPost, w.origin(adaSlug)+"/proxy/8000/x", strings.NewReader(aJWT), adaToken); res.StatusCode < 400 {
		t.Errorf("a POST: %d", res.StatusCode)
	}
	if !slices.Contains(found.rules(), "jwt") {
		t.Errorf("findings = %v", found.rules())
	}
}
