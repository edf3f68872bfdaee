package workspace_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/engine/enginetest"
)

func TestLaunch(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		w.cards.n.Store(2)
		ws, err := w.workspaces.Launch(t.Context(), w.alice, "", "gpu")
		if err != nil {
			t.Fatalf("Launch: %v", err)
		}
		if ws.State != bailey.Starting || ws.Name != "gpu" || len(ws.GPUs) != 1 {
			t.Errorf("right after Launch: %+v, want it starting with the class's name and one GPU", ws)
		}
		ws = w.awaitState(ws.ID, bailey.Running)
		w.await(func() bool { return w.get(ws.ID).SelfCheck != "" }, func() string { return "there is no self check" })

		want := []string{
			"policy done", "image done", "lease done", "create begin", "create done", "start begin", "start done",
			"verify begin", "verify done", "agent begin", "agent done", "jupyter begin", "jupyter done", "ready done",
			"selfcheck begin", "selfcheck done",
		}
		if diff := cmp.Diff(want, w.stages(ws.ID)); diff != "" {
			t.Errorf("stages (-want +got):\n%s", diff)
		}
		if got, want := w.get(ws.ID).SelfCheck, "PyTorch 2.6.0 works on 1 GPU"; got != want {
			t.Errorf("self check = %q, want %q", got, want)
		}
		route, err := w.workspaces.Route(t.Context(), w.alice, ws.Slug)
		if err != nil {
			t.Fatalf("Route: %v", err)
		}
		if got, err := w.ask(route, "/whoami"); got != "200 alice in run "+ws.RunID {
			t.Errorf("through the route: %q, %v", got, err)
		}
		launches := w.journal.has(audit.Launch)
		if len(launches) != 1 || launches[0].Actor.ID != w.alice.UserID || launches[0].Attrs.Run != ws.RunID ||
			len(launches[0].Attrs.GPUs) != 1 || launches[0].Target.ID != ws.ID {
			t.Errorf("journal: %+v, want one launch by alice with its run and GPU", launches)
		}
		if n := w.journal.createsAt[ws.RunID]; n != 0 {
			t.Errorf("%d containers had been made before the launch was in the journal", n)
		}
	})
}

// TestSpecOfARun: what a container is made from is the run's row and nothing else.
func TestSpecOfARun(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		w.stop()
		w.env = map[string]string{"JUPYTERHUB_USER_URL": "https://example.org"}
		w.settings.change("small", func(c *bailey.Class) { c.Env = map[string]string{"HTTP_PROXY": "http://127.0.0.1:3128"} })
		w.serve()
		ws := w.launch(w.alice, "one", "small")
		run, err := w.store.Run(t.Context(), ws.RunID)
		if err != nil {
			t.Fatal(err)
		}
		alice, err := w.store.UserByID(t.Context(), w.alice.UserID)
		if err != nil {
			t.Fatal(err)
		}
		got := w.engine.Specs()[ws.RunID]
		if got.JupyterToken.Reveal() != run.Token || len(run.Token) < 40 {
			t.Errorf("token of %d characters, want that of the run", len(got.JupyterToken.Reveal()))
		}
		want := engine.Spec{
			Run: ws.RunID, Workspace: ws.ID, Owner: w.alice.UserID, Name: "alice", Class: "small", Image: enginetest.FakeImage,
			UID: alice.UID, VolumeID: ws.VolumeID, CPUMillis: 1000, MemoryBytes: 2 << 30, BasePath: "/",
			Env: map[string]string{"JUPYTERHUB_USER_URL": "https://example.org", "HTTP_PROXY": "http://127.0.0.1:3128"},
		}.Defaulted()
		if got.Hash() != want.Hash() {
			t.Errorf("Spec = %+v, want %+v", got, want)
		}
		if vols := w.engine.Volumes(); vols[ws.VolumeID] != alice.UID {
			t.Errorf("volumes = %v, want %s for uid %d", vols, ws.VolumeID, alice.UID)
		}

		// Another run has another token; bob's has another uid.
		other := w.launch(w.bob, "one", "small")
		if o := w.engine.Specs()[other.RunID]; o.JupyterToken.Reveal() == run.Token || o.UID == alice.UID || o.VolumeID == ws.VolumeID {
			t.Errorf("bob's container shares token, uid or volume with alice's: %+v", o)
		}
	})
}

