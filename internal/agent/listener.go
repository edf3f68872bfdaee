package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/baileyhq/bailey/internal/agent/wire"
)

const (
	// maxCalls bounds the callers that wait at all listeners together.
	maxCalls = 256
	// callWait is how long a caller waits for the server to take the call.
	callWait = 30 * time.Second
)

// A call is somebody who called at a listener and is waiting to be taken.
type call struct {
	conn  duplex
	owner *frames // of the listener it came by
}

// listen opens a listener, tells the server of every caller, and closes it when
// the connection ends. Callers become connections of their own.
func (x *sessions) listen(ctx context.Context, c duplex, early []byte) {
	r := wire.NewReader(io.MultiReader(bytes.NewReader(early), c))
	var want wire.Socket
	if first(c, r, &want) != nil {
		return
	}
	out := &frames{c: c}
	ln, addr, clean, err := open(want)
	if err != nil {
		_ = out.send(wire.Failed, []byte(err.Error()))
		_ = c.CloseWrite()
		return
	}
	defer clean()
	done := make(chan struct{})
	go func() { // ends with ln, and is waited for
		defer close(done)
		x.accept(ctx, ln, out)
	}()
	if out.send(wire.Bound, []byte(addr)) == nil {
		_, _, _ = r.Next() // nothing is expected but the end
	}
	_ = ln.Close()
	<-done
	x.dropCalls(out)
}

// open opens what a server asked for: on a loopback address and an
// unprivileged port, or on a path.
func open(want wire.Socket) (ln net.Listener, addr string, clean func(), err error) {
	clean = func() {}
	switch want.Network {
	case "tcp":
		at, err := netip.ParseAddrPort(want.Addr)
		if err != nil || !at.Addr().IsLoopback() || at.Addr().Is4In6() || at.Addr().Zone() != "" {
			return nil, "", nil, fmt.Errorf("%.80q is not a loopback address", want.Addr)
		}
		if at.Port() != 0 && at.Port() < 1024 {
			return nil, "", nil, fmt.Errorf("port %d is privileged; use one from 1024 on", at.Port())
		}
		ln, err = net.Listen("tcp", at.String()) //nolint:noctx // a loopback bind does not wait
		if err != nil {
			return nil, "", nil, err
		}
		return ln, ln.Addr().String(), clean, nil
	case "unix", "agent":
		path := want.Addr
		if want.Network == "agent" {
			dir, err := os.MkdirTemp(os.TempDir(), "ssh-")
			if err != nil {
				return nil, "", nil, err
			}
			path = filepath.Join(dir, "agent."+strconv.Itoa(os.Getpid()))
			clean = func() { _ = os.RemoveAll(dir) }
		} else if _, err := parseTarget("unix", path); err != nil {
			return nil, "", nil, err
		}
		if _, err := os.Lstat(path); err == nil {
			clean()
			return nil, "", nil, fmt.Errorf("%.120q is there already", path)
		}
		ln, err := net.Listen("unix", path) //nolint:noctx // a bind does not wait
		if err == nil {
			err = os.Chmod(path, 0o600)
		}
		if err != nil {
			clean()
			return nil, "", nil, err
		}
		return ln, path, clean, nil
	}
	return nil, "", nil, fmt.Errorf("%.20q is no network to listen on", want.Network)
}

// accept tells the server of callers until the listener is closed.
func (x *sessions) accept(ctx context.Context, ln net.Listener, out *frames) {
	for {
		conn, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(50 * time.Millisecond): // out of descriptors, most likely
			}
			continue
		}
		d, ok := conn.(duplex)
		if !ok {
			_ = conn.Close()
			continue
		}
		note, ok := x.hold(d, out)
		if !ok || out.send(wire.Caller, note) != nil {
			_ = conn.Close()
		}
	}
}

// hold keeps a caller until it is taken, or has waited for too long.
func (x *sessions) hold(conn duplex, owner *frames) (note []byte, ok bool) {
	var id [16]byte
	_, _ = rand.Read(id[:])
	key := hex.EncodeToString(id[:])
	from := conn.RemoteAddr().String()
	if conn.RemoteAddr().Network() == "unix" {
		from = ""
	}
	note, err := json.Marshal(wire.Call{ID: key, From: from})
	x.mu.Lock()
	defer x.mu.Unlock()
	if err != nil || len(x.calls) >= maxCalls {
		return nil, false
	}
	x.calls[key] = &call{conn: conn, owner: owner}
	time.AfterFunc(callWait, func() {
		if conn := x.takeCall(key); conn != nil {
			_ = conn.Close()
		}
	})
	return note, true
}

// takeCall hands a caller over; nil when there is none (any more).
func (x *sessions) takeCall(id string) duplex {
	x.mu.Lock()
	defer x.mu.Unlock()
	c := x.calls[id]
	delete(x.calls, id)
	if c == nil {
		return nil
	}
	return c.conn
}

// dropCalls closes the callers of a listener that is gone.
func (x *sessions) dropCalls(owner *frames) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, c := range x.calls {
		if c.owner == owner {
			delete(x.calls, id)
			_ = c.conn.Close()
		}
	}
}
