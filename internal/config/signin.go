package config

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/secret"
)

// SignIn says which company accounts may come in besides local ones.
type SignIn struct {
	Recheck    Duration `yaml:"recheck" doc:"How often providers and directories are asked whether people are still there. 1m to 24h."`
	StaleAfter Duration `yaml:"stale_after" doc:"An account that its provider or directory has not vouched for in this time is closed until the next sign-in, API tokens included. 0: never. At least 1h."`
	OIDC       []OIDC   `yaml:"oidc" doc:"Identity providers, in the order of their buttons. docs/sign-in.md has recipes."`
	LDAP       []LDAP   `yaml:"ldap" doc:"Directories whose passwords the sign-in form takes, asked one after the other."`
}

// An OIDC is one identity provider.
type OIDC struct {
	Name          string         `yaml:"name" required:"true" example:"corp" doc:"Part of the redirect address and of the audit journal: 1 to 30 of a-z, 0-9 and single dashes."`
	Title         string         `yaml:"title" default:"the name" example:"Example Corp" doc:"What the button says."`
	Issuer        string         `yaml:"issuer" required:"true" example:"https://id.example.org/realms/staff" doc:"Exactly as the provider writes it in its discovery document, also with or without a slash at the end. Accounts belong to it: changing it makes everybody somebody else."`
	ClientID      string         `yaml:"client_id" required:"true" example:"bailey" doc:"As registered at the provider."`
	ClientSecret  string         `yaml:"client_secret" example:"file:/etc/bailey/oidc-corp" doc:"env:NAME or file:/path. Empty: a public client. A secret in this file is refused."`
	Scopes        []string       `yaml:"scopes" default:"[openid, profile]" example:"[openid, profile, offline_access]" doc:"What is asked for. Some providers give a refresh token, by which sessions are checked again, only with offline_access."`
	CA            string         `yaml:"ca" example:"/etc/bailey/corp-ca.pem" doc:"PEM file with the certificates that are trusted for the provider, in place of the system's."`
	Hosts         []string       `yaml:"hosts" example:"[oauth2.googleapis.com]" doc:"Hosts besides the issuer's that the provider's token, key and user info endpoints may be on."`
	UserClaim     string         `yaml:"user_claim" default:"preferred_username" example:"preferred_username" doc:"The claim that user names are made of. It decides nothing else."`
	GroupsClaim   string         `yaml:"groups_claim" default:"groups" example:"realm_access.roles" doc:"The claim with the groups; dots lead into claims."`
	Factors       []string       `yaml:"factors" example:"[mfa, otp, hwk]" doc:"Values of the claims amr and acr that mean that a second factor was used there. Then people who must have a second factor here, or have one, are not asked for it. Empty: none do."`
	AllowedGroups []string       `yaml:"allowed_groups" example:"[research]" doc:"Whose members may come in, as the provider or directory names them (a directory: the whole DN, or the name alone)."`
	Everyone      Flag           `yaml:"everyone" default:"false" doc:"Whoever has an account there may come in."`
	Create        *Flag          `yaml:"create" default:"true" doc:"Make an account for who has none at the first sign-in. Else an administrator makes and links it."`
	DefaultRole   string         `yaml:"default_role" enum:"user,auditor" default:"user" doc:"What people are here. Nobody becomes an administrator but by roles."`
	Groups        []GroupMapping `yaml:"groups" doc:"Which groups there mean which here. Empty: those there whose name is one of ours."`
	Roles         []RoleMapping  `yaml:"roles" doc:"Which groups there give a role here; the highest counts."`
}

