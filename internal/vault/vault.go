// Package vault keeps the values that administrators registered: the filter
// looks for them in all that leaves a workspace, and workspaces of their class
// have them as files. It decides who may set them, writes it to the journal
// first, and tells who must know that something changed. Values go in and are
// never shown again.
package vault

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/policy"
	"github.com/baileyhq/bailey/internal/secret"
)

// minBytes is the shortest value that can be told from ordinary text.
const minBytes = 8

// A Store keeps values sealed.
type Store interface {
	SetSecret(ctx context.Context, k bailey.KnownSecret, value secret.Value) (bailey.KnownSecret, error)
	Secrets(ctx context.Context) ([]bailey.KnownSecret, error)
	SecretValues(ctx context.Context) (map[string]secret.Value, error)
	DeleteSecret(ctx context.Context, name string) error
}

// Config is what a Vault needs; all but Log is required.
type Config struct {
	Store Store
	Audit audit.Appender
	// Class reports whether there is a class of that name.
	Class func(name string) bool
	Log   *slog.Logger // nil means silence
	// Fresh asks whether somebody proved lately enough who they are to change
	// anything here; nil: nobody is asked.
	Fresh func(actor bailey.Actor) error
}

// A Vault keeps registered secrets. Its methods may be called concurrently.
type Vault struct {
	cfg Config

	mu      sync.Mutex // held while a change is made; guards changed
	changed chan struct{}
}

