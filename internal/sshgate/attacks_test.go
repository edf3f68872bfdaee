package sshgate_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/sshgate"
	"github.com/baileyhq/bailey/internal/sshlive"
)

// A forger shows one public key and signs with another.
type forger struct {
	shown ssh.PublicKey
	ssh.Signer
}

func (f forger) PublicKey() ssh.PublicKey { return f.shown }

// CVE-2024-45337: who somebody is must come from the key that signed, whatever
// else was shown before or after.
func TestShowingSomebodysKeyIsNotBeingThem(t *testing.T) {
	w := newWorld(t, nil)
	ada, bob := w.people.signers["ada"], w.people.signers["bob"]
	for name, keys := range map[string][]ssh.Signer{
		"ada's key shown, bob's signs":         {forger{ada.PublicKey(), bob}},
		"ada's key shown, then bob's own":      {forger{ada.PublicKey(), bob}, bob},
		"bob's own, then ada's key shown":      {bob, forger{ada.PublicKey(), bob}},
		"a stranger's, then ada's, then bob's": {newKey(t), forger{ada.PublicKey(), bob}, bob},
	} {
		if c, err := w.try("ada", keys...); err == nil {
			out, _, _ := run(t, c, "echo $USER", "")
			_ = c.Close()
			t.Errorf("%s: signed in as ada, and is %q", name, out)
		}
		if slices.ContainsFunc(keys, func(k ssh.Signer) bool { return k == bob }) {
			c, err := w.try("bob", keys...)
			if err != nil {
				continue // a signature by another key ends the connection
			}
			if out, _, err := run(t, c, "echo $USER", ""); out != "bob\n" {
				t.Errorf("%s: bob is %q, %v", name, out, err)
			}
			_ = c.Close()
		}
	}
	for _, in := range w.people.signIns {
		if in.Name != "bob" || !bytes.Equal(in.Key.Marshal(), bob.PublicKey().Marshal()) {
			t.Errorf("%s was signed in by %s", in.Name, ssh.FingerprintSHA256(in.Key))
		}
	}
}

// silent is a signer that never signs: its owner only asks.
type silent struct{ ssh.PublicKey }

func (s silent) Sign(io.Reader, []byte) (*ssh.Signature, error) {
	return nil, errors.New("i do not hold it")
}
func (s silent) Public() ssh.PublicKey { return s.PublicKey }

type asker struct{ silent }

func (a asker) PublicKey() ssh.PublicKey { return a.silent.PublicKey }

func TestAskingAboutAKeyCausesNothing(t *testing.T) {
	w := newWorld(t, nil)
	w.people.link = "https://hub.example/ssh/x"
	for _, key := range []ssh.PublicKey{w.people.signers["ada"].PublicKey(), newKey(t).PublicKey()} {
		if _, err := w.try("ada", asker{silent{key}}); err == nil {
			t.Fatal("signed in without a signature")
		}
	}
	w.people.mu.Lock()
	defer w.people.mu.Unlock()
	if len(w.people.signIns) != 0 || w.people.contacts != 0 || len(w.journal.events) != 0 {
		t.Errorf("asking made %d sign-ins, %d first contacts, %d events", len(w.people.signIns), w.people.contacts, len(w.journal.events))
	}
}

func TestAnUnknownKeyThatSignedIsToldWhereToBindIt(t *testing.T) {
	w := newWorld(t, nil)
	w.people.link = "https://hub.example/ssh/ABCD-EFGH"
	stranger := newKey(t)
	var banner strings.Builder
	cfg := w.clientConfig("ada", stranger)
	cfg.BannerCallback = func(m string) error { banner.WriteString(m); return nil }
	if _, err := ssh.Dial("tcp", w.addr, cfg); err == nil {
		t.Fatal("an unknown key signed in")
	}
	if !strings.Contains(banner.String(), w.people.link) || !strings.Contains(banner.String(), ssh.FingerprintSHA256(stranger.PublicKey())) {
		t.Errorf("the banner is %q", banner.String())
	}
	within(t, "one failure is counted for the connection", func() bool {
		w.people.mu.Lock()
		defer w.people.mu.Unlock()
		return len(w.people.failed) == 1
	})
}

