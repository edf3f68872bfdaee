// Package guard decides whether to listen to someone at all: it counts failed
// sign-ins per address prefix and account, slows and then bans those who fail
// too often. It judges and remembers, in bounded memory; callers do the
// refusing and the auditing.
//
// Three ideas carry it. Names that are no account are counted exactly like
// names that are, so a limit says nothing about who exists. Failures lock the
// pair of a prefix and a name, never a name as such, so a stranger cannot lock
// somebody else out. And a pair that has succeeded before is held to its own
// failures alone: whatever others do, from wherever, it gets through.
package guard

import (
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/baileyhq/bailey/internal/mutant"
)

// Config says how patient a Guard is. The zero value is the default patience.
type Config struct {
	Now func() time.Time // nil means time.Now

	// Key hashes what attackers choose; it is the same in all servers that share
	// what they know, and after a restart. Empty: a random one.
	Key []byte
	// Own says whether an address is this machine's: what calls from there may
	// be a proxy or a container bridge with everybody behind it. Nil: only
	// loopback is.
	Own func(netip.Addr) bool

	PrefixPerMinute  int // attempts per prefix, also the burst; 0 means 10. An IPv6 /48 gets four times that
	SubjectPerMinute int // attempts per subject, also the burst; 0 means 10
	GlobalPerSecond  int // attempts in all, also the burst; 0 means 20
	MissesPerMinute  int // unknown tokens per prefix, also the burst; 0 means 60

	Window         time.Duration // how long a failure counts; 0 means 15 min
	PairFailures   int           // failures of a subject from a prefix that block the pair; 0 means 5
	PrefixFailures int           // failures from a prefix that ban it, when over PrefixSubjects; 0 means 20
	PrefixSubjects int           // different subjects that make failures look like spraying; 0 means 3
	Block          time.Duration // first block or ban; each next one is twice as long; 0 means 30 min
	BlockMax       time.Duration // longest block or ban; 0 means 24 h

	Pressure int // failures by strangers on a subject within an hour that make Verdict.Pressed; 0 means 50

	SlowPerMinute int           // attempts per slowed private prefix; 0 means 2
	SharedBlock   time.Duration // block of a known pair behind an address that several people use; 0 means 1 min

	KnownFor time.Duration // how long a success makes a pair known; 0 means 30 days
	Entries  int           // counters kept, at most; 0 means 131,072 (about 40 MB when full)
	Knowns   int           // known pairs kept, at most, of sign-ins and of tokens each; 0 means 32,768
}

// A Reason says why a verdict is what it is. Callers log and count it; people
// read other words.
type Reason string

// The reasons.
const (
	Fine          Reason = ""               // nothing speaks against it
	PairBlocked   Reason = "pair_blocked"   // this subject failed too often from this prefix
	PrefixBanned  Reason = "prefix_banned"  // this prefix failed on too many subjects
	SharedAddress Reason = "shared_address" // a private prefix that would be banned is only slowed: the network may hide many people behind it
	PrefixRate    Reason = "prefix_rate"    // too many attempts from this prefix
	SubjectRate   Reason = "subject_rate"   // too many attempts on this subject
	GlobalRate    Reason = "global_rate"    // too many attempts in all
	ByAdmin       Reason = "by_admin"       // an administrator banned the address
	InFlight      Reason = "in_flight"      // attempts of this pair that are not judged yet could already be one too many
)

// A Verdict is what [Guard.Check] and [Guard.Lookup] answer.
type Verdict struct {
	Allowed bool

	// Masked is set when the attempt is allowed only because the pair is known;
	// anybody else would be refused with this Why and RetryAfter. When such an
	// attempt fails, answer as if it had been refused: otherwise a neighbour
	// behind the same address learns from the words which names have signed in
	// from there. (From the time it takes, the neighbour still can: a refusal
	// that costs a hash would be no protection.)
	Masked bool

	// Known is set when an allowed attempt comes from where the subject has
	// succeeded before: it need not wait behind a crowd of strangers.
	Known bool

	RetryAfter time.Duration // when it makes sense to try again; zero when allowed and not masked
	Why        Reason

	// Pressed is set when an allowed attempt is a stranger's on a subject that
	// strangers have failed on many times within the hour. It is no lock: ask
	// for more than a password.
	Pressed bool

	// Report is how many refusals by this limit are to be told to the audit
	// log now, this one included; zero means none: a flood of refusals must
	// not become a flood of events.
	Report int
}

// How the limits of the wide IPv6 prefix (/48) follow from those of the /64.
const wideFactor = 4

// reportEvery is how often refusals by one limit are reported.
const reportEvery = time.Minute

// A Guard counts attempts and failures. Methods may be called concurrently.
type Guard struct {
	cfg   Config
	begin time.Time // times are kept as distances from here: monotonic, and 8 bytes

	news   news
	people people
	nets   atomic.Pointer[[]netBan] // imposed by administrators

	counters *table // pairs, prefixes, subjects
	knowns   *table // pairs that signed in
	tokens   *table // pairs that used a valid token; apart, because using a token is not limited

	globalMu sync.Mutex // guards global
	global   entry
}

