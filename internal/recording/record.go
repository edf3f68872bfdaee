package recording

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/baileyhq/bailey"
)

// A Meta is what is known of a session when it begins. It stands at the
// beginning of the recording, sealed like the rest.
type Meta struct {
	bailey.SSHSession

	Command string `json:"command,omitempty"` // of an exec, as it was asked for
	// Terminal says that there is one, whatever the kind: all that it shows is
	// kept. Term, Cols and Rows are as the client said.
	Terminal bool   `json:"terminal,omitempty"`
	Term     string `json:"term,omitempty"`
	Cols     int    `json:"cols,omitempty"`
	Rows     int    `json:"rows,omitempty"`
}

// A Code says what a record is; the letters are those of asciicast v2.
type Code string

// The codes.
const (
	Output Code = "o"
	Input  Code = "i"
	Resize Code = "r" // Text is "COLSxROWS"
	Noted  Code = "e" // Event has it; no asciicast code, players do not get it
)

// An Event is something that is not text on a screen.
type Event struct {
	Kind      string `json:"kind"`                // "exec", "exit", "sftp", "forward", "signal", "finding", "limit", "note"
	Command   string `json:"command,omitempty"`   // exec
	Op        string `json:"op,omitempty"`        // sftp: "open", "rename", "remove", "mkdir", …
	Path      string `json:"path,omitempty"`      // sftp
	To        string `json:"to,omitempty"`        // sftp: the new name, or where a link leads
	Direction string `json:"direction,omitempty"` // "up" into the workspace, "down" out of it
	Target    string `json:"target,omitempty"`    // forward: host:port or a socket's path
	Size      int64  `json:"size,omitempty"`      // sftp: bytes of the file that were carried
	Up        int64  `json:"up,omitempty"`        // forward: bytes into the workspace
	Down      int64  `json:"down,omitempty"`      // forward: bytes out of it
	Rule      string `json:"rule,omitempty"`      // finding
	Signal    string `json:"signal,omitempty"`
	Exit      *int   `json:"exit,omitempty"`
	Detail    string `json:"detail,omitempty"`
}

// A Record is one moment of a recording.
type Record struct {
	At    time.Duration // since the beginning
	Code  Code
	Text  string // of Output, Input and Resize
	Event *Event // of Noted
}

// maxText bounds every text of an event and of a meta: they come from clients.
const maxText = 4096

// short makes a client's text storable.
func short(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxText {
		return s
	}
	cut := maxText
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}

func (e Event) short() Event {
	for _, s := range []*string{&e.Kind, &e.Command, &e.Op, &e.Path, &e.To, &e.Direction, &e.Target, &e.Rule, &e.Signal, &e.Detail} {
		*s = short(*s)
	}
	return e
}

func (m Meta) short() Meta {
	for _, s := range []*string{&m.Command, &m.Term, &m.Client, &m.ClientVersion, &m.Key} {
		*s = short(*s)
	}
	return m
}

// appendRecord appends a record as a line: [time, code, text or event].
func appendRecord(b []byte, r Record) []byte {
	b = append(b, '[')
	b = strconv.AppendFloat(b, r.At.Seconds(), 'f', 6, 64)
	b = append(b, ',', '"')
	b = append(b, r.Code...)
	b = append(b, '"', ',')
	var v any = r.Text
	if r.Code == Noted {
		v = r.Event
	}
	data, err := json.Marshal(v)
	if err != nil {
		panic("recording: " + err.Error()) // texts and numbers always encode
	}
	b = append(b, data...)
	return append(b, ']', '\n')
}

var errRecord = errors.New("not a record")

// parseRecord is the inverse of appendRecord, without the line's end.
func parseRecord(line []byte) (Record, error) {
	var parts []json.RawMessage
	var at float64
	var r Record
	if json.Unmarshal(line, &parts) != nil || len(parts) != 3 ||
		json.Unmarshal(parts[0], &at) != nil || json.Unmarshal(parts[1], (*string)(&r.Code)) != nil {
		return Record{}, errRecord
	}
	if at < 0 || at > 1e9 || math.IsNaN(at) {
		return Record{}, errRecord
	}
	r.At = time.Duration(math.Round(at*1e6)) * time.Microsecond
	switch r.Code {
	case Output, Input, Resize:
		if json.Unmarshal(parts[2], &r.Text) != nil {
			return Record{}, errRecord
		}
		if r.Code == Resize {
			if _, _, ok := Size(r.Text); !ok {
				return Record{}, errRecord
			}
		}
	case Noted:
		if json.Unmarshal(parts[2], &r.Event) != nil || r.Event == nil {
			return Record{}, errRecord
		}
	default:
		return Record{}, errRecord
	}
	return r, nil
}

// Size reads the text of a Resize.
func Size(text string) (cols, rows int, ok bool) {
	c, r, found := strings.Cut(text, "x")
	cols, err1 := strconv.Atoi(c)
	rows, err2 := strconv.Atoi(r)
	return cols, rows, found && err1 == nil && err2 == nil && cols > 0 && rows > 0 && cols <= maxSide && rows <= maxSide
}

const maxSide = 10_000 // columns or rows that a client may claim

func sizeText(cols, rows int) string {
	side := func(n int) int { return min(max(n, 1), maxSide) }
	return fmt.Sprintf("%dx%d", side(cols), side(rows))
}
