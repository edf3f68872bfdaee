package password_test

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/trustelem/zxcvbn/frequency"

	"github.com/baileyhq/bailey/internal/password"
	"github.com/baileyhq/bailey/internal/secret"
)

const lanterns = "violet harbour 62 lanterns"

// foreign are hashes of lanterns that other programs made: argon2-cffi (which
// jupyter_server uses), passlib, bcrypt, Apache's htpasswd, and Python's
// hashlib in the forms of jupyter_server and Werkzeug.
func foreign() map[string]string {
	return map[string]string{
		"jupyter argon2":  "argon2:$argon2id$v=19$m=10240,t=10,p=8$gXSSDk166rBuBZpSSA6GFA$pvWjTMPU4tJc8FhElGTPaQ",
		"argon2-cffi i":   "$argon2i$v=19$m=1024,t=2,p=2$FYjz1lY4b9kd3rqKGToPoA$vuVjatPpq/hpkvU3oQk1ug",
		"passlib argon2":  "$argon2id$v=19$m=2048,t=2,p=1$EuK89/7fe2+t1fo/p/Temw$0dJdjsblYnV7Kmy72BBU3Q",
		"jupyter sha1":    "sha1:73667c0fac34:ab70132d39ab375a1b5631be99da9cc794e0f72b",
		"jupyter sha256":  "sha256:c52331292fe5:6d0dd5cf63c316ca4aa3461a2d27b32ab3f888f0b407587cee35cd9076d96ed7",
		"passlib scrypt":  "$scrypt$ln=12,r=8,p=1$n3MOwVgLgXCOkRJCaE2pFQ$G5EAf8XQUxfGZxuh/kaznyNYVS/HQZwFuFCBPt+YBDk",
		"bcrypt":          "$2b$06$ffCayrBISrUhScTz6GgyneELRNVJ7KKW0ZOdSPkMG5F8mp859rk7m",
		"htpasswd bcrypt": "$2y$06$wYLjJe9Nu1.j6egPVKEW5uvfMV6LjkN1fLP8qd.5e0WeEC2kPVLPW",
		"werkzeug scrypt": "scrypt:4096:8:1$Ab3dEf9hIjKlMn0p$cced54ca17fc1948361fc55c0143180c81cbf1030e3f6f9a84a5a1e66b1f1d46fa25b1add6d5f3783634a31b3e391781bad114290996712d5b3fe1ebc7a5891f",
	}
}

func TestHashesOfOtherProgramsAreVerified(t *testing.T) {
	for name, text := range foreign() {
		h, err := password.Parse(text)
		if err != nil {
			t.Errorf("%s: Parse(%q): %v", name, text, err)
			continue
		}
		if h.String() != text || h.Current(password.DefaultParams()) {
			t.Errorf("%s: comes back as %q, current %v; want it as it was, to be made anew", name, h, h.Current(password.DefaultParams()))
		}
		if want := strings.Contains(name, "sha"); h.Fast() != want {
			t.Errorf("%s: Fast = %v, want %v", name, h.Fast(), want)
		}
		for given, want := range map[string]bool{
			lanterns: true, lanterns + " ": false, lanterns[:len(lanterns)-1]: false, "": false, strings.ToUpper(lanterns): false,
			lanterns + "\x00": false, lanterns + strings.Repeat("x", 2000): false,
		} {
			if got := h.Matches(secret.New(given)); got != want {
				t.Errorf("%s: %.40q matches: %v, want %v", name, given, got, want)
			}
		}
	}
}

// What the function would cut off, we do not: whoever has the first 72 bytes
// does not have the password.
func TestBcryptIsNotCut(t *testing.T) {
	h, err := password.Parse("$2b$05$9SGCmJj7Kd77QRcML/LBcuQxyJQ9uYyWOIu0WrNA3w4z3rFXGEnKW")
	if err != nil {
		t.Fatal(err)
	}
	whole := strings.Repeat("x7Q!", 18)
	if !h.Matches(secret.New(whole)) {
		t.Error("72 bytes do not match")
	}
	if h.Matches(secret.New(whole + "more")) {
		t.Error("76 bytes match the hash of the first 72")
	}
}

