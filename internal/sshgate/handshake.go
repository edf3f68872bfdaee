package sshgate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/sshgate/line"
)

const (
	maxTries = 6
	maxUser  = 64 // bytes of a user name that are looked at
)

// algorithms is what is spoken with a client that calls itself version: no
// CBC, no SHA-1, no MAC that is not encrypt-then-MAC, nothing of NIST's curves
// for the exchange. AES-GCM comes first; AES-CTR is for paramiko, which had
// nothing better for long. ChaCha20 is slower here than AES with its own
// instructions, and OpenSSH would take it if it could, so it is offered only to
// dropbear, which shares no other cipher or MAC with us. A client that lies
// about its name gets a sound cipher all the same: strict key exchange, which is
// x/crypto's default, is what Terrapin needed missing.
func algorithms(version string) ssh.Config {
	c := ssh.Config{
		KeyExchanges: []string{ssh.KeyExchangeMLKEM768X25519, ssh.KeyExchangeCurve25519},
		Ciphers:      []string{ssh.CipherAES128GCM, ssh.CipherAES256GCM, ssh.CipherAES128CTR, ssh.CipherAES256CTR},
		MACs:         []string{ssh.HMACSHA256ETM, ssh.HMACSHA512ETM},
	}
	if strings.HasPrefix(version, "SSH-2.0-dropbear") {
		c.Ciphers = append(c.Ciphers, ssh.CipherChaCha20Poly1305)
	}
	return c
}

func keyAlgorithms() []string {
	return []string{
		ssh.KeyAlgoED25519, ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256,
		ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
		ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512,
	}
}

// A knock is one connection until it has signed in. Its fields belong to the
// goroutine of the handshake.
type knock struct {
	g       *Gate
	ctx     context.Context //nolint:containedctx // the library's callbacks have none
	ip      string
	user    string // as first given; it may not change
	named   bool
	name    string // the account
	target  string // the workspace; empty: theirs to choose
	offered int    // keys that were refused
	unknown string // the first key that was not known, as it is on the wire
	taken   string // the user whose connection was counted
}

// signedIn is who a finished handshake found, and as what.
type signedIn struct {
	actor  bailey.Actor
	grant  identity.SSHGrant
	target string
}

// signedInKey is where a signedIn lies in the permissions of the very key that
// signed: nothing that was offered before or after can get there.
type signedInKey struct{}

// errNo is what a client reads of every failure. x/crypto shows it to nobody.
var errNo = errors.New("not signed in")

// parseUser reads "name" or "name+workspace".
func parseUser(user string) (name, target string, err error) {
	if len(user) > maxUser {
		return "", "", errNo
	}
	name, target, chosen := strings.Cut(user, "+")
	if bailey.CheckName("user", name) != nil || chosen && bailey.CheckName("workspace", target) != nil {
		return "", "", errNo
	}
	return name, target, nil
}

// claim notes whom a connection says it is. The name may not change: a key is
// tried for one person.
func (k *knock) claim(user string) error {
	if k.named {
		if k.user != user {
			return errNo
		}
	} else {
		k.named = true
		k.user = user[:min(len(user), maxUser+1)]
		k.name, k.target, _ = parseUser(user)
	}
	if k.name == "" {
		return errNo
	}
	return nil
}

// offer answers the question whether a key would do. Nothing comes of it: a
// client may ask about keys that are not its own.
//
// The first plain key that is not known is let on to its signature, which is
// then refused: who holds it is shown the way to bind it, and nobody else can
// make such a way appear. It also leaves a stranger who asks about one key
// without an answer.
func (k *knock) offer(md ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
	err := k.claim(md.User())
	if err == nil {
		if err = k.g.cfg.People.OfferSSHKey(k.ctx, k.name, key, k.ip); err == nil {
			return &ssh.Permissions{}, nil
		}
		_, cert := key.(*ssh.Certificate)
		if blob := string(key.Marshal()); !cert && (k.unknown == "" || k.unknown == blob) {
			k.unknown = blob
			return &ssh.Permissions{}, nil
		}
	}
	return nil, k.refuse(nil)
}

// refuse is what a client gets for a key that will not do. signed is the key if
// it has signed and is not known.
func (k *knock) refuse(signed ssh.PublicKey) error {
	k.offered++
	if words := k.words(signed); words != "" {
		return &ssh.BannerError{Err: errNo, Message: words}
	}
	return errNo
}

// words is what a client is told with a refused key; most times nothing.
func (k *knock) words(key ssh.PublicKey) string {
	var text strings.Builder
	if key != nil {
		if link, err := k.g.cfg.People.FirstContact(k.ctx, k.name, key, k.ip); err == nil && link != "" {
			fmt.Fprintf(&text, "bailey does not know this key:\r\n  %s\r\nIf it is yours, bind it to your account, once you have compared the fingerprint:\r\n  %s\r\n",
				ssh.FingerprintSHA256(key), link)
		}
	}
	if k.offered == maxTries-1 {
		fmt.Fprintf(&text, "bailey: your client has offered %d keys that are not bound to this account, and may offer one more.\r\n"+
			"Name the right one: ssh -o IdentitiesOnly=yes -i FILE …\r\n", k.offered)
	}
	return text.String()
}