// New returns a Vault.
func New(cfg Config) (*Vault, error) {
	if cfg.Store == nil || cfg.Audit == nil || cfg.Class == nil {
		return nil, errors.New("vault: store, audit and class are required")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Vault{cfg: cfg, changed: make(chan struct{})}, nil
}

// A Secret is a registered secret with its value, for those inside the server
// who use it: the filter and the launch.
type Secret struct {
	Name  string
	Class string // empty: of every class
	Mode  string // one of bailey.SecretModes; empty: as for every other
	Value secret.Value
}

// Set registers a value, in place of a former one of that name. Running
// workspaces keep the file they started with; the filter knows the new value at
// once. A former value is not looked for any more: rotate it first, then
// register what replaced it. Of k, Name, Class and Mode are used; an empty Mode
// keeps the one it had. Denied for whoever is no administrator; Invalid when the
// name, the class, the mode or the value cannot be.
func (v *Vault) Set(ctx context.Context, actor bailey.Actor, k bailey.KnownSecret, value secret.Value) (bailey.KnownSecret, error) {
	name, class := k.Name, k.Class
	if err := v.allow(ctx, actor, policy.SecretManage, name); err != nil {
		return bailey.KnownSecret{}, err
	}
	if err := bailey.CheckSecretName(name); err != nil {
		return bailey.KnownSecret{}, err
	}
	if err := v.checkClass(class); err != nil {
		return bailey.KnownSecret{}, err
	}
	if k.Mode != "" && !slices.Contains(bailey.SecretModes, k.Mode) {
		return bailey.KnownSecret{}, &bailey.Error{
			Kind: bailey.Invalid, Msg: "a secret's mode is one of " + strings.Join(bailey.SecretModes, ", "),
			Hint: "without one it keeps the mode it had, or is treated as every other; to stop looking for it, remove it",
		}
	}
	if err := checkValue(value); err != nil {
		return bailey.KnownSecret{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	e := audit.Event{
		Actor: audit.By(actor), Action: audit.SecretSet, Outcome: audit.Success,
		Target: audit.Target{Kind: "secret", Name: name}, Attrs: audit.Attrs{Class: class, Mode: k.Mode},
	}
	err := v.recorded(ctx, e, func() (err error) {
		k, err = v.cfg.Store.SetSecret(ctx, bailey.KnownSecret{Name: name, Class: class, Mode: k.Mode, CreatedBy: actor.UserID}, value)
		return err
	})
	return k, err
}

// List returns the registered secrets by name, without their values. Denied
// for whoever is neither administrator nor auditor.
func (v *Vault) List(ctx context.Context, actor bailey.Actor) ([]bailey.KnownSecret, error) {
	if err := v.allow(ctx, actor, policy.SecretList, ""); err != nil {
		return nil, err
	}
	return v.cfg.Store.Secrets(ctx)
}

// Remove forgets a value: the filter no longer looks for it, and workspaces
// that start from now on do not have it. NotFound when there is none.
func (v *Vault) Remove(ctx context.Context, actor bailey.Actor, name string) error {
	if err := v.allow(ctx, actor, policy.SecretManage, name); err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	all, err := v.cfg.Store.Secrets(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(k bailey.KnownSecret) bool { return k.Name == name })
	if i < 0 {
		return &bailey.Error{Kind: bailey.NotFound, Msg: "there is no secret of that name", Hint: "bailey admin secret ls"}
	}
	return v.recorded(ctx, audit.Event{
		Actor: audit.By(actor), Action: audit.SecretRemove, Outcome: audit.Success,
		Target: audit.Target{Kind: "secret", Name: name}, Attrs: audit.Attrs{Class: all[i].Class},
	}, func() error { return v.cfg.Store.DeleteSecret(ctx, name) })
}

// Values returns every registered secret with its value, by name. It fails as a
// whole when one cannot be read. It is for the server itself and asks nobody.
func (v *Vault) Values(ctx context.Context) ([]Secret, error) {
	all, err := v.cfg.Store.Secrets(ctx)
	if err != nil {
		return nil, err
	}
	values, err := v.cfg.Store.SecretValues(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]Secret, 0, len(all))
	for _, k := range all {
		value, ok := values[k.Name]
		if !ok {
			continue // removed between the two questions
		}
		out = append(out, Secret{Name: k.Name, Class: k.Class, Mode: k.Mode, Value: value})
	}
	return out, nil
}

// ForClass returns the values that workspaces of a class have.
func (v *Vault) ForClass(ctx context.Context, class string) (map[string]secret.Value, error) {
	all, err := v.Values(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the secrets of class %s: %w", class, err)
	}
	out := map[string]secret.Value{}
	for _, s := range all {
		if s.Class == "" || s.Class == class {
			out[s.Name] = s.Value
		}
	}
	return out, nil
}

// Changed returns a channel that is closed when a secret is set or removed
// here. Ask again after each time. With several servers on one database the
// others see a change when they read again.
func (v *Vault) Changed() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changed
}

// recorded makes the event durable, then does what it says, then tells who
// waits. The caller holds mu.
func (v *Vault) recorded(ctx context.Context, e audit.Event, do func() error) error {
	if err := v.cfg.Audit.Append(ctx, e); err != nil {
		return &bailey.Error{Kind: bailey.Unavailable, Msg: "the audit journal cannot be written, so nothing was changed", Hint: "an administrator looks at the server's log", Cause: err}
	}
	err := do()
	if err != nil {
		e.Outcome = audit.Failure
		if again := v.cfg.Audit.Append(context.WithoutCancel(ctx), e); again != nil {
			v.cfg.Log.ErrorContext(ctx, "audit event not written", slog.String("action", string(e.Action)), slog.String("error", again.Error()))
		}
		return err
	}
	close(v.changed)
	v.changed = make(chan struct{})
	return nil
}

// allow asks policy; a refusal is in the journal.
func (v *Vault) allow(ctx context.Context, actor bailey.Actor, action policy.Action, name string) error {
	if policy.Decide(actor, action, policy.Thing{}) {
		if action == policy.SecretManage && v.cfg.Fresh != nil {
			return v.cfg.Fresh(actor)
		}
		return nil
	}
	if bailey.CheckSecretName(name) != nil {
		name = ""
	}
	e := audit.Event{
		Actor: audit.By(actor), Action: audit.AccessDenied, Outcome: audit.Refused, Reason: audit.NotAllowed,
		Target: audit.Target{Kind: "secret", Name: name},
	}
	if err := v.cfg.Audit.Append(ctx, e); err != nil {
		v.cfg.Log.ErrorContext(ctx, "audit event not written", slog.String("action", string(e.Action)), slog.String("error", err.Error()))
	}
	return &bailey.Error{Kind: bailey.Denied, Msg: "only administrators manage secrets", Hint: "ask one of them"}
}

func (v *Vault) checkClass(class string) error {
	if class == "" || v.cfg.Class(class) {
		return nil
	}
	return &bailey.Error{Kind: bailey.Invalid, Msg: "there is no class of that name", Hint: "bailey admin class ls shows the classes; without --class the secret is of every class"}
}

// checkValue refuses what could not be told from ordinary text: a filter that
// masks every "true" would be switched off within the hour.
func checkValue(value secret.Value) error {
	text := value.Reveal()
	trimmed := strings.TrimSpace(text)
	switch {
	case len(text) > bailey.MaxSecretBytes:
		return bailey.Errorf(bailey.Invalid, "a secret has at most %d bytes", bailey.MaxSecretBytes)
	case len(trimmed) < minBytes:
		return &bailey.Error{
			Kind: bailey.Invalid, Msg: fmt.Sprintf("the value is too short: without the spaces around it, it has fewer than %d bytes", minBytes),
			Hint: "a value this short is in ordinary text by chance, and masking it would hide that; make a longer one",
		}
	}
	different := map[rune]bool{}
	for _, r := range trimmed {
		different[r] = true
	}
	if len(different) < 4 {
		return &bailey.Error{
			Kind: bailey.Invalid, Msg: "the value has fewer than 4 different characters",
			Hint: "such a text is in ordinary output too (lines, zeros); make a random one",
		}
	}
	return nil
}
