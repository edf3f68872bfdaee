package gateway

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

const touchEvery = 5 * time.Second

// isActivity reports whether an HTTP request is something a person did. Pages
// poll by GET, and JupyterLab saves its layout and settings by itself.
func isActivity(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return false
	}
	p := r.URL.Path
	for _, background := range []string{"/lab/api/", "/api/events", "/api/security/"} {
		if strings.HasPrefix(p, background) {
			return false
		}
	}
	return r.Method != http.MethodPatch || !strings.HasPrefix(p, "/api/sessions/")
}

// snifferFor returns what tells a person's input in the WebSocket at path from
// its background noise; nil when all of it is noise.
func snifferFor(p string) *sniffer {
	switch {
	case strings.HasPrefix(p, "/api/kernels/") && strings.HasSuffix(p, "/channels"):
		return &sniffer{match: &msgTypes{}}
	case strings.HasPrefix(p, "/terminals/websocket/"):
		return &sniffer{match: &stdin{}}
	case strings.HasPrefix(p, "/api/"):
		return nil // events, collaboration: they talk without anybody there
	}
	return &sniffer{match: anything{}}
}

// A sniffer reads a client's half of a WebSocket as it passes, and looks into
// data messages for a person's input. It keeps a few bytes of state, whatever
// comes; after something that is no WebSocket it says nothing more.
type sniffer struct {
	frames frames
	match  matcher
	seen   int  // bytes of the present message
	hit    bool // the present message was reported
}

// A matcher looks for input in one message, byte by byte.
type matcher interface {
	reset()
	// feed takes the next byte and reports whether the message is input.
	feed(b byte) bool
}

// sniffLimit is how much of a message is looked at.
const sniffLimit = 64 << 10

// feed takes the next bytes of the stream and reports whether they had input.
func (s *sniffer) feed(p []byte) (input bool) {
	for len(p) > 0 && !s.frames.lost {
		n, payload := s.frames.next(p)
		chunk := p[:n]
		p = p[n:]
		if !payload {
			continue
		}
		if s.frames.fresh {
			s.frames.fresh = false
			s.match.reset()
			s.seen, s.hit = 0, false
		}
		if s.hit {
			continue
		}
		for i, b := range chunk[:min(len(chunk), sniffLimit-s.seen)] {
			if s.seen++; s.match.feed(b ^ s.frames.mask[(s.frames.was+i)&3]) {
				s.hit, input = true, true
				break
			}
		}
	}
	return input
}

// message looks for input in one whole message.
func (s *sniffer) message(p []byte) bool {
	s.match.reset()
	return slices.ContainsFunc(p[:min(len(p), sniffLimit)], s.match.feed)
}

// frames follows the borders of WebSocket frames (RFC 6455, 5.2) through a
// stream. It never keeps payload.
type frames struct {
	head  [14]byte
	have  int    // bytes of the head so far
	need  int    // bytes of the head, as far as known
	left  uint64 // payload of the present frame still to come
	at    int    // payload of the present frame so far, modulo 4: where in the mask it is
	was   int    // at, before the last step
	mask  [4]byte
	data  bool // the present frame is a data frame
	fresh bool // a message began since this was last cleared
	lost  bool // this is no WebSocket
}

// boundary reports whether the stream is between two frames.
func (f *frames) boundary() bool { return !f.lost && f.have == 0 && f.left == 0 }

// next takes at least one byte of p, at most to the end of the present head or
// payload, and says how many, and whether they are a data frame's payload.
func (f *frames) next(p []byte) (n int, payload bool) {
	if f.left > 0 {
		n = len(p)
		if uint64(n) > f.left {
			n = int(f.left) //nolint:gosec // smaller than n
		}
		f.left -= uint64(n)
		f.was, f.at = f.at, (f.at+n)&3
		return n, f.data
	}
	if f.have < 2 {
		f.need = 2
	}
	n = copy(f.head[f.have:f.need], p)
	if f.have += n; f.have < f.need {
		return n, false
	}
	if f.need == 2 {
		f.need += headRest(f.head[1])
		if f.head[0]&0x70 != 0 || f.have < f.need {
			f.lost = f.lost || f.head[0]&0x70 != 0 // no extension was negotiated
			return n, false
		}
	}
	f.begin()
	return n, false
}