// An LDAP is one directory.
type LDAP struct {
	Name          string         `yaml:"name" required:"true" example:"corp" doc:"Part of every identity and of the audit journal: changing it makes everybody somebody else."`
	Title         string         `yaml:"title" default:"the name" example:"Example Corp" doc:"What people read."`
	Kind          string         `yaml:"kind" enum:"openldap,ad,389ds,freeipa" default:"openldap" doc:"What the defaults below are for."`
	Servers       []string       `yaml:"servers" required:"true" example:"[ldaps://dc1.example.org, ldaps://dc2.example.org]" doc:"ldaps://HOST[:636], or ldap://HOST[:389] with StartTLS. The first that answers is asked. There is no way without TLS."`
	CA            string         `yaml:"ca" example:"/etc/bailey/corp-ca.pem" doc:"PEM file with the certificates that are trusted for the servers, in place of the system's."`
	BindDN        string         `yaml:"bind_dn" example:"cn=bailey,ou=services,dc=example,dc=org" doc:"The account that searches. Empty: nobody's."`
	BindPassword  string         `yaml:"bind_password" example:"file:/etc/bailey/ldap-corp" doc:"env:NAME or file:/path. A password in this file is refused."`
	UserBase      string         `yaml:"user_base" required:"true" example:"ou=people,dc=example,dc=org" doc:"Below which people are."`
	UserFilter    string         `yaml:"user_filter" default:"by kind" example:"(&(objectClass=person)(uid={login}))" doc:"Finds somebody; {login} is what they typed."`
	NameAttr      string         `yaml:"name_attribute" default:"by kind: uid, sAMAccountName" example:"uid" doc:"What user names are made of. It decides nothing else."`
	IDAttr        string         `yaml:"id_attribute" default:"by kind: entryUUID, objectGUID, nsUniqueId, ipaUniqueID" example:"entryUUID" doc:"What never means anybody else, whatever they are renamed to."`
	GroupBase     string         `yaml:"group_base" example:"ou=groups,dc=example,dc=org" doc:"Below which groups are; where nobody but administrators can make some. Empty: groups are not asked for."`
	GroupFilter   string         `yaml:"group_filter" default:"by kind" example:"(member={dn})" doc:"Finds the groups of somebody; {dn} is their DN, {uid} their uid."`
	Nested        string         `yaml:"nested" enum:"walk,chain,none" default:"by kind: walk, chain" doc:"Groups in groups. walk: asked for one by one. chain: by Active Directory itself. none: not followed."`
	AllowedGroups []string       `yaml:"allowed_groups" example:"[research]" doc:"Whose members may come in, as the provider or directory names them (a directory: the whole DN, or the name alone)."`
	Everyone      Flag           `yaml:"everyone" default:"false" doc:"Whoever has an account there may come in."`
	Create        *Flag          `yaml:"create" default:"true" doc:"Make an account for who has none at the first sign-in. Else an administrator makes and links it."`
	DefaultRole   string         `yaml:"default_role" enum:"user,auditor" default:"user" doc:"What people are here. Nobody becomes an administrator but by roles."`
	Groups        []GroupMapping `yaml:"groups" doc:"Which groups there mean which here. Empty: those there whose name is one of ours."`
	Roles         []RoleMapping  `yaml:"roles" doc:"Which groups there give a role here; the highest counts."`
}

// An Admission says who may come in from a source, and as what.
type Admission struct {
	AllowedGroups []string
	Everyone      bool
	Create        bool
	DefaultRole   string
	Groups        []GroupMapping
	Roles         []RoleMapping
}

// Admission returns what the provider's fields say about who may come in.
func (o OIDC) Admission() Admission {
	return Admission{o.AllowedGroups, bool(o.Everyone), o.Create == nil || bool(*o.Create), o.DefaultRole, o.Groups, o.Roles}
}

// Admission returns what the directory's fields say about who may come in.
func (l LDAP) Admission() Admission {
	return Admission{l.AllowedGroups, bool(l.Everyone), l.Create == nil || bool(*l.Create), l.DefaultRole, l.Groups, l.Roles}
}

// A GroupMapping makes members of a group there members of one here.
type GroupMapping struct {
	From string `yaml:"from" required:"true" example:"/research/vision" doc:"The group there."`
	To   string `yaml:"to" required:"true" example:"vision" doc:"The group here."`
}

// A RoleMapping gives a role to members of a group.
type RoleMapping struct {
	From string `yaml:"from" required:"true" example:"bailey-admins" doc:"The group there."`
	Role string `yaml:"role" required:"true" enum:"user,auditor,admin" doc:"The role here."`
}

// defaultSignIn is what holds before the file speaks.
func defaultSignIn() SignIn {
	return SignIn{Recheck: Duration(5 * time.Minute), StaleAfter: Duration(7 * 24 * time.Hour)}
}

// complete fills in what the file left out.
func (s *SignIn) complete() {
	or := func(v *string, fallback string) {
		if *v == "" {
			*v = fallback
		}
	}
	for i := range s.OIDC {
		o := &s.OIDC[i]
		or(&o.Title, o.Name)
		or(&o.UserClaim, "preferred_username")
		or(&o.GroupsClaim, "groups")
		or(&o.DefaultRole, "user")
		if len(o.Scopes) == 0 {
			o.Scopes = []string{"openid", "profile"}
		}
	}
	for i := range s.LDAP {
		l := &s.LDAP[i]
		or(&l.Title, l.Name)
		or(&l.Kind, "openldap")
		or(&l.DefaultRole, "user")
	}
}

