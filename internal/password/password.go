// Package password judges passwords: whether a new one may be set, and whether
// one that was given is the one behind a stored hash. It makes argon2id hashes
// and verifies those that other programs made, within bounds of memory and
// time that no stored text can exceed. Who may try, and how often, is its
// callers' question.
package password

import (
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // Jupyter made such hashes; they are verified once and made anew
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/scrypt"

	"github.com/baileyhq/bailey/internal/secret"
)

// MaxBytes is how long a password may be. Longer ones match nothing.
const MaxBytes = 1024

// What a hash may cost at most, whoever made it.
const (
	maxMemory   = 128 << 10 // KiB at once
	maxWork     = 1 << 20   // KiB written, over all passes: about a second
	maxScrypt   = 256 << 10 // KiB written by scrypt, which is slower
	maxBcrypt   = 14        // about a second
	bcryptBytes = 72        // bcrypt does not see what comes after them
)

// Params is how dear one guess is made: argon2id's parameters.
type Params struct {
	Memory  uint32 // KiB
	Passes  uint32
	Threads uint8
}

// DefaultParams is what OWASP asks for at least: 19 MiB, two passes, one thread.
func DefaultParams() Params { return Params{Memory: 19 * 1024, Passes: 2, Threads: 1} }

// Check returns why the parameters cannot be, or nil.
func (p Params) Check() error {
	switch {
	case p.Memory < 8 || p.Memory > maxMemory:
		return fmt.Errorf("argon2 with %d KiB of memory; 8 to %d are possible", p.Memory, maxMemory)
	case p.Passes < 1 || p.Passes > 16:
		return fmt.Errorf("argon2 with %d passes; 1 to 16 are possible", p.Passes)
	case p.Threads < 1 || p.Threads > 8:
		return fmt.Errorf("argon2 with %d threads; 1 to 8 are possible", p.Threads)
	case uint64(p.Memory)*uint64(p.Passes) > maxWork:
		return fmt.Errorf("argon2 with %d passes over %d KiB takes too long; their product is %d at most", p.Passes, p.Memory, maxWork)
	}
	return nil
}

const (
	saltBytes = 16
	keyBytes  = 32
)

// A Kind is the function that a hash was made with.
type Kind string

// The kinds.
const (
	Argon2id Kind = "argon2id"
	Argon2i  Kind = "argon2i"
	Bcrypt   Kind = "bcrypt"
	Scrypt   Kind = "scrypt"
	SHA1     Kind = "sha1"
	SHA256   Kind = "sha256"
)

// A Hash is a stored hash that was understood and is within the bounds.
type Hash struct {
	text   string // as stored
	kind   Kind
	params Params // argon2
	cost   int    // bcrypt
	n      int    // scrypt: N, r, p
	r, p   int
	salt   []byte
	key    []byte
}

// ErrUnknown is returned for text that is no hash of a kind we know.
var ErrUnknown = errors.New("not a password hash of a kind that is known here: argon2id, argon2i, bcrypt ($2a$, $2b$, $2y$), scrypt, or Jupyter's argon2:, sha1 and sha256 strings")

