package config

import (
	"bytes"
	"context"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// How often the file is looked at, and how often a new content must have been
// seen unchanged before it counts.
const (
	lookEvery    = time.Second
	lookAgain    = 100 * time.Millisecond // after a kick
	looksStable  = 2
	looksUnsound = 5 // a file that is gone, empty or does not end with a newline: probably still being written
)

// A Result is what a change of the file led to: a new configuration, or why the
// old one stays in force.
type Result struct {
	Config  *Config  // in force from now on; nil when Err is set
	Err     error    // *[Errors]: the old configuration stays in force
	Changed []string // paths whose values differ from those before, sorted
	Restart []string // paths that differ from what the process started with but need a restart to take effect, sorted
}

// Watch looks at the configuration file every second and sends a [Result]
// whenever its content has changed and settled: the same over two looks, and
// over five when it looks half-written. A file that vanished or became empty
// never takes effect. kick makes it look at once and answer in any case, as for
// SIGHUP. The channel is closed when ctx ends. current is the configuration in
// force; src is what it was loaded from.
func Watch(ctx context.Context, src Source, current *Config, log *slog.Logger) (results <-chan Result, kick func()) {
	w := &watcher{
		src: src, log: log, started: current, current: current,
		handled: current.seen.sum, results: make(chan Result), kicked: make(chan struct{}, 1),
	}
	go w.run(ctx)
	return w.results, func() {
		select {
		case w.kicked <- struct{}{}:
		default: // one is waiting already
		}
	}
}

// A watcher belongs to its goroutine, except kicked.
type watcher struct {
	src     Source
	log     *slog.Logger
	started *Config // what the process runs on, as far as it needs a restart
	current *Config // in force

	handled [32]byte // content that is in force or was answered
	pending [32]byte // content that was seen last
	looks   int      // how often in a row

	results chan Result // closed by run
	kicked  chan struct{}
}

func (w *watcher) run(ctx context.Context) {
	defer close(w.results)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var again <-chan time.Time // set while a kick waits for its second look
	force := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.kicked:
			force, w.looks = true, 0
		case <-again:
		case <-tick.C:
		}
		again = nil
		settled := w.look(ctx, force)
		if force = force && !settled; force {
			again = time.After(lookAgain)
		}
	}
}

// look looks once and answers if there is something to answer. It reports
// whether the file has settled.
func (w *watcher) look(ctx context.Context, force bool) bool {
	now := lookAt(w.current.file)
	if now.sum == w.pending {
		w.looks++
	} else {
		w.pending, w.looks = now.sum, 1
	}
	if now.sum == w.handled && !force {
		return true
	}
	unsound := now.missing || blank(now.data) && now.err == nil || now.err == nil && !bytes.HasSuffix(now.data, []byte("\n"))
	need := looksStable
	if unsound && now.sum != w.current.seen.sum {
		need = looksUnsound
	}
	if w.looks < need {
		w.log.DebugContext(ctx, "configuration file changed, waiting until it settles", slog.String("file", w.current.file))
		return false
	}
	w.handled = now.sum
	r := w.answer(now)
	if r.Config != nil {
		w.current = r.Config
	}
	select {
	case w.results <- r:
	case <-ctx.Done():
	}
	return true
}

// answer turns a settled look into a result.
func (w *watcher) answer(now look) Result {
	path := w.current.file
	switch same := now.sum == w.current.seen.sum; {
	case same && now.err == nil:
		// What is in force stands in the file again, or somebody kicked.
		return Result{Config: w.current, Restart: restart(w.started, w.current)}
	case now.missing:
		return Result{Err: &Errors{File: path, Problems: []Problem{{
			Where: path, What: "the file is gone", Why: "the configuration that was read from it stays in force until there is a new one",
			Fix: "put it back; a restart without it would run on the defaults or not at all",
		}}}}
	case now.err != nil:
		return Result{Err: &Errors{File: path, Problems: []Problem{*now.err}}}
	case blank(now.data):
		return Result{Err: &Errors{File: path, Problems: []Problem{{
			Where: path, What: "the file has become empty", Why: "that is how a full disk and an interrupted copy look; the configuration read before stays in force",
			Fix: "put the content back, or write {} if you mean the defaults",
		}}}}
	}
	next, err := load(w.src, path, now)
	if err != nil {
		return Result{Err: err}
	}
	return Result{Config: next, Changed: differ(w.current, next, func(string) bool { return true }), Restart: restart(w.started, next)}
}

// blank reports whether there is nothing but space and comments.
func blank(data []byte) bool {
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			return false
		}
	}
	return true
}

// restart lists what differs and does not take effect in a running server.
func restart(started, next *Config) []string {
	return differ(started, next, func(path string) bool { return !live(path) })
}

// live reports whether a change of path takes effect without a restart.
func live(path string) bool {
	root := path[:strings.IndexAny(path+".", ".[")]
	for f := range reflect.TypeFor[Config]().Fields() {
		if f.Tag.Get("yaml") == root {
			return f.Tag.Get("reload") == "live"
		}
	}
	return false
}

// differ lists the paths that keep accepts and whose values differ, sorted.
func differ(a, b *Config, keep func(path string) bool) []string {
	was, is := a.flat(), b.flat()
	paths := map[string]bool{}
	for path, value := range was {
		if other, ok := is[path]; !ok || other != value {
			paths[path] = true
		}
	}
	for path := range is {
		if _, ok := was[path]; !ok {
			paths[path] = true
		}
	}
	maps.DeleteFunc(paths, func(path string, _ bool) bool { return !keep(path) })
	return slices.Sorted(maps.Keys(paths))
}
