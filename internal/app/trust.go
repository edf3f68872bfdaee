package app

import (
	"context"
	"fmt"
	"runtime"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/catalogue"
	"github.com/baileyhq/bailey/internal/config"
	"github.com/baileyhq/bailey/internal/trust/policy"
	"github.com/baileyhq/bailey/internal/trust/registry"
)

// openCatalogue opens the image policy, with the key and the file that a first
// start makes, and the catalogue on it.
func (a *App) openCatalogue(f *config.Config) error {
	if _, err := catalogue.EnsureKey(f.Trust.Key); err != nil {
		return err
	}
	if f.Trust.Policy == config.DefaultPolicy {
		if err := catalogue.EnsurePolicy(f.Trust.Policy, catalogue.PublicPath(f.Trust.Key)); err != nil {
			return err
		}
	}
	live, err := policy.OpenLive(f.Trust.Policy, a.log)
	if err != nil {
		return &bailey.Error{
			Kind: bailey.Invalid, Msg: "the image policy " + f.Trust.Policy + " cannot be used: " + err.Error(),
			Hint: "nothing starts without one: correct it; docs/image-trust.md describes it", Cause: err,
		}
	}
	var layouts []string
	if f.Trust.Layouts != "" {
		layouts = []string{f.Trust.Layouts}
	}
	registries, err := registry.New(registry.Config{Credentials: credentials(f.Trust.Credentials, a.log)})
	if err != nil {
		return err
	}
	a.images, err = catalogue.New(catalogue.Config{
		Store: a.store, Engine: a.engine, Policies: live.Current, Source: registries, Audit: a.journal,
		Layouts: layouts, Transfer: a.st.path("transfer"), Key: f.Trust.Key, Fresh: a.fresh, Platform: "linux/" + runtime.GOARCH, Log: a.log,
		Changed: func(ctx context.Context) {
			if a.settings != nil {
				a.settings.refresh(context.WithoutCancel(ctx))
			}
		},
	})
	if err != nil {
		return fmt.Errorf("open the catalogue of images: %w", err)
	}
	return nil
}
