package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/engine"
)

// execCases: commands beside the workspace's own.
func execCases() []testCase {
	return []testCase{
		{"exec output and error are apart", func(e *env) {
			id := e.start(e.alice())
			if r := e.tool(id, "print", "hello"); r.out != "hello\n" || r.err != "" || r.code != 0 {
				e.Errorf("print: %+v", r)
			}
			if r := e.tool(id, "warn", "beware"); r.out != "" || r.err != "beware\n" || r.code != 0 {
				e.Errorf("warn: %+v", r)
			}
		}},
		{"exec gives the exit code", func(e *env) {
			id := e.start(e.alice())
			for _, code := range []int{0, 1, 7, 255} {
				if r := e.tool(id, "exit", fmt.Sprint(code)); r.code != code {
					e.Errorf("exit %d: %+v", code, r)
				}
			}
		}},
		{"exec carries stdin and its end", func(e *env) {
			id := e.start(e.alice())
			text := strings.Repeat("0123456789abcde\n", 64<<10/16) // more than one pipe holds, in both directions
			for _, stdin := range []string{"", "x", text} {
				r, err := e.exec(id, engine.ExecSpec{Cmd: e.Command("cat")}, stdin)
				if err != nil || r.out != stdin || r.code != 0 {
					e.Errorf("cat of %d bytes: %d bytes, code %d, %v", len(stdin), len(r.out), r.code, err)
				}
			}
		}},
		{"exec is the tenant", func(e *env) {
			s := e.alice()
			id := e.start(s)
			if uid := strings.TrimSpace(e.tool(id, "whoami").out); uid != "" && uid != fmt.Sprint(s.UID) {
				e.Errorf("exec runs as %s, want %d", uid, s.UID)
			}
		}},
		{"exec has a directory and environment", func(e *env) {
			id := e.start(e.alice())
			if r := e.tool(id, "pwd"); r.out != "/workspace\n" {
				e.Errorf("pwd without a directory: %+v", r)
			}
			r, err := e.exec(id, engine.ExecSpec{Cmd: e.Command("pwd"), Dir: "/tmp"}, "")
			if err != nil || r.out != "/tmp\n" {
				e.Errorf("pwd in /tmp: %+v, %v", r, err)
			}
			r, err = e.exec(id, engine.ExecSpec{Cmd: e.Command("env", "LC_ALL"), Env: []string{"LC_ALL=C.UTF-8"}}, "")
			if err != nil || r.out != "C.UTF-8\n" {
				e.Errorf("env LC_ALL: %+v, %v", r, err)
			}
		}},
		{"exec refuses what it must not carry", func(e *env) {
			id := e.start(e.alice())
			for _, bad := range []engine.ExecSpec{
				{},
				{Cmd: []string{""}},
				{Cmd: []string{"a\x00b"}},
				{Cmd: []string{"x"}, Dir: "tmp"},
				{Cmd: []string{"x"}, Env: []string{"LD_PRELOAD=/x.so"}},
				{Cmd: []string{"x"}, Env: []string{"NVIDIA_VISIBLE_DEVICES=all"}},
				{Cmd: []string{"x"}, Env: []string{"TERM"}},
			} {
				session, err := e.Engine.Exec(e.ctx, id, bad)
				if err == nil {
					_ = session.Close() // the test fails anyway
				}
				if bailey.KindOf(err) != bailey.Invalid {
					e.Errorf("Exec(%+v): %v, want a refusal", bad, err)
				}
			}
		}},
		{"exec needs a running container", func(e *env) {
			id := e.create(e.alice())
			_, err := e.Engine.Exec(e.ctx, id, engine.ExecSpec{Cmd: e.Command("print", "x")})
			e.fails("Exec", err, engine.ErrConflict)
		}},
		{"a terminal has a size", func(e *env) { e.terminal() }},
		{"closing a session ends its command", func(e *env) {
			id := e.start(e.alice())
			before := e.pids(id)
			session, err := e.Engine.Exec(e.ctx, id, engine.ExecSpec{Cmd: e.Command("hang")})
			e.ok("Exec", err)
			e.ok("Close", session.Close())
			e.ok("second Close", session.Close())
			if n, err := session.Stdout().Read(make([]byte, 1)); err == nil {
				e.Errorf("Stdout of a closed session read %d bytes", n)
			}
			ctx, cancel := context.WithTimeout(e.ctx, patience)
			defer cancel()
			if code, err := session.Wait(ctx); err != nil || code == 0 {
				e.Errorf("Wait after Close = %d, %v; want the code of a command that was ended", code, err)
			}
			e.eventually("the command is gone", func() bool { return e.pids(id) <= before })
		}},
		{"many at once", func(e *env) {
			id := e.start(e.alice())
			var wg sync.WaitGroup
			for i := range 8 {
				wg.Go(func() {
					text := strings.Repeat(fmt.Sprintf("%d\n", i), 2000)
					r, err := e.exec(id, engine.ExecSpec{Cmd: e.Command("cat")}, text)
					if err != nil || r.out != text {
						e.Errorf("exec %d of 8: %d of %d bytes, %v", i, len(r.out), len(text), err)
					}
				})
			}
			wg.Wait()
		}},
	}
}

