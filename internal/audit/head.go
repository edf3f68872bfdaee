package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const headFile = "head.json"

// head is what head.json says: this far the journal was durable once. A chain
// alone cannot tell that its last lines are gone; together with this it can,
// for all lines up to Seq.
type head struct {
	V    int    `json:"v"`
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
}

// readHead returns what head.json says. A file that is not exactly what
// writeHead writes is a [Break]; one that is not there is fs.ErrNotExist.
func readHead(dir string) (end, error) {
	f, err := openRead(filepath.Join(dir, headFile))
	if err != nil {
		return end{}, err
	}
	defer f.Close() //nolint:errcheck // read only
	text := make([]byte, 512)
	n, err := f.Read(text)
	if err != nil && n > 0 {
		return end{}, err
	}
	var h head
	if err := json.Unmarshal(text[:n], &h); err != nil || !bytes.Equal(text[:n], h.text()) || h.V != version || len(h.Hash) != len(genesis) {
		return end{}, &Break{Segment: headFile, Reason: "not in the form in which it is written"}
	}
	return end{h.Seq, h.Hash}, nil
}

func (h head) text() []byte {
	text, err := json.Marshal(h)
	if err != nil {
		panic(err) // numbers and a string
	}
	return append(text, '\n')
}

// writeHead replaces head.json. Whoever reads it sees the old or the new one,
// also after a power cut.
func writeHead(dir string, at end) error {
	tmp := filepath.Join(dir, headFile+".new")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(head{version, at.seq, at.hash}.text())
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", headFile, err), os.Remove(tmp))
	}
	if err := os.Rename(tmp, filepath.Join(dir, headFile)); err != nil {
		return err
	}
	return syncDir(dir)
}

// checkHead compares what head.json says with what was found: found is the
// journal's end, hash the hash of line number said.seq, or "" if that line was
// not looked at.
func checkHead(said, found end, hash string) error {
	switch {
	case said.seq > found.seq:
		return &Break{Segment: headFile, Seq: said.seq, Reason: fmt.Sprintf("the journal had %d lines once and has %d now: the end was cut off", said.seq, found.seq)}
	case hash != "" && hash != said.hash:
		return &Break{Segment: headFile, Seq: said.seq, Reason: fmt.Sprintf("line %d is not the one that was written", said.seq)}
	}
	return nil
}

// missingHead is the break of a journal with lines and no head.json.
func missingHead(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &Break{Segment: headFile, Reason: "missing: whether lines are gone from the end cannot be told"}
	}
	return err
}
