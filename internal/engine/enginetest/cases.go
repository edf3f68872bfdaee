package enginetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/secret"
)

// lifeCases: create, start, stop, remove.
func lifeCases() []testCase {
	return []testCase{
		{"create does not start", func(e *env) {
			s := e.alice()
			st := e.status(e.create(s))
			if st.Running || !st.StartedAt.IsZero() {
				e.Errorf("a created container has status %+v, want not running", st)
			}
			if st.Run != s.Run || st.Workspace != s.Workspace || st.Owner != s.Owner || st.Class != s.Class || st.Image != e.Image || st.SpecHash != s.Hash() {
				e.Errorf("status %+v does not repeat the Spec %+v", st, s)
			}
		}},
		{"create is idempotent on the run", func(e *env) {
			s := e.alice()
			id := e.create(s)
			again, err := e.Engine.Create(e.ctx, s)
			if err != nil || again != id {
				e.Errorf("second Create = %q, %v; want %q", again, err, id)
			}
			if list := e.list(e.Engine); len(list) != 1 {
				e.Errorf("after two Creates of one run there are %d containers", len(list))
			}
		}},
		{"create at the same time makes one", func(e *env) {
			s := e.alice()
			ids := make([]string, 4)
			var wg sync.WaitGroup
			for i := range ids {
				wg.Go(func() {
					id, err := e.Engine.Create(e.ctx, s)
					if err != nil {
						e.Errorf("Create %d of 4: %v", i, err)
					}
					ids[i] = id
				})
			}
			wg.Wait()
			e.Cleanup(func() { e.scrap(ids[0], s.VolumeID) })
			if slices.Sort(ids); len(slices.Compact(ids)) != 1 {
				e.Errorf("four Creates of one run gave %q", ids)
			}
		}},
		{"create with another specification conflicts", func(e *env) {
			s := e.alice()
			e.create(s)
			s.MemoryBytes *= 2
			_, err := e.Engine.Create(e.ctx, s)
			e.fails("Create with more memory", err, engine.ErrConflict)
		}},
		{"create for another user conflicts", func(e *env) {
			s := e.alice()
			id := e.create(s)
			theft := s
			theft.Name, theft.UID, theft.VolumeID = "bob", 20002, bailey.NewID()
			_, err := e.Engine.Create(e.ctx, theft)
			e.fails("Create of alice's run for bob", err, engine.ErrConflict)
			e.ok("Start", e.Engine.Start(e.ctx, id))
			e.ready(s) // nothing of hers was touched
		}},
		{"create ignores another token", func(e *env) {
			s := e.alice()
			id := e.create(s)
			s.JupyterToken = secret.Random(24)
			if again, err := e.Engine.Create(e.ctx, s); err != nil || again != id {
				e.Errorf("Create with another token = %q, %v; want %q: secrets are not in the hash", again, err, id)
			}
		}},
		{"start runs and start again is no error", func(e *env) {
			s := e.alice()
			id := e.start(s)
			began := e.status(id).StartedAt
			e.ok("second Start", e.Engine.Start(e.ctx, id))
			if st := e.status(id); !st.Running || !st.StartedAt.Equal(began) || began.IsZero() {
				e.Errorf("after a second Start: %+v, want running since %v", st, began)
			}
		}},
		{"stop and start again is another start", func(e *env) {
			s := e.alice()
			id := e.start(s)
			first := e.status(id)
			e.ok("Stop", e.Engine.Stop(e.ctx, id))
			if st := e.status(id); st.Running || st.EndedAt.IsZero() {
				e.Errorf("after Stop: %+v, want not running and an end", st)
			}
			e.ok("Start", e.Engine.Start(e.ctx, id))
			e.ready(s)
			if st := e.status(id); !st.Running || !st.StartedAt.After(first.StartedAt) {
				e.Errorf("after the second start: %+v, want a later start than %v", st, first.StartedAt)
			}
		}},
		{"stop of what does not run is no error", func(e *env) {
			id := e.create(e.alice())
			e.ok("Stop of a created container", e.Engine.Stop(e.ctx, id))
			e.ok("Start", e.Engine.Start(e.ctx, id))
			e.ok("Stop", e.Engine.Stop(e.ctx, id))
			e.ok("second Stop", e.Engine.Stop(e.ctx, id))
		}},
		{"remove kills and keeps the volume", func(e *env) {
			s := e.alice()
			id := e.start(s)
			e.ok("Remove", e.Engine.Remove(e.ctx, id))
			_, err := e.Engine.Inspect(e.ctx, id)
			e.fails("Inspect after Remove", err, engine.ErrNotFound)
			if _, _, exists := e.Volume(e.T, s.VolumeID); !exists {
				e.Error("Remove took the volume along")
			}
			if e.RunFiles(e.T, s.Run) {
				e.Error("Remove left files of the run on the host")
			}
			e.ok("second Remove", e.Engine.Remove(e.ctx, id))
		}},
		{"remove of a created container", func(e *env) {
			s := e.alice()
			id := e.create(s)
			e.ok("Remove", e.Engine.Remove(e.ctx, id))
			if list := e.list(e.Engine); len(list) != 0 {
				e.Errorf("after Remove there is still %+v", list)
			}
		}},
		{"a run that was removed can be created anew", func(e *env) {
			s := e.alice()
			e.ok("Remove", e.Engine.Remove(e.ctx, e.create(s)))
			e.start(s)
		}},
		{"the end of a container is told", func(e *env) {
			id := e.start(e.alice())
			e.Crash(e.T, id, 3)
			e.eventually("the container is seen to have ended", func() bool { return !e.status(id).Running })
			if st := e.status(id); st.ExitCode != 3 || st.EndedAt.IsZero() || st.OOMKilled {
				e.Errorf("status after an exit with 3: %+v", st)
			}
		}},
		{"nothing starts again by itself", func(e *env) {
			id := e.start(e.alice())
			before := e.status(id).StartedAt
			e.Crash(e.T, id, 1)
			e.eventually("the container is seen to have ended", func() bool { return !e.status(id).Running })
			if st := e.status(id); !st.StartedAt.Equal(before) {
				e.Errorf("it was started again at %v by nobody", st.StartedAt)
			}
		}},
		{"files survive in the volume", func(e *env) {
			s := e.alice()
			id := e.start(s)
			e.ok("Remove", e.Engine.Remove(e.ctx, id))
			s.Run = bailey.NewID()
			e.start(s) // a second run on the same volume
			if uid, private, exists := e.Volume(e.T, s.VolumeID); !exists || uid != s.UID || !private {
				e.Errorf("volume after two runs: uid %d, private %t, exists %t", uid, private, exists)
			}
		}},
	}
}

