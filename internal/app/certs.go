package app

import (
	"context"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/config"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/edge/acme"
	"github.com/baileyhq/bailey/internal/store"
)

// openCerts chooses where certificates come from: files, an authority, or a CA
// of our own.
func (a *App) openCerts(f *config.Config) (err error) {
	certs := edge.CertConfig{Dir: a.st.path("tls"), Hosts: a.origins.CertHosts, Log: a.log}
	switch {
	case f.TLS.Cert != "":
		certs.Dir, certs.CertFile, certs.KeyFile = "", f.TLS.Cert, f.TLS.Key
	case f.TLS.ACME.Directory != "":
		if a.issuer, err = a.openIssuer(f); err != nil {
			return err
		}
		certs.Issuer = a.issuer
	}
	a.certs, err = edge.NewCerts(certs)
	return err
}

func (a *App) openIssuer(f *config.Config) (*acme.Issuer, error) {
	c := f.TLS.ACME
	roots, err := config.Certificates(c.CA)
	if err != nil {
		return nil, err
	}
	key, err := f.ACMEKey()
	if err != nil {
		return nil, err
	}
	return acme.New(acme.Config{
		Directory: c.Directory, Roots: roots, Email: c.Email, KeyID: c.KeyID, MACKey: key,
		Names: a.origins.PublicNames(), Challenges: f.ACMEChallenges(), Hook: c.DNSHook,
		HTTPPort: listenPort(f.Listen.HTTP), HTTPSPort: listenPort(f.Listen.HTTPS),
		Store: sealedFiles{a.store}, Log: a.log,
	})
}

// listenPort returns the port of an address that the configuration has checked; 0
// when there is none.
func listenPort(addr string) int {
	_, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(port)
	return n
}

// sealedFiles is the store as package acme wants it.
type sealedFiles struct{ *store.Store }

// TakeLock is AcquireLock with the lock's own methods.
func (s sealedFiles) TakeLock(ctx context.Context, name, holder string, ttl time.Duration) (func(context.Context, time.Duration) error, func(context.Context) error, error) {
	l, err := s.AcquireLock(ctx, name, holder, ttl)
	if err != nil {
		return nil, nil, err
	}
	keep := func(ctx context.Context, ttl time.Duration) error {
		_, err := s.RenewLock(ctx, l, ttl)
		return err
	}
	return keep, func(ctx context.Context) error { return s.ReleaseLock(ctx, l) }, nil
}

// cannotListen says which port it is.
func cannotListen(f *config.Config, err error) error {
	if strings.HasPrefix(err.Error(), "listen for HTTP:") {
		return &bailey.Error{
			Kind: bailey.Unavailable, Msg: "cannot listen on " + f.Listen.HTTP + " for plain HTTP",
			Hint: "is the port taken, by a web server perhaps? choose another in listen.http, or leave it out", Cause: err,
		}
	}
	return &bailey.Error{
		Kind: bailey.Unavailable, Msg: "cannot listen on " + f.Listen.HTTPS + " for HTTPS",
		Hint: "is the port taken, by another bailey perhaps? choose another with --https ADDR", Cause: err,
	}
}
