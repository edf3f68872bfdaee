package identity

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/argon2"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/secret"
)

// A cost is how dear one guess is made: argon2id's parameters.
type cost struct {
	time    uint32 // passes
	memory  uint32 // KiB
	threads uint8
}

// currentCost is what new hashes are made with. Older ones are made anew when
// their owner signs in.
func currentCost() cost { return cost{time: 2, memory: 19 * 1024, threads: 1} }

const (
	saltBytes = 16
	keyBytes  = 32
)

// A phc is a password hash as it is stored, in PHC string format:
// "$argon2id$v=19$m=19456,t=2,p=1$salt$key", both in unpadded base64.
type phc struct {
	cost
	salt, key []byte
}

var errBadHash = errors.New("not an argon2id hash in PHC format, or beyond the limits")

// parsePHC reads a stored hash. The limits keep a damaged or forged row from
// taking the machine's memory when its owner signs in.
func parsePHC(text string) (phc, error) {
	var h phc
	parts := strings.Split(text, "$")
	if len(text) > 512 || len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != "v="+strconv.Itoa(argon2.Version) {
		return h, errBadHash
	}
	params := strings.Split(parts[3], ",")
	if len(params) != 3 {
		return h, errBadHash
	}
	numbers := [3]uint32{}
	for i, limit := range []struct {
		name     string
		min, max uint64
	}{{"m=", 8, 256 * 1024}, {"t=", 1, 16}, {"p=", 1, 8}} {
		digits, ok := strings.CutPrefix(params[i], limit.name)
		n, err := strconv.ParseUint(digits, 10, 32)
		if !ok || err != nil || n < limit.min || n > limit.max || digits != strconv.FormatUint(n, 10) {
			return h, errBadHash
		}
		numbers[i] = uint32(n)
	}
	h.cost = cost{memory: numbers[0], time: numbers[1], threads: uint8(numbers[2])} //nolint:gosec // at most 8
	var err1, err2 error
	h.salt, err1 = base64.RawStdEncoding.Strict().DecodeString(parts[4])
	h.key, err2 = base64.RawStdEncoding.Strict().DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(h.salt) < 8 || len(h.salt) > 64 || len(h.key) < 16 || len(h.key) > 64 || h.String() != text {
		return phc{}, errBadHash
	}
	return h, nil
}

// String returns the stored form.
func (h phc) String() string {
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.time, h.threads,
		base64.RawStdEncoding.EncodeToString(h.salt), base64.RawStdEncoding.EncodeToString(h.key))
}

// matches spends the hash's cost on the password, exactly as received: nothing
// is trimmed, folded or cut.
func (h phc) matches(password secret.Value) bool {
	got := argon2.IDKey([]byte(password.Reveal()), h.salt, h.time, h.memory, h.threads, uint32(len(h.key))) //nolint:gosec // at most 64
	return subtle.ConstantTimeCompare(got, h.key) == 1
}

// newPHC hashes a password at today's cost under a fresh salt.
func newPHC(password secret.Value) phc {
	h := dummyPHC()
	h.key = argon2.IDKey([]byte(password.Reveal()), h.salt, h.time, h.memory, h.threads, keyBytes)
	return h
}

// dummyPHC is a hash that no password has: names that are no account cost the
// same work as those that are.
func dummyPHC() phc {
	h := phc{cost: currentCost(), salt: make([]byte, saltBytes), key: make([]byte, keyBytes)}
	_, _ = rand.Read(h.salt) // never fails since Go 1.24: the program aborts instead
	_, _ = rand.Read(h.key)
	return h
}

const (
	maxQueue = 32              // hashes that wait
	maxWait  = 2 * time.Second // for how long
	maxSlots = 4               // hashes at a time on large machines: 76 MiB, 100 sign-ins a second
)

// A hasher bounds the memory and the processor time that hashing takes:
// whoever is one too many is told to come again instead of being queued.
type hasher struct {
	slots chan struct{} // one token for each hash that runs
	queue chan struct{} // one for each that runs or waits
	done  atomic.Int64  // hashes made, for tests
}

func newHasher() *hasher {
	n := min(max(runtime.GOMAXPROCS(0), 1), maxSlots)
	return &hasher{slots: make(chan struct{}, n), queue: make(chan struct{}, n+maxQueue)}
}

// do runs one hash, f. It returns an error of kind Unavailable when too many
// wait already, or when it would take too long; f has not run then.
func (h *hasher) do(ctx context.Context, f func()) error {
	select {
	case h.queue <- struct{}{}:
		defer func() { <-h.queue }()
	default:
		return errBusy()
	}
	if err := ctx.Err(); err != nil {
		return err // select below would toss a coin
	}
	late := time.NewTimer(maxWait)
	defer late.Stop()
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-late.C:
		return errBusy()
	case <-ctx.Done():
		return ctx.Err()
	}
	h.done.Add(1)
	f()
	return nil
}

func errBusy() error {
	return &bailey.Error{
		Kind: bailey.Unavailable, Msg: "too many people are signing in right now",
		Hint: "try again in a few seconds", Cause: &RetryError{After: maxWait},
	}
}

// hash hashes a fresh password within the hasher's bounds.
func (s *Service) hash(ctx context.Context, password secret.Value) (string, error) {
	var h phc
	err := s.hasher.do(ctx, func() { h = newPHC(password) })
	if err != nil {
		return "", err
	}
	return h.String(), nil
}

// matches compares a password with a stored hash within the hasher's bounds.
// An unreadable hash costs the same and matches nothing; the log says so.
func (s *Service) matches(ctx context.Context, stored string, password secret.Value) (bool, error) {
	h, err := parsePHC(stored)
	if err != nil {
		s.cfg.Log.ErrorContext(ctx, "a stored password hash is unreadable; its owner cannot sign in until an administrator resets it")
		h = dummyPHC()
	}
	if len(password.Reveal()) > maxPassword {
		password, h = secret.Value{}, dummyPHC() // no stored password is that long
	}
	right := false
	if err := s.hasher.do(ctx, func() { right = h.matches(password) }); err != nil {
		return false, err
	}
	return right, nil
}
