package edge

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// scanner returns a program that scripts/scanners.sh has put where the tests
// look, and a context in which it has its time. Without it the test is skipped;
// the tier runs it always.
func scanner(t *testing.T, name string) (string, context.Context) {
	t.Helper()
	dir := os.Getenv("BAILEY_TEST_SCANNERS")
	if dir == "" {
		t.Skip("BAILEY_TEST_SCANNERS is not set; scripts/scanners.sh sets it")
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		if path, err = exec.LookPath(name); err != nil {
			t.Fatalf("%s is not installed: %v", name, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Minute)
	t.Cleanup(cancel)
	return path, ctx
}

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("hello\n")) }

// h2spec asks for everything in RFC 9113 and 7541 that a server must do. What
// it may say of us, and why, is in docs/security/scanners.md.
func TestH2spec(t *testing.T) {
	path, ctx := scanner(t, "h2spec")
	h := serve(t, http.HandlerFunc(hello), nil)
	_, port, _ := strings.Cut(h.host("localhost"), ":")
	out, err := exec.CommandContext(ctx, path, "-h", "localhost", "-p", port, "-t", "-k", "-o", "5").CombinedOutput() //nolint:gosec // the tier's own program
	text := string(out)
	m := regexp.MustCompile(`(\d+) tests, (\d+) passed, (\d+) skipped, (\d+) failed`).FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("h2spec: %v\n%s", err, text)
	}
	t.Logf("h2spec: %s", m[0])
	explained := explained(t, "h2spec")
	for _, line := range strings.Split(text, "\n") {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "× ") {
			what := strings.TrimSpace(regexp.MustCompile(`^× \d+: `).ReplaceAllString(line, ""))
			if !slices.Contains(explained, what) {
				t.Errorf("h2spec: not explained in docs/security/scanners.md: %s", what)
			}
		}
	}
}

// explained returns the findings of a scanner that the page explains: its rows
// begin with "| scanner | finding |".
func explained(t *testing.T, scanner string) (found []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "security", "scanners.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(string(text), "\n") {
		if cells := strings.Split(line, " | "); len(cells) > 1 && cells[0] == "| "+scanner {
			found = append(found, strings.Trim(cells[1], "` "))
		}
	}
	return found
}

// sslscan and testssl.sh look for protocols, ciphers and holes that nobody
// should offer.
func TestSslscan(t *testing.T) {
	path, ctx := scanner(t, "sslscan")
	h := serve(t, http.HandlerFunc(hello), nil)
	out, err := exec.CommandContext(ctx, path, "--no-colour", h.host("localhost")).CombinedOutput() //nolint:gosec // the tier's own program
	if err != nil {
		t.Fatalf("sslscan: %v\n%s", err, out)
	}
	text := string(out)
	for _, want := range []string{`TLSv1\.2 +enabled`, `TLSv1\.3 +enabled`, `SSLv2 +disabled`, `SSLv3 +disabled`, `TLSv1\.0 +disabled`, `TLSv1\.1 +disabled`} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("sslscan does not say %s", want)
		}
	}
	for _, line := range strings.Split(text, "\n") {
		cipher := regexp.MustCompile(`^(Preferred|Accepted) +(TLSv\S+) +\d+ bits +(\S+)`).FindStringSubmatch(line)
		if cipher != nil && !strings.Contains(cipher[3], "GCM") && !strings.Contains(cipher[3], "CHACHA20") {
			t.Errorf("a cipher without AEAD is accepted: %s", line)
		}
		if strings.Contains(line, "vulnerable to heartbleed") && !strings.Contains(line, "not vulnerable") || strings.Contains(line, "Compression enabled") {
			t.Errorf("sslscan: %s", line)
		}
	}
	if t.Failed() {
		t.Logf("%s", text)
	}
}

func TestTestssl(t *testing.T) {
	path, ctx := scanner(t, "testssl")
	ln, port := listen(t)
	dir := t.TempDir()
	certs := ownCA(t, CertConfig{Dir: filepath.Join(dir, "tls")})
	h := serve(t, http.HandlerFunc(hello), func(c *ServerConfig) {
		_ = c.Listener.Close()
		c.Listener, c.Certs, c.Origins = ln, certs, origins(t, OriginConfig{Mode: "localhost", Port: port})
	})
	ca := filepath.Join(dir, "ca.crt")
	if b, err := os.ReadFile(certs.CAFile()); err != nil {
		t.Fatal(err)
	} else if block, _ := pem.Decode(b); block == nil {
		t.Fatal("the CA is no PEM")
	} else if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		t.Fatal(err)
	} else if err := os.WriteFile(ca, b, 0o600); err != nil {
		t.Fatal(err)
	}
	report := filepath.Join(dir, "report.json")
	cmd := exec.CommandContext(ctx, path, "--quiet", "--color", "0", "--warnings", "batch", "--nodns", "min", //nolint:gosec // the tier's own program
		"--add-ca", ca, "--jsonfile", report, "-p", "-s", "-S", "-U", h.host("localhost"))
	out, err := cmd.CombinedOutput()
	text, readErr := os.ReadFile(report)
	if readErr != nil {
		t.Fatalf("testssl: %v, %v\n%s", err, readErr, out)
	}
	var findings []struct{ ID, Severity, Finding string }
	if err := json.Unmarshal(text, &findings); err != nil {
		t.Fatalf("testssl's report: %v\n%s", err, text)
	}
	if len(findings) < 20 {
		t.Fatalf("testssl found out only %d things:\n%s", len(findings), out)
	}
	known := explained(t, "testssl")
	for _, f := range findings {
		switch f.Severity {
		case "OK", "INFO", "DEBUG":
		default:
			if !slices.Contains(known, f.ID) {
				t.Errorf("testssl: not explained in docs/security/scanners.md: %s %s: %s", f.Severity, f.ID, f.Finding)
			}
		}
	}
}
