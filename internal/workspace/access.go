package workspace

import (
	"context"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/policy"
)

// find returns the workspace if the actor may do action to it.
func (s *Service) find(ctx context.Context, actor bailey.Actor, action policy.Action, id string) (bailey.Workspace, error) {
	ws, err := s.cfg.Store.Workspace(ctx, id)
	if err != nil {
		return bailey.Workspace{}, hidden(err, noWorkspace())
	}
	if err := s.allow(ctx, actor, action, ws); err != nil {
		return bailey.Workspace{}, err
	}
	if action == policy.WorkspaceView {
		s.seen(ctx, actor, ws)
	}
	return ws, nil
}

// seen records that somebody who is not its owner looked at a workspace, so
// that its owner can read it. Of a page that asks every second it records one
// look in ten minutes. The list of everybody's workspaces is no look at one.
func (s *Service) seen(ctx context.Context, actor bailey.Actor, ws bailey.Workspace) {
	if actor.UserID == ws.OwnerID || actor.UserID == "" {
		return
	}
	if !s.looks.worth(actor.UserID+" "+ws.ID, s.elapsed(), lookEach) {
		return
	}
	s.record(ctx, audit.Event{
		Actor: audit.By(actor), Action: audit.MetadataView, Outcome: audit.Success,
		Target: audit.Target{Kind: "workspace", ID: ws.ID, Name: ws.Name}, Attrs: audit.Attrs{Owner: ws.OwnerID, Class: ws.Class},
	})
}

// Thing is a workspace as policy sees it. Whose groups its owner is in is asked
// for only when it can matter.
func (s *Service) Thing(ctx context.Context, actor bailey.Actor, ws bailey.Workspace) policy.Thing {
	t := policy.Thing{OwnerID: ws.OwnerID, WorkspaceID: ws.ID}
	if len(actor.Manages) > 0 && ws.OwnerID != actor.UserID {
		if owner, err := s.cfg.Store.UserByID(ctx, ws.OwnerID); err == nil { // otherwise in no group, in doubt
			t.OwnerGroups = owner.Groups
		}
	}
	return t
}

// allow returns nil if the actor may do action to ws. Those who may not even
// see it get the answer for one that is not there.
func (s *Service) allow(ctx context.Context, actor bailey.Actor, action policy.Action, ws bailey.Workspace) error {
	thing := s.Thing(ctx, actor, ws)
	if policy.Decide(actor, action, thing) {
		return nil
	}
	s.denied(ctx, actor, audit.Target{Kind: "workspace", ID: ws.ID, Name: ws.Name})
	if policy.Decide(actor, policy.WorkspaceView, thing) {
		return &bailey.Error{
			Kind: bailey.Denied,
			Msg:  "only its owner may do this to a workspace",
			Hint: "ask " + ws.Owner,
		}
	}
	return noWorkspace()
}

// fleet returns nil if the actor may see what belongs to others.
func (s *Service) fleet(ctx context.Context, actor bailey.Actor, what string) error {
	if policy.Decide(actor, policy.FleetView, policy.Thing{}) {
		return nil
	}
	s.denied(ctx, actor, audit.Target{Kind: "server", Name: what})
	return &bailey.Error{Kind: bailey.Denied, Msg: "only administrators and auditors may see everybody's " + what}
}

// denied records a refusal. The refusal stands whether or not it can be
// recorded. Somebody who knocks on the same door all the time is recorded once
// in a while, so that knocking cannot fill the journal's disk.
func (s *Service) denied(ctx context.Context, actor bailey.Actor, target audit.Target) {
	if !s.denials.worth(actor.UserID+" "+target.Kind+" "+target.ID+" "+target.Name, s.elapsed(), denialEach) {
		return
	}
	s.record(ctx, audit.Event{
		Actor: audit.By(actor), Action: audit.AccessDenied, Target: target,
		Outcome: audit.Refused, Reason: audit.NotAllowed,
	})
}

// record writes an event whose effect does not depend on it: something that
// was refused, or that has happened by itself.
func (s *Service) record(ctx context.Context, e audit.Event) {
	ctx, cancel := settle(ctx)
	defer cancel()
	if err := s.cfg.Audit.Append(ctx, e); err != nil {
		s.log.ErrorContext(ctx, "event not in the audit journal", slog.String("action", string(e.Action)),
			slog.String("target", e.Target.ID), slog.Any("error", err))
	}
}

