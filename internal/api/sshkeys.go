package api

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/identity"
)

func (a *API) sshKeyRoutes() {
	gone := func(o huma.Operation) huma.Operation { return withStatus(o, http.StatusNoContent) }
	register(a, op(http.MethodGet, "/ssh", "sshAccess", "Where to connect with ssh, and the server's host keys", "ssh"), a.sshAccess)
	register(a, op(http.MethodGet, "/me/ssh-keys", "listSSHKeys", "Your SSH keys", "ssh"), a.listSSHKeys)
	register(a, withStatus(op(http.MethodPost, "/me/ssh-keys", "addSSHKey", "Add an SSH key", "ssh"), http.StatusCreated), a.addSSHKey)
	register(a, op(http.MethodPatch, "/me/ssh-keys/{id}", "renameSSHKey", "Rename an SSH key", "ssh"), a.renameSSHKey)
	register(a, gone(op(http.MethodDelete, "/me/ssh-keys/{id}", "removeSSHKey", "Remove an SSH key and end its connections", "ssh")), a.removeSSHKey)
	register(a, op(http.MethodGet, "/me/ssh-certificates", "listSSHCertificates", "Your SSH certificates that have not expired", "ssh"), a.listSSHCertificates)
	register(a, withStatus(op(http.MethodPost, "/me/ssh-certificates", "issueSSHCertificate", "Sign in for SSH: a certificate of at most a day", "ssh"), http.StatusCreated), a.issueSSHCertificate)
	register(a, gone(op(http.MethodDelete, "/me/ssh-certificates/{serial}", "revokeSSHCertificate", "Revoke an SSH certificate and end its connections", "ssh")), a.revokeSSHCertificate)
	register(a, gone(op(http.MethodDelete, "/me/ssh-certificates", "revokeSSHCertificates", "Revoke all your SSH certificates", "ssh")), a.revokeSSHCertificates)
	register(a, op(http.MethodGet, "/users/{name}/ssh-keys", "listUserSSHKeys", "Somebody's SSH keys", "ssh", "admin"), a.listUserSSHKeys)
	register(a, gone(op(http.MethodDelete, "/users/{name}/ssh-keys/{id}", "removeUserSSHKey", "Remove somebody's SSH key and end its connections", "ssh", "admin")), a.removeUserSSHKey)
	register(a, op(http.MethodGet, "/users/{name}/ssh-certificates", "listUserSSHCertificates", "Somebody's SSH certificates that have not expired", "ssh", "admin"), a.listUserSSHCertificates)
	register(a, gone(op(http.MethodDelete, "/users/{name}/ssh-certificates", "revokeUserSSHCertificates", "Revoke all SSH certificates of somebody", "ssh", "admin")), a.revokeUserSSHCertificates)
}

// SSHAccess is what an SSH client must know.
type SSHAccess struct {
	Open       bool     `json:"open" doc:"Whether this server has an SSH door; the rest is empty without one"`
	Host       string   `json:"host"`
	Port       int      `json:"port"`
	User       string   `json:"user" doc:"Your name; +NAME after it chooses a workspace"`
	HostKeys   []string `json:"host_keys" nullable:"false" doc:"Public keys, as in a .pub file; also those that will follow"`
	HostCA     string   `json:"host_ca,omitempty" doc:"The authority that certifies the host keys; who trusts it need not learn their successors"`
	KnownHosts []string `json:"known_hosts" nullable:"false" doc:"Lines for a known_hosts file"`
}

// SSHKey is an SSH key as the API shows it.
type SSHKey struct {
	ID          string     `json:"id"`
	Name        string     `json:"name"`
	Type        string     `json:"type"`
	Fingerprint string     `json:"fingerprint"`
	Comment     string     `json:"comment,omitempty"`
	CreatedAt   time.Time  `json:"created_at"`
	ExpiresAt   *time.Time `json:"expires_at,omitempty"`
	UsedAt      *time.Time `json:"used_at,omitempty"`
	UsedFrom    string     `json:"used_from,omitempty"`
	Reminder    string     `json:"reminder,omitempty" doc:"What to do about its end, in words"`
}