func TestManyKeysAreToldToNameOne(t *testing.T) {
	w := newWorld(t, nil)
	var keys []ssh.Signer
	for range 8 {
		keys = append(keys, newKey(t))
	}
	var banner strings.Builder
	cfg := w.clientConfig("ada", append(keys, w.people.signers["ada"])...)
	cfg.BannerCallback = func(m string) error { banner.WriteString(m); return nil }
	if _, err := ssh.Dial("tcp", w.addr, cfg); err == nil {
		t.Fatal("the ninth key was still tried")
	}
	if !strings.Contains(banner.String(), "IdentitiesOnly=yes") {
		t.Errorf("the banner is %q", banner.String())
	}
}

func TestNoWayInButAKey(t *testing.T) {
	w := newWorld(t, nil)
	for name, methods := range map[string][]ssh.AuthMethod{
		"none":                 nil,
		"a password":           {ssh.Password("")},
		"keyboard-interactive": {ssh.KeyboardInteractive(func(string, string, []string, []bool) ([]string, error) { return nil, nil })},
	} {
		_, err := ssh.Dial("tcp", w.addr, &ssh.ClientConfig{User: "ada", Auth: methods, HostKeyCallback: ssh.FixedHostKey(w.hostKey.PublicKey())})
		if err == nil {
			t.Errorf("%s: signed in", name)
		}
	}
	for _, user := range []string{"", "root", "ADA", "ada ", "ada+", "+lab", "ada+lab+x", "ada+../bob", "ada\x1b[2J", "ada\n", strings.Repeat("a", 30_000)} {
		if _, err := w.try(user, w.people.signers["ada"]); err == nil {
			t.Errorf("user %.20q signed in with ada's key", user)
		}
	}
}

func TestLateralMovement(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client("ada")
	for _, addr := range []string{
		"169.254.169.254:80", "10.0.0.1:22", "172.17.0.1:2375", "0.0.0.0:22", "127.1:22", "2130706433:22", "0x7f000001:22", "0177.0.0.1:22",
		"[::ffff:127.0.0.1]:22", "[::]:22", "[fe80::1]:22", "[::1%lo]:22", "localhost.:22", "LOCALHOST:22", "example.com:443", "127.0.0.1.nip.io:80", "host.docker.internal:80",
	} {
		conn, err := c.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
		}
		open, ok := errors.AsType[*ssh.OpenChannelError](err)
		if !ok || open.Reason != ssh.Prohibited {
			t.Errorf("%s: %v, want it prohibited", addr, err)
		}
	}
	for _, path := range []string{"", "relative", "/", "/run/../var/run/docker.sock", "//run/docker.sock", "/a\n", strings.Repeat("/a", 80)} {
		conn, err := c.Dial("unix", path)
		if err == nil {
			_ = conn.Close()
		}
		if open, ok := errors.AsType[*ssh.OpenChannelError](err); !ok || open.Reason != ssh.Prohibited {
			t.Errorf("unix %q: %v, want it prohibited", path, err)
		}
	}
	if w.journal.count(audit.AccessDenied) != 1 {
		t.Errorf("%d refusals are in the journal, want one for the connection", w.journal.count(audit.AccessDenied))
	}
	for _, kind := range []string{"x11", "auth-agent@openssh.com", "forwarded-tcpip", "tun@openssh.com", "\x1b]0;x"} {
		if _, _, err := c.OpenChannel(kind, nil); err == nil {
			t.Errorf("a client opened %q", kind)
		}
	}
}

