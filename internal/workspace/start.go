package workspace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/policy"
	"github.com/baileyhq/bailey/internal/secret"
)

// maxPerOwner bounds the workspaces that one person may have made, running or
// not: rows and volumes are not in any quota.
const maxPerOwner = 100

// Create makes a stopped workspace of a class. An empty name means the class's
// name; an empty class the first that the actor may use. NotFound when there
// is no such class for the actor, Conflict when the name is taken.
func (s *Service) Create(ctx context.Context, actor bailey.Actor, name, class string) (bailey.Workspace, error) {
	c, err := s.classFor(ctx, actor, class)
	if err != nil {
		return bailey.Workspace{}, err
	}
	if name == "" {
		name = c.Name
	}
	return s.create(ctx, actor, name, c)
}

func (s *Service) create(ctx context.Context, actor bailey.Actor, name string, class bailey.Class) (bailey.Workspace, error) {
	if err := bailey.CheckName("workspace", name); err != nil {
		return bailey.Workspace{}, err
	}
	if !policy.Decide(actor, policy.WorkspaceCreate, policy.Thing{Class: &class}) {
		return bailey.Workspace{}, bailey.Errorf(bailey.Denied, "you may not make workspaces of class %s", class.Name)
	}
	// The same lock as DeleteVolume's: a volume on its way out is not taken over.
	unlock, err := s.locks.lock(ctx, volumeKey(actor.UserID, name))
	if err != nil {
		return bailey.Workspace{}, err
	}
	defer unlock()
	all, err := s.cfg.Store.Workspaces(ctx, actor.UserID)
	if err != nil {
		return bailey.Workspace{}, err
	}
	if len(all) >= maxPerOwner {
		return bailey.Workspace{}, &bailey.Error{
			Kind: bailey.OverQuota,
			Msg:  fmt.Sprintf("you have %d workspaces, which is as many as one person may have", len(all)),
			Hint: "delete one that is not needed; its files stay in its volume",
		}
	}
	return s.cfg.Store.CreateWorkspace(ctx, bailey.Workspace{
		OwnerID: actor.UserID, Owner: actor.Name, Name: name, Class: class.Name,
	})
}

// Launch is Create, if there is none of that name, and Start. A running or
// starting workspace is returned as it is. A different class is a Conflict.
func (s *Service) Launch(ctx context.Context, actor bailey.Actor, name, class string) (bailey.Workspace, error) {
	if actor.UserID == "" {
		return bailey.Workspace{}, bailey.Errorf(bailey.Denied, "only people have workspaces")
	}
	var c bailey.Class
	var err error
	if name == "" || class != "" {
		if c, err = s.classFor(ctx, actor, class); err != nil {
			return bailey.Workspace{}, err
		}
		if name == "" {
			name = c.Name
		}
	}
	if err := bailey.CheckName("workspace", name); err != nil {
		return bailey.Workspace{}, err
	}
	ws, err := s.cfg.Store.WorkspaceByName(ctx, actor.UserID, name)
	if bailey.KindOf(err) == bailey.NotFound {
		ws, err = s.createFor(ctx, actor, name, class)
	}
	if err != nil {
		return bailey.Workspace{}, err
	}
	if class != "" && ws.Class != class {
		return bailey.Workspace{}, &bailey.Error{
			Kind: bailey.Conflict,
			Msg:  fmt.Sprintf("workspace %s is of class %s, not %s", name, ws.Class, class),
			Hint: "choose another name, or delete it first: its files stay in its volume",
		}
	}
	return s.Start(ctx, actor, ws.ID)
}

// createFor makes the workspace that is to be launched, unless the launch
// cannot work anyway or somebody was faster.
func (s *Service) createFor(ctx context.Context, actor bailey.Actor, name, class string) (bailey.Workspace, error) {
	c, err := s.classFor(ctx, actor, class)
	if err != nil {
		return bailey.Workspace{}, err
	}
	if _, _, err := s.approve(ctx, audit.By(actor), c); err != nil {
		return bailey.Workspace{}, err
	}
	ws, err := s.create(ctx, actor, name, c)
	if bailey.KindOf(err) == bailey.Conflict {
		if mine, again := s.cfg.Store.WorkspaceByName(ctx, actor.UserID, name); again == nil {
			return mine, nil
		}
	}
	return ws, err
}

