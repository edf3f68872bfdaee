package app

import (
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/password"
)

// signInRules is what the configuration in force says about passwords and
// second factors.
func (a *App) signInRules() identity.Rules {
	f := a.settings.configuration()
	p, required := f.Passwords, f.Factors.Required
	r := identity.Rules{
		Params:    password.Params{Memory: uint32(p.Memory >> 10), Passes: uint32(p.Passes), Threads: uint8(p.Threads)}, //nolint:gosec // config has checked them
		Passwords: password.Rules{Length: p.Length, Words: p.Words},
		MaxAge:    time.Duration(p.MaxAge), StepUp: time.Duration(f.Factors.StepUp), FactorGroups: required.Groups,
	}
	for _, role := range required.Roles {
		r.FactorRoles = append(r.FactorRoles, bailey.Role(role))
	}
	return r
}
