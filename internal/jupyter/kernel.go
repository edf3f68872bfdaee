package jupyter

import (
	"encoding/binary"
	"unicode/utf8"
)

// ProtocolV1 is the sub-protocol whose messages [ParseV1] reads. Without it
// messages are as [ParseLegacy] reads them.
const ProtocolV1 = "v1.kernel.websocket.jupyter.org"

// maxParts bounds the parts of a message. Widgets with a buffer per column
// reach hundreds.
const maxParts = 1 << 14

// A Message is a kernel message taken apart. All parts but Channel and Buffers
// are one JSON object each, as it came.
type Message struct {
	Channel  string // "shell", "iopub", "stdin" or "control"
	Header   []byte
	Parent   []byte
	Metadata []byte
	Content  []byte
	Buffers  [][]byte
	// Extra are members of a legacy message's envelope beyond the above, such
	// as msg_id and msg_type.
	Extra []Member
}

// A Header is what a message's header says of it.
type Header struct {
	ID   string // msg_id
	Type string // msg_type
}

var (
	headerNames   = []string{"msg_id", "msg_type", "session", "username", "date", "version", "subshell_id"}
	envelopeNames = []string{"header", "parent_header", "metadata", "content", "channel", "buffers", "msg_id", "msg_type"}
)

// ParseHeader reads a header or parent header; both fields are empty in the
// parent header of a message without a parent.
func ParseHeader(raw []byte) (Header, error) {
	var room [12]Member
	members, err := membersInto(room[:0], raw)
	if err != nil {
		return Header{}, err
	}
	if err := Known(members, headerNames...); err != nil {
		return Header{}, err
	}
	var h Header
	for _, f := range [...]struct {
		name string
		to   *string
	}{{"msg_id", &h.ID}, {"msg_type", &h.Type}} {
		if v := Get(members, f.name); v != nil {
			s, ok := String(v)
			if !ok || len(s) > 256 {
				return Header{}, malformed("the header's %s is no short string", f.name)
			}
			*f.to = s
		}
	}
	return h, nil
}

func checkChannel(c string) error {
	switch c {
	case "shell", "iopub", "stdin", "control":
		return nil
	}
	return malformed("a message on no known channel")
}

// ParseV1 reads a message of v1.kernel.websocket.jupyter.org: little-endian
// u64 n, u64 offset[n], then the parts channel, header, parent_header, metadata,
// content and buffers, without a gap; the last offset is the message's length.
// The parts are slices of b.
func ParseV1(b []byte) (Message, error) {
	if len(b) < 8 {
		return Message{}, malformed("shorter than a count of offsets")
	}
	n := binary.LittleEndian.Uint64(b)
	if n < 6 || n > maxParts || uint64(len(b)) < 8*(1+n) {
		return Message{}, malformed("%d offsets in %d bytes", n, len(b))
	}
	parts, err := cut(b, 8*(1+n), int(n), func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*(1+i):]) })
	if err != nil {
		return Message{}, err
	}
	m := Message{
		Channel: string(parts[0]), Header: parts[1], Parent: parts[2], Metadata: parts[3], Content: parts[4], Buffers: parts[5:],
	}
	return m, checkChannel(m.Channel)
}

// cut returns the parts between n offsets that must begin at first, never go
// back, and end at the end of b.
func cut(b []byte, first uint64, n int, offset func(int) uint64) ([][]byte, error) {
	if offset(0) != first || offset(n-1) != uint64(len(b)) {
		return nil, malformed("the parts do not fill the message")
	}
	parts := make([][]byte, n-1)
	for i := range parts {
		from, to := offset(i), offset(i+1)
		if to < from || to > uint64(len(b)) {
			return nil, malformed("offsets go back or beyond the end")
		}
		parts[i] = b[from:to:to]
	}
	return parts, nil
}

// AppendV1 appends m as ParseV1 reads it.
func AppendV1(dst []byte, m Message) []byte {
	parts := append([][]byte{[]byte(m.Channel), m.Header, m.Parent, m.Metadata, m.Content}, m.Buffers...)
	at := uint64(8 * (2 + len(parts)))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(len(parts)+1))
	dst = binary.LittleEndian.AppendUint64(dst, at)
	for _, p := range parts {
		at += uint64(len(p))
		dst = binary.LittleEndian.AppendUint64(dst, at)
	}
	for _, p := range parts {
		dst = append(dst, p...)
	}
	return dst
}

