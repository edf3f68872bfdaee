package load

import (
	"context"
	"fmt"
	"time"

	"github.com/coder/websocket"
)

// Type opens one terminal and sends its text in pieces, one at each tick of a
// clock that does not wait for answers. It returns how long after its tick each
// piece had come back whole: a piece that waits behind a slow one has waited
// since its own tick.
func (s Sockets) Type(ctx context.Context, text string, piece int, every time.Duration) ([]time.Duration, error) {
	c, err := s.open(ctx, s.client())
	if err != nil {
		return nil, fmt.Errorf("open a terminal at %s: %w", s.URL, err)
	}
	defer func() { _ = c.CloseNow() }()
	c.SetReadLimit(64 << 20)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n := len(text) / piece
	begin := time.Now().Add(every)
	sent := make(chan error, 1)
	go func() {
		for i := range n {
			time.Sleep(time.Until(begin.Add(time.Duration(i) * every)))
			if err := c.Write(ctx, websocket.MessageText, typed(text[i*piece:(i+1)*piece])); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	waits := make([]time.Duration, 0, n)
	for got := 0; len(waits) < n; {
		printed, err := printed(ctx, c)
		if err != nil {
			return nil, fmt.Errorf("after %d of %d pieces: %w", len(waits), n, err)
		}
		got += len(printed)
		for len(waits) < n && (len(waits)+1)*piece <= got {
			waits = append(waits, time.Since(begin.Add(time.Duration(len(waits))*every)))
		}
	}
	return waits, <-sent
}
