// Package filter decides, for each way on which something enters or leaves a
// workspace, what of it is text, which rules hold for it, and what happens
// when one matches: which messages go on and in which form, when a kernel is
// interrupted, when a connection ends. It finds nothing itself (package inspect
// does) and reads no socket (the doors do).
//
// In doubt it refuses: what cannot be read in exactly one way does not pass,
// and when the engine fails, nothing passes.
package filter

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/baileyhq/bailey/internal/inspect"
	"github.com/baileyhq/bailey/internal/inspect/exact"
	"github.com/baileyhq/bailey/internal/jupyter"
	"github.com/baileyhq/bailey/internal/secret"
)

// Settings say how strict the filter is, for one class of workspaces. The
// zero Settings mask.
type Settings struct {
	// Mode is the mode of rules that say none themselves; Unset means Mask.
	// Off leaves everything that passes unread, and no rule is sterner than
	// LogOnly or Alert.
	Mode inspect.Mode
	// TrustInput leaves out what people send into a workspace.
	TrustInput bool
	// Sources says what becomes of secrets in files that are edited.
	Sources Sources
	// Rooms lets shared documents pass, which nobody can look into.
	Rooms      bool
	AllowPaths []string                // below these files are only searched for known secrets
	Rules      map[string]inspect.Mode // by rule id
	Allow      []inspect.Allowance
	Sampling   inspect.Sampling
}

// Sources says what becomes of secrets in sources and text files, which are
// saved again from what the editor was shown.
type Sources string

// The ways. The zero Sources is placeholders.
const (
	Placeholders Sources = "placeholder" // a mark stands for the text, and becomes it again when the file is saved
	MaskSources  Sources = "mask"        // masked; saving what was masked is refused
	BlockSources Sources = "block"       // such a file does not open
	AlertSources Sources = "alert"       // it passes, and is reported
)

// A Subject is whose traffic it is.
type Subject struct {
	UserID, User           string
	WorkspaceID, Workspace string
	Class                  string
	Run                    string
}

// A Route is a way in or out of a workspace.
type Route string

// The routes.
const (
	Kernel   Route = "kernel"
	Terminal Route = "terminal"
	Events   Route = "events"
	Socket   Route = "websocket" // any other WebSocket
	Contents Route = "contents"
	Files    Route = "files"
	Convert  Route = "nbconvert"
	Page     Route = "http" // any other answer or request
	SSH      Route = "ssh"
)

// A Finding is something that a rule found on its way. It never holds the text.
type Finding struct {
	Subject
	Route  Route
	Input  bool // on its way into the workspace
	Shadow bool // found by rules on trial, which do nothing
	Rule   string
	Mode   inspect.Mode
	Length int64
	Sum    string // keyed: equal for equal values, and tells nothing else
	// Sampled is how many bytes of a long stream some rules were not applied
	// to; then the other fields are empty.
	Sampled int64
	// Failed says that a message was refused because it could not be read
	// ("malformed"), or the engine failed ("engine").
	Failed string
}

// Config is what a Filter needs. Rules and Report are required.
type Config struct {
	Rules    *inspect.Set
	Key      secret.Value // keys placeholders; random if empty
	Settings func(class string) Settings
	// Secrets returns the known secrets of a workspace: what an administrator
	// registered for its class. It is asked again after [Filter.Refresh].
	Secrets func(class string) map[string]secret.Value
	// SecretModes returns their modes, by name, for those that have one of their
	// own. Settings that name them go before. nil means none has.
	SecretModes func(class string) map[string]inspect.Mode
	// Report is told of every finding, from whichever goroutine made it. It
	// must not wait.
	Report func(Finding)
	Log    *slog.Logger
}

// A Filter holds the rules in force. It may be used concurrently.
type Filter struct {
	cfg   Config
	key   secret.Value
	exact *inspect.Set // no rules: for what is no text

	mu      sync.Mutex // held while an edition is made
	edition atomic.Pointer[edition]
	number  uint64
}

// An edition is a set of rules with its settings, resolved per class.
type edition struct {
	number uint64
	active *inspect.Set
	shadow *inspect.Set // nil: none is on trial

	mu      sync.Mutex // guards classes
	classes map[string]*rules
}

// rules are what holds for one class.
type rules struct {
	number   uint64
	settings Settings
	set      *inspect.Set
	shadow   *inspect.Set
	exact    *inspect.Set // no rules, for what is no text: known secrets, by their modes
	ends     *inspect.Set // the same, where nothing can be masked: what should be ends it
	secrets  map[string]secret.Value
}

