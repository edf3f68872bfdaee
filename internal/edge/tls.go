package edge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// How long certificates live. A leaf is renewed when two thirds of its life
// are over.
const (
	leafLife   = 90 * 24 * time.Hour
	checkEvery = 30 * time.Second
	clockSlack = time.Hour // a client's clock may be this far behind ours
	expirySoon = 14 * 24 * time.Hour
	maxExact   = 512 // exact-name leaves kept in memory
)

// CertConfig says where certificates come from: an own CA in Dir, or a pair of
// files that someone else keeps. Exactly one of the two.
type CertConfig struct {
	Dir      string // own CA: made here on the first start
	CertFile string // PEM chain, leaf first
	KeyFile  string // PEM key

	// Issuer gets certificates from an authority elsewhere. They are presented
	// in place of those of the own CA in Dir, which stands in until the first
	// one has come and for names that it does not cover. Nil: there is none.
	Issuer Issuer

	// Hosts returns the DNS names ("*.example.org" included) and addresses to
	// cover; it is asked again and again, and a change takes effect within
	// half a minute. Required.
	Hosts func() []string

	Now func() time.Time // nil means time.Now
	Log *slog.Logger     // nil: silent
}

// An Issuer gets certificates from an authority elsewhere and renews them.
// Implemented by edge/acme.
type Issuer interface {
	// Certificate returns what this handshake presents; nil: nothing of the Issuer's.
	Certificate(hello *tls.ClientHelloInfo) *tls.Certificate
	// Protocols names what TLS must offer for the authority's challenges (ALPN).
	Protocols() []string
	// HandleHTTP answers the authority's challenge over plain HTTP, and reports
	// whether r was one.
	HandleHTTP(w http.ResponseWriter, r *http.Request) bool
	// Run gets and renews certificates until ctx ends.
	Run(ctx context.Context) error
}

// Certs holds the server's certificate and keeps it good while [Certs.Run]
// runs: renewed before it ends, issued anew when the hosts change, read again
// when its files change. Handshakes pick up the new one without a restart. It
// may be used concurrently.
type Certs struct {
	cfg CertConfig
	ca  *authority // nil: from files
	now atomic.Pointer[serving]

	mu       sync.Mutex // guards the rest; held by Refresh
	pem      [2][]byte  // what the files held when they were last looked at
	warned   string     // the last complaint, so that it is made once
	warnedAt time.Time
}

// serving is one immutable generation of what is presented.
type serving struct {
	base  *tls.Certificate
	hosts []string

	mu    sync.Mutex // guards exact
	exact map[string]*tls.Certificate
}

// NewCerts loads or makes the certificate. It fails when the files are missing
// or wrong, and when an existing CA is not whole: a CA is never silently
// replaced, because people have told their browsers to trust it.
func NewCerts(cfg CertConfig) (*Certs, error) {
	if cfg.Hosts == nil {
		return nil, errors.New("certificates: Hosts is required")
	}
	files := cfg.CertFile != "" || cfg.KeyFile != ""
	switch {
	case files && (cfg.CertFile == "" || cfg.KeyFile == ""):
		return nil, errors.New("certificates: a certificate file and a key file belong together")
	case files == (cfg.Dir != ""):
		return nil, errors.New("certificates: give either a directory for an own CA, or a certificate and a key file")
	case files && cfg.Issuer != nil:
		return nil, errors.New("certificates: they come from files or from an issuer, not from both")
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Certs{cfg: cfg}
	if !files {
		ca, err := loadAuthority(cfg.Dir, cfg.Now())
		if err != nil {
			return nil, err
		}
		c.ca = ca
	}
	if err := c.Refresh(); err != nil {
		return nil, err
	}
	return c, nil
}

// Run keeps the certificate good until ctx ends. It looks at the clock and the
// files every half minute rather than sleeping until a computed date, because
// clocks jump.
func (c *Certs) Run(ctx context.Context) error {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := c.Refresh(); err != nil {
				c.complain(ctx, err)
			}
		}
	}
}

// complain logs err once, and again after a day.
func (c *Certs) complain(ctx context.Context, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err.Error() == c.warned && time.Since(c.warnedAt) < 24*time.Hour {
		return
	}
	c.warned, c.warnedAt = err.Error(), time.Now()
	c.cfg.Log.WarnContext(ctx, "certificate not renewed, the former stays in use", slog.String("error", err.Error()))
}

// Refresh looks once whether the certificate must change, and changes it. On
// an error the former stays in use.
func (c *Certs) Refresh() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ca == nil {
		return c.reread()
	}
	return c.reissue()
}

// reissue makes a new leaf when there is none, two thirds of its life are
// over, the hosts changed, or the clock went back to before it began.
func (c *Certs) reissue() error {
	now, hosts := c.cfg.Now(), c.cfg.Hosts()
	if s := c.now.Load(); s != nil {
		leaf := s.base.Leaf
		due := leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) * 2 / 3)
		if slices.Equal(s.hosts, hosts) && now.Before(due) && !now.Before(leaf.NotBefore) {
			return nil
		}
	}
	base, err := c.ca.issue(now, hosts, nil)
	if err != nil {
		return fmt.Errorf("issue certificate: %w", err)
	}
	c.now.Store(&serving{base: base, hosts: slices.Clone(hosts), exact: map[string]*tls.Certificate{}})
	c.cfg.Log.Info("certificate issued",
		slog.Int("hosts", len(hosts)), slog.Time("expires", base.Leaf.NotAfter))
	return nil
}

