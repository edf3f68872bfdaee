// Package app builds the server from its rooms, runs it and takes it down in
// order. It is the one place that says which implementation stands behind an
// interface.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/api"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/catalogue"
	"github.com/baileyhq/bailey/internal/company"
	"github.com/baileyhq/bailey/internal/config"
	"github.com/baileyhq/bailey/internal/console"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/edge/acme"
	"github.com/baileyhq/bailey/internal/egress"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/engine/docker"
	"github.com/baileyhq/bailey/internal/gatehouse"
	"github.com/baileyhq/bailey/internal/gateway"
	"github.com/baileyhq/bailey/internal/gpu"
	"github.com/baileyhq/bailey/internal/guard"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/jupyterhub"
	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/sshgate"
	"github.com/baileyhq/bailey/internal/sshlive"
	"github.com/baileyhq/bailey/internal/store"
	"github.com/baileyhq/bailey/internal/vault"
	"github.com/baileyhq/bailey/internal/witness"
	"github.com/baileyhq/bailey/internal/workspace"
)

// grace is how long open requests and tunnels may take to end at a stop.
const grace = 10 * time.Second

// Config is what an App is built from.
type Config struct {
	File   *config.Config  // the checked configuration
	Source config.Source   // where it came from, to read it again
	Reload <-chan struct{} // asks for an immediate look at the file (SIGHUP); may be nil
	Demo   bool            // small classes, for a trial
	Agent  string          // path of the bailey-agent binary
	Log    *slog.Logger

	// Admin makes the account "admin" with this password instead of a set-up
	// link; empty for a person.
	Admin secret.Value

	// Engine stands in for Docker in tests; nil means Docker.
	Engine engine.Engine
}

// An App is a built server. New opened what it needs; Run closes it.
type App struct {
	cfg        Config
	log        *slog.Logger
	st         *state
	journal    *audit.Journal
	store      *store.Store
	engine     engine.Engine
	images     *catalogue.Service
	settings   *settings
	egress     *egress.Proxy
	bans       *gatehouse.Keeper
	identity   *identity.Service
	company    *company.Service
	vault      *vault.Vault
	workspaces *workspace.Service
	sshLive    *sshlive.Registry // the SSH sessions of this moment
	witness    *witness.Service
	filtering  *filtering
	origins    *edge.Origins
	certs      *edge.Certs
	issuer     *acme.Issuer // nil: no authority is asked
	gateway    *gateway.Gateway
	web        *edge.Server
	ssh        *sshgate.Gate // nil: the configuration has none
	sshLn      net.Listener
	metrics    *http.Server
	metricsLn  net.Listener
	sshAt      bailey.SSHDoor // where clients find the SSH door; zero without one
	setup      secret.Value
	closers    []func() error
}

