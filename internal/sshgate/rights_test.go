package sshgate_test

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/baileyhq/bailey/internal/edge/peer"
	"github.com/baileyhq/bailey/internal/sshgate"
)

// Somebody who joins a group, or leaves one, or is no longer let in at all, has
// that in a connection that was open before.
func TestRightsReachOpenConnections(t *testing.T) {
	w := newWorld(t, nil)
	ada, bob := w.client("ada"), w.client("bob")
	for _, c := range []*ssh.Client{ada, bob} {
		if _, _, err := run(t, c, "true", ""); err != nil {
			t.Fatal(err)
		}
	}
	w.people.mu.Lock()
	w.people.groups, w.people.gone = map[string][]string{"ada": {"vision"}}, map[string]bool{"bob": true}
	w.people.mu.Unlock()
	if _, _, err := run(t, ada, "true", ""); err != nil {
		t.Fatal(err)
	}
	w.rooms.mu.Lock()
	asked := w.rooms.byOwner["u-ada"].asked
	w.rooms.mu.Unlock()
	if !slices.Equal(asked.Groups, []string{"vision"}) {
		t.Errorf("policy was asked about ada in %v, want her group of now", asked.Groups)
	}
	if out, errs, err := run(t, bob, "echo in", ""); exitCode(err) != 255 || out != "" || !strings.Contains(errs, "not accepted") {
		t.Errorf("bob, whose key is gone: %q, %q, %v", out, errs, err)
	}
	if conn, err := bob.Dial("tcp", "127.0.0.1:1"); err == nil {
		_ = conn.Close()
		t.Error("bob, whose key is gone, forwards")
	}
}

// Attack 7: who is calling is what a listed proxy says, and what nobody else
// says. A proxy that says nothing keeps nobody waiting.
func TestWhoIsCallingBehindAProxy(t *testing.T) {
	w := newWorld(t, func(c *sshgate.Config) { c.Limits.Strangers = 8 })
	const caller = "203.0.113.9"
	serve := func(proxies ...string) net.Addr {
		t.Helper()
		trusted, err := peer.ParseTrust(proxies)
		if err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- w.gate.Serve(peer.Listen(ln, trusted)) }()
		t.Cleanup(func() {
			_ = ln.Close()
			if err := <-served; err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
		return ln.Addr()
	}
	through := func(at net.Addr, header string) error {
		t.Helper()
		nc, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		if _, err := io.WriteString(nc, header); err != nil {
			t.Fatal(err)
		}
		sc, channels, requests, err := ssh.NewClientConn(nc, at.String(), w.clientConfig("ada", w.people.signers["ada"]))
		if err != nil {
			return err
		}
		return ssh.NewClient(sc, channels, requests).Close()
	}
	last := func() string {
		w.people.mu.Lock()
		defer w.people.mu.Unlock()
		if len(w.people.signIns) == 0 {
			return "nobody"
		}
		return w.people.signIns[len(w.people.signIns)-1].IP
	}
	header := fmt.Sprintf("PROXY TCP4 %s 192.0.2.1 40000 22\r\n", caller)
	listed, others := serve("127.0.0.1"), serve("192.0.2.77")
	if err := through(others, header); err == nil || last() != "nobody" {
		t.Errorf("a header of somebody who is not listed: %v, from %s", err, last())
	}
	if err := through(listed, ""); err == nil || last() != "nobody" {
		t.Errorf("no header of a listed proxy: %v, from %s", err, last())
	}
	if err := through(listed, header); err != nil || last() != caller {
		t.Errorf("a listed proxy: %v, from %s; want %s", err, last(), caller)
	}
	// Proxies that say nothing, more of them than there may be strangers.
	var silent []net.Conn
	defer func() {
		for _, c := range silent {
			_ = c.Close()
		}
	}()
	for range 20 {
		c, err := net.Dial("tcp", listed.String())
		if err != nil {
			t.Fatal(err)
		}
		silent = append(silent, c)
	}
	within(t, "more silent proxies than may be are dropped", func() bool { return w.gate.Stats().Dropped >= 12 })
	if err := through(others, ""); err != nil || last() != "127.0.0.1" {
		t.Errorf("somebody who comes without a proxy: %v, from %s", err, last())
	}
}