// Attack 13, by import: a row that would take a month, or the machine's memory.
func TestHostileCostsAreRefused(t *testing.T) {
	const body = "/hpkvU3oQk1ug"
	argon := func(params string) string {
		return "$argon2id$v=19$" + params + "$FYjz1lY4b9kd3rqKGToPoA$vuVjatPpq" + body
	}
	bcrypt := func(cost string) string {
		return "$2b$" + cost + "$ffCayrBISrUhScTz6GgyneELRNVJ7KKW0ZOdSPkMG5F8mp859rk7m"
	}
	scrypt := func(params string) string {
		return "$scrypt$" + params + "$n3MOwVgLgXCOkRJCaE2pFQ$G5EAf8XQUxfGZxuh/kaznyNYVS/HQZwFuFCBPt+YBDk"
	}
	werkzeug := func(params string) string { return "scrypt:" + params + "$salt$" + strings.Repeat("ab", 32) }
	for _, text := range []string{bcrypt("14"), scrypt("ln=17,r=8,p=1"), werkzeug("32768:8:1"), argon("m=131072,t=4,p=4"), argon("m=65536,t=3,p=4")} {
		if _, err := password.Parse(text); err != nil {
			t.Errorf("Parse(%q) = %v; want this much to be possible", text, err)
		}
	}
	for _, text := range []string{
		bcrypt("31"), bcrypt("15"), bcrypt("03"), bcrypt("99"),
		scrypt("ln=30,r=8,p=1"), scrypt("ln=18,r=8,p=1"), scrypt("ln=10,r=8,p=17"), scrypt("ln=17,r=8,p=4"), scrypt("ln=1,r=999999999,p=1"), scrypt("ln=99,r=8,p=1"),
		werkzeug("1073741824:8:1"), werkzeug("16384:8:64"), werkzeug("999999999:999999999:999999999"),
		argon("m=262144,t=1,p=1"), argon("m=131072,t=16,p=1"), argon("m=999999999,t=1,p=1"), argon("m=64,t=999999999,p=1"), argon("m=64,t=1,p=999"), argon("m=64,t=1,p=9"),
	} {
		h, err := password.Parse(text)
		if err == nil {
			t.Errorf("Parse(%q) = class %q, want it refused", text, h.Class())
			continue
		}
		if strings.Contains(err.Error(), "ffCay") || strings.Contains(err.Error(), "n3MO") {
			t.Errorf("Parse(%q): the error repeats the hash: %v", text, err)
		}
	}
}

func TestWhatIsNoHashIsRefused(t *testing.T) {
	for _, text := range []string{
		"", "x", "plain password", "$apr1$NMWsPjg7$ITRInj5usqslKHTe4RY1N1", "{SHA}EfatjsUqKYSrqv18O1FlA3hcIHI=",
		"$argon2d$v=19$m=1024,t=2,p=2$G6Kh8tpiM5JiX6vrjJBiqA$1DWhPmMw/ORT+CaDWdTvkA",
		"$2x$06$ffCayrBISrUhScTz6GgyneELRNVJ7KKW0ZOdSPkMG5F8mp859rk7m", "$2b$06$ffCayrBISrUhScTz6GgyneELRNVJ7KKW0ZOdSPkMG5F8mp859rk7",
		"$2b$06$ffCayrBISrUhScTz6GgyneELRNVJ7KKW0ZOdSPkMG5F8mp859rk7m\n", "argon2:$2b$06$ffCayrBISrUhScTz6GgyneELRNVJ7KKW0ZOdSPkMG5F8mp859rk7m",
		"argon2:", "argon2:argon2:" + foreign()["argon2-cffi i"], "sha1:73667c0fac34:ab70", "sha1::ab70132d39ab375a1b5631be99da9cc794e0f72b",
		"sha1:s:AB70132D39AB375A1B5631BE99DA9CC794E0F72B", "sha256:c52331292fe5:ab70132d39ab375a1b5631be99da9cc794e0f72b", "md5:aa:bb",
		"scrypt:4096:8:1$$" + strings.Repeat("ab", 32), "scrypt:4095:8:1$salt$" + strings.Repeat("ab", 32), "scrypt:-4096:8:1$salt$" + strings.Repeat("ab", 32), "scrypt:4096:8$salt$abab",
		"$scrypt$ln=12,r=8,p=1$n3MOwVgLgXCOkRJCaE2pFQ", "$scrypt$r=8,ln=12,p=1$n3MOwVgLgXCOkRJCaE2pFQ$G5EAf8XQUxfGZxuh/kaznyNYVS/HQZwFuFCBPt+YBDk",
	} {
		if h, err := password.Parse(text); !errors.Is(err, password.ErrUnknown) {
			t.Errorf("Parse(%q) = class %q, %v; want ErrUnknown", text, h.Class(), err)
		}
	}
}

