package guard

import "strings"

// devicePrefix marks places that are devices and not addresses.
const devicePrefix = "device:"

// Device returns what attempts from a device are counted under, in place of the
// [Prefix] of its address, once the device has proved (by a cookie that we gave
// it after a sign-in as this very subject) that its owner signed in on it
// before. No ban of an address and no stranger's failure holds it up; its own
// failures block it like anybody. Never call it with what was not proved.
func Device(id string) string { return devicePrefix + cut(id) }

func isDevice(prefix string) bool { return strings.HasPrefix(prefix, devicePrefix) }

// A Kind is the way by which somebody claims to be someone. All of them share
// the counters: whoever is blocked on one is blocked on each.
type Kind string

// The kinds.
const (
	Web        Kind = "web"
	API        Kind = "api"
	LDAP       Kind = "ldap"
	OIDC       Kind = "oidc"
	TOTP       Kind = "totp"
	Recovery   Kind = "recovery"
	Passkey    Kind = "passkey"
	DeviceCode Kind = "device_code"
	SSH        Kind = "ssh"
	Setup      Kind = "setup"
)

// An Attempt is somebody who claims to be someone, by whatever way.
type Attempt struct {
	Kind    Kind
	IP      string // as the door determined it
	Device  string // the id of a device that has proved itself, see [Device]; empty: none
	Subject string // the name as it was typed, or the code that was tried
}

// A Try is an attempt that may go on. Exactly one of its methods must be
// called, once; a further call does nothing.
type Try struct {
	g               *Guard
	prefix, subject string
	ended           bool
}

// Begin is [Guard.Check] for an Attempt. When the verdict does not allow it,
// the Try is nil. An SSH connection is one Attempt, however many keys it
// offers: one that offers them all has not guessed.
func (g *Guard) Begin(a Attempt) (*Try, Verdict) {
	t := &Try{g: g, prefix: Prefix(a.IP), subject: cut(a.Subject)}
	if a.Device != "" {
		t.prefix = Device(a.Device)
	}
	v := g.Check(t.prefix, t.subject)
	if !v.Allowed {
		return nil, v
	}
	return t, v
}

func (t *Try) end() bool {
	first := !t.ended
	t.ended = true
	return first
}

// Fail counts a failure, see [Guard.Fail].
func (t *Try) Fail(known bool) {
	if t.end() {
		t.g.Fail(t.prefix, t.subject, known)
	}
}

// Succeed forgets the pair's failures, see [Guard.Succeed].
func (t *Try) Succeed() {
	if t.end() {
		t.g.Succeed(t.prefix, t.subject)
	}
}

// Release takes the attempt back, see [Guard.Release]. It does nothing after
// the others, so that it can be deferred.
func (t *Try) Release() {
	if t.end() {
		t.g.Release(t.prefix, t.subject)
	}
}
