package edge

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A pipeListener hands out connections made of pipes, whose deadlines follow a
// bubble's clock.
type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	select {
	case <-l.done:
	default:
		close(l.done)
	}
	return nil
}

func (*pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8443} }

// A bubble is a test in a bubble and a way to connect to its server, with TLS.
type bubble struct {
	*testing.T
	dial func() *tls.Conn
}

// inBubble serves h in a bubble, to f.
func inBubble(t *testing.T, h http.HandlerFunc, f func(bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		later := func() time.Time { return time.Now().AddDate(30, 0, 0) } // a bubble's clock begins in 2000
		certs := ownCA(t, CertConfig{Now: later})
		ln := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
		s, err := NewServer(t.Context(), ServerConfig{
			Listener: ln, Handler: h, Certs: certs, Origins: origins(t, OriginConfig{Mode: "localhost", Port: 8443}),
		})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() { done <- s.Serve() }()
		f(bubble{t, func() *tls.Conn {
			client, server := net.Pipe()
			ln.conns <- server
			c := tls.Client(client, &tls.Config{RootCAs: poolOf(t, certs), ServerName: "localhost", Time: later})
			if err := c.HandshakeContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			return c
		}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := errors.Join(s.Shutdown(ctx), <-done); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		time.Sleep(2 * time.Hour) // clients that still send notice
		synctest.Wait()
	})
}

const head = "HTTP/1.1\r\nHost: localhost:8443\r\n"

func TestSlowHeadersAreCutOff(t *testing.T) {
	inBubble(t, echo, func(t bubble) {
		c, begin := t.dial(), time.Now()
		defer c.Close()
		go func() {
			for range 100 {
				if _, err := io.WriteString(c, "G"); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		}()
		_, _ = io.ReadAll(c)
		if took := time.Since(begin); took > headerTimeout+time.Second {
			t.Errorf("a client that sends one byte a second was heard for %v, want %v", took, headerTimeout)
		}
	})
}

func TestSilentConnectionsAreCutOff(t *testing.T) {
	inBubble(t, echo, func(t bubble) {
		c := t.dial()
		defer c.Close()
		_, _ = io.WriteString(c, "GET / "+head+"\r\n")
		begin := time.Now()
		_, _ = io.ReadAll(c)
		if took := time.Since(begin); took > idleTimeout+time.Second {
			t.Errorf("an idle connection was kept for %v, want %v", took, idleTimeout)
		}
	})
}

// upload sends a body of chunks, one per interval, and returns what the
// handler made of it and when.
func upload(t bubble, chunk, chunks int, interval time.Duration) (answer string, took time.Duration) {
	t.Helper()
	c := t.dial()
	defer c.Close()
	begin := time.Now()
	go func() {
		fmt.Fprintf(c, "POST / %sContent-Length: %d\r\n\r\n", head, chunk*chunks)
		for range chunks {
			time.Sleep(interval)
			if _, err := c.Write(make([]byte, chunk)); err != nil {
				return
			}
		}
	}()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("no answer after %v: %v", time.Since(begin), err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	return string(body), time.Since(begin)
}

func TestUploadsMayBeLongButNotSlow(t *testing.T) {
	count := func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%d %v", n, errors.Is(err, os.ErrDeadlineExceeded))
	}
	inBubble(t, count, func(t bubble) {
		if got, took := upload(t, 2<<10, 3600, time.Second); got != "7372800 false" || took < time.Hour {
			t.Errorf("an hour at 2 KiB/s = %s after %v, want all of it", got, took)
		}
		got, took := upload(t, 1, 3600, time.Second)
		if !strings.HasSuffix(got, " true") || took > 2*time.Minute {
			t.Errorf("1 byte a second = %s after %v, want a time-out within two minutes", got, took)
		}
		got, took = upload(t, 100<<10, 2, 61*time.Second)
		if !strings.HasSuffix(got, " true") || took > 2*time.Minute {
			t.Errorf("a minute of silence = %s after %v, want a time-out", got, took)
		}
	})
}

// While a workspace is slow to take an upload, the client is not to blame.
func TestSlowHandlersDoNotCountAsSlowClients(t *testing.T) {
	slow := func(w http.ResponseWriter, r *http.Request) {
		n := 0
		buf := make([]byte, 1024)
		for {
			m, err := r.Body.Read(buf)
			if n += m; err != nil {
				fmt.Fprintf(w, "%d %v", n, errors.Is(err, os.ErrDeadlineExceeded))
				return
			}
			time.Sleep(30 * time.Second)
		}
	}
	inBubble(t, slow, func(t bubble) {
		if got, _ := upload(t, 16<<10, 4, 0); got != "65536 false" {
			t.Errorf("upload to a slow handler = %s, want all of it", got)
		}
	})
}

// A handler may answer long after it has read the body.
func TestDeadlineOfABodyEndsWithTheBody(t *testing.T) {
	late := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		time.Sleep(time.Hour)
		fmt.Fprintf(w, "%v", r.Context().Err())
	}
	inBubble(t, late, func(t bubble) {
		if got, _ := upload(t, 10, 1, 0); got != "<nil>" {
			t.Errorf("request's context an hour after its body = %s, want it alive", got)
		}
	})
}

// A body that nobody wants and that never comes holds nothing for long.
func TestUnreadBodyIsNotWaitedForLong(t *testing.T) {
	inBubble(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }, func(t bubble) {
		c, begin := t.dial(), time.Now()
		defer c.Close()
		go fmt.Fprintf(c, "POST / %sContent-Length: 1000\r\n\r\n", head)
		_, _ = io.ReadAll(c)
		if took := time.Since(begin); took > 2*lateTime {
			t.Errorf("the connection was kept for %v", took)
		}
	})
}

func TestClientsThatTakeNothingAreGivenUp(t *testing.T) {
	var ended chan error
	inBubble(t, func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 32<<10)); err != nil {
				ended <- err
				return
			}
		}
	}, func(t bubble) {
		ended = make(chan error, 1) // of the bubble, so that waiting on it lets time pass
		c, begin := t.dial(), time.Now()
		defer c.Close()
		_, _ = io.WriteString(c, "GET / "+head+"\r\n")
		err := <-ended
		if took := time.Since(begin); took > stallTime+10*time.Second || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a stalled answer ended after %v with %v, want a time-out after %v", took, err, stallTime)
		}
	})
}

// An answer may be quiet for hours, as event streams are.
func TestQuietAnswersLive(t *testing.T) {
	inBubble(t, func(w http.ResponseWriter, _ *http.Request) {
		for range 3 {
			fmt.Fprintln(w, "event")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(3 * time.Hour)
		}
	}, func(t bubble) {
		c := t.dial()
		defer c.Close()
		go func() { _, _ = io.WriteString(c, "GET / "+head+"\r\n") }()
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if string(body) != "event\nevent\nevent\n" || err != nil {
			t.Errorf("nine hours of events = %q, %v", body, err)
		}
	})
}

// A connection that a handler took over has no deadlines of ours.
func TestHijackedConnectionsAreLeftAlone(t *testing.T) {
	late := func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		go func() {
			time.Sleep(3 * time.Hour)
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
			_ = conn.Close()
		}()
	}
	inBubble(t, late, func(t bubble) {
		c := t.dial()
		defer c.Close()
		go func() { _, _ = io.WriteString(c, "GET / "+head+"\r\n") }()
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("three hours after the hijacking: %v", err)
		}
		_ = res.Body.Close()
	})
}
