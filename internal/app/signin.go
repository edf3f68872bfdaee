package app

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/company"
	"github.com/baileyhq/bailey/internal/config"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/external"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/ldap"
	"github.com/baileyhq/bailey/internal/oidc"
	"github.com/baileyhq/bailey/internal/password"
)

// sources are the company accounts of the configuration.
type sources struct {
	providers   []company.Provider
	directories []company.Directory
	rules       map[string]external.Rules
}

// openSources makes them without asking anybody: a provider that is down at the
// start is no reason not to start.
func openSources(f *config.Config, console string, log *slog.Logger) (*sources, error) {
	s := &sources{rules: map[string]external.Rules{}}
	for _, o := range f.SignIn.OIDC {
		p, err := openProvider(f, o, console, log)
		if err != nil {
			return nil, err
		}
		s.providers = append(s.providers, company.Provider{Provider: p, Name: o.Name, Title: o.Title})
		s.rules[p.Source()] = rulesOf(o.Admission())
	}
	for _, l := range f.SignIn.LDAP {
		d, err := openDirectory(f, l, log)
		if err != nil {
			return nil, err
		}
		s.directories = append(s.directories, company.Directory{Directory: d, Name: l.Name, Title: l.Title})
		rules := rulesOf(l.Admission())
		rules.Same, rules.Name = ldap.SameGroup, ldap.GroupName
		s.rules[d.Source()] = rules
	}
	return s, nil
}

func openProvider(f *config.Config, o config.OIDC, console string, log *slog.Logger) (*oidc.Provider, error) {
	secret, err := f.ClientSecretOf(o)
	if err != nil {
		return nil, err
	}
	roots, err := config.Certificates(o.CA)
	if err != nil {
		return nil, fmt.Errorf("sign_in.oidc %s: %w", o.Name, err)
	}
	return oidc.New(oidc.Config{
		Name: o.Name, Issuer: o.Issuer, ClientID: o.ClientID, Secret: secret, Redirect: console + "/signin/oidc/" + o.Name + "/callback",
		Scopes: o.Scopes, Roots: roots, CA: o.CA, Hosts: o.Hosts, UserClaim: o.UserClaim, GroupsClaim: o.GroupsClaim, Factors: o.Factors, Log: log,
	})
}

func openDirectory(f *config.Config, l config.LDAP, log *slog.Logger) (*ldap.Directory, error) {
	password, err := f.BindPasswordOf(l)
	if err != nil {
		return nil, err
	}
	roots, err := config.Certificates(l.CA)
	if err != nil {
		return nil, fmt.Errorf("sign_in.ldap %s: %w", l.Name, err)
	}
	d, err := ldap.New(ldap.Config{
		Name: l.Name, Servers: l.Servers, Roots: roots, CA: l.CA, BindDN: l.BindDN, Password: password, Kind: l.Kind,
		UserBase: l.UserBase, UserFilter: l.UserFilter, NameAttr: l.NameAttr, IDAttr: l.IDAttr,
		GroupBase: l.GroupBase, GroupFilter: l.GroupFilter, Nested: l.Nested, Log: log,
	})
	if err != nil {
		return nil, &bailey.Error{Kind: bailey.Invalid, Msg: "sign_in.ldap " + l.Name + " cannot be used: " + err.Error(), Hint: "bailey config validate; docs/sign-in.md has recipes"}
	}
	return d, nil
}

func rulesOf(a config.Admission) external.Rules {
	r := external.Rules{Everyone: a.Everyone, Allowed: a.AllowedGroups, Default: bailey.Role(a.DefaultRole), Create: a.Create}
	for _, g := range a.Groups {
		r.Groups = append(r.Groups, external.GroupRule{From: g.From, To: g.To})
	}
	for _, role := range a.Roles {
		r.Roles = append(r.Roles, external.RoleRule{From: role.From, Role: bailey.Role(role.Role)})
	}
	return r
}

// asked returns the directories as identity asks them.
func (s *sources) asked() []identity.Directory {
	var out []identity.Directory
	for _, d := range s.directories {
		out = append(out, d.Directory)
	}
	return out
}

// company makes the service that signs people in with their company account.
func (a *App) openCompany(f *config.Config, s *sources) (*company.Service, error) {
	for _, d := range s.directories {
		a.onClose(d.Close)
	}
	return company.New(company.Config{
		Identity: a.identity, Providers: s.providers, Directories: s.directories, Key: a.st.key("oidc tickets"),
		Recheck: time.Duration(f.SignIn.Recheck), StaleAfter: time.Duration(f.SignIn.StaleAfter), Log: a.log,
	})
}

