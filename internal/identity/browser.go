package identity

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/guard"
	"github.com/baileyhq/bailey/internal/secret"
)

const (
	browserFor = 180 * 24 * time.Hour // since its last sign-in
	maxSecrets = 4                    // people that share a browser
)

// BrowserSecrets splits the value of the cookie. Each person who signs in
// with a browser has a secret of their own in it: nobody else's browser, nor
// somebody who planted a cookie, can be known as theirs.
func BrowserSecrets(cookie string) []secret.Value {
	var all []secret.Value
	for part := range strings.SplitSeq(cookie, ".") {
		if len(part) == cookieLength && isBase64URL(part) && len(all) < maxSecrets {
			all = append(all, secret.New(part))
		}
	}
	return all
}

// BrowserCookie is the inverse: the newest first, those too many left out.
func BrowserCookie(secrets []secret.Value) string {
	var parts []string
	for _, s := range secrets[:min(len(secrets), maxSecrets)] {
		parts = append(parts, s.Reveal())
	}
	return strings.Join(parts, ".")
}

// attempt is newAttempt by somebody who may be on a known browser. Then what is
// tried there is counted for the browser and not for its address, so strangers
// who try the same name, from wherever, do not hold its owner up.
func (s *Service) attempt(ctx context.Context, name string, w Where) attempt {
	a := newAttempt(name, w.IP)
	if len(w.Known) == 0 || len(name) > 256 {
		return a
	}
	if bailey.CheckName("user", name) == nil {
		if user, err := s.cfg.Store.UserByName(ctx, name); err == nil {
			return s.known(ctx, a, user.ID, w)
		}
	}
	// Directories know people by other names than we do.
	for _, row := range s.browsersOf(ctx, w) {
		ties, err := s.cfg.Store.Externals(ctx, row.UserID)
		if err == nil && slices.ContainsFunc(ties, func(e bailey.External) bool { return guardKey(e.Login) == a.key }) {
			return onBrowser(a, row.ID)
		}
	}
	return a
}

// known is the attempt on an account, from a browser that its owner signed in
// with before if it is one.
func (s *Service) known(ctx context.Context, a attempt, userID string, w Where) attempt {
	for _, row := range s.browsersOf(ctx, w) {
		if row.UserID == userID {
			return onBrowser(a, row.ID)
		}
	}
	return a
}

func onBrowser(a attempt, id string) attempt {
	a.browser, a.prefix = id, guard.Device(id)
	return a
}

// browsersOf returns the known browsers that the secrets are of.
func (s *Service) browsersOf(ctx context.Context, w Where) []bailey.Browser {
	var all []bailey.Browser
	for _, d := range w.Known[:min(len(w.Known), maxSecrets)] {
		if row, err := s.cfg.Store.BrowserByHash(ctx, d.Hash()); err == nil { // else a stranger's, whatever is wrong
			all = append(all, row)
		}
	}
	return all
}

// remember makes the browser of a fresh sign-in known, or notes that it was
// used. It returns the secret to keep, or an empty one when the browser has its
// own. That it cannot be stored stops nobody from signing in.
func (s *Service) remember(ctx context.Context, a attempt, u bailey.User, w Where) secret.Value {
	if !w.Cookies {
		return secret.Value{}
	}
	now := s.cfg.Now()
	if a.browser != "" {
		if err := s.cfg.Store.TouchBrowser(ctx, a.browser, a.ip, now, now.Add(browserFor)); err == nil {
			return secret.Value{}
		}
	}
	fresh := secret.Random(32)
	d := bailey.Browser{ID: bailey.NewID(), UserID: u.ID, IP: a.ip, UserAgent: clean(w.UserAgent, 256), CreatedAt: now, SeenAt: now, ExpiresAt: now.Add(browserFor)}
	event := audit.Event{
		Actor: s.who(a, u), Action: audit.BrowserAdd, Target: audit.Target{Kind: "browser", ID: d.ID}, Outcome: audit.Success, Attrs: audit.Attrs{Browser: d.ID},
	}
	if err := s.recorded(ctx, event, func() error { return s.cfg.Store.CreateBrowser(ctx, d, fresh.Hash()) }); err != nil {
		s.cfg.Log.WarnContext(ctx, "browser not remembered", slog.String("user", u.ID), slog.String("error", err.Error()))
		return secret.Value{}
	}
	return fresh
}

// Browsers lists the browsers that the actor is known by.
func (s *Service) Browsers(ctx context.Context, actor bailey.Actor) ([]bailey.Browser, error) {
	userID, err := person(actor)
	if err != nil {
		return nil, err
	}
	return s.cfg.Store.Browsers(ctx, userID)
}

// ForgetBrowser makes one of the actor's browsers a stranger's again. Its
// sessions go on; they are ended one by one.
func (s *Service) ForgetBrowser(ctx context.Context, actor bailey.Actor, id string) error {
	userID, err := person(actor)
	if err != nil {
		return err
	}
	if err := s.cfg.Store.DeleteBrowser(ctx, userID, id); err != nil {
		return err
	}
	s.note(ctx, audit.Event{
		Actor: audit.By(actor), Action: audit.BrowserForget, Target: audit.Target{Kind: "browser", ID: id}, Outcome: audit.Success, Attrs: audit.Attrs{Browser: id},
	})
	return nil
}
