package load_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/baileyhq/bailey/e2e/bench/load"
)

func none() error { return nil }

func addr(s *httptest.Server) string { return s.Listener.Addr().String() }

func TestRunCountsWhatWasAnswered(t *testing.T) {
	var served atomic.Int64
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "a.localhost" || r.Header.Get("Cookie") != "c=1" {
			http.Error(w, "not as asked", http.StatusBadRequest)
			return
		}
		served.Add(1)
		_, _ = io.WriteString(w, "hello")
	}))
	defer s.Close()
	l := load.HTTP{
		Addr: addr(s), TLS: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}, Host: "a.localhost",
		Path: "/x", Header: map[string]string{"Cookie": "c=1"}, Want: 5, Conns: 4,
	}
	var (
		began, ended bool
		w            load.Window
		err          error
	)
	length := 50 * time.Millisecond
	for ; length < time.Minute; length *= 2 { // a busy machine shakes no hands in so short a time
		w, err = l.Run(t.Context(), 0, length, func() error { began = true; return nil }, func() error { ended = true; return nil })
		if err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if w.Requests < 1 || w.Requests > served.Load() || int(w.Requests) != len(w.Latencies) || w.Elapsed < length {
		t.Errorf("%d requests with %d latencies in %v, of %d that were served", w.Requests, len(w.Latencies), w.Elapsed, served.Load())
	}
	if !began || !ended {
		t.Errorf("begin called %v, end called %v, want both", began, ended)
	}
}

func TestRunRefusesToCountRefusals(t *testing.T) {
	tests := []struct {
		name string
		h    http.HandlerFunc
		want string
	}{
		{"another status", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) }, "403"},
		{"another body", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "short") }, "5 bytes, want 1024"},
		{"no length", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "a"); w.(http.Flusher).Flush() }, "no Content-Length"},
		{"no keep-alive", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") }, "keep the connection"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := httptest.NewServer(tt.h)
			defer s.Close()
			l := load.HTTP{Addr: addr(s), Host: "x", Path: "/", Want: 1024, Conns: 2}
			_, err := l.Run(t.Context(), 0, time.Minute, none, none)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want one about %q", err, tt.want)
			}
		})
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	quiet := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-quiet }))
	defer s.Close()
	defer close(quiet)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := (load.HTTP{Addr: addr(s), Host: "x", Path: "/", Conns: 1}).Run(ctx, time.Minute, time.Minute, none, none); err == nil {
		t.Error("a server that never answers was measured")
	}
}

func TestStreamsWantHTTP2(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
	two := httptest.NewUnstartedServer(h)
	two.EnableHTTP2 = true
	two.StartTLS()
	defer two.Close()
	one := httptest.NewTLSServer(h)
	defer one.Close()
	for _, s := range []*httptest.Server{two, one} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		var w load.Window
		for length := 20 * time.Millisecond; length < time.Minute; length *= 2 { // a busy machine answers nobody in so short a time
			w, err = load.Streams(t.Context(), s.Client(), r, 3, 0, length, none, none)
			if s == one || err == nil {
				break
			}
		}
		if s == two && (err != nil || w.Requests < 1) {
			t.Errorf("over HTTP/2: %d requests, %v", w.Requests, err)
		}
		if s == one && err == nil {
			t.Error("HTTP/1.1 was counted as HTTP/2")
		}
	}
}

func TestIdleSocketsAreProved(t *testing.T) {
	var open atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		open.Add(1)
		defer open.Add(-1)
		defer c.CloseNow()
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, bytes.Replace(b, []byte("stdin"), []byte("stdout"), 1)) != nil {
				return
			}
		}
	}))
	defer s.Close()
	sockets := load.Sockets{Addr: addr(s), URL: "ws://a.localhost/ws", N: 40}
	idle, err := sockets.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := open.Load(); got != 40 {
		t.Errorf("%d sockets are open, want 40", got)
	}
	if err := idle.Alive(t.Context()); err != nil {
		t.Error(err)
	}
	waits, err := sockets.Type(t.Context(), "twelve bytes", 3, time.Millisecond)
	if err != nil || len(waits) != 4 || waits[0] <= 0 {
		t.Errorf("Type = %v, %v; want four waits", waits, err)
	}
	waits, err = sockets.Tell(t.Context(), []string{"one\n", "and two\n", "three\n"}, time.Millisecond)
	if err != nil || len(waits) != 3 || waits[0] <= 0 {
		t.Errorf("Tell = %v, %v; want three waits", waits, err)
	}
	idle.Close()
	if err := idle.Alive(t.Context()); err == nil {
		t.Error("closed sockets are alive")
	}
	s.Close()
	if _, err := sockets.Open(t.Context()); err == nil {
		t.Error("sockets were opened to a server that is gone")
	}
}
