package console

import (
	"context"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/sshkey"
)

// sshData is what the account page shows of a person's access over SSH.
type sshData struct {
	Keys         []bailey.SSHKey
	Certificates []bailey.SSHCertificate
}

func (c *Console) sshDataOf(ctx context.Context, actor bailey.Actor) (d sshData, err error) {
	if d.Keys, err = c.cfg.Identity.SSHKeys(ctx, actor, ""); err != nil {
		return d, err
	}
	d.Certificates, err = c.cfg.Identity.SSHCertificates(ctx, actor, "")
	return d, err
}

func (c *Console) addSSHKey(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	f, err := formOf(r)
	if err != nil {
		return err
	}
	days := 0
	if text := strings.TrimSpace(f.Get("days")); text != "" {
		if days, err = strconv.Atoi(text); err != nil || days < 1 || days > 36500 {
			c.refuse(w, r, &bailey.Error{Kind: bailey.Invalid, Msg: "the number of days is no number", Hint: "leave it empty for a year"})
			return c.account(w, r)
		}
	}
	k, err := c.cfg.Identity.AddSSHKey(r.Context(), actor, identity.NewSSHKey{
		Line: f.Get("key"), Name: f.Get("name"), Lifetime: time.Duration(days) * 24 * time.Hour,
	})
	if asksAgain(err) {
		return err
	}
	if err != nil {
		c.refuse(w, r, err)
		return c.account(w, r)
	}
	viewOf(r.Context()).Notice = "The key " + k.Name + " is added."
	return c.account(w, r)
}

func (c *Console) removeSSHKey(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	if err := c.cfg.Identity.RemoveSSHKey(r.Context(), actor, "", r.PathValue("id")); err != nil {
		return err
	}
	http.Redirect(w, r, "/account", http.StatusSeeOther)
	return nil
}

func (c *Console) revokeSSHCertificate(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	serial, err := strconv.ParseUint(r.PathValue("serial"), 10, 64)
	if err != nil || serial == 0 {
		return bailey.Errorf(bailey.NotFound, "there is no such valid certificate")
	}
	if _, err := c.cfg.Identity.RevokeSSHCertificates(r.Context(), actor, "", serial); err != nil {
		return err
	}
	http.Redirect(w, r, "/account", http.StatusSeeOther)
	return nil
}

// contactData is what the page of a first contact shows.
type contactData struct {
	Key  bailey.SSHPending
	Code string
	Here string // this browser's address
}

// sshContact shows a key that waits, to the person whose account it was tried
// on and to nobody else.
func (c *Console) sshContact(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	code := r.PathValue("code")
	key, err := c.cfg.Identity.Contact(r.Context(), actor, code)
	if err == nil {
		err = c.cfg.Identity.Fresh(actor) // before they type anything
	}
	if err != nil {
		return err
	}
	viewOf(r.Context()).Section = "account"
	return c.show(w, r, "sshcontact", "Is this your SSH key?", contactData{Key: key, Code: code, Here: edge.ClientIP(r)})
}

func (c *Console) bindSSHContact(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	f, err := formOf(r)
	if err != nil {
		return err
	}
	k, err := c.cfg.Identity.BindContact(r.Context(), actor, r.PathValue("code"), f.Get("typed"), f.Get("keep") == "yes")
	if err != nil && bailey.KindOf(err) == bailey.Invalid {
		c.refuse(w, r, err)
		return c.sshContact(w, r)
	}
	if err != nil {
		return err
	}
	viewOf(r.Context()).Notice = "The key is added as " + k.Name + ". Connect again with ssh."
	return c.account(w, r)
}

func (c *Console) refuseSSHContact(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	if err := c.cfg.Identity.RefuseContact(r.Context(), actor, r.PathValue("code")); err != nil {
		return err
	}
	viewOf(r.Context()).Notice = "The key is refused. If links like that come again, somebody is trying your name: tell an administrator."
	return c.account(w, r)
}

// sshConnect says how to reach a workspace with ssh.
type sshConnect struct {
	Door         bailey.SSHDoor
	Name         string
	Login        string
	Alias        string // that bailey ssh-config gives it
	VSCode       template.URL
	Fingerprints []string // of the host keys
}

// connectTo returns how the actor reaches their workspace with ssh; nil without
// a door.
func (c *Console) connectTo(actor bailey.Actor, ws bailey.Workspace) *sshConnect {
	if c.cfg.SSHDoor == nil {
		return nil
	}
	door := c.cfg.SSHDoor()
	if !door.Open() {
		return nil
	}
	s := &sshConnect{Door: door, Name: ws.Name, Login: door.Login(actor.Name, ws.Name), Alias: ws.Name + ".bailey"}
	// A workspace's name is a label, so nothing in it can be more than it is.
	s.VSCode = template.URL("vscode://vscode-remote/ssh-remote+" + s.Alias + "/workspace") //nolint:gosec // see above
	for _, line := range door.HostKeys {
		if k, err := sshkey.ParseLine(line); err == nil && !slices.Contains(s.Fingerprints, k.Fingerprint) {
			s.Fingerprints = append(s.Fingerprints, k.Fingerprint)
		}
	}
	return s
}
