package gateway_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/gobwas/ws"

	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/gateway"
	"github.com/baileyhq/bailey/internal/inspect"
	"github.com/baileyhq/bailey/internal/jupyter"
	"github.com/baileyhq/bailey/internal/secret"
)

// aJWT is the example of jwt.io, which the rule must not take for an example.
var aJWT = strings.Join([]string{
	"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
	"eyJzdWIiOiI4ODIxMzQ1NTAxIiwibmFtZSI6IkFkYSIsImlhdCI6MTc2MzYxMTIwMH0",
	"Qm9Zf3kT7xw1Lr8uVb2nYc5hJd0sGq4eAa6iMpRtXzU",
}, ".")

// findings is what a filter reported.
type findings struct {
	mu   sync.Mutex
	list []filter.Finding
}

func (f *findings) report(x filter.Finding) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, x)
}

func (f *findings) rules() (names []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range f.list {
		names = append(names, x.Rule)
	}
	return names
}

func compile(tb testing.TB) *inspect.Set {
	tb.Helper()
	set, err := compiled()
	if err != nil {
		tb.Fatal(err)
	}
	return set
}

var compiled = sync.OnceValues(func() (*inspect.Set, error) { return inspect.Compile(inspect.Config{}) })

// inspectedWorld is a world whose gateway looks at what passes.
func inspectedWorld(tb testing.TB, h http.Handler, settings filter.Settings) (*world, *findings) {
	tb.Helper()
	found := &findings{}
	f, err := filter.New(filter.Config{
		Rules: compile(tb), Report: found.report, Key: secret.New("placeholders"), Settings: func(string) filter.Settings { return settings },
	})
	if err != nil {
		tb.Fatal(err)
	}
	return newWorld(tb, h, func(c *gateway.Config) { c.Filter = f }), found
}

// A kernel is a Jupyter server that says what a test wants on a kernel's
// WebSocket, and remembers what it was asked.
type kernel struct {
	say func(c *websocket.Conn, v1 bool)

	mu    sync.Mutex
	asked []string
	got   chan jupyter.Message
}

func (k *kernel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		k.mu.Lock()
		k.asked = append(k.asked, r.Method+" "+r.URL.Path)
		k.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
		return
	}
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{jupyter.ProtocolV1}})
	if err != nil {
		return
	}
	defer c.CloseNow()
	c.SetReadLimit(64 << 20)
	v1 := c.Subprotocol() == jupyter.ProtocolV1
	if k.say != nil {
		k.say(c, v1)
	}
	for {
		kind, data, err := c.Read(r.Context())
		if err != nil {
			return
		}
		var m jupyter.Message
		if v1 {
			m, err = jupyter.ParseV1(bytes.Clone(data))
		} else {
			m, err = jupyter.ParseLegacy(bytes.Clone(data), kind == websocket.MessageText)
		}
		if err == nil && k.got != nil {
			k.got <- m
		}
	}
}

func (k *kernel) requests() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.asked)
}

func kernelMessage(channel, msgType, content string) jupyter.Message {
	return jupyter.Message{
		Channel: channel, Header: fmt.Appendf(nil, `{"msg_id":"m","msg_type":%q,"session":"s"}`, msgType),
		Parent: []byte(`{"msg_id":"p","msg_type":"execute_request"}`), Metadata: []byte(`{}`), Content: []byte(content),
	}
}

func printed(text string) jupyter.Message {
	b, _ := json.Marshal(map[string]string{"name": "stdout", "text": text})
	return kernelMessage("iopub", "stream", string(b))
}

var idle = kernelMessage("iopub", "status", `{"execution_state":"idle"}`)

func sendMessage(c *websocket.Conn, v1 bool, m jupyter.Message) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if v1 {
		_ = c.Write(ctx, websocket.MessageBinary, jupyter.AppendV1(nil, m))
		return
	}
	data, isText := jupyter.AppendLegacy(nil, m)
	kind := websocket.MessageBinary
	if isText {
		kind = websocket.MessageText
	}
	_ = c.Write(ctx, kind, data)
}

// readUntilIdle returns what a client sees until the cell is done.
func readUntilIdle(t *testing.T, c *websocket.Conn, v1 bool) (all []jupyter.Message, text string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		kind, data, err := c.Read(ctx)
		if err != nil {
			t.Fatalf("after %d messages (%q): %v", len(all), text, err)
		}
		var m jupyter.Message
		if v1 {
			m, err = jupyter.ParseV1(data)
		} else {
			m, err = jupyter.ParseLegacy(data, kind == websocket.MessageText)
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
		h, _ := jupyter.ParseHeader(m.Header)
		switch h.Type {
		case "stream":
			var content struct{ Text string }
			_ = json.Unmarshal(m.Content, &content)
			text += content.Text
		case "status":
			if strings.Contains(string(m.Content), "idle") {
				return all, text
			}
		}
	}
}

