package workspace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/engine"
)

// launch brings a starting run up. Every part of it may have been done before,
// by this server or by one that was killed in the middle.
func (k *keeper) launch(ctx context.Context, ws bailey.Workspace) error {
	if !k.mine {
		// Nothing may start that is not in the journal, and the server that
		// began this may have been killed before it could write.
		if err := k.s.cfg.Audit.Append(ctx, launchEvent(audit.By(bailey.System()), ws, k.run)); err != nil {
			return fmt.Errorf("record that the launch of run %s is taken over: %w", k.id, err)
		}
		k.mine = true
		k.s.log.InfoContext(ctx, "launch taken over", slog.String("run", k.id), slog.String("workspace", k.wsID))
	}
	if k.begin.IsZero() {
		k.begin = time.Now()
	}
	since := k.s.elapsed()
	err := k.persist(ctx, engineTime, k.needImage)
	if errors.Is(err, errNotHere) {
		err = k.persist(ctx, fetchTime, k.fetch)
	}
	if err == nil {
		// The start has its time from here on: pulling is not starting.
		err = k.persist(ctx, k.startLimit(), func(ctx context.Context) error { return k.bringUp(ctx, ws, since) })
	}
	if err == nil {
		err = k.ready(ctx)
	}
	switch {
	case err == nil, errors.Is(err, errUnwanted):
		return nil // step looks again
	case ctx.Err() != nil:
		return ctx.Err() // the next server goes on from here
	}
	k.failure = asRunError(err)
	k.broke(k.failure.reason)
	return nil
}

func (k *keeper) startLimit() time.Duration { return cmp.Or(k.run.Class.StartLimit, defaultStart) }