// approve asks whether the class's image may start, and whether it is where it
// can be started. here is false when it has to be fetched first.
func (s *Service) approve(ctx context.Context, by audit.Actor, class bailey.Class) (receipt bailey.Receipt, here bool, err error) {
	// Without a digest nothing of that name may start yet, or somebody approved
	// it a moment ago; who keeps the names knows which, and says it.
	receipt, err = s.cfg.Verifier.Verify(ctx, by, class.Image, class.Digest)
	if class.Digest == "" && bailey.KindOf(err) == bailey.NotFound {
		return bailey.Receipt{}, false, noImage(class.Image)
	}
	if err != nil {
		return bailey.Receipt{}, false, err
	}
	_, err = s.cfg.Engine.Image(ctx, receipt.Started)
	if errors.Is(err, engine.ErrNoImage) {
		if receipt.Source == bailey.FromArchive || receipt.Source == "" {
			return receipt, false, noImage(class.Image)
		}
		return receipt, false, nil
	}
	return receipt, err == nil, fromEngine("look for image "+class.Image, err)
}

// Start begins a run and returns as soon as quota, image and leases are decided
// and the launch is durable in store and audit; the rest goes on in the
// background and is published as stages. A running or starting workspace is
// returned as it is; Conflict while it stops.
func (s *Service) Start(ctx context.Context, actor bailey.Actor, id string) (bailey.Workspace, error) {
	begin := time.Now()
	if _, err := s.find(ctx, actor, policy.WorkspaceStart, id); err != nil {
		return bailey.Workspace{}, err
	}
	unlock, err := s.locks.lock(ctx, id)
	if err != nil {
		return bailey.Workspace{}, err
	}
	defer unlock()
	// Again, now that nobody else here changes it.
	ws, err := s.find(ctx, actor, policy.WorkspaceStart, id)
	if err != nil {
		return bailey.Workspace{}, err
	}
	switch ws.State {
	case bailey.Running, bailey.Starting:
		return ws, nil
	case bailey.Stopping:
		return bailey.Workspace{}, &bailey.Error{
			Kind: bailey.Conflict, Msg: "workspace " + ws.Name + " is stopping", Hint: "start it when it has stopped",
		}
	case bailey.Stopped, bailey.Failed:
	}
	if s.isDeleting(id) {
		return bailey.Workspace{}, bailey.Errorf(bailey.Conflict, "workspace %s is being deleted", ws.Name)
	}
	class, err := s.classFor(ctx, actor, ws.Class)
	if err != nil {
		s.refusedLaunch(ctx, audit.By(actor), ws, audit.NotAllowed)
		return bailey.Workspace{}, &bailey.Error{
			Kind:  bailey.Conflict,
			Msg:   "class " + ws.Class + ", which workspace " + ws.Name + " was made from, is not there for you any more",
			Hint:  "delete the workspace and launch one of another class under the same name: its files stay in its volume",
			Cause: err,
		}
	}
	return s.begin(ctx, audit.By(actor), ws, class, begin)
}