func TestLaunchTwiceIsOnce(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		first, err := w.workspaces.Launch(t.Context(), w.alice, "one", "small")
		if err != nil {
			t.Fatal(err)
		}
		again, err := w.workspaces.Launch(t.Context(), w.alice, "one", "")
		if err != nil || again.RunID != first.RunID {
			t.Errorf("while it starts: run %s, %v; want %s", again.RunID, err, first.RunID)
		}
		w.awaitState(first.ID, bailey.Running)
		again, err = w.workspaces.Start(t.Context(), w.alice, first.ID)
		if err != nil || again.RunID != first.RunID || again.State != bailey.Running {
			t.Errorf("while it runs: %+v, %v; want it as it is", again, err)
		}
		_, err = w.workspaces.Launch(t.Context(), w.alice, "one", "torch")
		wantKind(t, "launch with another class", err, bailey.Conflict, "small", "torch")
		if n := len(w.journal.has(audit.Launch)); n != 1 {
			t.Errorf("%d launches in the journal, want 1", n)
		}
	})
}

func TestDefaults(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws, err := w.workspaces.Launch(t.Context(), w.alice, "", "")
		if err != nil || ws.Name != "small" || ws.Class != "small" {
			t.Errorf("Launch without names: %+v, %v; want the first class, under its name", ws, err)
		}
		// One of that name is there, of another class than the default: no class was asked for.
		if _, err := w.workspaces.Create(t.Context(), w.alice, "mine", "torch"); err != nil {
			t.Fatal(err)
		}
		ws, err = w.workspaces.Launch(t.Context(), w.alice, "mine", "")
		if err != nil || ws.Class != "torch" {
			t.Errorf("Launch of an existing one: %+v, %v", ws, err)
		}
	})
}

func TestClassesAreForTheirGroups(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		if _, err := w.workspaces.Create(t.Context(), w.alice, "s", "secret"); err != nil {
			t.Errorf("alice, who is in the group: %v", err)
		}
		_, err := w.workspaces.Create(t.Context(), w.bob, "s", "secret")
		_, none := w.workspaces.Create(t.Context(), w.bob, "s", "nothing")
		wantKind(t, "bob, who is not", err, bailey.NotFound)
		if got, want := strings.ReplaceAll(shown(err), "secret", "X"), strings.ReplaceAll(shown(none), "nothing", "X"); got != want {
			t.Errorf("bob can tell a closed class (%q) from one that is not there (%q)", got, want)
		}
		for _, who := range []struct {
			actor bailey.Actor
			want  int
		}{{w.alice, 4}, {w.bob, 3}} {
			if got, err := w.workspaces.Classes(t.Context(), who.actor); len(got) != who.want || err != nil {
				t.Errorf("%s sees %d classes, %v; want %d", who.actor.Name, len(got), err, who.want)
			}
		}
		// A class that is closed to its user later on starts no more.
		ws, err := w.workspaces.Create(t.Context(), w.bob, "t", "torch")
		if err != nil {
			t.Fatal(err)
		}
		w.settings.change("torch", func(c *bailey.Class) { c.Groups = []string{"research"} })
		_, err = w.workspaces.Start(t.Context(), w.bob, ws.ID)
		wantKind(t, "start of a class that was closed", err, bailey.Conflict, "torch", "volume")
	})
}