// verified signs in whoever has signed with key.
func (k *knock) verified(md ssh.ConnMetadata, key ssh.PublicKey, _ *ssh.Permissions, _ string) (*ssh.Permissions, error) {
	if err := k.claim(md.User()); err != nil {
		return nil, err
	}
	if string(key.Marshal()) == k.unknown && k.g.cfg.People.OfferSSHKey(k.ctx, k.name, key, k.ip) != nil {
		return nil, k.refuse(key)
	}
	in := identity.SSHSignIn{Name: k.name, Key: key, IP: k.ip, Client: string(md.ClientVersion())}
	if cert, ok := key.(*ssh.Certificate); ok {
		in.Key, in.Certificate = cert.Key, cert
	}
	actor, grant, err := k.g.cfg.People.SignInSSH(k.ctx, in)
	if err != nil {
		if e, ok := errors.AsType[*bailey.Error](err); ok && e.Kind != bailey.Unauthenticated {
			k.offered++
			return nil, &ssh.BannerError{Err: err, Message: say(err) + "\r\n"}
		}
		return nil, k.refuse(nil)
	}
	if !k.g.crowd.Take(actor.UserID) {
		return nil, &ssh.BannerError{Err: errNo, Message: fmt.Sprintf(
			"bailey: you have %d connections open, which is as many as one person may have; close some\r\n", k.g.cfg.Limits.Connections)}
	}
	k.taken = actor.UserID
	return &ssh.Permissions{ExtraData: map[any]any{signedInKey{}: signedIn{actor, grant, k.target}}}, nil
}

// serve is the life of one connection. leave counts the stranger out.
func (g *Gate) serve(nc net.Conn, ip string, leave func()) {
	defer func() {
		g.mu.Lock()
		delete(g.raw, nc)
		g.mu.Unlock()
	}()
	ctx, cancel := context.WithCancel(g.ctx)
	defer cancel()
	// Once, for all of the handshake: what is slow must not be slow for ever.
	if err := nc.SetDeadline(time.Now().Add(g.cfg.Limits.Grace)); err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	if err := g.cfg.People.AllowSSH(ctx, ip); err != nil {
		_, _ = io.WriteString(nc, "Not allowed at this time\r\n") // before any version, as RFC 4253, 4.2, has it
		stop()
		return
	}
	heard, version := line.Overhear(nc, g.cfg.Limits.Grace)
	if ctx.Err() != nil { // overhearing has moved the deadline
		_ = nc.SetDeadline(time.Unix(1, 0))
	}
	if !strings.HasPrefix(version, "SSH-") && !strings.HasPrefix("SSH-", version) {
		// RFC 4253, 4.2: a client's first line is its version. The library skips
		// others, such as the PROXY header of somebody who is no proxy of ours.
		stop()
		return
	}
	k := &knock{g: g, ctx: ctx, ip: ip}
	defer func() {
		if k.taken != "" {
			g.crowd.Release(k.taken)
		}
	}()
	cfg := &ssh.ServerConfig{
		Config: algorithms(version), PublicKeyAuthAlgorithms: keyAlgorithms(), MaxAuthTries: maxTries, ServerVersion: "SSH-2.0-bailey",
		PublicKeyCallback: k.offer, VerifiedPublicKeyCallback: k.verified,
	}
	for _, key := range g.hostKeys(version) {
		cfg.AddHostKey(key)
	}
	sc, channels, requests, err := ssh.NewServerConn(heard, cfg)
	if !stop() || err != nil {
		if err == nil {
			_ = sc.Close()
		}
		if k.named {
			g.cfg.People.FailedSSH(context.WithoutCancel(ctx), k.name, ip, k.offered)
		}
		g.log.DebugContext(ctx, "ssh handshake ended", slog.String("ip", ip), slog.Any("error", err))
		return
	}
	leave()
	in, ok := sc.Permissions.ExtraData[signedInKey{}].(signedIn)
	if !ok || nc.SetDeadline(time.Time{}) != nil {
		_ = sc.Close()
		return
	}
	newConn(g, sc, heard, in, ip).serve(ctx, channels, requests)
}

// hostKeys are the keys by which the server shows itself to a client: plain ones
// to everybody, and with certificates to OpenSSH's, who take a certificate whose
// authority they do not know for the plain key in it. Other clients, Go's and
// Java's among them, ask for a certificate first and then take it for a key that
// they do not know.
func (g *Gate) hostKeys(version string) []ssh.Signer {
	keys := slices.Clone(g.cfg.HostKeys)
	if g.cfg.Authority == nil || !strings.HasPrefix(version, "SSH-2.0-OpenSSH") {
		return keys
	}
	for _, key := range g.cfg.HostKeys {
		certified, err := g.cfg.Authority.Certify(key, time.Now())
		if err != nil {
			g.log.Error("ssh host key not certified", slog.Any("error", err))
			continue
		}
		keys = append(keys, certified)
	}
	return keys
}

// say is an error as the person at the other end reads it.
func say(err error) string {
	if e, ok := errors.AsType[*bailey.Error](err); ok && e.Kind != bailey.Internal {
		text := "bailey: " + e.Msg
		if e.Hint != "" {
			text += "\r\nbailey: " + e.Hint
		}
		return text
	}
	return "bailey: internal error; the server's log says more"
}
