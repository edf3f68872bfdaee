package identity

import (
	"context"
	"errors"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/passkey"
	"github.com/baileyhq/bailey/internal/policy"
	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/totp"
)

// FactorView is what the owner of an account sees of its second factors.
type FactorView struct {
	Factors  []bailey.Factor
	Codes    int  // recovery codes that are left
	Required bool // the account may not be without
	Passkeys bool // possible on this server
}

// Factors shows the actor's own second factors.
func (s *Service) Factors(ctx context.Context, actor bailey.Actor) (FactorView, error) {
	userID, err := person(actor)
	if err != nil {
		return FactorView{}, err
	}
	user, err := s.cfg.Store.UserByID(ctx, userID)
	if err != nil {
		return FactorView{}, err
	}
	return s.factorView(ctx, user)
}

// FactorsOf shows somebody's second factors to an administrator.
func (s *Service) FactorsOf(ctx context.Context, actor bailey.Actor, name string) (FactorView, error) {
	if err := s.allow(ctx, actor, policy.UserManage, audit.Target{Kind: "user", Name: clean(name, 64)}); err != nil {
		return FactorView{}, err
	}
	user, err := s.byName(ctx, name)
	if err != nil {
		return FactorView{}, err
	}
	return s.factorView(ctx, user)
}

func (s *Service) factorView(ctx context.Context, user bailey.User) (FactorView, error) {
	v := FactorView{Required: s.rules().needsFactor(user), Passkeys: s.party != nil}
	var err error
	if v.Factors, err = s.cfg.Store.Factors(ctx, user.ID); err != nil {
		return v, err
	}
	v.Codes, err = s.cfg.Store.RecoveryCodesLeft(ctx, user.ID)
	return v, err
}

// An enroller is who sets up a factor: somebody signed in, or somebody who may
// not go on without.
type enroller struct {
	user    bailey.User
	purpose string // ties notes to this session or this unfinished sign-in
	actor   audit.Actor
}

func (s *Service) enrollerOf(ctx context.Context, actor bailey.Actor) (enroller, error) {
	userID, err := person(actor)
	if err == nil {
		err = s.freshProof(actor)
	}
	if err != nil {
		return enroller{}, err
	}
	user, err := s.cfg.Store.UserByID(ctx, userID)
	if err == nil && user.Service {
		err = &bailey.Error{Kind: bailey.Denied, Msg: "a service account has no second factor: it has tokens, which hold scopes", Hint: "limit its tokens instead"}
	}
	return enroller{user: user, purpose: "enrol " + userID + " " + actor.Session, actor: audit.By(actor)}, err
}

func (s *Service) enrollerAt(ctx context.Context, ticket secret.Value, w Where) (enroller, bailey.PendingSignIn, attempt, error) {
	row, user, err := s.unfinished(ctx, ticket, w, s.pending(ctx))
	if err == nil {
		var step Step
		if step, err = s.nextStep(ctx, user, row.Methods, row.Stored); err == nil && step != StepEnrol {
			err = errBegin()
		}
	}
	a := s.attempt(ctx, user.Name, w)
	return enroller{user: user, purpose: "enrol " + user.ID + " " + row.ID, actor: s.who(a, user)}, row, a, err
}

// An Offer is what an authenticator is shown, and a browser's authenticator
// asked, to become a second factor.
type Offer struct {
	Name    string       // of the account
	Secret  secret.Value // for typing into an app
	URI     string       // the same for scanning
	Picture string       // of the URI, as SVG
	Note    string       // comes back with the first code
	Passkey []byte       // for navigator.credentials.create; empty where passkeys are not possible
}

