package config

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A watch is a watched file in a test's bubble of time.
type watch struct {
	t       *testing.T
	path    string
	results <-chan Result
	kick    func()
}

// watched runs story with a file that has text and is watched.
func watched(t *testing.T, text string, story func(w watch)) {
	t.Helper()
	path := write(t, text)
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		src := Source{Path: path}
		cfg, err := Load(ctx, src)
		if err != nil {
			t.Fatal(err)
		}
		results, kick := Watch(ctx, src, cfg, slog.New(slog.DiscardHandler))
		story(watch{t, path, results, kick})
		stop()
		synctest.Wait()
		if r, open := <-results; open {
			t.Errorf("after the end: %+v, want a closed channel", r)
		}
	})
}

func (w watch) save(text string) {
	w.t.Helper()
	if err := os.WriteFile(w.path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// within waits for a result; it fails when there is none.
func (w watch) within(d time.Duration) Result {
	w.t.Helper()
	select {
	case r := <-w.results:
		return r
	case <-time.After(d):
		w.t.Fatalf("no result within %s", d)
		return Result{}
	}
}

// quiet fails when there is a result.
func (w watch) quiet(d time.Duration) {
	w.t.Helper()
	select {
	case r := <-w.results:
		w.t.Fatalf("a result that nobody asked for: %+v, %v", r.Config, r.Err)
	case <-time.After(d):
	}
}

func TestWatchTakesAChangeOver(t *testing.T) {
	watched(t, "quotas: {default: {gpus: 1}}\n", func(w watch) {
		w.quiet(time.Minute)
		w.save("quotas: {default: {gpus: 2}}\nstate: /other\nlog: {level: warn}\n")
		r := w.within(3 * time.Second)
		if r.Err != nil {
			t.Fatalf("result: %v", r.Err)
		}
		if got := *r.Config.Quotas.Default.GPUs; got != 2 {
			t.Errorf("GPUs = %d, want 2", got)
		}
		if diff := cmp.Diff([]string{"log.level", "quotas.default.gpus", "state"}, r.Changed); diff != "" {
			t.Errorf("Changed (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"log.level", "state"}, r.Restart); diff != "" {
			t.Errorf("Restart (-want +got):\n%s", diff)
		}
		w.quiet(time.Minute)

		// What waits for a restart is compared with what the process started
		// with, not with the last file.
		w.save("quotas: {default: {gpus: 3}}\nstate: /other\n")
		r = w.within(3 * time.Second)
		if diff := cmp.Diff([]string{"log.level", "quotas.default.gpus"}, r.Changed); diff != "" {
			t.Errorf("Changed (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"state"}, r.Restart); diff != "" {
			t.Errorf("Restart (-want +got):\n%s", diff)
		}
	})
}

func TestWatchInvalidThenFixed(t *testing.T) {
	watched(t, "log: {level: info}\n", func(w watch) {
		w.save("log: {level: loud}\n")
		r := w.within(3 * time.Second)
		if r.Config != nil || !strings.Contains(fmt.Sprint(r.Err), `log.level: "loud"`) {
			t.Fatalf("an invalid file: %+v, %v; want no configuration and the problem", r.Config, r.Err)
		}
		w.quiet(time.Minute) // said once
		w.save("log: {level: debug}\n")
		if r = w.within(3 * time.Second); r.Err != nil || r.Config.Log.Level != "debug" {
			t.Fatalf("the mended file: %v", r.Err)
		}
		w.save("log: {level: loud}\n")
		w.within(3 * time.Second)
		w.save("log: {level: debug}\n")
		if r = w.within(3 * time.Second); r.Err != nil || len(r.Changed) != 0 {
			t.Fatalf("back to what is in force: %v, changed %v; want a result without changes", r.Err, r.Changed)
		}
	})
}

// TestWatchHalfWritten writes a file in pieces, each of which is valid YAML and
// means something else: only the whole may take effect.
func TestWatchHalfWritten(t *testing.T) {
	whole := "quotas:\n  default: {gpus: 2}\n  users:\n    alice: {gpus: 0}\n"
	watched(t, "quotas: {default: {gpus: 1}}\n", func(w watch) {
		for n := 0; n < len(whole); n++ {
			w.save(whole[:n])
			w.quiet(900 * time.Millisecond)
		}
		w.save(whole)
		r := w.within(3 * time.Second)
		if r.Err != nil || *r.Config.Quotas.Users["alice"].GPUs != 0 {
			t.Fatalf("the whole file: %v", r.Err)
		}
	})
}

// TestWatchStalledWriter has a writer that stops in the middle for longer than
// two looks.
func TestWatchStalledWriter(t *testing.T) {
	watched(t, "quotas: {default: {gpus: 1}}\n", func(w watch) {
		w.save("quotas:\n  default: {gpus: 2") // no newline at the end
		w.quiet(4 * time.Second)
		w.save("quotas:\n  default: {gpus: 2}\n")
		if r := w.within(3 * time.Second); r.Err != nil {
			t.Fatal(r.Err)
		}
		w.save("quotas:\n  default: {gpus: 3}") // an editor without a final newline: accepted, but later
		w.quiet(4 * time.Second)
		if r := w.within(3 * time.Second); r.Err != nil || *r.Config.Quotas.Default.GPUs != 3 {
			t.Fatalf("a file without a final newline: %v", r.Err)
		}
	})
}

func TestWatchNeverTakesAnEmptyOrMissingFile(t *testing.T) {
	for name, spoil := range map[string]func(w watch){
		"emptied": func(w watch) { w.save("") },
		"blank":   func(w watch) { w.save("# later\n\n") },
		"removed": func(w watch) { _ = os.Remove(w.path) },
		"a directory": func(w watch) {
			_ = os.Remove(w.path)
			_ = os.Mkdir(w.path, 0o700)
		},
		"open to everybody": func(w watch) {
			w.save("state: /evil\n")
			_ = os.Chmod(w.path, 0o666)
		},
	} {
		t.Run(name, func(t *testing.T) {
			watched(t, "quotas: {default: {gpus: 1}}\n", func(w watch) {
				spoil(w)
				if name == "emptied" || name == "blank" || name == "removed" {
					w.quiet(3500 * time.Millisecond) // it may just be being written
				}
				r := w.within(10 * time.Second)
				if r.Config != nil || r.Err == nil {
					t.Fatalf("took effect: %+v", r)
				}
				w.quiet(time.Minute)
				_ = os.Remove(w.path)
				w.quiet(900 * time.Millisecond)
				w.save("quotas: {default: {gpus: 5}}\n")
				if r = w.within(3 * time.Second); r.Err != nil || *r.Config.Quotas.Default.GPUs != 5 {
					t.Fatalf("after it came back: %v", r.Err)
				}
			})
		})
	}
}

func TestWatchReplacedByRename(t *testing.T) {
	watched(t, "quotas: {default: {gpus: 1}}\n", func(w watch) {
		next := w.path + ".new"
		if err := os.WriteFile(next, []byte("quotas: {default: {gpus: 2}}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, w.path); err != nil {
			t.Fatal(err)
		}
		if r := w.within(3 * time.Second); r.Err != nil || *r.Config.Quotas.Default.GPUs != 2 {
			t.Fatalf("after a rename: %v", r.Err)
		}
	})
}

func TestWatchKick(t *testing.T) {
	watched(t, "quotas: {default: {gpus: 1}}\n", func(w watch) {
		w.kick()
		w.kick()
		if r := w.within(500 * time.Millisecond); r.Err != nil || len(r.Changed) != 0 {
			t.Fatalf("a kick without a change: %v, %v; want an answer without changes", r.Changed, r.Err)
		}
		w.save("quotas: {default: {gpus: 2}}\n")
		w.kick()
		if r := w.within(500 * time.Millisecond); r.Err != nil || *r.Config.Quotas.Default.GPUs != 2 {
			t.Fatalf("a kick with a change: %v", r.Err)
		}
		w.save("nonsense\n")
		w.kick()
		if r := w.within(500 * time.Millisecond); r.Err == nil {
			t.Fatal("a kick with an invalid file brought no error")
		}
		w.kick()
		if r := w.within(500 * time.Millisecond); r.Err == nil {
			t.Fatal("a second kick with an invalid file brought no error")
		}
	})
}

// TestWatchKeepsEnvironment proves that a reload is overlaid like a start.
func TestWatchKeepsEnvironment(t *testing.T) {
	path := write(t, "state: /file\n")
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer stop()
		src := Source{Path: path, Env: []string{"BAILEY_STATE=/env"}, Flags: map[string]string{"log.level": "warn"}}
		cfg, err := Load(ctx, src)
		if err != nil {
			t.Fatal(err)
		}
		results, _ := Watch(ctx, src, cfg, slog.New(slog.DiscardHandler))
		if err := os.WriteFile(path, []byte("state: /other\nlog: {level: error}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		r := <-results
		if r.Err != nil || r.Config.State != "/env" || r.Config.Log.Level != "warn" || len(r.Restart) != 0 {
			t.Errorf("reload: state %s, level %s, restart %v, %v; want the environment's and the flag's", r.Config.State, r.Config.Log.Level, r.Restart, r.Err)
		}
	})
}
