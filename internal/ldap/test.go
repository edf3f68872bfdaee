package ldap

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-ldap/ldap/v3"

	"github.com/baileyhq/bailey/internal/external"
)

// Test tries everything that a sign-in needs, one after the other, and says
// for what fails what to do. login is somebody to look for; empty: nobody. It
// never asks for a password. The entry is theirs, when they were found.
func (d *Directory) Test(ctx context.Context, login string) (steps []external.Step, found Entry) {
	ok := 0
	for _, s := range d.servers {
		how := "LDAPS"
		if !s.tls {
			how = "StartTLS"
		}
		c, err := d.dial(ctx, s)
		if err != nil {
			steps = append(steps, failed(s.addr, err))
			continue
		}
		steps = append(steps, external.Step{Name: s.addr, OK: true, Detail: how + tlsWords(c)})
		steps = append(steps, d.testClock(c)...)
		err = guarded(ctx, c, d.bindSelf)
		_ = c.Close() // it was a trial
		if err != nil {
			steps = append(steps, failed("bind at "+s.addr, err))
			continue
		}
		who := d.cfg.BindDN
		step := external.Step{Name: "bind at " + s.addr, OK: true, Detail: "as " + who}
		if who == "" {
			step.Detail, step.Warn, step.Fix = "as nobody", true, "most directories show strangers little; give bailey an account that may read people and groups (bind_dn)"
		}
		steps, ok = append(steps, step), ok+1
	}
	if ok == 0 {
		return steps, found
	}
	if err := d.do(ctx, d.checkBase); err != nil {
		return append(steps, failed("people below "+d.cfg.UserBase, err)), found
	}
	steps = append(steps, external.Step{Name: "people below " + d.cfg.UserBase, OK: true})
	if login == "" {
		return steps, found
	}
	found, is, err := d.Find(ctx, login)
	name := "user " + login
	switch {
	case err != nil:
		return append(steps, failed(name, err)), Entry{}
	case !is:
		return append(steps, external.Step{
			Name: name, Detail: "nobody, or more than one, is found by " + fill(d.cfg.UserFilter, map[string]string{"{login}": login}),
			Fix: "check the spelling, user_base and user_filter; try it: ldapsearch -x -ZZ -D '" + d.cfg.BindDN + "' -W -b '" + d.cfg.UserBase + "' '" + fill(d.cfg.UserFilter, map[string]string{"{login}": login}) + "'",
		}), Entry{}
	}
	steps = append(steps, external.Step{Name: name, OK: true, Detail: fmt.Sprintf("%s, called %q, id %s", found.DN, found.Login, found.Subject)})
	if found.Locked {
		steps = append(steps, external.Step{Name: "account state", Detail: "the directory says that the account is disabled or has expired", Fix: "enable it there, or choose another user"})
	}
	return steps, found
}

func tlsWords(c *ldap.Conn) string {
	cs, ok := c.TLSConnectionState()
	if !ok || len(cs.PeerCertificates) == 0 {
		return ""
	}
	left := time.Until(cs.PeerCertificates[0].NotAfter)
	more := "for less than a day more"
	if days := int(left.Hours() / 24); days == 1 {
		more = "for 1 day more"
	} else if days > 1 {
		more = fmt.Sprintf("for %d days more", days)
	}
	return fmt.Sprintf(", certificate of %q %s", cs.PeerCertificates[0].Subject.CommonName, more)
}

// testClock compares clocks with a server that tells the time; Active Directory
// does.
func (d *Directory) testClock(c *ldap.Conn) []external.Step {
	res, err := c.Search(ldap.NewSearchRequest("", ldap.ScopeBaseObject, ldap.NeverDerefAliases, 1, d.seconds(), false, "(objectClass=*)", []string{"currentTime"}, nil))
	if err != nil || len(res.Entries) != 1 {
		return nil
	}
	at, err := time.Parse("20060102150405.0Z", res.Entries[0].GetAttributeValue("currentTime"))
	if err != nil {
		return nil
	}
	if apart := d.cfg.Now().Sub(at).Abs(); apart > 2*time.Minute {
		return []external.Step{{Name: "clock", OK: true, Warn: true, Detail: fmt.Sprintf("the server's clock and this one are %s apart", apart.Round(time.Second)), Fix: "set both by NTP (timedatectl set-ntp true): certificates and accounts that expire are judged by them"}}
	}
	return nil
}

// failed makes a step of an error.
func failed(name string, err error) external.Step {
	if p, ok := errors.AsType[*problem](err); ok {
		return external.Step{Name: name, Detail: p.what, Fix: p.fix}
	}
	return external.Step{Name: name, Detail: err.Error(), Fix: "look at the directory's log"}
}
