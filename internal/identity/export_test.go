package identity

import (
	"context"
	"slices"
	"strings"

	"github.com/baileyhq/bailey/internal/password"
	"github.com/baileyhq/bailey/internal/secret"
)

// Hashes returns how many password hashes the service has made.
func Hashes(s *Service) int { return int(s.queue.Done()) }

// HasherSlots is how many hashes run at a time, MaxQueue how many more wait.
func HasherSlots() int { return password.NewQueue(0).Slots() }

// MaxQueue is how many hashes wait at most.
var MaxQueue = password.NewQueue(0).Waiting()

// HashNow hashes at today's cost.
func HashNow(text secret.Value) string { return password.New(password.DefaultParams(), text).String() }

// HashCheap hashes at a cost of the past.
func HashCheap(text secret.Value) string {
	return password.New(password.Params{Memory: 64, Passes: 1, Threads: 1}, text).String()
}

// IsCurrent reports whether the stored hash is of today's cost.
func IsCurrent(stored string) bool {
	h, err := password.Parse(stored)
	return err == nil && h.Current(password.DefaultParams())
}

// NewToken and ParseToken are the two ends of the token grammar.
func NewToken(id string) string { return newToken(id).Reveal() }

// ParseToken returns the id in a token.
func ParseToken(text string) (string, bool) { return parseToken(text) }

// SwapHash replaces a stored hash if it is still old.
func SwapHash(ctx context.Context, s *Service, userID, old, fresh string) (bool, error) {
	return s.swapHash(ctx, userID, old, fresh)
}

// Clean is what is done to a stranger's text.
func Clean(text string, n int) string { return clean(text, n) }

// LiveLen returns how many credentials are in memory, by id and by hash, and
// how many endings are remembered.
func LiveLen(s *Service) (ids, hashes, dead int) {
	s.live.mu.RLock()
	defer s.live.mu.RUnlock()
	return len(s.live.byID), len(s.live.byHash), len(s.live.dead)
}

// Waits returns how many credentials somebody waits for.
func Waits(s *Service) int {
	s.waits.mu.Lock()
	defer s.waits.mu.Unlock()
	return len(s.waits.byID)
}

// ReseedToken returns the token with its last letters changed and the sum made
// right again: a guess that has the form.
func ReseedToken(text string) string {
	body := text[:len(text)-sumLength]
	end := "AAAA"
	if strings.HasSuffix(body, end) {
		end = "BBBB"
	}
	body = body[:len(body)-4] + end
	return body + tokenSum(body)
}

// Work lists the classes of hashes that an attempt on the name computes, sorted.
func Work(ctx context.Context, s *Service, name string) []string {
	_, stored, _, err := s.account(ctx, name)
	if err != nil {
		return []string{err.Error()}
	}
	h := s.stored(ctx, stored)
	others, err := s.classes.others(ctx, s, h)
	if err != nil {
		return []string{err.Error()}
	}
	classes := []string{h.Class()}
	for _, o := range others {
		classes = append(classes, o.Class())
	}
	slices.Sort(classes)
	return classes
}