func (e *env) pids(id string) uint64 {
	e.Helper()
	u, err := e.Engine.Stats(e.ctx, id)
	e.ok("Stats", err)
	return u.Pids
}

// terminal asks for the size twice, with a resize in between.
func (e *env) terminal() {
	id := e.start(e.alice())
	session, err := e.Engine.Exec(e.ctx, id, engine.ExecSpec{Cmd: e.Command("size"), TTY: true, Cols: 100, Rows: 30})
	e.ok("Exec", err)
	defer session.Close() //nolint:errcheck // a test
	sizes := make(chan string, 16)
	go func() {
		defer close(sizes)
		for line := lineReader(session.Stdout()); ; {
			text, err := line()
			if err != nil {
				return
			}
			if text != "" { // an echo of what was typed
				sizes <- text
			}
		}
	}()
	// An engine may set the first size a moment after the command has begun.
	await := func(want string) {
		e.eventually("the terminal is "+want, func() bool {
			_, err := io.WriteString(session.Stdin(), "\n")
			e.ok("type", err)
			select {
			case got := <-sizes:
				return got == want
			case <-time.After(time.Second):
				return false
			}
		})
	}
	await("30 100")
	e.ok("Resize", session.Resize(e.ctx, 132, 43))
	await("43 132")
	if text, err := io.ReadAll(session.Stderr()); err != nil || len(text) > 0 {
		e.Errorf("a terminal's Stderr has %q, %v; want nothing", text, err)
	}
}

