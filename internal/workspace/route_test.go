package workspace_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/workspace"
)

// TestStaleRoute: a route ends with its run. It does not reach the next run of
// the same workspace, let alone somebody else's.
func TestStaleRoute(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws := w.launch(w.alice, "one", "small")
		stale, err := w.workspaces.Route(t.Context(), w.alice, ws.Slug)
		if err != nil {
			t.Fatal(err)
		}
		conn, err := stale.Dial(t.Context(), "tcp", workspace.JupyterAddr)
		if err != nil {
			t.Fatalf("Dial while it runs: %v", err)
		}
		select {
		case <-stale.Done():
			t.Error("Done is closed while it runs")
		default:
		}
		if _, err := w.workspaces.Stop(t.Context(), w.alice, ws.ID); err != nil {
			t.Fatal(err)
		}
		select {
		case <-stale.Done():
		default:
			t.Error("Done is open after the stop")
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
			t.Errorf("a connection of before reads %v", err)
		}
		dials := w.engine.Calls("Dial")
		_, err = stale.Dial(t.Context(), "tcp", workspace.JupyterAddr)
		wantKind(t, "Dial after the stop", err, bailey.Unavailable, "open it again")

		again := w.launch(w.alice, "one", "")
		after := w.engine.Calls("Dial")
		_, err = stale.Dial(t.Context(), "tcp", workspace.JupyterAddr)
		wantKind(t, "Dial when the next run is up", err, bailey.Unavailable)
		if w.engine.Calls("Dial") != after || dials == 0 {
			t.Error("the stale route reached the engine")
		}
		fresh, err := w.workspaces.Route(t.Context(), w.alice, ws.Slug)
		if err != nil || fresh.Token == stale.Token || fresh.Workspace.RunID != again.RunID {
			t.Errorf("the next run's route: %+v, %v; want another token and run %s", fresh.Workspace, err, again.RunID)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestRouteLeadsToLoopbackOnly, whatever somebody makes of the address.
func TestRouteLeadsToLoopbackOnly(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws := w.launch(w.alice, "one", "small")
		route, err := w.workspaces.Route(t.Context(), w.alice, ws.Slug)
		if err != nil {
			t.Fatal(err)
		}
		dials := w.engine.Calls("Dial")
		for _, a := range [][2]string{
			{"tcp", "169.254.169.254:80"},
			{"tcp", "10.0.0.1:22"},
			{"tcp", "127.0.0.1:8888\nDIAL tcp 10.0.0.1:22"},
			{"tcp", "0.0.0.0:8888"},
			{"tcp", "127.0.0.1:0"},
			{"udp", "127.0.0.1:53"},
			{"unix", "var/run/docker.sock"},
			{"unix", "/a/../b"},
			{"", ""},
		} {
			_, err := route.Dial(t.Context(), a[0], a[1])
			wantKind(t, fmt.Sprintf("Dial(%q, %q)", a[0], a[1]), err, bailey.Invalid)
		}
		if n := w.engine.Calls("Dial"); n != dials {
			t.Errorf("the engine was asked %d times", n-dials)
		}
		for _, a := range [][2]string{{"tcp", "localhost:6006"}, {"tcp", "[::1]:6006"}, {"unix", "/tmp/vscode.sock"}} {
			conn, err := route.Dial(t.Context(), a[0], a[1])
			if err != nil {
				t.Errorf("Dial(%q, %q): %v", a[0], a[1], err)
				continue
			}
			_ = conn.Close() // nobody listens there
		}
	})
}

