package scan

import (
	"bytes"
	"cmp"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// A Baseline is a file of findings that are known and accepted. It holds no
// values: each is hashed with the file's salt, slowly enough that guessing a
// telephone number takes days, and cut to 16 bytes.
type Baseline struct {
	mu    sync.Mutex // guards the rest
	salt  []byte
	known map[entryKey]Entry
	now   map[entryKey]Entry // what this run saw
	sums  map[[32]byte]string
}

type entryKey struct{ rule, sum string }

// An Entry is one accepted finding. Note is for people: why it is accepted.
type Entry struct {
	Rule string `json:"rule"`
	Path string `json:"path"` // where it was when it was accepted
	Sum  string `json:"sum"`
	Note string `json:"note,omitempty"`
}

// rounds is how often a value is hashed: about 5 ms on a core of 2025.
const rounds = 20_000

// baselineFile is the file's JSON.
type baselineFile struct {
	Version int     `json:"version"`
	Salt    string  `json:"salt"`
	Rounds  int     `json:"rounds"`
	Known   []Entry `json:"findings"`
}

// ErrBaseline is what errors about a baseline's contents are.
var ErrBaseline = errors.New("not a baseline")

// LoadBaseline reads a baseline. A file that is not there is, with create set,
// an empty one with a salt of its own; otherwise the error is
// [os.ErrNotExist].
func LoadBaseline(name string, create bool) (*Baseline, error) {
	b := &Baseline{known: map[entryKey]Entry{}, now: map[entryKey]Entry{}, sums: map[[32]byte]string{}}
	text, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) && create {
		b.salt = make([]byte, 16)
		_, _ = rand.Read(b.salt) // never fails
		return b, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the baseline: %w", err)
	}
	var f baselineFile
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrBaseline, name, err)
	}
	if b.salt, err = hex.DecodeString(f.Salt); err != nil || len(b.salt) < 16 || f.Version != 1 || f.Rounds != rounds {
		return nil, fmt.Errorf("%w: %s is of another version, or was changed by hand", ErrBaseline, name)
	}
	for _, e := range f.Known {
		b.known[entryKey{e.Rule, e.Sum}] = e
	}
	return b, nil
}

// Save writes what this run saw, keeping the notes of what was known before.
func (b *Baseline) Save(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	f := baselineFile{Version: 1, Salt: hex.EncodeToString(b.salt), Rounds: rounds, Known: []Entry{}}
	for k, e := range b.now {
		if old, ok := b.known[k]; ok {
			e = old
		}
		f.Known = append(f.Known, e)
	}
	slices.SortFunc(f.Known, func(x, y Entry) int {
		return cmp.Or(cmp.Compare(x.Path, y.Path), cmp.Compare(x.Rule, y.Rule), cmp.Compare(x.Sum, y.Sum))
	})
	text, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("write the baseline: %w", err)
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), ".baseline-*")
	if err != nil {
		return fmt.Errorf("write the baseline: %w", err)
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone already when all went well
	_, err = tmp.Write(append(text, '\n'))
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close()) // it is meant to be committed
	if err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("write the baseline: %w", err)
	}
	return nil
}

// seen reports whether the value is known.
func (b *Baseline) seen(rule string, value []byte) bool {
	sum := b.sum(value)
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.known[entryKey{rule, sum}]
	return ok
}

// note remembers a value for Save.
func (b *Baseline) note(rule, path string, value []byte) {
	sum := b.sum(value)
	b.mu.Lock()
	defer b.mu.Unlock()
	k := entryKey{rule, sum}
	if _, ok := b.now[k]; !ok {
		b.now[k] = Entry{Rule: rule, Path: path, Sum: sum}
	}
}

// sum hashes a value, slowly the first time.
func (b *Baseline) sum(value []byte) string {
	quick := sha256.Sum256(value)
	b.mu.Lock()
	sum, ok := b.sums[quick]
	b.mu.Unlock()
	if ok {
		return sum
	}
	key, err := pbkdf2.Key(sha256.New, string(value), b.salt, rounds, 16)
	if err != nil {
		return "" // only where FIPS mode forbids the parameters: nothing is known then
	}
	sum = hex.EncodeToString(key)
	b.mu.Lock()
	b.sums[quick] = sum
	b.mu.Unlock()
	return sum
}
