package identity

import (
	"context"
	"errors"
	"slices"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/password"
	"github.com/baileyhq/bailey/internal/policy"
	"github.com/baileyhq/bailey/internal/secret"
)

// maxGroups is how many groups one user may be in.
const maxGroups = bailey.MaxGroups

// NewUser is an account to be made. Making it, and the methods below, are an
// administrator's (policy.UserManage or UserList).
type NewUser struct {
	Name     string
	Password secret.Value
	Hash     secret.Value // of a password, made by another program; in place of Password
	Role     bailey.Role  // empty means user
	Groups   []string

	// Service asks for a service account: it has no password, and Owner, the
	// name of a person, answers for it; empty means whoever makes it.
	Service bool
	Owner   string
}

// CreateUser makes an account. Denied for whoever is no administrator, Invalid
// when name, password, role or groups cannot be, Conflict when the name is
// taken.
func (s *Service) CreateUser(ctx context.Context, actor bailey.Actor, n NewUser) (bailey.User, error) {
	target := audit.Target{Kind: "user", Name: clean(n.Name, 64)}
	if err := s.allow(ctx, actor, policy.UserManage, target); err != nil {
		return bailey.User{}, err
	}
	if err := s.Fresh(actor); err != nil {
		return bailey.User{}, err
	}
	if n.Role == "" {
		n.Role = bailey.RoleUser
	}
	groups, err := checkGroups(n.Groups)
	for _, problem := range []error{checkNewName(n.Name), checkRole(n.Role), err} {
		if problem != nil {
			return bailey.User{}, problem
		}
	}
	event := audit.Event{
		Actor: audit.By(actor), Action: audit.UserCreate, Target: target,
		Outcome: audit.Success, Attrs: audit.Attrs{Role: string(n.Role)},
	}
	fresh := bailey.User{Name: n.Name, Role: n.Role, Groups: groups, Service: n.Service}
	imported := ""
	switch {
	case n.Service:
		event.Reason = audit.ServiceAccount
		fresh.OwnerID, err = s.answerable(ctx, actor, n)
	case !n.Hash.Empty():
		event.Action = audit.PasswordImport
		imported, event.Attrs.Rule, err = takeHash(n)
	default:
		err = s.checkPassword(n.Name, n.Password)
	}
	if err != nil {
		return bailey.User{}, err
	}
	if err := s.nameFree(ctx, n.Name); err != nil {
		return bailey.User{}, err
	}
	hash := imported // or none, which no password has
	if !n.Service && hash == "" {
		if hash, err = s.hash(ctx, n.Password); err != nil {
			return bailey.User{}, err
		}
	}
	var user bailey.User
	err = s.recorded(ctx, event, func() error {
		user, err = s.cfg.Store.CreateUser(ctx, fresh, hash)
		return err
	})
	if err != nil {
		return bailey.User{}, err
	}
	if imported != "" {
		s.classes.forget() // from now on every attempt does the work of this hash, too
	}
	return user, nil
}

// takeHash returns the hash that a new account brings along, and its kind. It
// is only looked at: nobody here has the password, and so nobody knows whether
// it is a good one. It is made anew when its owner signs in.
func takeHash(n NewUser) (hash, kind string, err error) {
	if !n.Password.Empty() {
		return "", "", &bailey.Error{Kind: bailey.Invalid, Msg: "a password and a hash were both given", Hint: "give one of them"}
	}
	h, err := password.Parse(n.Hash.Reveal())
	if err != nil {
		return "", "", &bailey.Error{Kind: bailey.Invalid, Msg: "the password hash cannot be taken over: " + err.Error(), Hint: "give the user a first password instead"}
	}
	return h.String(), string(h.Kind()), nil
}

// nameFree returns a Conflict when the name is taken. The store decides; this
// keeps the journal from saying what then did not happen.
func (s *Service) nameFree(ctx context.Context, name string) error {
	_, err := s.cfg.Store.UserByName(ctx, name)
	switch {
	case err == nil:
		return &bailey.Error{Kind: bailey.Conflict, Msg: "there is a user " + name + " already", Hint: "choose another name"}
	case bailey.KindOf(err) == bailey.NotFound:
		return nil
	}
	return err
}

// recorded makes the event durable, then does what it says. When that fails, a
// second event says so.
func (s *Service) recorded(ctx context.Context, e audit.Event, do func() error) error {
	if err := s.record(ctx, e); err != nil {
		return err
	}
	err := do()
	if err != nil {
		e.Outcome = audit.Failure
		s.note(ctx, e)
	}
	return err
}