// ClientSecretOf follows the reference to a provider's secret; empty for a
// public client.
func (c *Config) ClientSecretOf(o OIDC) (secret.Value, error) {
	return c.signInSecret(o.ClientSecret, "the secret of sign_in.oidc "+o.Name, "client_secret")
}

// BindPasswordOf follows the reference to a directory's password.
func (c *Config) BindPasswordOf(l LDAP) (secret.Value, error) {
	return c.signInSecret(l.BindPassword, "the password of sign_in.ldap "+l.Name, "bind_password")
}

func (c *Config) signInSecret(ref, what, field string) (secret.Value, error) {
	if ref == "" {
		return secret.Value{}, nil
	}
	text, err := c.follow(ref)
	if err != nil {
		return secret.Value{}, &bailey.Error{Kind: bailey.Invalid, Msg: what + " cannot be read", Hint: "look at " + field + ": " + ref, Cause: err}
	}
	return secret.New(text), nil
}

// Certificates reads the certificates that are trusted for a source. Nil means
// those of the system.
func Certificates(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil //nolint:nilnil // that is what the standard library takes for the system's
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, &bailey.Error{Kind: bailey.Invalid, Msg: "the file of ca cannot be read", Hint: "look at ca: " + file, Cause: err}
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, &bailey.Error{Kind: bailey.Invalid, Msg: file + " holds no certificate in PEM", Hint: "it begins with -----BEGIN CERTIFICATE-----; openssl x509 -inform der -in FILE turns the binary form into it"}
	}
	return pool, nil
}

// checkSignIn checks providers and directories. Whether they answer is asked by
// bailey admin sign-in test.
func (d *decoder) checkSignIn() {
	s := d.cfg.SignIn
	if s.Recheck < Duration(time.Minute) || s.Recheck > Duration(24*time.Hour) {
		d.wrong([]string{"sign_in.recheck"}, s.Recheck.String()+" is not a usable time", "it lies between 1m and 24h", d.write("sign_in.recheck", "5m"))
	}
	if s.StaleAfter != 0 && (s.StaleAfter < Duration(time.Hour) || s.StaleAfter < s.Recheck) {
		d.wrong([]string{"sign_in.stale_after", "sign_in.recheck"}, s.StaleAfter.String()+" is not a usable time", "it is at least 1h and not shorter than sign_in.recheck; 0 means never", d.write("sign_in.stale_after", "168h"))
	}
	names, issuers := map[string]bool{}, map[string]bool{}
	for i, o := range s.OIDC {
		at := fmt.Sprintf("sign_in.oidc[%d]", i)
		d.checkSource(at, o.Name, o.Title, names)
		d.checkIssuer(at, o, issuers)
		d.checkReference(at+".client_secret", o.ClientSecret, "file:/etc/bailey/oidc-"+o.Name)
		d.checkPath(at+".ca", o.CA, "/etc/bailey/corp-ca.pem")
		for j, h := range o.Hosts {
			if !isDomain(strings.ToLower(h)) {
				d.wrong([]string{fmt.Sprintf("%s.hosts[%d]", at, j)}, quote(h)+" is not a host name", "it is a name without scheme, port and path", "login.example.org")
			}
		}
		for j, scope := range o.Scopes {
			if !scopeRE.MatchString(scope) {
				d.wrong([]string{fmt.Sprintf("%s.scopes[%d]", at, j)}, quote(scope)+" is not a scope", "scopes have no spaces and quotes in them, and each is an entry of its own", "profile")
			}
		}
		d.checkAdmission(at, o.Admission())
	}
	names = map[string]bool{}
	for i, l := range s.LDAP {
		at := fmt.Sprintf("sign_in.ldap[%d]", i)
		d.checkSource(at, l.Name, l.Title, names)
		d.checkServers(at, l)
		d.checkReference(at+".bind_password", l.BindPassword, "file:/etc/bailey/ldap-"+l.Name)
		d.checkPath(at+".ca", l.CA, "/etc/bailey/corp-ca.pem")
		if l.UserBase == "" {
			d.wrong([]string{at}, "the directory has no user_base", "it says below which entry people are", "user_base: ou=people,dc=example,dc=org")
		}
		for field, text := range map[string]string{"user_base": l.UserBase, "group_base": l.GroupBase} {
			if text != "" && !dnRE.MatchString(text) {
				d.wrong([]string{at + "." + field}, quote(text)+" is not a DN", "it is made of name=value, with commas between", field+": ou=people,dc=example,dc=org")
			}
		}
		if l.BindDN != "" && l.BindPassword == "" {
			d.wrong([]string{at + ".bind_dn"}, "there is a bind_dn and no bind_password", "a directory takes an empty password for nobody's", "bind_password: file:/etc/bailey/ldap-"+l.Name)
		}
		d.checkMarks(at+".user_filter", l.UserFilter, "{login}")
		d.checkMarks(at+".group_filter", l.GroupFilter, "{dn}", "{uid}")
		if l.GroupBase == "" && (len(l.AllowedGroups) > 0 || len(l.Groups) > 0 || len(l.Roles) > 0) {
			d.wrong([]string{at + ".group_base", at + ".allowed_groups"}, "groups are named, and there is no group_base", "without it, groups are not asked for and nobody is in any", "group_base: ou=groups,dc=example,dc=org")
		}
		d.checkAdmission(at, l.Admission())
	}
}

