package gateway_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/inspect"
)

// aKey has nothing before it that tells what it is once it is cut in two.
var aKey = "ghp_" + "q8Zk3Wn5Vb1Xc7Rt" + "9Ym2Lp4Hs6Jd0FgNxTuA"

// A cell prints the end of a token, goes back to the start of the line and prints
// the beginning over what stands there: JupyterLab would show the token. A
// progress bar does the same and comes through as it was, to the last byte.
func TestOverwrittenTextInNotebooks(t *testing.T) {
	const k = 17
	var bars []string
	for i := range 21 {
		bars = append(bars, fmt.Sprintf("\r%3d%%|%-20s| %d/20 [00:0%d<00:0%d, %.2fit/s]", 5*i, strings.Repeat("█", i), i, i%10, 9-i%10, 9.5+float64(i)))
	}
	for _, tt := range []struct {
		pieces []string
		last   string // what would make it whole
	}{
		{[]string{strings.Repeat("-", k) + aKey[k:] + "\r" + aKey[:k], "\n"}, aKey[:k]},
		{[]string{strings.Repeat("-", k) + aKey[k:], "\r" + aKey[:k], "\n"}, aKey[:k]},
		{[]string{strings.Repeat("-", k) + aKey[k:], "\r", aKey[:k/2], aKey[k/2 : k], "\n"}, aKey[:k]},
		{[]string{aKey[:k] + "??" + aKey[k+2:], strings.Repeat("\b", len(aKey)-k), aKey[k : k+2], "\n"}, aKey[k:k+2] + "\n"},
	} {
		pieces := tt.pieces
		kern := &kernel{say: func(c *websocket.Conn, v1 bool) {
			for _, text := range slices.Concat(bars, []string{"\n"}, pieces) {
				sendMessage(c, v1, printed(text))
			}
			sendMessage(c, v1, idle)
		}}
		w, found := inspectedWorld(t, kern, filter.Settings{})
		_, text := readUntilIdle(t, kernelSocket(t, w, true), true)
		rest, ok := strings.CutPrefix(text, strings.Join(bars, "")+"\n")
		if !ok {
			t.Errorf("the bar comes out as %q", text)
		}
		if !slices.ContainsFunc(found.rules(), func(r string) bool { return strings.HasPrefix(r, "github-") }) || strings.Contains(rest, tt.last) {
			t.Errorf("%q is shown as %q, found %v", pieces, rest, found.rules())
		}
	}
}

// A full-screen program draws a token in an order of its own: what is on the
// screen in the end is not the token. With a rule that blocks, the terminal is
// closed before it is.
func TestTokensDrawnInTerminals(t *testing.T) {
	var draw strings.Builder
	draw.WriteString("\x1b[?1049h\x1b[1;24r\x1b[2J")
	for i := range len(aKey) {
		at := i * 7 % len(aKey) // 7 and 40 have no common factor
		fmt.Fprintf(&draw, "\x1b[12;%dH%c", 20+at, aKey[at])
	}
	draw.WriteString("\x1b[24;1Hbye\x1b[?1049l$ ")
	k := &kernel{say: func(c *websocket.Conn, _ bool) {
		for text := range slices.Chunk([]byte(draw.String()), 50) {
			b, _ := json.Marshal([]string{"stdout", string(text)})
			_ = c.Write(context.Background(), websocket.MessageText, b)
		}
		_ = c.Write(context.Background(), websocket.MessageText, []byte(`["disconnect",1]`))
	}}
	read := func(w *world) (text string, err error) {
		c, _, err := w.socket(adaSlug, "/terminals/websocket/1")
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Write(t.Context(), websocket.MessageText, []byte(`["set_size",24,80,600,800]`))
		for {
			_, data, err := c.Read(t.Context())
			if err != nil {
				return text, err
			}
			var parts []any
			_ = json.Unmarshal(data, &parts)
			if parts[0] == "disconnect" {
				return text, nil
			}
			text += parts[1].(string)
		}
	}
	// left is what the row holds of the token in the end.
	left := func(text string) string {
		row := []byte(strings.Repeat(" ", 80))
		for part := range strings.SplitSeq(text, "\x1b[12;") {
			var at int
			var c string
			if n, _ := fmt.Sscanf(part, "%dH%1s", &at, &c); n == 2 {
				row[at-1] = c[0]
			}
		}
		return strings.TrimSpace(string(row))
	}
	if got := left(draw.String()); got != aKey {
		t.Fatalf("the screen is %q: the test is wrong", got)
	}
	w, found := inspectedWorld(t, k, filter.Settings{})
	text, err := read(w)
	if got := left(text); err != nil || len(got) != len(aKey) || got == aKey || !strings.HasSuffix(text, "$ ") || len(found.rules()) == 0 {
		t.Errorf("the row holds %q after %q, %v; found %v", got, text, err, found.rules())
	}
	w, _ = inspectedWorld(t, k, filter.Settings{Mode: inspect.Block})
	text, err = read(w)
	if got := websocket.CloseStatus(err); got != websocket.StatusPolicyViolation || left(text) == aKey {
		t.Errorf("with block the terminal shows %q, then %v", text, err)
	}
	eventually(t, "the terminal is closed", func() bool { return slices.Contains(k.requests(), "DELETE /api/terminals/1") })
}
