package identity

import (
	"cmp"
	"context"
	"slices"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/policy"
)

// A Group is a name that accounts share. It exists while somebody is in it or
// manages it.
type Group struct {
	Name     string
	Members  []string // names
	Managers []string
}

// Groups lists the groups that the actor may look into: all for administrators
// and auditors, those they manage for others.
func (s *Service) Groups(ctx context.Context, actor bailey.Actor) ([]Group, error) {
	all, err := s.groups(ctx)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(g Group) bool {
		return !policy.Decide(actor, policy.GroupView, policy.Thing{Group: g.Name})
	}), nil
}

func (s *Service) groups(ctx context.Context) ([]Group, error) {
	users, err := s.cfg.Store.Users(ctx)
	if err != nil {
		return nil, err
	}
	byName := map[string]*Group{}
	group := func(name string) *Group {
		if byName[name] == nil {
			byName[name] = &Group{Name: name, Members: []string{}, Managers: []string{}}
		}
		return byName[name]
	}
	for _, u := range users {
		for _, g := range u.Groups {
			group(g).Members = append(group(g).Members, u.Name)
		}
		for _, g := range u.Manages {
			group(g).Managers = append(group(g).Managers, u.Name)
		}
	}
	out := make([]Group, 0, len(byName))
	for _, g := range byName {
		out = append(out, *g)
	}
	slices.SortFunc(out, func(a, b Group) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// Group returns one group. NotFound also for those who may not look into it.
func (s *Service) Group(ctx context.Context, actor bailey.Actor, name string) (Group, error) {
	all, err := s.Groups(ctx, actor)
	if err != nil {
		return Group{}, err
	}
	if i := slices.IndexFunc(all, func(g Group) bool { return g.Name == name }); i >= 0 {
		return all[i], nil
	}
	return Group{}, errNoGroup()
}

func errNoGroup() error {
	return &bailey.Error{
		Kind: bailey.NotFound, Msg: "there is no such group, or it is not yours to look into",
		Hint: "a group begins with its first member, whom an administrator adds",
	}
}

// ChangeGroup makes a user a member of a group or its manager, or ends that. It
// holds from the next request on. Administrators may do all of it, a group's
// managers add and remove members. NotFound for a group that is not the actor's
// business, and for a user that is not there.
func (s *Service) ChangeGroup(ctx context.Context, actor bailey.Actor, group, name string, c bailey.GroupChange) (bailey.User, error) {
	if err := bailey.CheckName("group", group); err != nil {
		return bailey.User{}, err
	}
	action := policy.GroupManage
	if c == bailey.GroupAppoint || c == bailey.GroupDismiss {
		action = policy.GroupAppoint
	}
	if err := s.allowGroup(ctx, actor, action, group); err != nil {
		return bailey.User{}, err
	}
	if err := s.Fresh(actor); err != nil {
		return bailey.User{}, err
	}
	u, err := s.byName(ctx, name)
	if err != nil {
		return bailey.User{}, err
	}
	next := c.Apply(u, group)
	if slices.Equal(next.Groups, u.Groups) && slices.Equal(next.Manages, u.Manages) {
		return u, nil
	}
	if len(next.Groups) > maxGroups || len(next.Manages) > maxGroups {
		return u, bailey.Errorf(bailey.Conflict, "a user can be in %d groups at most, and manage as many", maxGroups)
	}
	if c == bailey.GroupLeave && len(next.Manages) != len(u.Manages) && !policy.Decide(actor, policy.GroupAppoint, policy.Thing{Group: group}) {
		return u, &bailey.Error{
			Kind: bailey.Denied, Msg: name + " manages the group, and only an administrator ends that", Hint: "ask an administrator",
		}
	}
	event := audit.Event{
		Actor: audit.By(actor), Action: audit.GroupChange, Target: audit.Target{Kind: "user", ID: u.ID, Name: u.Name},
		Outcome: audit.Success, Attrs: audit.Attrs{Group: group},
		Reason: map[bailey.GroupChange]audit.Reason{
			bailey.GroupJoin: audit.Joined, bailey.GroupLeave: audit.Left,
			bailey.GroupAppoint: audit.Appointed, bailey.GroupDismiss: audit.Dismissed,
		}[c],
	}
	err = s.recorded(ctx, event, func() error {
		u, err = s.cfg.Store.ChangeGroup(ctx, u.ID, group, c)
		s.live.forgetUser(u.ID)
		return err
	})
	return u, err
}

// allowGroup is allow for one group. Those who may not look into it learn
// nothing of it.
func (s *Service) allowGroup(ctx context.Context, actor bailey.Actor, action policy.Action, group string) error {
	thing := policy.Thing{Group: group}
	if policy.Decide(actor, action, thing) {
		return nil
	}
	s.note(ctx, audit.Event{
		Actor: audit.By(actor), Action: audit.AccessDenied, Target: audit.Target{Kind: "group", Name: group}, Outcome: audit.Refused, Reason: audit.NotAllowed,
	})
	if policy.Decide(actor, policy.GroupView, thing) {
		return &bailey.Error{Kind: bailey.Denied, Msg: "you may not do this to the group " + group, Hint: "ask an administrator"}
	}
	return errNoGroup()
}
