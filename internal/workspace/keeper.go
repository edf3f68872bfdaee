package workspace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/secret"
)

// A keeper looks after one run from its beginning, or from when this server
// first saw it, to its end. It alone lets an engine do something to the run's
// container. What is wanted it reads from the store at every step; nothing it
// remembers is needed to go on after a restart.
type keeper struct {
	s    *Service
	id   string // of the run
	wsID string
	kick chan struct{} // one slot: look again
	out  *stageWriter

	touched atomic.Int64 // newest activity, in nanoseconds of Service.elapsed
	flushed atomic.Int64 // of those, what is in the store
	oomAt   atomic.Int64 // newest "oom" event, likewise; 0: none
	live    atomic.Pointer[live]

	mu      sync.Mutex // guards trouble
	trouble *trouble

	// What follows belongs to the keeper's goroutine.
	run      bailey.Run
	mine     bool      // its launch is in the journal
	failure  *runError // not nil: the run is to end
	open     string    // the stage that has begun
	openAt   time.Time
	reached  map[string]bool // stages done in this life of the keeper
	image    engine.Image
	receipt  bailey.Receipt // of an image that has to be fetched first
	begin    time.Time      // of the launch, as far as this server knows
	started  bool           // the container was started by this keeper
	verified time.Time      // the container's start that matched the profile
	verifyAt time.Duration
	told     bool // the journal knows how the run failed
	kept     bool // its last words are kept
	oomTold  time.Duration
	idle     idleWatch
	way      *wayOut
	check    selfCheck
}

// A trouble is why a keeper cannot go on for now.
type trouble struct {
	err error
	at  time.Duration
}

// basePath is Jupyter's base URL: "/" where every workspace has an origin of its
// own. It is the run's, whatever the configuration says meanwhile.
func (k *keeper) basePath() string { return cmp.Or(k.run.Class.BasePath, "/") }

// Waits and limits of keepers.
const (
	verifyEach   = 5 * time.Minute // live containers are compared with the profile this often
	defaultStart = 60 * time.Second
	firstPause   = 200 * time.Millisecond // after trouble, doubling
	longestPause = 5 * time.Second
	engineTime   = 30 * time.Second // for one call that does not wait for the tenant
	fetchTime    = 30 * time.Minute // for fetching an image: some have 20 GB
	stopTime     = 60 * time.Second // for stopping and removing; the engine's own grace is 10 s
)