// Parse reads a stored hash. The error says what is wrong without repeating the
// text: ErrUnknown for what is no such hash, another for one whose cost is out
// of bounds. The bounds keep a hostile or damaged row from taking the machine's
// memory or time when somebody signs in.
//
// The forms are PHC strings of argon2id, argon2i and scrypt, bcrypt's own,
// Werkzeug's "scrypt:N:r:p$salt$hex", and what jupyter_server writes:
// "argon2:" and a PHC string, "sha1:salt:hex", "sha256:salt:hex".
func Parse(text string) (Hash, error) {
	if len(text) > 512 {
		return Hash{}, ErrUnknown
	}
	body := strings.TrimPrefix(text, "argon2:") // Jupyter's
	var h Hash
	var err error
	switch {
	case strings.HasPrefix(body, "$argon2id$"), strings.HasPrefix(body, "$argon2i$"):
		h, err = parseArgon2(body)
	case body != text:
		return Hash{}, ErrUnknown
	case strings.HasPrefix(text, "$2a$"), strings.HasPrefix(text, "$2b$"), strings.HasPrefix(text, "$2y$"):
		h, err = parseBcrypt(text)
	case strings.HasPrefix(text, "$scrypt$"):
		h, err = parseScrypt(text)
	case strings.HasPrefix(text, "scrypt:"):
		h, err = parseWerkzeug(text)
	case strings.HasPrefix(text, "sha1:"):
		h, err = parseSimple(text, SHA1, sha1.Size)
	case strings.HasPrefix(text, "sha256:"):
		h, err = parseSimple(text, SHA256, sha256.Size)
	default:
		return Hash{}, ErrUnknown
	}
	if err != nil {
		return Hash{}, err
	}
	h.text = text
	return h, nil
}

// number reads a decimal number in its one written form, at most nine digits.
func number(text string) (int, bool) {
	n, err := strconv.Atoi(text)
	return n, err == nil && n >= 0 && len(text) < 10 && strconv.Itoa(n) == text
}

// parameters reads "a=1,b=2,c=3" under exactly these names.
func parameters(text string, names ...string) ([]int, bool) {
	fields := strings.Split(text, ",")
	if len(fields) != len(names) {
		return nil, false
	}
	out := make([]int, len(names))
	for i, name := range names {
		digits, ok := strings.CutPrefix(fields[i], name+"=")
		if out[i], ok = orNumber(digits, ok); !ok {
			return nil, false
		}
	}
	return out, true
}

func orNumber(digits string, ok bool) (int, bool) {
	if !ok {
		return 0, false
	}
	return number(digits)
}

// saltAndKey decodes the last two fields of a PHC string.
func saltAndKey(salt, key string) (s, k []byte, ok bool) {
	s, err1 := base64.RawStdEncoding.Strict().DecodeString(salt)
	k, err2 := base64.RawStdEncoding.Strict().DecodeString(key)
	// The decoder skips line ends: the text must be what we would write.
	ok = err1 == nil && err2 == nil && len(s) >= 8 && len(s) <= 64 && len(k) >= 16 && len(k) <= 64 &&
		base64.RawStdEncoding.EncodeToString(s) == salt && base64.RawStdEncoding.EncodeToString(k) == key
	return s, k, ok
}

func parseArgon2(text string) (Hash, error) {
	parts := strings.Split(text, "$")
	if len(parts) != 6 || parts[2] != "v="+strconv.Itoa(argon2.Version) {
		return Hash{}, ErrUnknown
	}
	n, ok := parameters(parts[3], "m", "t", "p")
	if !ok {
		return Hash{}, ErrUnknown
	}
	if n[2] > 255 {
		return Hash{}, fmt.Errorf("argon2 with %d threads; 1 to 8 are possible", n[2])
	}
	h := Hash{kind: Kind(parts[1]), params: Params{Memory: uint32(n[0]), Passes: uint32(n[1]), Threads: uint8(n[2])}} //nolint:gosec // nine digits, and looked at above
	if err := h.params.Check(); err != nil {
		return Hash{}, err
	}
	if h.salt, h.key, ok = saltAndKey(parts[4], parts[5]); !ok {
		return Hash{}, ErrUnknown
	}
	return h, nil
}