func TestRefusals(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(w *world)
		class   string
		kind    bailey.Kind
		words   []string
		journal string // newest launch
	}{
		{
			"no digest", func(w *world) { w.settings.change("torch", func(c *bailey.Class) { c.Digest = "" }) },
			"torch", bailey.Unavailable,
			[]string{"image torch is not on this machine", "make images"},
			"none",
		},
		{
			"in the catalogue, and not approved", func(w *world) {
				w.settings.change("torch", func(c *bailey.Class) { c.Digest = "" })
				w.trust.set(func(v *verifier) {
					v.refuse = bailey.Errorf(bailey.Denied, "image torch may not start: nobody has approved it")
				})
			},
			"torch", bailey.Denied,
			[]string{"nobody has approved it"},
			"none", // the catalogue has it in the journal
		},
		{
			"image not there", func(w *world) { w.engine.SetImages() },
			"torch", bailey.Unavailable,
			[]string{"image torch is not on this machine", "make images"},
			"none",
		},
		{
			"engine down", func(w *world) { w.engine.SetDown(true) },
			"torch", bailey.Unavailable,
			[]string{"container engine does not answer", "bailey doctor"},
			"none",
		},
		{
			"no GPU", func(*world) {},
			"gpu", bailey.OverQuota,
			[]string{"GPU"},
			"refused no_gpu by alice",
		},
		{
			"quota", func(w *world) { w.settings.quota = bailey.Quota{MemoryBytes: 1 << 30} },
			"torch", bailey.OverQuota,
			[]string{"memory"},
			"refused over_quota by alice",
		},
		{
			"journal", func(w *world) { w.journal.breakDown(true) },
			"torch", bailey.Unavailable,
			[]string{"audit journal", "nothing was started"},
			"none",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inAWorld(t, func(w *world) {
				t := w.t
				tt.prepare(w)
				_, err := w.workspaces.Launch(t.Context(), w.alice, "one", tt.class)
				wantKind(t, "Launch", err, tt.kind, tt.words...)
				if got := w.journal.last(audit.Launch); got != tt.journal {
					t.Errorf("journal: %s, want %s", got, tt.journal)
				}
				time.Sleep(time.Minute)
				if n := w.engine.Calls("Create"); n != 0 {
					t.Errorf("%d containers were made all the same", n)
				}
				w.wantClean()
			})
		})
	}
}

// TestJournalBeforeStart: "an audit log that cannot be written stops the launch".
func TestUnwritableJournalStartsNothing(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws, err := w.workspaces.Create(t.Context(), w.alice, "one", "small")
		if err != nil {
			t.Fatal(err)
		}
		w.journal.breakDown(true)
		_, err = w.workspaces.Start(t.Context(), w.alice, ws.ID)
		wantKind(t, "Start", err, bailey.Unavailable, "audit journal")
		if got := w.get(ws.ID); got.State != bailey.Failed || !strings.Contains(got.Reason, "journal") {
			t.Errorf("workspace = %s, %q; want it failed, saying why", got.State, got.Reason)
		}
		w.wantClean()
		w.journal.breakDown(false)
		w.launch(w.alice, "one", "")
	})
}

func TestNamesOfStrangers(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		for _, name := range []string{
			"../../etc/passwd", "<script>alert(1)</script>", "a/b", "A", "-a", "a--b", "é", "a\x00b", strings.Repeat("a", 31), "0a",
		} {
			_, err := w.workspaces.Launch(t.Context(), w.alice, name, "small")
			wantKind(t, fmt.Sprintf("Launch(%q)", name), err, bailey.Invalid)
			_, err = w.workspaces.Launch(t.Context(), w.alice, "one", name)
			if kind := bailey.KindOf(err); kind != bailey.Invalid {
				t.Errorf("Launch with class %q: %v (%v), want Invalid", name, err, kind)
			}
			if _, err := w.workspaces.Get(t.Context(), w.alice, name); bailey.KindOf(err) != bailey.NotFound {
				t.Errorf("Get(%q): %v, want NotFound", name, err)
			}
		}
		all, err := w.workspaces.List(t.Context(), w.alice, false)
		if err != nil || len(all) != 0 {
			t.Errorf("workspaces = %+v, %v; want none", all, err)
		}
	})
}

func TestNobodyHasEndlessWorkspaces(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		var err error
		for i := range 101 {
			_, err = w.workspaces.Create(t.Context(), w.alice, fmt.Sprintf("w%d", i), "small")
			if err != nil && i < 100 {
				t.Fatalf("workspace %d: %v", i, err)
			}
		}
		wantKind(t, "the 101st", err, bailey.OverQuota, "100")
		if _, err := w.workspaces.Create(t.Context(), w.bob, "mine", "small"); err != nil {
			t.Errorf("bob's first: %v", err)
		}
	})
}