func TestForwarding(t *testing.T) {
	w := newWorld(t, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0") // as something in the workspace would
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); _, _ = io.Copy(c, c) }()
		}
	}()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	c := w.client("ada")
	echo := func(host string) error {
		conn, err := c.Dial("tcp", net.JoinHostPort(host, port))
		if err != nil {
			return err
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "hello"); err != nil {
			return err
		}
		_ = conn.(interface{ CloseWrite() error }).CloseWrite() //nolint:forcetypeassert // it can
		got, err := io.ReadAll(conn)
		if string(got) != "hello" {
			return fmt.Errorf("%q, %w", got, err)
		}
		return nil
	}
	var all sync.WaitGroup
	for range 8 { // at once, as editors do
		all.Go(func() {
			if err := echo("127.0.0.1"); err != nil {
				t.Errorf("forward: %v", err)
			}
		})
	}
	all.Wait()
	if err := echo("localhost"); err != nil {
		t.Errorf("localhost: %v", err)
	}
	if got := w.journal.count(audit.SSHForward); got != 2 {
		t.Errorf("%d forwards are in the journal, want one for each target", got)
	}
	for name, p := range map[string]sshgate.Policy{
		"none":           {Forwarding: sshgate.ForwardNone},
		"another port":   {Forwarding: sshgate.ForwardPorts, Ports: []int{1}},
		"no SSH":         {Access: sshgate.NoAccess},
		"an unknown one": {Forwarding: "sideways"},
	} {
		w.setPolicy(p)
		if err := echo("127.0.0.1"); err == nil {
			t.Errorf("%s: it was forwarded", name)
		}
	}
	var number int
	_, _ = fmt.Sscan(port, &number)
	w.setPolicy(sshgate.Policy{Forwarding: sshgate.ForwardPorts, Ports: []int{number}})
	if err := echo("127.0.0.1"); err != nil {
		t.Errorf("a listed port: %v", err)
	}
}

func TestListeningForClientsAndLentAgents(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client("ada")
	if _, err := c.Listen("tcp", "127.0.0.1:0"); err == nil {
		t.Error("a class that does not say so listens for clients")
	}
	w.setPolicy(sshgate.Policy{RemoteForwarding: true, AgentForwarding: true})
	for _, addr := range []string{"127.0.0.1:80", "10.1.2.3:4000", "example.com:4000"} {
		if _, err := c.Listen("tcp", addr); err == nil {
			t.Errorf("it listens on %s", addr)
		}
	}
	ln, err := c.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err == nil {
			_, _ = io.WriteString(conn, "from inside")
			_ = conn.Close()
		}
	}()
	conn, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(conn); string(got) != "from inside" {
		t.Errorf("%q, %v", got, err)
	}
	if err := ln.Close(); err != nil {
		t.Errorf("cancel: %v", err)
	}
	within(t, "nothing listens any more", func() bool {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})

	ring := agent.NewKeyring()
	_, key := newRawKey(t)
	if err := ring.Add(agent.AddedKey{PrivateKey: key, Comment: "lent"}); err != nil {
		t.Fatal(err)
	}
	if err := agent.ForwardToAgent(c, ring); err != nil {
		t.Fatal(err)
	}
	s := session(t, c)
	if err := agent.RequestAgentForwarding(s); err != nil {
		t.Fatal(err)
	}
	in, _ := s.StdinPipe()
	out, _ := s.StdoutPipe()
	if err := s.Start("echo $SSH_AUTH_SOCK; read x"); err != nil {
		t.Fatal(err)
	}
	path := strings.TrimSpace(readUntil(t, out, "\n"))
	inside, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the lent agent at %q: %v", path, err)
	}
	defer inside.Close()
	if keys, err := agent.NewClient(inside).List(); err != nil || len(keys) != 1 || keys[0].Comment != "lent" {
		t.Errorf("the lent agent has %v, %v", keys, err)
	}
	_ = in.Close()
	_ = s.Wait()
	within(t, "the agent is lent no longer than the session", func() bool {
		conn, err := net.Dial("unix", path)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	_ = inside.SetReadDeadline(time.Now().Add(soon))
	if _, err := inside.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection to the lent agent outlives the session: %v", err)
	}
	w.setPolicy(sshgate.Policy{})
	s = session(t, c)
	if err := agent.RequestAgentForwarding(s); err == nil {
		t.Error("the client is told that its agent is lent, and it is not")
	}
	if got, err := s.Output("echo \"<$SSH_AUTH_SOCK>\""); string(got) != "<>\n" {
		t.Errorf("an agent was lent against the class: %q, %v", got, err)
	}
}