// refusalCases: what must not be made.
func refusalCases() []testCase {
	return []testCase{
		{"image that is not there", func(e *env) {
			s := e.alice()
			s.Image = "sha256:" + strings.Repeat("0", 64)
			_, err := e.Engine.Create(e.ctx, s)
			e.fails("Create", err, engine.ErrNoImage)
			_, err = e.Engine.Image(e.ctx, s.Image)
			e.fails("Image", err, engine.ErrNoImage)
			if e.RunFiles(e.T, s.Run) {
				e.Error("a refused Create left files on the host")
			}
		}},
		{"specifications out of bounds", func(e *env) {
			bad := map[string]func(*engine.Spec){
				"a tag":                    func(s *engine.Spec) { s.Image = "notebook:latest" },
				"uid 0":                    func(s *engine.Spec) { s.UID = 0 },
				"uid of the host":          func(s *engine.Spec) { s.UID = 1000 },
				"uid above the range":      func(s *engine.Spec) { s.UID = 60000 },
				"run with a path":          func(s *engine.Spec) { s.Run = "../../../../etc" },
				"volume with a path":       func(s *engine.Spec) { s.VolumeID = "../" + s.VolumeID },
				"no volume":                func(s *engine.Spec) { s.VolumeID = "" },
				"name with a line break":   func(s *engine.Spec) { s.Name = "alice\nroot:x:0:0" },
				"name with a colon":        func(s *engine.Spec) { s.Name = "alice:x:0" },
				"negative memory":          func(s *engine.Spec) { s.MemoryBytes = -1 },
				"no memory limit":          func(s *engine.Spec) { s.MemoryBytes = 0 },
				"no cpu limit":             func(s *engine.Spec) { s.CPUMillis = 0 },
				"unlimited pids":           func(s *engine.Spec) { s.Pids = -1 },
				"all gpus":                 func(s *engine.Spec) { s.GPUs = []string{"all"} },
				"gpu by index":             func(s *engine.Spec) { s.GPUs = []string{"0"} },
				"NVIDIA_VISIBLE_DEVICES":   func(s *engine.Spec) { s.Env = map[string]string{"NVIDIA_VISIBLE_DEVICES": "all"} },
				"LD_PRELOAD":               func(s *engine.Spec) { s.Env = map[string]string{"LD_PRELOAD": "/x.so"} },
				"HOME":                     func(s *engine.Spec) { s.Env = map[string]string{"HOME": "/"} },
				"environment with a break": func(s *engine.Spec) { s.Env = map[string]string{"A\nB": "x"} },
				"base path that climbs":    func(s *engine.Spec) { s.BasePath = "/../" },
				"no token":                 func(s *engine.Spec) { s.JupyterToken = secret.Value{} },
				"secret that climbs":       func(s *engine.Spec) { s.Secrets = map[string]secret.Value{"../agent.json": secret.New("x")} },
				"too many secrets": func(s *engine.Spec) {
					s.Secrets = map[string]secret.Value{}
					for i := range engine.MaxSecrets + 1 {
						s.Secrets[fmt.Sprint("s", i)] = secret.New("x")
					}
				},
			}
			for _, name := range slices.Sorted(maps.Keys(bad)) {
				s := e.alice()
				bad[name](&s)
				id, err := e.Engine.Create(e.ctx, s)
				if bailey.KindOf(err) != bailey.Invalid {
					e.Errorf("Create with %s = %q, %v; want an error of kind invalid", name, id, err)
				}
			}
			if list := e.list(e.Engine); len(list) != 0 {
				e.Errorf("refused Specs left containers: %+v", list)
			}
		}},
		{"images are found by ID only", func(e *env) {
			img, err := e.Engine.Image(e.ctx, e.Image)
			if err != nil || img.ID != e.Image || img.Size <= 0 {
				e.Errorf("Image(%s) = %+v, %v", e.Image, img, err)
			}
			for _, ref := range []string{"", "latest", "sha256:abc", strings.TrimPrefix(e.Image, "sha256:"), e.Image[:19], e.Image + "0"} {
				if img, err := e.Engine.Image(e.ctx, ref); err == nil {
					e.Errorf("Image(%q) = %+v, want an error", ref, img)
				}
			}
		}},
		{"pulling is by digest from a repository", func(e *env) {
			for _, ref := range []string{"", "notebook", "notebook:latest", e.Image, "registry.invalid/notebook@sha256:abc"} {
				if err := e.Engine.Pull(e.ctx, ref, nil); bailey.KindOf(err) != bailey.Invalid {
					e.Errorf("Pull(%q) = %v, want an error of kind invalid", ref, err)
				}
			}
		}},
		{"an archive that is none loads nothing", func(e *env) {
			before, err := e.Engine.Images(e.ctx)
			e.ok("Images", err)
			if err := e.Engine.Load(e.ctx, strings.NewReader("this is no archive")); err == nil {
				e.Error("Load of text succeeded")
			}
			after, err := e.Engine.Images(e.ctx)
			e.ok("Images", err)
			if len(after) != len(before) {
				e.Errorf("there were %d images before and %d after", len(before), len(after))
			}
		}},
		{"images are listed by label", func(e *env) {
			list, err := e.Engine.Images(e.ctx)
			e.ok("Images", err)
			if !slices.ContainsFunc(list, func(i engine.Image) bool { return i.ID == e.Image && i.Labels[engine.LabelImage] != "" }) {
				e.Errorf("Images() = %+v, want %s among them with its label", list, e.Image)
			}
		}},
		{"volumes are private and keep their owner", func(e *env) {
			s := e.alice()
			e.Cleanup(func() { e.scrap(strings.Repeat("0", 64), s.VolumeID) })
			e.ok("EnsureVolume", e.Engine.EnsureVolume(e.ctx, s.VolumeID, s.UID))
			e.ok("second EnsureVolume", e.Engine.EnsureVolume(e.ctx, s.VolumeID, s.UID))
			if err := e.Engine.EnsureVolume(e.ctx, s.VolumeID, e.bob().UID); err == nil {
				e.Error("EnsureVolume gave alice's volume to bob")
			}
			theft := e.bob()
			theft.VolumeID = s.VolumeID
			if _, err := e.Engine.Create(e.ctx, theft); err == nil {
				e.Error("Create mounted alice's volume for bob")
			}
			if uid, private, exists := e.Volume(e.T, s.VolumeID); !exists || uid != s.UID || !private {
				e.Errorf("volume: uid %d, private %t, exists %t; want %d, true, true", uid, private, exists, s.UID)
			}
		}},
		{"volumes are removed, and removed again", func(e *env) {
			s := e.alice()
			e.ok("EnsureVolume", e.Engine.EnsureVolume(e.ctx, s.VolumeID, s.UID))
			e.ok("RemoveVolume", e.Engine.RemoveVolume(e.ctx, s.VolumeID))
			e.ok("second RemoveVolume", e.Engine.RemoveVolume(e.ctx, s.VolumeID))
			if _, _, exists := e.Volume(e.T, s.VolumeID); exists {
				e.Error("the volume is still there")
			}
		}},
		{"volumes are named by id only", func(e *env) {
			for _, id := range []string{"", ".", "..", "/", "../x", "a/b", "A", strings.Repeat("0", 27)} {
				if bailey.KindOf(e.Engine.EnsureVolume(e.ctx, id, 20001)) != bailey.Invalid {
					e.Errorf("EnsureVolume(%q) is not refused", id)
				}
				if bailey.KindOf(e.Engine.RemoveVolume(e.ctx, id)) != bailey.Invalid {
					e.Errorf("RemoveVolume(%q) is not refused", id)
				}
			}
			if err := e.Engine.EnsureVolume(e.ctx, bailey.NewID(), 0); bailey.KindOf(err) != bailey.Invalid {
				e.Errorf("EnsureVolume for root: %v, want a refusal", err)
			}
		}},
		{"a context that is over ends a call", func(e *env) {
			ctx, cancel := context.WithCancel(e.ctx)
			cancel()
			s := e.alice()
			if _, err := e.Engine.Create(ctx, s); err == nil {
				e.Error("Create with a cancelled context made something")
			}
			if _, err := e.Engine.List(ctx); err == nil {
				e.Error("List with a cancelled context answered")
			}
		}},
	}
}

