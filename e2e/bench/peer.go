package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/e2e/drive"
)

// A chp is a running configurable-http-proxy with one route, to a backend.
type chp struct {
	*child
	addr string
	tls  *tls.Config // nil: plain
}

// chpPath is where JupyterHub would route a user's server.
const chpPath = "/user/bench/"

// startCHP starts configurable-http-proxy as it comes from npm, in front of the
// backend at host:port, with a certificate of its own when secure. node's
// --expose-gc and the preloaded hook add one signal handler, by which its
// memory can be looked at after a garbage collection.
func (b *bench) startCHP(ctx context.Context, backend string, secure bool) (*chp, error) {
	port, err := drive.Port()
	if err != nil {
		return nil, err
	}
	apiPort, err := drive.Port()
	if err != nil {
		return nil, err
	}
	p := &chp{addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
	args := []string{
		"--expose-gc", "--require", filepath.Join(b.tools, "gc.cjs"),
		filepath.Join(b.tools, "node_modules", "configurable-http-proxy", "bin", "configurable-http-proxy"),
		"--ip", "127.0.0.1", "--port", strconv.Itoa(port), "--api-ip", "127.0.0.1", "--api-port", strconv.Itoa(apiPort),
		"--log-level", "error", "--default-target", "http://" + backend,
	}
	if secure {
		cert, key, pool, err := selfSigned(b.work)
		if err != nil {
			return nil, err
		}
		p.tls = &tls.Config{RootCAs: pool, ServerName: "localhost", NextProtos: []string{"http/1.1"}}
		args = append(args, "--ssl-cert", cert, "--ssl-key", key)
	}
	// NODE_ENV=production, as JupyterHub's chart runs it.
	if p.child, err = start([]string{"NODE_ENV=production"}, "node", args...); err != nil {
		return nil, err
	}
	err = until(ctx, 20*time.Second, "configurable-http-proxy listens", func() (bool, error) {
		select {
		case <-p.done:
			return false, p.ended()
		default:
		}
		c, err := net.DialTimeout("tcp", p.addr, time.Second)
		if err != nil {
			return false, nil //nolint:nilerr // not yet
		}
		return true, c.Close()
	})
	if err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

// selfSigned writes a certificate for localhost with the kind of key that
// bailey's own has, ECDSA P-256.
func selfSigned(dir string) (certFile, keyFile string, pool *x509.CertPool, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", "", nil, err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return "", "", nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return "", "", nil, err
	}
	certFile, keyFile = filepath.Join(dir, "peer.crt"), filepath.Join(dir, "peer.key")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(certFile, certPEM, 0o600); err != nil {
		return "", "", nil, err
	}
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600); err != nil {
		return "", "", nil, err
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return certFile, keyFile, pool, nil
}

// startBackend starts our backend on a loopback port or, with a path, on a Unix
// socket, and returns where it is.
func (b *bench) startBackend(ctx context.Context, socket string) (*child, string, error) {
	args := []string{"-network", "tcp", "-addr", "127.0.0.1:0"}
	if socket != "" {
		args = []string{"-network", "unix", "-addr", socket}
	}
	c, err := start(nil, filepath.Join(b.tools, "backend"), args...)
	if err != nil {
		return nil, "", err
	}
	addr, err := c.line(ctx, 10*time.Second)
	if err != nil {
		c.stop()
		return nil, "", err
	}
	return c, addr, nil
}

// A bare container is what "docker run" makes of an image without bailey.
type bare struct{ id, url, token string }

// runBare starts the image with its own command, JupyterLab, on a published
// port of this machine's loopback. It returns as soon as the docker command
// has; Jupyter may not answer yet.
func runBare(ctx context.Context, img image) (bare, error) {
	port, err := drive.Port()
	if err != nil {
		return bare{}, err
	}
	token, name := drive.Password(), "bailey-bench-"+bailey.NewID()
	id, err := run1(ctx, "docker", "run", "--detach", "--name", name, "--publish", fmt.Sprintf("127.0.0.1:%d:8888", port), img.ID,
		"jupyter", "lab", "--ip=0.0.0.0", "--port=8888", "--no-browser", "--IdentityProvider.token="+token)
	if err != nil { // a container that could not be started is there nevertheless
		return bare{}, errors.Join(err, bare{id: name}.remove(context.WithoutCancel(ctx)))
	}
	return bare{id: strings.TrimSpace(id), url: fmt.Sprintf("http://127.0.0.1:%d/", port), token: token}, nil
}

// remove ends the container and removes it with its files.
func (c bare) remove(ctx context.Context) error {
	_, err := run1(ctx, "docker", "rm", "--force", "--volumes", c.id)
	return err
}
