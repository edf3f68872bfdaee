package store

import (
	"context"

	"github.com/baileyhq/bailey"
)

// The numeric uids that are given to users, first and last.
const (
	firstUID = 20000
	lastUID  = 59999
)

const userColumns = `SELECT u.id, u.name, u.role, u.member_of, u.uid, u.disabled, u.created_at` + moreOfUser + ` FROM users u `

// moreOfUser are the columns that came later.
const moreOfUser = `, u.manages, u.service, u.owner_id`

// userRow is a row of userColumns on its way to a bailey.User.
type userRow struct {
	bailey.User
	memberOf string
	created  int64
	disabled int64
	manages  string
	service  int64
}

func (u *userRow) dest() []any {
	return []any{&u.ID, &u.Name, (*string)(&u.Role), &u.memberOf, &u.UID, &u.disabled, &u.created, &u.manages, &u.service, &u.OwnerID}
}

func (u *userRow) user() (bailey.User, error) {
	groups, err := fromJSON[[]string](u.memberOf)
	if err != nil {
		return u.User, err
	}
	u.Groups, u.Disabled, u.CreatedAt, u.Service = groups, u.disabled != 0, fromMicros(u.created), u.service != 0
	u.Manages, err = noneIsNil[string](u.manages)
	return u.User, err
}

// noneIsNil reads a stored list that is nil when it is empty.
func noneIsNil[T any](text string) ([]T, error) {
	if text == "[]" {
		return nil, nil
	}
	return fromJSON[[]T](text)
}

func scanUser(row scanner) (bailey.User, error) {
	var u userRow
	if err := row.Scan(u.dest()...); err != nil {
		return bailey.User{}, err
	}
	return u.user()
}

// CreateUser stores u with a uid from 20000 to 59999 that was never given out
// before, and returns it with ID, UID and CreatedAt set. Conflict when the name
// is taken, Invalid when name or role cannot be, OverQuota when every uid has
// been given out.
func (s *Store) CreateUser(ctx context.Context, u bailey.User, passwordHash string) (bailey.User, error) {
	if err := checkUser(u); err != nil {
		return bailey.User{}, err
	}
	var made bailey.User
	err := s.decide(ctx, "create user", func(ctx context.Context, r runner) (err error) {
		made, err = s.insertUser(ctx, r, u, passwordHash)
		return err
	})
	if err != nil {
		return bailey.User{}, err
	}
	return made, nil
}

func checkUser(u bailey.User) error {
	if !u.Role.Valid() {
		return bailey.Errorf(bailey.Invalid, "there is no role %q", clean(string(u.Role), 40))
	}
	return bailey.CheckName("user", u.Name)
}