// denials remembers, in bounded memory, which refusals were recorded lately.
type denials struct {
	mu   sync.Mutex // guards last
	last map[string]time.Duration
}

const (
	lookEach   = 10 * time.Minute
	denialEach = 10 * time.Second
	maxDenials = 4096
)

// worth reports whether what is recorded once in each is to be recorded now.
func (d *denials) worth(key string, now, each time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if last, ok := d.last[key]; ok && now-last < each {
		return false
	}
	if d.last == nil || len(d.last) >= maxDenials {
		d.last = map[string]time.Duration{}
	}
	d.last[key] = now
	return true
}

// idRE is what bailey.NewID makes. It begins with a digit, names with a letter.
var idRE = regexp.MustCompile(`^[0-7][0-9a-hjkmnp-tv-z]{25}$`)

// Get returns the workspace by id, by slug, or by name: the actor's own, or
// "owner/name" ("owner.name") for those who may see others'.
func (s *Service) Get(ctx context.Context, actor bailey.Actor, ref string) (bailey.Workspace, error) {
	if i := strings.IndexAny(ref, "/."); i >= 0 {
		return s.getOf(ctx, actor, ref[:i], ref[i+1:])
	}
	if idRE.MatchString(ref) {
		return s.find(ctx, actor, policy.WorkspaceView, ref)
	}
	// One's own names come first, so that nobody can take a name away from
	// somebody by being given it as a slug.
	ws, err := s.cfg.Store.WorkspaceByName(ctx, actor.UserID, ref)
	if bailey.KindOf(err) == bailey.NotFound {
		ws, err = s.cfg.Store.WorkspaceBySlug(ctx, ref)
	}
	if err != nil {
		return bailey.Workspace{}, hidden(err, noWorkspace())
	}
	if err := s.allow(ctx, actor, policy.WorkspaceView, ws); err != nil {
		return bailey.Workspace{}, err
	}
	s.seen(ctx, actor, ws)
	return ws, nil
}

// getOf returns the workspace of an owner by both names.
func (s *Service) getOf(ctx context.Context, actor bailey.Actor, owner, name string) (bailey.Workspace, error) {
	ownerID := actor.UserID
	if owner != actor.Name {
		if !policy.Decide(actor, policy.FleetView, policy.Thing{}) && len(actor.Manages) == 0 {
			return bailey.Workspace{}, noWorkspace()
		}
		ownerID = ""
	}
	all, err := s.cfg.Store.Workspaces(ctx, ownerID)
	if err != nil {
		return bailey.Workspace{}, err
	}
	for _, ws := range all {
		if ws.Owner == owner && ws.Name == name {
			if err := s.allow(ctx, actor, policy.WorkspaceView, ws); err != nil {
				return bailey.Workspace{}, err
			}
			s.seen(ctx, actor, ws)
			return ws, nil
		}
	}
	return bailey.Workspace{}, noWorkspace()
}

// List returns the actor's workspaces, or everybody's when all is set and
// policy allows it. For whoever manages groups, everybody is their members.
func (s *Service) List(ctx context.Context, actor bailey.Actor, all bool) ([]bailey.Workspace, error) {
	ownerID := actor.UserID
	if all {
		if len(actor.Manages) == 0 || policy.Decide(actor, policy.FleetView, policy.Thing{}) {
			if err := s.fleet(ctx, actor, "workspaces"); err != nil {
				return nil, err
			}
		}
		ownerID = ""
	} else if ownerID == "" {
		return []bailey.Workspace{}, nil // an empty owner would mean everybody
	}
	list, err := s.cfg.Store.Workspaces(ctx, ownerID)
	if err != nil {
		return nil, err
	}
	groups := map[string][]string{} // by owner
	return slices.DeleteFunc(list, func(ws bailey.Workspace) bool {
		t := policy.Thing{OwnerID: ws.OwnerID, WorkspaceID: ws.ID}
		if policy.Decide(actor, policy.WorkspaceView, t) {
			return false
		}
		if _, ok := groups[ws.OwnerID]; !ok {
			groups[ws.OwnerID] = s.Thing(ctx, actor, ws).OwnerGroups
		}
		t.OwnerGroups = groups[ws.OwnerID]
		return !policy.Decide(actor, policy.WorkspaceView, t)
	}), nil
}

