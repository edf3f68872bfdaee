package gateway

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// A scripted Jupyter answers each connection by a script: one answer for each request,
// raw. After the last one it closes.
type scripted struct {
	*upstream
	dials atomic.Int32
	asked chan string // method and path of what arrived
}

func newScripted(t *testing.T, scripts ...[]string) *scripted {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	j := &scripted{asked: make(chan string, 100)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, script := range scripts {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			br := bufio.NewReader(c)
			for _, answer := range script {
				r, err := http.ReadRequest(br)
				if err != nil {
					break
				}
				_, _ = io.Copy(io.Discard, r.Body)
				j.asked <- r.Method + " " + r.URL.Path
				_, _ = io.WriteString(c, answer)
			}
			_ = c.Close()
		}
	}()
	j.upstream = newUpstream(func(ctx context.Context) (net.Conn, error) {
		j.dials.Add(1)
		var d net.Dialer
		return d.DialContext(ctx, "unix", ln.Addr().String())
	})
	t.Cleanup(func() {
		j.close()
		_ = ln.Close()
		<-done
	})
	return j
}

// ask sends one request and returns the status and the body, or an error.
func (j *scripted) ask(t *testing.T, method, path, body string) (string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://jupyter"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body == "" {
		r.Body, r.GetBody = nil, nil
	}
	res, err := j.RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	return fmt.Sprintf("%d %s", res.StatusCode, b), err
}

func answer(body string) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

func TestAnUpstreamConnectionIsUsedAgain(t *testing.T) {
	j := newScripted(t, []string{
		answer("one"), "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ntwo\r\n0\r\nX-Late: trailer\r\n\r\n", answer("three"),
	})
	for i, want := range []string{"200 one", "204 ", "200 ", "200 two", "200 three"} {
		method := http.MethodGet
		if i == 2 {
			method = http.MethodHead
		}
		if got, err := j.ask(t, method, "/", ""); err != nil || got != want {
			t.Errorf("answer %d = %q, %v; want %q", i, got, err, want)
		}
	}
	if n := j.dials.Load(); n != 1 {
		t.Errorf("%d connections for requests one after the other, want 1", n)
	}
}

func TestAKeptConnectionThatJupyterClosed(t *testing.T) {
	for _, tt := range []struct{ method, want string }{
		{http.MethodGet, "200 again"}, {http.MethodDelete, "200 again"},
	} {
		// The first connection ends after one answer, seen or not seen before
		// the next request takes it: either way the next one has a new one.
		j := newScripted(t, []string{answer("once")}, []string{answer("again")})
		if got, err := j.ask(t, http.MethodGet, "/", ""); err != nil || got != "200 once" {
			t.Fatalf("answer = %q, %v", got, err)
		}
		for j.idle[0].quiet() { // its end is on the way
			continue
		}
		if got, err := j.ask(t, tt.method, "/", ""); err != nil || got != tt.want {
			t.Errorf("%s = %q, %v; want %q", tt.method, got, err, tt.want)
		}
	}
}

// A connection that breaks after the request was sent may have done what it
// asked: GET is sent again, DELETE is not.
func TestOnlyWhatMayBeAskedTwiceIs(t *testing.T) {
	for _, tt := range []struct {
		method string
		want   string
	}{{http.MethodGet, "200 again"}, {http.MethodDelete, ""}} {
		j := newScripted(t, []string{answer("once"), ""}, []string{answer("again")})
		if got, err := j.ask(t, http.MethodGet, "/", ""); err != nil || got != "200 once" {
			t.Fatalf("answer = %q, %v", got, err)
		}
		got, err := j.ask(t, tt.method, "/x", "")
		if got != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%s = %q, %v; want %q", tt.method, got, err, tt.want)
		}
	}
}

// A workspace answers more than it was asked for, so that the rest is taken for
// the answer to somebody's next request.
func TestBytesThatNobodyAskedForAreNoAnswer(t *testing.T) {
	for _, more := range []string{answer("forged"), "x"} {
		j := newScripted(t, []string{answer("one") + more}, []string{answer("two")})
		if got, err := j.ask(t, http.MethodGet, "/1", ""); err != nil || got != "200 one" {
			t.Fatalf("answer = %q, %v", got, err)
		}
		if got, err := j.ask(t, http.MethodGet, "/2", ""); err != nil || got != "200 two" {
			t.Errorf("after %q the next answer = %q, %v; want one of a new connection", more, got, err)
		}
	}
	// The same, a moment later: the connection is idle already.
	here, there := socketPair(t)
	c := newConn(here, nil)
	if !c.quiet() {
		t.Error("a silent connection counts as one that spoke")
	}
	if _, err := io.WriteString(there, "H"); err != nil {
		t.Fatal(err)
	}
	if c.quiet() {
		t.Error("a connection with bytes that nobody asked for would be used")
	}
}

func TestHostileAnswers(t *testing.T) {
	for name, tt := range map[string]struct{ raw, want string }{
		"header without end":          {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxUpstreamHeader), "too long"},
		"informational without end":   {strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 50), "without end"},
		"an upgrade nobody asked for": {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", ""},
		"no HTTP":                     {"SSH-2.0-OpenSSH_9.2\r\n", "malformed"},
		"two lengths":                 {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "Content-Length"},
		"nothing":                     {"", "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			j := newScripted(t, []string{tt.raw})
			got, err := j.ask(t, http.MethodGet, "/", "")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("answer = %.60q, %v; want an error with %q", got, err, tt.want)
			}
			if len(j.idle) != 0 {
				t.Error("the connection is kept")
			}
		})
	}
	j := newScripted(t, []string{"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + answer("late")})
	if got, err := j.ask(t, http.MethodGet, "/", ""); err != nil || got != "200 late" {
		t.Errorf("after one informational answer = %q, %v", got, err)
	}
}

func TestARequestThatIsGivenUp(t *testing.T) {
	here, there := socketPair(t)
	u := newUpstream(func(context.Context) (net.Conn, error) { return here, nil })
	gone := errors.New("the session has ended")
	ctx, cancel := context.WithCancelCause(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://jupyter/", nil)
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() {
		_, err := u.RoundTrip(r) //nolint:bodyclose // there is none
		result <- err
	}()
	if _, err := http.ReadRequest(bufio.NewReader(there)); err != nil {
		t.Fatal(err)
	}
	cancel(gone)
	if err := <-result; !errors.Is(err, gone) {
		t.Errorf("error = %v, want the cause", err)
	}
	if _, err := there.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the connection is still open: %v", err)
	}
}

// What a browser leaves in the middle is not read to its end by anybody else.
func TestAHalfReadAnswerEndsItsConnection(t *testing.T) {
	j := newScripted(t, []string{answer(strings.Repeat("x", 1<<20))}, []string{answer("fresh")})
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://jupyter/", nil)
	res, err := j.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(res.Body, make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if got, err := j.ask(t, http.MethodGet, "/", ""); err != nil || got != "200 fresh" {
		t.Errorf("the next answer = %.40q, %v", got, err)
	}
}

func TestARequestWithABody(t *testing.T) {
	j := newScripted(t, []string{answer("stored")})
	if got, err := j.ask(t, http.MethodPut, "/api/contents/a", string(bytes.Repeat([]byte("x"), 1<<20))); err != nil || got != "200 stored" {
		t.Errorf("PUT = %.40q, %v", got, err)
	}
}

func socketPair(t *testing.T) (here, there net.Conn) {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	if here, err = net.Dial("unix", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if there, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = here.Close(), there.Close() })
	return here, there
}