func (s *Service) offer(ctx context.Context, e enroller, note string) (Offer, error) {
	key, now := totp.NewSecret(), s.cfg.Now()
	if raw, err := s.notes.Open("app "+e.purpose, note, now); err == nil {
		key = secret.New(string(raw)) // it may be in an app already
	} else {
		note = s.notes.Seal("app "+e.purpose, []byte(key.Reveal()), now.Add(pendingFor))
	}
	o := Offer{Name: e.user.Name, Secret: key, URI: totp.URI("bailey "+s.cfg.Host, e.user.Name, key), Note: note}
	var err error
	if o.Picture, err = totp.Picture(o.URI); err != nil || s.party == nil {
		return o, err
	}
	have, err := s.cfg.Store.Factors(ctx, e.user.ID)
	if err != nil {
		return o, err
	}
	keys, err := s.keysOf(ctx, e.user.ID, have)
	if err == nil {
		o.Passkey, err = s.party.Register(e.purpose, e.user.ID, e.user.Name, keys, now)
	}
	return o, err
}

// OfferFactor begins to set up a second factor for the actor. It takes a fresh
// proof of who they are, like all that follows. With the note of an offer it is
// that one again, as long as it is good.
func (s *Service) OfferFactor(ctx context.Context, actor bailey.Actor, note string) (Offer, error) {
	e, err := s.enrollerOf(ctx, actor)
	if err != nil {
		return Offer{}, err
	}
	return s.offer(ctx, e, note)
}

// OfferFactorAt is OfferFactor for an unfinished sign-in that needs one.
func (s *Service) OfferFactorAt(ctx context.Context, ticket secret.Value, note string, w Where) (Offer, error) {
	e, _, _, err := s.enrollerAt(ctx, ticket, w)
	if err != nil {
		return Offer{}, err
	}
	return s.offer(ctx, e, note)
}

// A NewFactor is the answer to an [Offer]: an app's note with its first code,
// or a passkey.
type NewFactor struct {
	Name    string
	Note    string
	Code    secret.Value
	Passkey []byte // JSON of what navigator.credentials.create returned
}

// addFactor checks and stores a factor. The first brings recovery codes.
func (s *Service) addFactor(ctx context.Context, e enroller, n NewFactor) (codes []secret.Value, methods string, err error) {
	now := s.cfg.Now()
	f := bailey.Factor{ID: bailey.NewID(), UserID: e.user.ID, Kind: bailey.FactorTOTP, Name: clean(n.Name, 64), CreatedAt: now, UsedAt: now}
	var text, handle string
	var step int64
	if len(n.Passkey) > 0 {
		if s.party == nil {
			return nil, "", s.noPasskeys
		}
		key, err := s.party.Registered(e.purpose, e.user.ID, n.Passkey, now)
		if errors.Is(err, passkey.ErrRefused) {
			return nil, "", &bailey.Error{Kind: bailey.Invalid, Msg: "the passkey could not be set up", Hint: "try again", Cause: err}
		} else if err != nil {
			return nil, "", err
		}
		f.Kind, text, handle, methods = bailey.FactorPasskey, key.Credential, key.Handle, byPasskey+" "+byTwo
	} else if text, step, err = s.firstCode(e, n); err != nil {
		return nil, "", err
	} else {
		methods = byCode + " " + byTwo
	}
	have, err := s.cfg.Store.Factors(ctx, e.user.ID)
	if err != nil {
		return nil, "", err
	}
	if f.Name == "" {
		f.Name = map[string]string{bailey.FactorTOTP: "authenticator app", bailey.FactorPasskey: "passkey"}[f.Kind]
	}
	apps := 0
	for _, other := range have {
		if other.Kind == bailey.FactorTOTP {
			apps++
		}
	}
	if f.Kind == bailey.FactorTOTP && apps >= maxApps {
		return nil, "", &bailey.Error{Kind: bailey.OverQuota, Msg: "you have " + count(apps, "authenticator app") + " already", Hint: "remove one first"}
	}
	event := audit.Event{
		Actor: e.actor, Action: audit.FactorAdd, Target: audit.Target{Kind: "factor", ID: f.ID, Name: f.Name},
		Outcome: audit.Success, Attrs: audit.Attrs{Factor: f.Kind},
	}
	err = s.recorded(ctx, event, func() error { return s.cfg.Store.AddFactor(ctx, f, text, handle, step, maxFactors) })
	if err != nil {
		return nil, "", err
	}
	s.tell(ctx, e.user.ID, "factor_added", f.Name)
	if len(have) == 0 {
		codes, err = s.freshCodes(ctx, e)
	}
	return codes, methods, err
}