// tenancyCases: two installations, and strangers' containers.
func tenancyCases() []testCase {
	return []testCase{
		{"list shows ours only", func(e *env) {
			foreign := e.Foreign(e.T)
			mine, hers := e.create(e.alice()), e.create(e.bob())
			got := e.list(e.Engine)
			if len(got) != 2 || !slices.Contains([]string{mine, hers}, got[0].ID) || !slices.Contains([]string{mine, hers}, got[1].ID) {
				e.Errorf("List = %+v, want %s and %s and not %s", got, mine, hers, foreign)
			}
		}},
		{"strangers' containers do not exist for us", func(e *env) {
			e.untouchable(e.Foreign(e.T))
		}},
		{"two installations do not see each other", func(e *env) {
			s := e.alice()
			id := e.start(s)
			if got := e.list(e.Other); len(got) != 0 {
				e.Errorf("the other installation lists %+v", got)
			}
			if _, err := e.Other.Inspect(e.ctx, id); err == nil {
				e.Error("the other installation can inspect ours")
			}
			e.fails("Stop by the other", e.Other.Stop(e.ctx, id), engine.ErrNotFound)
			e.ok("Remove by the other", e.Other.Remove(e.ctx, id)) // nothing of its own: nothing to do
			if _, err := e.Other.Dial(e.ctx, s.Run, s.UID, "tcp", engine.JupyterAddr); err == nil {
				e.Error("the other installation can dial ours")
			}
			if _, err := e.Other.Create(e.ctx, s); err == nil {
				e.Error("the other installation got our run's container")
			}
			if !e.status(id).Running {
				e.Error("the other installation stopped ours")
			}
			e.ready(s)
		}},
		{"ids that are none", func(e *env) {
			for _, id := range []string{"", "x", "..", "a/b", "?all=1", strings.Repeat("0", 64), strings.Repeat("g", 64)} {
				_, err := e.Engine.Inspect(e.ctx, id)
				e.fails("Inspect("+id+")", err, engine.ErrNotFound)
				e.fails("Start("+id+")", e.Engine.Start(e.ctx, id), engine.ErrNotFound)
				e.ok("Remove("+id+")", e.Engine.Remove(e.ctx, id))
			}
		}},
	}
}

