package identity

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/secret"
)

const (
	deviceFor  = 180 * 24 * time.Hour // since its last sign-in
	maxSecrets = 4                    // people that share a browser
)

// DeviceSecrets splits the value of the device cookie. Each person who signs in
// with a browser has a secret of their own in it: nobody else's browser, nor
// somebody who planted a cookie, can be known as theirs.
func DeviceSecrets(cookie string) []secret.Value {
	var all []secret.Value
	for part := range strings.SplitSeq(cookie, ".") {
		if len(part) == cookieLength && isBase64URL(part) && len(all) < maxSecrets {
			all = append(all, secret.New(part))
		}
	}
	return all
}

// DeviceCookie is the inverse: the newest first, those too many left out.
func DeviceCookie(secrets []secret.Value) string {
	var parts []string
	for _, s := range secrets[:min(len(secrets), maxSecrets)] {
		parts = append(parts, s.Reveal())
	}
	return strings.Join(parts, ".")
}

// attempt is newAttempt by somebody who may be on a known device. Then what is
// tried there is counted for the device and not for its address, so strangers
// who try the same name, from wherever, do not hold its owner up.
func (s *Service) attempt(ctx context.Context, name string, w Where) attempt {
	a := newAttempt(name, w.IP)
	if len(w.Devices) == 0 || bailey.CheckName("user", name) != nil {
		return a
	}
	user, err := s.cfg.Store.UserByName(ctx, name)
	if err != nil {
		return a // a stranger's, whatever is wrong
	}
	for _, d := range w.Devices[:min(len(w.Devices), maxSecrets)] {
		row, err := s.cfg.Store.DeviceByHash(ctx, d.Hash())
		if err == nil && row.UserID == user.ID {
			a.device, a.prefix = row.ID, devicePrefix(row.ID)
			return a
		}
	}
	return a
}

// devicePrefix is what attempts from a known device are counted under in guard.
func devicePrefix(id string) string { return "device:" + id }

// remember makes the browser of a fresh sign-in known, or notes that it was
// used. It returns the secret to keep, or an empty one when the browser has its
// own. That it cannot be stored stops nobody from signing in.
func (s *Service) remember(ctx context.Context, a attempt, u bailey.User, w Where) secret.Value {
	if !w.Browser {
		return secret.Value{}
	}
	now := s.cfg.Now()
	if a.device != "" {
		if err := s.cfg.Store.TouchDevice(ctx, a.device, a.ip, now, now.Add(deviceFor)); err == nil {
			return secret.Value{}
		}
	}
	fresh := secret.Random(32)
	d := bailey.Device{ID: bailey.NewID(), UserID: u.ID, IP: a.ip, UserAgent: clean(w.UserAgent, 256), CreatedAt: now, SeenAt: now, ExpiresAt: now.Add(deviceFor)}
	event := audit.Event{
		Actor: s.who(a, u), Action: audit.DeviceAdd, Target: audit.Target{Kind: "device", ID: d.ID}, Outcome: audit.Success, Attrs: audit.Attrs{Device: d.ID},
	}
	if err := s.recorded(ctx, event, func() error { return s.cfg.Store.CreateDevice(ctx, d, fresh.Hash()) }); err != nil {
		s.cfg.Log.WarnContext(ctx, "device not remembered", slog.String("user", u.ID), slog.String("error", err.Error()))
		return secret.Value{}
	}
	s.cfg.Guard.Succeed(devicePrefix(d.ID), a.key) // whoever comes from here again is known
	return fresh
}

// Devices lists the browsers that the actor is known by.
func (s *Service) Devices(ctx context.Context, actor bailey.Actor) ([]bailey.Device, error) {
	userID, err := person(actor)
	if err != nil {
		return nil, err
	}
	return s.cfg.Store.Devices(ctx, userID)
}

// ForgetDevice makes one of the actor's browsers a stranger's again. Its
// sessions go on; they are ended one by one.
func (s *Service) ForgetDevice(ctx context.Context, actor bailey.Actor, id string) error {
	userID, err := person(actor)
	if err != nil {
		return err
	}
	if err := s.cfg.Store.DeleteDevice(ctx, userID, id); err != nil {
		return err
	}
	s.note(ctx, audit.Event{
		Actor: audit.By(actor), Action: audit.DeviceForget, Target: audit.Target{Kind: "device", ID: id}, Outcome: audit.Success, Attrs: audit.Attrs{Device: id},
	})
	return nil
}