func TestEveryKindIsHeldToTheMemoryOfTheQueue(t *testing.T) {
	for name, text := range foreign() {
		h, err := password.Parse(text)
		if err != nil || h.Memory() < 1 || h.Memory() > 128<<10 || h.Class() == "" {
			t.Errorf("%s: %d KiB, class %q, %v", name, h.Memory(), h.Class(), err)
		}
	}
}

func FuzzParseAnyHash(f *testing.F) {
	for _, text := range foreign() {
		f.Add(text)
	}
	f.Add("scrypt:2:1:1$s$00")
	f.Fuzz(func(t *testing.T, text string) {
		h, err := password.Parse(text)
		if err == nil && (h.String() != text || h.Memory() > 128<<10 || h.Kind() == "") {
			t.Errorf("Parse(%q) = %q, %d KiB", text, h, h.Memory())
		}
	})
}

// ASVS 6.2.4: the three thousand most common passwords that are long enough to
// be set at all, and many more.
func TestTheMostCommonPasswordsCannotBeSet(t *testing.T) {
	rules, n := password.Rules{Length: 8}, 0
	for _, p := range frequency.FrequencyLists["passwords"] {
		if len(p) < 8 {
			continue
		}
		n++
		if rules.Check(secret.New(p)) == nil {
			t.Errorf("%q can be set", p)
		}
	}
	if n < 3000 {
		t.Errorf("the list has %d passwords of 8 characters and more, want 3,000", n)
	}
}

func TestTheHostAndOurOwnWordsAreGuessedToo(t *testing.T) {
	rules := password.Rules{Words: []string{"Acme Robotics"}}
	for text, ok := range map[string]bool{
		"acmerobotics2026": false, "Acme Robotics!": false, "gpuhub.example.org": false, "gpuhub-example-1": false, "alice@gpuhub1": false,
		"violet harbour": true, "acme's violet harbour": true,
	} {
		if err := rules.Check(secret.New(text), "alice", "gpuhub.example.org"); (err == nil) != ok {
			t.Errorf("Check(%q) = %v, want ok %v", text, err, ok)
		}
	}
	if err := (password.Rules{Length: 3}).Check(secret.New("x7Q!ab")); err == nil {
		t.Error("six characters can be set: nobody may ask for fewer than eight")
	}
	if err := (password.Rules{Length: 8}).Check(secret.New("x7Q!abk2")); err != nil {
		t.Errorf("eight characters, as configured: %v", err)
	}
}

// Attack 13: dear hashes do not run beside each other, cheap ones do.
func TestTheQueueBoundsTheMemoryOfAllThatRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := password.NewQueue(2)
		leave, ran := make(chan struct{}), false
		var all sync.WaitGroup
		all.Go(func() {
			if err := q.Do(t.Context(), 128<<10, false, func() { <-leave }); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		all.Go(func() {
			if err := q.Do(t.Context(), 64, false, func() { ran = true }); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		if ran {
			t.Error("a second hash ran while the first had all the memory")
		}
		close(leave)
		all.Wait()
		if !ran {
			t.Error("the second hash did not run afterwards")
		}
	})
}
