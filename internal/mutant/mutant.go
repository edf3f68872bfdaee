//go:build !bailey_mutant

// Package mutant can take one defence away, to see that its test fails then: a
// test that passes without the defence proves nothing. In every build but that
// of scripts/mutants.sh (build tag bailey_mutant) all of these are constants
// and false, so the compiler leaves nothing of them in a program.
package mutant

// The defences, each with the attack of the threat list that it stands against.
const (
	Reads        = false // 1: a page elsewhere reads with a person's cookie
	CookieFilter = false // 2: a workspace sets any cookie
	CSRF         = false // 3: a page elsewhere changes something
	SocketOrigin = false // 4: a page elsewhere opens a WebSocket
	SocketAuth   = false // 5: a cookie whose session has ended still opens things
	HeaderSpoof  = false // 6: a client says who it is in a header
	Address      = false // 7: a client says from where it calls
	ProxyHeader  = false // 7: a balancer may leave its PROXY header out
	Smuggling    = false // 8: what follows a chunked request is read as the next one
	Paths        = false // 9: a path with two readings is routed by one of them
	Redirects    = false // 10: a hand-off leads anywhere
	Counters     = false // 11: failures are not counted
	Known        = false // 12: strangers' failures hold up those who are known
	SelfBan      = false // 12: everybody's way in is banned like any other
	HashQueue    = false // 13: as many hashes at once as are asked for
	SecondFactor = false // 15: a password is enough for whoever has a second factor
	CodeOnce     = false // 15: a code counts as often as it is given
	StepUp       = false // 16: an old session may do what takes a fresh proof
	Places       = false // 19: lists of addresses are not asked
	Endings      = false // 25: what is open outlives its session
	TunnelLimits = false // 25: one person opens as many as they like
	SlowBodies   = false // 25: a body may come as slowly as it likes
)
