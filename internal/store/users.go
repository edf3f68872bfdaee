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

const userColumns = `SELECT u.id, u.name, u.role, u.member_of, u.uid, u.disabled, u.created_at FROM users u `

// userRow is a row of userColumns on its way to a bailey.User.
type userRow struct {
	bailey.User
	memberOf string
	created  int64
	disabled int64
}

func (u *userRow) dest() []any {
	return []any{&u.ID, &u.Name, (*string)(&u.Role), &u.memberOf, &u.UID, &u.disabled, &u.created}
}

func (u *userRow) user() (bailey.User, error) {
	groups, err := fromJSON[[]string](u.memberOf)
	u.Groups, u.Disabled, u.CreatedAt = groups, u.disabled != 0, fromMicros(u.created)
	return u.User, err
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
	_, err = r.exec(ctx, `INSERT INTO users (id, name, role, member_of, uid, disabled, password_hash, password_at, created_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, u.ID, u.Name, u.Role, groups, u.UID, u.Disabled, passwordHash, u.CreatedAt, u.CreatedAt)
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
		_, err = r.exec(ctx, `DELETE FROM users WHERE id = ?`, id)
		return err
	})
}

func isAdmin(u bailey.User) bool { return u.Role == bailey.RoleAdmin && !u.Disabled }

// keepAdmin refuses when the user is the last enabled administrator. It runs
// in the transaction that takes the role away, and no other decide runs beside
// that: two administrators who demote each other cannot both succeed.
func keepAdmin(ctx context.Context, r runner, id string) error {
	others, err := one(ctx, r, scanInt,
		`SELECT COUNT(*) FROM users WHERE role = 'admin' AND disabled = 0 AND id <> ?`, id)
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

// PasswordHashesUnlike returns every stored hash that does not begin with prefix.
func (s *Store) PasswordHashesUnlike(ctx context.Context, prefix string) ([]string, error) {
	all, err := list(ctx, s.reads(), scanText, `SELECT DISTINCT password_hash FROM users WHERE substr(password_hash, 1, ?) <> ?`, len(prefix), prefix)
	return all, fail("list password hashes", err)
}

// SetPasswordHash stores the hash of a password that was set now; NotFound when there is no such user.
func (s *Store) SetPasswordHash(ctx context.Context, userID, hash string) error {
	return s.update(ctx, "set password hash", "user", `UPDATE users SET password_hash = ?, password_at = ? WHERE id = ?`, hash, s.clock(), userID)
}
