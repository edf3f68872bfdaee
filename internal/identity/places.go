package identity

import (
	"context"
	"net/netip"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/mutant"
)

// Permitted refuses a person who may not come from where they come: an
// administrator has banned the address, or it is on none of the lists that
// concern them. It holds for the person and not for a door, so whoever turns a
// credential into an Actor asks it, SSH too, each time.
func (s *Service) Permitted(u bailey.User, ip string) error {
	a, _ := netip.ParseAddr(ip) // an address that is none is on no list
	if err := s.anybody(a); err != nil {
		return err
	}
	if mutant.Places {
		return nil
	}
	if s.cfg.Places != nil && !s.cfg.Places().Permits(u.Name, u.Groups, a) {
		return errPlace()
	}
	return nil
}

// anybody refuses addresses from which nobody may come.
func (s *Service) anybody(a netip.Addr) error {
	if _, banned := s.cfg.Guard.Banned(a); banned {
		return errPlace()
	}
	if s.cfg.Places != nil && !s.cfg.Places().Anybody(a) {
		return errPlace()
	}
	return nil
}

func errPlace() error {
	return &bailey.Error{
		Kind: bailey.Denied, Msg: "you may not come from this address",
		Hint: "use the network or the VPN that your organisation allows, or ask an administrator",
	}
}

// elsewhere refuses an attempt from where nobody may come, before anything is
// looked up or hashed. A flood of those is one event a minute.
func (s *Service) elsewhere(ctx context.Context, a attempt) error {
	ip, _ := netip.ParseAddr(a.ip)
	err := s.anybody(ip)
	if err == nil {
		return nil
	}
	if n := s.cfg.Guard.Miss(a.prefix); n > 0 {
		s.note(ctx, audit.Event{
			Actor: audit.Actor{Unknown: s.unknown(a.name), Method: "password", IP: a.ip}, Action: audit.SignIn, Target: audit.Target{Kind: "user"},
			Outcome: audit.Refused, Reason: audit.WrongPlace, Attrs: audit.Attrs{Count: int64(n)},
		})
	}
	return err
}

// proves reports whether the account asks for more than a password anyway, so
// that a right password alone gives nothing away. When that cannot be told, it
// does not.
func (s *Service) proves(ctx context.Context, u bailey.User) bool {
	step, err := s.nextStep(ctx, u, byPassword, "")
	return err == nil && step == StepFactor
}

// pressed records that a right password was not enough.
func (s *Service) pressed(ctx context.Context, a attempt, u bailey.User) error {
	s.note(ctx, audit.Event{
		Actor: s.who(a, u), Action: audit.SignIn, Target: audit.Target{Kind: "user", ID: u.ID, Name: u.Name},
		Outcome: audit.Refused, Reason: audit.Pressed,
	})
	return errPressed()
}

// errPressed is what strangers read, right or wrong, while an account is under
// attack.
func errPressed() error {
	return &bailey.Error{
		Kind: bailey.TooMany, Msg: "somebody is guessing this account's password, so a password alone is not enough from here now",
		Hint:  "sign in from a browser or an address that you have signed in from before; it ends by itself within an hour",
		Cause: &RetryError{After: 10 * time.Minute},
	}
}
