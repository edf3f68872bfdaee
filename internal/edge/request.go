package edge

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/edge/peer"
	"github.com/baileyhq/bailey/internal/mutant"
)

// serve is the first to see a request and the last to see its answer.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	e := &exchange{origins: s.cfg.Origins}
	r = r.WithContext(withExchange(r.Context(), e))
	s.caller(r)
	a := &answer{ResponseWriter: w, rc: http.NewResponseController(w), begin: time.Now(), http1: r.ProtoMajor == 1}
	defer s.finish(a, r)
	if s.cfg.Origins.hsts() {
		setHSTS(a)
	}
	if r.ProtoMajor == 1 && len(r.TransferEncoding) > 0 && !mutant.Smuggling {
		// A chunked request may have carried a Content-Length too (net/http
		// drops it), and a proxy in front may have believed that. So nothing
		// that follows on this connection is read as a request.
		a.Header().Set("Connection", "close")
	}
	if s.cfg.Origins.loopbackAlias(r) && checkTarget(r, true) == nil {
		a.Header().Set("Location", s.cfg.Origins.Console()+r.URL.RequestURI())
		a.WriteHeader(http.StatusPermanentRedirect)
		return
	}
	if s.cfg.Origins.loopbackAPI(r) {
		r.Header.Del("Cookie")
	}
	if ref := s.check(r); ref != nil {
		s.refuse(a, r, ref)
		return
	}
	if r.Body != nil && r.ContentLength != 0 {
		body := newPacedBody(r.Body, a.rc)
		defer body.finish()
		r.Body = body
	}
	s.cfg.Handler.ServeHTTP(a, r)
}

// caller puts who is calling into RemoteAddr, once and for all that follows,
// and takes away what else could be believed about it.
func (s *Server) caller(r *http.Request) {
	if mutant.Address && r.Header.Get("X-Forwarded-For") != "" {
		r.RemoteAddr = strings.TrimSpace(strings.Split(r.Header.Get("X-Forwarded-For"), ",")[0]) + ":0"
	}
	if !s.cfg.Proxies.Empty() {
		if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
			if client := s.cfg.Proxies.Client(ap.Addr(), s.cfg.ProxyHeader, r.Header); client != ap.Addr().Unmap().WithZone("") {
				r.RemoteAddr = netip.AddrPortFrom(client, 0).String()
			}
		}
	}
	peer.Strip(r.Header)
}

// A refusal is a request that no handler will see.
type refusal struct {
	status int
	detail string
	hint   string
}

// check refuses what is ambiguous or not for us, before anyone routes by it.
func (s *Server) check(r *http.Request) *refusal {
	switch r.Method {
	case http.MethodConnect, http.MethodTrace:
		return &refusal{status: http.StatusMethodNotAllowed, detail: "this method is not served here"}
	}
	if hosts := r.Header["Host"]; len(hosts) > 1 || len(hosts) == 1 && hosts[0] != r.Host {
		return &refusal{status: http.StatusBadRequest, detail: "the request names two hosts"}
	}
	_, console, ok := s.cfg.Origins.Match(r)
	if !ok {
		return &refusal{
			status: http.StatusMisdirectedRequest,
			detail: "there is nothing at this address",
			hint:   "open " + s.cfg.Origins.Console(),
		}
	}
	return checkTarget(r, console)
}

// checkTarget looks at the request target as it was sent. Everywhere it must
// be a plain path; on the console, whose routes decide what is done, a path
// must also have one reading only. On a workspace's origin the host alone has
// chosen the workspace, and its path goes there as it is: whatever Jupyter
// makes of %2F, it cannot lead to somebody else.
func checkTarget(r *http.Request, console bool) *refusal {
	target := r.RequestURI
	if target == "" || target[0] != '/' || r.URL.Host != "" || r.URL.Scheme != "" {
		return &refusal{status: http.StatusBadRequest, detail: "the request target must be a path"}
	}
	path, _, _ := strings.Cut(target, "?")
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c == 0x7f || c == '\\' || c == '#' {
			return &refusal{status: http.StatusBadRequest, detail: "the request target has a character that must be encoded"}
		}
	}
	if strings.Contains(path, "%00") {
		return &refusal{status: http.StatusBadRequest, detail: "the path has a NUL character"}
	}
	if console && ambiguous(path) && !mutant.Paths {
		return &refusal{status: http.StatusBadRequest, detail: "the path can be read in more than one way"}
	}
	return nil
}

// ambiguous reports whether two servers could understand a path differently:
// encoded separators and dots, empty and dot segments, parameters.
func ambiguous(path string) bool {
	if strings.ContainsRune(path, ';') {
		return true
	}
	if strings.Contains(path, "%") {
		lower := strings.ToLower(path)
		for _, code := range []string{"%2f", "%5c", "%2e", "%25", "%3b"} {
			if strings.Contains(lower, code) {
				return true
			}
		}
	}
	// The one empty segment there may be is after the last slash.
	for rest := strings.TrimSuffix(path[1:], "/"); rest != ""; {
		segment, more, cut := strings.Cut(rest, "/")
		if segment == "" || segment == "." || segment == ".." || cut && more == "" {
			return true
		}
		rest = more
	}
	return path == "//"
}

// refuse answers a request that no handler sees, and closes the connection:
// who sends such a thing gets no second try on it.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, ref *refusal) {
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
	p := Problem{
		Type: "about:blank", Title: http.StatusText(ref.status), Status: ref.status,
		Detail: ref.detail, Code: bailey.Invalid.String(), Hint: ref.hint, RequestID: RequestID(r),
	}
	if WantsPage(r) {
		WritePage(w, Page{Status: p.Status, Title: p.Title, Detail: p.Detail, Hint: p.Hint, RequestID: p.RequestID})
		return
	}
	WriteProblem(w, p)
}

// finish ends an answer: a panic becomes a 500 and a line in the log, and at
// level debug every request leaves a line without its query, which may hold
// credentials.
func (s *Server) finish(a *answer, r *http.Request) {
	if v := recover(); v != nil {
		if v == http.ErrAbortHandler { //nolint:errorlint // a sentinel that is panicked as it is
			panic(v)
		}
		s.cfg.Log.ErrorContext(r.Context(), "handler panicked",
			slog.String("request_id", RequestID(r)),
			slog.String("path", Printable(r.URL.EscapedPath(), 256)),
			slog.String("panic", Printable(fmt.Sprint(v), 512)),
			slog.String("stack", string(debug.Stack())))
		if a.status != 0 {
			panic(http.ErrAbortHandler) // half an answer must not look whole
		}
		clear(a.Header())
		WriteError(a, r, slog.New(slog.DiscardHandler), bailey.Errorf(bailey.Internal, "panic"))
	}
	a.refreshDeadline()
	if !s.cfg.Log.Enabled(r.Context(), slog.LevelDebug) {
		return
	}
	s.cfg.Log.DebugContext(r.Context(), "request",
		slog.String("request_id", RequestID(r)),
		slog.String("ip", ClientIP(r)),
		slog.String("host", Printable(r.Host, 128)),
		slog.String("method", Printable(r.Method, 16)),
		slog.String("path", Printable(r.URL.EscapedPath(), 256)),
		slog.String("agent", Printable(r.UserAgent(), 128)),
		slog.Int("status", a.status),
		slog.Int64("bytes", a.bytes),
		slog.Duration("took", time.Since(a.begin)))
}
