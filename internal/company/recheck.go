package company

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/oidc"
)

// batch is how many people are asked about in one round.
const batch = 200

// Run asks again and again whether people are still there, until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	tick := time.NewTicker(min(s.cfg.Recheck/4, time.Minute))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			s.Recheck(ctx)
		}
	}
}

// Recheck asks once about everybody who is due. That a source does not answer
// changes nothing, until it has not vouched for somebody for too long.
func (s *Service) Recheck(ctx context.Context) {
	for _, d := range s.cfg.Directories {
		s.report(ctx, d.Source(), s.recheckDirectory(ctx, d))
		s.closeStale(ctx, d.Source())
	}
	for _, p := range s.cfg.Providers {
		s.report(ctx, p.Source(), s.recheckProvider(ctx, p))
		s.closeStale(ctx, p.Source())
	}
}

func (s *Service) report(ctx context.Context, source string, err error) {
	if err != nil && ctx.Err() == nil {
		s.cfg.Log.WarnContext(ctx, "people cannot be checked again", slog.String("account_source", source), slog.String("error", err.Error()))
	}
}

func (s *Service) recheckDirectory(ctx context.Context, d Directory) error {
	due, err := s.cfg.Identity.DueExternals(ctx, d.Source(), s.cfg.Now().Add(-s.cfg.Recheck), batch)
	if err != nil {
		return err
	}
	for _, tie := range due {
		e, ok, err := d.FindSubject(ctx, tie.Subject)
		switch {
		case err != nil:
			return err // about the directory, not about them
		case !ok:
			s.cfg.Identity.Gone(ctx, tie, audit.MissingThere)
		case e.Locked:
			s.cfg.Identity.Gone(ctx, tie, audit.DisabledThere)
		default:
			if err := s.cfg.Identity.StillThere(ctx, tie, e.Person); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Service) recheckProvider(ctx context.Context, p Provider) error {
	due, err := s.cfg.Identity.DueSessions(ctx, p.Source(), s.cfg.Now().Add(-s.cfg.Recheck), batch)
	if err != nil {
		return err
	}
	for _, x := range due {
		if err := s.recheckSession(ctx, p, x); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) recheckSession(ctx context.Context, p Provider, x bailey.ExternalSession) error {
	tie, err := s.cfg.Identity.ExternalOf(ctx, x)
	if err != nil {
		return err
	}
	x.CheckedAt = s.cfg.Now()
	if x.Refresh == "" { // it cannot be asked; the time since the last sign-in counts
		return gone(s.cfg.Identity.Rechecked(ctx, x))
	}
	login, err := p.Again(ctx, tie.Subject, x.Refresh)
	refusal, refused := errors.AsType[*oidc.Refusal](err)
	switch {
	case errors.Is(err, oidc.ErrEnded):
		return s.cfg.Identity.EndExternalSession(ctx, x, audit.EndedThere)
	case refused && refusal.Reason == oidc.BadClient:
		return err // about this server, not about them
	case refused:
		s.cfg.Log.WarnContext(ctx, "answer of an identity provider refused", slog.String("account_source", p.Source()), slog.String("error", err.Error()))
		return s.cfg.Identity.EndExternalSession(ctx, x, audit.Reason(refusal.Reason))
	case err != nil:
		return err
	}
	x.Refresh = login.Refresh
	if err := gone(s.cfg.Identity.Rechecked(ctx, x)); err != nil {
		return err
	}
	if !login.Told { // still vouched for, and no word about groups
		login.Groups = nil
		return s.cfg.Identity.StillVouched(ctx, tie)
	}
	return s.cfg.Identity.StillThere(ctx, tie, login.Person)
}

// gone forgives that a session ended meanwhile.
func gone(err error) error {
	if err != nil && bailey.KindOf(err) == bailey.NotFound {
		return nil
	}
	return err
}

// closeStale closes accounts that their source has not vouched for in a long
// time: their API tokens must not outlive their company account for ever.
func (s *Service) closeStale(ctx context.Context, source string) {
	if s.cfg.StaleAfter == 0 {
		return
	}
	stale, err := s.cfg.Identity.DueExternals(ctx, source, s.cfg.Now().Add(-s.cfg.StaleAfter), batch)
	s.report(ctx, source, err)
	for _, tie := range stale {
		s.cfg.Identity.Gone(ctx, tie, audit.NotVouched)
	}
}