// begin decides a launch: image, quota and leases, then the journal. Nothing
// has been started when it returns; the keeper does that. The caller holds the
// workspace's lock.
func (s *Service) begin(ctx context.Context, by audit.Actor, ws bailey.Workspace, class bailey.Class, begin time.Time) (bailey.Workspace, error) {
	run := bailey.Run{ID: bailey.NewID(), WorkspaceID: ws.ID, Class: s.frozen(ws, class), Token: secret.Random(32).Reveal()}
	steps := steps{workspace: ws.ID, run: run.ID, now: s.now, since: begin}
	if err := s.checkNetwork(class); err != nil {
		s.refusedLaunch(ctx, by, ws, audit.NotAllowed)
		return bailey.Workspace{}, err
	}
	receipt, here, err := s.approve(ctx, by, class)
	if err != nil {
		code := audit.NoImage
		switch {
		case errors.Is(err, engine.ErrUnavailable):
			code = audit.EngineFailed
		case bailey.KindOf(err) == bailey.Denied:
			code = audit.Untrusted
		}
		s.refusedLaunch(ctx, by, ws, code)
		return bailey.Workspace{}, err
	}
	run.Digest, run.Receipt = receipt.Started, &receipt
	steps.done("policy", both(receipt.Words, class.Reach))
	if here {
		steps.done("image", shortImage(receipt))
	}

	owner, err := s.cfg.Store.UserByID(ctx, ws.OwnerID)
	if err != nil {
		return bailey.Workspace{}, fmt.Errorf("owner of workspace %s: %w", ws.ID, err)
	}
	gpus, err := s.inventory(ctx, class)
	if err != nil {
		return bailey.Workspace{}, err
	}
	// Until the launch is in the journal no keeper may take the run up, not
	// even when the reconciler sees it in the store.
	s.setDeciding(run.ID, true)
	defer s.setDeciding(run.ID, false)
	run, err = s.cfg.Store.BeginRun(ctx, bailey.RunRequest{
		WorkspaceID: ws.ID, Run: run, UserQuota: s.cfg.Settings.QuotaFor(owner),
		GroupQuotas: s.cfg.Settings.GroupQuotas(owner), GPUs: gpus,
	})
	if err != nil {
		return s.notBegun(ctx, by, ws, class, gpus, err)
	}
	steps.done("lease", leased(run))
	return s.handOver(ctx, by, ws, run, steps.stages)
}

// handOver makes a begun run durable in the journal and gives it to a keeper.
func (s *Service) handOver(ctx context.Context, by audit.Actor, ws bailey.Workspace, run bailey.Run, stages []bailey.Stage) (bailey.Workspace, error) {
	ctx, cancel := settle(ctx)
	defer cancel()
	h := handover{run: run, stages: stages}
	unwritten := s.cfg.Audit.Append(ctx, launchEvent(by, ws, run))
	if unwritten != nil {
		h.failure = launchFailed(audit.NoReason, unwritten, "the launch could not be written to the audit journal, so nothing was started")
		if err := s.cfg.Store.EndRun(ctx, run.ID, true, h.failure.reason, s.now()); err == nil {
			s.news.tell(ws.ID)
			return bailey.Workspace{}, unwritable("nothing was started", unwritten)
		}
		// The store does not answer either: the keeper ends the run when it does.
	}
	s.mu.Lock()
	s.fresh[run.ID] = h
	s.mu.Unlock()
	nudge(s.wake)
	if unwritten != nil {
		return bailey.Workspace{}, unwritable("nothing was started", unwritten)
	}
	s.log.InfoContext(ctx, "launch decided", slog.String("workspace", ws.ID), slog.String("run", run.ID),
		slog.String("owner", ws.OwnerID), slog.String("class", run.Class.Name), slog.Int("gpus", len(run.GPUs)))
	s.news.tell(ws.ID)
	now, err := s.cfg.Store.Workspace(ctx, ws.ID)
	return now, hidden(err, noWorkspace())
}

// launchEvent is what the journal holds before anything of a run is started.
func launchEvent(by audit.Actor, ws bailey.Workspace, run bailey.Run) audit.Event {
	return audit.Event{
		Actor: by, Action: audit.Launch, Outcome: audit.Success,
		Target: audit.Target{Kind: "workspace", ID: ws.ID, Name: ws.Name},
		Attrs:  launchAttrs(run),
	}
}

func launchAttrs(run bailey.Run) audit.Attrs {
	a := audit.Attrs{Class: run.Class.Name, Image: run.Digest, Run: run.ID, GPUs: run.GPUs}
	if r := run.Receipt; r != nil {
		a.Digest, a.Signer, a.Policy, a.Root = r.Digest, r.Signer, r.PolicyHash, r.RootHash
	}
	return a
}

