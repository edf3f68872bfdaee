package external

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"
)

// A Step is one thing that a test of a source tried, and what came of it.
type Step struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Warn   bool   `json:"warn,omitempty"` // it works, but an administrator should know
	Detail string `json:"detail,omitempty"`
	Fix    string `json:"fix,omitempty"` // what to do about it, unless it is fine
}

// Unreachable says in words why a connection to a host was not made: what is
// wrong, and what an administrator does about it. ca is the file whose
// certificates are trusted, empty for those of the system.
func Unreachable(err error, host, ca string) (what, fix string) {
	trusted := "the system's certificates are trusted, for want of a ca"
	if ca != "" {
		trusted = "the certificates in " + ca + " are trusted"
	}
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "the certificate of " + host + " is signed by nobody whom this server trusts" + issuerOf(e),
			trusted + "; set ca to a PEM file with the certificate of the authority that signed it (openssl s_client -showcerts -connect " + host + " shows the chain)"
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return "the certificate of " + host + " is for other names: " + strings.Join(e.Certificate.DNSNames, ", "),
			"write the address with a name that is in the certificate, or have one made for this name"
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if e.Reason == x509.Expired {
			return fmt.Sprintf("the certificate of %s holds from %s to %s, and the clock of this server says %s", host,
					e.Cert.NotBefore.UTC().Format(time.DateTime), e.Cert.NotAfter.UTC().Format(time.DateTime), time.Now().UTC().Format(time.DateTime)),
				"if the clock is right the certificate must be renewed; else set the clock (timedatectl set-ntp true)"
		}
		return "the certificate of " + host + " is not valid: " + e.Error(), "have a valid certificate made for it"
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return host + " does not speak TLS on this port", "use the port that does: 636 for ldaps://, 389 with StartTLS for ldap://, 443 for https://"
	}
	if _, ok := errors.AsType[tls.AlertError](err); ok {
		return host + " refuses the TLS connection: " + err.Error(), "it must offer TLS 1.2 or newer and not ask for a client's certificate"
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		if e.IsNotFound {
			return "the name " + e.Name + " does not exist", "check the spelling; is the name server of this machine the right one (/etc/resolv.conf)?"
		}
		return "the name " + e.Name + " could not be looked up", "check the name server of this machine (/etc/resolv.conf)"
	}
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return host + " refuses the connection", "does the server run, and is the port right?"
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "there is no way to " + host, "check the network and the routes of this machine"
	case errors.Is(err, context.DeadlineExceeded), isNet && timeout.Timeout():
		return host + " does not answer in time", "is it the right address, and does a firewall let this machine through?"
	}
	return "the connection to " + host + " failed: " + err.Error(), "check the address, and the server there"
}

func issuerOf(e x509.UnknownAuthorityError) string {
	if e.Cert == nil || e.Cert.Issuer.CommonName == "" {
		return ""
	}
	return fmt.Sprintf(" (by %q)", e.Cert.Issuer.CommonName)
}
