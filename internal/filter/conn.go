package filter

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/baileyhq/bailey/internal/inspect"
	"github.com/baileyhq/bailey/internal/jupyter"
)

// A Message is one message of a WebSocket.
type Message struct {
	Text bool // else binary
	Data []byte
}

// A Verdict is what becomes of a message.
type Verdict struct {
	On   []Message // on their way, in order
	Back []Message // to whoever sent it
	// Stop says that what runs must be stopped: the kernel interrupted, the
	// terminal closed.
	Stop bool
	// Close, unless empty, ends the connection, with this reason for the client.
	Close string
}

// How long text waits that may be the beginning of a secret.
const (
	kernelHold   = 100 * time.Millisecond
	terminalHold = 25 * time.Millisecond
)

// maxStreams bounds the streams of one connection: cells whose output is open.
const maxStreams = 64

// A Conn is one WebSocket under inspection. Down and Up may be called
// concurrently with each other and with Flush; Down and Flush wait for each
// other.
type Conn struct {
	up, down way
	kind     Route
	v1       bool
	key      string // what a connection that follows this one is known by

	mu      sync.Mutex // guards the rest, which is the way down
	view    *view
	streams map[streamKey]*printed
	due     time.Time // when what waits has waited long enough; zero: nothing waits
	columns int
	rows    int

	upView   *view           // of the way up
	typed    *inspect.Stream // terminals: what is typed
	password bool            // the kernel asks for a password
}

// streamKey names a stream: the message that asked for it, and which of its
// outputs it is.
type streamKey struct{ parent, name string }

// printed is one output stream.
type printed struct {
	*inspect.Stream
	shadow  *inspect.Stream
	like    jupyter.Message // the last message, for what is released later
	blocked bool
	used    time.Time
	carry   []byte // released, and waiting for what belongs to it
}

// maxCarry bounds what waits for the rest of its line.
const maxCarry = 8 << 10

// whole returns what may be sent now of released text. Pages forget where the
// cursor is between two messages, so a line that begins with a carriage return,
// such as a progress bar's, goes out in one.
func (s *printed) whole(text []byte) []byte {
	if len(s.carry) > 0 {
		text = append(s.carry, text...)
		s.carry = nil
	}
	if s.Held() == 0 {
		return text
	}
	i := bytes.LastIndexByte(text, '\r')
	if i < 0 || len(text)-i > maxCarry || bytes.IndexByte(text[i:], '\n') >= 0 {
		return text
	}
	s.carry = bytes.Clone(text[i:])
	return text[:i]
}

// Conn returns the inspection of a WebSocket. key names the client and what it
// is connected to: when the client comes back under the same key, streams go
// on. v1 is for kernels, see [jupyter.ProtocolV1].
func (s *Scope) Conn(route Route, key string, v1 bool) *Conn {
	v := s.view()
	c := &Conn{
		up: way{scope: s, route: route, input: true}, down: way{scope: s, route: route},
		kind: route, v1: v1, key: string(route) + " " + key, view: v, upView: v,
	}
	c.streams = s.resume(c.key)
	return c
}

// End is the end of the connection.
func (c *Conn) End() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down.scope.park(c.key, c.streams)
	c.streams = nil
}

// Due returns when Flush should be called; the zero time means not at all.
func (c *Conn) Due() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.due
}

// Down judges a message on its way to the client. The verdict's messages may
// share m's bytes.
func (c *Conn) Down(m Message) Verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out Verdict
	err := c.down.guarded(func() (err error) {
		c.refresh()
		switch c.kind { //nolint:exhaustive // the others have no protocol that we know
		case Kernel:
			out, err = c.kernelDown(m)
		case Terminal:
			out, err = c.terminalDown(m)
		default:
			out, err = c.otherDown(m)
		}
		return err
	})
	if err != nil {
		return Verdict{Close: c.down.refusal(err).Reason}
	}
	return out
}

// Flush releases or masks what has waited long enough.
func (c *Conn) Flush() Verdict {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out Verdict
	err := c.down.guarded(func() error {
		for _, k := range c.keys() {
			if err := c.tick(&out, k, false); err != nil {
				return err
			}
		}
		return nil
	})
	c.wait()
	if err != nil {
		return Verdict{Close: c.down.refusal(err).Reason}
	}
	return out
}