// TestFailures is about launches that cannot work: they end soon, say why to
// the owner and to the journal, and leave nothing behind.
func TestFailures(t *testing.T) {
	tests := []struct {
		name    string
		prepare func(w *world)             // before the launch
		happens func(w *world, run string) // when the container is there
		reason  []string
		action  audit.Action
		journal string
	}{
		{
			name:    "out of memory",
			prepare: func(w *world) { w.inside.set(func(in *inside) { in.mute = true }) },
			happens: func(w *world, run string) { w.engine.OOM(run) },
			reason:  []string{"ran out of memory at start", "2 GiB", "choose a bigger class"},
			action:  audit.LaunchFailed, journal: "failure out_of_memory by bailey",
		},
		{
			name:    "ends by itself",
			prepare: func(w *world) { w.inside.set(func(in *inside) { in.mute = true }) },
			happens: func(w *world, run string) { w.engine.Kill(run, 3) },
			reason:  []string{"exit code 3", "bailey logs"},
			action:  audit.LaunchFailed, journal: "failure exited by bailey",
		},
		{
			name:    "Jupyter does not answer",
			prepare: func(w *world) { w.inside.set(func(in *inside) { in.mute = true }) },
			reason:  []string{"Jupyter did not answer within 1 min"},
			action:  audit.LaunchFailed, journal: "failure start_timeout by bailey",
		},
		{
			name:    "Jupyter refuses",
			prepare: func(w *world) { w.inside.set(func(in *inside) { in.status = 500 }) },
			reason:  []string{"Jupyter did not answer within 1 min"},
			action:  audit.LaunchFailed, journal: "failure start_timeout by bailey",
		},
		{
			name:    "the agent does not listen",
			prepare: func(w *world) { w.engine.Delay("Verify", time.Second) },
			happens: func(w *world, run string) { w.engine.Plant(run, enginetest.SocketAbsent) },
			reason:  []string{"did not answer within 1 min"},
			action:  audit.LaunchFailed, journal: "failure start_timeout by bailey",
		},
		{
			name:    "another socket lies there",
			prepare: func(w *world) { w.engine.Delay("Verify", time.Second) },
			happens: func(w *world, run string) { w.engine.Plant(run, enginetest.SocketLink) },
			reason:  []string{"its socket is not what it should be"},
			action:  audit.VerifyFailed, journal: "failure mismatch by bailey",
		},
		{
			name:    "not the profile",
			prepare: func(w *world) { w.engine.Delay("Verify", time.Second) },
			happens: func(w *world, run string) {
				w.engine.Tamper(run, engine.Finding{Control: "seccomp", Want: "2", Got: "0"}, engine.Finding{Control: "capabilities", Want: "0", Got: "1"},
					engine.Finding{Control: "seccomp", Want: "a", Got: "b"})
			},
			reason: []string{"does not match the strict profile: capabilities, seccomp"},
			action: audit.VerifyFailed, journal: "failure mismatch by bailey",
		},
		{
			name:    "cannot be verified",
			prepare: func(w *world) { w.engine.FailNext("Verify", errors.New("cannot read /proc")) },
			reason:  []string{"does not match the strict profile: it could not be checked"},
			action:  audit.VerifyFailed, journal: "failure mismatch by bailey",
		},
		{
			name:    "cannot be created",
			prepare: func(w *world) { w.engine.FailNext("Create", errors.New("no space left on device")) },
			reason:  []string{"its container could not be created"},
			action:  audit.LaunchFailed, journal: "failure engine_failed by bailey",
		},
		{
			name:    "cannot be started",
			prepare: func(w *world) { w.engine.FailStarts(errors.New("cannot allocate memory")) },
			reason:  []string{"its container could not be started"},
			action:  audit.LaunchFailed, journal: "failure engine_failed by bailey",
		},
		{
			name:    "volume is somebody else's",
			prepare: func(w *world) { w.engine.FailNext("EnsureVolume", errors.New("owned by 20099")) },
			reason:  []string{"its volume could not be prepared"},
			action:  audit.LaunchFailed, journal: "failure engine_failed by bailey",
		},
		{
			name:    "image is gone since",
			prepare: func(w *world) { w.engine.FailNext("Image", nil, engine.ErrNoImage) },
			reason:  []string{"image gpu is not on this machine any more"},
			action:  audit.LaunchFailed, journal: "failure no_image by bailey",
		},
		{
			name:    "the daemon hangs",
			prepare: func(w *world) { w.engine.Delay("Create", time.Hour) },
			reason:  []string{"its container was not up within 1 min"},
			action:  audit.LaunchFailed, journal: "failure start_timeout by bailey",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inAWorld(t, func(w *world) {
				t := w.t
				w.cards.n.Store(1)
				if _, err := w.workspaces.Create(t.Context(), w.alice, "one", "gpu"); err != nil {
					t.Fatal(err)
				}
				tt.prepare(w)
				ws, err := w.workspaces.Launch(t.Context(), w.alice, "one", "gpu")
				if err != nil {
					t.Fatalf("Launch: %v", err)
				}
				if tt.happens != nil {
					w.await(func() bool { return len(w.containers()) == 1 && w.containers()[0].Running }, func() string { return "there is no container" })
					w.engine.SetLogs(ws.RunID, "Jupyter is at http://127.0.0.1:8888/?token="+w.engine.Specs()[ws.RunID].JupyterToken.Reveal()+"\ndear diary\n")
					tt.happens(w, ws.RunID)
				}
				failed := w.awaitState(ws.ID, bailey.Failed)
				for _, words := range tt.reason {
					if !strings.Contains(failed.Reason, words) {
						t.Errorf("reason %q does not say %q", failed.Reason, words)
					}
				}
				if got := w.journal.last(tt.action); got != tt.journal {
					t.Errorf("journal: %s, want %s", got, tt.journal)
				}
				stages := w.stages(ws.ID)
				if last := stages[len(stages)-1]; last != "failed failed" {
					t.Errorf("last stage is %q of %q, want failed", last, stages)
				}
				_, err = w.workspaces.Route(t.Context(), w.alice, ws.Slug)
				wantKind(t, "Route", err, bailey.Conflict, failed.Reason)
				w.wantClean()
				if tt.happens != nil {
					wantLastWords(w, ws)
				}
				// And nothing of it stands in the way of the next attempt.
				w.inside.set(func(in *inside) { in.mute, in.status = false, 0 })
				w.engine.FailStarts(nil)
				w.engine.Delay("Create", 0)
				w.launch(w.alice, "one", "")
			})
		})
	}
}