// insertUser stores a new user within a transaction. The uid comes from a
// counter that only grows, so the files of somebody who is gone never belong to
// somebody who is new.
func (s *Store) insertUser(ctx context.Context, r runner, u bailey.User, passwordHash string) (bailey.User, error) {
	taken, err := one(ctx, r, scanInt, `SELECT COUNT(*) FROM users WHERE name = ?`, u.Name)
	if err != nil {
		return u, err
	}
	if taken > 0 {
		return u, &bailey.Error{
			Kind: bailey.Conflict,
			Msg:  "there is a user " + u.Name + " already",
			Hint: "choose another name",
		}
	}
	uid, err := one(ctx, r, scanInt, `UPDATE counters SET value = value + 1 WHERE name = 'uid' RETURNING value - 1`)
	if err != nil {
		return u, err
	}
	if uid < firstUID || uid > lastUID {
		return u, &bailey.Error{
			Kind: bailey.OverQuota,
			Msg:  "every numeric uid from 20000 to 59999 has been given out",
			Hint: "uids are never given out twice; disable accounts instead of deleting them, or set up a second installation",
		}
	}
	groups, err := toJSON(u.Groups)
	if err != nil {
		return u, err
	}
	if u.Groups == nil {
		u.Groups = []string{}
	}
	u.ID, u.UID, u.CreatedAt = bailey.NewID(), int(uid), s.clock()
	_, err = r.exec(ctx, `INSERT INTO users (id, name, role, member_of, uid, disabled, password_hash, password_at, created_at, service, owner_id)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		u.ID, u.Name, u.Role, groups, u.UID, u.Disabled, passwordHash, u.CreatedAt, u.CreatedAt, u.Service, u.OwnerID)
	return u, err
}

// UserByID returns the user; NotFound when there is none.
func (s *Store) UserByID(ctx context.Context, id string) (bailey.User, error) {
	u, err := one(ctx, s.reads(), scanUser, userColumns+`WHERE u.id = ?`, id)
	return u, fail("user by id", found("user", err))
}

// UserByName returns the user; NotFound when there is none.
func (s *Store) UserByName(ctx context.Context, name string) (bailey.User, error) {
	u, err := one(ctx, s.reads(), scanUser, userColumns+`WHERE u.name = ?`, name)
	return u, fail("user by name", found("user", err))
}

// Users lists all users by name.
func (s *Store) Users(ctx context.Context) ([]bailey.User, error) {
	all, err := list(ctx, s.reads(), scanUser, userColumns+`ORDER BY u.name`)
	return all, fail("list users", err)
}

// CountUsers returns how many users there are, disabled ones among them.
func (s *Store) CountUsers(ctx context.Context) (int, error) {
	n, err := one(ctx, s.reads(), scanInt, `SELECT COUNT(*) FROM users`)
	return int(n), fail("count users", err)
}

// ChangeGroup makes the user a member of a group or its manager, or ends that,
// and returns the user as they are then. NotFound when there is no such user,
// Conflict when one would be in more than 64 groups or manage as many.
func (s *Store) ChangeGroup(ctx context.Context, userID, group string, c bailey.GroupChange) (bailey.User, error) {
	var u bailey.User
	err := s.decide(ctx, "change group", func(ctx context.Context, r runner) (err error) {
		if u, err = one(ctx, r, scanUser, userColumns+`WHERE u.id = ?`, userID); err != nil {
			return found("user", err)
		}
		u = c.Apply(u, group)
		if len(u.Groups) > bailey.MaxGroups || len(u.Manages) > bailey.MaxGroups {
			return bailey.Errorf(bailey.Conflict, "a user can be in %d groups at most, and manage as many", bailey.MaxGroups)
		}
		groups, err := toJSON(u.Groups)
		if err != nil {
			return err
		}
		manages, err := toJSON(u.Manages)
		if err != nil {
			return err
		}
		_, err = r.exec(ctx, `UPDATE users SET member_of = ?, manages = ? WHERE id = ?`, groups, manages, userID)
		return err
	})
	return u, err
}

// UpdateUser stores Role, Groups and Disabled of the user with u.ID. NotFound
// when there is none; Conflict when no enabled administrator would be left.
func (s *Store) UpdateUser(ctx context.Context, u bailey.User) error {
	if !u.Role.Valid() {
		return bailey.Errorf(bailey.Invalid, "there is no role %q", clean(string(u.Role), 40))
	}
	groups, err := toJSON(u.Groups)
	if err != nil {
		return fail("update user", err)
	}
	return s.decide(ctx, "update user", func(ctx context.Context, r runner) error {
		old, err := one(ctx, r, scanUser, userColumns+`WHERE u.id = ?`, u.ID)
		if err != nil {
			return found("user", err)
		}
		if isAdmin(old) && !isAdmin(u) {
			if err := keepAdmin(ctx, r, old.ID); err != nil {
				return err
			}
		}
		_, err = r.exec(ctx, `UPDATE users SET role = ?, member_of = ?, disabled = ? WHERE id = ?`,
			u.Role, groups, u.Disabled, u.ID)
		return err
	})
}

// DeleteUser removes the user with their sessions and tokens. Their uid stays
// burnt. NotFound when there is none; Conflict while there are workspaces or
// volumes of theirs, or when no enabled administrator would be left.
func (s *Store) DeleteUser(ctx context.Context, id string) error {
	return s.decide(ctx, "delete user", func(ctx context.Context, r runner) error {
		u, err := one(ctx, r, scanUser, userColumns+`WHERE u.id = ?`, id)
		if err != nil {
			return found("user", err)
		}
		if isAdmin(u) {
			if err := keepAdmin(ctx, r, id); err != nil {
				return err
			}
		}
		workspaces, err := one(ctx, r, scanInt, `SELECT COUNT(*) FROM workspaces WHERE owner_id = ?`, id)
		if err != nil {
			return err
		}
		volumes, err := one(ctx, r, scanInt, `SELECT COUNT(*) FROM volumes WHERE owner_id = ?`, id)
		if err != nil {
			return err
		}
		if workspaces > 0 || volumes > 0 {
			return &bailey.Error{
				Kind: bailey.Conflict,
				Msg:  "user " + u.Name + " still has " + count(workspaces, "workspace") + " and " + count(volumes, "volume"),
				Hint: "delete those first, or disable the account",
			}
		}
		if _, err = r.exec(ctx, `DELETE FROM devices WHERE user_id = ?`, id); err != nil {
			return err
		}
		_, err = r.exec(ctx, `DELETE FROM users WHERE id = ?`, id)
		return err
	})
}

// isAdmin reports whether the user is one of those of whom one must be left: a
// service account cannot sign in and repair anything.
func isAdmin(u bailey.User) bool { return u.Role == bailey.RoleAdmin && !u.Disabled && !u.Service }

// keepAdmin refuses when the user is the last enabled administrator. It runs
// in the transaction that takes the role away, and no other decide runs beside
// that: two administrators who demote each other cannot both succeed.
func keepAdmin(ctx context.Context, r runner, id string) error {
	others, err := one(ctx, r, scanInt,
		`SELECT COUNT(*) FROM users WHERE role = 'admin' AND disabled = 0 AND service = 0 AND id <> ?`, id)
	if err == nil && others == 0 {
		err = &bailey.Error{
			Kind: bailey.Conflict,
			Msg:  "this is the last enabled administrator",
			Hint: "make somebody else an administrator first",
		}
	}
	return err
}

// PasswordHash returns the stored hash; NotFound when there is no such user.
func (s *Store) PasswordHash(ctx context.Context, userID string) (string, error) {
	hash, err := one(ctx, s.reads(), scanText, `SELECT password_hash FROM users WHERE id = ?`, userID)
	return hash, fail("password hash", found("user", err))
}

// PasswordHashesUnlike returns every stored hash that does not begin with prefix. Service
// accounts have none.
func (s *Store) PasswordHashesUnlike(ctx context.Context, prefix string) ([]string, error) {
	all, err := list(ctx, s.reads(), scanText, `SELECT DISTINCT password_hash FROM users WHERE substr(password_hash, 1, ?) <> ? AND service = 0`, len(prefix), prefix)
	return all, fail("list password hashes", err)
}

// SetPasswordHash stores the hash of a password that was set now; NotFound when
// there is no such user, or it is a service account, which has none.
func (s *Store) SetPasswordHash(ctx context.Context, userID, hash string) error {
	return s.update(ctx, "set password hash", "user", `UPDATE users SET password_hash = ?, password_at = ? WHERE id = ? AND service = 0`, hash, s.clock(), userID)
}
