// Package ldap asks a company's directory (OpenLDAP, Active Directory, 389ds,
// FreeIPA) who somebody is: it finds them with an account of its own, checks
// their password with a bind of their own, and reads their groups, nested ones
// included. Nothing is sent before TLS holds; referrals lead nowhere. What the
// answer means for an account is not its business.
package ldap

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/baileyhq/bailey/internal/external"
	"github.com/baileyhq/bailey/internal/secret"
)

// The kinds of directory that have defaults of their own.
const (
	OpenLDAP = "openldap"
	AD       = "ad"
	DS389    = "389ds"
	FreeIPA  = "freeipa"
)

// How nested groups are found.
const (
	NestedWalk  = "walk"  // group by group
	NestedChain = "chain" // by the server, with Active Directory's matching rule
	NestedNone  = "none"  // only groups that name the person
)

// Config describes one directory. Name, Servers, UserBase and Kind are required.
type Config struct {
	Name    string   // in the configuration; part of every identity
	Servers []string // ldaps://host[:636], or ldap://host[:389] with StartTLS; the first that answers is asked
	Roots   *x509.CertPool
	CA      string // file of Roots, for messages

	BindDN   string // the account that searches; empty: nobody's
	Password secret.Value

	Kind        string
	UserBase    string
	UserFilter  string // with {login}
	NameAttr    string // what people are called
	IDAttr      string // what never means anybody else
	GroupBase   string // empty: groups are not asked for
	GroupFilter string // with {dn} or {uid}
	Nested      string

	Timeout time.Duration // of each operation; 0 means 5 s
	Now     func() time.Time
	Log     *slog.Logger
}

// A Directory is ready to be asked. Its methods may be called concurrently.
type Directory struct {
	cfg     Config
	servers []*server
	users   *ldap.DN
	slots   chan struct{} // one token for each operation under way
	idle    chan idle     // connections bound as BindDN
}

// New checks the configuration and fills in the defaults of the kind. It
// connects to nothing.
func New(cfg Config) (*Directory, error) {
	preset, ok := presets()[cfg.Kind]
	if !ok {
		return nil, fmt.Errorf("ldap: there is no kind of directory %q", cfg.Kind)
	}
	cfg.UserFilter = cmp.Or(cfg.UserFilter, preset.UserFilter)
	cfg.NameAttr = cmp.Or(cfg.NameAttr, preset.NameAttr)
	cfg.IDAttr = cmp.Or(cfg.IDAttr, preset.IDAttr)
	cfg.GroupFilter = cmp.Or(cfg.GroupFilter, preset.GroupFilter)
	cfg.Nested = cmp.Or(cfg.Nested, preset.Nested)
	cfg.Timeout = cmp.Or(cfg.Timeout, 5*time.Second)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if err := CheckFilter(cfg.UserFilter, "{login}"); err != nil {
		return nil, fmt.Errorf("ldap: user filter: %w", err)
	}
	if err := CheckFilter(cfg.GroupFilter, "{dn}", "{uid}"); err != nil {
		return nil, fmt.Errorf("ldap: group filter: %w", err)
	}
	d := &Directory{cfg: cfg, slots: make(chan struct{}, maxOperations), idle: make(chan idle, maxIdle)}
	var err error
	if d.users, err = ldap.ParseDN(cfg.UserBase); err != nil || cfg.UserBase == "" {
		return nil, fmt.Errorf("ldap: the user base %q is not a DN", cfg.UserBase)
	}
	if len(cfg.Servers) == 0 {
		return nil, errors.New("ldap: there is no server")
	}
	for _, text := range cfg.Servers {
		s, err := parseServer(text)
		if err != nil {
			return nil, err
		}
		d.servers = append(d.servers, s)
	}
	return d, nil
}

func presets() map[string]Config {
	const members = "(|(member={dn})(uniqueMember={dn}))"
	return map[string]Config{
		OpenLDAP: {UserFilter: "(&(objectClass=person)(uid={login}))", NameAttr: "uid", IDAttr: "entryUUID", GroupFilter: members, Nested: NestedWalk},
		AD: {
			UserFilter: "(&(objectCategory=person)(objectClass=user)(|(sAMAccountName={login})(userPrincipalName={login})))",
			NameAttr:   "sAMAccountName", IDAttr: "objectGUID", GroupFilter: "(member={dn})", Nested: NestedChain,
		},
		DS389:   {UserFilter: "(&(objectClass=person)(uid={login}))", NameAttr: "uid", IDAttr: "nsUniqueId", GroupFilter: members, Nested: NestedWalk},
		FreeIPA: {UserFilter: "(&(objectClass=person)(uid={login}))", NameAttr: "uid", IDAttr: "ipaUniqueID", GroupFilter: members, Nested: NestedWalk},
	}
}

// Source names the directory in identities and audit events.
func (d *Directory) Source() string { return "ldap:" + d.cfg.Name }

// Close closes the connections that are kept. None is kept afterwards.
func (d *Directory) Close() error {
	for {
		select {
		case c := <-d.idle:
			_ = c.conn.Close() // it is only hung up
		default:
			return nil
		}
	}
}

// An Entry is somebody as the directory has them.
type Entry struct {
	external.Person

	DN     string
	Locked bool // disabled or expired there
}

