package workspace_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/workspace"
)

// outside is an egress that tells everybody who they are, and then holds on
// until it is cut.
type outside struct{}

func (outside) Serve(ctx context.Context, conn net.Conn, from workspace.Sender) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer conn.Close() //nolint:errcheck // in memory: never fails
	fmt.Fprintf(conn, "%s/%s of class %s\n", from.User, from.Name, from.Class)
	_, _ = io.Copy(io.Discard, conn)
}

func proxied(c *bailey.Class) { c.Network = "proxied" }

// reach opens a connection from inside and reads what it is told.
func (w *world) reach(ws bailey.Workspace, uid int) (net.Conn, string) {
	w.t.Helper()
	c, err := w.engine.Reach(w.t.Context(), ws.RunID, uid)
	if err != nil {
		return nil, err.Error()
	}
	buf := make([]byte, 200)
	n, err := c.Read(buf)
	if err != nil {
		return c, err.Error()
	}
	return c, string(buf[:n])
}

func (w *world) uid(who bailey.Actor) int {
	w.t.Helper()
	u, err := w.store.UserByID(w.t.Context(), who.UserID)
	if err != nil {
		w.t.Fatal(err)
	}
	return u.UID
}

// TestEachWorkspaceIsKnownByItsSocket: two people, three workspaces, and what
// comes in by a socket is the workspace's that it was made for.
func TestEachWorkspaceIsKnownByItsSocket(t *testing.T) {
	inAWorld(t, func(w *world) {
		w.egress = outside{}
		w.restart()
		w.settings.change("small", proxied)
		w.settings.change("torch", proxied)
		one, two, other := w.launch(w.alice, "one", "small"), w.launch(w.alice, "two", "torch"), w.launch(w.bob, "one", "small")
		for _, tt := range []struct {
			ws   bailey.Workspace
			who  bailey.Actor
			want string
		}{
			{one, w.alice, "alice/one of class small\n"},
			{two, w.alice, "alice/two of class torch\n"},
			{other, w.bob, "bob/one of class small\n"},
		} {
			c, got := w.reach(tt.ws, w.uid(tt.who))
			if got != tt.want {
				w.t.Errorf("a connection from %s/%s is taken for %q", tt.who.Name, tt.ws.Name, got)
			}
			_ = c.Close()
		}
		// Alice's processes at bob's socket: there is none for them.
		if c, got := w.reach(other, w.uid(w.alice)); c != nil {
			w.t.Errorf("alice at bob's socket was told %q", got)
		}
	})
}

// TestAWayOutEndsWithItsRun: what is open is cut when the workspace stops, and
// one whose class has no network never had one.
func TestAWayOutEndsWithItsRun(t *testing.T) {
	inAWorld(t, func(w *world) {
		w.egress = outside{}
		w.restart()
		w.settings.change("small", proxied)
		ws, plain := w.launch(w.alice, "one", "small"), w.launch(w.alice, "plain", "torch")
		if c, got := w.reach(plain, w.uid(w.alice)); c != nil {
			w.t.Errorf("a workspace without network was told %q", got)
		}
		c, got := w.reach(ws, w.uid(w.alice))
		if !strings.HasPrefix(got, "alice/one") {
			w.t.Fatalf("reach: %q", got)
		}
		if _, err := w.workspaces.Stop(w.t.Context(), w.alice, ws.ID); err != nil {
			w.t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 1)); err == nil {
			w.t.Errorf("after the stop the connection gave %d bytes", n)
		}
		if c, got := w.reach(ws, w.uid(w.alice)); c != nil {
			w.t.Errorf("after the stop: %q", got)
		}
	})
}

// TestAWayOutIsThereAgainAfterTheServer: the server is replaced, the workspace
// runs on, and reaches out again without a restart of its own.
func TestAWayOutIsThereAgainAfterTheServer(t *testing.T) {
	inAWorld(t, func(w *world) {
		w.egress = outside{}
		w.restart()
		w.settings.change("small", proxied)
		ws := w.launch(w.alice, "one", "small")
		started := w.get(ws.ID).StartedAt
		w.stop()
		if c, got := w.reach(ws, w.uid(w.alice)); c != nil {
			w.t.Errorf("without a server: %q", got)
		}
		w.serve()
		w.await(func() bool {
			c, got := w.reach(ws, w.uid(w.alice))
			if c != nil {
				_ = c.Close()
			}
			return strings.HasPrefix(got, "alice/one")
		}, func() string { return "the workspace does not reach out" })
		if now := w.get(ws.ID); now.RunID != ws.RunID || !now.StartedAt.Equal(started) {
			w.t.Errorf("the workspace was started again: %+v", now)
		}
	})
}

// TestNothingReachesOutUnverified: a container that does not match its profile
// is not listened to, not even while it starts.
func TestNothingReachesOutUnverified(t *testing.T) {
	inAWorld(t, func(w *world) {
		w.egress = outside{}
		w.restart()
		w.settings.change("small", proxied)
		w.engine.FailNext("Verify", fmt.Errorf("cannot look"))
		ws, err := w.workspaces.Launch(w.t.Context(), w.alice, "one", "small")
		if err != nil {
			w.t.Fatal(err)
		}
		w.awaitState(ws.ID, bailey.Failed)
		if n := w.engine.Calls("Egress"); n != 0 {
			w.t.Errorf("somebody listened %d times for a container that could not be verified", n)
		}
	})
}

// TestWithoutAnEgressNothingIsProxied: in doubt it stays shut.
func TestWithoutAnEgressNothingIsProxied(t *testing.T) {
	inAWorld(t, func(w *world) {
		w.settings.change("small", proxied)
		_, err := w.workspaces.Launch(w.t.Context(), w.alice, "one", "small")
		wantKind(w.t, "Launch", err, bailey.Unavailable)
		synctest.Wait()
		w.wantClean()
	})
}

// TestALostWayOutIsOpenedAgain: while the socket cannot be made, people work on,
// and it is tried again; so it is when somebody takes the listener away.
func TestALostWayOutIsOpenedAgain(t *testing.T) {
	inAWorld(t, func(w *world) {
		w.egress = outside{}
		w.restart()
		w.settings.change("small", proxied)
		ws := w.launch(w.alice, "one", "small")
		w.stop()
		w.engine.FailNext("Egress", errors.New("no space left on device"), errors.New("no space left on device"))
		w.serve()
		w.await(func() bool {
			_, err := w.workspaces.Route(w.t.Context(), w.alice, ws.Slug)
			return err == nil
		}, func() string { return "the workspace is not served while its way out is broken" })
		reached := func() bool {
			c, got := w.reach(ws, w.uid(w.alice))
			if c != nil {
				_ = c.Close()
			}
			return strings.HasPrefix(got, "alice/one")
		}
		w.await(reached, func() string { return "the workspace does not reach out" })
		thief, err := w.engine.Egress(w.t.Context(), ws.RunID, w.uid(w.alice))
		if err != nil {
			w.t.Fatal(err)
		}
		_ = thief.Close() // in memory: never fails
		w.await(reached, func() string { return "the workspace does not reach out after its listener was taken" })
	})
}