// keys lists the streams in a fixed order.
func (c *Conn) keys() []streamKey {
	return slices.SortedFunc(maps.Keys(c.streams), func(a, b streamKey) int {
		return strings.Compare(a.parent+"\x00"+a.name, b.parent+"\x00"+b.name)
	})
}

// refresh takes over new rules; streams change over when nothing waits.
func (c *Conn) refresh() {
	v := c.down.scope.view()
	if v == c.view {
		return
	}
	c.view = v
	for k, s := range c.streams {
		if s.Held() == 0 && !s.blocked {
			delete(c.streams, k)
		}
	}
}

// wait sets when the next Flush is due.
func (c *Conn) wait() {
	for _, s := range c.streams {
		if s.Held() > 0 {
			if c.due.IsZero() {
				hold := kernelHold
				if c.kind == Terminal {
					hold = terminalHold
				}
				c.due = time.Now().Add(hold)
			}
			return
		}
	}
	c.due = time.Time{}
}

// open returns a stream, and makes it on first sight.
func (c *Conn) open(k streamKey, kind inspect.Kind) *printed {
	s := c.streams[k]
	if s == nil {
		if c.streams == nil {
			c.streams = map[streamKey]*printed{}
		}
		s = &printed{Stream: c.down.stream(c.view, kind, c.columns, c.rows), shadow: c.down.shadowed(c.view, kind)}
		c.streams[k] = s
	}
	s.used = time.Now()
	return s
}

// write sends a stream's next piece through its rules, and appends to dst what
// may go on.
func (s *printed) write(dst, text []byte) ([]byte, error) {
	if s.shadow != nil {
		if _, err := s.shadow.Write(nil, text); err != nil {
			s.shadow = nil
		}
	}
	return s.Write(dst, text)
}

// parse takes a kernel message apart.
func (c *Conn) parse(m Message) (jupyter.Message, error) {
	if c.v1 {
		if m.Text {
			return jupyter.Message{}, fmt.Errorf("%w: a text frame in a binary protocol", jupyter.ErrMalformed)
		}
		return jupyter.ParseV1(m.Data)
	}
	return jupyter.ParseLegacy(m.Data, m.Text)
}

func (c *Conn) wire(m jupyter.Message) Message {
	if c.v1 {
		size := 8*8 + len(m.Header) + len(m.Parent) + len(m.Metadata) + len(m.Content)
		return Message{Data: jupyter.AppendV1(make([]byte, 0, size), m)}
	}
	data, isText := jupyter.AppendLegacy(nil, m)
	return Message{isText, data}
}

func (c *Conn) kernelDown(m Message) (Verdict, error) {
	msg, err := c.parse(m)
	if err != nil {
		return Verdict{}, err
	}
	header, err := jupyter.ParseHeader(msg.Header)
	if err != nil {
		return Verdict{}, err
	}
	parent, err := jupyter.ParseHeader(msg.Parent)
	if err != nil {
		return Verdict{}, err
	}
	var out Verdict
	if msg.Channel == "iopub" && header.Type != "stream" && header.Type != "status" || isIdle(header.Type, msg.Content) {
		if err := c.before(&out, parent.ID, header.Type == "status"); err != nil {
			return Verdict{}, err
		}
	}
	was := msg.Content
	stop, changed, err := c.rewrite(&msg, header, parent)
	switch b, blocked := asBlocked(err); {
	case blocked:
		c.blockedDown(&out, msg, b)
	case err != nil:
		return Verdict{}, err
	case stop:
	case changed:
		out.On = append(out.On, c.wire(msg))
	default:
		// It was taken apart strictly, and has one reading: it goes on as it came.
		out.On = append(out.On, m)
	}
	if header.Type == "input_request" {
		c.password = asksForPassword(was)
	}
	c.wait()
	return out, nil
}

func isIdle(msgType string, content []byte) bool {
	if msgType != "status" {
		return false
	}
	members, err := jupyter.Members(content)
	state, _ := jupyter.String(jupyter.Get(members, "execution_state"))
	return err == nil && state == "idle"
}

func asBlocked(err error) (string, bool) {
	if r, ok := errors.AsType[*inspect.BlockedError](err); ok {
		return r.Rule, true
	}
	return "", false
}

// asksForPassword reports whether the content of an input_request does.
func asksForPassword(content []byte) bool {
	members, err := jupyter.Members(content)
	return err == nil && string(jupyter.Get(members, "password")) == "true"
}