// New returns a Filter with the given rules in force.
func New(cfg Config) (*Filter, error) {
	if cfg.Rules == nil || cfg.Report == nil {
		return nil, errors.New("filter: Rules and Report are required")
	}
	if cfg.Settings == nil {
		cfg.Settings = func(string) Settings { return Settings{} }
	}
	if cfg.Secrets == nil {
		cfg.Secrets = func(string) map[string]secret.Value { return nil }
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	none, err := inspect.Compile(inspect.Config{NoDefaults: true})
	if err != nil {
		return nil, fmt.Errorf("filter: %w", err)
	}
	f := &Filter{cfg: cfg, key: cfg.Key, exact: none}
	if f.key.Empty() {
		f.key = secret.Random(32)
	}
	f.publish(&edition{active: cfg.Rules})
	return f, nil
}

// publish puts an edition in force. Streams that are open go on under the
// rules that they began with until nothing of theirs waits. The caller holds
// mu, or is New.
func (f *Filter) publish(e *edition) {
	f.number++
	e.number, e.classes = f.number, map[string]*rules{}
	f.edition.Store(e)
}

// Activate puts a set in force and ends a trial.
func (f *Filter) Activate(set *inspect.Set) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.publish(&edition{active: set})
}

// Shadow puts a set on trial beside the one in force: what it finds is
// reported, and nothing else comes of it. A nil set ends the trial.
func (f *Filter) Shadow(set *inspect.Set) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.publish(&edition{active: f.edition.Load().active, shadow: set})
}

// Refresh asks for settings and secrets again.
func (f *Filter) Refresh() {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.edition.Load()
	f.publish(&edition{active: old.active, shadow: old.shadow})
}

// Sets returns the sets in force and on trial; the latter may be nil.
func (f *Filter) Sets() (active, shadow *inspect.Set) {
	e := f.edition.Load()
	return e.active, e.shadow
}

// class returns what holds for a class.
func (f *Filter) class(name string) *rules {
	e := f.edition.Load()
	e.mu.Lock()
	defer e.mu.Unlock()
	if r := e.classes[name]; r != nil {
		return r
	}
	s := f.cfg.Settings(name)
	o := inspect.Overrides{
		Default: cmp.Or(s.Mode, inspect.Mask), Modes: s.Rules, Exact: cmp.Or(s.Mode, inspect.Mask), Allow: s.Allow, AllowPaths: s.AllowPaths,
	}
	if s.Mode == inspect.LogOnly || s.Mode == inspect.Alert {
		o.Ceiling = s.Mode
	}
	if f.cfg.SecretModes != nil {
		o.Modes = maps.Clone(o.Modes)
		for secretName, mode := range f.cfg.SecretModes(name) {
			if id := "secret:" + secretName; o.Modes[id] == inspect.Unset {
				if o.Modes == nil {
					o.Modes = map[string]inspect.Mode{}
				}
				o.Modes[id] = mode
			}
		}
	}
	r := &rules{number: e.number, settings: s, set: e.active.With(o), secrets: f.cfg.Secrets(name)}
	r.exact, r.ends = f.exact.With(o), f.exact.With(ending(o))
	if e.shadow != nil {
		o.Ceiling = inspect.LogOnly
		r.shadow = e.shadow.With(o)
	}
	e.classes[name] = r
	return r
}

// ending returns the overrides for bytes in which nothing can be masked: what
// should be, ends them.
func ending(o inspect.Overrides) inspect.Overrides {
	o.Modes = maps.Clone(o.Modes)
	for id, mode := range o.Modes {
		if mode == inspect.Mask {
			o.Modes[id] = inspect.Block
		}
	}
	if o.Exact == inspect.Mask {
		o.Exact = inspect.Block
	}
	return o
}

// For returns the Scope of one run of a workspace. secrets are those that
// belong to it alone, by name, such as its run's token.
func (f *Filter) For(s Subject, secrets map[string]secret.Value) *Scope {
	return &Scope{filter: f, subject: s, own: secrets}
}

// A Scope is one run of a workspace as the filter sees it. It may be used
// concurrently.
type Scope struct {
	filter  *Filter
	subject Subject
	own     map[string]secret.Value

	now atomic.Pointer[view]

	mu     sync.Mutex // guards the rest
	parked map[string]*parkedStreams

	unmasks unmasks
}

