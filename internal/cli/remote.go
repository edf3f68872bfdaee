package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/baileyhq/bailey/internal/client"
	"github.com/baileyhq/bailey/internal/secret"
)

// A profile is what "bailey login" remembers of a server: one file, 0600.
type profile struct {
	URL         string `json:"url"`
	User        string `json:"user"`
	Token       string `json:"token"`
	CA          string `json:"ca,omitempty"`          // PEM
	Fingerprint string `json:"fingerprint,omitempty"` // SHA-256 of a certificate of the chain, hex
}

// profilePath returns where the profile lives: $BAILEY_PROFILE, or bailey's
// folder among the user's configuration.
func profilePath() (string, error) {
	if p := os.Getenv("BAILEY_PROFILE"); p != "" {
		return p, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", &failure{code: exitFailure, msg: "find your configuration folder", hint: "set HOME, or BAILEY_PROFILE to a file", err: err}
	}
	return filepath.Join(dir, "bailey", "profile.json"), nil
}

func loadProfile() (profile, error) {
	var p profile
	path, err := profilePath()
	if err != nil {
		return p, err
	}
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return p, &failure{code: exitFailure, msg: "read " + path, hint: "sign in again: bailey login URL", err: err}
	}
	if v := os.Getenv("BAILEY_SERVER"); v != "" {
		p.URL = v
	}
	if v := os.Getenv("BAILEY_TOKEN"); v != "" {
		p.Token = v
	}
	if v := os.Getenv("BAILEY_CA"); v != "" {
		ca, err := os.ReadFile(v)
		if err != nil {
			return p, &failure{code: exitUsage, msg: "read the CA named in BAILEY_CA", err: err}
		}
		p.CA = string(ca)
	}
	if p.URL == "" || p.Token == "" {
		return p, &failure{code: exitSignIn, msg: "not signed in to a server", hint: "bailey login https://SERVER:8443"}
	}
	return p, nil
}

// save writes the profile so that nobody else can read it, whole or not at all.
func (p profile) save() (string, error) {
	path, err := profilePath()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("make the profile's folder: %w", err)
	}
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return "", err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".profile-*") // made 0600
	if err != nil {
		return "", fmt.Errorf("write the profile: %w", err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // gone after the rename
	_, err = f.Write(append(b, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", fmt.Errorf("write the profile: %w", err)
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return "", fmt.Errorf("write the profile: %w", err)
	}
	return path, nil
}

// httpClient trusts the profile's CA alone, or the pinned certificate alone,
// or what the system trusts.
func (p profile) httpClient() (*http.Client, error) {
	tc := &tls.Config{MinVersion: tls.VersionTLS12}
	switch {
	case p.Fingerprint != "":
		want, err := parseFingerprint(p.Fingerprint)
		if err != nil {
			return nil, err
		}
		tc.InsecureSkipVerify = true // VerifyConnection below pins the certificate instead
		tc.VerifyConnection = func(cs tls.ConnectionState) error { return checkPin(cs, want) }
	case p.CA != "":
		tc.RootCAs = x509.NewCertPool()
		if !tc.RootCAs.AppendCertsFromPEM([]byte(p.CA)) {
			return nil, &failure{code: exitUsage, msg: "the CA file holds no PEM certificate"}
		}
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: tc, ForceAttemptHTTP2: true,
		Proxy: http.ProxyFromEnvironment,
		// "*.localhost" and "localhost" are this machine, whatever the resolver says (RFC 6761).
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if host, port, err := net.SplitHostPort(addr); err == nil && strings.HasSuffix("."+host, ".localhost") {
				addr = net.JoinHostPort("127.0.0.1", port)
			}
			return dialer.DialContext(ctx, network, addr)
		},
	}}, nil
}

// parseFingerprint reads "SHA256:AB:CD…", "sha256:abcd…" or plain hex.
func parseFingerprint(s string) (string, error) {
	h := strings.ToLower(s)
	h = strings.TrimPrefix(h, "sha256:")
	h = strings.TrimPrefix(h, "sha256=")
	h = strings.NewReplacer(":", "", " ", "").Replace(h)
	if b, err := hex.DecodeString(h); err != nil || len(b) != sha256.Size {
		return "", usage("copy it whole from what the server printed at start", "%q is no SHA-256 fingerprint", s)
	}
	return h, nil
}