// Find looks up who signs in as login. ok is false when that is nobody, and
// when it could be several. An error means that the directory could not tell:
// it is no answer.
func (d *Directory) Find(ctx context.Context, login string) (e Entry, ok bool, err error) {
	if !external.CheckLogin(login) {
		return Entry{}, false, nil
	}
	return d.find(ctx, fill(d.cfg.UserFilter, map[string]string{"{login}": login}))
}

// FindSubject looks up whom the subject means; ok is false when nobody is that
// any more. That the base of the users itself is gone is an error: a directory
// that was moved or restored half is not one from which everybody has left.
func (d *Directory) FindSubject(ctx context.Context, subject string) (e Entry, ok bool, err error) {
	value, err := subjectFilter(d.cfg.IDAttr, subject)
	if err != nil {
		return Entry{}, false, nil //nolint:nilerr // what cannot be a subject is nobody's
	}
	return d.find(ctx, "("+d.cfg.IDAttr+"="+value+")")
}

func (d *Directory) find(ctx context.Context, filter string) (found Entry, ok bool, err error) {
	err = d.do(ctx, func(c *ldap.Conn) error {
		found, ok = Entry{}, false
		res, err := c.Search(ldap.NewSearchRequest(d.cfg.UserBase, ldap.ScopeWholeSubtree, ldap.NeverDerefAliases,
			2, d.seconds(), false, filter, d.userAttributes(), nil))
		if err != nil && !ldap.IsErrorWithCode(err, ldap.LDAPResultSizeLimitExceeded) {
			return err
		}
		if res == nil || len(res.Entries) == 0 {
			return d.checkBase(c)
		}
		if len(res.Entries) > 1 {
			d.cfg.Log.WarnContext(ctx, "several people of the directory have one login", slog.String("directory", d.cfg.Name), slog.String("filter", filter))
			return nil
		}
		entry := res.Entries[0]
		dn, err := ldap.ParseDN(entry.DN)
		if err != nil || !d.users.AncestorOfFold(dn) && !d.users.EqualFold(dn) {
			return nil // not of those who were asked about
		}
		if found, err = d.entry(entry); err != nil {
			return err
		}
		if found.Groups, err = d.groups(c, entry); err != nil {
			return err
		}
		ok = true
		return nil
	})
	if err != nil {
		return Entry{}, false, err
	}
	return found, ok, nil
}

// checkBase fails when the base of the users is not there.
func (d *Directory) checkBase(c *ldap.Conn) error {
	res, err := c.Search(ldap.NewSearchRequest(d.cfg.UserBase, ldap.ScopeBaseObject, ldap.NeverDerefAliases, 1, d.seconds(), false, "(objectClass=*)", []string{"1.1"}, nil))
	if err != nil {
		return err
	}
	if len(res.Entries) == 0 {
		return &problem{step: stepSearch, what: "the directory shows nothing at the user base " + d.cfg.UserBase, fix: "check user_base; the account that searches must be allowed to read it"}
	}
	return nil
}

func (d *Directory) seconds() int { return max(1, int(d.cfg.Timeout/time.Second)) }

// Check reports whether the password is the entry's, by a bind in their name on
// a connection of its own. An error means that the directory could not tell.
// Whatever cannot be a password is wrong without being sent: to many
// directories an empty one means somebody anonymous, who is let in.
func (d *Directory) Check(ctx context.Context, e Entry, password secret.Value) (right bool, err error) {
	text := password.Reveal()
	if text == "" || len(text) > 1024 || strings.ContainsRune(text, 0) || e.DN == "" {
		return false, nil
	}
	return d.bind(ctx, e.DN, text)
}

// Decoy costs what Find and Check cost for somebody who is not there, so that a
// stranger cannot tell by the time who is.
func (d *Directory) Decoy(ctx context.Context) error {
	dn := "cn=" + strings.ToLower(rand.Text()) + "," + d.cfg.UserBase
	_, err := d.bind(ctx, dn, rand.Text())
	return err
}

func (d *Directory) bind(ctx context.Context, dn, password string) (right bool, err error) {
	err = d.fresh(ctx, func(c *ldap.Conn) error {
		_, err := c.SimpleBind(ldap.NewSimpleBindRequest(dn, password, nil))
		switch {
		case err == nil:
			right = true
			return nil
		case ldap.IsErrorAnyOf(err, ldap.LDAPResultInvalidCredentials, ldap.LDAPResultNoSuchObject, ldap.LDAPResultInappropriateAuthentication,
			ldap.LDAPResultConstraintViolation, ldap.LDAPResultUnwillingToPerform, ldap.LDAPResultInsufficientAccessRights, ldap.LDAPResultInvalidDNSyntax,
			ldap.LDAPResultReferral):
			return nil // it was understood, and refused
		}
		return err
	})
	return right && err == nil, err
}

// parseServer reads ldaps://host[:port] or ldap://host[:port].
func parseServer(text string) (*server, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.User != nil || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("ldap: %q is not the address of a directory", text)
	}
	s := &server{host: u.Hostname()}
	switch u.Scheme {
	case "ldaps":
		s.tls, s.addr = true, net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "636"))
	case "ldap":
		s.addr = net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "389"))
	default:
		return nil, fmt.Errorf("ldap: %q is not the address of a directory", text)
	}
	return s, nil
}