func TestRestrictedClasses(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client("ada")
	w.setPolicy(sshgate.Policy{Access: sshgate.SFTPOnly})
	if _, errs, err := run(t, c, "id", ""); exitCode(err) != 255 || !strings.Contains(errs, "sftp alone") {
		t.Errorf("sftp-only: %q, %v", errs, err)
	}
	if _, err := sftp.NewClient(c); err != nil {
		t.Errorf("sftp-only has no sftp: %v", err)
	}
	w.setPolicy(sshgate.Policy{ForceCommand: "echo forced: $SSH_ORIGINAL_COMMAND"})
	if out, _, err := run(t, c, "rm -rf /; `id`", ""); err != nil || out != "forced: rm -rf /; `id`\n" {
		t.Errorf("forced: %q, %v", out, err)
	}
	w.setPolicy(sshgate.Policy{ForceCommand: "internal-sftp"})
	if out, _, _ := run(t, c, "echo free", ""); strings.Contains(out, "free") {
		t.Errorf("internal-sftp ran a command: %q", out)
	}
	w.setPolicy(sshgate.Policy{Access: sshgate.NoAccess})
	if _, errs, err := run(t, c, "id", ""); exitCode(err) != 255 || !strings.Contains(errs, "has no SSH") {
		t.Errorf("off: %q, %v", errs, err)
	}
	w.setPolicy(sshgate.Policy{Access: "whatever"})
	if out, _, err := run(t, c, "echo in", ""); err == nil {
		t.Errorf("an unknown access is as good as full: %q", out)
	}
	// What the key says holds on top of the class, also after a reconnection.
	w.setPolicy(sshgate.Policy{})
	w.people.grants["bob"] = identity.SSHGrant{ForceCommand: "echo key", NoPTY: true, NoForwarding: true}
	b := w.client("bob")
	if out, _, _ := run(t, b, "id", ""); out != "key\n" {
		t.Errorf("the key's command: %q", out)
	}
	if err := session(t, b).RequestPty("xterm", 24, 80, nil); err == nil {
		t.Error("a key without terminals got one")
	}
	if _, err := b.Dial("tcp", "127.0.0.1:1"); err == nil {
		t.Error("a key without forwarding forwards")
	}
}

