package password_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/password"
	"github.com/baileyhq/bailey/internal/secret"
)

func now(text string) string {
	return password.New(password.DefaultParams(), secret.New(text)).String()
}

func parse(text string) (string, error) {
	h, err := password.Parse(text)
	return h.String(), err
}

func check(name, text string) error { return password.Rules{}.Check(secret.New(text), name) }

func TestStoredHashesAreArgon2idInPHCFormat(t *testing.T) {
	a, b := now("violet harbour"), now("violet harbour")
	if !strings.HasPrefix(a, "$argon2id$v=19$m=19456,t=2,p=1$") || len(strings.Split(a, "$")) != 6 {
		t.Errorf("hash = %q, want argon2id with m=19456, t=2, p=1", a)
	}
	if a == b {
		t.Errorf("the same password hashes to %q twice: no salt", a)
	}
	if got, err := parse(a); err != nil || got != a {
		t.Errorf("Parse(%q) = %q, %v; want it back", a, got, err)
	}
}

func TestParseRefuses(t *testing.T) {
	const good = "$argon2id$v=19$m=19456,t=2,p=1$NBtUCaDVE+KwstR1v7RtTQ$LBhbgrmSvd/0avFTRl2Ig0lmQjTCbJqekDTgkJGIpvI"
	if _, err := parse(good); err != nil {
		t.Fatalf("Parse(%q) = %v", good, err)
	}
	for name, text := range map[string]string{
		"empty":            "",
		"other function":   strings.Replace(good, "argon2id", "argon2d", 1),
		"other version":    strings.Replace(good, "v=19", "v=16", 1),
		"all the memory":   strings.Replace(good, "m=19456", "m=4294967295", 1),
		"a year of passes": strings.Replace(good, "t=2", "t=4000000000", 1),
		"no passes":        strings.Replace(good, "t=2", "t=0", 1),
		"no threads":       strings.Replace(good, "p=1", "p=0", 1),
		"many threads":     strings.Replace(good, "p=1", "p=255", 1),
		"threads wrap":     strings.Replace(good, "p=1", "p=257", 1),
		"plus sign":        strings.Replace(good, "t=2", "t=+2", 1),
		"leading zero":     strings.Replace(good, "t=2", "t=02", 1),
		"order":            strings.Replace(good, "m=19456,t=2", "t=2,m=19456", 1),
		"no salt":          strings.Replace(good, "NBtUCaDVE+KwstR1v7RtTQ", "", 1),
		"no key":           good[:strings.LastIndex(good, "$")+1],
		"short key":        good[:strings.LastIndex(good, "$")+5],
		"padding":          good + "=",
		"url alphabet":     strings.Replace(good, "+", "-", 1),
		"new line":         strings.Replace(good, "NBt", "N\nBt", 1),
		"one more field":   good + "$",
		"long":             good[:50] + strings.Repeat("A", 4000),
	} {
		if got, err := parse(text); err == nil {
			t.Errorf("%s: Parse(%q) = %q, want an error", name, text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$NBtUCaDVE+KwstR1v7RtTQ$LBhbgrmSvd/0avFTRl2Ig0lmQjTCbJqekDTgkJGIpvI")
	f.Add("$argon2id$v=19$m=8,t=1,p=1$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$argon2id$v=19$m=,t=,p=$$")
	f.Add("$$$$$")
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := parse(text); err == nil && got != text {
			t.Errorf("Parse(%q) gives back %q: two texts for one hash", text, got)
		}
	})
}

func TestPasswordRules(t *testing.T) {
	tests := []struct {
		name, password string
		ok             bool
	}{
		{"alice", "violet harbour", true},
		{"alice", "correct horse battery", true},
		{"alice", "8374659201", true},              // random digits
		{"alice", "密码很长很长很长很", false},              // nine characters, 27 bytes
		{"alice", "紫罗兰色的港口和灯笼", true},              // ten
		{"alice", "no\x00control\x07limits", true}, // any byte is welcome
		{"alice", "\xff\xfe\xfd\xfc\xfb\xfa\xf9\xf8\xf0\xf1", true},
		{"alice", "  spaces count  ", true},
		{"alice", "Tr0ub4dor&3", true},
		{"alice", strings.Repeat("x7Q!", 256), false}, // 1,024 bytes, but a repetition
		{"alice", strings.Repeat("violet harbour 62 ", 56), true},
		{"alice", "violet" + strings.Repeat("a harbour", 114), false}, // 1,032 bytes
		{"alice", "", false},
		{"alice", "short", false},
		{"alice", "nine char", false},
		{"alice", "password123", false},
		{"alice", "Password123!", false},
		{"alice", "P@ssw0rd2026", false},
		{"alice", "passwordpassword", false},
		{"alice", "baileybailey1", false},
		{"alice", "bailey-server-2026", false},
		{"alice", "Welcome2bailey", false},
		{"alice", "alice-alice-1", false},
		{"alice", "alice123456", false},
		{"alice", "AlicePassword", false},
		{"bob", "alice123456", true}, // her name is no word of his
		{"root-admin", "root-admin-2026", false},
		{"root-admin", "rootadminroot", false},
		{"alice", "qwertyuiop", false},
		{"alice", "1q2w3e4r5t", false},
		{"alice", "iloveyou1314", false},
		{"alice", "aaaaaaaaaaaa", false},
		{"alice", "abcabcabcabc", false},
		{"alice", "12121212121", false},
		{"alice", "1234567890", false},
		{"alice", "0987654321", false},
		{"alice", "abcdefghij", false},
		{"alice", "9876543210", false},
		{"alice", "correcthorsebatterystaple", false},
		{"alice", "woaini1314520", false},
	}
	for _, tt := range tests {
		err := check(tt.name, tt.password)
		if (err == nil) != tt.ok {
			t.Errorf("check(%q, %q) = %v, want ok %v", tt.name, tt.password, err, tt.ok)
		}
		if err == nil {
			continue
		}
		e, ok := errors.AsType[*bailey.Error](err)
		if !ok || e.Kind != bailey.Invalid || e.Hint == "" || len(tt.password) > 5 && strings.Contains(e.Error(), tt.password) {
			t.Errorf("check(%q, %q) = %#v, want Invalid with a hint and without the password", tt.name, tt.password, err)
		}
	}
}

func FuzzRules(f *testing.F) {
	for _, s := range []string{"", "violet harbour", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "aaaaaaaaaaaaa", "pässwörd-密码", "!!!!!!!!!!a"} {
		f.Add("alice", s)
		f.Add("", s)
	}
	f.Fuzz(func(t *testing.T, name, password string) {
		if err := check(name, password); err == nil && len(password) < 10 {
			t.Errorf("check(%q, %q) allows %d bytes", name, password, len(password))
		}
	})
}

// Attack 13: five hundred people hash at once. So many run, so many wait, the
// others are told to come back, at once.
func TestTheHashingQueueIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := password.NewQueue(2)
		var mu sync.Mutex
		running, peak, hashed, busy := 0, 0, 0, 0
		var all sync.WaitGroup
		begin := time.Now()
		for range 500 {
			all.Go(func() {
				err := q.Do(t.Context(), 1, false, func() {
					mu.Lock()
					running++
					peak = max(peak, running)
					mu.Unlock()
					time.Sleep(30 * time.Millisecond)
					mu.Lock()
					running--
					mu.Unlock()
				})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					hashed++
					return
				}
				busy++
				if !errors.Is(err, password.ErrBusy) {
					t.Errorf("one too many got %v, want %v", err, password.ErrBusy)
				}
			})
		}
		all.Wait()
		slots := q.Slots()
		if peak != slots || hashed != slots+q.Waiting() || busy != 500-hashed {
			t.Errorf("peak %d, hashed %d, busy %d; want %d, %d and the rest", peak, hashed, busy, slots, slots+q.Waiting())
		}
		if took := time.Since(begin); took > 3*time.Second {
			t.Errorf("the last one waited %v, want at most 2s", took)
		}
	})
}

