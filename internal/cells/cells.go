// Package cells sees which code people run: it watches the messages between a
// page and a kernel and tells who ran how much code, when, for how long and how
// it ended. Of the code itself it tells a keyed hash, by which two runs of the
// same cell are the same, and nothing else.
//
// What a person sends is seen by the gateway and is therefore sure. How long it
// took and how it ended is the kernel's word, which is its user's.
package cells

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/jupyter"
	"github.com/baileyhq/bailey/internal/secret"
)

// The limits. A page runs some cells in a minute, "run all" some hundreds at once.
const (
	maxPending = 512             // unanswered requests of a connection; beyond, the oldest counts as unanswered
	burst      = 200             // records that a connection may make at once
	refill     = 2 * time.Second // per further record; what comes faster is counted together
)

// An Outcome says how a cell ended.
type Outcome string

// The outcomes.
const (
	OK         Outcome = "ok"
	Failed     Outcome = "error"
	Aborted    Outcome = "aborted"    // a cell before it failed
	Refused    Outcome = "refused"    // it did not reach the kernel
	Unanswered Outcome = "unanswered" // the connection ended first
)

// A Record is one run of a cell, or several that came too fast to be recorded
// one by one: then Count is how many, Bytes is of all of them, and Sum is empty.
type Record struct {
	Who     bailey.Actor
	Outcome Outcome
	Sum     string // hex HMAC-SHA-256 of the code, cut to 128 bits
	Bytes   int64  // of the code
	Took    time.Duration
	Silent  bool // pages run such code by themselves; it leaves no output
	Count   int64
}

// Config is what a Watch needs. Report is called in order, from whichever
// goroutine carries messages, and must not wait.
type Config struct {
	Key    secret.Value
	Who    bailey.Actor
	V1     bool // the connection speaks v1.kernel.websocket.jupyter.org
	Report func(Record)
	Now    func() time.Time // nil means time.Now
}

// A Watch follows one connection to a kernel. It may be used concurrently.
type Watch struct {
	cfg Config

	mu      sync.Mutex // guards the rest
	pending map[string]pending
	order   []string // ids in pending, oldest first; some may be gone
	tokens  int
	at      time.Time // of the last refill
	crowd   Record    // counted together
	ended   bool
}

type pending struct {
	record Record
	began  time.Time
}

// New returns a Watch.
func New(cfg Config) *Watch {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Watch{cfg: cfg, pending: map[string]pending{}, tokens: burst, at: cfg.Now()}
}

var (
	request = []byte("execute_request")
	reply   = []byte("execute_reply")
)

// Up sees a message from the page; passed says that it went on to the kernel.
// What is no execute_request is let go after one search. p is not kept.
func (w *Watch) Up(p []byte, text, passed bool) {
	if !bytes.Contains(p, request) {
		return
	}
	m, h, ok := w.parse(p, text, "execute_request")
	if !ok {
		return
	}
	members, err := jupyter.Members(m.Content)
	if err != nil {
		return
	}
	code, ok := jupyter.String(jupyter.Get(members, "code"))
	if !ok {
		return
	}
	mac := hmac.New(sha256.New, []byte(w.cfg.Key.Reveal()))
	mac.Write([]byte(code))
	r := Record{
		Who: w.cfg.Who, Sum: hex.EncodeToString(mac.Sum(nil)[:16]), Bytes: int64(len(code)), Count: 1,
		Silent: string(bytes.TrimSpace(jupyter.Get(members, "silent"))) == "true",
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	if !passed {
		r.Outcome = Refused
		w.report(r)
		return
	}
	if old, twice := w.pending[h.ID]; twice {
		w.unanswered(h.ID, old)
	}
	for len(w.pending) >= maxPending {
		w.oldest()
	}
	w.pending[h.ID] = pending{r, w.cfg.Now()}
	if w.order = append(w.order, h.ID); len(w.order) > 4*maxPending {
		w.tidy()
	}
}

// Down sees a message from the kernel.
func (w *Watch) Down(p []byte, text bool) {
	if !bytes.Contains(p, reply) {
		return
	}
	m, _, ok := w.parse(p, text, "execute_reply")
	if !ok {
		return
	}
	parent, err := jupyter.ParseHeader(m.Parent)
	if err != nil {
		return
	}
	outcome := Failed
	if members, err := jupyter.Members(m.Content); err == nil {
		switch status, _ := jupyter.String(jupyter.Get(members, "status")); status {
		case "ok":
			outcome = OK
		case "aborted", "abort":
			outcome = Aborted
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	was, ok := w.pending[parent.ID]
	if !ok {
		return // it belongs to another page of the same kernel
	}
	delete(w.pending, parent.ID)
	was.record.Outcome, was.record.Took = outcome, w.cfg.Now().Sub(was.began)
	w.report(was.record)
}

// End tells what was never answered. Nothing is seen afterwards.
func (w *Watch) End() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.pending) > 0 {
		w.oldest()
	}
	w.ended = true
	w.flush()
}

// parse reads a message if it is of the type, on the channel where such
// messages are.
func (w *Watch) parse(p []byte, text bool, want string) (m jupyter.Message, h jupyter.Header, ok bool) {
	var err error
	if w.cfg.V1 {
		m, err = jupyter.ParseV1(p)
	} else {
		m, err = jupyter.ParseLegacy(p, text)
	}
	if err != nil {
		return m, h, false
	}
	h, err = jupyter.ParseHeader(m.Header)
	return m, h, err == nil && h.Type == want
}

// oldest gives up waiting for the oldest request. The caller holds mu.
func (w *Watch) oldest() {
	for len(w.order) > 0 {
		id := w.order[0]
		w.order = w.order[1:]
		if was, ok := w.pending[id]; ok {
			w.unanswered(id, was)
			return
		}
	}
	clear(w.pending) // not reached: every id in pending is in order
}

func (w *Watch) unanswered(id string, was pending) {
	delete(w.pending, id)
	was.record.Outcome, was.record.Took = Unanswered, w.cfg.Now().Sub(was.began)
	w.report(was.record)
}

// tidy forgets ids that were answered. The caller holds mu.
func (w *Watch) tidy() {
	kept := w.order[:0:0]
	for _, id := range w.order {
		if _, ok := w.pending[id]; ok {
			kept = append(kept, id)
		}
	}
	w.order = kept
}

// report tells of a record, or counts it together with others that come too
// fast: somebody who runs a million cells in a loop must not fill the journal's
// disk. The caller holds mu.
func (w *Watch) report(r Record) {
	now := w.cfg.Now()
	if n := int(now.Sub(w.at) / refill); n > 0 {
		w.tokens = min(burst, w.tokens+n)
		w.at = now
	}
	if w.tokens == 0 {
		w.crowd.Who = r.Who
		w.crowd.Count++
		w.crowd.Bytes += r.Bytes
		w.crowd.Took += r.Took
		w.crowd.Outcome = r.Outcome
		return
	}
	w.flush()
	w.tokens--
	w.cfg.Report(r)
}

// flush tells of what was counted together. The caller holds mu.
func (w *Watch) flush() {
	if w.crowd.Count > 0 {
		w.cfg.Report(w.crowd)
	}
	w.crowd = Record{}
}