// Strangers from very many addresses fill the room and stay. Ada is let in all
// the same after some tries: the ones who have been there for longest make room.
func TestStrangersWhoFillTheRoomKeepNobodyOut(t *testing.T) {
	w := newWorld(t, func(c *sshgate.Config) {
		c.Limits = sshgate.Limits{Strangers: 16, PerPrefix: 1000, Grace: 10 * time.Minute}
	})
	for w.gate.Stats().Strangers < 16 { // as far as chance lets them
		c, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	var err error
	for range 100 { // one in four is let in
		var c *ssh.Client
		if c, err = w.try("ada", w.people.signers["ada"]); err == nil {
			if out, _, err := run(t, c, "echo in", ""); out != "in\n" {
				t.Errorf("%q, %v", out, err)
			}
			break
		}
	}
	if err != nil {
		t.Errorf("ada is kept out: %v", err)
	}
	if n := w.gate.Stats().Strangers; n > 16 {
		t.Errorf("%d strangers wait, want 16 at most", n)
	}
}

func TestFloods(t *testing.T) {
	w := newWorld(t, func(c *sshgate.Config) {
		c.Limits = sshgate.Limits{Grace: 300 * time.Millisecond, PerPrefix: 4, Channels: 8, PerUser: 12, Connections: 3}
	})
	ada := w.client("ada")
	t.Run("nobody speaks", func(t *testing.T) {
		var conns []net.Conn
		for range 12 {
			c, err := net.Dial("tcp", w.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			conns = append(conns, c)
		}
		for _, c := range conns { // all are closed, those beyond the limit at once
			_ = c.SetReadDeadline(time.Now().Add(soon))
			if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("a silent connection is kept")
			}
		}
		if w.gate.Stats().Dropped == 0 {
			t.Error("none was dropped")
		}
		if out, _, err := run(t, ada, "echo fine", ""); out != "fine\n" {
			t.Errorf("who is in already: %q, %v", out, err)
		}
	})
	within(t, "the strangers are gone", func() bool { return w.gate.Stats().Strangers == 0 })
	t.Run("channels", func(t *testing.T) {
		var open []ssh.Channel
		refused := 0
		flood := func() {
			for range 40 {
				ch, reqs, err := ada.OpenChannel("session", nil)
				if err != nil {
					if e, ok := errors.AsType[*ssh.OpenChannelError](err); !ok || e.Reason != ssh.ResourceShortage {
						t.Fatalf("refused with %v", err)
					}
					refused++
					continue
				}
				go ssh.DiscardRequests(reqs)
				open = append(open, ch)
			}
		}
		// The channel of the last command may end a moment after the command did.
		within(t, "eight are open", func() bool { flood(); return len(open) >= 8 })
		flood()
		if len(open) != 8 || refused < 32 {
			t.Errorf("%d channels are open and %d refused, want 8 and 32 or more", len(open), refused)
		}
		for _, ch := range open {
			_ = ch.Close()
		}
		within(t, "they can be opened again", func() bool {
			s, err := ada.NewSession()
			if err == nil {
				_ = s.Close()
			}
			return err == nil
		})
	})
	t.Run("requests", func(t *testing.T) {
		for i := range 3000 {
			ok, _, err := ada.SendRequest("flood@example.com", i%2 == 0, bytes.Repeat([]byte("x"), 100))
			if ok || err != nil {
				t.Fatalf("request %d: %v, %v", i, ok, err)
			}
		}
		ch, reqs, err := ada.OpenChannel("session", nil)
		if err != nil {
			t.Fatal(err)
		}
		defer ch.Close()
		go ssh.DiscardRequests(reqs)
		set := 0
		for i := range 200 {
			ok, err := ch.SendRequest("env", true, ssh.Marshal(struct{ Name, Value string }{fmt.Sprintf("LC_%c%c", 'A'+i%26, 'A'+i/26), strings.Repeat("v", 30_000)}))
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				set++
			}
		}
		if set != 0 {
			t.Errorf("%d variables of 30 kB each are kept", set)
		}
	})
	t.Run("connections", func(t *testing.T) {
		for range 2 {
			w.client("ada")
		}
		if _, err := w.try("ada", w.people.signers["ada"]); err == nil {
			t.Error("a fourth connection")
		}
		w.client("bob")
	})
	t.Run("a window that nobody opens", func(t *testing.T) {
		ch, reqs, err := ada.OpenChannel("session", nil)
		if err != nil {
			t.Fatal(err)
		}
		go ssh.DiscardRequests(reqs)
		pid := filepath.Join(w.rooms.home("ada"), "yes.pid")
		if ok, err := ch.SendRequest("exec", true, ssh.Marshal(struct{ C string }{"echo $$ > yes.pid; exec yes"})); !ok || err != nil {
			t.Fatal(ok, err)
		}
		within(t, "it runs", func() bool { b, _ := os.ReadFile(pid); return len(b) > 0 })
		if out, _, err := run(t, ada, "echo beside", ""); out != "beside\n" {
			t.Errorf("%q, %v", out, err)
		}
		_ = ch.Close()
		number, _ := os.ReadFile(pid)
		within(t, "it is gone", func() bool { _, err := os.Stat("/proc/" + strings.TrimSpace(string(number))); return err != nil })
	})
	t.Run("a banned address", func(t *testing.T) {
		w.people.mu.Lock()
		w.people.banned = true
		w.people.mu.Unlock()
		c, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got, _ := io.ReadAll(c); string(got) != "Not allowed at this time\r\n" {
			t.Errorf("it reads %q", got)
		}
	})
}

func TestNothingRunsWithoutTheJournal(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client("ada")
	w.journal.mu.Lock()
	w.journal.broken = true
	w.journal.mu.Unlock()
	out, errs, err := run(t, c, "touch ran; echo ran", "")
	if exitCode(err) != 255 || out != "" || !strings.Contains(errs, "audit journal cannot be written") {
		t.Errorf("%q, %q, %v", out, errs, err)
	}
	if _, err := os.Stat(filepath.Join(w.rooms.home("ada"), "ran")); err == nil {
		t.Error("it ran")
	}
	if _, err := c.Dial("tcp", "127.0.0.1:1"); err == nil {
		t.Error("it forwards")
	}
}