// wantLastWords: what a failed container wrote is its owner's to read, and has
// no token in it. Whoever may only see that the workspace exists sees none of it.
func wantLastWords(w *world, ws bailey.Workspace) {
	w.t.Helper()
	t := w.t
	synctest.Wait()
	out, err := w.workspaces.Logs(t.Context(), w.alice, ws.ID, 100)
	if want := "Jupyter is at http://127.0.0.1:8888/?token=[token]\ndear diary\n"; string(out) != want || err != nil {
		t.Errorf("logs after the failure: %q, %v; want %q", out, err, want)
	}
	if out, err := w.workspaces.Logs(t.Context(), w.alice, ws.ID, 1); string(out) != "dear diary\n" || err != nil {
		t.Errorf("last line of the logs: %q, %v", out, err)
	}
	_, err = w.workspaces.Logs(t.Context(), w.root, ws.ID, 100)
	wantKind(t, "logs for the administrator", err, bailey.Denied)
	for _, who := range []bailey.Actor{w.alice, w.root} {
		stages, err := w.workspaces.Stages(t.Context(), who, ws.ID, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, st := range stages {
			if strings.Contains(st.Detail, "dear diary") {
				t.Errorf("%s reads the container's output in stage %+v", who.Name, st)
			}
		}
	}
}

// TestImageSwapped: the image that was looked at is the one that runs.
func TestImageSwapped(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		digest := "sha256:" + strings.Repeat("b", 64)
		approved := enginetest.Image{Image: engine.Image{ID: enginetest.FakeImage}, Digest: digest}
		evil := enginetest.Image{Image: engine.Image{ID: "sha256:" + strings.Repeat("e", 64)}, Digest: digest}
		w.engine.SetImages(approved)
		w.settings.change("small", func(c *bailey.Class) { c.Digest = digest })
		w.engine.Delay("Create", time.Second)
		ws, err := w.workspaces.Launch(t.Context(), w.alice, "one", "small")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(500 * time.Millisecond)
		w.engine.SetImages(evil)
		failed := w.awaitState(ws.ID, bailey.Failed)
		if !strings.Contains(failed.Reason, "another image") || w.journal.last(audit.VerifyFailed) != "failure mismatch by bailey" {
			t.Errorf("reason %q, journal %s", failed.Reason, w.journal.last(audit.VerifyFailed))
		}
		if n := w.engine.Calls("Start"); n != 0 {
			t.Errorf("it was started %d times", n)
		}
		w.wantClean()
	})
}