// untouchable makes sure that no method does anything to a container.
func (e *env) untouchable(id string) {
	e.Helper()
	_, err := e.Engine.Inspect(e.ctx, id)
	e.fails("Inspect", err, engine.ErrNotFound)
	e.fails("Start", e.Engine.Start(e.ctx, id), engine.ErrNotFound)
	e.fails("Stop", e.Engine.Stop(e.ctx, id), engine.ErrNotFound)
	_, err = e.Engine.Exec(e.ctx, id, engine.ExecSpec{Cmd: []string{"true"}})
	e.fails("Exec", err, engine.ErrNotFound)
	_, err = e.Engine.Logs(e.ctx, id, 10, 1000)
	e.fails("Logs", err, engine.ErrNotFound)
	_, err = e.Engine.Stats(e.ctx, id)
	e.fails("Stats", err, engine.ErrNotFound)
	_, err = e.Engine.Verify(e.ctx, id, e.alice())
	e.fails("Verify", err, engine.ErrNotFound)
	e.ok("Remove", e.Engine.Remove(e.ctx, id))
	if !e.ForeignLives(e.T, id) {
		e.Error("the stranger's container no longer runs")
	}
}

func (e *env) list(in engine.Engine) []engine.Status {
	e.Helper()
	list, err := in.List(e.ctx)
	e.ok("List", err)
	return list
}