func kernelSocket(t *testing.T, w *world, v1 bool) *websocket.Conn {
	t.Helper()
	var protocols []string
	if v1 {
		protocols = []string{jupyter.ProtocolV1}
	}
	c, _, err := w.socket(adaSlug, kernelPath, protocols...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// What a cell prints, shows, or fails with reaches the browser without the
// token in it, in both protocols, whole or in pieces; all else is as it was.
func TestATokenNeverLeavesTheKernel(t *testing.T) {
	half := len(aJWT) / 2
	display, _ := json.Marshal(map[string]any{"data": map[string]any{"text/plain": "'" + aJWT + "'", "text/html": []string{"<b>" + aJWT[:half], aJWT[half:] + "</b>"}, "application/json": map[string]any{"deep": []string{aJWT}}}, "metadata": map[string]string{"note": aJWT}})
	fault, _ := json.Marshal(map[string]any{"ename": "E", "evalue": aJWT, "traceback": []string{"\x1b[31mE\x1b[0m", "token " + aJWT}})
	buffered := kernelMessage("iopub", "comm_msg", `{"comm_id":"c","data":{"v":"`+aJWT+`"}}`)
	buffered.Buffers = [][]byte{[]byte("label " + aJWT + " end"), {0, 1, 2, 3, 255, 254, 0, 9, 8, 7}}
	messages := []jupyter.Message{
		printed("Bearer " + aJWT + "\n"),
		printed("before " + aJWT[:half]),
		kernelMessage("iopub", "status", `{"execution_state":"busy"}`),
		printed(aJWT[half:] + " after\n"),
		kernelMessage("iopub", "display_data", string(display)),
		kernelMessage("iopub", "error", string(fault)),
		kernelMessage("shell", "execute_reply", `{"status":"ok","payload":[{"source":"page","data":{"text/plain":"`+aJWT+`"}}]}`),
		kernelMessage("shell", "history_reply", `{"history":[[1,1,"x = '`+aJWT+`'"]]}`),
		kernelMessage("shell", "complete_reply", `{"matches":["`+aJWT+`"],"metadata":{}}`),
		kernelMessage("control", "debug_reply", `{"body":{"variables":[{"value":"`+aJWT+`"}]}}`),
		kernelMessage("stdin", "input_request", `{"prompt":"`+aJWT+`","password":false}`),
		buffered,
		idle,
	}
	for _, v1 := range []bool{true, false} {
		t.Run(fmt.Sprintf("v1=%v", v1), func(t *testing.T) {
			k := &kernel{say: func(c *websocket.Conn, v1 bool) {
				for _, m := range messages {
					sendMessage(c, v1, m)
				}
			}}
			w, found := inspectedWorld(t, k, filter.Settings{})
			all, text := readUntilIdle(t, kernelSocket(t, w, v1), v1)
			if want := "Bearer [REDACTED:jwt]\nbefore [REDACTED:jwt] after\n"; text != want {
				t.Errorf("text = %q, want %q", text, want)
			}
			for _, m := range all {
				wire := string(jupyter.AppendV1(nil, m))
				if strings.Contains(wire, aJWT) || strings.Contains(wire, aJWT[half:]) {
					t.Errorf("a token leaves in %s", wire)
				}
				if strings.Contains(string(m.Header), "comm_msg") {
					if len(m.Buffers) != 2 || string(m.Buffers[0]) != "label [REDACTED:jwt] end" || !bytes.Equal(m.Buffers[1], buffered.Buffers[1]) {
						t.Errorf("buffers = %q", m.Buffers)
					}
				}
			}
			if len(all) < len(messages)-1 {
				t.Errorf("%d messages arrive of %d", len(all), len(messages))
			}
			if !slices.Contains(found.rules(), "jwt") {
				t.Errorf("findings = %v", found.rules())
			}
			if strings.Contains(w.log.String(), aJWT) {
				t.Error("the token is in the log")
			}
		})
	}
}

// The run's own token gives whoever has it the whole workspace: it is known,
// and found without any rule.
func TestTheRunsOwnTokenIsMasked(t *testing.T) {
	var w *world
	k := &kernel{say: func(c *websocket.Conn, v1 bool) {
		sendMessage(c, v1, printed("token="+w.rooms.get(adaSlug).route.Token.Reveal()+"\n"))
		sendMessage(c, v1, idle)
	}}
	w, _ = inspectedWorld(t, k, filter.Settings{})
	_, text := readUntilIdle(t, kernelSocket(t, w, true), true)
	if want := "token=[REDACTED:secret:jupyter-token]\n"; text != want {
		t.Errorf("text = %q, want %q", text, want)
	}
}

// A rule that blocks lets nothing of the output out, says so where the output
// would be, and stops the cell.
func TestABlockInterruptsTheCell(t *testing.T) {
	k := &kernel{say: func(c *websocket.Conn, v1 bool) {
		sendMessage(c, v1, printed("fine "+aJWT+" tail"))
		sendMessage(c, v1, printed("more of the same"))
		sendMessage(c, v1, idle)
	}}
	w, _ := inspectedWorld(t, k, filter.Settings{Rules: map[string]inspect.Mode{"jwt": inspect.Block}})
	all, text := readUntilIdle(t, kernelSocket(t, w, true), true)
	if strings.Contains(text, "eyJ") || strings.Contains(text, "tail") || strings.Contains(text, "more") {
		t.Errorf("text = %q", text)
	}
	var told bool
	for _, m := range all {
		told = told || strings.Contains(string(m.Content), "rule jwt") && strings.Contains(string(m.Header), `"error"`)
	}
	if !told {
		t.Error("nobody is told why the output stops")
	}
	eventually(t, "the cell is interrupted", func() bool {
		return slices.Contains(k.requests(), "POST /api/kernels/6f1c/interrupt")
	})
}

// What is typed in is looked at too. A mask would change a program, so it goes
// on as it is and is reported; a block stops it, with an answer under the cell.
func TestInputIsLookedAt(t *testing.T) {
	request := kernelMessage("shell", "execute_request", `{"code":"key = '`+aJWT+`'","silent":false}`)
	request.Parent = []byte("{}")
	k := &kernel{got: make(chan jupyter.Message, 1)}
	w, found := inspectedWorld(t, k, filter.Settings{})
	sendMessage(kernelSocket(t, w, true), true, request)
	if m := <-k.got; !bytes.Equal(m.Content, request.Content) {
		t.Errorf("the kernel gets %s", m.Content)
	}
	found.mu.Lock()
	if len(found.list) != 1 || !found.list[0].Input || found.list[0].Mode != inspect.Alert {
		t.Errorf("findings = %+v", found.list)
	}
	found.mu.Unlock()

	w, _ = inspectedWorld(t, k, filter.Settings{Rules: map[string]inspect.Mode{"jwt": inspect.Block}})
	c := kernelSocket(t, w, true)
	sendMessage(c, true, request)
	all, _ := readUntilIdle(t, c, true)
	if wire := string(all[1].Content); !strings.Contains(wire, "rule jwt") || strings.Contains(wire, "eyJ") {
		t.Errorf("the answer is %s", wire)
	}
	select {
	case m := <-k.got:
		t.Errorf("the kernel gets %s", m.Content)
	default:
	}
}

// Frames that could be read in two ways end the connection, and nothing of
// them arrives.
func TestHostileFramesEndTheConnection(t *testing.T) {
	good := jupyter.AppendV1(nil, printed("hello"))
	beyond := bytes.Clone(good)
	binary.LittleEndian.PutUint64(beyond[8*5:], math.MaxUint64>>1)
	for name, frame := range map[string][]byte{
		"offsets beyond the end": beyond,
		"trailing bytes":         append(bytes.Clone(good), "SECRET"...),
		"text twice":             jupyter.AppendV1(nil, kernelMessage("iopub", "stream", `{"name":"stdout","text":"SECRET","text":""}`)),
		"TEXT":                   jupyter.AppendV1(nil, kernelMessage("iopub", "stream", `{"name":"stdout","text":"SECRET","TEXT":""}`)),
	} {
		t.Run(name, func(t *testing.T) {
			k := &kernel{say: func(c *websocket.Conn, _ bool) {
				_ = c.Write(context.Background(), websocket.MessageBinary, frame)
			}}
			w, _ := inspectedWorld(t, k, filter.Settings{})
			_, data, err := kernelSocket(t, w, true).Read(t.Context())
			if got, ok := errors.AsType[websocket.CloseError](err); !ok || got.Code != websocket.StatusPolicyViolation || !strings.Contains(got.Reason, "malformed") {
				t.Errorf("the client sees %q, %v", data, err)
			}
		})
	}
}

// hijacked answers a WebSocket handshake and sends raw bytes behind it.
func hijacked(write func(w io.Writer)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			return
		}
		conn, _, _, err := ws.UpgradeHTTP(r, w)
		if err != nil {
			return
		}
		defer conn.Close()
		write(conn)
		_, _ = io.Copy(io.Discard, conn)
	})
}