// firstCode checks that the app makes the codes of the secret it was offered.
// The step counts as used.
func (s *Service) firstCode(e enroller, n NewFactor) (key string, step int64, err error) {
	raw, err := s.notes.Open("app "+e.purpose, n.Note, s.cfg.Now())
	if err != nil {
		return "", 0, &bailey.Error{Kind: bailey.Invalid, Msg: "setting up the app took too long", Hint: "begin again and scan the new picture"}
	}
	step, ok := totp.Check(secret.New(string(raw)), n.Code.Reveal(), s.cfg.Now())
	if !ok {
		return "", 0, &bailey.Error{Kind: bailey.Invalid, Msg: "that is not the app's code", Hint: "type the six digits that the app shows now; check that the clock of your phone is right"}
	}
	return string(raw), step, nil
}

func (s *Service) freshCodes(ctx context.Context, e enroller) ([]secret.Value, error) {
	codes := totp.NewRecoveryCodes()
	hashes := make([]string, len(codes))
	for i, c := range codes {
		hashes[i], _ = totp.RecoveryHash(c.Reveal()) // it was just made
	}
	event := audit.Event{
		Actor: e.actor, Action: audit.FactorCodes, Target: audit.Target{Kind: "user", ID: e.user.ID, Name: e.user.Name},
		Outcome: audit.Success, Attrs: audit.Attrs{Count: int64(len(codes))},
	}
	err := s.recorded(ctx, event, func() error { return s.cfg.Store.SetRecoveryCodes(ctx, e.user.ID, hashes) })
	if err != nil {
		return nil, err
	}
	return codes, nil
}

// AddFactor sets up a second factor for the actor and ends their other sessions.
// The first brings recovery codes, which are shown this once.
func (s *Service) AddFactor(ctx context.Context, actor bailey.Actor, n NewFactor) ([]secret.Value, error) {
	e, err := s.enrollerOf(ctx, actor)
	if err != nil {
		return nil, err
	}
	codes, methods, err := s.addFactor(ctx, e, n)
	if err != nil {
		return nil, err
	}
	if err := s.proved(ctx, actor, byPassword+" "+methods); err != nil { // that was a proof
		return codes, err
	}
	return codes, s.endOthers(ctx, actor)
}

// AddFactorAt is AddFactor for an unfinished sign-in that needs one, and then
// goes on with it.
func (s *Service) AddFactorAt(ctx context.Context, ticket secret.Value, n NewFactor, w Where) (Grant[bailey.Session], []secret.Value, error) {
	fail := func(err error) (Grant[bailey.Session], []secret.Value, error) {
		return Grant[bailey.Session]{}, nil, err
	}
	e, row, a, err := s.enrollerAt(ctx, ticket, w)
	if err != nil {
		return fail(err)
	}
	codes, added, err := s.addFactor(ctx, e, n)
	if err != nil {
		return fail(err)
	}
	methods := row.Methods + " " + added
	if err := s.cfg.Store.AdvancePending(ctx, ticket.Hash(), row.Methods, methods, row.Stored); err != nil {
		return fail(overIfGone(err))
	}
	if err := s.cfg.Store.DeleteSessions(ctx, e.user.ID, ""); err != nil {
		return fail(err)
	}
	s.endUser(e.user.ID, "")
	grant, _, err := s.goOn(ctx, ticket, row, methods, proof{attempt: a, user: e.user, stored: row.Stored}, w)
	return grant, codes, err
}

// endOthers ends the actor's other sessions and unfinished sign-ins: whoever
// made them may have known less than is asked now.
func (s *Service) endOthers(ctx context.Context, actor bailey.Actor) error {
	defer s.endUser(actor.UserID, actor.Session)
	return errors.Join(
		s.cfg.Store.DeletePending(ctx, actor.UserID),
		s.cfg.Store.DeleteSessions(ctx, actor.UserID, actor.Session))
}

