// Package acme gets the server's certificates from an authority that speaks
// ACME (RFC 8555), keeps them in the database, where all servers on it share
// them, and renews them. The protocol and the calendar are certmagic's.
package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap" //nolint:depguard // certmagic logs with it; tolog.go leads it to slog

	"github.com/baileyhq/bailey/internal/secret"
)

// The challenges of RFC 8555 §8 and RFC 8737.
const (
	HTTP01    = "http-01"
	TLSALPN01 = "tls-alpn-01"
	DNS01     = "dns-01"
)

// Config says from whom certificates come and how it is proved that the names
// are ours.
type Config struct {
	Directory string         // URL of the authority's directory
	Roots     *x509.CertPool // whom the directory's own certificate must come from; nil: the system's
	Email     string         // where the authority writes to; may be empty
	Names     []string       // DNS names to have certificates for, also wildcards; one at least
	KeyID     string         // external account binding, with MACKey, where the authority asks for it
	MACKey    secret.Value   // base64url, as authorities give it

	Challenges []string // at least one of the constants
	HTTPPort   int      // where our own HTTP listener is, for HTTP01
	HTTPSPort  int      // where our own HTTPS listener is, for TLSALPN01
	Hook       string   // program that sets and removes DNS records, for DNS01; see [hook]

	Store Store
	Log   *slog.Logger // nil: silent
}

// An Issuer holds the certificates. It may be used concurrently.
type Issuer struct {
	names   []string
	log     *slog.Logger
	magic   *certmagic.Config
	cache   *certmagic.Cache
	issuer  *certmagic.ACMEIssuer
	started atomic.Bool
}

// New checks cfg. Nothing is asked of the authority before [Issuer.Run].
func New(cfg Config) (*Issuer, error) {
	if cfg.Directory == "" || len(cfg.Names) == 0 || cfg.Store == nil || len(cfg.Challenges) == 0 {
		return nil, errors.New("acme: Directory, Names, Challenges and Store are required")
	}
	for _, name := range cfg.Names {
		if strings.HasPrefix(name, "*.") && !slices.Contains(cfg.Challenges, DNS01) {
			return nil, fmt.Errorf("acme: a certificate for %s needs the challenge %s", name, DNS01)
		}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	i := &Issuer{names: slices.Clone(cfg.Names), log: cfg.Log}
	logger := zap.New(toSlog{log: cfg.Log})
	i.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return i.magic, nil },
		Logger:           logger,
	})
	i.magic = certmagic.New(i.cache, certmagic.Config{
		Storage: newStorage(cfg.Store),
		Logger:  logger,
		// Authorities give OCSP up, and stapling asks a third party at times it chooses.
		OCSP:      certmagic.OCSPConfig{DisableStapling: true},
		KeySource: certmagic.StandardKeyGenerator{KeyType: certmagic.P256},
	})
	template := certmagic.ACMEIssuer{
		CA: cfg.Directory, Email: cfg.Email, Agreed: true, TrustedRoots: cfg.Roots, Logger: logger,
		DisableHTTPChallenge:    !slices.Contains(cfg.Challenges, HTTP01),
		DisableTLSALPNChallenge: !slices.Contains(cfg.Challenges, TLSALPN01),
		// Our listeners are open already and answer; certmagic sees that and opens none.
		AltHTTPPort: cfg.HTTPPort, AltTLSALPNPort: cfg.HTTPSPort,
	}
	if slices.Contains(cfg.Challenges, DNS01) {
		if cfg.Hook == "" {
			return nil, fmt.Errorf("acme: the challenge %s needs a Hook", DNS01)
		}
		template.DNS01Solver = hook{program: cfg.Hook, log: cfg.Log}
	}
	if cfg.KeyID != "" {
		template.ExternalAccount = &acme.EAB{KeyID: cfg.KeyID, MACKey: cfg.MACKey.Reveal()}
	}
	i.issuer = certmagic.NewACMEIssuer(i.magic, template)
	i.magic.Issuers = []certmagic.Issuer{i.issuer}
	return i, nil
}

// Run gets what certificates are missing or due and goes on renewing them until
// ctx ends. A failure is logged and tried again, later each time; what there is
// stays in use.
func (i *Issuer) Run(ctx context.Context) error {
	defer i.cache.Stop()
	i.started.Store(true)
	if err := i.magic.ManageAsync(ctx, i.names); err != nil {
		i.log.WarnContext(ctx, "no certificate from the authority yet", slog.String("error", err.Error()))
	}
	<-ctx.Done()
	return nil
}

// Protocols returns what a TLS server must offer beside its own protocols for
// the challenges to work.
func (i *Issuer) Protocols() []string {
	if i.issuer.DisableTLSALPNChallenge {
		return nil
	}
	return []string{acmez.ACMETLS1Protocol}
}

// Certificate returns what a handshake presents: the certificate for its name,
// or the proof that the authority looks for. It is nil when there is neither,
// as before the first one has been issued, or when the name is not one of ours.
func (i *Issuer) Certificate(hello *tls.ClientHelloInfo) *tls.Certificate {
	if !i.started.Load() || !i.covers(hello.ServerName) {
		return nil // strangers' names do not reach the database
	}
	cert, err := i.magic.GetCertificate(hello)
	if err != nil {
		return nil
	}
	return cert
}

// covers reports whether name is one of the names, or one label under a wildcard.
func (i *Issuer) covers(name string) bool {
	name = strings.ToLower(name)
	_, domain, _ := strings.Cut(name, ".")
	return slices.Contains(i.names, name) || domain != "" && slices.Contains(i.names, "*."+domain)
}

// HandleHTTP answers r when it is the authority looking for its proof, and
// reports whether it did.
func (i *Issuer) HandleHTTP(w http.ResponseWriter, r *http.Request) bool {
	host, _, _ := strings.Cut(r.Host, ":")
	return i.started.Load() && !i.issuer.DisableHTTPChallenge && i.covers(host) && i.issuer.HandleHTTPChallenge(w, r)
}
