package identity

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/password"
	"github.com/baileyhq/bailey/internal/secret"
)

func errBusy() error {
	return &bailey.Error{
		Kind: bailey.Unavailable, Msg: "too many people are signing in right now",
		Hint: "try again in a few seconds", Cause: &RetryError{After: password.MaxWait},
	}
}

// queued runs f within the bounds of hashing; known says for whom, see
// [password.Queue.Do].
func (s *Service) queued(ctx context.Context, memory int64, known bool, f func()) error {
	err := s.queue.Do(ctx, memory, known, f)
	if errors.Is(err, password.ErrBusy) {
		return errBusy()
	}
	return err
}

// hash hashes a fresh password within the bounds.
func (s *Service) hash(ctx context.Context, text secret.Value) (string, error) {
	p := s.rules().Params
	var h password.Hash
	err := s.queued(ctx, int64(p.Memory), true, func() { h = password.New(p, text) })
	if err != nil {
		return "", err
	}
	return h.String(), nil
}

// checkPassword says whether a password may be set for the account name.
func (s *Service) checkPassword(name string, text secret.Value) error {
	return s.rules().Passwords.Check(text, name, s.cfg.Host)
}

// stored reads a stored hash. An unreadable one costs the same as others and
// matches nothing; the log says so.
func (s *Service) stored(ctx context.Context, text string) password.Hash {
	h, err := password.Parse(text)
	if err != nil {
		s.cfg.Log.ErrorContext(ctx, "a stored password hash is unreadable; its owner cannot sign in until an administrator resets it")
		return password.Decoy(s.rules().Params)
	}
	return h
}

// matches compares a password with a stored hash within the bounds.
func (s *Service) matches(ctx context.Context, stored string, text secret.Value) (bool, error) {
	h, right := s.stored(ctx, stored), false
	err := s.queued(ctx, h.Memory(), true, func() { right = h.Matches(text) })
	return right && err == nil, err
}

// guess is matches for strangers, who time it. Hashes that were imported, or
// made at another cost, take another time than ours, and that would tell which
// names are such accounts. So as long as there are any, everybody pays for one
// hash of each class that is in store. Who is known from before goes first.
func (s *Service) guess(ctx context.Context, stored string, text secret.Value, known bool) (bool, error) {
	h := s.stored(ctx, stored)
	work, err := s.classes.others(ctx, s, h)
	if err != nil {
		return false, err
	}
	memory := h.Memory()
	for _, other := range work {
		memory = max(memory, other.Memory())
	}
	right := false
	err = s.queued(ctx, memory, known, func() {
		right = h.Matches(text)
		for _, other := range work {
			_ = other.Matches(text)
		}
	})
	return right && err == nil, err
}

const (
	classesFor = time.Minute // how old the list of classes may be
	maxClasses = 4           // the most that everybody pays for; of more, the dearest
)

// classes remembers one hash of each class in store that is not today's.
type classes struct {
	mu   sync.Mutex // guards all below
	read time.Time  // zero: never
	each []password.Hash
}

// others returns what is to be hashed besides h, so that the sum is the same
// for everybody.
func (c *classes) others(ctx context.Context, s *Service, h password.Hash) ([]password.Hash, error) {
	p := s.rules().Params
	each, err := c.list(ctx, s, p)
	if err != nil {
		return nil, err
	}
	var out []password.Hash
	for _, other := range append([]password.Hash{password.Decoy(p)}, each...) {
		if other.Class() != h.Class() {
			out = append(out, other)
		}
	}
	return out, nil
}

func (c *classes) list(ctx context.Context, s *Service, p password.Params) ([]password.Hash, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := s.cfg.Now()
	if !c.read.IsZero() && now.Sub(c.read) < classesFor && !now.Before(c.read) {
		return c.each, nil
	}
	texts, err := s.cfg.Store.PasswordHashesUnlike(ctx, p.Prefix())
	if err != nil {
		return nil, err
	}
	seen, each := map[string]bool{password.Decoy(p).Class(): true}, []password.Hash{}
	for _, text := range texts {
		if h, err := password.Parse(text); err == nil && !seen[h.Class()] {
			seen[h.Class()] = true
			each = append(each, h)
		}
	}
	slices.SortFunc(each, func(a, b password.Hash) int { return int(b.Memory() - a.Memory()) })
	c.each, c.read = each[:min(len(each), maxClasses)], now
	return c.each, nil
}

// forget has the list read again: a hash was set.
func (c *classes) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.read = time.Time{}
}