func TestTheFilterOnOutput(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client("ada")
	if out, _, err := run(t, c, "echo the value is "+knownSecret+", says it", ""); err != nil || strings.Contains(out, knownSecret) || !strings.Contains(out, "REDACTED") {
		t.Errorf("a command's text: %q, %v", out, err)
	}
	s := session(t, c)
	if err := s.RequestPty("xterm", 24, 80, ssh.TerminalModes{ssh.ECHO: 0}); err != nil {
		t.Fatal(err)
	}
	out, err := s.Output("printf '%s' 'correct-Horse-'; printf '%s\\n' '7battery-staple'; echo end")
	if err != nil || strings.Contains(string(out), knownSecret) || !strings.Contains(string(out), "end") {
		t.Errorf("a terminal: %q, %v", out, err)
	}
	within(t, "it was reported", func() bool { return slices.Contains(w.findings.rules(), "secret:db") })

	// What is no text passes byte for byte, and what is a transfer, too.
	data := make([]byte, 3<<20)
	_, _ = rand.Read(data)
	copy(data[1<<20:], knownSecret)
	if err := os.WriteFile(filepath.Join(w.rooms.home("ada"), "blob"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _, err := run(t, c, "cat blob", ""); err != nil || out != string(data) {
		t.Errorf("binary output was changed: %d bytes of %d, %v", len(out), len(data), err)
	}
	text := strings.Repeat("key = "+knownSecret+"\n", 50)
	if err := os.WriteFile(filepath.Join(w.rooms.home("ada"), "scp"), []byte("#!/bin/sh\ncat notes\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.rooms.home("ada"), "notes"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _, err := run(t, c, "./scp -f notes", ""); err != nil || out != text {
		t.Errorf("a transfer was changed: %d bytes of %d, %v", len(out), len(text), err)
	}
}

// recorder keeps what it is told, or fails.
type recorder struct {
	mu     sync.Mutex
	events []sshlive.Event
	output bytes.Buffer
	ends   []sshlive.End
	fail   bool
	broken bool
}

func (r *recorder) Begin(_ context.Context, _ sshlive.Meta) (sshlive.Recording, error) {
	if r.fail {
		return nil, errors.New("no disk")
	}
	return r, nil
}

func (r *recorder) Output(p []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken {
		return errors.New("disk full")
	}
	r.output.Write(p)
	return nil
}
func (r *recorder) Input([]byte) error    { return nil }
func (r *recorder) Resize(int, int) error { return nil }
func (r *recorder) Event(e sshlive.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
	return nil
}

func (r *recorder) Close(e sshlive.End) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ends = append(r.ends, e)
	return nil
}

func TestSFTPIsTakenDownFileByFile(t *testing.T) {
	rec := &recorder{}
	w := newWorld(t, func(c *sshgate.Config) { c.Recorder = rec })
	w.setPolicy(sshgate.Policy{Recording: sshgate.RecordStrict})
	c := w.client("ada")
	f, err := sftp.NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 5<<20)
	_, _ = rand.Read(data)
	up, err := f.Create("blob")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := up.ReadFrom(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	_ = up.Close()
	down, err := f.Open("blob")
	if err != nil {
		t.Fatal(err)
	}
	var back bytes.Buffer
	if _, err := down.WriteTo(&back); err != nil || !bytes.Equal(back.Bytes(), data) {
		t.Fatalf("%d bytes came back, %v", back.Len(), err)
	}
	_ = down.Close()
	if err := f.Rename("blob", "blob2"); err != nil {
		t.Fatal(err)
	}
	if err := f.Remove("blob2"); err != nil {
		t.Fatal(err)
	}
	note, _ := f.Create("note")
	fmt.Fprintf(note, "it is %s\n", knownSecret)
	_ = note.Close()
	_ = f.Close()
	within(t, "the session ended", func() bool { rec.mu.Lock(); defer rec.mu.Unlock(); return len(rec.ends) == 1 })
	type line struct {
		kind sshlive.EventKind
		path string
		size int64
		up   bool
	}
	var got []line
	for _, e := range rec.events {
		got = append(got, line{e.Kind, e.Path, e.Size, e.Up})
	}
	for _, want := range []line{
		{sshlive.FileWrite, "blob", int64(len(data)), true},
		{sshlive.FileRead, "blob", int64(len(data)), false},
		{sshlive.FileRename, "blob", 0, true},
		{sshlive.FileRemove, "blob2", 0, true},
		{sshlive.FileWrite, "note", int64(len(knownSecret)) + 7, true},
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no event %+v in %+v", want, got)
		}
	}
	if !slices.Contains(w.findings.rules(), "secret:db") {
		t.Error("the secret in an upload was not reported")
	}
}

func TestStrictRecordingOrNothing(t *testing.T) {
	rec := &recorder{fail: true}
	w := newWorld(t, func(c *sshgate.Config) { c.Recorder = rec })
	w.setPolicy(sshgate.Policy{Recording: sshgate.RecordStrict})
	c := w.client("ada")
	if out, errs, err := run(t, c, "echo ran", ""); exitCode(err) != 255 || out != "" || !strings.Contains(errs, "recorded") {
		t.Errorf("without a recording: %q, %q, %v", out, errs, err)
	}
	w.setPolicy(sshgate.Policy{Recording: sshgate.RecordBestEffort})
	if out, _, err := run(t, c, "echo ran", ""); out != "ran\n" {
		t.Errorf("best effort: %q, %v", out, err)
	}
	if w.journal.count(audit.SSHUnrecorded) != 2 {
		t.Errorf("%d failures are in the journal, want 2", w.journal.count(audit.SSHUnrecorded))
	}
	rec.fail = false
	w.setPolicy(sshgate.Policy{Recording: sshgate.RecordStrict})
	s := session(t, c)
	if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
		t.Fatal(err)
	}
	in, _ := s.StdinPipe()
	out, _ := s.StdoutPipe()
	if err := s.Start("echo one; read x; echo two; sleep 1000"); err != nil {
		t.Fatal(err)
	}
	readUntil(t, out, "one\r\n")
	rec.mu.Lock()
	rec.broken = true
	rec.mu.Unlock()
	fmt.Fprint(in, "go\n")
	if err := s.Wait(); err == nil {
		t.Error("a strict session went on without its recording")
	}
}