// rewrite makes a message fit to pass. nothing says that there is nothing of
// it to pass for now, and changed that it is not what it was.
func (c *Conn) rewrite(msg *jupyter.Message, header, parent jupyter.Header) (nothing, changed bool, err error) {
	visit := c.down.visit(c.view)
	part := func(raw []byte) ([]byte, error) {
		if c.down.quiet(c.view, raw) {
			return raw, jupyter.Valid(raw)
		}
		got, err := jupyter.Copy(nil, raw, visit)
		changed = changed || !bytes.Equal(got, raw)
		return got, err
	}
	for _, p := range [...]*[]byte{&msg.Header, &msg.Parent, &msg.Metadata} {
		if *p, err = part(*p); err != nil {
			return false, false, err
		}
	}
	for i := range msg.Extra {
		e := &msg.Extra[i]
		name, err := visit(jupyter.Place{Kind: jupyter.Name}, []byte(e.Name))
		if err != nil {
			return false, false, err
		}
		if string(name) != e.Name || !utf8.ValidString(e.Name) {
			e.Name, changed = string(name), true
		}
		if e.Value, err = part(e.Value); err != nil {
			return false, false, err
		}
	}
	for i, b := range msg.Buffers {
		if isText(b) {
			if msg.Buffers[i], err = c.down.text(c.view, b); err != nil {
				return false, false, err
			}
		} else {
			msg.Buffers[i] = c.down.binary(c.view, b)
		}
		changed = changed || !bytes.Equal(msg.Buffers[i], b)
	}
	// A list means its texts joined, which its JSON does not show.
	if header.Type != "stream" && bytes.IndexByte(msg.Content, '[') < 0 && c.down.quiet(c.view, msg.Content) {
		visit = func(_ jupyter.Place, text []byte) ([]byte, error) { return text, nil }
	}
	room := scratches.Get().(*scratch)
	defer room.free()
	content, err := jupyter.RewriteContent(room.content[:0], header.Type, msg.Content,
		func(p jupyter.Place, text []byte) ([]byte, error) {
			if p.Kind != jupyter.Stream || msg.Channel != "iopub" {
				return visit(p, text)
			}
			s := c.open(streamKey{parent.ID, p.Stream}, inspect.Batch)
			if s.blocked {
				nothing = true
				return nil, nil
			}
			got, err := s.write(room.text[:0], text)
			if err != nil {
				s.blocked = true
				return nil, err
			}
			room.text = got
			if got = s.whole(got); s.Held() > 0 {
				s.like = template(*msg)
			}
			nothing = len(got) == 0 && len(text) > 0
			return got, nil
		})
	c.evict()
	if err != nil {
		return false, false, err
	}
	room.content = content
	if !bytes.Equal(content, msg.Content) {
		msg.Content, changed = bytes.Clone(content), true
	}
	return nothing, changed, nil
}

// scratch is memory for one message.
type scratch struct{ content, text []byte }

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func (s *scratch) free() {
	if cap(s.content)+cap(s.text) <= 512<<10 {
		scratches.Put(s)
	}
}

// template keeps what a later message of the same stream needs.
func template(m jupyter.Message) jupyter.Message {
	t := jupyter.Message{Channel: m.Channel, Header: slices.Clone(m.Header), Parent: slices.Clone(m.Parent), Metadata: slices.Clone(m.Metadata)}
	for _, e := range m.Extra {
		t.Extra = append(t.Extra, jupyter.Member{Name: e.Name, Value: slices.Clone(e.Value)})
	}
	return t
}

// evict forgets the stream that was used longest ago, when there are too many.
// What it holds is masked with it.
func (c *Conn) evict() {
	if len(c.streams) <= maxStreams {
		return
	}
	var oldest streamKey
	var at time.Time
	for k, s := range c.streams {
		if at.IsZero() || s.used.Before(at) {
			oldest, at = k, s.used
		}
	}
	delete(c.streams, oldest)
}

// before lets what waits of a parent's streams go first: the order of what a
// cell shows must be kept. When the cell is done, its streams end.
func (c *Conn) before(out *Verdict, parent string, done bool) error {
	for _, k := range c.keys() {
		if k.parent == parent {
			if err := c.tick(out, k, done); err != nil {
				return err
			}
		}
	}
	return nil
}

