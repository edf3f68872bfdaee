//go:build bailey_mutant

package mutant

// off is the defence to take away; the linker sets it (-X).
var off string

// The defences, as in mutant.go.
var (
	Reads        = off == "Reads"
	CookieFilter = off == "CookieFilter"
	CSRF         = off == "CSRF"
	SocketOrigin = off == "SocketOrigin"
	SocketAuth   = off == "SocketAuth"
	HeaderSpoof  = off == "HeaderSpoof"
	Address      = off == "Address"
	ProxyHeader  = off == "ProxyHeader"
	Smuggling    = off == "Smuggling"
	Paths        = off == "Paths"
	Redirects    = off == "Redirects"
	Counters     = off == "Counters"
	Known        = off == "Known"
	SelfBan      = off == "SelfBan"
	HashQueue    = off == "HashQueue"
	SecondFactor = off == "SecondFactor"
	CodeOnce     = off == "CodeOnce"
	StepUp       = off == "StepUp"
	Places       = off == "Places"
	Endings      = off == "Endings"
	TunnelLimits = off == "TunnelLimits"
	SlowBodies   = off == "SlowBodies"
)
