package sshgate_test

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// A port on which nobody listens is refused as OpenSSH refuses it, so that an
// editor tries again instead of talking to a channel that is dead; and one whose
// server speaks first loses none of its words.
func TestAForwardSaysWhetherAnybodyListens(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client("ada")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := ln.Addr().String()
	_ = ln.Close()
	_, err = c.Dial("tcp", closed)
	if e, ok := errors.AsType[*ssh.OpenChannelError](err); !ok || e.Reason != ssh.ConnectionFailed || !strings.Contains(e.Message, "nothing listens on "+closed) {
		t.Errorf("a closed port: %v, want a refusal that says so", err)
	}
	_, err = c.Dial("unix", filepath.Join(w.rooms.home("ada"), "no.sock"))
	if e, ok := errors.AsType[*ssh.OpenChannelError](err); !ok || e.Reason != ssh.ConnectionFailed {
		t.Errorf("a socket that is not there: %v, want a refusal", err)
	}
	// The way to the agent is not one to be led along: it starts processes.
	if _, err = c.Dial("unix", w.rooms.byOwner["u-ada"].sock); err == nil {
		t.Error("a forward reached the agent's own socket")
	}

	greeting := strings.Repeat("a server that speaks first ", 4000)
	if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, greeting)
			_, _ = io.Copy(conn, conn)
			_ = conn.Close()
		}
	}()
	for range 8 {
		conn, err := c.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "echo"); err != nil {
			t.Fatal(err)
		}
		if half, ok := conn.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
			t.Error("the channel cannot be half closed")
		}
		if got, err := io.ReadAll(conn); err != nil || string(got) != greeting+"echo" {
			t.Errorf("%d bytes came, %v; want %d", len(got), err, len(greeting)+4)
		}
		_ = conn.Close()
	}
}