func TestWatchingAndEndingOneSession(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client("ada")
	s := session(t, c)
	if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
		t.Fatal(err)
	}
	if err := s.Start("echo seen; sleep 1000"); err != nil {
		t.Fatal(err)
	}
	var id string
	within(t, "it is listed", func() bool {
		for _, one := range w.gate.Live().List() {
			if one.Kind == sshlive.Exec && one.User == "ada" {
				id = one.ID
			}
		}
		return id != ""
	})
	watch, ok := w.gate.Live().Watch(id)
	if !ok {
		t.Fatal("it cannot be watched")
	}
	defer watch.Close()
	text := ""
	for !strings.Contains(text, "seen") {
		piece, open := <-watch.C
		if !open {
			t.Fatalf("the session ended; it showed %q", text)
		}
		text += string(piece.Data)
	}
	if !w.gate.Live().Kill(id, "ended by root") {
		t.Fatal("it cannot be ended")
	}
	if err := s.Wait(); err == nil {
		t.Error("it ended well")
	}
	for range watch.C { //nolint:revive // until it is closed
	}
	if out, _, err := run(t, c, "echo others go on", ""); out != "others go on\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestHostKeysAreAnnouncedAndProved(t *testing.T) {
	next := newKey(t)
	w := newWorld(t, func(c *sshgate.Config) { c.NextKeys = []ssh.Signer{next} })
	nc, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	conn, chans, reqs, err := ssh.NewClientConn(nc, w.addr, w.clientConfig("ada", w.people.signers["ada"]))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		for ch := range chans {
			_ = ch.Reject(ssh.UnknownChannelType, "")
		}
	}()
	req := <-reqs
	go ssh.DiscardRequests(reqs)
	if req.Type != "hostkeys-00@openssh.com" || !bytes.Contains(req.Payload, next.PublicKey().Marshal()) {
		t.Fatalf("the first request is %q", req.Type)
	}
	blob := next.PublicKey().Marshal()
	ask := append(binary.BigEndian.AppendUint32(nil, uint32(len(blob))), blob...)
	ok, answer, err := conn.SendRequest("hostkeys-prove-00@openssh.com", true, ask)
	if !ok || err != nil || len(answer) < 4 {
		t.Fatalf("prove: %v, %v", ok, err)
	}
	var sig ssh.Signature
	if err := ssh.Unmarshal(answer[4:], &sig); err != nil {
		t.Fatal(err)
	}
	data := ssh.Marshal(struct {
		Name    string
		Session []byte
		HostKey []byte
	}{"hostkeys-prove-00@openssh.com", conn.SessionID(), blob})
	if err := next.PublicKey().Verify(data, &sig); err != nil {
		t.Errorf("the proof is none: %v", err)
	}
	other := newKey(t).PublicKey().Marshal()
	if ok, _, _ := conn.SendRequest("hostkeys-prove-00@openssh.com", true, append(binary.BigEndian.AppendUint32(nil, uint32(len(other))), other...)); ok {
		t.Error("it proves a key that it does not hold")
	}
}
