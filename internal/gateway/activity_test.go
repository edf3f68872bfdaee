package gateway

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// frame returns a client's frame.
func frame(op ws.OpCode, fin bool, payload string) []byte {
	var b bytes.Buffer
	_ = ws.WriteFrame(&b, ws.MaskFrameInPlace(ws.NewFrame(op, fin, []byte(payload))))
	return b.Bytes()
}

// kernelV1 packs parts as v1.kernel.websocket.jupyter.org does.
func kernelV1(parts ...string) string {
	var b bytes.Buffer
	offset := uint64(8 * (len(parts) + 2))
	_ = binary.Write(&b, binary.LittleEndian, uint64(len(parts)+1))
	for _, p := range parts {
		_ = binary.Write(&b, binary.LittleEndian, offset)
		offset += uint64(len(p))
	}
	_ = binary.Write(&b, binary.LittleEndian, offset)
	return b.String() + strings.Join(parts, "")
}

func TestSniffer(t *testing.T) {
	const kernel, terminal, app = "/api/kernels/1/channels", "/terminals/websocket/1", "/proxy/8000/"
	header := func(msgType string) string {
		return `{"msg_id": "1", "msg_type" : "` + msgType + `", "version": "5.3"}`
	}
	for _, tt := range []struct {
		name, path string
		stream     []byte
		want       bool
	}{
		{"v1 execute", kernel, frame(ws.OpBinary, true, kernelV1("shell", header("execute_request"), "{}", "{}", `{"code":"1"}`)), true},
		{"v1 info", kernel, frame(ws.OpBinary, true, kernelV1("shell", header("kernel_info_request"), "{}", "{}", "{}")), false},
		{"v1 reply to input", kernel, frame(ws.OpBinary, true, kernelV1("stdin", header("input_reply"), header("execute_request"), "{}", "{}")), true},
		{"v1 with its code before, in JSON", kernel, frame(ws.OpText, true, `{"content":{"code":"`+strings.Repeat("x", 30_000)+`"},"header":`+header("execute_request")+`}`), true},
		{"beyond what is looked at", kernel, frame(ws.OpText, true, strings.Repeat(" ", sniffLimit)+header("execute_request")), false},
		{"in fragments", kernel, append(append(frame(ws.OpText, false, `{"msg_ty`), frame(ws.OpPing, true, "x")...), frame(ws.OpContinuation, true, `pe":"execute_request"}`)...), true},
		{"across two messages", kernel, append(frame(ws.OpText, true, `{"msg_ty`), frame(ws.OpText, true, `pe":"execute_request"}`)...), false},
		{"quoted in code", kernel, frame(ws.OpText, true, `{"content":{"code":"\"msg_type\":\"execute_request\""},"header":`+header("comm_open")+`}`), false},
		{"a longer name", kernel, frame(ws.OpText, true, header("execute_request_"+strings.Repeat("x", 90))), false},
		{"in a ping", kernel, frame(ws.OpPing, true, header("execute_request")), false},
		{"a second message", kernel, append(frame(ws.OpText, true, header("x")), frame(ws.OpText, true, header("execute_request"))...), true},
		{"keys", terminal, frame(ws.OpText, true, `["stdin", "ls\r"]`), true},
		{"keys, spaced", terminal, frame(ws.OpText, true, " [\n \"stdin\",\"x\"]"), true},
		{"size", terminal, frame(ws.OpText, true, `["set_size", 1, 2, 3, 4]`), false},
		{"stdin quoted elsewhere", terminal, frame(ws.OpText, true, `["set_size", "stdin"]`), false},
		{"stdinx", terminal, frame(ws.OpText, true, `["stdinx", "a"]`), false},
		{"an app's message", app, frame(ws.OpBinary, true, "\x00"), true},
		{"an app's ping", app, frame(ws.OpPing, true, "hello"), false},
		{"an app's pong", app, frame(ws.OpPong, true, ""), false},
		{"an app's close", app, frame(ws.OpClose, true, "\x03\xe8"), false},
		{"an app's empty message", app, frame(ws.OpText, true, ""), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := snifferFor(tt.path).feed(bytes.Clone(tt.stream)); got != tt.want {
				t.Errorf("in one piece: input %v, want %v", got, tt.want)
			}
			s, got := snifferFor(tt.path), false
			for i := range tt.stream {
				got = s.feed(tt.stream[i:i+1]) || got
			}
			if got != tt.want {
				t.Errorf("byte by byte: input %v, want %v", got, tt.want)
			}
			if !s.frames.boundary() {
				t.Errorf("after whole frames the sniffer is not between frames: %+v", s.frames)
			}
		})
	}
	if snifferFor("/api/events/subscribe") != nil {
		t.Errorf("Jupyter's events are looked into")
	}
}

// FuzzSniffer: any bytes, in any pieces, give the same answer, and neither
// stop nor break it.
func FuzzSniffer(f *testing.F) {
	f.Add(uint8(0), uint64(1), frame(ws.OpText, true, `{"msg_type":"execute_request"}`))
	f.Add(uint8(1), uint64(2), frame(ws.OpText, true, `["stdin","x"]`))
	f.Add(uint8(2), uint64(3), []byte("\x82\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x02\x03\x04"))
	f.Add(uint8(2), uint64(4), []byte("\x81\x7e\x00\x05hello\x89\x00"))
	f.Fuzz(func(t *testing.T, path uint8, seed uint64, stream []byte) {
		p := []string{"/api/kernels/1/channels", "/terminals/websocket/1", "/proxy/1/"}[path%3]
		whole, pieces := snifferFor(p), snifferFor(p)
		want := whole.feed(bytes.Clone(stream))
		rng, got := rand.New(rand.NewPCG(seed, seed)), false
		for rest := stream; len(rest) > 0; {
			n := 1 + rng.IntN(len(rest))
			got = pieces.feed(rest[:n]) || got
			rest = rest[n:]
		}
		if got != want || whole.frames.lost != pieces.frames.lost {
			t.Errorf("%q: in pieces %v (lost %v), whole %v (lost %v)", stream, got, pieces.frames.lost, want, whole.frames.lost)
		}
	})
}

// FuzzFrames: the borders found are those that another reader finds.
func FuzzFrames(f *testing.F) {
	f.Add(frame(ws.OpText, true, "hello"), uint8(3))
	f.Add([]byte("\x81\x05hello\x81\x7e\x00\x80"), uint8(0))
	f.Fuzz(func(t *testing.T, stream []byte, _ uint8) {
		want := map[int]bool{0: true}
		r := bytes.NewReader(stream)
		for {
			h, err := ws.ReadHeader(r)
			if err != nil || h.Rsv != 0 || h.OpCode > 2 && h.OpCode < 8 || h.OpCode > 10 || int64(r.Len()) < h.Length {
				break
			}
			_, _ = r.Seek(h.Length, 1)
			want[len(stream)-r.Len()] = true
		}
		var fr frames
		got := map[int]bool{0: true}
		for at := 0; at < len(stream) && !fr.lost; {
			n, _ := fr.next(stream[at:])
			if n < 1 {
				t.Fatalf("no progress at %d of %q", at, stream)
			}
			if at += n; fr.boundary() {
				got[at] = true
			}
		}
		for at := range want {
			if !got[at] {
				t.Errorf("%q: no border at %d", stream, at)
			}
		}
	})
}
