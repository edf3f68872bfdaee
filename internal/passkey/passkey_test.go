package passkey_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey/internal/passkey"
	"github.com/baileyhq/bailey/internal/passkey/passkeytest"
	"github.com/baileyhq/bailey/internal/ticket"
)

const (
	origin = "https://hub.example.org:8443"
	host   = "hub.example.org"
	alice  = "01k00000000000000000000alice"
	bob    = "01k0000000000000000000000bob"
)

var now = time.Unix(1_800_000_000, 0)

func party(t testing.TB, at string) *passkey.Party {
	t.Helper()
	notes, err := ticket.New(bytes.Repeat([]byte{3}, 32))
	if err != nil {
		t.Fatal(err)
	}
	p, err := passkey.New(at, notes)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func registered(t testing.TB, p *passkey.Party, device *passkeytest.Authenticator, userID string, have ...passkey.Key) passkey.Key {
	t.Helper()
	asked, err := p.Register("enrol "+userID, userID, "name", have, now)
	if err != nil {
		t.Fatal(err)
	}
	answer, ok := device.Create(asked)
	if !ok {
		t.Fatal("the device has such a key already")
	}
	key, err := p.Registered("enrol "+userID, userID, answer, now)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func asked(t testing.TB, p *passkey.Party, purpose string, keys ...passkey.Key) []byte {
	t.Helper()
	q, err := p.Ask(purpose, keys, now)
	if err != nil {
		t.Fatal(err)
	}
	return q
}

func answered(p *passkey.Party, purpose, userID string, key passkey.Key, answer []byte, alone bool, at time.Time) (passkey.Proof, error) {
	read, err := passkey.Read(answer)
	if err != nil {
		return passkey.Proof{}, err
	}
	return p.Answered(purpose, userID, key, read, alone, at)
}

// A key that was made here signs in: beside a password, and alone when its
// holder was verified. Its counter moves.
func TestAKeySignsIn(t *testing.T) {
	p := party(t, origin)
	device := passkeytest.New(t, origin, host)
	key := registered(t, p, device, alice)
	if strings.Contains(key.Credential, "attestationObject\":\"") {
		t.Errorf("what the device says of its maker is kept: %s", key.Credential)
	}
	got, err := answered(p, "second 1", alice, key, device.Get(asked(t, p, "second 1", key)), false, now)
	if err != nil || !got.Verified || got.Cloned || got.Key.Handle != key.Handle || got.Key.Credential == key.Credential {
		t.Errorf("beside a password: %+v, %v; want it verified, and the counter moved", got, err)
	}
	got, err = answered(p, "signin", alice, got.Key, device.Get(asked(t, p, "signin")), true, now)
	if err != nil || !got.Verified {
		t.Errorf("alone: %+v, %v", got, err)
	}
	device.Verify = false
	got, err = answered(p, "second 1", alice, got.Key, device.Get(asked(t, p, "second 1", got.Key)), false, now)
	if err != nil || got.Verified {
		t.Errorf("a key that was only touched, beside a password: %+v, %v", got, err)
	}
	again, err := p.Register("enrol "+alice, alice, "name", []passkey.Key{key}, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, made := device.Create(again); made {
		t.Error("the device is asked for a second key of the same account")
	}
}

// What an answer must not be. Each attack changes one thing of an answer that is
// right.
func TestWhatIsRefused(t *testing.T) {
	p := party(t, origin)
	device, his := passkeytest.New(t, origin, host), passkeytest.New(t, origin, host)
	key, bobs := registered(t, p, device, alice), registered(t, p, his, bob)
	changed := func(change func(a *passkeytest.Authenticator)) []byte {
		t.Helper()
		old := *device
		change(device)
		answer := device.Get(asked(t, p, "signin"))
		counter := device.Counter
		*device = old
		device.Counter = counter
		return answer
	}
	right := device.Get(asked(t, p, "signin"))
	if _, err := answered(p, "signin", alice, key, right, true, now); err != nil {
		t.Fatalf("what the attacks are made of: %v", err)
	}
	tampered := func(change func(m map[string]any)) []byte {
		t.Helper()
		var m map[string]any
		if err := json.Unmarshal(device.Get(asked(t, p, "signin")), &m); err != nil {
			t.Fatal(err)
		}
		change(m)
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	response := func(m map[string]any) map[string]any { return m["response"].(map[string]any) } //nolint:forcetypeassert // we made it
	flip := func(m map[string]any, field string, i int) {
		raw, err := base64.RawURLEncoding.DecodeString(response(m)[field].(string)) //nolint:forcetypeassert // we made it
		if err != nil {
			t.Fatal(err)
		}
		raw[(i+len(raw))%len(raw)] ^= 1
		response(m)[field] = base64.RawURLEncoding.EncodeToString(raw)
	}
	for what, try := range map[string]struct {
		purpose, user string
		key           passkey.Key
		answer        []byte
		alone         bool
		at            time.Time
	}{
		"another page's origin":       {"signin", alice, key, changed(func(a *passkeytest.Authenticator) { a.Origin = "https://evil.example" }), true, now},
		"a workspace's origin":        {"signin", alice, key, changed(func(a *passkeytest.Authenticator) { a.Origin = "https://lab.apps.example.org:8443" }), true, now},
		"the host on another port":    {"signin", alice, key, changed(func(a *passkeytest.Authenticator) { a.Origin = "https://hub.example.org" }), true, now},
		"the host without TLS":        {"signin", alice, key, changed(func(a *passkeytest.Authenticator) { a.Origin = "http://hub.example.org:8443" }), true, now},
		"another host's key":          {"signin", alice, key, changed(func(a *passkeytest.Authenticator) { a.RPID = "evil.example" }), true, now},
		"the parent domain":           {"signin", alice, key, changed(func(a *passkeytest.Authenticator) { a.RPID = "example.org" }), true, now},
		"another ceremony":            {"signin", alice, key, changed(func(a *passkeytest.Authenticator) { a.Type = "webauthn.create" }), true, now},
		"alone, its holder unseen":    {"signin", alice, key, changed(func(a *passkeytest.Authenticator) { a.Verify = false }), true, now},
		"alone, as another user":      {"signin", alice, key, changed(func(a *passkeytest.Authenticator) { a.Handle = []byte(bob) }), true, now},
		"alone, as nobody":            {"signin", alice, key, changed(func(a *passkeytest.Authenticator) { a.Handle = []byte{} }), true, now},
		"bob's key for alice":         {"signin", alice, bobs, his.Get(asked(t, p, "signin")), true, now},
		"bob's signature, her key":    {"signin", alice, key, his.GetAny(asked(t, p, "signin", key)), false, now},
		"an answer for something":     {"second 1", alice, key, device.Get(asked(t, p, "second 2", key)), false, now},
		"a question of another page":  {"step-up 7", alice, key, device.Get(asked(t, p, "signin")), true, now},
		"a question that was too old": {"signin", alice, key, device.Get(asked(t, p, "signin")), true, now.Add(5 * time.Minute)},
		"a question of our own":       {"signin", alice, key, device.Get([]byte(`{"challenge":"` + strings.Repeat("A", 43) + `"}`)), true, now},
		"a changed signature":         {"signin", alice, key, tampered(func(m map[string]any) { flip(m, "signature", -1) }), true, now},
		"a changed counter":           {"signin", alice, key, tampered(func(m map[string]any) { flip(m, "authenticatorData", 36) }), true, now},
		"a changed flag":              {"signin", alice, key, tampered(func(m map[string]any) { flip(m, "authenticatorData", 32) }), true, now},
		"no signature":                {"signin", alice, key, tampered(func(m map[string]any) { response(m)["signature"] = "" }), true, now},
		"no text at all":              {"signin", alice, key, nil, true, now},
		"not JSON":                    {"signin", alice, key, []byte("hello"), true, now},
		"too long":                    {"signin", alice, key, bytes.Repeat([]byte(" "), 65<<10), true, now},
	} {
		got, err := answered(p, try.purpose, try.user, try.key, try.answer, try.alone, try.at)
		if !errors.Is(err, passkey.ErrRefused) {
			t.Errorf("%s: %+v, %v; want it refused", what, got, err)
		}
	}
	// Bob's device says that its key is alice's: the key of that id is hers, and
	// his signature does not fit it.
	his.Rename(device.ID())
	his.Handle = []byte(alice)
	if _, err := answered(p, "signin", alice, key, his.GetAny(asked(t, p, "signin")), true, now); !errors.Is(err, passkey.ErrRefused) {
		t.Errorf("bob's key under alice's id: %v", err)
	}
}

// A counter that goes back is told: there may be a copy of the key. Synced
// passkeys count nothing and are not suspected.
func TestACounterThatGoesBack(t *testing.T) {
	p := party(t, origin)
	device := passkeytest.New(t, origin, host)
	key := registered(t, p, device, alice)
	device.Counter = 40
	got, err := answered(p, "signin", alice, key, device.Get(asked(t, p, "signin")), true, now)
	if err != nil || got.Cloned {
		t.Fatalf("ahead: %+v, %v", got, err)
	}
	key = got.Key
	for _, counter := range []uint32{10, 40} { // then it says 11 and 41
		device.Counter, device.Step = counter, 1
		if counter == 40 {
			device.Step = 0 // exactly where it was
			device.Counter = 41
		}
		got, err = answered(p, "signin", alice, key, device.Get(asked(t, p, "signin")), true, now)
		if err != nil || !got.Cloned {
			t.Errorf("counter %d after 41: cloned %v, %v", device.Counter, got.Cloned, err)
		}
	}
	synced := passkeytest.New(t, origin, host)
	synced.Step = 0
	key = registered(t, p, synced, alice)
	for range 2 {
		got, err = answered(p, "signin", alice, key, synced.Get(asked(t, p, "signin")), true, now)
		if err != nil || got.Cloned {
			t.Errorf("a synced passkey: cloned %v, %v", got.Cloned, err)
		}
		key = got.Key
	}
}

// What a new key must not be.
func TestWhatIsNotRegistered(t *testing.T) {
	p := party(t, origin)
	for what, change := range map[string]func(a *passkeytest.Authenticator){
		"another page's origin": func(a *passkeytest.Authenticator) { a.Origin = "https://evil.example" },
		"another host":          func(a *passkeytest.Authenticator) { a.RPID = "evil.example" },
		"another ceremony":      func(a *passkeytest.Authenticator) { a.Type = "webauthn.get" },
	} {
		device := passkeytest.New(t, origin, host)
		change(device)
		question, err := p.Register("enrol "+alice, alice, "name", nil, now)
		if err != nil {
			t.Fatal(err)
		}
		answer, _ := device.Create(question)
		if key, err := p.Registered("enrol "+alice, alice, answer, now); !errors.Is(err, passkey.ErrRefused) {
			t.Errorf("%s: %+v, %v; want it refused", what, key, err)
		}
	}
	device := passkeytest.New(t, origin, host)
	question, err := p.Register("enrol "+alice, alice, "name", nil, now)
	if err != nil {
		t.Fatal(err)
	}
	answer, _ := device.Create(question)
	if _, err := p.Registered("enrol "+bob, bob, answer, now); !errors.Is(err, passkey.ErrRefused) {
		t.Errorf("bob sets up what alice was asked: %v", err)
	}
	if _, err := p.Registered("enrol "+alice, alice, answer, now.Add(time.Hour)); !errors.Is(err, passkey.ErrRefused) {
		t.Errorf("an hour later: %v", err)
	}
}

// Passkeys belong to a host's name. An address has none.
func TestWherePasskeysAreNotPossible(t *testing.T) {
	notes, err := ticket.New(bytes.Repeat([]byte{3}, 32))
	if err != nil {
		t.Fatal(err)
	}
	for at, want := range map[string]error{"https://192.0.2.1:8443": passkey.ErrNoName, "https://[2001:db8::1]": passkey.ErrNoName} {
		if _, err := passkey.New(at, notes); !errors.Is(err, want) {
			t.Errorf("New(%q) = %v, want %v", at, err, want)
		}
	}
	for _, at := range []string{"", "http://hub.example.org", "hub.example.org"} {
		if _, err := passkey.New(at, notes); err == nil || errors.Is(err, passkey.ErrNoName) {
			t.Errorf("New(%q) = %v, want another error", at, err)
		}
	}
	if _, err := passkey.New("https://localhost:8443", notes); err != nil {
		t.Errorf("localhost: %v", err)
	}
}

// Whatever a browser sends, nothing of it proves anything that nobody signed,
// and nothing breaks.
func FuzzAnswer(f *testing.F) {
	p := party(f, origin)
	device := passkeytest.New(f, origin, host)
	key := registered(f, p, device, alice)
	other := party(f, "https://other.example")
	f.Add(device.Get(asked(f, other, "signin"))) // for another host's question
	question, err := p.Register("enrol "+alice, alice, "name", nil, now)
	if err != nil {
		f.Fatal(err)
	}
	made, _ := passkeytest.New(f, "https://evil.example", "evil.example").Create(question)
	f.Add(made)
	f.Add([]byte(`{"id":"","rawId":"","type":"public-key","response":{}}`))
	f.Fuzz(func(t *testing.T, answer []byte) {
		if got, err := answered(p, "no question was asked for this", alice, key, answer, true, now); err == nil {
			t.Errorf("%q proves %+v", answer, got)
		}
		if got, err := p.Registered("no question was asked for this", alice, answer, now); err == nil {
			t.Errorf("%q makes %+v", answer, got)
		}
	})
}