// shortImage names an image for people: its name and the beginning of what was
// signed.
func shortImage(r bailey.Receipt) string {
	digest := r.Digest
	if len(digest) > 19 {
		digest = digest[:19]
	}
	return r.Image + " " + digest
}

// notBegun records why the store refused a run, and returns the answer: the
// workspace as it is when somebody else began a run of it at the same time.
func (s *Service) notBegun(ctx context.Context, by audit.Actor, ws bailey.Workspace, class bailey.Class, gpus []string, refusal error) (bailey.Workspace, error) {
	kind := bailey.KindOf(refusal)
	if kind == bailey.Conflict {
		now, err := s.cfg.Store.Workspace(ctx, ws.ID)
		if err == nil && (now.State == bailey.Starting || now.State == bailey.Running) {
			return now, nil
		}
	}
	if kind == bailey.OverQuota {
		code := audit.OverQuota
		if leases, err := s.cfg.Store.Leases(ctx); err == nil && class.GPUs > 0 && free(gpus, leases) < class.GPUs {
			code = audit.NoGPU
		}
		s.refusedLaunch(ctx, by, ws, code)
	}
	if kind == bailey.Denied {
		s.refusedLaunch(ctx, by, ws, audit.AccountDisabled)
	}
	return bailey.Workspace{}, refusal
}

func (s *Service) refusedLaunch(ctx context.Context, by audit.Actor, ws bailey.Workspace, code audit.Reason) {
	s.record(ctx, audit.Event{
		Actor: by, Action: audit.Launch, Outcome: audit.Refused, Reason: code,
		Target: audit.Target{Kind: "workspace", ID: ws.ID, Name: ws.Name},
		Attrs:  audit.Attrs{Class: ws.Class},
	})
}

// frozen returns the class as a run keeps it: with its whole environment and
// the path that it is served below, so that a later change of the configuration does not make what was started look
// like something else.
func (s *Service) frozen(ws bailey.Workspace, class bailey.Class) bailey.Class {
	env := maps.Clone(s.cfg.Env)
	if env == nil {
		env = map[string]string{}
	}
	if s.cfg.EnvFor != nil {
		for name, value := range s.cfg.EnvFor(ws) {
			if engine.CheckEnv(name, value) == nil { // or the workspace could not start at all
				env[name] = value
			}
		}
	}
	maps.Copy(env, class.Env)
	class.Env = env
	if s.cfg.BasePath != nil {
		class.BasePath = s.cfg.BasePath(ws)
	}
	class.Groups = slices.Clone(class.Groups)
	return class
}

// inventory returns the UUIDs that a run of the class may get.
func (s *Service) inventory(ctx context.Context, class bailey.Class) ([]string, error) {
	if class.GPUs == 0 {
		return nil, nil
	}
	cards, err := s.cfg.GPUs.Inventory(ctx)
	if err != nil {
		return nil, &bailey.Error{
			Kind: bailey.Unavailable, Msg: "the machine's GPUs cannot be listed",
			Hint: "an administrator finds out more with: bailey doctor", Cause: err,
		}
	}
	uuids := make([]string, 0, len(cards))
	for _, card := range cards {
		uuids = append(uuids, card.UUID)
	}
	return uuids, nil
}

// free counts the cards that nobody holds.
func free(gpus []string, leases []bailey.Lease) int {
	n := 0
	for _, gpu := range gpus {
		if !slices.ContainsFunc(leases, func(l bailey.Lease) bool { return l.GPU == gpu }) {
			n++
		}
	}
	return n
}

// leased says in words what a run was given.
func leased(run bailey.Run) string {
	if len(run.GPUs) == 0 {
		return "no GPU needed"
	}
	return many(len(run.GPUs), "GPU")
}

func (s *Service) setDeciding(runID string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if on {
		s.deciding[runID] = true
	} else {
		delete(s.deciding, runID)
	}
}

func (s *Service) isDeleting(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.deleting[id] > 0
}

// both joins two sentences, either of which may be missing.
func both(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return strings.TrimSuffix(a, ".") + ". " + b
}