// dialCases: the way in through the agent.
func dialCases() []testCase {
	cases := []testCase{
		{"dial reaches the right workspace", func(e *env) {
			a, b := e.alice(), e.bob()
			e.start(a)
			e.start(b)
			for _, s := range []engine.Spec{a, b} {
				got, err := e.get(s, s.UID)
				if err != nil || !strings.Contains(got, s.Name) {
					e.Errorf("GET in %s's workspace: %q, %v", s.Name, got, err)
				}
			}
		}},
		{"dial as another user is hostile", func(e *env) {
			a := e.alice()
			e.start(a)
			_, err := e.get(a, e.bob().UID)
			e.fails("Dial of alice's run as bob", err, engine.ErrHostile)
		}},
		{"dial of nothing is the end at once", func(e *env) {
			s := e.alice()
			e.start(s)
			conn, err := e.Engine.Dial(e.ctx, s.Run, s.UID, "tcp", "127.0.0.1:9")
			e.ok("Dial", err)
			defer conn.Close() //nolint:errcheck // a test
			e.ok("SetDeadline", conn.SetDeadline(time.Now().Add(patience)))
			if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
				e.Errorf("Read = %d, %v; want EOF", n, err)
			}
		}},
		{"dial carries the half-close", func(e *env) {
			s := e.alice()
			e.start(s)
			conn, err := e.Engine.Dial(e.ctx, s.Run, s.UID, "unix", e.EchoPath)
			e.ok("Dial", err)
			defer conn.Close() //nolint:errcheck // a test
			e.ok("SetDeadline", conn.SetDeadline(time.Now().Add(patience)))
			text := bytes.Repeat([]byte("0123456789abcdef"), 1<<12)
			go func() {
				_, _ = conn.Write(text) // what arrives is compared below
				if half, ok := conn.(interface{ CloseWrite() error }); ok {
					_ = half.CloseWrite()
				}
			}()
			got, err := io.ReadAll(conn)
			if err != nil || !bytes.Equal(got, text) {
				e.Errorf("echo gave %d of %d bytes, %v", len(got), len(text), err)
			}
		}},
		{"dial goes to loopback only", func(e *env) {
			s := e.alice()
			e.start(s)
			for _, to := range [][2]string{
				{"tcp", "10.0.0.1:80"},
				{"tcp", "169.254.169.254:80"},
				{"tcp", "0.0.0.0:8888"},
				{"tcp", "example.org:80"},
				{"tcp", "127.0.0.1"},
				{"tcp", "127.0.0.1:0"},
				{"tcp", "127.0.0.1:8888\nDIAL tcp 10.0.0.1:80"},
				{"unix", "echo.sock"},
				{"unix", "/tmp/../run/x"},
				{"unix", "/a\nb"},
				{"udp", "127.0.0.1:53"},
				{"", ""},
			} {
				conn, err := e.Engine.Dial(e.ctx, s.Run, s.UID, to[0], to[1])
				if err == nil {
					_ = conn.Close() // the test fails anyway
				}
				if bailey.KindOf(err) != bailey.Invalid {
					e.Errorf("Dial(%q, %q): %v, want a refusal", to[0], to[1], err)
				}
			}
		}},
		{"dial of a run that is none", func(e *env) {
			_, err := e.Engine.Dial(e.ctx, bailey.NewID(), 20001, "tcp", engine.JupyterAddr)
			e.fails("Dial", err, engine.ErrNotFound)
			if _, err := e.Engine.Dial(e.ctx, "../run", 20001, "tcp", engine.JupyterAddr); bailey.KindOf(err) != bailey.Invalid {
				e.Errorf("Dial of a path: %v, want a refusal", err)
			}
		}},
		{"dial before the start and after the stop", func(e *env) {
			s := e.alice()
			id := e.create(s)
			_, err := e.get(s, s.UID)
			e.fails("Dial before the start", err, engine.ErrUnavailable)
			e.ok("Start", e.Engine.Start(e.ctx, id))
			e.ready(s)
			e.ok("Stop", e.Engine.Stop(e.ctx, id))
			_, err = e.get(s, s.UID)
			e.fails("Dial after the stop", err, engine.ErrUnavailable)
		}},
		{"connections end with the container", func(e *env) {
			s := e.alice()
			id := e.start(s)
			conn, err := e.Engine.Dial(e.ctx, s.Run, s.UID, "unix", e.EchoPath)
			e.ok("Dial", err)
			defer conn.Close() //nolint:errcheck // a test
			e.ok("SetDeadline", conn.SetDeadline(time.Now().Add(patience)))
			if _, err := conn.Write([]byte("x")); err != nil {
				e.Fatalf("Write: %v", err)
			}
			if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
				e.Fatalf("Read: %v", err)
			}
			e.ok("Remove", e.Engine.Remove(e.ctx, id))
			if n, err := conn.Read(make([]byte, 1)); err == nil {
				e.Errorf("Read from a removed workspace gave %d bytes", n)
			}
		}},
	}
	for _, kind := range []string{SocketLink, SocketFile, SocketForeign, SocketPeer} {
		cases = append(cases, testCase{"dial refuses a planted " + kind, func(e *env) {
			s := e.alice()
			e.start(s)
			e.Plant(e.T, s, kind)
			_, err := e.get(s, s.UID)
			e.fails("Dial", err, engine.ErrHostile)
		}})
	}
	return append(cases, testCase{"dial without a socket", func(e *env) {
		s := e.alice()
		e.start(s)
		e.Plant(e.T, s, SocketAbsent)
		_, err := e.get(s, s.UID)
		e.fails("Dial", err, engine.ErrUnavailable)
	}})
}

