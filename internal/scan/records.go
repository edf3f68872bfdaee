package scan

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/baileyhq/bailey/internal/inspect"
)

// maxRecord is the longest line of records, in bytes.
const maxRecord = 256 << 20

// A RecordFinding is a finding in one record. Offset and Length are bytes of
// the decoded text.
type RecordFinding struct {
	Record int          `json:"record"` // the line, from 0
	Line   int          `json:"line"`   // the line, from 1
	Rule   string       `json:"rule"`
	Mode   inspect.Mode `json:"mode"`
	Offset int64        `json:"offset"`
	Length int64        `json:"length"`
	Lane   string       `json:"lane,omitempty"`
}

// A RecordError is about a line that is no record.
type RecordError struct {
	Line int // from 1
	Err  error
}

// Error implements error.
func (e *RecordError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }

// Unwrap returns the cause.
func (e *RecordError) Unwrap() error { return e.Err }

// Records reads JSON objects, one a line, and looks at the text of each by
// itself. It calls report for each finding, in order, and bad for each line
// that is no record; empty lines are nothing. The error is the reader's,
// ctx's or report's.
func (s *Scanner) Records(ctx context.Context, r io.Reader, report func(RecordFinding) error, bad func(*RecordError)) error {
	in := bufio.NewReaderSize(r, 1<<16)
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		line, err := readLine(in)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, errLong) {
			return fmt.Errorf("read the records: %w", err)
		}
		end := errors.Is(err, io.EOF)
		if errors.Is(err, errLong) {
			bad(&RecordError{n + 1, err})
		} else if len(bytes.TrimSpace(line)) > 0 {
			text, err := record(line)
			if err != nil {
				bad(&RecordError{n + 1, err})
			}
			if err == nil {
				s.count(1, 0)
				for _, f := range s.cfg.Set.Scan(inspect.ScanConfig{}, text) {
					if f.Mode < s.cfg.Least {
						continue
					}
					if err := report(RecordFinding{Record: n, Line: n + 1, Rule: f.Rule, Mode: f.Mode, Offset: f.Offset, Length: f.Length, Lane: f.Lane}); err != nil {
						return err
					}
				}
			}
		}
		if end {
			return nil
		}
	}
}

var errLong = fmt.Errorf("is longer than %d MiB", maxRecord>>20)

// readLine returns the next line without its end. The error is io.EOF with the
// last line, and errLong for one that is too long and was skipped.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	long := false
	for {
		part, err := in.ReadSlice('\n')
		if long = long || len(line)+len(part) > maxRecord; long {
			line = nil
		} else {
			line = append(line, part...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err == nil || errors.Is(err, io.EOF) {
			if long {
				return nil, errLong
			}
			return bytes.TrimRight(line, "\r\n"), err
		}
		return nil, err
	}
}

// record returns the text of a record. Keys are taken as they are
// written: "TEXT" is another key, and a text that stands twice is refused,
// because whoever reads the record next may take the other.
func record(line []byte) (text []byte, err error) {
	dec := json.NewDecoder(bytes.NewReader(line))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("is no JSON object")
	}
	have := false
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, errors.New("is no JSON object")
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, errors.New("is no JSON object")
		}
		if key != "text" {
			continue
		}
		if have {
			return nil, errors.New(`has the key "text" twice`)
		}
		var s string
		if !strings.HasPrefix(string(value), `"`) || json.Unmarshal(value, &s) != nil {
			return nil, errors.New(`the value of "text" is no string`)
		}
		text, have = []byte(s), true
	}
	if _, err := dec.Token(); err != nil {
		return nil, errors.New("is no JSON object")
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("has something behind the JSON object")
	}
	if !have {
		return nil, errors.New(`has no key "text"`)
	}
	return text, nil
}