// ParseLegacy reads a message of the protocol without a name: text is one JSON
// object; binary is big-endian u32 n, u32 offset[n], then n parts without a gap
// of which the first is that object and the rest are buffers.
func ParseLegacy(b []byte, isText bool) (Message, error) {
	envelope, buffers := b, [][]byte(nil)
	if !isText {
		if len(b) < 4 {
			return Message{}, malformed("shorter than a count of parts")
		}
		n := binary.BigEndian.Uint32(b)
		if n < 1 || n > maxParts || uint64(len(b)) < 4*(1+uint64(n)) {
			return Message{}, malformed("%d parts in %d bytes", n, len(b))
		}
		parts, err := cut(b, 4*(1+uint64(n)), int(n)+1, func(i int) uint64 {
			if i == int(n) {
				return uint64(len(b))
			}
			return uint64(binary.BigEndian.Uint32(b[4*(1+i):]))
		})
		if err != nil {
			return Message{}, err
		}
		envelope, buffers = parts[0], parts[1:]
	}
	members, err := Members(envelope)
	if err != nil {
		return Message{}, err
	}
	if err := Known(members, envelopeNames...); err != nil {
		return Message{}, err
	}
	m := Message{Buffers: buffers}
	for _, member := range members {
		switch member.Name {
		case "header":
			m.Header = member.Value
		case "parent_header":
			m.Parent = member.Value
		case "metadata":
			m.Metadata = member.Value
		case "content":
			m.Content = member.Value
		case "channel":
			m.Channel, _ = String(member.Value)
		case "buffers": // what follows the envelope is what counts
			if list, err := Elements(member.Value); err != nil || len(list) > 0 {
				return Message{}, malformed("buffers inside the envelope")
			}
		default:
			m.Extra = append(m.Extra, member)
		}
	}
	if m.Header == nil || m.Content == nil {
		return Message{}, malformed("a message without header or content")
	}
	for _, part := range []*[]byte{&m.Parent, &m.Metadata} {
		if *part == nil {
			*part = []byte("{}")
		}
	}
	return m, checkChannel(m.Channel)
}

// AppendLegacy appends m as ParseLegacy reads it, and says whether it is text,
// which it is unless it has buffers.
func AppendLegacy(dst []byte, m Message) (_ []byte, isText bool) {
	if len(m.Buffers) == 0 {
		return appendEnvelope(dst, m), true
	}
	start := len(dst)
	n := 1 + len(m.Buffers)
	dst = binary.BigEndian.AppendUint32(dst, uint32(n)) //nolint:gosec // at most maxParts
	offsets := len(dst)
	dst = append(dst, make([]byte, 4*n)...)
	put := func(i int) {
		binary.BigEndian.PutUint32(dst[offsets+4*i:], uint32(len(dst)-start)) //nolint:gosec // messages are far smaller
	}
	put(0)
	dst = appendEnvelope(dst, m)
	for i, b := range m.Buffers {
		put(i + 1)
		dst = append(dst, b...)
	}
	return dst, false
}

func appendEnvelope(dst []byte, m Message) []byte {
	dst = append(dst, `{"header":`...)
	dst = append(dst, m.Header...)
	dst = append(dst, `,"parent_header":`...)
	dst = append(dst, m.Parent...)
	dst = append(dst, `,"metadata":`...)
	dst = append(dst, m.Metadata...)
	dst = append(dst, `,"content":`...)
	dst = append(dst, m.Content...)
	for _, e := range m.Extra {
		dst = append(dst, ',')
		dst = Quote(dst, []byte(e.Name))
		dst = append(dst, ':')
		dst = append(dst, e.Value...)
	}
	dst = append(dst, `,"channel":`...)
	dst = Quote(dst, []byte(m.Channel))
	return append(dst, `,"buffers":[]}`...)
}

