// Package enginetest has what tests of and with engines need: [Fake], an
// engine in memory that behaves like Docker in everything [engine.Engine]
// promises and can be made to fail, and [Run], the conformance suite that both
// the fake and the real engines pass.
package enginetest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/baileyhq/bailey/internal/engine"
)

// A DialCall says what somebody wants to be connected to.
type DialCall struct {
	Run     string
	Owner   string
	UID     int
	Network string
	Addr    string
}

// A DialFunc is what answers inside a fake workspace. It owns conn and closes
// it; returning without having read anything is how "nothing listens" looks.
type DialFunc func(call DialCall, conn net.Conn)

// An ExecCall is a command that somebody runs in a fake workspace.
type ExecCall struct {
	Status engine.Status
	Spec   engine.ExecSpec
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer                  // the same as Stdout when Spec.TTY
	Size   func() (cols, rows uint16) // of the terminal, now
	Hangup <-chan struct{}            // closed when the session or the container ends
}

// An ExecFunc is the program that runs; it returns the exit code.
type ExecFunc func(call ExecCall) int

// HTTP returns a DialFunc that serves h on Jupyter's address and nothing
// elsewhere.
func HTTP(h http.Handler) DialFunc {
	return func(call DialCall, conn net.Conn) {
		if call.Network != "tcp" || call.Addr != engine.JupyterAddr {
			_ = conn.Close() // a connection in memory: never fails
			return
		}
		ServeHTTP(h, conn)
	}
}

// ServeHTTP serves one connection and returns when it is closed or hijacked.
func ServeHTTP(h http.Handler, conn net.Conn) {
	done := make(chan struct{})
	var once sync.Once
	srv := &http.Server{ //nolint:gosec // in memory, for tests: no slow strangers
		Handler: h,
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed || state == http.StateHijacked {
				once.Do(func() { close(done) })
			}
		},
	}
	l := &oneListener{conn: make(chan net.Conn, 1), done: done}
	l.conn <- conn
	_ = srv.Serve(l) // ends with the listener
}

// oneListener accepts one connection and then waits until it is over.
type oneListener struct {
	conn chan net.Conn
	done chan struct{}
}

func (l *oneListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.done:
		return nil, io.EOF
	}
}

func (l *oneListener) Close() error   { return nil }
func (l *oneListener) Addr() net.Addr { return addr(engine.JupyterAddr) }

// Tools is an ExecFunc with the few commands the conformance suite uses, told
// apart by their first word: "print TEXT", "warn TEXT" (to standard error),
// "cat", "exit N", "env NAME", "pwd", "whoami" (the uid), "size" (columns and
// rows of the terminal, after each line read) and "hang".
func Tools(call ExecCall) int {
	arg := ""
	if len(call.Spec.Cmd) > 1 {
		arg = call.Spec.Cmd[1]
	}
	switch call.Spec.Cmd[0] {
	case "print":
		_, _ = fmt.Fprintln(call.Stdout, arg) // the reader may be gone
	case "warn":
		_, _ = fmt.Fprintln(call.Stderr, arg)
	case "cat":
		_, _ = io.Copy(call.Stdout, call.Stdin)
	case "exit":
		code := 0
		_, _ = fmt.Sscan(arg, &code)
		return code
	case "env":
		for _, kv := range call.Spec.Env {
			if name, value, _ := strings.Cut(kv, "="); name == arg {
				_, _ = fmt.Fprintln(call.Stdout, value)
			}
		}
	case "pwd":
		dir := call.Spec.Dir
		if dir == "" {
			dir = engine.HomeDir
		}
		_, _ = fmt.Fprintln(call.Stdout, dir)
	case "size":
		one := make([]byte, 1)
		for {
			if n, err := call.Stdin.Read(one); n == 0 || err != nil {
				return 0
			}
			if one[0] == '\n' {
				cols, rows := call.Size()
				_, _ = fmt.Fprintf(call.Stdout, "%d %d\n", rows, cols)
			}
		}
	case "hang":
		<-call.Hangup
		return 129
	default:
		_, _ = fmt.Fprintf(call.Stderr, "%s: not found\n", call.Spec.Cmd[0])
		return 127
	}
	return 0
}
