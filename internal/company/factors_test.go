package company_test

import (
	"errors"
	"maps"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/company"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/totp"
)

// arrives is comes for somebody who may be asked for more.
func (w *world) arrives() (company.Arrival, *identity.StepError) {
	w.t.Helper()
	to, ticket, err := w.Begin(w.t.Context(), "corp", "192.0.2.1", company.Trip{})
	if err != nil {
		w.t.Fatal(err)
	}
	a, err := w.Finish(w.t.Context(), "corp", ticket, w.idp.Visit(w.t, to), bailey.Actor{}, identity.Where{IP: "192.0.2.1"})
	step, ok := errors.AsType[*identity.StepError](err)
	if err != nil && !ok {
		w.t.Fatal(err)
	}
	return a, step
}

func (w *world) app(key secret.Value) secret.Value {
	return secret.New(totp.Code(key, totp.Step(w.now())))
}

// The company's account does not lead around the second factor. Carol, whose
// role must have one, sets it up on her first visit and gives a code on the
// next; when the provider says that it asked for one itself, that counts. Both
// of her sessions end when the provider says so, and so does a visit that waits
// for its code.
func TestASecondFactorBehindTheCompanyAccount(t *testing.T) {
	w := newWorld(t)
	rules := identity.Rules{}
	w.rules = func() identity.Rules { return rules }
	claims := func(sid string, amr ...string) {
		c := person("carol", "research")
		maps.Copy(c, map[string]any{"sid": sid, "amr": amr})
		w.idp.SignedIn("1", c)
	}
	claims("s0", "pwd")
	if _, step := w.arrives(); step != nil {
		t.Fatalf("nothing is required, and she has none: asked for %s", step.Step)
	}
	rules.FactorRoles = []bailey.Role{bailey.RoleUser}
	claims("s1", "pwd")
	_, step := w.arrives()
	if step == nil || step.Step != identity.StepEnrol {
		t.Fatalf("the first visit asks for %+v, want a second factor to be set up", step)
	}
	where := identity.Where{IP: "192.0.2.1"}
	offer, err := w.OfferFactorAt(t.Context(), step.Ticket, "", where)
	if err != nil {
		t.Fatal(err)
	}
	grant, _, err := w.AddFactorAt(t.Context(), step.Ticket, identity.NewFactor{Note: offer.Note, Code: w.app(offer.Secret)}, where)
	if err != nil {
		t.Fatal(err)
	}
	first, err := w.BySession(t.Context(), grant.Secret, "192.0.2.1")
	if err != nil || first.Name != "carol" {
		t.Fatalf("after that: %+v, %v", first, err)
	}

	w.later += time.Minute
	claims("s2", "pwd")
	_, step = w.arrives()
	if step == nil || step.Step != identity.StepFactor {
		t.Fatalf("the next visit asks for %+v, want a code", step)
	}
	grant, _, err = w.AnswerFactor(t.Context(), step.Ticket, identity.FactorAnswer{Code: w.app(offer.Secret)}, where)
	if err != nil {
		t.Fatal(err)
	}
	second, err := w.BySession(t.Context(), grant.Secret, "192.0.2.1")
	if err != nil {
		t.Fatal(err)
	}
	claims("s3", "pwd", "otp")
	if a, step := w.arrives(); step != nil || a.Session.Secret.Empty() {
		t.Errorf("the provider asked for a code itself, and we ask for %+v", step)
	}

	claims("s4", "pwd")
	_, waiting := w.arrives()
	logout := func(claims map[string]any) {
		t.Helper()
		if err := w.Logout(t.Context(), "corp", w.idp.LogoutToken(func(c map[string]any) { maps.Copy(c, claims) }), "192.0.2.50"); err != nil {
			t.Fatal(err)
		}
	}
	logout(map[string]any{"sid": "s2"})
	if !w.in(first) || w.in(second) {
		t.Errorf("the provider ended the second session: first %v, second %v", w.in(first), w.in(second))
	}
	if _, err := w.NextStep(t.Context(), waiting.Ticket, where); err != nil {
		t.Errorf("the visit that waits is another one, and ended: %v", err)
	}
	logout(map[string]any{"sid": "s4"})
	if _, err := w.NextStep(t.Context(), waiting.Ticket, where); bailey.KindOf(err) != bailey.Unauthenticated || err == nil {
		t.Errorf("the provider ended the visit that waits: %v", err)
	}
	logout(map[string]any{"sub": "1"})
	if w.in(first) {
		t.Error("the provider ended everything, and the first session goes on")
	}
}