// persist does something until it works or fails for good, at most for the
// limit. An engine that goes away is waited for: it may be an upgrade.
func (k *keeper) persist(ctx context.Context, limit time.Duration, do func(context.Context) error) error {
	timed, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	pause, away, told := firstPause, false, false
	for {
		err := do(timed)
		if timed.Err() == nil { // else it says how the time ended, not why it was too short
			away = errors.Is(err, engine.ErrUnavailable)
		}
		switch {
		case err == nil, errors.Is(err, errUnwanted):
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case timed.Err() != nil:
			return k.tooLate(ctx, limit, away, err)
		case !away && !errors.Is(err, errAgain):
			return err
		}
		if away {
			k.started = false // it may have taken the container down with it
			if !told {
				told = true
				k.out.put(k.stage(cmp.Or(k.open, "image"), begun, "waiting for the container engine, which does not answer", 0))
			}
			k.cannot(ctx, err)
		}
		select {
		case <-timed.Done():
		case <-k.kick: // somebody may want something else by now
			if err := k.stillWanted(ctx); err != nil {
				return err
			}
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
}

// tooLate says why a launch that ran out of time did.
func (k *keeper) tooLate(ctx context.Context, limit time.Duration, away bool, err error) error {
	if away || errors.Is(err, engine.ErrUnavailable) {
		return launchFailed(audit.EngineFailed, err, "the container engine stopped answering and did not come back within %s", span(limit))
	}
	if e, ok := errors.AsType[*runError](err); ok {
		return e
	}
	if k.open != "agent" && k.open != "jupyter" {
		return launchFailed(audit.StartTimeout, err, "its container was not up within %s", span(limit))
	}
	if k.run.ContainerID != "" {
		ctx, cancel := context.WithTimeout(ctx, engineTime)
		defer cancel()
		if use, e := k.s.cfg.Engine.Stats(ctx, k.run.ContainerID); e == nil && use.OOMKills > 0 {
			return k.outOfMemory(err)
		}
	}
	return launchFailed(audit.StartTimeout, err, "Jupyter did not answer within %s of the start; bailey logs shows what it said", span(limit))
}

func (k *keeper) outOfMemory(cause error) *runError {
	return launchFailed(audit.OutOfMemory, cause, "it ran out of memory at start: class %s gives %s; choose a bigger class, or free memory that files in /workspace make it use",
		k.run.Class.Name, size(k.run.Class.MemoryBytes))
}

// needImage asks once more whether the image may start, a moment before it
// does: a key may have been taken out of the policy since the launch was
// decided, by another server even. Then it makes sure that the engine has it.
func (k *keeper) needImage(ctx context.Context) error {
	name, digest := k.run.Class.Image, k.run.Digest
	if r := k.run.Receipt; r != nil {
		name, digest = r.Image, r.Digest
	}
	receipt, err := k.s.cfg.Verifier.Verify(ctx, audit.By(bailey.System()), name, digest)
	switch {
	case errors.Is(err, engine.ErrUnavailable):
		return fmt.Errorf("look for image: %w", err)
	case bailey.KindOf(err) == bailey.Denied:
		return launchFailed(audit.Untrusted, err, "%s", wordsOf(err))
	case err != nil:
		return asRunError(err)
	case receipt.Started != k.run.Digest:
		return &runError{
			action: audit.VerifyFailed, code: audit.Mismatch,
			reason: "the image that may start is not the one that this run was begun with",
		}
	}
	img, err := k.s.cfg.Engine.Image(ctx, k.run.Digest)
	if errors.Is(err, engine.ErrNoImage) {
		k.receipt = receipt
		return errNotHere
	}
	if err != nil {
		return fmt.Errorf("look for image: %w", err)
	}
	k.image = img
	return nil
}

// wordsOf returns what a stranger may read of an error.
func wordsOf(err error) string {
	if e, ok := errors.AsType[*bailey.Error](err); ok {
		return e.Msg
	}
	return "internal error"
}

// fetch brings the image to the engine and looks again: what was verified is
// what has to be there, whatever a registry sent.
func (k *keeper) fetch(ctx context.Context) error {
	receipt := k.receipt
	gone := func(err error) error {
		return launchFailed(audit.NoImage, err, "image %s is not on this machine any more; an administrator loads it with: make images", k.run.Class.Image)
	}
	if receipt.Source == bailey.FromArchive || receipt.Source == "" {
		return gone(nil)
	}
	k.begins("image")
	err := k.s.cfg.Verifier.Fetch(ctx, receipt, func(percent int) {
		k.out.put(k.stage("image", begun, fmt.Sprintf("%s: %d %% fetched", shortImage(receipt), percent), 0))
	})
	if err != nil {
		return engineRefused("image "+receipt.Image+" could not be fetched", err)
	}
	img, err := k.s.cfg.Engine.Image(ctx, k.run.Digest)
	if errors.Is(err, engine.ErrNoImage) {
		return gone(err)
	}
	if err != nil {
		return fmt.Errorf("look for image: %w", err)
	}
	k.image = img
	k.done("image", shortImage(receipt))
	return nil
}

// bringUp takes the container from wherever it is to a Jupyter that answers.
func (k *keeper) bringUp(ctx context.Context, ws bailey.Workspace, since time.Duration) error {
	k.begins("create")
	st, err := k.ensureCreated(ctx, ws)
	if err != nil {
		return err
	}
	k.done("create", "")
	if err := k.checkWanted(ctx); err != nil {
		return err
	}
	k.begins("start")
	if !st.Running {
		if st, err = k.startContainer(ctx, st, since); err != nil {
			return err
		}
	}
	k.done("start", "")
	k.begins("verify")
	failure, err := k.verify(ctx, ws)
	if err != nil {
		return err
	}
	if failure != nil {
		return failure
	}
	k.verified = st.StartedAt
	k.verifyAt = k.s.elapsed() + verifyEach
	if err := k.openWay(ctx, ws); err != nil {
		return err
	}
	k.done("verify", "")
	k.begins("agent")
	if k.oomSince(since) {
		return k.outOfMemory(nil)
	}
	return k.awaitJupyter(ctx, st)
}

// ensureCreated returns the run's container, made if it is not there. Create
// is idempotent on the run.
func (k *keeper) ensureCreated(ctx context.Context, ws bailey.Workspace) (engine.Status, error) {
	if err := k.s.cfg.Engine.EnsureVolume(ctx, k.run.VolumeID, k.run.UID); err != nil {
		return engine.Status{}, engineRefused("its volume could not be prepared", err)
	}
	spec := k.spec(ws.Owner)
	if k.s.cfg.Secrets != nil {
		var err error
		if spec.Secrets, err = k.s.cfg.Secrets.ForClass(ctx, spec.Class); err != nil {
			return engine.Status{}, engineRefused("its registered secrets could not be read", err)
		}
	}
	id, err := k.s.cfg.Engine.Create(ctx, spec)
	if err != nil {
		if errors.Is(err, engine.ErrNoImage) {
			return engine.Status{}, launchFailed(audit.NoImage, err, "image %s is not on this machine any more; an administrator loads it with: make images", k.run.Class.Image)
		}
		return engine.Status{}, engineRefused("its container could not be created", err)
	}
	if k.run.ContainerID != id {
		if err := k.s.cfg.Store.SetContainer(ctx, k.id, id); err != nil {
			return engine.Status{}, err
		}
		k.run.ContainerID = id
	}
	st, err := k.inspect(ctx)
	if err != nil {
		return engine.Status{}, err
	}
	// What was approved is what runs: the name could have been moved between
	// looking and creating.
	if st.Image != k.image.ID && st.Image != k.run.Digest {
		return engine.Status{}, &runError{
			action: audit.VerifyFailed, code: audit.Mismatch,
			reason: "its container was made from another image than the approved one",
		}
	}
	return st, nil
}

// startContainer starts a container that does not run. One that this keeper
// has started already has ended by itself.
func (k *keeper) startContainer(ctx context.Context, st engine.Status, since time.Duration) (engine.Status, error) {
	if k.started {
		return st, k.diedAtStart(st, since)
	}
	if err := k.s.cfg.Engine.Start(ctx, k.run.ContainerID); err != nil {
		return st, engineRefused("its container could not be started", err)
	}
	k.started = true
	st, err := k.inspect(ctx)
	if err != nil {
		return st, err
	}
	if !st.Running {
		return st, k.diedAtStart(st, since)
	}
	return st, nil
}

// engineRefused keeps what is worth trying again, and turns everything else
// into the end of the launch.
func engineRefused(what string, err error) error {
	if errors.Is(err, engine.ErrUnavailable) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return launchFailed(audit.EngineFailed, err, "%s; an administrator finds the cause in the server's log", what)
}

// diedAtStart says why a container ended before its workspace was ready.
func (k *keeper) diedAtStart(st engine.Status, since time.Duration) error {
	if st.OOMKilled || k.oomSince(since) {
		return k.outOfMemory(nil)
	}
	return launchFailed(audit.Exited, nil, "it ended during its start with exit code %d; bailey logs shows its last words", st.ExitCode)
}

// awaitJupyter waits until Jupyter answers in the container that was started
// then, as long as ctx lasts.
func (k *keeper) awaitJupyter(ctx context.Context, st engine.Status) error {
	const (
		firstDelay = 15 * time.Millisecond
		mostDelay  = 100 * time.Millisecond
		lookEach   = time.Second
	)
	since, looked := k.s.elapsed(), k.s.elapsed()
	last := ""
	for delay := firstDelay; ; delay = min(delay*5/4, mostDelay) {
		status, _, connected, err := k.ask(ctx, k.basePath()+"api/status")
		if connected {
			k.done("agent", "")
			k.begins("jupyter")
		}
		switch {
		case err == nil && status == http.StatusOK:
			k.done("jupyter", "")
			return nil
		case errors.Is(err, engine.ErrHostile):
			k.withdraw()
			return &runError{
				action: audit.VerifyFailed, code: audit.Mismatch, cause: err,
				reason: "its socket is not what it should be",
			}
		case err != nil:
			last = err.Error()
		default:
			last = fmt.Sprintf("status %d", status)
		}
		kicked := false
		timer := time.NewTimer(delay)
		select {
		case <-ctx.Done():
		case <-k.kick:
			kicked = true
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			// Not %w: an agent that does not listen looks like an engine that
			// does not answer.
			return fmt.Errorf("wait for Jupyter: %s: %w", last, ctx.Err())
		}
		if kicked || k.s.elapsed()-looked >= lookEach {
			looked = k.s.elapsed()
			if err := k.stillComing(ctx, st, since); err != nil {
				return err
			}
		}
	}
}

// stillComing returns nil while it makes sense to wait for Jupyter.
func (k *keeper) stillComing(ctx context.Context, st engine.Status, since time.Duration) error {
	if err := k.stillWanted(ctx); err != nil {
		return err
	}
	now, err := k.inspect(ctx)
	switch {
	case err != nil:
		return err
	case !now.Running:
		return k.diedAtStart(now, since)
	case k.oomSince(since):
		// The agent would start Jupyter again and again, and the kernel would
		// kill it again and again.
		return k.outOfMemory(nil)
	case !now.StartedAt.Equal(st.StartedAt):
		return errAgain // and what was started is to be verified first
	}
	return nil
}

// checkWanted is stillWanted if there is a reason to ask.
func (k *keeper) checkWanted(ctx context.Context) error {
	select {
	case <-k.kick:
		return k.stillWanted(ctx)
	default:
		return nil
	}
}

// stillWanted returns errUnwanted when the workspace is to stop. A store that
// does not answer changes nothing.
func (k *keeper) stillWanted(ctx context.Context) error {
	ws, err := k.s.cfg.Store.Workspace(ctx, k.wsID)
	if bailey.KindOf(err) == bailey.NotFound {
		return errUnwanted
	}
	if err == nil && (ws.Wanted != bailey.Running || ws.RunID != k.id) {
		return errUnwanted
	}
	return nil
}

// ready makes the workspace Running and serves it.
func (k *keeper) ready(ctx context.Context) error {
	at := k.s.now()
	err := k.s.cfg.Store.MarkReady(ctx, k.id, at)
	if bailey.KindOf(err) == bailey.Conflict {
		return errUnwanted
	}
	if err != nil {
		return err
	}
	ws, err := k.s.cfg.Store.Workspace(ctx, k.wsID)
	if err != nil {
		return err
	}
	k.run.ReadyAt = at
	k.touch(k.s.elapsed())
	k.publish(ws, k.verified)
	k.fine()
	took := time.Since(k.begin)
	k.out.put(k.stage("ready", finished, "", took))
	k.s.log.InfoContext(ctx, "workspace ready", slog.String("workspace", k.wsID), slog.String("run", k.id),
		slog.String("class", k.run.Class.Name), slog.Duration("took", took))
	return nil
}

// controls names what findings are about, each once.
func controls(findings []engine.Finding) string {
	var names []string
	for _, f := range findings {
		names = append(names, f.Control)
	}
	slices.Sort(names)
	return strings.Join(slices.Compact(names), ", ")
}