// tick decides about what waits of one stream.
func (c *Conn) tick(out *Verdict, k streamKey, done bool) error {
	s := c.streams[k]
	if s == nil || s.blocked {
		if done {
			delete(c.streams, k)
		}
		return nil
	}
	like := s.like
	var text []byte
	var err error
	switch {
	case done:
		delete(c.streams, k)
		if s.shadow != nil {
			_, _ = s.shadow.Close(nil)
		}
		text, err = s.Close(nil)
		if n := s.Sampled(); n > 0 {
			c.down.scope.filter.cfg.Report(Finding{Subject: c.down.scope.subject, Route: c.kind, Sampled: n})
		}
	case s.Held() > 0:
		text, err = s.Tick(nil)
	default:
		return nil
	}
	if err != nil {
		rule, ok := asBlocked(err)
		if !ok {
			return err
		}
		s.blocked = true
		if c.kind == Terminal {
			c.terminalBlocked(out, rule)
			return nil
		}
		c.blockedDown(out, like, rule)
		return nil
	}
	text = append(s.carry, text...)
	s.carry = nil
	if len(text) == 0 {
		return nil
	}
	if c.kind == Terminal {
		out.On = append(out.On, stdout(text))
		return nil
	}
	like.Content = fmt.Appendf(nil, `{"name":%s,"text":%s}`, jupyter.Quote(nil, []byte(k.name)), jupyter.Quote(nil, text))
	out.On = append(out.On, c.wire(c.fresh(like, "")))
	return nil
}

// fresh gives a message that we make an id of its own, and a type unless it is
// empty.
func (c *Conn) fresh(m jupyter.Message, msgType string) jupyter.Message {
	id := fmt.Sprintf("bailey_%s", strings.ToLower(rand.Text()))
	change := func(members []jupyter.Member) []jupyter.Member {
		for i := range members {
			switch {
			case members[i].Name == "msg_id":
				members[i].Value = jupyter.Quote(nil, []byte(id))
			case members[i].Name == "msg_type" && msgType != "":
				members[i].Value = jupyter.Quote(nil, []byte(msgType))
			}
		}
		return members
	}
	if members, err := jupyter.Members(m.Header); err == nil {
		m.Header = appendObject(nil, change(members))
	}
	m.Extra = change(slices.Clone(m.Extra))
	m.Buffers = nil
	return m
}

func appendObject(dst []byte, members []jupyter.Member) []byte {
	dst = append(dst, '{')
	for i, m := range members {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(append(jupyter.Quote(dst, []byte(m.Name)), ':'), m.Value...)
	}
	return append(dst, '}')
}

// blockedDown tells the person why an output stops, in the output, and has the
// cell interrupted.
func (c *Conn) blockedDown(out *Verdict, like jupyter.Message, rule string) {
	out.Stop = true
	if like.Header == nil {
		return
	}
	like.Channel = "iopub"
	like.Metadata = []byte("{}")
	like.Content = blockedContent(rule)
	out.On = append(out.On, c.wire(c.fresh(like, "error")))
}

// blockedContent is the content of an error message about a block.
func blockedContent(rule string) []byte {
	why := "the output held something that rule " + rule + " does not let out of this workspace; the cell was interrupted"
	b, err := json.Marshal(map[string]any{
		"ename": "BlockedByFilter", "evalue": why,
		"traceback": []string{"\x1b[31mBlockedByFilter\x1b[0m: " + why},
	})
	if err != nil {
		panic(err) // strings can always be written
	}
	return b
}

// Control judges the payload of a control frame on its way to the client. A
// page can read why a connection was closed; nobody needs what a ping says.
func (c *Conn) Control(closes bool, p []byte) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	code, text := p[:0], p
	if closes && len(p) >= 2 {
		code, text = p[:2], p[2:]
	}
	var got []byte
	err := c.down.guarded(func() (err error) {
		got, err = c.down.text(c.down.scope.view(), text)
		return err
	})
	if err != nil || len(code)+len(got) > 125 || !closes && len(got) != len(text) {
		return slices.Clone(code)
	}
	return append(slices.Clone(code), got...)
}

// Up judges a message on its way into the workspace. It is called by one
// goroutine at a time.
func (c *Conn) Up(m Message) Verdict {
	if c.kind == Terminal {
		c.resized(m)
	}
	if !c.up.scope.ScanInput() {
		return Verdict{On: []Message{m}}
	}
	var out Verdict
	err := c.up.guarded(func() (err error) {
		c.upView = c.up.scope.view()
		switch c.kind { //nolint:exhaustive // the others have no protocol that we know
		case Kernel:
			out, err = c.kernelUp(m)
		case Terminal:
			out, err = c.terminalUp(m)
		default:
			out.On = []Message{m}
			_, err = c.up.loose(c.upView, m)
		}
		return err
	})
	if err != nil {
		return Verdict{Close: c.up.refusal(err).Reason}
	}
	return out
}

