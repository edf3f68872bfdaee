package enginetest_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/engine/enginetest"
	"github.com/baileyhq/bailey/internal/secret"
)

const echoPath = "/tmp/echo.sock"

// inside is what answers in a fake workspace of the suite.
func inside(call enginetest.DialCall, conn net.Conn) {
	switch {
	case call.Network == "unix" && call.Addr == echoPath:
		_, _ = io.Copy(conn, conn)
		_ = conn.Close()
	default:
		enginetest.HTTP(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "hello "+call.Owner)
		}))(call, conn)
	}
}

// relay carries both directions, half-close and all, as an agent does.
func relay(a, b net.Conn) {
	var wg sync.WaitGroup
	carry := func(dst, src net.Conn) {
		_, _ = io.Copy(dst, src)
		_ = dst.(interface{ CloseWrite() error }).CloseWrite()
	}
	wg.Go(func() { carry(a, b) })
	wg.Go(func() { carry(b, a) })
	wg.Wait()
	_, _ = a.Close(), b.Close()
}

func newHarness(t *testing.T) *enginetest.Harness {
	t.Helper()
	var fake *enginetest.Fake
	fake = enginetest.NewFake(enginetest.Config{Dial: func(call enginetest.DialCall, conn net.Conn) {
		if call.Network != "unix" || call.Addr != engine.EgressSocket {
			inside(call, conn)
			return
		}
		out, err := fake.Reach(t.Context(), call.Run, call.UID)
		if err != nil {
			_ = conn.Close()
			return
		}
		relay(conn, out)
	}})
	t.Cleanup(func() { _ = fake.Close() })
	other, third := fake.Other(), fake.Other()
	run := func(id string) string {
		st, err := fake.Inspect(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return st.Run
	}
	return &enginetest.Harness{
		Engine: fake, Other: other, Image: enginetest.FakeImage, EchoPath: echoPath,
		Command: func(tool string, args ...string) []string { return append([]string{tool}, args...) },
		Foreign: func(t *testing.T) string {
			t.Helper()
			s := spec()
			id, err := third.Create(t.Context(), s)
			if err == nil {
				err = third.Start(t.Context(), id)
			}
			if err != nil {
				t.Fatal(err)
			}
			return id
		},
		ForeignLives: func(t *testing.T, id string) bool {
			t.Helper()
			st, err := third.Inspect(t.Context(), id)
			return err == nil && st.Running
		},
		Plant: func(_ *testing.T, s engine.Spec, kind string) { fake.Plant(s.Run, kind) },
		Tamper: func(_ *testing.T, id string) {
			fake.Tamper(run(id), engine.Finding{Control: "pids limit", Want: "256", Got: "max"})
		},
		Crash: func(_ *testing.T, id string, code int) { fake.Kill(run(id), code) },
		Volume: func(_ *testing.T, id string) (int, bool, bool) {
			uid, ok := fake.Volumes()[id]
			return uid, true, ok
		},
		RunFiles: func(_ *testing.T, run string) bool {
			_, ok := fake.Specs()[run]
			return ok
		},
	}
}

func spec() engine.Spec {
	return engine.Spec{
		Run: bailey.NewID(), Workspace: bailey.NewID(), Owner: bailey.NewID(), Name: "carol", Class: "small", Image: enginetest.FakeImage,
		UID: 20003, VolumeID: bailey.NewID(), CPUMillis: 1000, MemoryBytes: 1 << 30, JupyterToken: secret.Random(24),
	}
}

func TestFakeConforms(t *testing.T) { enginetest.Run(t, newHarness) }

func started(t *testing.T, f *enginetest.Fake) (engine.Spec, string) {
	t.Helper()
	s := spec()
	id, err := f.Create(t.Context(), s)
	if err == nil {
		err = f.Start(t.Context(), id)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s, id
}

func TestFakeFailures(t *testing.T) {
	f := enginetest.NewFake(enginetest.Config{})
	defer f.Close() //nolint:errcheck // never fails
	broken := errors.New("broken")
	f.FailNext("Create", broken, nil, broken)
	var got []bool
	for range 4 {
		_, err := f.Create(t.Context(), spec())
		got = append(got, errors.Is(err, broken))
	}
	if want := []bool{true, false, true, false}; !equal(got, want) {
		t.Errorf("Create fails %v, want %v", got, want)
	}
	if n := f.Calls("Create"); n != 4 {
		t.Errorf("Calls(Create) = %d, want 4", n)
	}
	f.SetDown(true)
	if _, err := f.List(t.Context()); !errors.Is(err, engine.ErrUnavailable) {
		t.Errorf("List while down: %v, want %v", err, engine.ErrUnavailable)
	}
	f.SetDown(false)
	if list, err := f.List(t.Context()); err != nil || len(list) != 2 {
		t.Errorf("List when back = %d, %v; want 2", len(list), err)
	}
}

func equal(a, b []bool) bool {
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return len(a) == len(b)
}

func TestFakeOOMAndRestart(t *testing.T) {
	f := enginetest.NewFake(enginetest.Config{})
	defer f.Close() //nolint:errcheck // never fails
	events := f.Watch(t.Context())
	s, id := started(t, f)
	first, _ := f.Inspect(t.Context(), id)
	f.Restart(s.Run)
	second, _ := f.Inspect(t.Context(), id)
	if !second.Running || !second.StartedAt.After(first.StartedAt) {
		t.Errorf("after Restart: %+v, first start %v", second, first.StartedAt)
	}
	f.OOM(s.Run)
	if st, err := f.Inspect(t.Context(), id); err != nil || st.Running || !st.OOMKilled || st.ExitCode != 137 {
		t.Errorf("after OOM: %+v, %v", st, err)
	}
	var got []string
	for len(got) < 6 {
		got = append(got, (<-events).Action)
	}
	if want := "resync start die start oom die"; strings.Join(got, " ") != want {
		t.Errorf("events %v, want %s", got, want)
	}
}

// A stubborn workspace takes its whole grace, and that costs a bubble nothing.
func TestFakeTakesTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := enginetest.NewFake(enginetest.Config{Dial: inside})
		defer f.Close() //nolint:errcheck // never fails
		f.Delay("Start", 3*time.Second)
		begin := time.Now()
		s, id := started(t, f)
		if took := time.Since(begin); took != 3*time.Second {
			t.Errorf("a delayed Start took %v", took)
		}
		conn, err := f.Dial(t.Context(), s.Run, s.UID, "unix", echoPath)
		if err != nil {
			t.Fatal(err)
		}
		f.Stubborn(s.Run)
		begin = time.Now()
		if err := f.Stop(t.Context(), id); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != s.Defaulted().StopGrace {
			t.Errorf("Stop of a stubborn workspace took %v, want %v", took, s.Defaulted().StopGrace)
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("Read after the stop: %v, want EOF", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.Start(ctx, id); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a delayed Start with less patience: %v", err)
		}
	})
}

// The connection in memory is a [net.Conn] in everything that proxies use.
func TestFakeConnDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := enginetest.NewFake(enginetest.Config{Dial: func(_ enginetest.DialCall, conn net.Conn) {
			_, _ = io.ReadAll(conn)
			_ = conn.Close()
		}})
		defer f.Close() //nolint:errcheck // never fails
		s, _ := started(t, f)
		conn, err := f.Dial(t.Context(), s.Run, s.UID, "tcp", engine.JupyterAddr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() //nolint:errcheck // never fails
		begin := time.Now()
		_ = conn.SetReadDeadline(begin.Add(time.Second))
		_, err = conn.Read(make([]byte, 1))
		if ne, ok := errors.AsType[net.Error](err); !ok || !ne.Timeout() || time.Since(begin) != time.Second {
			t.Errorf("Read past its deadline: %v after %v", err, time.Since(begin))
		}
		_ = conn.SetReadDeadline(time.Time{})
		if n, err := conn.Write(make([]byte, 1<<20)); n != 1<<20 || err != nil {
			t.Errorf("Write = %d, %v", n, err)
		}
	})
}