// contentNames are the members that readers look for in contents.
var contentNames = map[string][]string{
	"stream":              {"name", "text"},
	"error":               {"ename", "evalue", "traceback"},
	"display_data":        {"data", "metadata", "transient"},
	"update_display_data": {"data", "metadata", "transient"},
	"execute_result":      {"data", "metadata", "execution_count"},
	"execute_input":       {"code", "execution_count"},
	"execute_request":     {"code", "silent", "store_history", "user_expressions", "allow_stdin", "stop_on_error"},
	"execute_reply":       {"status", "execution_count", "payload", "user_expressions", "ename", "evalue", "traceback"},
	"inspect_reply":       {"status", "found", "data", "metadata"},
	"input_request":       {"prompt", "password"},
	"input_reply":         {"value"},
	"status":              {"execution_state"},
	"comm_open":           {"comm_id", "target_name", "data"},
	"comm_msg":            {"comm_id", "data"},
	"comm_close":          {"comm_id", "data"},
}

// RewriteContent appends the content of a message of a type to dst, every text
// in it being what visit makes of it.
func RewriteContent(dst []byte, msgType string, content []byte, visit Visit) ([]byte, error) {
	var room [8]Member
	members, err := membersInto(room[:0], content)
	if err != nil {
		return nil, err
	}
	if err := Known(members, contentNames[msgType]...); err != nil {
		return nil, err
	}
	stream := ""
	if msgType == "stream" {
		name, ok := String(Get(members, "name"))
		if text := Get(members, "text"); !ok || len(text) == 0 || text[0] != '"' || name != "stdout" && name != "stderr" {
			return nil, malformed("a stream message without a name and a text")
		}
		stream = name
	}
	return object(dst, content, true, visit, Place{}, func(dst []byte, m Member) ([]byte, error) {
		switch {
		case msgType == "stream" && m.Name == "text":
			return copyAs(dst, m.Value, Place{Kind: Stream, Stream: stream}, visit)
		case m.Name == "traceback" && (msgType == "error" || msgType == "execute_reply"):
			return joined(dst, m.Value, "\n", Place{Kind: Traceback}, visit)
		case m.Name == "data" && hasBundle(msgType):
			return bundle(dst, m.Value, Place{}, visit)
		case m.Name == "code":
			return copyAs(dst, m.Value, Place{Kind: Code}, visit)
		case msgType == "input_reply" && m.Name == "value":
			return copyAs(dst, m.Value, Place{Kind: Secret}, visit)
		}
		return copyAs(dst, m.Value, Place{}, visit)
	})
}

func hasBundle(msgType string) bool {
	switch msgType {
	case "display_data", "update_display_data", "execute_result", "inspect_reply":
		return true
	}
	return false
}

// bundle rewrites a MIME bundle.
func bundle(dst, raw []byte, p Place, visit Visit) ([]byte, error) {
	if raw = trim(raw); len(raw) == 0 || raw[0] != '{' {
		return copyAs(dst, raw, p, visit)
	}
	return object(dst, raw, true, visit, p, func(dst []byte, m Member) ([]byte, error) {
		p := p
		p.Kind, p.MIME = Bundle, m.Name
		return joined(dst, m.Value, "", p, visit)
	})
}

// A Frame is a message of a terminal's WebSocket: an array whose first element
// says what it is.
type Frame struct {
	Op   string   // "setup", "stdout", "disconnect", "stdin", "set_size"
	Args [][]byte // JSON values
}

// ParseFrame reads a terminal's message.
func ParseFrame(b []byte) (Frame, error) {
	if !utf8.Valid(b) {
		return Frame{}, malformed("a text that is not UTF-8")
	}
	parts, err := Elements(b)
	if err != nil {
		return Frame{}, err
	}
	if len(parts) == 0 {
		return Frame{}, malformed("an empty terminal message")
	}
	op, ok := String(parts[0])
	if !ok {
		return Frame{}, malformed("a terminal message without a kind")
	}
	return Frame{op, parts[1:]}, nil
}

// AppendFrame appends f as ParseFrame reads it.
func AppendFrame(dst []byte, f Frame) []byte {
	dst = Quote(append(dst, '['), []byte(f.Op))
	for _, a := range f.Args {
		dst = append(append(dst, ','), a...)
	}
	return append(dst, ']')
}
