package filter

import (
	"sync"
	"time"
)

// gatherFor is how long equal findings are counted before they are recorded
// again.
const gatherFor = time.Minute

// maxGathered bounds what is counted at once. When a workspace makes ever new
// findings, the oldest counts are recorded early.
const maxGathered = 4096

// An Entry is a finding and how often it was made.
type Entry struct {
	Finding
	Count int64
	Bytes int64 // of all of them
}

// A Ledger counts findings: the first of its kind is recorded at once, what
// follows within a minute as one entry with a count, so that a loop that prints
// a token is no flood of events. It may be used concurrently.
type Ledger struct {
	record func(Entry)

	mu      sync.Mutex // guards the rest
	open    map[ledgerKey]*gathered
	closed  bool
	pending sync.WaitGroup // entries on their way to record
}

type ledgerKey struct {
	workspace, user, rule, sum, failed string
	route                              Route
	input, shadow                      bool
	mode                               uint8
}

type gathered struct {
	entry Entry // what was only counted
	timer *time.Timer
}

// NewLedger returns a Ledger that gives its entries to record, which may wait.
func NewLedger(record func(Entry)) *Ledger {
	return &Ledger{record: record, open: map[ledgerKey]*gathered{}}
}

// Add counts a finding. It does not wait.
func (l *Ledger) Add(f Finding) {
	key := ledgerKey{
		workspace: f.WorkspaceID, user: f.UserID, rule: f.Rule, sum: f.Sum, failed: f.Failed,
		route: f.Route, input: f.Input, shadow: f.Shadow, mode: uint8(f.Mode),
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if g := l.open[key]; g != nil {
		g.entry.Count++
		g.entry.Bytes += f.Length
		return
	}
	l.send(Entry{Finding: f, Count: 1, Bytes: f.Length})
	if l.closed {
		return
	}
	if len(l.open) >= maxGathered {
		for old, g := range l.open {
			g.timer.Stop()
			l.end(old, g)
			break
		}
	}
	g := &gathered{entry: Entry{Finding: f}}
	g.timer = time.AfterFunc(gatherFor, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.open[key] == g {
			l.end(key, g)
		}
	})
	l.open[key] = g
}

// end records what was counted. The caller holds mu.
func (l *Ledger) end(key ledgerKey, g *gathered) {
	delete(l.open, key)
	if g.entry.Count > 0 {
		l.send(g.entry)
	}
}

// send hands an entry over without waiting for it. The caller holds mu.
func (l *Ledger) send(e Entry) {
	l.pending.Go(func() { l.record(e) })
}

// Close records what was counted and waits until all is recorded.
func (l *Ledger) Close() {
	l.mu.Lock()
	l.closed = true
	for key, g := range l.open {
		g.timer.Stop()
		l.end(key, g)
	}
	l.mu.Unlock()
	l.pending.Wait()
}
