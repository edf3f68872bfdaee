// Command backend stands in for Jupyter behind a proxy that is measured: every
// path answers 200 with a small body, and an upgrade is a WebSocket that echoes: at
// the path of a terminal as a terminal would.
//
// As the python3 of a workspace's venv it takes Jupyter's place inside a real
// workspace: the agent starts it with Jupyter's arguments, of which it obeys the
// address. A tenant may do the same; nothing outside depends on it.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// marker is the header by which the bench knows that it is this that answers.
const marker = "X-Bench-Backend"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "backend:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	network, addr, ok := jupyterAddr(args)
	if !ok {
		if len(args) == 0 || args[0] != "-network" {
			return nil // called as python3 for something else, a self-check say
		}
		fs := flag.NewFlagSet("backend", flag.ContinueOnError)
		fs.StringVar(&network, "network", "tcp", "tcp or unix; must come first")
		fs.StringVar(&addr, "addr", "127.0.0.1:0", "where to listen")
		if err := fs.Parse(args); err != nil {
			return err
		}
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(context.Background(), network, addr)
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr()) // the bench reads where it is
	s := &http.Server{Handler: handler(), ReadHeaderTimeout: 10 * time.Second}
	if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// jupyterAddr finds the address in a Jupyter server's arguments.
func jupyterAddr(args []string) (network, addr string, ok bool) {
	var ip, port string
	for _, a := range args {
		if v, found := strings.CutPrefix(a, "--ServerApp.ip="); found {
			ip = v
		}
		if v, found := strings.CutPrefix(a, "--ServerApp.port="); found {
			port = v
		}
	}
	return "tcp", net.JoinHostPort(ip, port), port != ""
}

// handler answers as little as Jupyter's clients, and the server that looks
// after it, can live with.
func handler() http.Handler {
	body := []byte(`{"pad":"` + strings.Repeat("x", 1024-10) + `"}`)
	mux := http.NewServeMux()
	fixed := func(b []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
				echo(w, r, strings.Contains(r.URL.Path, "/terminals/websocket/"))
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set(marker, "1")
			_, _ = w.Write(b)
		}
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/api/kernels"), strings.HasSuffix(r.URL.Path, "/api/terminals"):
			fixed([]byte("[]"))(w, r)
		case strings.HasSuffix(r.URL.Path, "/api/status"):
			fixed([]byte(`{"connections":0,"kernels":0,"last_activity":"2026-01-01T00:00:00Z","started":"2026-01-01T00:00:00Z"}`))(w, r)
		default:
			fixed(body)(w, r)
		}
	})
	return mux
}

// echo sends back what comes; as a terminal, what was typed as what it prints.
func echo(w http.ResponseWriter, r *http.Request, terminal bool) {
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{InsecureSkipVerify: true}) // who may ask is the proxy's question
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		kind, b, err := c.Read(r.Context())
		if err != nil {
			return
		}
		if rest, typed := bytes.CutPrefix(b, []byte(`["stdin",`)); typed && terminal {
			b = append([]byte(`["stdout",`), rest...)
		}
		if c.Write(r.Context(), kind, b) != nil {
			return
		}
	}
}
