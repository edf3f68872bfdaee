package docker

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"github.com/baileyhq/bailey/internal/engine"
)

// reaching starts a workspace that reaches out, and listens for it.
func (b *bench) reaching(t *testing.T, e *Engine, s engine.Spec) (id string, l net.Listener) {
	t.Helper()
	s.Network = engine.NetworkProxied
	id = b.start(t, e, s)
	l, err := e.Egress(t.Context(), s.Run, s.UID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return id, l
}

// TestTheWayOutIsAllThereIs: a workspace that reaches out has no interface but
// loopback, no route, no resolver and nothing of the host's names, and cannot
// change anything about the socket.
func TestTheWayOutIsAllThereIs(t *testing.T) {
	b := newBench(t)
	e := b.engine(t)
	id, _ := b.reaching(t, e, b.spec())
	for script, want := range map[string]string{
		`ls /sys/class/net`:                                     "lo\n",
		`cat /proc/net/route | wc -l`:                           "1\n", // the heading
		`awk '{print $NF}' /proc/net/ipv6_route | sort -u`:      "lo\n",
		`grep -c nameserver /etc/resolv.conf`:                   "0\n",
		`nslookup example.org >/dev/null 2>&1; echo $?`:         "1\n",
		`echo $HTTP_PROXY $https_proxy $BAILEY_NETWORK`:         "http://127.0.0.1:3128 http://127.0.0.1:3128 proxied\n",
		`stat -c '%u %a' /opt/bailey/egress/egress.sock`:        "20001 600\n",
		`stat -c '%u %a' /opt/bailey/egress`:                    "0 755\n",
		`ping -c1 -W1 169.254.169.254 >/dev/null 2>&1; echo $?`: "1\n",
	} {
		if out, _ := run(t, e, id, "/bin/sh", "-c", script); out != want {
			t.Errorf("%s: %q, want %q", script, out, want)
		}
	}
	const sock = "/opt/bailey/egress/egress.sock"
	for _, script := range []string{
		"rm -f " + sock, "mv " + sock + " /tmp/x", "ln -s /run/bailey/agent.sock /opt/bailey/egress/x", "chmod 777 " + sock,
		"echo x > " + sock, "touch /opt/bailey/egress/x", "mkdir /opt/bailey/egress2", "mv /opt/bailey /opt/b2", "mv /opt/bailey/egress /tmp/e",
		"mount -t tmpfs x /opt/bailey/egress", "umount /opt/bailey/egress", "chown 20001 /opt/bailey/egress", "ln " + sock + " /tmp/kept",
		"echo nameserver 192.0.2.1 > /etc/resolv.conf",
	} {
		if out, code := run(t, e, id, "/bin/sh", "-c", script); code == 0 {
			t.Errorf("%s worked: %q", script, out)
		}
	}
}

// TestSwappedSocketsLeadNowhere: should the sockets of two people be exchanged
// on the host, by a mistake or by a backup put back in the wrong place, neither
// speaks in the other's name.
func TestSwappedSocketsLeadNowhere(t *testing.T) {
	b := newBench(t)
	e := b.engine(t)
	alice, bob := b.spec(), b.spec()
	bob.Name, bob.UID = "bob", 20002
	_, la := b.reaching(t, e, alice)
	_, lb := b.reaching(t, e, bob)
	path := func(s engine.Spec) string { return filepath.Join(e.runs.Name(), s.Run, egressDir, "egress.sock") }
	if err := errors.Join(os.Rename(path(alice), path(alice)+".x"), os.Rename(path(bob), path(alice)), os.Rename(path(alice)+".x", path(bob))); err != nil {
		t.Fatal(err)
	}
	// With the owners put right as well, so that connecting works.
	if err := errors.Join(os.Chown(path(alice), alice.UID, alice.UID), os.Chown(path(bob), bob.UID, bob.UID)); err != nil {
		t.Fatal(err)
	}
	for _, from := range []struct {
		s  engine.Spec
		at net.Listener
	}{{alice, lb}, {bob, la}} {
		deadline := time.Now().Add(2 * time.Second)
		if err := from.at.(*egressListener).SetDeadline(deadline); err != nil {
			t.Fatal(err)
		}
		heard := make(chan error, 1)
		go func() {
			c, err := from.at.Accept()
			if err == nil {
				c.Close()
			}
			heard <- err
		}()
		c, err := e.Dial(t.Context(), from.s.Run, from.s.UID, "unix", engine.EgressSocket)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if got, err := io.ReadAll(c); len(got) > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s at the other's listener: %q, %v; want the end at once", from.s.Name, got, err)
		}
		_ = c.Close()
		if err := <-heard; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the other's listener took %s in: %v", from.s.Name, err)
		}
	}
}

// TestBridgeKeepsNeighboursApart: who wants an open network gets one, and
// Verify knows it; other workspaces still cannot be reached.
func TestBridgeKeepsNeighboursApart(t *testing.T) {
	b := newBench(t)
	e := b.engine(t)
	t.Cleanup(func() {
		if _, err := b.api.NetworkRemove(context.WithoutCancel(t.Context()), e.bridgeName(), client.NetworkRemoveOptions{}); err != nil {
			t.Errorf("remove network: %v", err)
		}
	})
	alice, bob := b.spec(), b.spec()
	alice.Network, bob.Network = engine.NetworkBridge, engine.NetworkBridge
	bob.Name, bob.UID = "bob", 20002
	a, z := b.start(t, e, alice), b.start(t, e, bob)
	if found, err := e.Verify(t.Context(), a, alice); err != nil || len(found) > 0 {
		t.Errorf("Verify: %+v, %v", found, err)
	}
	plain := alice
	plain.Network = engine.NetworkNone
	if found, err := e.Verify(t.Context(), a, plain); err != nil || len(found) == 0 {
		t.Errorf("Verify against a Spec without network: %+v, %v; want findings", found, err)
	}
	if out, _ := run(t, e, a, "/bin/sh", "-c", "ls /sys/class/net"); !strings.Contains(out, "eth0") {
		t.Errorf("interfaces of a workspace with a bridge: %q", out)
	}
	if _, err := e.Egress(t.Context(), alice.Run, alice.UID); !errors.Is(err, engine.ErrNotFound) {
		t.Errorf("Egress of a workspace with a bridge: %v", err)
	}
	c, err := b.api.ContainerInspect(t.Context(), z, client.ContainerInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ip := c.Container.NetworkSettings.Networks[e.bridgeName()].IPAddress
	// Something listens there: the first process's own port is on loopback, so
	// this one is started for it.
	session, err := e.Exec(t.Context(), z, engine.ExecSpec{Cmd: []string{"/bin/sh", "-c", "echo hello | nc -l -p 7777"}})
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	if out, code := run(t, e, a, "/bin/sh", "-c", "sleep 0.3; nc -w 2 "+ip.String()+" 7777 </dev/null"); code == 0 || out != "" {
		t.Errorf("alice reached bob at %s: %q", ip, out)
	}
}