// A workspace that promises gigabytes, or sends reserved bits or mixed-up
// frames, gets no memory for it, and the client a close code.
func TestHostileWebSocketsAreClosed(t *testing.T) {
	huge := []byte{0x82, 127, 0x7f, 255, 255, 255, 255, 255, 255, 255}
	negative := []byte{0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0}
	for name, tt := range map[string]struct {
		wire []byte
		code websocket.StatusCode
	}{
		"2^63-1 bytes":           {huge, websocket.StatusMessageTooBig},
		"2^63 bytes":             {negative, websocket.StatusMessageTooBig},
		"reserved bits":          {[]byte{0xc2, 0}, websocket.StatusProtocolError},
		"masked by a server":     {[]byte{0x82, 0x80, 1, 2, 3, 4}, websocket.StatusProtocolError},
		"a lone continuation":    {[]byte{0x80, 0}, websocket.StatusProtocolError},
		"two messages at once":   {[]byte{0x02, 0, 0x82, 0}, websocket.StatusProtocolError},
		"a long ping":            {[]byte{0x89, 126, 0, 126}, websocket.StatusProtocolError},
		"an unknown control":     {[]byte{0x8b, 0}, websocket.StatusProtocolError},
		"text that is not UTF-8": {[]byte{0x81, 1, 0xff}, websocket.StatusInvalidFramePayloadData},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := inspectedWorld(t, hijacked(func(w io.Writer) { _, _ = w.Write(tt.wire) }), filter.Settings{})
			c := kernelSocket(t, w, false)
			_, _, err := c.Read(t.Context())
			if got := websocket.CloseStatus(err); got != tt.code {
				t.Errorf("close code %d (%v), want %d", got, err, tt.code)
			}
		})
	}
}