// reread loads the files when their contents changed.
func (c *Certs) reread() error {
	cert, err := os.ReadFile(c.cfg.CertFile)
	if err != nil {
		return fmt.Errorf("read certificate: %w", err)
	}
	key, err := os.ReadFile(c.cfg.KeyFile)
	if err != nil {
		return fmt.Errorf("read certificate key: %w", err)
	}
	if c.now.Load() != nil && bytes.Equal(cert, c.pem[0]) && bytes.Equal(key, c.pem[1]) {
		return c.expiring()
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("certificate %s and key %s: %w", c.cfg.CertFile, c.cfg.KeyFile, err)
	}
	c.pem = [2][]byte{cert, key}
	for _, host := range c.cfg.Hosts() {
		probe := strings.Replace(host, "*.", "any-workspace.", 1)
		if net.ParseIP(host) == nil && host != "localhost" && pair.Leaf.VerifyHostname(probe) != nil {
			c.cfg.Log.Warn("certificate does not cover a name that is served",
				slog.String("host", host), slog.String("file", c.cfg.CertFile))
		}
	}
	c.now.Store(&serving{base: &pair})
	c.cfg.Log.Info("certificate read",
		slog.String("file", c.cfg.CertFile), slog.Time("expires", pair.Leaf.NotAfter))
	return c.expiring()
}

// expiring is an error when the certificate from files is about to end, or has
// ended: someone else must renew it. At the start it is not one: an expired
// certificate still serves those who look at it.
func (c *Certs) expiring() error {
	leaf := c.now.Load().base.Leaf
	if left := leaf.NotAfter.Sub(c.cfg.Now()); left < expirySoon {
		err := fmt.Errorf("the certificate in %s ends on %s; renew it", c.cfg.CertFile, leaf.NotAfter.Format(time.DateOnly))
		if c.warned != err.Error() {
			c.warned, c.warnedAt = err.Error(), time.Now()
			c.cfg.Log.Warn("certificate ends soon", slog.String("error", err.Error()))
		}
	}
	return nil
}

// TLSConfig returns the server's TLS: 1.3, and 1.2 with forward secrecy and
// AEAD only, HTTP/2 and HTTP/1.1.
func (c *Certs) TLSConfig() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		NextProtos:     append([]string{"h2", "http/1.1"}, c.challengeProtocols()...),
		GetCertificate: c.certificate,
	}
}

// challengeProtocols returns what the issuer's challenges need in ALPN.
func (c *Certs) challengeProtocols() []string {
	if c.cfg.Issuer == nil {
		return nil
	}
	return c.cfg.Issuer.Protocols()
}

// certificate picks what to present. With an own CA a name under a wildcard
// gets a leaf for exactly that name: browsers refuse "*.localhost", and with
// exact names they do not put two workspaces on one HTTP/2 connection.
func (c *Certs) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if c.cfg.Issuer != nil {
		if cert := c.cfg.Issuer.Certificate(hello); cert != nil {
			return cert, nil
		}
	}
	s := c.now.Load()
	name := strings.ToLower(hello.ServerName)
	if c.ca == nil || !underWildcard(name, s.hosts) {
		return s.base, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if cert := s.exact[name]; cert != nil {
		return cert, nil
	}
	cert, err := c.ca.issue(c.cfg.Now(), []string{name}, s.base)
	if err != nil {
		return nil, fmt.Errorf("issue certificate: %w", err)
	}
	if len(s.exact) >= maxExact { // someone tries names; forget and begin again
		clear(s.exact)
	}
	s.exact[name] = cert
	return cert, nil
}

// underWildcard reports whether name is one plain label before the domain of a
// wildcard in hosts, and not itself in hosts.
func underWildcard(name string, hosts []string) bool {
	label, domain, ok := strings.Cut(name, ".")
	return ok && ValidSlug(label) && slices.Contains(hosts, "*."+domain) && !slices.Contains(hosts, name)
}

// Fingerprint returns the SHA-256 of the CA's certificate, or of the leaf when
// it comes from files, as "AB:CD:…": what a person compares before trusting.
func (c *Certs) Fingerprint() string {
	der := c.now.Load().base.Certificate[0]
	if c.ca != nil {
		der = c.ca.cert.Raw
	}
	return fingerprint(der)
}

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return strings.ReplaceAll(fmt.Sprintf("% X", sum), " ", ":")
}

// CAFile returns the file with the own CA's certificate, for clients to trust;
// empty when the certificate comes from files.
func (c *Certs) CAFile() string {
	if c.ca == nil {
		return ""
	}
	return c.ca.file
}

// Leaf returns the certificate that is presented now.
func (c *Certs) Leaf() *x509.Certificate { return c.now.Load().base.Leaf }