func TestSelfChecks(t *testing.T) {
	says := func(line string, code int) func(enginetest.ExecCall) int {
		return func(call enginetest.ExecCall) int {
			_, _ = fmt.Fprintln(call.Stdout, line)
			return code
		}
	}
	tests := []struct {
		name, class string
		check       func(enginetest.ExecCall) int
		want        string
	}{
		{"torch", "torch", nil, "PyTorch 2.6.0 works"},
		{"cuda", "gpu", nil, "PyTorch 2.6.0 works on 1 GPU"},
		{"python", "small", says(`{"version":"3.13.1"}`, 0), "Python 3.13.1 with IPython and Jupyter works"},
		{"no card", "gpu", says(`{"version":"2.6.0","cuda":false,"devices":0}`, 0), "failed: PyTorch 2.6.0 is there but sees no GPU; 1 GPU leased"},
		{"too many cards", "gpu", says(`{"version":"2.6.0","cuda":true,"devices":8,"sum":8}`, 0), "failed: PyTorch 2.6.0 sees 8 GPUs; 1 leased"},
		{"wrong sum", "torch", says(`{"version":"2.6.0","sum":7}`, 0), "failed: PyTorch 2.6.0 computes a 2×2 product wrongly"},
		{"no torch", "torch", func(call enginetest.ExecCall) int {
			_, _ = fmt.Fprint(call.Stderr, "Traceback (most recent call last):\n  File \"<string>\", line 1\nModuleNotFoundError: No module named 'torch'\n")
			return 1
		}, "failed: PyTorch cannot be used: ModuleNotFoundError (exit code 1)"},
		{"lies", "torch", says(`{"version":"<b>1</b>","sum":8}`, 0), "PyTorch (unknown version) works"},
		{"garbage", "torch", says(strings.Repeat("A", 1<<20), 0), "failed: its output is not what the check prints"},
		{"hangs", "torch", func(call enginetest.ExecCall) int { <-call.Hangup; return 0 }, "failed: it did not finish within 3 min"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			inAWorld(t, func(w *world) {
				t := w.t
				w.cards.n.Store(1)
				w.inside.set(func(in *inside) { in.check = tt.check })
				ws := w.launch(w.alice, "one", tt.class)
				w.await(func() bool { return w.get(ws.ID).SelfCheck != "" }, func() string { return "there is no result" })
				if got := w.get(ws.ID); got.SelfCheck != tt.want || got.State != bailey.Running {
					t.Errorf("self check = %q (%s), want %q and a workspace that runs", got.SelfCheck, got.State, tt.want)
				}
			})
		})
	}
}

// TestSelfCheckNone: a class without a check has no stage for it, and one that
// ends during its check ends.
func TestSelfCheckStopsWithItsRun(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		w.inside.set(func(in *inside) {
			in.check = func(call enginetest.ExecCall) int { <-call.Hangup; return 0 }
		})
		ws := w.launch(w.alice, "one", "torch")
		begin := time.Now()
		if _, err := w.workspaces.Stop(t.Context(), w.alice, ws.ID); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 15*time.Second {
			t.Errorf("Stop waited %s for the check", took)
		}
		if got := w.get(ws.ID).SelfCheck; got != "" {
			t.Errorf("a check that was not finished says %q", got)
		}
		none := w.launch(w.alice, "two", "secret")
		time.Sleep(time.Minute)
		for _, st := range w.stages(none.ID) {
			if strings.HasPrefix(st, "selfcheck") {
				t.Errorf("a class without a check has stage %q", st)
			}
		}
	})
}