// New returns a Guard that has seen nothing yet.
func New(cfg Config) (*Guard, error) {
	for _, n := range []int{
		cfg.PrefixPerMinute, cfg.SubjectPerMinute, cfg.GlobalPerSecond, cfg.MissesPerMinute, cfg.PairFailures,
		cfg.PrefixFailures, cfg.PrefixSubjects, cfg.Pressure, cfg.SlowPerMinute, cfg.Entries, cfg.Knowns,
	} {
		if n < 0 {
			return nil, errors.New("guard: negative limit")
		}
	}
	for _, d := range []time.Duration{cfg.Window, cfg.Block, cfg.BlockMax, cfg.SharedBlock, cfg.KnownFor} {
		if d < 0 {
			return nil, errors.New("guard: negative duration")
		}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	cfg.PrefixPerMinute = cmp.Or(cfg.PrefixPerMinute, 10)
	cfg.SubjectPerMinute = cmp.Or(cfg.SubjectPerMinute, 10)
	cfg.GlobalPerSecond = cmp.Or(cfg.GlobalPerSecond, 20)
	cfg.MissesPerMinute = cmp.Or(cfg.MissesPerMinute, 60)
	cfg.Window = cmp.Or(cfg.Window, 15*time.Minute)
	cfg.PairFailures = cmp.Or(cfg.PairFailures, 5)
	cfg.PrefixFailures = cmp.Or(cfg.PrefixFailures, 20)
	cfg.PrefixSubjects = cmp.Or(cfg.PrefixSubjects, 3)
	cfg.Block = cmp.Or(cfg.Block, 30*time.Minute)
	cfg.BlockMax = cmp.Or(cfg.BlockMax, 24*time.Hour)
	cfg.Pressure = cmp.Or(cfg.Pressure, 50)
	cfg.SlowPerMinute = cmp.Or(cfg.SlowPerMinute, 2)
	cfg.SharedBlock = cmp.Or(cfg.SharedBlock, time.Minute)
	cfg.KnownFor = cmp.Or(cfg.KnownFor, 30*24*time.Hour)
	cfg.Entries = cmp.Or(cfg.Entries, 1<<17)
	cfg.Knowns = cmp.Or(cfg.Knowns, 1<<15)
	if cfg.BlockMax < cfg.Block {
		return nil, errors.New("guard: BlockMax is shorter than Block")
	}
	if cfg.PrefixFailures > 1000 || cfg.PairFailures > 1000 {
		return nil, errors.New("guard: more than 1000 failures are not counted")
	}
	if len(cfg.Key) == 0 {
		cfg.Key = make([]byte, 32)
		_, _ = rand.Read(cfg.Key) // never fails since Go 1.24: the program aborts instead
	}
	g := &Guard{
		cfg: cfg, begin: cfg.Now(), news: news{wake: make(chan struct{}, 1)}, people: people{at: map[uint32]uint64{}},
		counters: newTable(cfg.Entries), knowns: newTable(cfg.Knowns), tokens: newTable(cfg.Knowns),
	}
	g.nets.Store(&[]netBan{})
	return g, nil
}

// now is the time since the Guard was made. Before that counts as that moment:
// a clock that is set back frees nobody and bans nobody.
func (g *Guard) now() time.Duration { return max(0, g.cfg.Now().Sub(g.begin)) }

// The kinds of counters; part of every key.
const (
	kindPair     = 'p' // prefix and subject
	kindWidePair = 'w' // IPv6 /48 and subject
	kindPrefix   = 'a'
	kindWide     = 'A' // IPv6 /48
	kindSubject  = 's'
	kindMiss     = 'm'
)

// A place is where an attempt comes from and what it is aimed at, as keys.
type place struct {
	prefix  string // as given
	who     uint64 // the subject, hashed
	wide    string // the /48 of an IPv6 prefix; otherwise empty
	private bool   // may be a bridge or a proxy with many people behind it
	device  bool   // a device that has proved itself, see [Device]

	pairKey, widePairKey, prefixKey, wideKey, subjectKey uint64
}

func (g *Guard) place(prefix, subject string) place {
	return g.placeOf(prefix, g.key(kindSubject, "", subject))
}

func (g *Guard) placeOf(prefix string, who uint64) place {
	p := place{prefix: prefix, who: who, device: isDevice(prefix)}
	p.wide, p.private = classify(prefix)
	p.pairKey = g.pairOf(kindPair, prefix, who)
	p.prefixKey = g.key(kindPrefix, prefix, "")
	p.subjectKey = who
	if p.wide != "" {
		p.wideKey = g.key(kindWide, p.wide, "")
		p.widePairKey = g.pairOf(kindWidePair, p.wide, who)
	}
	return p
}

func (g *Guard) pairOf(kind byte, prefix string, who uint64) uint64 {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], who)
	return g.key(kind, prefix, string(b[:]))
}

// key hashes what the attacker chose under a key the attacker does not know,
// so that memory per counter is fixed and collisions cannot be made.
func (g *Guard) key(kind byte, prefix, subject string) uint64 {
	b := make([]byte, 0, 256)
	b = append(b, g.cfg.Key...)
	b = append(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(prefix))) //nolint:gosec // a prefix is short
	b = append(b, prefix...)
	b = append(b, subject...)
	sum := sha256.Sum256(b)
	return binary.BigEndian.Uint64(sum[:8])
}

// known reports whether the pair has succeeded before, or the attempt comes
// from a device that has.
func (g *Guard) known(p place, now time.Duration) bool {
	if mutant.Known {
		return false
	}
	return p.device || g.isKnown(g.knowns, p.pairKey, now)
}

func (g *Guard) isKnown(t *table, key uint64, now time.Duration) bool {
	known := false
	t.with(key, now, func(e *entry) { known = e.until > now })
	return known
}

func perMinute(n int) float64 { return float64(n) / 60 }