var (
	scopeRE = regexp.MustCompile(`^[\x21\x23-\x5b\x5d-\x7e]{1,200}$`)
	dnRE    = regexp.MustCompile(`^[A-Za-z0-9.-]+ *=[^=]*(,[^=]+=[^=]*)*$`)
)

func (d *decoder) checkSource(at, name, title string, seen map[string]bool) {
	switch {
	case name == "":
		d.wrong([]string{at}, "the entry has no name", "the name is part of addresses and of the audit journal", "name: corp")
	case d.checkNameValue(at+".name", name) && seen[name]:
		d.wrong([]string{at + ".name"}, quote(name)+" is there twice", "each entry has a name of its own", "another name")
	}
	seen[name] = true
	d.checkText(at+".title", title, 40)
}

func (d *decoder) checkIssuer(at string, o OIDC, seen map[string]bool) {
	u, err := url.Parse(o.Issuer)
	switch {
	case o.Issuer == "":
		d.wrong([]string{at}, "the provider has no issuer", "it is the address under which it describes itself", "issuer: https://id.example.org/realms/staff")
	case err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		d.wrong([]string{at + ".issuer"}, quote(o.Issuer)+" is not an issuer", "it is an https:// address, without query and without the part /.well-known/…", "issuer: https://id.example.org/realms/staff")
	case strings.Contains(o.Issuer, "/.well-known/"):
		d.wrong([]string{at + ".issuer"}, "this is the address of the discovery document", "the issuer is what comes before it", "issuer: "+o.Issuer[:strings.Index(o.Issuer, "/.well-known/")])
	case seen[o.Issuer]:
		d.wrong([]string{at + ".issuer"}, "this issuer is there twice", "accounts belong to an issuer, so two entries for one would be one", "one entry for each issuer")
	}
	seen[o.Issuer] = true
	if o.ClientID == "" {
		d.wrong([]string{at}, "the provider has no client_id", "it is the name under which this server is registered there", "client_id: bailey")
	}
}

func (d *decoder) checkServers(at string, l LDAP) {
	if len(l.Servers) == 0 {
		d.wrong([]string{at}, "the directory has no servers", "at least one is asked", "servers: [ldaps://dc1.example.org]")
	}
	for i, text := range l.Servers {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "ldaps" && u.Scheme != "ldap" || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" {
			d.wrong([]string{fmt.Sprintf("%s.servers[%d]", at, i)}, quote(text)+" is not the address of a directory", "it is ldaps://HOST or, with StartTLS, ldap://HOST; with another port if need be", "ldaps://dc1.example.org")
		}
	}
	for _, w := range []struct{ field, value, words string }{{"kind", l.Kind, "openldap,ad,389ds,freeipa"}, {"nested", l.Nested, "walk,chain,none"}} {
		if w.value != "" && !slices.Contains(strings.Split(w.words, ","), w.value) {
			d.wrong([]string{at + "." + w.field}, quote(w.value)+" is not one of the words for this field", "the words are "+strings.ReplaceAll(w.words, ",", ", "), w.field+": "+strings.Split(w.words, ",")[0])
		}
	}
}

