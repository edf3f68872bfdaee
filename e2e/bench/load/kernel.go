package load

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/coder/websocket"
)

// Tell opens one kernel's WebSocket, whose other end sends back what comes, and
// sends texts as what a cell prints, one at each tick of a clock that does not
// wait for answers. It returns how long after its tick each had come back whole.
// A message is looked at on its way in and on its way out.
func (s Sockets) Tell(ctx context.Context, texts []string, every time.Duration) ([]time.Duration, error) {
	dctx, dialled := context.WithTimeout(ctx, 30*time.Second)
	defer dialled()
	c, resp, err := websocket.Dial(dctx, s.URL, &websocket.DialOptions{HTTPClient: s.client(), HTTPHeader: s.Header})
	if err != nil {
		if resp != nil {
			return nil, fmt.Errorf("open a kernel at %s: %s: %w", s.URL, resp.Status, err)
		}
		return nil, fmt.Errorf("open a kernel at %s: %w", s.URL, err)
	}
	defer func() { _ = c.CloseNow() }()
	c.SetReadLimit(64 << 20)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	begin := time.Now().Add(every)
	sent := make(chan error, 1)
	go func() {
		for i, text := range texts {
			time.Sleep(time.Until(begin.Add(time.Duration(i) * every)))
			if err := c.Write(ctx, websocket.MessageText, stream(i, text)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	waits := make([]time.Duration, 0, len(texts))
	for got, want := 0, 0; len(waits) < len(texts); {
		_, b, err := c.Read(ctx)
		if err != nil {
			return nil, fmt.Errorf("after %d of %d messages: %w", len(waits), len(texts), err)
		}
		var m struct {
			Content struct {
				Text string `json:"text"`
			} `json:"content"`
		}
		if err := json.Unmarshal(b, &m); err != nil {
			return nil, fmt.Errorf("%.60q is no message of a kernel: %w", b, err)
		}
		got += len(m.Content.Text)
		for len(waits) < len(texts) && got >= want+len(texts[len(waits)]) {
			want += len(texts[len(waits)])
			waits = append(waits, time.Since(begin.Add(time.Duration(len(waits))*every)))
		}
	}
	return waits, <-sent
}

// stream is what a kernel sends when a cell prints text.
func stream(i int, text string) []byte {
	b, _ := json.Marshal(map[string]any{ // strings always encode
		"header":        map[string]string{"msg_id": fmt.Sprint("m", i), "msg_type": "stream", "session": "s", "username": "u", "version": "5.3"},
		"parent_header": map[string]string{"msg_id": "cell", "msg_type": "execute_request", "session": "s", "username": "u", "version": "5.3"},
		"msg_id":        fmt.Sprint("m", i), "msg_type": "stream", "metadata": map[string]any{}, "channel": "iopub", "buffers": []any{},
		"content": map[string]string{"name": "stdout", "text": text},
	})
	return b
}