func checkRole(r bailey.Role) error {
	if r.Valid() {
		return nil
	}
	return &bailey.Error{
		Kind: bailey.Invalid, Msg: "there is no role \"" + clean(string(r), 40) + "\"",
		Hint: "the roles are user, auditor and admin",
	}
}

// checkGroups returns the groups sorted and without repetitions, never nil.
func checkGroups(groups []string) ([]string, error) {
	if len(groups) > maxGroups {
		return nil, bailey.Errorf(bailey.Invalid, "a user can be in %d groups at most", maxGroups)
	}
	for _, g := range groups {
		if err := bailey.CheckName("group", g); err != nil {
			return nil, err
		}
	}
	out := append([]string{}, groups...)
	slices.Sort(out)
	return slices.Compact(out), nil
}

// Users lists the accounts.
func (s *Service) Users(ctx context.Context, actor bailey.Actor) ([]bailey.User, error) {
	if err := s.allow(ctx, actor, policy.UserList, audit.Target{Kind: "user"}); err != nil {
		return nil, err
	}
	return s.cfg.Store.Users(ctx)
}

// Me returns the actor's own account. Every token may ask who it is.
func (s *Service) Me(ctx context.Context, actor bailey.Actor) (bailey.User, error) {
	if !policy.Decide(actor, policy.AccountSelf, policy.Thing{OwnerID: actor.UserID}) {
		return bailey.User{}, errSignedOut()
	}
	return s.cfg.Store.UserByID(ctx, actor.UserID)
}

// UserUpdate holds what to change; nil fields stay.
type UserUpdate struct {
	Role     *bailey.Role
	Groups   *[]string
	Disabled *bool
	Password *secret.Value // an administrator's reset; ends the user's sessions and voids their tokens
}

// UpdateUser changes an account. Disabling ends all its sessions and voids its
// tokens at once. Denied for whoever is no administrator, NotFound without such
// a user, Invalid for what cannot be, Conflict when no enabled administrator
// would be left. An administrator's own password is not reset this way:
// [Service.ChangePassword] asks for the old one.
func (s *Service) UpdateUser(ctx context.Context, actor bailey.Actor, name string, u UserUpdate) (bailey.User, error) {
	if err := s.allow(ctx, actor, policy.UserManage, audit.Target{Kind: "user", Name: clean(name, 64)}); err != nil {
		return bailey.User{}, err
	}
	if err := s.Fresh(actor); err != nil {
		return bailey.User{}, err
	}
	old, err := s.byName(ctx, name)
	if err != nil {
		return bailey.User{}, err
	}
	next, err := s.changed(ctx, old, u)
	if err != nil {
		return bailey.User{}, err
	}
	hash := ""
	if u.Password != nil {
		if old.Service {
			return bailey.User{}, errNoPassword(old.Name)
		}
		if err := s.passwordElsewhere(ctx, old.ID); err != nil {
			return bailey.User{}, err
		}
		if old.ID == actor.UserID {
			return bailey.User{}, &bailey.Error{
				Kind: bailey.Denied, Msg: "your own password is not reset but changed: that takes the old one",
				Hint: "change it on the account page, or let another administrator reset it",
			}
		}
		if err := s.checkPassword(old.Name, *u.Password); err != nil {
			return bailey.User{}, err
		}
		if hash, err = s.hash(ctx, *u.Password); err != nil {
			return bailey.User{}, err
		}
	}
	if u.Disabled != nil {
		if err := s.decidedByHand(ctx, old.ID); err != nil {
			return bailey.User{}, err
		}
	}
	if err := s.applyUpdate(ctx, actor, old, next); err != nil {
		return bailey.User{}, err
	}
	if hash != "" {
		if err := s.resetPassword(ctx, actor, old, hash); err != nil {
			return bailey.User{}, err
		}
	}
	return next, nil
}

// byName finds an account for an administrator.
func (s *Service) byName(ctx context.Context, name string) (bailey.User, error) {
	if err := bailey.CheckName("user", name); err != nil {
		return bailey.User{}, err
	}
	u, err := s.cfg.Store.UserByName(ctx, name)
	if err != nil && bailey.KindOf(err) == bailey.NotFound {
		return u, &bailey.Error{Kind: bailey.NotFound, Msg: "there is no user " + name, Hint: "list the accounts to see their names"}
	}
	return u, err
}