var anyMark = regexp.MustCompile(`\{[^}]*\}`)

// checkMarks checks the marks of a filter; the server checks the rest of it.
func (d *decoder) checkMarks(at, filter string, marks ...string) {
	if filter == "" {
		return
	}
	found := anyMark.FindAllString(filter, -1)
	switch {
	case len(found) == 0 || slices.ContainsFunc(found, func(m string) bool { return !slices.Contains(marks, m) }):
		d.wrong([]string{at}, quote(filter)+" is not a filter for this", "it has "+strings.Join(marks, " or ")+" in it, and nothing else in braces", "(uid="+marks[0]+")")
	case !strings.HasPrefix(filter, "(") || !strings.HasSuffix(filter, ")") || strings.Count(filter, "(") != strings.Count(filter, ")"):
		d.wrong([]string{at}, quote(filter)+" is not an LDAP filter", "it is in brackets, and every bracket has its counterpart", "(uid="+marks[0]+")")
	}
}

// checkReference refuses secrets in the file.
func (d *decoder) checkReference(at, ref, example string) {
	name, isEnv := strings.CutPrefix(ref, "env:")
	file, isFile := strings.CutPrefix(ref, "file:")
	if ref == "" || isEnv && envName.MatchString(name) || isFile && path.IsAbs(file) {
		return
	}
	d.secretIn(at, "this is no reference to a secret", "it is env:NAME or file:/path; a secret in the configuration would be shown, copied and backed up with it", at[strings.LastIndex(at, ".")+1:]+": "+example)
}

func (d *decoder) checkPath(at, file, example string) {
	if strings.Contains(file, "-----BEGIN") {
		d.wrong([]string{at}, "this is the PEM text itself", "the field names a file", at[strings.LastIndex(at, ".")+1:]+": "+example)
	} else if file != "" && (!path.IsAbs(file) || strings.ContainsFunc(file, unprintable)) {
		d.wrong([]string{at}, quote(file)+" is not an absolute path", "relative paths depend on where the server was started", at[strings.LastIndex(at, ".")+1:]+": "+example)
	}
}

func (d *decoder) checkAdmission(at string, a Admission) {
	if len(a.AllowedGroups) == 0 && !a.Everyone {
		d.wrong([]string{at}, "nobody may come in: there are no allowed_groups", "which of the company's people use this server is a decision, so nobody is let in by leaving it out", "allowed_groups: [research], or everyone: true")
	}
	if a.DefaultRole == "admin" {
		d.wrong([]string{at + ".default_role"}, "nobody is an administrator by default", "a role of power comes from a group that somebody was put into", "roles: [{from: bailey-admins, role: admin}]")
	} else if !slices.Contains([]string{"user", "auditor"}, a.DefaultRole) {
		d.wrong([]string{at + ".default_role"}, quote(a.DefaultRole)+" is not a role for everybody", "the roles are user and auditor", "default_role: user")
	}
	for i, g := range a.Groups {
		here := fmt.Sprintf("%s.groups[%d]", at, i)
		if g.From == "" {
			d.wrong([]string{here}, "the entry has no from", "it says which group there is meant", "from: research")
		}
		if d.given(here + ".to") {
			d.checkNameValue(here+".to", g.To)
		} else {
			d.wrong([]string{here}, "the entry has no to", "it says which group here is meant", "to: vision")
		}
	}
	for i, r := range a.Roles {
		here := fmt.Sprintf("%s.roles[%d]", at, i)
		if r.From == "" {
			d.wrong([]string{here}, "the entry has no from", "it says which group there is meant", "from: bailey-admins")
		}
		if !bailey.Role(r.Role).Valid() {
			d.wrong([]string{here + ".role"}, quote(r.Role)+" is not a role", "the roles are user, auditor and admin", "role: admin")
		}
	}
}

// secretIn reports a problem of a value that may be a secret, without showing
// it.
func (d *decoder) secretIn(at, what, why, fix string) {
	n := len(d.problems)
	d.wrong([]string{at}, what, why, fix)
	for i := n; i < len(d.problems); i++ {
		if o := d.cfg.Origin(at); o.Kind == FromFile && d.problems[i].Excerpt != "" {
			line := []rune(d.doc.lines[o.Line-1])
			d.problems[i].Excerpt = excerpt(fmt.Sprintf("%4d", o.Line), string(line[:o.Column-1])+blotted, o.Column, len(blotted))
		}
	}
}