// keep looks after the run until it has ended or ctx has.
func (k *keeper) keep(ctx context.Context) {
	var writing sync.WaitGroup
	writing.Go(func() { k.out.write(ctx) })
	defer writing.Wait()
	defer k.out.close()
	defer k.check.end()
	defer k.shutWay()
	pause := firstPause
	for ctx.Err() == nil {
		over, err := k.step(ctx)
		switch {
		case over || ctx.Err() != nil:
			return
		case err == nil:
			pause = firstPause
			continue
		}
		k.cannot(ctx, err)
		select {
		case <-ctx.Done():
		case <-k.kick:
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
}

// step does the next thing that the run needs and returns; over when nothing
// more is to be done. An error means that it cannot be done now.
func (k *keeper) step(ctx context.Context) (over bool, err error) {
	if k.failure == nil {
		run, err := k.s.cfg.Store.Run(ctx, k.id)
		if bailey.KindOf(err) == bailey.NotFound {
			k.withdraw()
			return true, nil
		}
		if err != nil {
			return false, fmt.Errorf("read run: %w", err)
		}
		k.run = run
		if !run.EndedAt.IsZero() {
			k.withdraw()
			return true, nil
		}
	}
	ws, err := k.s.cfg.Store.Workspace(ctx, k.wsID)
	if bailey.KindOf(err) == bailey.NotFound { // and with it the run
		k.withdraw()
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read workspace: %w", err)
	}
	wanted := ws.Wanted == bailey.Running && ws.RunID == k.id
	switch {
	case k.failure == nil && wanted && ws.State == bailey.Starting:
		return false, k.launch(ctx, ws)
	case k.failure == nil && wanted && ws.State == bailey.Running:
		return false, k.supervise(ctx, ws)
	}
	return k.end(ctx, ws)
}

// cannot remembers why the keeper cannot go on, for those who wait.
func (k *keeper) cannot(ctx context.Context, err error) {
	k.mu.Lock()
	before := k.trouble
	k.trouble = &trouble{err: err, at: k.s.elapsed()}
	k.mu.Unlock()
	if before == nil || before.err.Error() != err.Error() {
		k.s.log.WarnContext(ctx, "run cannot go on for now", slog.String("run", k.id), slog.String("workspace", k.wsID), slog.Any("error", err))
	}
	k.s.news.tell(k.wsID)
}

func (k *keeper) fine() {
	k.mu.Lock()
	k.trouble = nil
	k.mu.Unlock()
}

// stuck returns why the keeper cannot go on, if it has met trouble since then:
// an error of kind Unavailable for those who wait, nil if there is none.
func (k *keeper) stuck(since time.Duration) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.trouble == nil || k.trouble.at < since {
		return nil
	}
	if e, ok := errors.AsType[*bailey.Error](k.trouble.err); ok && e.Kind == bailey.Unavailable {
		return e
	}
	if errors.Is(k.trouble.err, engine.ErrUnavailable) {
		return engineDown(k.trouble.err)
	}
	return &bailey.Error{
		Kind: bailey.Unavailable, Msg: "something does not work that is needed for this; it is tried again until it does",
		Hint: "an administrator finds the cause in the server's log", Cause: k.trouble.err,
	}
}

// spec returns what the run's container is. It depends on the run's row alone,
// so that every server, now and later, means the same container.
func (k *keeper) spec(owner string) engine.Spec {
	c := k.run.Class
	return engine.Spec{
		Run: k.run.ID, Workspace: k.run.WorkspaceID, Owner: k.run.OwnerID, Name: owner, Class: c.Name,
		Image: k.run.Digest, UID: k.run.UID, VolumeID: k.run.VolumeID,
		CPUMillis: c.CPUMillis, MemoryBytes: c.MemoryBytes, ShmBytes: c.ShmBytes, TmpBytes: c.TmpBytes, Pids: c.Pids,
		GPUs: k.run.GPUs, JupyterToken: secret.New(k.run.Token), BasePath: k.basePath(), Env: c.Env,
		Network: network(c),
	}
}

// supervise keeps a running workspace served while its container is what it
// should be, until something happens that step has to look at.
func (k *keeper) supervise(ctx context.Context, ws bailey.Workspace) error {
	st, err := k.inspect(ctx)
	switch {
	case errors.Is(err, engine.ErrNotFound):
		k.failure = k.ended(engine.Status{}, "its container is gone")
		return nil
	case err != nil:
		return err // nothing is known, so nothing is changed
	case !st.Running:
		k.failure = k.exited(ctx, st)
		return nil
	}
	if !st.StartedAt.Equal(k.verified) || k.s.elapsed() >= k.verifyAt {
		if trusted, err := k.trust(ctx, ws, st); !trusted {
			return err // nil: step looks again
		}
	}
	k.publish(ws, st.StartedAt)
	if err := k.openWay(ctx, ws); err != nil {
		k.cannot(ctx, err) // people work on meanwhile; watch looks again soon
	} else {
		k.fine()
	}
	k.tellOOM()
	if ws.SelfCheck == "" {
		k.check.start(ctx, k)
	}
	return k.watch(ctx, ws)
}

// trust makes sure that a live container matches its profile before it is
// served, or served on. One that was started again behind our back is not
// served until Jupyter answers in it. Only true means that it may be served.
func (k *keeper) trust(ctx context.Context, ws bailey.Workspace, st engine.Status) (bool, error) {
	again := !st.StartedAt.Equal(k.verified)
	if again {
		k.withdraw()
	}
	failure, err := k.verify(ctx, ws)
	switch {
	case errors.Is(err, errAgain):
		return false, nil
	case err != nil || failure != nil:
		k.failure = failure
		return false, err
	}
	if again && !k.verified.IsZero() {
		limit, cancel := context.WithTimeout(ctx, k.startLimit())
		defer cancel()
		err := k.awaitJupyter(limit, st)
		failure, _ := errors.AsType[*runError](err)
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return false, ctx.Err()
		case errors.Is(err, errUnwanted), errors.Is(err, errAgain):
			return false, nil
		case errors.Is(err, engine.ErrUnavailable), errors.Is(err, engine.ErrNotFound):
			return false, err
		case failure != nil && failure.code == audit.Mismatch:
			k.failure = failure
			return false, nil
		default:
			k.failure = k.ended(st, "its container was started again, and Jupyter did not come back in it")
			return false, nil
		}
	}
	k.verified = st.StartedAt
	k.verifyAt = k.s.elapsed() + verifyEach
	return true, nil
}

// watch waits until the run has to be looked at again.
func (k *keeper) watch(ctx context.Context, ws bailey.Workspace) error {
	for {
		idle := k.idleIn(ctx, ws)
		wait := min(k.verifyAt-k.s.elapsed(), idle)
		lost, over := k.wayLost()
		if lost {
			wait = min(wait, longestPause)
		}
		if wait <= 0 {
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-k.kick:
			timer.Stop()
			return nil
		case <-over:
			timer.Stop()
			return nil
		case <-timer.C:
		}
		if lost || k.s.elapsed() >= k.verifyAt {
			return nil
		}
	}
}