// Classes returns the classes the actor may use, in the order configured.
func (s *Service) Classes(_ context.Context, actor bailey.Actor) ([]bailey.Class, error) {
	mine := []bailey.Class{}
	for _, class := range s.cfg.Settings.Classes() {
		if policy.Decide(actor, policy.ClassUse, policy.Thing{Class: &class}) {
			mine = append(mine, class)
		}
	}
	return mine, nil
}

// classFor returns a class that the actor may use. One that is closed to them
// is as good as not there.
func (s *Service) classFor(ctx context.Context, actor bailey.Actor, name string) (bailey.Class, error) {
	mine, err := s.Classes(ctx, actor)
	if err != nil {
		return bailey.Class{}, err
	}
	var names []string
	for _, class := range mine {
		if class.Name == name || name == "" {
			return class, nil
		}
		names = append(names, class.Name)
	}
	if len(names) == 0 {
		return bailey.Class{}, &bailey.Error{
			Kind: bailey.NotFound,
			Msg:  "there is no class that you may use",
			Hint: "an administrator adds one to the configuration, or you to a group",
		}
	}
	if err := bailey.CheckName("class", name); err != nil {
		return bailey.Class{}, err
	}
	return bailey.Class{}, &bailey.Error{
		Kind: bailey.NotFound,
		Msg:  "there is no class " + name + " that you may use",
		Hint: "choose one of: " + strings.Join(names, ", "),
	}
}

// GPUs returns every known card and the leases on them. Everybody may see how
// many are free. Whose the others are is for those who may see the fleet: for
// anybody else, a lease that is not their own has the card and the time alone.
func (s *Service) GPUs(ctx context.Context, actor bailey.Actor) ([]bailey.GPU, []bailey.Lease, error) {
	if !policy.Decide(actor, policy.WorkspaceView, policy.Thing{OwnerID: actor.UserID}) {
		return nil, nil, s.fleet(ctx, actor, "GPUs") // refused, and recorded
	}
	gpus, err := s.cfg.GPUs.Inventory(ctx)
	if err != nil {
		return nil, nil, err
	}
	leases, err := s.cfg.Store.Leases(ctx)
	if err != nil {
		return nil, nil, err
	}
	if !policy.Decide(actor, policy.FleetView, policy.Thing{}) {
		for i, l := range leases {
			if l.OwnerID != actor.UserID {
				leases[i] = bailey.Lease{GPU: l.GPU, Since: l.Since}
			}
		}
	}
	return gpus, leases, nil
}

// Logs returns the newest tail lines of the container's output (at most 1 MiB).
// Of a run that is over, the last words that were kept. Conflict when there
// are none.
func (s *Service) Logs(ctx context.Context, actor bailey.Actor, id string, tail int) ([]byte, error) {
	ws, err := s.find(ctx, actor, policy.WorkspaceLogs, id)
	if err != nil {
		return nil, err
	}
	const most = 10_000
	if tail <= 0 || tail > most {
		tail = most
	}
	if ws.RunID != "" {
		run, err := s.cfg.Store.Run(ctx, ws.RunID)
		if err != nil {
			return nil, hidden(err, noWorkspace())
		}
		if run.EndedAt.IsZero() && run.ContainerID != "" {
			out, err := s.cfg.Engine.Logs(ctx, run.ContainerID, tail, 1<<20)
			if err != nil {
				return nil, fromEngine("read the container's output", err)
			}
			return withoutToken(out, run.Token), nil
		}
		stages, err := s.cfg.Store.Stages(ctx, ws.ID, 0)
		if err != nil {
			return nil, err
		}
		for _, st := range slices.Backward(stages) {
			if st.Name == lastWords && st.Run == ws.RunID {
				return lastLines([]byte(st.Detail), tail), nil
			}
		}
	}
	return nil, &bailey.Error{
		Kind: bailey.Conflict,
		Msg:  "workspace " + ws.Name + " has no output: it is " + string(ws.State),
		Hint: "start it; what an ended run wrote is gone unless it failed",
	}
}