// TestDialAsksTheEngineNowAndThen: a crowd of connections is one question in a
// second, and a container that is another start is found without an event.
func TestDialAsksTheEngineNowAndThen(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws := w.launch(w.alice, "one", "secret")
		route, err := w.workspaces.Route(t.Context(), w.alice, ws.Slug)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		before := w.engine.Calls("Inspect")
		var crowd sync.WaitGroup
		for range 100 {
			crowd.Go(func() {
				conn, err := route.Dial(w.t.Context(), "tcp", workspace.JupyterAddr)
				if err != nil {
					t.Errorf("Dial: %v", err)
					return
				}
				_ = conn.Close() // nothing was said
			})
		}
		crowd.Wait()
		if n := w.engine.Calls("Inspect") - before; n != 1 {
			t.Errorf("a hundred connections asked the engine %d times, want once", n)
		}
		w.engine.DropEvents(10)
		w.engine.Kill(ws.RunID, 1)
		time.Sleep(1100 * time.Millisecond)
		_, err = route.Dial(t.Context(), "tcp", workspace.JupyterAddr)
		wantKind(t, "Dial into a container that has ended unheard", err, bailey.Unavailable, "open it again")
	})
}

// TestRouteOfWhatDoesNotRun says what to do, and starts nothing.
func TestRouteOfWhatDoesNotRun(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws, err := w.workspaces.Create(t.Context(), w.alice, "one", "small")
		if err != nil {
			t.Fatal(err)
		}
		_, err = w.workspaces.Route(t.Context(), w.alice, ws.Slug)
		wantKind(t, "stopped", err, bailey.Conflict, "one is stopped", "bailey run --name one")
		w.inside.set(func(in *inside) { in.mute = true })
		if _, err := w.workspaces.Start(t.Context(), w.alice, ws.ID); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		_, err = w.workspaces.Route(t.Context(), w.alice, ws.Slug)
		wantKind(t, "starting", err, bailey.Conflict, "starting", "ready")
		w.awaitState(ws.ID, bailey.Failed)
		_, err = w.workspaces.Route(t.Context(), w.alice, ws.Slug)
		wantKind(t, "failed", err, bailey.Conflict, "did not answer")
		if n := w.engine.Calls("Start"); n != 1 {
			t.Errorf("containers were started %d times, want once", n)
		}
	})
}

// TestHostileJupyter: what answers inside may say anything, for as long as it
// likes; its launch fails in time and nobody else notices.
func TestHostileJupyter(t *testing.T) {
	flood := func(head string) func(net.Conn) {
		return func(c net.Conn) {
			defer c.Close() // in memory
			if _, err := io.WriteString(c, head); err != nil {
				return
			}
			for block := make([]byte, 32<<10); ; {
				if _, err := c.Write(block); err != nil {
					return
				}
			}
		}
	}
	tests := []struct {
		name string
		raw  func(net.Conn)
	}{
		{"endless header", flood("HTTP/1.1 200 OK\r\nX: ")},
		{"endless body", flood("HTTP/1.1 200 OK\r\n\r\n")},
		{"garbage", func(c net.Conn) { _, _ = io.WriteString(c, "\x16\x03\x01SSH-2.0\r\n\r\n"); _ = c.Close() }},
		{"never answers", func(c net.Conn) { _, _ = io.Copy(io.Discard, c); _ = c.Close() }},
		{"sends elsewhere", func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n")
			_ = c.Close()
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inAWorld(t, func(w *world) {
				t := w.t
				w.settings.change("small", func(c *bailey.Class) { c.StartLimit = 3 * time.Second })
				w.inside.set(func(in *inside) { in.raw = tt.raw })
				ws, err := w.workspaces.Launch(t.Context(), w.alice, "one", "small")
				if err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				if now := w.awaitState(ws.ID, bailey.Failed); time.Since(begin) > 9*time.Second {
					t.Errorf("it took %s to say %q", time.Since(begin), now.Reason)
				}
				w.wantClean()
			})
		})
	}
}

// BenchmarkRoute is on the path of every proxied request, and so is Touch.
func BenchmarkRoute(b *testing.B) {
	w := newWorld(b, b.TempDir())
	w.serve()
	ws, err := w.workspaces.Launch(b.Context(), w.alice, "one", "small")
	if err != nil {
		b.Fatal(err)
	}
	for w.get(ws.ID).State != bailey.Running {
		time.Sleep(time.Millisecond) // a benchmark has real time
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := w.workspaces.Route(b.Context(), w.alice, ws.Slug); err != nil {
				b.Error(err)
				return
			}
			w.workspaces.Touch(ws.ID)
		}
	})
}
