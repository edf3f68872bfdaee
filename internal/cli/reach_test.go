package cli

import "testing"

// The greeting says who can come: an administrator who believes the server to
// be closed while it is open is worse off than one who was told nothing.
func TestTheGreetingSaysWhoReachesTheServer(t *testing.T) {
	const closed, open = "this machine alone", "every address of this machine"
	for listen, want := range map[string]string{
		"127.0.0.1:8443":        closed,
		"127.9.9.9:8443":        closed,
		"localhost:8443":        closed,
		"[::1]:8443":            closed,
		"[::ffff:127.0.0.1]:1":  closed,
		":8443":                 open,
		"0.0.0.0:8443":          open,
		"[::]:8443":             open,
		"[::ffff:0.0.0.0]:8443": open,
		"192.0.2.7:8443":        "192.0.2.7",
		"[2001:db8::7]:8443":    "2001:db8::7",
	} {
		if got := reach(listen); got != want {
			t.Errorf("%s: %q, want %q", listen, got, want)
		}
	}
}
