package load

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"
)

// Sockets says which WebSockets to open.
type Sockets struct {
	Addr   string      // host:port to connect to, whatever URL says
	TLS    *tls.Config // nil: plain
	URL    string      // ws:// or wss://
	Header http.Header
	N      int
}

// Idle are WebSockets that are open and have each carried one message there and
// back, so that whatever a proxy sets up lazily is set up.
type Idle struct{ conns []*websocket.Conn }

// Open opens them, sixteen at a time, and proves each with an echoed message.
func (s Sockets) Open(ctx context.Context) (*Idle, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	client := s.client()
	idle := &Idle{}
	var mu sync.Mutex // guards idle.conns
	var g sync.WaitGroup
	todo := make(chan struct{}, s.N)
	for range s.N {
		todo <- struct{}{}
	}
	close(todo)
	for range 16 {
		g.Go(func() {
			for range todo {
				if ctx.Err() != nil {
					return
				}
				c, err := s.open(ctx, client)
				if err != nil {
					cancel(fmt.Errorf("open a WebSocket to %s: %w", s.URL, err))
					return
				}
				mu.Lock()
				idle.conns = append(idle.conns, c)
				mu.Unlock()
			}
		})
	}
	g.Wait()
	if err := context.Cause(ctx); err != nil {
		idle.Close()
		return nil, err
	}
	return idle, nil
}

func (s Sockets) client() *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: s.TLS, // without h2 among its protocols: WebSockets are upgrades of HTTP/1.1
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", s.Addr)
		},
	}}
}

func (s Sockets) open(ctx context.Context, client *http.Client) (*websocket.Conn, error) {
	dctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	c, resp, err := websocket.Dial(dctx, s.URL, &websocket.DialOptions{HTTPClient: client, HTTPHeader: s.Header})
	if err != nil {
		if resp != nil {
			return nil, fmt.Errorf("%s: %w", resp.Status, err)
		}
		return nil, err
	}
	if err := echo(ctx, c); err != nil {
		_ = c.CloseNow()
		return nil, err
	}
	return c, nil
}

// echo types a word into a terminal that prints what is typed. The word may come
// back in pieces: a filter may hold its end for a moment.
func echo(ctx context.Context, c *websocket.Conn) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	const word = "are you there"
	if err := c.Write(ctx, websocket.MessageText, typed(word)); err != nil {
		return err
	}
	for got := ""; got != word; {
		text, err := printed(ctx, c)
		if err != nil {
			return err
		}
		if got += text; !strings.HasPrefix(word, got) {
			return fmt.Errorf("echoed %.40q, want %q", got, word)
		}
	}
	return nil
}

// typed is the message with which a browser sends what was typed.
func typed(text string) []byte {
	b, _ := json.Marshal([]string{"stdin", text}) // strings always encode
	return b
}

// printed reads what a terminal prints next.
func printed(ctx context.Context, c *websocket.Conn) (string, error) {
	_, b, err := c.Read(ctx)
	if err != nil {
		return "", err
	}
	var m []string
	if err := json.Unmarshal(b, &m); err != nil || len(m) != 2 || m[0] != "stdout" {
		return "", fmt.Errorf("%.60q is not what a terminal prints", b)
	}
	return m[1], nil
}

// Alive proves that every socket still carries messages: what was measured were
// open sockets, not closed ones.
func (i *Idle) Alive(ctx context.Context) error {
	for n, c := range i.conns {
		if err := echo(ctx, c); err != nil {
			return fmt.Errorf("socket %d of %d is dead: %w", n+1, len(i.conns), err)
		}
	}
	if len(i.conns) == 0 {
		return errors.New("there is no socket")
	}
	return nil
}

// Close drops all connections without a closing handshake.
func (i *Idle) Close() {
	for _, c := range i.conns {
		_ = c.CloseNow()
	}
}