// A million empty pieces of one message, and a big one in small pieces, cost
// no more than the message.
func TestFragmentsAreJoined(t *testing.T) {
	wire, _ := jupyter.AppendLegacy(nil, printed("Bearer "+aJWT+"\n"))
	done, _ := jupyter.AppendLegacy(nil, idle)
	w, _ := inspectedWorld(t, hijacked(func(w io.Writer) {
		b := []byte{0x01, 0}
		for range 1_000_000 {
			b = append(b, 0x00, 0)
		}
		for _, c := range wire {
			b = append(b, 0x00, 1, c)
			b = append(b, 0x89, 0) // a ping in between is allowed
		}
		b = append(b, 0x80, 0, 0x81, 126, byte(len(done)>>8), byte(len(done)))
		_, _ = w.Write(append(b, done...))
	}), filter.Settings{})
	if _, text := readUntilIdle(t, kernelSocket(t, w, false), false); text != "Bearer [REDACTED:jwt]\n" {
		t.Errorf("text = %q", text)
	}
}

// A terminal masks in place, keeps the width, and follows a token over several
// messages; a block closes it, for good.
func TestTerminals(t *testing.T) {
	half := len(aJWT) / 2
	k := &kernel{}
	k.say = func(c *websocket.Conn, _ bool) {
		for _, text := range []string{"$ cat token\r\n", aJWT[:half], aJWT[half:] + "\r\n", "$ "} {
			b, _ := json.Marshal([]string{"stdout", text})
			_ = c.Write(context.Background(), websocket.MessageText, b)
		}
		_ = c.Write(context.Background(), websocket.MessageText, []byte(`["disconnect",1]`))
	}
	read := func(w *world) (text string, err error) {
		c, _, err := w.socket(adaSlug, "/terminals/websocket/1")
		if err != nil {
			t.Fatal(err)
		}
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
	w, _ := inspectedWorld(t, k, filter.Settings{})
	text, err := read(w)
	if err != nil || !strings.Contains(text, "[REDACTED:jwt") || strings.Contains(text, aJWT[half:]) || !strings.HasSuffix(text, "\r\n$ ") {
		t.Errorf("the terminal shows %q, %v", text, err)
	}
	w, _ = inspectedWorld(t, k, filter.Settings{Rules: map[string]inspect.Mode{"jwt": inspect.Block}})
	text, err = read(w)
	if got := websocket.CloseStatus(err); got != websocket.StatusPolicyViolation || !strings.Contains(text, "rule jwt") || strings.Contains(text, aJWT[half:]) {
		t.Errorf("the terminal shows %q, then %v", text, err)
	}
	eventually(t, "the terminal is closed", func() bool { return slices.Contains(k.requests(), "DELETE /api/terminals/1") })
}

// A document that several edit together cannot be looked into, and is refused
// with the reason.
func TestCollaborationRoomsAreRefused(t *testing.T) {
	w, _ := inspectedWorld(t, &kernel{}, filter.Settings{})
	for _, path := range []string{"/api/collaboration/room/json:notebook:1?sessionId=x", "/api/yjs/roomid/x"} {
		_, res, err := w.socket(adaSlug, path)
		if err == nil || res.StatusCode != http.StatusForbidden {
			t.Errorf("%s: %v, %v", path, res, err)
		}
	}
}