// RemoveFactor removes one of the actor's factors and ends their other
// sessions. Conflict when the account may not be without one.
func (s *Service) RemoveFactor(ctx context.Context, actor bailey.Actor, id string) error {
	e, err := s.enrollerOf(ctx, actor)
	if err != nil {
		return err
	}
	have, err := s.cfg.Store.Factors(ctx, e.user.ID)
	if err != nil {
		return err
	}
	var gone bailey.Factor
	for _, f := range have {
		if f.ID == id {
			gone = f
		}
	}
	switch {
	case gone.ID == "":
		return &bailey.Error{Kind: bailey.NotFound, Msg: "you have no such second factor", Hint: "look at the account page"}
	case len(have) == 1 && s.rules().needsFactor(e.user):
		return &bailey.Error{Kind: bailey.Conflict, Msg: "this is your only second factor, and your account must have one", Hint: "add another one first"}
	}
	event := audit.Event{
		Actor: e.actor, Action: audit.FactorRemove, Target: audit.Target{Kind: "factor", ID: id, Name: gone.Name},
		Outcome: audit.Success, Reason: audit.ByUser, Attrs: audit.Attrs{Factor: gone.Kind},
	}
	err = s.recorded(ctx, event, func() error {
		if len(have) == 1 { // recovery codes without a factor would be for nothing
			return s.cfg.Store.DeleteFactors(ctx, e.user.ID)
		}
		return s.cfg.Store.DeleteFactor(ctx, e.user.ID, id)
	})
	if err != nil {
		return err
	}
	s.tell(ctx, e.user.ID, "factor_removed", gone.Name)
	return s.endOthers(ctx, actor)
}

// RenameFactor gives one of the actor's factors another name.
func (s *Service) RenameFactor(ctx context.Context, actor bailey.Actor, id, name string) error {
	userID, err := person(actor)
	if err != nil {
		return err
	}
	if name = clean(name, 64); name == "" {
		return &bailey.Error{Kind: bailey.Invalid, Msg: "a second factor needs a name", Hint: "say what it is, such as \"blue key\""}
	}
	return s.cfg.Store.RenameFactor(ctx, userID, id, name)
}

// NewRecoveryCodes makes the actor's recovery codes anew; the old ones are void.
// They are shown this once.
func (s *Service) NewRecoveryCodes(ctx context.Context, actor bailey.Actor) ([]secret.Value, error) {
	e, err := s.enrollerOf(ctx, actor)
	if err != nil {
		return nil, err
	}
	have, err := s.cfg.Store.Factors(ctx, e.user.ID)
	if err != nil {
		return nil, err
	}
	if len(have) == 0 {
		return nil, &bailey.Error{Kind: bailey.Conflict, Msg: "recovery codes stand in for a second factor, and you have none", Hint: "set up an authenticator app or a passkey first"}
	}
	codes, err := s.freshCodes(ctx, e)
	if err != nil {
		return nil, err
	}
	return codes, s.endOthers(ctx, actor)
}

// ResetFactors removes all second factors of somebody who lost them, ends their
// sessions and voids their tokens. Denied for whoever is no administrator, and
// for oneself; the owner is told.
func (s *Service) ResetFactors(ctx context.Context, actor bailey.Actor, name string) error {
	if err := s.allow(ctx, actor, policy.UserManage, audit.Target{Kind: "user", Name: clean(name, 64)}); err != nil {
		return err
	}
	if err := s.freshProof(actor); err != nil {
		return err
	}
	u, err := s.byName(ctx, name)
	if err != nil {
		return err
	}
	if u.ID == actor.UserID {
		return &bailey.Error{Kind: bailey.Denied, Msg: "your own second factors are removed on the account page", Hint: "or let another administrator reset them"}
	}
	event := audit.Event{
		Actor: audit.By(actor), Action: audit.FactorReset, Target: audit.Target{Kind: "user", ID: u.ID, Name: u.Name},
		Outcome: audit.Success, Reason: audit.ByAdmin,
	}
	err = s.recorded(ctx, event, func() error {
		return errors.Join(s.cfg.Store.DeleteFactors(ctx, u.ID), s.cfg.Store.DeletePending(ctx, u.ID), s.dropCredentials(ctx, u.ID))
	})
	if err == nil {
		s.tell(ctx, u.ID, "factors_reset", actor.Name)
	}
	return err
}