// changed returns the account as it will be, or why it cannot be so.
func (s *Service) changed(ctx context.Context, old bailey.User, u UserUpdate) (bailey.User, error) {
	next := old
	if u.Role != nil {
		next.Role = *u.Role
		if err := checkRole(next.Role); err != nil {
			return next, err
		}
	}
	if u.Groups != nil {
		groups, err := checkGroups(*u.Groups)
		if err != nil {
			return next, err
		}
		next.Groups = groups
	}
	if u.Disabled != nil {
		next.Disabled = *u.Disabled
	}
	if isAdmin(old) && !isAdmin(next) {
		return next, s.keepAdmin(ctx, old.ID)
	}
	return next, nil
}

func isAdmin(u bailey.User) bool { return u.Role == bailey.RoleAdmin && !u.Disabled && !u.Service }

// keepAdmin returns a Conflict when the user is the last enabled administrator.
// The store decides, also between two who demote each other at once; this keeps
// the journal from saying what then did not happen.
func (s *Service) keepAdmin(ctx context.Context, id string) error {
	all, err := s.cfg.Store.Users(ctx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(all, func(u bailey.User) bool { return u.ID != id && isAdmin(u) }) {
		return nil
	}
	return &bailey.Error{
		Kind: bailey.Conflict, Msg: "this is the last enabled administrator", Hint: "make somebody else an administrator first",
	}
}

// applyUpdate records and stores role, groups and state, and makes them hold
// at once.
func (s *Service) applyUpdate(ctx context.Context, actor bailey.Actor, old, next bailey.User) error {
	if old.Role == next.Role && old.Disabled == next.Disabled && slices.Equal(old.Groups, next.Groups) {
		return nil
	}
	event := audit.Event{
		Actor: audit.By(actor), Action: audit.UserUpdate, Target: audit.Target{Kind: "user", ID: old.ID, Name: old.Name},
		Outcome: audit.Success, Attrs: audit.Attrs{Role: string(next.Role)},
	}
	if next.Disabled {
		event.Reason = audit.AccountDisabled
	}
	return s.recorded(ctx, event, func() error {
		if err := s.cfg.Store.UpdateUser(ctx, next); err != nil {
			return err
		}
		if !next.Disabled {
			s.live.forgetUser(old.ID) // the next request sees the new rights
			return nil
		}
		return s.dropCredentials(ctx, old.ID)
	})
}

// dropCredentials ends all sessions of the user and voids their tokens and SSH
// certificates. SSH keys stay: those of a disabled account do not sign in. Memory
// forgets them last, also when the store fails half-way: what was read from it
// meanwhile goes too. Tokens go last, because the others make tokens: see
// issueToken and collect, which look again after they have made one.
func (s *Service) dropCredentials(ctx context.Context, userID string) error {
	defer s.endUser(userID, "")
	if err := s.cfg.Store.DeletePending(ctx, userID); err != nil {
		return err
	}
	if err := s.cfg.Store.DeleteSessions(ctx, userID, ""); err != nil {
		return err
	}
	if err := s.cfg.Store.DeleteDevices(ctx, userID); err != nil {
		return err
	}
	if _, err := s.cfg.Store.RevokeSSHCertificates(ctx, userID, 0, "", s.cfg.Now()); err != nil {
		return err
	}
	tokens, err := s.cfg.Store.Tokens(ctx, userID)
	if err != nil {
		return err
	}
	for _, t := range tokens {
		if err := s.cfg.Store.DeleteToken(ctx, userID, t.ID); err != nil && bailey.KindOf(err) != bailey.NotFound {
			return err
		}
	}
	return nil
}

// resetPassword sets an administrator's choice. Whoever knew the old password
// may have made tokens and added SSH keys with it, so those go too.
func (s *Service) resetPassword(ctx context.Context, actor bailey.Actor, u bailey.User, hash string) error {
	event := audit.Event{
		Actor: audit.By(actor), Action: audit.PasswordChange, Target: audit.Target{Kind: "user", ID: u.ID, Name: u.Name},
		Outcome: audit.Success, Reason: audit.ByAdmin,
	}
	return s.recorded(ctx, event, func() error {
		if _, err := s.swapHash(ctx, u.ID, "", hash); err != nil {
			return err
		}
		s.tell(ctx, u.ID, "password_reset", actor.Name)
		err := s.cfg.Store.DeleteSSHKeys(ctx, u.ID)
		return errors.Join(err, s.dropCredentials(ctx, u.ID))
	})
}

// DeleteUser removes an account without workspaces and volumes. Denied for
// whoever is no administrator, NotFound without such a user, Conflict while it
// has workspaces or volumes or is the last enabled administrator.
func (s *Service) DeleteUser(ctx context.Context, actor bailey.Actor, name string) error {
	if err := s.allow(ctx, actor, policy.UserManage, audit.Target{Kind: "user", Name: clean(name, 64)}); err != nil {
		return err
	}
	if err := s.Fresh(actor); err != nil {
		return err
	}
	u, err := s.byName(ctx, name)
	if err != nil {
		return err
	}
	if isAdmin(u) {
		if err := s.keepAdmin(ctx, u.ID); err != nil {
			return err
		}
	}
	event := audit.Event{
		Actor: audit.By(actor), Action: audit.UserDelete, Target: audit.Target{Kind: "user", ID: u.ID, Name: u.Name}, Outcome: audit.Success,
	}
	return s.recorded(ctx, event, func() error {
		if err := s.cfg.Store.DeleteUser(ctx, u.ID); err != nil {
			return err
		}
		s.endUser(u.ID, "")
		return nil
	})
}

// ChangePassword sets the actor's own password after checking the old one, and
// ends their other sessions. Denied when the old one is wrong, TooMany when
// that was tried too often (it counts like signing in), Invalid when the new
// one cannot be. SSH certificates end too; API tokens and SSH keys stay: their
// owner sees and removes them.
func (s *Service) ChangePassword(ctx context.Context, actor bailey.Actor, old, fresh secret.Value) error {
	userID, err := person(actor)
	if err != nil {
		return err
	}
	user, err := s.cfg.Store.UserByID(ctx, userID)
	if err != nil {
		return err
	}
	if user.Service {
		return errNoPassword(user.Name)
	}
	if err := s.passwordElsewhere(ctx, user.ID); err != nil {
		return err
	}
	if err := s.checkPassword(user.Name, fresh); err != nil {
		return err
	}
	stored, err := s.checkOld(ctx, actor, user, old)
	if err != nil {
		return err
	}
	if old.Equal(fresh) {
		return &bailey.Error{Kind: bailey.Invalid, Msg: "the new password is the old one", Hint: "choose another one"}
	}
	hash, err := s.hash(ctx, fresh)
	if err != nil {
		return err
	}
	event := audit.Event{
		Actor: audit.By(actor), Action: audit.PasswordChange, Target: audit.Target{Kind: "user", ID: user.ID, Name: user.Name},
		Outcome: audit.Success, Reason: audit.ByUser,
	}
	return s.recorded(ctx, event, func() error {
		swapped, err := s.swapHash(ctx, user.ID, stored, hash)
		if err != nil {
			return err
		}
		if !swapped {
			return &bailey.Error{Kind: bailey.Conflict, Msg: "the password was changed elsewhere just now", Hint: "sign in again"}
		}
		defer s.endUser(user.ID, actor.Session)
		_, err = s.cfg.Store.RevokeSSHCertificates(ctx, user.ID, 0, "", s.cfg.Now())
		return errors.Join(err, s.cfg.Store.DeleteSessions(ctx, user.ID, actor.Session))
	})
}

// checkOld checks the actor's present password within the limits of signing
// in: a stolen cookie is no place to guess from. It returns the stored hash.
func (s *Service) checkOld(ctx context.Context, actor bailey.Actor, user bailey.User, old secret.Value) (string, error) {
	a := newAttempt(user.Name, actor.IP)
	v := s.cfg.Guard.Check(a.prefix, a.key)
	if !v.Allowed {
		return "", s.refused(ctx, a, v)
	}
	stored, err := s.cfg.Store.PasswordHash(ctx, user.ID)
	right := false
	if err == nil {
		right, err = s.matches(ctx, stored, old)
	}
	if err != nil {
		s.cfg.Guard.Release(a.prefix, a.key)
		return "", err
	}
	if right {
		s.cfg.Guard.Succeed(a.prefix, a.key)
		return stored, nil
	}
	s.cfg.Guard.Fail(a.prefix, a.key, true)
	err = s.record(ctx, audit.Event{
		Actor: audit.By(actor), Action: audit.PasswordChange, Target: audit.Target{Kind: "user", ID: user.ID, Name: user.Name},
		Outcome: audit.Failure, Reason: audit.BadCredentials,
	})
	if err != nil {
		return "", err
	}
	return "", &bailey.Error{Kind: bailey.Denied, Msg: "the old password is wrong", Hint: "check it and try again"}
}
