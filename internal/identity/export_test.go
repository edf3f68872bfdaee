package identity

import (
	"context"
	"strings"

	"golang.org/x/crypto/argon2"

	"github.com/baileyhq/bailey/internal/secret"
)

// Hashes returns how many password hashes the service has made.
func Hashes(s *Service) int { return int(s.hasher.done.Load()) }

// HasherSlots and MaxQueue are how many hashes run and wait at most.
func HasherSlots() int { return cap(newHasher().slots) }

// MaxQueue is how many hashes wait at most.
const MaxQueue = maxQueue

// NewHasher returns the hasher's do.
func NewHasher() func(ctx context.Context, f func()) error { return newHasher().do }

// ParsePHC parses a stored hash and returns its canonical text.
func ParsePHC(text string) (string, error) {
	h, err := parsePHC(text)
	return h.String(), err
}

// HashNow hashes at today's cost.
func HashNow(password secret.Value) string { return newPHC(password).String() }

// HashCheap hashes at a cost of the past.
func HashCheap(password secret.Value) string {
	h := phc{cost: cost{time: 1, memory: 64, threads: 1}, salt: []byte("0123456789abcdef")}
	h.key = argon2.IDKey([]byte(password.Reveal()), h.salt, h.time, h.memory, h.threads, keyBytes)
	return h.String()
}

// IsCurrent reports whether the stored hash is of today's cost.
func IsCurrent(stored string) bool {
	h, err := parsePHC(stored)
	return err == nil && h.cost == currentCost()
}

// CheckPassword is the rule for new passwords.
func CheckPassword(name, password string) error { return checkPassword(name, secret.New(password)) }

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