// checkPin accepts a chain that ends in the pinned certificate: the leaf
// itself, or a CA that the server sends and that really signed the leaf.
func checkPin(cs tls.ConnectionState, want string) error {
	for i, cert := range cs.PeerCertificates {
		sum := sha256.Sum256(cert.Raw)
		if hex.EncodeToString(sum[:]) != want {
			continue
		}
		if i == 0 {
			return nil
		}
		roots, inter := x509.NewCertPool(), x509.NewCertPool()
		roots.AddCert(cert)
		for _, c := range cs.PeerCertificates[1:i] {
			inter.AddCert(c)
		}
		_, err := cs.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: inter, DNSName: cs.ServerName})
		return err
	}
	return errors.New("the server's certificate is not the one whose fingerprint you gave; somebody may be in between")
}

// A remote is a signed-in connection to a server's API.
type remote struct {
	api  *client.ClientWithResponses
	http *http.Client
	p    profile
}

// connect uses the stored profile.
func connect() (*remote, error) {
	p, err := loadProfile()
	if err != nil {
		return nil, err
	}
	return p.connect()
}

func (p profile) connect() (*remote, error) {
	hc, err := p.httpClient()
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(p.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, usage("write it as https://HOST:8443", "%q is no server address", p.URL)
	}
	token := secret.New(p.Token)
	api, err := client.NewClientWithResponses(strings.TrimSuffix(p.URL, "/"), client.WithHTTPClient(hc),
		client.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
			if err := oneName(r.URL); err != nil {
				return err
			}
			if !token.Empty() {
				r.Header.Set("Authorization", "Bearer "+token.Reveal())
			}
			return nil
		}))
	if err != nil {
		return nil, err
	}
	return &remote{api: api, http: hc, p: p}, nil
}

// oneName refuses names that would be more or less than one segment of the
// path: the server would refuse them too, without knowing what was meant.
func oneName(u *url.URL) error {
	for i, part := range strings.Split(u.EscapedPath(), "/") {
		name, err := url.PathUnescape(part)
		switch {
		case err != nil || strings.Contains(name, "/"):
			return usage("give the name as the list shows it", "%q is no name: names have no \"/\"", clean(name))
		case name == "" && i > 0:
			return usage("give the name as the list shows it", "the name is empty")
		}
	}
	return nil
}

func unreachable(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return f // nothing was sent
	}
	hint := "is it running, and is the address right? bailey login URL changes it"
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		hint = "give --ca FILE or --fingerprint SHA256:… as the server printed them"
	}
	return &failure{code: exitUnreachable, msg: "the server did not answer", hint: hint, err: err}
}

// problemCode returns the code of a problem that the server answered; empty when
// the body is none.
func problemCode(body []byte) string {
	var p struct {
		Code string `json:"code"`
	}
	if json.Unmarshal(body, &p) != nil {
		return ""
	}
	return p.Code
}

func refusal(status int, body []byte) error {
	var p struct {
		Detail string `json:"detail"`
		Code   string `json:"code"`
		Hint   string `json:"hint"`
		Errors []struct {
			Message  string `json:"message"`
			Location string `json:"location"`
		} `json:"errors"`
	}
	if json.Unmarshal(body, &p) != nil || p.Detail == "" {
		return &failure{code: exitFailure, msg: fmt.Sprintf("the server answered %d and no more", status), hint: "is it a bailey server?"}
	}
	for _, e := range p.Errors {
		p.Detail += fmt.Sprintf("; %s: %s", e.Location, e.Message)
	}
	if p.Code == "" && status == http.StatusUnprocessableEntity {
		p.Code = "invalid"
	}
	return &failure{code: codeOf(p.Code), msg: clean(p.Detail), hint: clean(p.Hint)}
}

// certificates returns the PEM of a CA file after checking that it is one.
func certificates(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", &failure{code: exitUsage, msg: "read the CA file", err: err}
	}
	if block, _ := pem.Decode(b); block == nil || block.Type != "CERTIFICATE" {
		return "", usage("the server writes it to tls/ca.crt in its state folder", "%s holds no PEM certificate", path)
	}
	return string(b), nil
}

// readSecretFile reads a password from a file or, for "-", from in; one line,
// its end cut.
func readSecretFile(path string, in io.Reader) (secret.Value, error) {
	var b []byte
	var err error
	if path == "-" {
		b, err = io.ReadAll(io.LimitReader(in, 64<<10))
	} else {
		b, err = os.ReadFile(path)
	}
	if err != nil {
		return secret.Value{}, &failure{code: exitUsage, msg: "read the password file", err: err}
	}
	b = bytes.TrimRight(b, "\r\n")
	if len(b) == 0 {
		return secret.Value{}, usage("put the password on its first line", "the password file %s is empty", path)
	}
	if bytes.ContainsAny(b, "\r\n") {
		return secret.Value{}, usage("put the password alone on one line", "the password file %s has several lines", path)
	}
	return secret.New(string(b)), nil
}