// A view is what holds for a Scope at present.
type view struct {
	*rules
	exact *exact.Set
}

// view returns what holds now.
func (s *Scope) view() *view {
	v := s.now.Load()
	if v != nil && v.number == s.filter.edition.Load().number {
		return v
	}
	r := s.filter.class(s.subject.Class)
	var known []exact.Secret
	for _, secrets := range []map[string]secret.Value{s.own, r.secrets} {
		for _, name := range slices.Sorted(maps.Keys(secrets)) {
			known = append(known, exact.Secret{Name: name, Value: secrets[name]})
		}
	}
	set, weak := exact.New(known)
	for _, w := range weak {
		s.filter.cfg.Log.Warn("a known secret is too weak to look for", slog.String("reason", w.String()))
	}
	v = &view{rules: r, exact: set}
	s.now.Store(v)
	return v
}

// Off reports whether nothing of this workspace is looked at.
func (s *Scope) Off() bool { return s.view().settings.Mode == inspect.Off }

// ScanInput reports whether what people send into it is looked at.
func (s *Scope) ScanInput() bool { return !s.view().settings.TrustInput }

// Rooms reports whether shared documents pass, unseen.
func (s *Scope) Rooms() bool { return s.view().settings.Rooms }

// A way is a direction of a route, which findings are reported under.
type way struct {
	scope *Scope
	route Route
	input bool
	path  string
}

func (w way) scan(v *view, kind inspect.Kind) inspect.ScanConfig {
	return inspect.ScanConfig{Exact: v.exact, User: w.scope.subject.User, Path: w.path, Kind: kind}
}

func (w way) report(f inspect.Finding, shadow bool) {
	w.scope.filter.cfg.Report(Finding{
		Subject: w.scope.subject, Route: w.route, Input: w.input, Shadow: shadow,
		Rule: f.Rule, Mode: f.Mode, Length: f.Length, Sum: f.Sum.String(),
	})
}

func (w way) failed(what string) {
	w.scope.filter.cfg.Report(Finding{Subject: w.scope.subject, Route: w.route, Input: w.input, Failed: what})
}

// shortest is the length below which no text can be anything: the shortest
// known secret has eight letters and digits.
const shortest = 8

// text returns a whole text as it may pass. Text on its way in is not changed:
// masks would break programs; only a rule with mode block stops it.
func (w way) text(v *view, text []byte) ([]byte, error) {
	return w.textBy(v.set, v, text)
}

func (w way) textBy(set *inspect.Set, v *view, text []byte) ([]byte, error) {
	if len(text) < shortest {
		return text, nil
	}
	cfg := w.scan(v, inspect.Document)
	out, found, err := set.Redact(cfg, text)
	for _, f := range found {
		w.report(w.asInput(f), false)
	}
	if v.shadow != nil {
		for _, f := range v.shadow.Scan(cfg, text) {
			w.report(f, true)
		}
	}
	if err != nil {
		return nil, err
	}
	if w.input || len(found) == 0 {
		return text, nil
	}
	return out, nil
}

// quiet reports whether nothing can be found in any string of raw, which is
// JSON. Lists of strings that mean their concatenation are not joined.
func (w way) quiet(v *view, raw []byte) bool {
	if !jupyter.Plain(raw) {
		return false
	}
	cfg := w.scan(v, inspect.Document)
	return v.set.Quiet(cfg, raw) && (v.shadow == nil || v.shadow.Quiet(cfg, raw))
}

// asInput is a finding as it is reported: what was masked on its way out was
// only seen on its way in.
func (w way) asInput(f inspect.Finding) inspect.Finding {
	if w.input && f.Mode == inspect.Mask {
		f.Mode = inspect.Alert
	}
	return f
}

// binary returns bytes that are no text as they may pass: known secrets are
// overwritten in place, which keeps whatever structure there is.
func (w way) binary(v *view, data []byte) []byte {
	if w.input || v.exact == nil {
		return data
	}
	found := v.rules.exact.Scan(w.scan(v, inspect.Document), data)
	if len(found) == 0 {
		return data
	}
	data = slices.Clone(data)
	for _, f := range found {
		w.report(f, false)
		if f.Mode < inspect.Mask {
			continue
		}
		for i := f.Offset; i < f.Offset+f.Length; i++ {
			data[i] = '*'
		}
	}
	return data
}