// New opens everything in dependency order; when something fails, what was
// opened is closed again, last first. The listeners are open when it returns,
// nothing is served yet.
//
//nolint:funlen // one straight line in dependency order is easier to read than a chain of helpers
func New(ctx context.Context, cfg Config) (_ *App, err error) {
	a := &App{cfg: cfg, log: cfg.Log}
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	f := cfg.File

	if a.st, err = openState(f.State); err != nil {
		return nil, err
	}
	a.onClose(a.st.close)

	if a.journal, err = audit.Open(audit.Config{Dir: a.st.path("audit"), Log: a.log}); err != nil {
		return nil, fmt.Errorf("open the audit journal: %w", err)
	}
	a.onClose(a.journal.Close)

	url, err := f.DatabaseURL()
	if err != nil {
		return nil, err
	}
	if a.store, err = store.Open(ctx, store.Config{
		URL: url.Reveal(), Path: a.st.path("bailey.db"), Key: a.st.key("store seal"), Log: a.log,
	}); err != nil {
		return nil, err
	}
	a.onClose(a.store.Close)

	if a.engine = cfg.Engine; a.engine == nil {
		agent, err := a.st.installAgent(cfg.Agent)
		if err != nil {
			return nil, err
		}
		if a.engine, err = docker.New(docker.Config{
			Host: f.Docker.Host, Instance: a.st.instance, Root: a.st.dir, AgentPath: agent, Log: a.log,
			Credentials: credentials(f.Trust.Credentials, a.log),
		}); err != nil {
			return nil, err
		}
	}
	a.onClose(a.engine.Close)

	gpus, err := gpu.New(gpu.Config{Mode: gpu.Mode(f.GPUs.Source), Devices: devices(f)})
	if err != nil {
		return nil, err
	}
	if err := a.openCatalogue(f); err != nil {
		return nil, err
	}
	a.settings = newSettings(a.engine, gpus, a.images.Names, cfg.Demo, a.log)
	a.images.Scan(ctx)
	a.settings.set(ctx, f)

	if a.egress, err = egress.New(ctx, egress.Config{Store: a.store, Audit: a.journal, Log: a.log, Fresh: a.fresh}); err != nil {
		return nil, err
	}
	a.onClose(func() error {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		return a.egress.Close(last)
	})
	if err = a.applyEgress(ctx, f); err != nil {
		return nil, err
	}

	if a.origins, err = originsOf(f); err != nil {
		return nil, err
	}
	outside, err := openSources(f, a.origins.Console(), a.log)
	if err != nil {
		return nil, err
	}

	limits, err := guard.New(guard.Config{Key: a.st.key("guard"), Own: ownAddress})
	if err != nil {
		return nil, err
	}
	if a.bans, err = gatehouse.New(ctx, gatehouse.Config{Guard: limits, Store: a.store, Audit: a.journal, Log: a.log, Fresh: a.fresh}); err != nil {
		return nil, err
	}
	if a.identity, err = identity.New(identity.Config{
		Store: a.store, Guard: limits, Audit: a.journal, Log: a.log,
		SessionIdle: time.Duration(f.Sessions.Idle), SessionLifetime: time.Duration(f.Sessions.Lifetime),
		Directories: outside.asked(), External: outside.rules, Rules: a.signInRules,
		Host: f.Web.Host, Origin: a.origins.Console(), Key: a.st.key("sign-in notes"),
		UnknownKey: a.st.key("unknown names"), Places: a.settings.places.Load,
		SSHLink: func(code string) string { return a.origins.Console() + "/ssh/" + code }, // nobody asks before there are origins
	}); err != nil {
		return nil, err
	}
	if a.company, err = a.openCompany(f, outside); err != nil {
		return nil, err
	}
	if a.vault, err = vault.New(vault.Config{
		Store: a.store, Audit: a.journal, Log: a.log, Fresh: a.fresh,
		Class: func(name string) bool { _, ok := a.settings.Class(name); return ok },
	}); err != nil {
		return nil, err
	}
	if a.workspaces, err = workspace.New(workspace.Config{
		Store: a.store, Engine: a.engine, Verifier: a.images, Settings: a.settings, GPUs: gpus, Audit: a.journal, Log: a.log, Secrets: a.vault,
		Egress: outward{a.egress},
		// Asked at starts, when there are origins.
		EnvFor:   func(ws bailey.Workspace) map[string]string { return jupyterhub.Env(a.origins, ws) },
		BasePath: func(ws bailey.Workspace) string { return a.origins.Base(ws.Slug) + "/" },
	}); err != nil {
		return nil, err
	}

	if err = a.openWitness(ctx, f); err != nil {
		return nil, err
	}

	if err = a.openCerts(f); err != nil {
		return nil, err
	}

	if a.filtering, err = a.newFiltering(ctx, f); err != nil {
		return nil, err
	}
	a.onClose(a.filtering.close)
	if a.gateway, err = gateway.New(gateway.Config{
		Workspaces: gateway.From(a.workspaces), Identity: a.identity, Origins: a.origins, Filter: a.filtering.filter,
		AuditCells: func(class string) bool { return a.settings.configuration().AuditCells(class) },
		CellKey:    secret.New(string(a.st.key("cells"))),
		Audit:      a.journal, Log: a.log,
	}); err != nil {
		return nil, err
	}
	hub, err := jupyterhub.New(jupyterhub.Config{Identity: a.identity, Workspaces: a.workspaces, Log: a.log})
	if err != nil {
		return nil, err
	}
	pages, err := console.New(console.Config{
		Hub: hub, Alias: a.gateway.Alias(hub.Resolve),
		Identity: a.identity, Company: a.company, Workspaces: a.workspaces, Egress: a.egress, Images: a.images, Rules: a.filtering.book, Vault: a.vault, SSH: a.witness, SSHDoor: a.sshDoor,
		Origins: a.origins, Audit: a.journal, Log: a.log, Open: a.gateway.OpenHandler(),
		API: api.New(api.Config{
			Identity: a.identity, Company: a.company, Workspaces: a.workspaces, Vault: a.vault, Rules: a.filtering.book, Egress: a.egress, Images: a.images, Bans: a.bans, SSH: a.witness, SSHDoor: a.sshDoor,
			Origins: a.origins, Audit: a.journal, Log: a.log,
		}),
	})
	if err != nil {
		return nil, err
	}
	front := edge.ServerConfig{
		Addr: f.Listen.HTTPS, Plain: f.Listen.HTTP, Handler: a.route(pages), Certs: a.certs, Origins: a.origins, Log: a.log, ProxyHeader: f.Proxies.Header,
	}
	if front.Proxies, err = f.Proxies.HeaderTrust(); err != nil {
		return nil, err
	}
	if front.Protocol, err = f.Proxies.ProtocolTrust(); err != nil {
		return nil, err
	}
	if a.web, err = edge.NewServer(ctx, front); err != nil {
		return nil, cannotListen(f, err)
	}
	if err = a.listenSSH(ctx, f); err != nil {
		return nil, err
	}
	if err = a.listenMetrics(ctx, f.Listen.Metrics); err != nil {
		return nil, err
	}
	return a, a.firstAccount(ctx)
}