func parseBcrypt(text string) (Hash, error) {
	const length = 60
	rest := strings.Trim(text[4:], "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
	if len(text) != length || text[6] != '$' || rest != "$" {
		return Hash{}, ErrUnknown
	}
	cost, err := strconv.Atoi(text[4:6])
	if err != nil {
		return Hash{}, ErrUnknown
	}
	if cost < bcrypt.MinCost || cost > maxBcrypt {
		return Hash{}, fmt.Errorf("bcrypt of cost %d; %d to %d are possible", cost, bcrypt.MinCost, maxBcrypt)
	}
	return Hash{kind: Bcrypt, cost: cost}, nil
}

func scryptCost(n, r, p int) (Hash, error) {
	h := Hash{kind: Scrypt, n: n, r: r, p: p}
	if n < 2 || n&(n-1) != 0 || r < 1 || p < 1 {
		return h, ErrUnknown
	}
	if n > 1<<20 || r > 32 || p > 16 || n*r/8 > maxMemory || n*r/8*p > maxScrypt { // 128·n·r bytes are n·r/8 KiB
		return h, fmt.Errorf("scrypt with N=%d, r=%d, p=%d takes too much memory or time; 128·N·r may be %d MiB, and with p %d MiB", n, r, p, maxMemory>>10, maxScrypt>>10)
	}
	return h, nil
}

// parseScrypt reads "$scrypt$ln=15,r=8,p=1$salt$key".
func parseScrypt(text string) (Hash, error) {
	parts := strings.Split(text, "$")
	if len(parts) != 5 {
		return Hash{}, ErrUnknown
	}
	n, ok := parameters(parts[2], "ln", "r", "p")
	if !ok {
		return Hash{}, ErrUnknown
	}
	if n[0] < 1 || n[0] > 30 {
		return Hash{}, fmt.Errorf("scrypt with N=2^%d; 2^1 to 2^20 are possible", n[0])
	}
	h, err := scryptCost(1<<n[0], n[1], n[2])
	if err != nil {
		return Hash{}, err
	}
	if h.salt, h.key, ok = saltAndKey(parts[3], parts[4]); !ok {
		return Hash{}, ErrUnknown
	}
	return h, nil
}

// parseWerkzeug reads "scrypt:32768:8:1$salt$hex". The salt is its own text.
func parseWerkzeug(text string) (Hash, error) {
	parts := strings.Split(text, "$")
	if len(parts) != 3 {
		return Hash{}, ErrUnknown
	}
	method := strings.Split(parts[0], ":")
	if len(method) != 4 {
		return Hash{}, ErrUnknown
	}
	n, okN := number(method[1])
	r, okR := number(method[2])
	p, okP := number(method[3])
	if !okN || !okR || !okP {
		return Hash{}, ErrUnknown
	}
	h, err := scryptCost(n, r, p)
	if err != nil {
		return Hash{}, err
	}
	h.key, err = hex.DecodeString(parts[2])
	h.salt = []byte(parts[1])
	if err != nil || len(h.salt) < 1 || len(h.salt) > 64 || len(h.key) < 16 || len(h.key) > 64 || hex.EncodeToString(h.key) != parts[2] {
		return Hash{}, ErrUnknown
	}
	return h, nil
}

// parseSimple reads Jupyter's old "sha1:salt:hex".
func parseSimple(text string, kind Kind, size int) (Hash, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return Hash{}, ErrUnknown
	}
	key, err := hex.DecodeString(parts[2])
	if err != nil || len(key) != size || hex.EncodeToString(key) != parts[2] || len(parts[1]) < 1 || len(parts[1]) > 64 {
		return Hash{}, ErrUnknown
	}
	return Hash{kind: kind, salt: []byte(parts[1]), key: key}, nil
}

// String returns the stored form, which is no secret to print but none to show
// around either.
func (h Hash) String() string { return h.text }

// Kind returns the function that made the hash.
func (h Hash) Kind() Kind { return h.kind }

// Fast reports whether guessing is cheap for whoever steals the hash. Such a
// hash should not stay longer than it must.
func (h Hash) Fast() bool { return h.kind == SHA1 || h.kind == SHA256 }

// Current reports whether the hash is what [New] would make with p today.
func (h Hash) Current(p Params) bool {
	return h.kind == Argon2id && h.params == p && strings.HasPrefix(h.text, "$")
}

