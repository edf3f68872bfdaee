package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// version is the V of every event.
	version = 1
	// maxLine is the longest line, without its newline. It leaves room below
	// the 64 KiB that a Merkle log's entry may have.
	maxLine = 16 << 10
	// maxName is the longest name or ID, in bytes of UTF-8.
	maxName = 64
	// maxDigest is the longest digest or GPU UUID.
	maxDigest = 128
	// maxHost is the longest name of a host.
	maxHost = 253
	// maxSigner is the longest signer: an identity is the URL of a workflow.
	maxSigner = 320
	// envelope is more than what the writer adds around a body.
	envelope = 512
	// genesis stands where the hash of the line before the first would stand.
	genesis = "0000000000000000000000000000000000000000000000000000000000000000"
)

// body is the part of an event that the caller gives, in the order of Event.
type body struct {
	Actor   Actor   `json:"actor"`
	Action  Action  `json:"action"`
	Target  Target  `json:"target"`
	Outcome Outcome `json:"outcome"`
	Reason  Reason  `json:"reason,omitempty"`
	Attrs   Attrs   `json:"attrs"`
}

// encodeBody returns `,"actor":…,"attrs":{…}`: the middle of a line. It runs in
// the caller's goroutine, so that the one writer has little to do.
func encodeBody(e Event) ([]byte, error) {
	for _, word := range []string{string(e.Action), string(e.Outcome), string(e.Reason)} {
		if !isWord(word) {
			return nil, fmt.Errorf("%.40q is not an action, outcome or reason", word)
		}
	}
	if e.Action == "" || e.Outcome == "" {
		return nil, errors.New("an event needs an action and an outcome")
	}
	text, err := json.Marshal(body{clean(e.Actor), e.Action, cleanTarget(e.Target), e.Outcome, e.Reason, cleanAttrs(e.Attrs)})
	if err != nil {
		return nil, err
	}
	if len(text)+envelope > maxLine {
		return nil, fmt.Errorf("the event has %d bytes, at most %d fit", len(text), maxLine-envelope)
	}
	text[0] = ','
	return text[:len(text)-1], nil
}

// isWord allows what the constants are made of. The type system keeps free
// text out as long as nobody converts to Action; this does it for them.
func isWord(s string) bool {
	return len(s) <= 48 && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && r != '_' && r != '.'
	})
}

func clean(a Actor) Actor {
	return Actor{
		ID: name(a.ID), Name: name(a.Name), Unknown: name(a.Unknown),
		Method: name(a.Method), Session: name(a.Session), IP: name(a.IP),
	}
}

func cleanTarget(t Target) Target {
	return Target{Kind: name(t.Kind), ID: name(t.ID), Name: name(t.Name)}
}

func cleanAttrs(a Attrs) Attrs {
	a.Class, a.Run, a.Role = name(a.Class), name(a.Run), name(a.Role)
	a.Rule, a.Mode, a.Route = plain(a.Rule, maxDigest), name(a.Mode), name(a.Route)
	a.Length, a.Sum = name(a.Length), plain(a.Sum, maxDigest)
	a.Factor, a.Methods, a.Browser = name(a.Factor), name(a.Methods), name(a.Browser)
	a.Image, a.Digest = plain(a.Image, maxDigest), plain(a.Digest, maxDigest)
	a.Policy, a.Root = plain(a.Policy, maxDigest), plain(a.Root, maxDigest)
	a.Signer, a.Verdict = plain(a.Signer, maxSigner), name(a.Verdict)
	a.Host = host(a.Host)
	a.Group, a.Owner, a.Source = name(a.Group), name(a.Owner), name(a.Source)
	a.Session, a.Kind, a.Key = name(a.Session), name(a.Kind), plain(a.Key, maxDigest)
	a.Scopes = slices.Clone(a.Scopes)
	for i, s := range a.Scopes {
		a.Scopes[i] = name(s)
	}
	a.GPUs = slices.Clone(a.GPUs)
	for i, g := range a.GPUs {
		a.GPUs[i] = plain(g, maxDigest)
	}
	return a
}