func (c *Conn) kernelUp(m Message) (Verdict, error) {
	msg, err := c.parse(m)
	if err != nil {
		return Verdict{}, err
	}
	header, err := jupyter.ParseHeader(msg.Header)
	if err != nil {
		return Verdict{}, err
	}
	restored := false
	content, err := jupyter.RewriteContent(nil, header.Type, msg.Content, func(p jupyter.Place, text []byte) ([]byte, error) {
		if p.Kind == jupyter.Secret && c.askedForPassword() {
			return text, nil // a password goes where it was asked for
		}
		got, err := c.up.text(c.upView, text)
		if err == nil && p.Kind == jupyter.Code && bytes.Contains(text, remnant) {
			// A cell that was opened with placeholders runs with what they stand for.
			if got, err := c.up.scope.restore(text); err == nil {
				restored = true
				return got, nil
			}
		}
		return got, err
	})
	if rule, ok := asBlocked(err); ok {
		return Verdict{Back: c.refuseRequest(msg, header, rule)}, nil
	}
	if err != nil {
		return Verdict{}, err
	}
	for _, b := range msg.Buffers {
		if isText(b) {
			if _, err := c.up.text(c.upView, b); err != nil {
				return Verdict{}, err
			}
		}
	}
	if restored {
		msg.Content = content
		return Verdict{On: []Message{c.wire(msg)}}, nil
	}
	return Verdict{On: []Message{m}}, nil
}

func (c *Conn) askedForPassword() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.password
}

// refuseRequest answers a request in the kernel's place: the error shows under
// the cell, and the cell is done.
func (c *Conn) refuseRequest(req jupyter.Message, header jupyter.Header, rule string) []Message {
	if header.Type != "execute_request" {
		return nil
	}
	why := "this code holds something that rule " + rule + " does not let into a workspace; it was not run"
	quoted := string(jupyter.Quote(nil, []byte(why)))
	answer := func(channel, msgType, content string) Message {
		m := jupyter.Message{Channel: channel, Header: req.Header, Parent: req.Header, Metadata: []byte("{}"), Content: []byte(content)}
		return c.wire(c.fresh(m, msgType))
	}
	fault := `"ename":"BlockedByFilter","evalue":` + quoted + `,"traceback":[` + quoted + `]`
	return []Message{
		answer("iopub", "status", `{"execution_state":"busy"}`),
		answer("iopub", "error", `{`+fault+`}`),
		answer("shell", "execute_reply", `{"status":"error","execution_count":null,`+fault+`}`),
		answer("iopub", "status", `{"execution_state":"idle"}`),
	}
}

// isText reports whether bytes are text: UTF-8 without the control characters
// that no text has.
func isText(b []byte) bool {
	if len(b) < shortest {
		return false
	}
	for _, c := range b[:min(len(b), 4096)] {
		if c < 0x20 && c != '\n' && c != '\r' && c != '\t' && c != 0x1b && c != '\b' && c != '\f' {
			return false
		}
	}
	head := b[:min(len(b), 4096)]
	for i := 0; i < 4 && len(head) > 0 && !utf8.Valid(head); i++ {
		head = head[:len(head)-1]
	}
	return utf8.Valid(head)
}

// stdoutKey is the one stream of a terminal.
var stdoutKey = streamKey{name: "stdout"}

func stdout(text []byte) Message {
	return Message{true, jupyter.AppendFrame(nil, jupyter.Frame{Op: "stdout", Args: [][]byte{jupyter.Quote(nil, text)}})}
}