// Class names the work of verifying: hashes of one class cost the same.
func (h Hash) Class() string {
	switch h.kind {
	case Argon2id, Argon2i:
		return fmt.Sprintf("%s m=%d,t=%d,p=%d", h.kind, h.params.Memory, h.params.Passes, h.params.Threads)
	case Bcrypt:
		return fmt.Sprintf("%s %d", h.kind, h.cost)
	case Scrypt:
		return fmt.Sprintf("%s %d:%d:%d", h.kind, h.n, h.r, h.p)
	case SHA1, SHA256:
	}
	return string(h.kind)
}

// Memory returns how many KiB verifying takes.
func (h Hash) Memory() int64 {
	switch h.kind {
	case Argon2id, Argon2i:
		return int64(h.params.Memory)
	case Scrypt:
		return int64(h.n) * int64(h.r) / 8
	case Bcrypt, SHA1, SHA256:
	}
	return 8
}

// Matches spends the hash's cost on the password, exactly as received: nothing
// is trimmed, folded or cut. Where the function itself would cut (bcrypt, after
// 72 bytes) a longer password does not match.
func (h Hash) Matches(password secret.Value) bool {
	text := []byte(password.Reveal())
	long := len(text) > MaxBytes
	if long {
		text = text[:MaxBytes] // costs no more than others, and matches nothing
	}
	var got []byte
	switch h.kind {
	case Argon2id:
		got = argon2.IDKey(text, h.salt, h.params.Passes, h.params.Memory, h.params.Threads, uint32(len(h.key))) //nolint:gosec // at most 64
	case Argon2i:
		got = argon2.Key(text, h.salt, h.params.Passes, h.params.Memory, h.params.Threads, uint32(len(h.key))) //nolint:gosec // at most 64
	case Bcrypt:
		cut := len(text) > bcryptBytes
		return bcrypt.CompareHashAndPassword([]byte(h.text), text[:min(len(text), bcryptBytes)]) == nil && !cut && !long
	case Scrypt:
		if strings.HasSuffix(password.Reveal(), "\x00") {
			long = true // HMAC, which is inside, takes it for the same without
		}
		var err error
		if got, err = scrypt.Key(text, h.salt, h.n, h.r, h.p, len(h.key)); err != nil {
			return false // Parse has looked at what it objects to
		}
	case SHA1:
		sum := sha1.Sum(append(text, h.salt...)) //nolint:gosec // see above
		got = sum[:]
	case SHA256:
		sum := sha256.Sum256(append(text, h.salt...))
		got = sum[:]
	default:
		return false
	}
	return subtle.ConstantTimeCompare(got, h.key) == 1 && !long
}

// New hashes a password under a fresh salt. The parameters must pass
// [Params.Check].
func New(p Params, password secret.Value) Hash {
	h := Decoy(p)
	h.key = argon2.IDKey([]byte(password.Reveal()), h.salt, p.Passes, p.Memory, p.Threads, keyBytes)
	h.text = phc(h)
	return h
}

func phc(h Hash) string {
	return fmt.Sprintf("$%s$v=%d$m=%d,t=%d,p=%d$%s$%s", h.kind, argon2.Version, h.params.Memory, h.params.Passes, h.params.Threads,
		base64.RawStdEncoding.EncodeToString(h.salt), base64.RawStdEncoding.EncodeToString(h.key))
}

// Decoy returns a hash that no password has: names that are no account cost the
// same work as those that are.
func Decoy(p Params) Hash {
	h := Hash{kind: Argon2id, params: p, salt: make([]byte, saltBytes), key: make([]byte, keyBytes)}
	_, _ = rand.Read(h.salt) // never fails since Go 1.24: the program aborts instead
	_, _ = rand.Read(h.key)
	h.text = phc(h)
	return h
}

// Prefix is what every hash made with p begins with, and no other.
func (p Params) Prefix() string {
	return fmt.Sprintf("$%s$v=%d$m=%d,t=%d,p=%d$", Argon2id, argon2.Version, p.Memory, p.Passes, p.Threads)
}