// Attack 12: while a crowd of strangers fills the queue, somebody who has signed
// in from the same place before is let in, and before all of them.
func TestStrangersDoNotFillTheLaneOfKnownPeople(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := password.NewQueue(1)
		var mu sync.Mutex
		var order []string
		leave := make(chan struct{})
		hash := func(who string, known bool) error {
			return q.Do(t.Context(), 1, known, func() {
				<-leave
				mu.Lock()
				defer mu.Unlock()
				order = append(order, who)
			})
		}
		var all sync.WaitGroup
		for range 500 {
			all.Go(func() { _ = hash("stranger", false) })
		}
		synctest.Wait()
		all.Go(func() {
			if err := hash("ada", true); err != nil {
				t.Errorf("ada gets %v", err)
			}
		})
		synctest.Wait()
		if err := hash("one stranger more", false); !errors.Is(err, password.ErrBusy) {
			t.Errorf("one stranger more gets %v, want %v", err, password.ErrBusy)
		}
		close(leave)
		all.Wait()
		if len(order) != 2+q.Waiting() || order[1] != "ada" {
			t.Errorf("ada came %d. of %d, want second, after the one that ran already", 1+slices.Index(order, "ada"), len(order))
		}
	})
}

// Whoever gives up as it becomes their turn gives the turn on: no slot is lost.
func TestNoSlotIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := password.NewQueue(1)
		for range 200 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			var all sync.WaitGroup
			for range 5 {
				all.Go(func() { _ = q.Do(ctx, 1, false, func() { time.Sleep(10 * time.Millisecond) }) })
			}
			all.Wait()
			cancel()
		}
		if err := q.Do(t.Context(), 1, false, func() {}); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

func TestNobodyWaitsLongerThanTwoSecondsForAHash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := password.NewQueue(2)
		var all sync.WaitGroup
		for range q.Slots() {
			all.Go(func() { _ = q.Do(t.Context(), 1, false, func() { time.Sleep(time.Minute) }) })
		}
		synctest.Wait()
		begin := time.Now()
		err := q.Do(t.Context(), 1, false, func() { t.Error("it ran") })
		if took := time.Since(begin); !errors.Is(err, password.ErrBusy) || took != 2*time.Second {
			t.Errorf("behind a stuck queue: %v after %v, want busy after 2s", err, took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := q.Do(ctx, 1, false, func() { t.Error("it ran") }); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("whoever hangs up gets %v, want %v", err, context.DeadlineExceeded)
		}
		all.Wait()
		if err := q.Do(t.Context(), 1, false, func() {}); err != nil {
			t.Errorf("afterwards: %v, want nil", err)
		}
	})
}