func (c *Conn) terminalDown(m Message) (Verdict, error) {
	var out Verdict
	if !m.Text {
		return out, fmt.Errorf("%w: a binary message of a terminal", jupyter.ErrMalformed)
	}
	f, err := jupyter.ParseFrame(m.Data)
	if err != nil {
		return out, err
	}
	if f.Op == "stdout" && len(f.Args) == 1 {
		text, ok := jupyter.String(f.Args[0])
		if !ok {
			return out, fmt.Errorf("%w: terminal output that is no text", jupyter.ErrMalformed)
		}
		s := c.open(stdoutKey, inspect.Terminal)
		if s.blocked {
			return out, nil
		}
		got, err := s.write(nil, []byte(text))
		if rule, ok := asBlocked(err); ok {
			s.blocked = true
			c.terminalBlocked(&out, rule)
			return out, nil
		}
		if err != nil {
			return out, err
		}
		if len(got) > 0 {
			out.On = append(out.On, stdout(got))
		}
		c.wait()
		return out, nil
	}
	if err := c.tick(&out, stdoutKey, f.Op == "disconnect"); err != nil || out.Close != "" {
		return out, err
	}
	c.wait()
	for i, a := range f.Args {
		if f.Args[i], err = jupyter.Copy(nil, a, c.down.visit(c.view)); err != nil {
			return out, err
		}
	}
	op, err := c.down.text(c.view, []byte(f.Op))
	if err != nil {
		return out, err
	}
	f.Op = string(op)
	out.On = append(out.On, Message{true, jupyter.AppendFrame(nil, f)})
	return out, nil
}

// terminalBlocked ends a terminal: what it holds would come again with every
// reconnection.
func (c *Conn) terminalBlocked(out *Verdict, rule string) {
	why := "blocked by the filter: rule " + rule
	out.On = append(out.On, stdout([]byte("\r\n\x1b[31m["+why+"; this terminal was closed]\x1b[0m\r\n")))
	out.Stop, out.Close = true, why
}

// resized follows the terminal's size, on which it depends what stands beside
// what is drawn.
func (c *Conn) resized(m Message) {
	if !m.Text || len(m.Data) > 128 {
		return
	}
	f, err := jupyter.ParseFrame(m.Data)
	if err != nil || f.Op != "set_size" || len(f.Args) < 2 {
		return
	}
	var rows, columns int
	if json.Unmarshal(f.Args[1], &columns) == nil && columns > 0 && columns < 10_000 {
		if json.Unmarshal(f.Args[0], &rows) != nil || rows < 0 || rows >= 10_000 {
			rows = 0
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.columns, c.rows = columns, rows
		if s := c.streams[stdoutKey]; s != nil && !s.blocked {
			s.Resize(columns, rows)
		}
	}
}

func (c *Conn) terminalUp(m Message) (Verdict, error) {
	out := Verdict{On: []Message{m}}
	if !m.Text {
		return Verdict{}, fmt.Errorf("%w: a binary message to a terminal", jupyter.ErrMalformed)
	}
	f, err := jupyter.ParseFrame(m.Data)
	if err != nil {
		return Verdict{}, err
	}
	if f.Op != "stdin" || len(f.Args) != 1 {
		return out, nil
	}
	text, ok := jupyter.String(f.Args[0])
	if !ok {
		return Verdict{}, fmt.Errorf("%w: terminal input that is no text", jupyter.ErrMalformed)
	}
	if c.typed == nil {
		c.typed = c.up.stream(c.upView, inspect.Batch, 0, 0)
	}
	_, err = c.typed.Write(nil, []byte(text))
	if err == nil && strings.ContainsAny(text, "\r\n\x03\x04") {
		_, err = c.typed.Close(nil) // a line is typed: decide
		c.typed = nil
	}
	if rule, ok := asBlocked(err); ok {
		c.typed = nil
		why := "rule " + rule + " does not let this into a workspace; the line was thrown away"
		// ^U throws away what the line editor holds already.
		kill := Message{true, []byte(`["stdin","\u0015"]`)}
		return Verdict{On: []Message{kill}, Back: []Message{stdout([]byte("\r\n\x1b[31m[" + why + "]\x1b[0m\r\n"))}}, nil
	}
	return out, err
}

func (c *Conn) otherDown(m Message) (Verdict, error) {
	got, err := c.down.loose(c.view, m)
	if err != nil {
		return Verdict{}, err
	}
	return Verdict{On: []Message{got}}, nil
}

// loose looks at a message of no protocol that we know: JSON, text, or bytes.
func (w way) loose(v *view, m Message) (Message, error) {
	var err error
	switch {
	case m.Text && jupyter.Valid(m.Data) == nil:
		m.Data, err = jupyter.Copy(nil, m.Data, w.visit(v))
	case m.Text || isText(m.Data):
		m.Data, err = w.text(v, m.Data)
	default:
		m.Data = w.binary(v, m.Data)
	}
	return m, err
}
