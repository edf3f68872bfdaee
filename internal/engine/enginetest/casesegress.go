package enginetest

import (
	"errors"
	"io"
	"net"
	"os"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/engine"
)

func egressCases() []testCase {
	return []testCase{
		{"egress hears its own workspace and no other", func(e *env) {
			a, b := e.reaching(e.alice()), e.reaching(e.bob())
			e.start(a)
			e.start(b)
			la, lb := e.listen(a, a.UID), e.listen(b, b.UID)
			for _, from := range []struct {
				s    engine.Spec
				near net.Listener
			}{{a, la}, {b, lb}} {
				inside := e.reach(from.s)
				outside := e.accept(from.near)
				go func() {
					_, _ = io.WriteString(inside, "from "+from.s.Name) // what arrives is compared below
					_ = inside.(interface{ CloseWrite() error }).CloseWrite()
				}()
				got, err := io.ReadAll(outside)
				if err != nil || string(got) != "from "+from.s.Name {
					e.Errorf("%s's listener heard %q, %v", from.s.Name, got, err)
				}
				// The other direction is still open.
				if _, err := io.WriteString(outside, "answer"); err != nil {
					e.Errorf("answer: %v", err)
				}
				_ = outside.Close()
				if got, err := io.ReadAll(inside); err != nil || string(got) != "answer" {
					e.Errorf("%s's workspace heard %q, %v", from.s.Name, got, err)
				}
				_ = inside.Close()
			}
			e.silent(la, "alice's")
			e.silent(lb, "bob's")
		}},
		{"egress of a workspace without it is not there", func(e *env) {
			s := e.alice()
			e.start(s)
			_, err := e.Engine.Egress(e.ctx, s.Run, s.UID)
			e.fails("Egress of a workspace without network", err, engine.ErrNotFound)
			_, err = e.Engine.Egress(e.ctx, bailey.NewID(), s.UID)
			e.fails("Egress of a run that is none", err, engine.ErrNotFound)
			if _, err := e.Engine.Egress(e.ctx, "../x", s.UID); bailey.KindOf(err) != bailey.Invalid {
				e.Errorf("Egress of a path: %v, want a refusal", err)
			}
			_, err = e.Other.Egress(e.ctx, s.Run, s.UID)
			e.fails("Egress of another installation's run", err, engine.ErrNotFound)
		}},
		{"egress hears nobody but the tenant", func(e *env) {
			s := e.reaching(e.alice())
			e.start(s)
			l := e.listen(s, e.bob().UID)
			conn, err := e.Engine.Dial(e.ctx, s.Run, s.UID, "unix", engine.EgressSocket)
			if err == nil {
				defer conn.Close() //nolint:errcheck // a test
				e.ok("SetDeadline", conn.SetDeadline(time.Now().Add(patience)))
				if got, err := io.ReadAll(conn); len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
					e.Errorf("alice's workspace heard %q, %v at bob's listener; want the end", got, err)
				}
			}
			e.silent(l, "a listener for another user")
		}},
		{"a newer egress listener takes over without a restart", func(e *env) {
			s := e.reaching(e.alice())
			e.start(s)
			first := e.listen(s, s.UID)
			second := e.listen(s, s.UID)
			if c, err := first.Accept(); !errors.Is(err, net.ErrClosed) {
				e.Errorf("Accept of the replaced listener: %v, %v; want net.ErrClosed", c, err)
			}
			e.ok("Close the replaced listener", ignoreClosed(first.Close()))
			inside := e.reach(s)
			defer inside.Close() //nolint:errcheck // a test
			_ = e.accept(second).Close()
		}},
		{"egress ends with the run", func(e *env) {
			s := e.reaching(e.alice())
			id := e.start(s)
			l := e.listen(s, s.UID)
			e.ok("Remove", e.Engine.Remove(e.ctx, id))
			if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
				e.Errorf("Accept after the run was removed: %v, want net.ErrClosed", err)
			}
			_, err := e.Engine.Egress(e.ctx, s.Run, s.UID)
			e.fails("Egress of a removed run", err, engine.ErrNotFound)
		}},
		{"a workspace that reaches out is what it should be", func(e *env) {
			s := e.reaching(e.alice())
			id := e.start(s)
			e.listen(s, s.UID)
			found, err := e.Engine.Verify(e.ctx, id, s)
			if err != nil || len(found) > 0 {
				e.Errorf("Verify: %+v, %v", found, err)
			}
			s.Network = engine.NetworkNone
			if found, err := e.Engine.Verify(e.ctx, id, s); err == nil && len(found) == 0 {
				e.Errorf("Verify against a Spec without network found nothing")
			}
			_, err = e.Engine.Create(e.ctx, s)
			e.fails("Create with another network mode", err, engine.ErrConflict)
		}},
	}
}

// reaching is s with a way out.
func (e *env) reaching(s engine.Spec) engine.Spec {
	s.Network = engine.NetworkProxied
	return s
}

func (e *env) listen(s engine.Spec, uid int) net.Listener {
	e.Helper()
	l, err := e.Engine.Egress(e.ctx, s.Run, uid)
	e.ok("Egress", err)
	e.Cleanup(func() { e.ok("Close", ignoreClosed(l.Close())) })
	return l
}

// reach opens a connection from inside.
func (e *env) reach(s engine.Spec) net.Conn {
	e.Helper()
	conn, err := e.Engine.Dial(e.ctx, s.Run, s.UID, "unix", engine.EgressSocket)
	e.ok("Dial the socket inside", err)
	e.ok("SetDeadline", conn.SetDeadline(time.Now().Add(patience)))
	return conn
}

// accept returns the next connection.
func (e *env) accept(l net.Listener) net.Conn {
	e.Helper()
	type accepted struct {
		conn net.Conn
		err  error
	}
	got := make(chan accepted, 1)
	go func() { // ends with the listener at the latest
		c, err := l.Accept()
		got <- accepted{c, err}
	}()
	select {
	case a := <-got:
		e.ok("Accept", a.err)
		e.Cleanup(func() { _ = a.conn.Close() })
		e.ok("SetDeadline", a.conn.SetDeadline(time.Now().Add(patience)))
		return a.conn
	case <-time.After(patience):
		e.Fatalf("nobody came")
		return nil
	}
}

// silent closes a listener and makes sure that nobody was waiting at it.
func (e *env) silent(l net.Listener, whose string) {
	e.Helper()
	type deadliner interface{ SetDeadline(t time.Time) error }
	if d, ok := l.(deadliner); ok {
		e.ok("SetDeadline", d.SetDeadline(time.Now().Add(50*time.Millisecond)))
	} else {
		e.ok("Close", l.Close())
	}
	if c, err := l.Accept(); err == nil {
		e.Errorf("somebody came to %s listener: %v", whose, c.RemoteAddr())
	}
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
