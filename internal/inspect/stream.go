package inspect

import "github.com/baileyhq/bailey/internal/inspect/exact"

// ScanConfig says how to look at one text.
type ScanConfig struct {
	Exact *exact.Set // known secrets; nil means none
	User  string     // for allowances
	Path  string     // for allowances, and for rules about certain files
	// TrustPath applies what rule files say about paths to leave out
	// (node_modules, images, lock files): for people who scan their own files.
	TrustPath bool
	Kind      Kind
	Columns   int // of a terminal; 0 means unknown
}

// StreamConfig says how to look at one logical stream.
type StreamConfig struct {
	Set *Set
	ScanConfig
	// Report is called for each finding as soon as it is certain, in order of
	// their ends. It is called from within the Stream's methods; nil means not
	// at all.
	Report func(Finding)
	// Sampling leaves out part of very long streams; the zero value means
	// nothing is left out.
	Sampling Sampling
}

// Sampling bounds the work on very long streams. After the first Full bytes,
// rules that begin with a common word are applied to one block of 64 KiB in
// Every, chosen by a keyed hash; all other rules, and known secrets, are
// applied to every byte.
type Sampling struct {
	Full  int64
	Every int
}

// A Stream looks at one logical stream. It is not safe for concurrent use.
type Stream struct {
	cfg   StreamConfig
	text  []byte
	ended bool
}

// NewStream returns a Stream that has seen nothing yet.
func NewStream(cfg StreamConfig) *Stream { return &Stream{cfg: cfg} }

// Write takes the next piece of the stream and appends to dst what may be
// released. p is not kept. After a [BlockedError] nothing is released any more.
func (s *Stream) Write(dst, p []byte) ([]byte, error) {
	s.text = append(s.text, p...)
	return dst, nil
}

// Held returns how many bytes wait.
func (s *Stream) Held() int { return len(s.text) }

// Tick says that text has waited long enough: callers call it a moment (25 ms
// for terminals, 100 ms else) after a Write that left something held. What is
// less than half of a secret is released, the rest is masked.
func (s *Stream) Tick(dst []byte) ([]byte, error) { return s.flush(dst) }

// Close ends the stream: everything held is decided.
func (s *Stream) Close(dst []byte) ([]byte, error) { return s.flush(dst) }

// Sampled returns how many bytes some rules were not applied to.
func (s *Stream) Sampled() int64 { return 0 }

func (s *Stream) flush(dst []byte) ([]byte, error) {
	out, found, err := s.cfg.Set.redactWhole(s.cfg.ScanConfig, s.text)
	s.text = nil
	for _, f := range found {
		if s.cfg.Report != nil {
			s.cfg.Report(f)
		}
	}
	return append(dst, out...), err
}

// Scan returns what the rules find in a whole text, by offset.
func (s *Set) Scan(cfg ScanConfig, data []byte) []Finding {
	_, found, _ := s.redactWhole(cfg, data)
	return found
}

// Redact returns data with its findings masked, and the findings. The error is
// a [BlockedError] when a rule with mode block matched.
func (s *Set) Redact(cfg ScanConfig, data []byte) ([]byte, []Finding, error) {
	return s.redactWhole(cfg, data)
}

// Explain returns where patterns matched without a finding, and why not.
func (s *Set) Explain(cfg ScanConfig, data []byte) []Miss {
	var misses []Miss
	for _, r := range s.rules {
		for _, m := range r.find(data) {
			if reason := s.judge(&cfg, data, m); reason != "" {
				misses = append(misses, Miss{Rule: r.ID, Offset: int64(m.start), Length: int64(m.end - m.start), Reason: reason})
			}
		}
	}
	return misses
}
