package identity

import (
	"cmp"
	"slices"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/password"
)

// Rules is what an installation asks of passwords and second factors. The zero
// value is the default: a good password, and a second factor for whoever has
// set one up.
type Rules struct {
	Params    password.Params // of new hashes; zero means [password.DefaultParams]
	Passwords password.Rules
	MaxAge    time.Duration // of a password; older ones are changed at the next sign-in. 0: never

	// Whoever is among these cannot sign in without a second factor; those who
	// have none set one up at the next sign-in, before anything else.
	FactorRoles  []bailey.Role
	FactorGroups []string

	StepUp time.Duration // how long a proof of identity is fresh enough for what matters most; 0 means 10 min
}

// rules returns what holds now.
func (s *Service) rules() Rules {
	r := Rules{}
	if s.cfg.Rules != nil {
		r = s.cfg.Rules()
	}
	if r.Params == (password.Params{}) || r.Params.Check() != nil {
		r.Params = password.DefaultParams()
	}
	r.StepUp = cmp.Or(r.StepUp, 10*time.Minute)
	return r
}

// needsFactor reports whether the user may not sign in with a password alone.
func (r Rules) needsFactor(u bailey.User) bool {
	return slices.Contains(r.FactorRoles, u.Role) ||
		slices.ContainsFunc(r.FactorGroups, func(g string) bool { return slices.Contains(u.Groups, g) })
}