// route sends a request to the console or, by its origin, to a workspace.
func (a *App) route(pages http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, isConsole, ok := a.origins.Match(r); ok && isConsole {
			pages.ServeHTTP(w, r)
			return
		}
		a.gateway.ServeHTTP(w, r)
	})
}

// firstAccount makes the administrator from the password that automation gave,
// or a set-up link for a person.
func (a *App) firstAccount(ctx context.Context) (err error) {
	if !a.cfg.Admin.Empty() {
		return a.identity.EnsureAdmin(ctx, "admin", a.cfg.Admin)
	}
	a.setup, err = a.identity.BeginSetup(ctx)
	return err
}

// Run serves until ctx ends or a part fails, lets open requests finish, and
// closes what New opened, last first. Workspaces go on running.
func (a *App) Run(ctx context.Context) error {
	if err := a.journal.Append(ctx, event(audit.ServerStart)); err != nil {
		return errors.Join(fmt.Errorf("record the start: %w", err), a.close())
	}
	if a.SharedOrigin() {
		a.log.WarnContext(ctx, "workspaces and console share one origin: browsers do not keep them apart", slog.String("setting", "origin.mode: path"))
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return ended(a.web.Serve()) })
	g.Go(func() error { return a.serveSSH(ctx) })
	g.Go(func() error { return ended(a.metrics.Serve(a.metricsLn)) })
	g.Go(func() error { return done(ctx, a.certs.Run(ctx)) })
	if a.issuer != nil {
		g.Go(func() error { return done(ctx, a.issuer.Run(ctx)) })
	}
	g.Go(func() error { return done(ctx, a.workspaces.Run(ctx)) })
	g.Go(func() error { return done(ctx, a.images.Run(ctx)) })
	g.Go(func() error { return done(ctx, a.identity.RunSSH(ctx)) })
	g.Go(func() error { return done(ctx, a.bans.Run(ctx)) })
	g.Go(func() error { return done(ctx, a.company.Run(ctx)) })
	g.Go(func() error { return done(ctx, a.settings.run(ctx)) })
	g.Go(func() error { return done(ctx, a.watchConfig(ctx)) })
	g.Go(func() error { return done(ctx, a.filtering.run(ctx)) })
	g.Go(func() error { return done(ctx, a.witness.Run(ctx)) })
	g.Go(func() error {
		<-ctx.Done()
		stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		// Shutdown does not see hijacked connections: tunnels are the
		// gateway's to drain, and refusing new ones comes first.
		return errors.Join(a.gateway.Drain(stop), a.web.Shutdown(stop), a.metrics.Shutdown(stop))
	})
	err := g.Wait()
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	return errors.Join(err, a.journal.Append(last, event(audit.ServerStop)), a.close())
}

// Close closes what New opened, for a server that never ran.
func (a *App) Close() error { return a.close() }

// fresh asks for a recent proof of identity. Services are built before identity
// is, and ask when somebody does something.
func (a *App) fresh(actor bailey.Actor) error { return a.identity.Fresh(actor) }

func (a *App) onClose(f func() error) { a.closers = append(a.closers, f) }

func (a *App) close() (err error) {
	for _, f := range slices.Backward(a.closers) {
		err = errors.Join(err, f())
	}
	a.closers = nil
	return err
}

// Console returns the console's origin.
func (a *App) Console() string { return a.origins.Console() }

// SharedOrigin reports whether workspaces are on the console's origin.
func (a *App) SharedOrigin() bool { return a.origins.SharedOrigin() }

// SetupLink returns the one-time link that makes the first administrator, or
// "" when there is an account already. The code is in the fragment, which
// browsers send to nobody.
func (a *App) SetupLink() string {
	if a.setup.Empty() {
		return ""
	}
	return a.origins.Console() + "/setup#" + a.setup.Reveal()
}

// Fingerprint returns the SHA-256 by which clients pin the certificate, and
// the file with the own CA, if there is one.
func (a *App) Fingerprint() (sum, caFile string) { return a.certs.Fingerprint(), a.certs.CAFile() }

// Authority returns the directory of the authority that certificates come from,
// or "" when none is asked. Until its first certificate has come, and whenever
// there is none, Fingerprint is that of the own CA, which stands in.
func (a *App) Authority() string {
	if a.issuer == nil {
		return ""
	}
	return a.cfg.File.TLS.ACME.Directory
}

// Classes returns the classes that can be launched now.
func (a *App) Classes() []bailey.Class { return a.settings.Classes() }

func event(action audit.Action) audit.Event {
	return audit.Event{
		Actor: audit.By(bailey.System()), Action: action, Outcome: audit.Success,
		Target: audit.Target{Kind: "server", Name: bailey.Version},
	}
}

// ended is nil for the error that every stopped server returns.
func ended(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// done drops the error of a loop that ended because its context did.
func done(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}