// originsOf returns the origins of the configuration.
func originsOf(f *config.Config) (*edge.Origins, error) {
	port, err := portOf(f)
	if err != nil {
		return nil, err
	}
	return edge.NewOrigins(edge.OriginConfig{
		Mode: f.Web.Mode, Host: f.Web.Host, Port: port, Domain: f.Web.Domain,
		Ports: [2]int{f.Web.Ports.First, f.Web.Ports.Last},
	})
}

// TestSignIn tries one company account of the configuration, without a server:
// kind is "oidc" or "ldap", name its entry, user somebody to look for in a
// directory. NotFound when there is no such entry.
func TestSignIn(ctx context.Context, f *config.Config, kind, name, user string) ([]external.Step, error) {
	origins, err := originsOf(f)
	if err != nil {
		return nil, err
	}
	var known []string
	for _, o := range f.SignIn.OIDC {
		known = append(known, "oidc "+o.Name)
		if kind == "oidc" && o.Name == name {
			p, err := openProvider(f, o, origins.Console(), slog.New(slog.DiscardHandler))
			if err != nil {
				return nil, err
			}
			return append(p.Test(ctx), admissionStep(o.Admission())), nil
		}
	}
	for _, l := range f.SignIn.LDAP {
		known = append(known, "ldap "+l.Name)
		if kind == "ldap" && l.Name == name {
			return testDirectory(ctx, f, l, user)
		}
	}
	hint := "the configuration has none; docs/sign-in.md shows how to write one"
	if len(known) > 0 {
		hint = "there is: " + strings.Join(known, ", ")
	}
	return nil, &bailey.Error{Kind: bailey.NotFound, Msg: "there is no " + kind + " " + name + " in the configuration", Hint: hint}
}

func admissionStep(a config.Admission) external.Step {
	if a.Everyone {
		return external.Step{Name: "admission", OK: true, Warn: true, Detail: "whoever has an account there may come in", Fix: "name groups in allowed_groups, if that is not what you want"}
	}
	return external.Step{Name: "admission", OK: true, Detail: "members of " + strings.Join(a.AllowedGroups, ", ")}
}

func testDirectory(ctx context.Context, f *config.Config, l config.LDAP, user string) ([]external.Step, error) {
	d, err := openDirectory(f, l, slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	steps, e := d.Test(ctx, user)
	_ = d.Close() // it was a trial
	if e.Subject == "" {
		return append(steps, admissionStep(l.Admission())), nil
	}
	rules := rulesOf(l.Admission())
	rules.Same, rules.Name = ldap.SameGroup, ldap.GroupName
	grant := rules.Decide(e.Groups)
	groups := "in no group below " + l.GroupBase
	if l.GroupBase == "" {
		groups = "groups are not asked for (no group_base)"
	} else if len(e.Groups) > 0 {
		groups = "in " + strings.Join(e.Groups, "; ")
	}
	steps = append(steps, external.Step{Name: "groups", OK: true, Detail: groups})
	if !grant.Allowed {
		return append(steps, external.Step{
			Name: "admission", Detail: "none of these groups is in allowed_groups (" + strings.Join(l.AllowedGroups, ", ") + ")",
			Fix: "put " + user + " into one of them, or name one of theirs in allowed_groups: the whole DN, or its name alone",
		}), nil
	}
	return append(steps, external.Step{
		Name: "admission", OK: true,
		Detail: fmt.Sprintf("comes in as %s, called %s if that name is free, in the groups [%s] here", grant.Role, external.Names(e.Person)[0], strings.Join(grant.Groups, ", ")),
	}), nil
}

// signInRules is what the configuration in force says about passwords and
// second factors.
func (a *App) signInRules() identity.Rules {
	f := a.settings.configuration()
	p := f.Passwords
	r := identity.Rules{
		Params:    password.Params{Memory: uint32(p.Memory >> 10), Passes: uint32(p.Passes), Threads: uint8(p.Threads)}, //nolint:gosec // config has checked them
		Passwords: password.Rules{Length: p.Length, Words: p.Words},
		MaxAge:    time.Duration(p.MaxAge), StepUp: time.Duration(f.Factors.StepUp), FactorGroups: f.Factors.RequireGroups,
	}
	for _, role := range f.Factors.RequireRoles {
		r.FactorRoles = append(r.FactorRoles, bailey.Role(role))
	}
	return r
}