// SSHCertificate is an issued certificate as the API shows it.
type SSHCertificate struct {
	Serial      string     `json:"serial" doc:"A number of up to 63 bits, as text: JavaScript's are too short"`
	Fingerprint string     `json:"fingerprint" doc:"Of the certified key"`
	MadeFrom    string     `json:"made_from,omitempty"`
	CreatedAt   time.Time  `json:"created_at"`
	ExpiresAt   time.Time  `json:"expires_at"`
	UsedAt      *time.Time `json:"used_at,omitempty"`
	UsedFrom    string     `json:"used_from,omitempty"`
	RevokedAt   *time.Time `json:"revoked_at,omitempty"`
}

func sshKeyOf(k bailey.SSHKey) SSHKey {
	return SSHKey{
		ID: k.ID, Name: k.Name, Type: k.Type, Fingerprint: k.Fingerprint, Comment: k.Comment, CreatedAt: k.CreatedAt,
		ExpiresAt: optional(k.ExpiresAt), UsedAt: optional(k.UsedAt), UsedFrom: k.UsedFrom, Reminder: identity.SSHReminder(k, time.Now()),
	}
}

func sshCertificateOf(c bailey.SSHCertificate) SSHCertificate {
	return SSHCertificate{
		Serial: strconv.FormatUint(c.Serial, 10), Fingerprint: c.Fingerprint, MadeFrom: c.MadeFrom, CreatedAt: c.CreatedAt,
		ExpiresAt: c.ExpiresAt, UsedAt: optional(c.UsedAt), UsedFrom: c.UsedFrom, RevokedAt: optional(c.RevokedAt),
	}
}

type sshAccessOutput struct{ Body SSHAccess }

func (a *API) sshAccess(_ context.Context, actor bailey.Actor, _ *none) (*sshAccessOutput, error) {
	out := &sshAccessOutput{Body: SSHAccess{User: actor.Name, HostKeys: []string{}, KnownHosts: []string{}}}
	if a.cfg.SSHDoor == nil {
		return out, nil
	}
	door := a.cfg.SSHDoor()
	if !door.Open() {
		return out, nil
	}
	out.Body.Open, out.Body.Host, out.Body.Port, out.Body.HostKeys = true, door.Host, door.Port, notNil(door.HostKeys)
	if out.Body.HostCA = door.HostCA; door.HostCA != "" {
		out.Body.KnownHosts = append(out.Body.KnownHosts, "@cert-authority "+door.KnownHost()+" "+door.HostCA)
	}
	for _, key := range door.HostKeys {
		out.Body.KnownHosts = append(out.Body.KnownHosts, door.KnownHost()+" "+key)
	}
	return out, nil
}

type sshKeysOutput struct {
	Body struct {
		Keys []SSHKey `json:"keys" nullable:"false"`
	}
}

func (a *API) listSSHKeys(ctx context.Context, actor bailey.Actor, _ *none) (*sshKeysOutput, error) {
	return a.sshKeysOf(ctx, actor, "")
}

func (a *API) listUserSSHKeys(ctx context.Context, actor bailey.Actor, in *NameInput) (*sshKeysOutput, error) {
	return a.sshKeysOf(ctx, actor, in.Name)
}

func (a *API) sshKeysOf(ctx context.Context, actor bailey.Actor, owner string) (*sshKeysOutput, error) {
	list, err := a.cfg.Identity.SSHKeys(ctx, actor, owner)
	if err != nil {
		return nil, err
	}
	out := &sshKeysOutput{}
	out.Body.Keys = all(list, sshKeyOf)
	return out, nil
}

type addSSHKeyInput struct {
	Body struct {
		Key  string `json:"key" maxLength:"16384" doc:"The line of a .pub file"`
		Name string `json:"name,omitempty" maxLength:"64" doc:"Empty: from the key's comment"`
		Days int    `json:"days,omitempty" minimum:"0" maximum:"3650" doc:"Lifetime; 0 means a year, or less when the server allows less"`
	}
}

type sshKeyOutput struct{ Body SSHKey }

func (a *API) addSSHKey(ctx context.Context, actor bailey.Actor, in *addSSHKeyInput) (*sshKeyOutput, error) {
	k, err := a.cfg.Identity.AddSSHKey(ctx, actor, identity.NewSSHKey{
		Line: in.Body.Key, Name: in.Body.Name, Lifetime: time.Duration(in.Body.Days) * 24 * time.Hour,
	})
	if err != nil {
		return nil, err
	}
	return &sshKeyOutput{Body: sshKeyOf(k)}, nil
}

type renameSSHKeyInput struct {
	IDInput
	Body struct {
		Name string `json:"name" maxLength:"64"`
	}
}