// headRest is how many bytes of a frame's head follow the first two.
func headRest(second byte) int {
	rest := 0
	switch second & 0x7f {
	case 126:
		rest = 2
	case 127:
		rest = 8
	}
	if second&0x80 != 0 {
		rest += 4
	}
	return rest
}

// begin reads a whole head.
func (f *frames) begin() {
	rest := f.head[2:f.need]
	f.left = uint64(f.head[1] & 0x7f)
	switch f.left {
	case 126:
		f.left = uint64(rest[0])<<8 | uint64(rest[1])
		rest = rest[2:]
	case 127:
		f.left = 0
		for _, b := range rest[:8] {
			f.left = f.left<<8 | uint64(b)
		}
		rest = rest[8:]
	}
	f.mask = [4]byte{}
	copy(f.mask[:], rest)
	op := f.head[0] & 0x0f
	f.data = op <= 2
	f.fresh = f.fresh || op == 1 || op == 2
	f.at, f.have = 0, 0
	if f.left > 1<<62 || op > 2 && op < 8 || op > 10 {
		f.lost = true
	}
}

// anything matches every message.
type anything struct{}

func (anything) reset()         {}
func (anything) feed(byte) bool { return true }

// stdin matches terminado's ["stdin", …]; ["set_size", …] is sent by pages.
type stdin struct{ at int }

const stdinHead = `["stdin"`

func (s *stdin) reset() { s.at = 0 }

func (s *stdin) feed(b byte) bool {
	if s.at < 0 || (b == ' ' || b == '\t' || b == '\n' || b == '\r') && s.at < 2 {
		return false
	}
	if s.at >= len(stdinHead) || b != stdinHead[s.at] {
		s.at = -1
		return false
	}
	s.at++
	return s.at == len(stdinHead)
}

// msgTypes matches a Jupyter message of a type that a person causes. In every
// form such a message has on the wire, JSON text, JSON with buffers, and
// v1.kernel.websocket.jupyter.org, its header stands there as JSON text.
type msgTypes struct {
	at   int // bytes of msgTypeKey so far; then 1 and 2 beyond: before ':' and before '"'; then the value
	name [24]byte
	n    int
}

const msgTypeKey = `"msg_type"`

func (m *msgTypes) reset() { m.at, m.n = 0, 0 }

func (m *msgTypes) feed(b byte) bool {
	const beforeColon, beforeQuote, inName = len(msgTypeKey), len(msgTypeKey) + 1, len(msgTypeKey) + 2
	space := b == ' ' || b == '\t' || b == '\n' || b == '\r'
	switch {
	case m.at < beforeColon && b == msgTypeKey[m.at],
		m.at == beforeColon && b == ':',
		m.at == beforeQuote && b == '"':
		m.at++
		m.n = 0
		return false
	case (m.at == beforeColon || m.at == beforeQuote) && space:
		return false
	case m.at == inName && b == '"':
		m.at = 0
		return byPerson(string(m.name[:m.n]))
	case m.at == inName && m.n < len(m.name):
		m.name[m.n] = b
		m.n++
		return false
	}
	m.at = 0
	if b == '"' {
		m.at = 1
	}
	return false
}

// byPerson reports whether a Jupyter message of that type comes from a person:
// running, typing, asking for help. Widgets' comm_msg is not among them; what
// they make a kernel do is seen there.
func byPerson(msgType string) bool {
	switch msgType {
	case "execute_request", "input_reply", "complete_request", "inspect_request", "is_complete_request",
		"interrupt_request", "shutdown_request", "debug_request":
		return true
	}
	return false
}
