// Package sshgate is the SSH door: it decides what a connection may ask for
// (shells, commands, sftp, forwarding) and carries it to the person's own
// workspace and back. Who somebody is, identity says; whether they may, policy;
// what runs inside, the agent of the workspace, which no image has to bring.
package sshgate

import (
	"context"

	"golang.org/x/crypto/ssh"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/identity"
)

// People is what the door asks about those who knock. [identity.Service]
// implements it.
type People interface {
	// OfferSSHKey reports by nil that key, or a certificate, could sign in as
	// name. A client may ask without owning the key, so it is a pure lookup: it
	// writes, counts and audits nothing, and does the same work for a name that
	// is no account.
	OfferSSHKey(ctx context.Context, name string, key ssh.PublicKey, ip string) error
	// SignInSSH signs in whoever has proved to hold the key. It checks
	// everything anew, and is audited. The actor's Session names what Ended
	// waits for.
	SignInSSH(ctx context.Context, in identity.SSHSignIn) (bailey.Actor, identity.SSHGrant, error)
	// FailedSSH counts a connection that ended without a sign-in, once, with
	// as many keys as it offered.
	FailedSSH(ctx context.Context, name, ip string, offered int)
	// AllowSSH is asked before anything else of a connection is: an address
	// that failed too often is told to wait.
	AllowSSH(ctx context.Context, ip string) error
	// Ended is closed when the sign-in is no longer good: signed out, revoked,
	// disabled, expired. The function releases the wait.
	Ended(actor bailey.Actor) (<-chan struct{}, func())
	// FirstContact returns the address of a page on which somebody who is
	// signed in can bind a key that is not known yet, after comparing its
	// fingerprint and the address it came from. It is empty when there is none.
	// It is asked at most once in a connection.
	FirstContact(ctx context.Context, name string, key ssh.PublicKey, ip string) (link string, err error)
}