// verify reads the live container back. A finding, or not being able to look,
// is the run's failure; only an engine that does not answer, or a container
// that is not there any more, is an error and changes nothing.
func (k *keeper) verify(ctx context.Context, ws bailey.Workspace) (*runError, error) {
	look, cancel := context.WithTimeout(ctx, engineTime)
	defer cancel()
	findings, err := k.s.cfg.Engine.Verify(look, k.run.ContainerID, k.spec(ws.Owner))
	switch {
	case err == nil && len(findings) == 0:
		return nil, nil
	case err == nil:
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, engine.ErrUnavailable), errors.Is(err, engine.ErrNotFound):
		return nil, fmt.Errorf("verify container: %w", err)
	default:
		// It may have ended meanwhile, or the engine be too busy for anything.
		// If neither is so, somebody makes it hard to look, and that is a finding.
		st, still := k.inspect(ctx)
		if still != nil {
			return nil, fmt.Errorf("verify container: %w", still)
		}
		if !st.Running {
			return nil, errAgain
		}
	}
	// Served meanwhile it must not be, whatever else goes wrong now.
	k.withdraw()
	what := "it could not be checked"
	if err == nil {
		what = controls(findings)
	}
	for _, f := range findings {
		k.s.log.ErrorContext(ctx, "container does not match its profile", slog.String("run", k.id), slog.String("workspace", k.wsID),
			slog.String("control", f.Control), slog.String("want", f.Want), slog.String("got", f.Got))
	}
	return &runError{
		action: audit.VerifyFailed, code: audit.Mismatch, cause: err,
		reason: "its container does not match the strict profile: " + what,
	}, nil
}

// inspect returns the state of the run's container, which it finds by the run
// if the store does not know its id.
func (k *keeper) inspect(ctx context.Context) (engine.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, engineTime)
	defer cancel()
	if k.run.ContainerID != "" {
		st, err := k.s.cfg.Engine.Inspect(ctx, k.run.ContainerID)
		if err != nil {
			return engine.Status{}, fmt.Errorf("inspect container: %w", err)
		}
		return st, nil
	}
	all, err := k.s.cfg.Engine.List(ctx)
	if err != nil {
		return engine.Status{}, fmt.Errorf("list containers: %w", err)
	}
	for _, st := range all {
		if st.Run == k.id {
			k.run.ContainerID = st.ID
			return st, nil
		}
	}
	return engine.Status{}, fmt.Errorf("container of run %s: %w", k.id, engine.ErrNotFound)
}

// noteOOM remembers that the kernel killed something in the container.
func (k *keeper) noteOOM() { k.oomAt.Store(int64(max(k.s.elapsed(), 1))) }

// oomSince reports whether that happened since then.
func (k *keeper) oomSince(since time.Duration) bool {
	at := k.oomAt.Load()
	return at != 0 && time.Duration(at) >= since
}

// tellOOM shows the owner that the kernel ended a process for want of memory:
// in a notebook that looks like a kernel that died for no reason.
func (k *keeper) tellOOM() {
	const atMost = time.Minute
	now := max(k.s.elapsed(), 1) // 0 is never
	if at := time.Duration(k.oomAt.Load()); at == 0 || at <= k.oomTold || k.oomTold != 0 && now-k.oomTold < atMost {
		return
	}
	k.oomTold = now
	k.out.put(k.stage("memory", broken, fmt.Sprintf("a process was ended because memory ran out: class %s gives %s",
		k.run.Class.Name, size(k.run.Class.MemoryBytes)), 0))
}

// touch notes activity at that time.
func (k *keeper) touch(at time.Duration) {
	for {
		old := k.touched.Load()
		if int64(at) <= old || k.touched.CompareAndSwap(old, int64(at)) {
			return
		}
	}
}

// begins, done and broke publish the stages of a launch. A launch that is
// tried again, because the engine went away meanwhile, says each thing once.
func (k *keeper) begins(name string) {
	if k.open == name || k.reached[name] {
		return
	}
	k.open, k.openAt = name, time.Now()
	k.out.put(k.stage(name, begun, "", 0))
}

func (k *keeper) done(name, detail string) {
	if k.reached[name] {
		return
	}
	k.reached[name] = true
	var took time.Duration
	if k.open == name {
		took = time.Since(k.openAt)
		k.open = ""
	}
	k.out.put(k.stage(name, finished, detail, took))
}

func (k *keeper) broke(detail string) {
	if k.open == "" {
		return
	}
	k.out.put(k.stage(k.open, broken, detail, time.Since(k.openAt)))
	k.open = ""
}

func (k *keeper) stage(name, status, detail string, took time.Duration) bailey.Stage {
	return bailey.Stage{
		Workspace: k.wsID, Run: k.id, Name: name, Status: status, Detail: detail, At: k.s.now(), Took: took,
	}
}