// seeCases: events, logs, figures, verification.
func seeCases() []testCase {
	return []testCase{
		{"events tell a life", func(e *env) {
			ctx, cancel := context.WithCancel(e.ctx)
			defer cancel()
			events := e.Engine.Watch(ctx)
			e.await(events, "resync", func(ev engine.Event) bool { return ev.Action == "resync" })
			s := e.alice()
			id := e.start(s)
			e.ok("Remove", e.Engine.Remove(e.ctx, id))
			for _, action := range []string{"start", "die", "destroy"} {
				e.await(events, action, func(ev engine.Event) bool {
					return ev.Action == action && ev.Run == s.Run && ev.ID == id
				})
			}
			cancel()
			for range events { //nolint:revive // until it is closed
			}
		}},
		{"events are ours only", func(e *env) {
			ctx, cancel := context.WithCancel(e.ctx)
			defer cancel()
			events := e.Engine.Watch(ctx)
			e.await(events, "resync", func(ev engine.Event) bool { return ev.Action == "resync" })
			foreign := e.Foreign(e.T)
			theirs := e.bob()
			id, err := e.Other.Create(e.ctx, theirs)
			e.ok("Create by the other", err)
			e.ok("Start by the other", e.Other.Start(e.ctx, id))
			e.ok("Remove by the other", e.Other.Remove(e.ctx, id))
			e.ok("RemoveVolume by the other", e.Other.RemoveVolume(e.ctx, theirs.VolumeID))
			mine := e.alice()
			e.start(mine) // whatever came before it would have been told before it
			e.await(events, "start", func(ev engine.Event) bool {
				if ev.ID == foreign || ev.ID == id || ev.Run == theirs.Run {
					e.Errorf("an event of somebody else: %+v", ev)
				}
				return ev.Run == mine.Run && ev.Action == "start"
			})
		}},
		{"logs are bounded", func(e *env) {
			id := e.start(e.alice())
			if got, err := e.Engine.Logs(e.ctx, id, 0, 1000); err != nil || len(got) != 0 {
				e.Errorf("Logs of no lines = %q, %v", got, err)
			}
			if got, err := e.Engine.Logs(e.ctx, id, 1000, 8); err != nil || len(got) > 8 {
				e.Errorf("Logs of 8 bytes = %q, %v", got, err)
			}
		}},
		{"figures", func(e *env) {
			s := e.alice()
			id := e.start(s)
			u, err := e.Engine.Stats(e.ctx, id)
			if err != nil || u.CPUNanos == 0 || u.MemoryBytes == 0 || u.MemoryBytes > uint64(s.MemoryBytes) || u.MemoryLimit != uint64(s.MemoryBytes) || u.Pids == 0 || u.OOMKills != 0 {
				e.Errorf("Stats = %+v, %v", u, err)
			}
			e.ok("Stop", e.Engine.Stop(e.ctx, id))
			_, err = e.Engine.Stats(e.ctx, id)
			e.fails("Stats of what does not run", err, engine.ErrConflict)
		}},
		{"probe", func(e *env) {
			c, err := e.Engine.Probe(e.ctx)
			if err != nil || c.Kind == "" || c.Version == "" || c.APIVersion == "" || c.RuncVersion == "" || c.RootDir == "" ||
				c.CPUs < 1 || c.MemoryBytes < 1 || !c.Seccomp || !slices.Contains([]string{"1", "2"}, c.CgroupVersion) {
				e.Errorf("Probe = %+v, %v", c, err)
			}
		}},
		{"verify finds nothing in order", func(e *env) {
			a, b := e.alice(), e.bob()
			for _, s := range []engine.Spec{a, b} {
				id := e.start(s)
				if found, err := e.Engine.Verify(e.ctx, id, s); err != nil || len(found) != 0 {
					e.Errorf("Verify of an untouched container = %+v, %v", found, err)
				}
			}
		}},
		{"verify finds tampering", func(e *env) {
			s := e.alice()
			id := e.start(s)
			e.Tamper(e.T, id)
			if found, err := e.Engine.Verify(e.ctx, id, s); err != nil || len(found) == 0 {
				e.Errorf("Verify of a changed container = %+v, %v; want findings", found, err)
			}
		}},
		{"verify compares with the specification", func(e *env) {
			s := e.alice()
			id := e.start(s)
			s.UID++
			s.MemoryBytes /= 2
			if found, err := e.Engine.Verify(e.ctx, id, s); err == nil && len(found) == 0 {
				e.Error("Verify with another uid and memory finds nothing")
			}
		}},
		{"verify of what does not run cannot look", func(e *env) {
			s := e.alice()
			id := e.create(s)
			_, err := e.Engine.Verify(e.ctx, id, s)
			e.fails("Verify", err, engine.ErrConflict)
		}},
	}
}