// host keeps of a host's name what such names are made of.
func host(s string) string {
	s = strings.Map(func(r rune) rune {
		if 'a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-' || r == '.' || r == '_' {
			return r
		}
		return -1
	}, s[:min(len(s), 4*maxHost)])
	return s[:min(len(s), maxHost)]
}

func name(s string) string { return plain(s, maxName) }

// plain takes out what could make one line look like two, or like something
// else, to whoever prints it: control characters, and invisible and
// direction-changing ones. It cuts at a rune's border.
func plain(s string, limit int) string {
	ascii := func(r rune) bool { return r < ' ' || r > '~' }
	if len(s) <= limit && !strings.ContainsFunc(s, ascii) {
		return s
	}
	if len(s) > 4*limit { // do not walk through a megabyte to keep 64 bytes
		s = s[:4*limit]
	}
	var b strings.Builder
	for _, r := range s { // a broken byte comes as U+FFFD
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029' {
			continue
		}
		if b.Len()+utf8.RuneLen(r) > limit {
			break
		}
		b.WriteRune(r)
	}
	return b.String()
}

// An end is where a journal has got to: the last line's number and hash. The
// next line continues it.
type end struct {
	seq  uint64
	hash string // hex SHA-256 of the last line without its newline
}

func beginning() end { return end{0, genesis} }

// appendLine appends one line with its newline to buf and returns the new end.
// The keys are in the order of [Event], as encoding/json writes them.
func (at end) appendLine(buf []byte, id, boot string, ts time.Time, mid []byte) ([]byte, end) {
	start := len(buf)
	buf = append(buf, `{"v":`...)
	buf = strconv.AppendInt(buf, version, 10)
	buf = append(buf, `,"id":"`...)
	buf = append(buf, id...)
	buf = append(buf, `","ts":"`...)
	buf = ts.AppendFormat(buf, time.RFC3339Nano)
	buf = append(buf, `","boot":"`...)
	buf = append(buf, boot...)
	buf = append(buf, `","seq":`...)
	buf = strconv.AppendUint(buf, at.seq+1, 10)
	buf = append(buf, mid...)
	buf = append(buf, `,"prev":"`...)
	buf = append(buf, at.hash...)
	buf = append(buf, `"}`...)
	next := end{at.seq + 1, hashOf(buf[start:])}
	return append(buf, '\n'), next
}

func hashOf(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}

// follow checks that line is the one after at and returns the new end. The
// error is a reason for a person.
func (at end) follow(line []byte) (end, error) {
	seq, ok := seqOf(line)
	tail := `,"prev":"` + at.hash + `"}`
	switch {
	case !ok:
		return at, errors.New("not a journal line")
	case seq != at.seq+1:
		return at, fmt.Errorf("number %d where %d should be", seq, at.seq+1)
	case !bytes.HasSuffix(line, []byte(tail)):
		return at, errors.New("does not continue the line before it: one of the two was changed")
	}
	return end{seq, hashOf(line)}, nil
}

// seqOf reads the number of a line without decoding the rest. The key cannot
// be met earlier inside a string: the quote would be escaped there.
func seqOf(line []byte) (uint64, bool) {
	const key = `,"seq":`
	_, after, ok := bytes.Cut(line, []byte(key))
	if !ok {
		return 0, false
	}
	rest := after
	j := bytes.IndexByte(rest, ',')
	if j < 1 || j > 20 || rest[0] == '0' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(rest[:j]), 10, 64)
	return n, err == nil
}

// decode reads a line and holds it to the form in which we write: same keys,
// same order, same spaces.
func decode(line []byte) (Event, error) {
	var e Event
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&e); err != nil {
		return Event{}, fmt.Errorf("not valid JSON of an event: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Event{}, errors.New("more than one JSON value")
	}
	if e.V != version {
		return Event{}, fmt.Errorf("format version %d; this program knows %d", e.V, version)
	}
	again, err := json.Marshal(e)
	if err != nil {
		return Event{}, err
	}
	if !bytes.Equal(again, line) {
		return Event{}, errors.New("not in the form in which events are written")
	}
	return e, nil
}
