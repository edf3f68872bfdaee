package recording

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/baileyhq/bailey"
)

// A castHead is the first line of an asciicast v2 file.
type castHead struct {
	Version   int               `json:"version"`
	Width     int               `json:"width"`
	Height    int               `json:"height"`
	Timestamp int64             `json:"timestamp,omitempty"`
	Title     string            `json:"title,omitempty"`
	Env       map[string]string `json:"env,omitempty"`
}

// Cast writes the rest of a recording as asciicast v2, for asciinema and other
// players. Events, which the form does not know, become markers in a terminal's
// recording, and lines of text where there was no terminal. Where the recording
// was cut or damaged a marker says so, and the file ends there. Output goes
// through clean, which may be nil: players draw what they are given.
func Cast(w io.Writer, r *Reader, clean func(string) string) error {
	if clean == nil {
		clean = func(s string) string { return s }
	}
	out := bufio.NewWriter(w)
	head := castHead{Version: 2, Width: 80, Height: 24, Timestamp: r.Meta.BeganAt.Unix(), Title: title(r.Meta)}
	if cols, rows, ok := Size(sizeText(r.Meta.Cols, r.Meta.Rows)); ok && r.Meta.Cols > 0 && r.Meta.Rows > 0 {
		head.Width, head.Height = cols, rows
	}
	if r.Meta.Term != "" {
		head.Env = map[string]string{"TERM": r.Meta.Term}
	}
	b, err := json.Marshal(head)
	if err != nil {
		return fmt.Errorf("write asciicast: %w", err)
	}
	_, _ = out.Write(append(b, '\n')) // Flush returns it
	line := func(rec Record) { _, _ = out.Write(appendRecord(nil, rec)) }
	var last Record
	for {
		rec, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return out.Flush()
		case errors.Is(err, ErrCut), errors.Is(err, ErrDamaged):
			line(Record{At: last.At, Code: marker, Text: err.Error()})
			return out.Flush()
		case err != nil:
			return errors.Join(err, out.Flush())
		}
		last = rec
		switch rec.Code {
		case Output:
			if rec.Text = clean(rec.Text); !r.Meta.Terminal {
				rec.Text = strings.ReplaceAll(rec.Text, "\n", "\r\n")
			}
		case Noted:
			rec.Code, rec.Text = marker, rec.Event.String()
			if !r.Meta.Terminal {
				rec.Code, rec.Text = Output, clean(rec.Text+"\r\n")
			}
			rec.Event = nil
		case Input, Resize:
		}
		if rec.Text != "" {
			line(rec)
		}
		if out.Size()-out.Available() > sealAt {
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
}

// marker is asciicast's code for a place with a name.
const marker Code = "m"

func title(m Meta) string {
	where := m.Workspace
	if m.User != "" {
		where = m.User + "." + m.Workspace
	}
	if m.Kind == bailey.SSHExec && m.Command != "" {
		return where + ": " + oneLine(m.Command)
	}
	return where + ": " + string(m.Kind)
}

// oneLine makes a client's text fit for one line of a terminal.
func oneLine(s string) string {
	const most = 200
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 {
			return '·'
		}
		return r
	}, s)
}

// String returns the event as a line for people.
func (e Event) String() string {
	words := []string{e.Kind}
	add := func(name, value string) {
		if value != "" {
			words = append(words, name+oneLine(value))
		}
	}
	number := func(name string, n int64) {
		if n != 0 {
			words = append(words, name+strconv.FormatInt(n, 10))
		}
	}
	add("", e.Op)
	add("", e.Direction)
	add("", e.Path)
	add("to ", e.To)
	add("", e.Target)
	add("", e.Command)
	add("rule ", e.Rule)
	add("", e.Signal)
	if e.Exit != nil {
		words = append(words, strconv.Itoa(*e.Exit))
	}
	number("bytes ", e.Size)
	number("up ", e.Up)
	number("down ", e.Down)
	add("", e.Detail)
	return strings.Join(words, " ")
}

// An Ending is the last line of what [Lines] writes.
type Ending struct {
	End string `json:"end"` // "whole", "cut" or "damaged"
}

// Lines writes the rest of a recording as lines of JSON: what is known of the
// session, its records, and an [Ending]. Output goes through clean, which may
// be nil.
func Lines(w io.Writer, r *Reader, clean func(string) string) error {
	out := bufio.NewWriterSize(w, sealAt)
	b, err := json.Marshal(r.Meta)
	if err != nil {
		return fmt.Errorf("write recording: %w", err)
	}
	_, _ = out.Write(append(b, '\n')) // Flush returns it
	for {
		rec, err := r.Next()
		end := ""
		switch {
		case err == nil:
			if clean != nil && rec.Code == Output {
				rec.Text = clean(rec.Text)
			}
			if _, err := out.Write(appendRecord(nil, rec)); err != nil {
				return err
			}
			continue
		case errors.Is(err, io.EOF):
			end = "whole"
		case errors.Is(err, ErrCut):
			end = "cut"
		case errors.Is(err, ErrDamaged):
			end = "damaged"
		default:
			return errors.Join(err, out.Flush())
		}
		fmt.Fprintf(out, "{\"end\":%q}\n", end)
		return out.Flush()
	}
}

// ParseLine reads a line of [Lines] between the first and the last.
func ParseLine(line []byte) (Record, error) { return parseRecord(line) }