func (a *API) renameSSHKey(ctx context.Context, actor bailey.Actor, in *renameSSHKeyInput) (*sshKeyOutput, error) {
	k, err := a.cfg.Identity.RenameSSHKey(ctx, actor, in.ID, in.Body.Name)
	if err != nil {
		return nil, err
	}
	return &sshKeyOutput{Body: sshKeyOf(k)}, nil
}

func (a *API) removeSSHKey(ctx context.Context, actor bailey.Actor, in *IDInput) (*none, error) {
	return nil, a.cfg.Identity.RemoveSSHKey(ctx, actor, "", in.ID)
}

type userSSHKeyInput struct {
	NameInput
	IDInput
}

func (a *API) removeUserSSHKey(ctx context.Context, actor bailey.Actor, in *userSSHKeyInput) (*none, error) {
	return nil, a.cfg.Identity.RemoveSSHKey(ctx, actor, in.Name, in.ID)
}

type sshCertificatesOutput struct {
	Body struct {
		Certificates []SSHCertificate `json:"certificates" nullable:"false"`
	}
}

func (a *API) listSSHCertificates(ctx context.Context, actor bailey.Actor, _ *none) (*sshCertificatesOutput, error) {
	return a.sshCertificatesOf(ctx, actor, "")
}

func (a *API) listUserSSHCertificates(ctx context.Context, actor bailey.Actor, in *NameInput) (*sshCertificatesOutput, error) {
	return a.sshCertificatesOf(ctx, actor, in.Name)
}

func (a *API) sshCertificatesOf(ctx context.Context, actor bailey.Actor, owner string) (*sshCertificatesOutput, error) {
	list, err := a.cfg.Identity.SSHCertificates(ctx, actor, owner)
	if err != nil {
		return nil, err
	}
	out := &sshCertificatesOutput{}
	out.Body.Certificates = all(list, sshCertificateOf)
	return out, nil
}

type issueSSHCertificateInput struct {
	Body struct {
		Key     string   `json:"key" maxLength:"16384" doc:"The line of a .pub file"`
		Minutes int      `json:"minutes,omitempty" minimum:"0" maximum:"1440" doc:"Lifetime; 0 means 12 hours"`
		Sources []string `json:"sources,omitempty" nullable:"false" maxItems:"16" doc:"Addresses and networks it may be used from; empty: any"`
	}
}

type issuedOutput struct {
	Body struct {
		Certificate string    `json:"certificate" doc:"The line of a -cert.pub file"`
		Serial      string    `json:"serial"`
		ExpiresAt   time.Time `json:"expires_at"`
	}
}

func (a *API) issueSSHCertificate(ctx context.Context, actor bailey.Actor, in *issueSSHCertificateInput) (*issuedOutput, error) {
	line, row, err := a.cfg.Identity.IssueSSHCertificate(ctx, actor, identity.NewSSHCertificate{
		Line: in.Body.Key, Lifetime: time.Duration(in.Body.Minutes) * time.Minute, Sources: in.Body.Sources,
	})
	if err != nil {
		return nil, err
	}
	out := &issuedOutput{}
	out.Body.Certificate, out.Body.Serial, out.Body.ExpiresAt = line, strconv.FormatUint(row.Serial, 10), row.ExpiresAt
	return out, nil
}

// SerialInput is a certificate's serial in the path.
type SerialInput struct {
	Serial string `path:"serial" maxLength:"20" pattern:"^[0-9]+$"`
}

func (a *API) revokeSSHCertificate(ctx context.Context, actor bailey.Actor, in *SerialInput) (*none, error) {
	serial, err := strconv.ParseUint(in.Serial, 10, 64)
	if err != nil || serial == 0 {
		return nil, &bailey.Error{Kind: bailey.NotFound, Msg: "there is no such valid certificate", Hint: "list the certificates to see their serials"}
	}
	_, err = a.cfg.Identity.RevokeSSHCertificates(ctx, actor, "", serial)
	return nil, err
}

func (a *API) revokeSSHCertificates(ctx context.Context, actor bailey.Actor, _ *none) (*none, error) {
	_, err := a.cfg.Identity.RevokeSSHCertificates(ctx, actor, "", 0)
	return nil, err
}

func (a *API) revokeUserSSHCertificates(ctx context.Context, actor bailey.Actor, in *NameInput) (*none, error) {
	_, err := a.cfg.Identity.RevokeSSHCertificates(ctx, actor, in.Name, 0)
	return nil, err
}