// stream opens a stream that continues over several messages.
func (w way) stream(v *view, kind inspect.Kind, columns, rows int) *inspect.Stream {
	cfg := inspect.StreamConfig{Set: v.set, ScanConfig: w.scan(v, kind), Sampling: v.settings.Sampling}
	cfg.Columns, cfg.Rows = columns, rows
	cfg.Report = func(f inspect.Finding) { w.report(w.asInput(f), false) }
	return inspect.NewStream(cfg)
}

// shadowed opens the same stream for the rules on trial; nil if there are none.
func (w way) shadowed(v *view, kind inspect.Kind) *inspect.Stream {
	if v.shadow == nil {
		return nil
	}
	return inspect.NewStream(inspect.StreamConfig{
		Set: v.shadow, ScanConfig: w.scan(v, kind), Report: func(f inspect.Finding) { w.report(f, true) },
	})
}

// A Refusal says that something may not pass, in words for whoever sent or
// wanted it.
//
//nolint:errname // a Refusal is a decision first
type Refusal struct {
	Rule   string // the rule that matched, or ""
	Reason string
}

// Error implements error.
func (r *Refusal) Error() string { return r.Reason }

// refusal makes a Refusal of what went wrong, and reports it.
func (w way) refusal(err error) *Refusal {
	if r, ok := errors.AsType[*Refusal](err); ok {
		return r
	}
	if b, ok := errors.AsType[*inspect.BlockedError](err); ok {
		return &Refusal{b.Rule, "blocked by the filter: rule " + b.Rule}
	}
	if errors.Is(err, jupyter.ErrMalformed) {
		w.failed("malformed")
		return &Refusal{Reason: "refused by the filter: " + err.Error()}
	}
	w.failed("engine")
	return &Refusal{Reason: "the filter failed; nothing passes unseen"}
}

// errPanic is a failure of the engine.
var errPanic = errors.New("the engine failed")

// guarded runs f, and makes an error of a panic: whatever goes wrong while
// looking at hostile bytes must not let them pass, nor end the server.
func (w way) guarded(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			// What p says may hold parts of the text; its type and the place do not.
			w.scope.filter.cfg.Log.Error("filter failed", slog.String("route", string(w.route)),
				slog.String("panic", fmt.Sprintf("%T", p)), slog.String("stack", string(debug.Stack())))
			err = errPanic
		}
	}()
	return f()
}

// visit is how the texts of a message are looked at.
func (w way) visit(v *view) jupyter.Visit {
	return func(p jupyter.Place, text []byte) ([]byte, error) {
		if p.Kind == jupyter.Bundle && isImage(p.MIME, text) {
			return w.textBy(v.rules.exact, v, text)
		}
		return w.text(v, text)
	}
}

// isImage reports whether text is an image in base64, as the type says. Text
// under an image's name is text; SVG is text by itself.
func isImage(mime string, text []byte) bool {
	for kind, magic := range map[string]string{
		"image/png":  "iVBORw0KGgo",
		"image/jpeg": "/9j/",
		"image/gif":  "R0lGOD",
		"image/webp": "UklGR",
		"image/bmp":  "Qk",
	} {
		if mime == kind && len(text) >= len(magic) && string(text[:len(magic)]) == magic {
			return isBase64(text)
		}
	}
	return false
}

func isBase64(text []byte) bool {
	for _, c := range text {
		if (c|0x20 < 'a' || c|0x20 > 'z') && (c < '0' || c > '9') && c != '+' && c != '/' && c != '=' && c != '\n' && c != '\r' {
			return false
		}
	}
	return true
}

// parkFor is how long what waits of a connection's streams is kept after its
// end: clients come back within seconds, and get what comes next.
const parkFor = 2 * time.Minute

type parkedStreams struct {
	streams map[streamKey]*printed
	at      time.Time
}

// park keeps the streams of a connection that ended, for the one that follows.
func (s *Scope) park(key string, streams map[streamKey]*printed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.parked == nil {
		s.parked = map[string]*parkedStreams{}
	}
	maps.DeleteFunc(s.parked, func(_ string, p *parkedStreams) bool { return time.Since(p.at) > parkFor })
	if len(streams) > 0 && len(s.parked) < 64 {
		s.parked[key] = &parkedStreams{streams, time.Now()}
	}
}

// resume returns the streams that were parked under key, and forgets them.
func (s *Scope) resume(key string) map[streamKey]*printed {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.parked[key]
	delete(s.parked, key)
	if p == nil || time.Since(p.at) > parkFor {
		return nil
	}
	return p.streams
}
