package e2e

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/baileyhq/bailey/e2e/drive"
)

// The world outside: hosts on this machine's loopback, and names that only the
// server under test knows.
const outsideIP = "127.0.0.81"

// hostsOutside are the names there are.
var hostsOutside = []string{"index.bailey.test", "code.bailey.test", "deb.bailey.test", "denied.bailey.test", "pypi.org", "deb.debian.org"}

const egressConfig = `
classes:
  - {name: ml, title: Lab, image: notebook, memory: 1GiB, egress: lab}
  - {name: plain, image: notebook, memory: 1GiB}
egress:
  policies:
    lab:
      rules:
        - {host: index.bailey.test, ports: [443]}
        - {host: code.bailey.test}
        - {host: deb.bailey.test, ports: [80], methods: [GET, HEAD]}
  private: [127.0.0.0/8]
`

// An outside is what can be reached, if it may be.
type outside struct {
	ca  []byte // PEM
	dir string // served by every host
}

// newOutside serves dir over HTTPS and HTTP on the outside address. /slow gives
// a byte now and then until the client has gone.
func newOutside(t *testing.T) *outside {
	t.Helper()
	o := &outside{dir: t.TempDir()}
	cert := o.certificate(t)
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir(o.dir)))
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			if _, err := w.Write([]byte(".")); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-tick.C:
			}
		}
	})
	for port, conf := range map[string]*tls.Config{"443": {Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1"}}, "80": nil} {
		l, err := net.Listen("tcp", net.JoinHostPort(outsideIP, port))
		if err != nil {
			t.Fatalf("the world outside needs %s:%s: %v", outsideIP, port, err)
		}
		srv := &http.Server{Handler: mux, TLSConfig: conf}
		if conf != nil {
			go func() { _ = srv.ServeTLS(l, "", "") }()
		} else {
			go func() { _ = srv.Serve(l) }()
		}
		t.Cleanup(func() { _ = srv.Close() })
	}
	return o
}

func (o *outside) certificate(t *testing.T) tls.Certificate {
	t.Helper()
	make := func(tpl, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, tpl, parent, &key.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "outside"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: []byte{1},
	}
	caDER := make(ca, ca, caKey, caKey)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "hosts outside"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, DNSNames: hostsOutside,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, AuthorityKeyId: []byte{1},
	}
	o.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	return tls.Certificate{Certificate: [][]byte{make(leaf, ca, key, caKey), caDER}, PrivateKey: key}
}

// addWheel puts a package of pure Python on the index.
func (o *outside) addWheel(t *testing.T, name string) {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	info := name + "-1.0.dist-info/"
	for file, text := range map[string]string{
		name + "/__init__.py": "words = 'installed from the index'\n",
		info + "METADATA":     "Metadata-Version: 2.1\nName: " + name + "\nVersion: 1.0\n",
		info + "WHEEL":        "Wheel-Version: 1.0\nGenerator: e2e\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		info + "RECORD":       name + "/__init__.py,,\n" + info + "METADATA,,\n" + info + "WHEEL,,\n" + info + "RECORD,,\n",
	} {
		w, err := z.Create(file)
		if err == nil {
			_, err = io.WriteString(w, text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	file := name + "-1.0-py3-none-any.whl"
	page := "simple/" + strings.ReplaceAll(name, "_", "-") + "/"
	o.put(t, page+file, b.String())
	o.put(t, page+"index.html", fmt.Sprintf(`<a href="%s#sha256=%x">%s</a>`, file, sha256.Sum256(b.Bytes()), file))
}

// addRepository puts a git repository there, for the protocol that needs no
// program on the server.
func (o *outside) addRepository(t *testing.T, name string) {
	t.Helper()
	dir := filepath.Join(o.dir, name)
	work := t.TempDir()
	write(t, filepath.Join(work, "README"), "cloned over https\n")
	for _, args := range [][]string{
		{"-C", work, "init", "-q", "-b", "main"},
		{"-C", work, "add", "README"},
		{"-C", work, "-c", "user.name=e2e", "-c", "user.email=e2e@example.org", "commit", "-q", "-m", "first"},
		{"clone", "-q", "--bare", work, dir},
		{"-C", dir, "update-server-info"},
	} {
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
}

// addPackages puts a flat apt repository there, with one package in it.
func (o *outside) addPackages(t *testing.T) {
	t.Helper()
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "DEBIAN"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(root, "DEBIAN", "control"), "Package: hello-bailey\nVersion: 1.0\nArchitecture: all\nMaintainer: e2e <e2e@example.org>\nDescription: a test\n")
	if err := os.MkdirAll(filepath.Join(o.dir, "apt"), 0o755); err != nil {
		t.Fatal(err)
	}
	deb := filepath.Join(o.dir, "apt", "hello-bailey_1.0_all.deb")
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "-b", root, deb).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v: %s", err, out)
	}
	data, err := os.ReadFile(deb)
	if err != nil {
		t.Fatal(err)
	}
	o.put(t, "apt/Packages", fmt.Sprintf("Package: hello-bailey\nVersion: 1.0\nArchitecture: all\nMaintainer: e2e <e2e@example.org>\nFilename: ./hello-bailey_1.0_all.deb\nSize: %d\nSHA256: %x\nDescription: a test\n", len(data), sha256.Sum256(data)))
}

// addAiohttp puts aiohttp and what it needs there, as Debian has it for the
// images' suite; false when Debian cannot be reached.
func (o *outside) addAiohttp(t *testing.T) bool {
	t.Helper()
	dir := t.TempDir()
	for _, sub := range []string{"state/lists/partial", "cache/archives/partial", "empty", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "status"), "")
	write(t, filepath.Join(dir, "sources.list"), "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main\n")
	script := `cd "$1" && apt="apt-get -qq -o Dir::State=$1/state -o Dir::State::status=$1/status -o Dir::Cache=$1/cache -o Dir::Etc::sourcelist=$1/sources.list -o Dir::Etc::sourceparts=$1/empty"
$apt update && $apt download python3-aiohttp python3-multidict python3-yarl python3-frozenlist python3-aiosignal python3-attr python3-propcache python3-idna python3-aiohappyeyeballs &&
for deb in *.deb; do dpkg-deb -x "$deb" root; done && tar -C root/usr/lib/python3/dist-packages -cf "$2" .`
	out, err := exec.Command("sh", "-c", script, "sh", dir, filepath.Join(o.dir, "aiohttp.tar")).CombinedOutput()
	if err != nil {
		t.Logf("aiohttp is not tried: Debian's packages cannot be had: %v: %.300s", err, out)
	}
	return err == nil
}

func (o *outside) put(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(o.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// egressServer returns a bailey that knows the names of the outside, and nobody
// else's: it runs in a mount namespace of its own, with its own hosts file and
// a name server that is not there.
func egressServer(t *testing.T, conf string) (*drive.Server, string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bailey.yaml")
	write(t, file, conf)
	s, dir := server(t, "--config", file)
	hosts, resolv, wrapper := filepath.Join(dir, "hosts"), filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "bailey")
	write(t, hosts, "127.0.0.1 localhost\n"+outsideIP+" "+strings.Join(hostsOutside, " ")+"\n169.254.169.254 metadata.bailey.test\n10.0.0.1 private.bailey.test\n")
	write(t, resolv, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
	script := fmt.Sprintf("#!/bin/sh\nexec unshare --mount --propagation private sh -c 'mount --bind %s /etc/hosts && mount --bind %s /etc/resolv.conf && exec %s \"$@\"' bailey \"$@\"\n", hosts, resolv, s.Bin)
	if err := os.WriteFile(wrapper, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	s.Bin = wrapper
	return s, file
}

// inside is a workspace and a kernel in it that trusts the outside's CA.
type inside struct {
	t    *testing.T
	ctx  context.Context
	base string
	k    *drive.Kernel
}

func enter(t *testing.T, ctx context.Context, p *drive.Person, class, name string, o *outside) *inside {
	t.Helper()
	out, err := p.CLI(ctx, "run", class, "--name", name)
	if err != nil {
		t.Fatal(err)
	}
	remove(t, p, name)
	in := &inside{t: t, ctx: ctx, base: strings.TrimSpace(out)}
	if in.k, err = p.StartKernel(ctx, in.base); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(in.k.Close)
	pem, err := json.Marshal(string(o.ca))
	if err != nil {
		t.Fatal(err)
	}
	in.must(`import os, subprocess, socket
open('/workspace/ca.pem','w').write(` + string(pem) + `)
for name in ('PIP_CERT','GIT_SSL_CAINFO','SSL_CERT_FILE','REQUESTS_CA_BUNDLE','CURL_CA_BUNDLE'):
    os.environ[name] = '/workspace/ca.pem'
def sh(line):
    r = subprocess.run(['/bin/bash','-c',line], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=90)
    print(r.stdout.decode('utf-8','replace')[-4000:], 'exit', r.returncode, end='')
`)
	return in
}

// must runs code that has to work.
func (in *inside) must(code string) string {
	in.t.Helper()
	out, err := in.k.Run(in.ctx, code)
	if err != nil {
		in.t.Fatalf("in the workspace: %v\n%s\n%s", err, code, out)
	}
	return out
}

// raises runs code that must not work, and returns its exception. A kernel drops
// what it is sent right after one, so it is asked until it answers again.
func (in *inside) raises(code string) error {
	in.t.Helper()
	out, err := in.k.Run(in.ctx, code)
	if err == nil {
		in.t.Errorf("in the workspace this worked: %s: %s", code, out)
		return errors.New("nothing")
	}
	until(in.t, in.ctx, "the kernel to answer again", func() bool {
		out, err := in.k.Run(in.ctx, "print('here')")
		return err == nil && out == "here"
	})
	return err
}

// sh runs a line of shell.
func (in *inside) sh(line string) string {
	in.t.Helper()
	return in.must("sh(" + fmt.Sprintf("%q", line) + ")")
}

// works fails the test unless a line of shell ends well and says words.
func (in *inside) works(line, words string) {
	in.t.Helper()
	if out := in.sh(line); !strings.HasSuffix(out, "exit 0") || !strings.Contains(out, words) {
		in.t.Errorf("%s: %s; want %q and exit 0", line, out, words)
	}
}

type request struct {
	ID, Host, Class, Workspace, User, State string
	Port                                    int
	Count                                   int64
}

func requests(t *testing.T, ctx context.Context, p *drive.Person, args ...string) []request {
	t.Helper()
	out, err := p.CLI(ctx, append([]string{"egress", "requests", "-o", "json"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	var all []request
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return all
}

// TestAWorkspaceReachesWhatItMay: what people type to install, clone and
// download works without configuration for what the class allows. Anything else
// explains itself and is asked for; what is allowed then works, and what is
// taken back is cut.
func TestAWorkspaceReachesWhatItMay(t *testing.T) {
	o := newOutside(t)
	o.addWheel(t, "hello_bailey")
	o.addRepository(t, "repo.git")
	o.addPackages(t)
	o.put(t, "file.txt", "downloaded\n")
	s, conf := egressServer(t, egressConfig)
	admin := start(t, s)
	ctx := deadline(t, 8*time.Minute)
	in := enter(t, ctx, admin, "ml", "lab", o)

	in.works("pip install --quiet --index-url https://index.bailey.test/simple/ hello_bailey && python3 -c 'import hello_bailey; print(hello_bailey.words)'", "installed from the index")
	in.works("git clone -q https://code.bailey.test/repo.git && cat repo/README", "cloned over https")
	in.works("curl -sS --fail https://code.bailey.test/file.txt", "downloaded")
	in.works("curl -sS --fail http://code.bailey.test/file.txt", "downloaded")
	in.works("curl -sS --fail --proxy socks5h://127.0.0.1:3128 https://code.bailey.test/file.txt", "downloaded")
	in.works("curl -sS --fail --http2 -o /dev/null -w '%{http_version}' https://code.bailey.test/file.txt", "2")
	if out := in.must("import requests; print(requests.get('https://code.bailey.test/file.txt', timeout=30).text)"); out != "downloaded" {
		t.Errorf("requests got %q", out)
	}
	if o.addAiohttp(t) {
		in.works("mkdir -p /tmp/aio && curl -sS --fail https://code.bailey.test/aiohttp.tar | tar -C /tmp/aio -x", "")
		const get = `import asyncio, aiohttp
async def main(url):
    async with aiohttp.ClientSession(trust_env=True) as s:
        async with s.get(url) as r: print(r.status, (await r.text()).strip())
import sys; asyncio.run(main(sys.argv[1]))`
		in.must("open('/tmp/get.py','w').write(" + fmt.Sprintf("%q", get) + ")")
		in.works("PYTHONPATH=/tmp/aio python3 /tmp/get.py https://code.bailey.test/file.txt", "200 downloaded")
		if out := in.sh("PYTHONPATH=/tmp/aio python3 /tmp/get.py https://denied.bailey.test/file.txt"); !strings.Contains(out, "denied.bailey.test:443 is not open to class ml") {
			t.Errorf("aiohttp says %s", out)
		}
	}
	in.works(`mkdir -p /tmp/apt/lists/partial /tmp/apt/cache/archives/partial /tmp/apt/empty && cd /tmp/apt && echo 'deb [trusted=yes] http://deb.bailey.test/apt ./' > sources.list && touch status &&
opts="-o Dir::State=/tmp/apt -o Dir::State::status=/tmp/apt/status -o Dir::Cache=/tmp/apt/cache -o Dir::Etc::sourcelist=/tmp/apt/sources.list -o Dir::Etc::sourceparts=/tmp/apt/empty -o APT::Sandbox::User="
apt-get $opts -qq update && apt-get $opts download hello-bailey && ls`, "hello-bailey_1.0_all.deb")

	// A denied host explains itself, at once, in the notebook and in a terminal.
	begin := time.Now()
	err := in.raises("requests.get('https://denied.bailey.test/', timeout=30)")
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("the refusal took %v", took)
	}
	for _, word := range []string{"denied.bailey.test", "ml", "ask"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the notebook says %q; want %q in it", err, word)
		}
	}
	if out := in.sh("curl -sS http://denied.bailey.test/file.txt"); !strings.Contains(out, "denied.bailey.test") || !strings.Contains(out, "class ml") || strings.Contains(out, "downloaded") {
		t.Errorf("a terminal says %q", out)
	}
	if out := in.sh("git clone -q https://denied.bailey.test/repo.git other; bash -i -c 'eval \"$PROMPT_COMMAND\"'"); !strings.Contains(out, "bailey: denied.bailey.test:443 is not open to class ml") {
		t.Errorf("after git a terminal says %q", out)
	}
	in.sh("pip install --index-url https://denied.bailey.test/simple/ hello_bailey")
	var asked request
	until(t, ctx, "the request to show up", func() bool {
		for _, r := range requests(t, ctx, admin, "--all", "--state", "open") {
			if r.Host == "denied.bailey.test" && r.Port == 443 {
				asked = r
			}
		}
		return asked.ID != ""
	})
	if asked.Class != "ml" || asked.Workspace != "lab" || asked.User != "admin" {
		t.Errorf("the request is %+v", asked)
	}

	// Allowed, it works; once more it is not asked for.
	grant, err := admin.CLI(ctx, "egress", "allow", asked.ID, "--for", "day")
	if err != nil {
		t.Fatal(err)
	}
	in.works("curl -sS --fail https://denied.bailey.test/file.txt", "downloaded")

	// Taken back, what is open is cut within a second.
	in.must(`p = subprocess.Popen(['curl','-sSN','https://denied.bailey.test/slow'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
assert p.stdout.read(3) == b'...'`)
	if _, err := admin.CLI(ctx, "egress", "revoke", strings.TrimSpace(grant)); err != nil {
		t.Fatal(err)
	}
	in.must("p.wait(timeout=5); p.stdout.close()")
	if out := in.sh("curl -sS --fail https://denied.bailey.test/file.txt"); strings.HasSuffix(out, "exit 0") {
		t.Errorf("after the grant was revoked: %s", out)
	}

	// So does a rule that is taken out of the file.
	in.must(`p = subprocess.Popen(['curl','-sSN','https://code.bailey.test/slow'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
assert p.stdout.read(3) == b'...'`)
	write(t, conf, strings.Replace(egressConfig, "        - {host: code.bailey.test}\n", "", 1))
	_ = syscall.Kill(s.Pid(), syscall.SIGHUP)
	in.must("p.wait(timeout=20); p.stdout.close()")
	in.works("curl -sS --fail https://index.bailey.test/file.txt", "downloaded")
	if out := in.sh("curl -sS --fail https://code.bailey.test/file.txt"); strings.HasSuffix(out, "exit 0") {
		t.Errorf("after its rule was removed: %s", out)
	}

	// The server is killed and comes back; the workspace goes on and reaches out.
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(deadline(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	ws, err := admin.Channels(ctx, in.base, in.k.ID)
	until(t, ctx, "the kernel to be served again", func() bool {
		if err != nil {
			ws, err = admin.Channels(ctx, in.base, in.k.ID)
		}
		return err == nil
	})
	in.k = drive.Reconnect(in.k.ID, ws)
	t.Cleanup(in.k.Close)
	in.works("curl -sS --fail https://index.bailey.test/file.txt", "downloaded")

	// What was carried is summed up and written now and then.
	for _, word := range []string{"egress.connect", "egress.refused", "egress.allow", "egress.revoke", "egress.traffic", "index.bailey.test", `"down"`} {
		until(t, ctx, "the journal to have "+word, func() bool {
			out, err := admin.CLI(ctx, "audit", "search", "--action", "egress.", "--limit", "1000", "-o", "json")
			return err == nil && strings.Contains(out, word)
		})
	}
	resp, err := http.Get("http://" + s.Metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); !strings.Contains(string(b), "bailey_egress_connections_total") {
		t.Error("there are no counters of egress")
	}
}

// TestPresetsNeedNoConfiguration: in a fresh workspace of a class that says ml,
// pip finds its index as it is typed everywhere; in one that says mirror-only it
// finds the organisation's, and nothing else.
func TestPresetsNeedNoConfiguration(t *testing.T) {
	o := newOutside(t)
	o.addWheel(t, "hello_bailey")
	o.addPackages(t)
	s, _ := egressServer(t, `
classes:
  - {name: ml, image: notebook, memory: 1GiB, egress: ml}
  - {name: mirrored, image: notebook, memory: 1GiB, egress: mirror-only}
egress:
  mirrors: {pip: "https://index.bailey.test/simple", apt: "http://index.bailey.test/debian"}
  private: [127.0.0.0/8]
`)
	admin := start(t, s)
	ctx := deadline(t, 5*time.Minute)
	const try = "import hello_bailey; print(hello_bailey.words)"
	for class, refused := range map[string]string{"ml": "denied.bailey.test", "mirrored": "pypi.org"} {
		in := enter(t, ctx, admin, class, class, o)
		in.works("pip install --quiet hello_bailey && python3 -c '"+try+"'", "installed from the index")
		err := in.raises("import requests; requests.get('https://" + refused + "/', timeout=30)")
		if !strings.Contains(err.Error(), refused) || !strings.Contains(err.Error(), class) {
			t.Errorf("class %s: %s: %v; want a refusal that names both", class, refused, err)
		}
		if class == "mirrored" {
			in.works("apt-get update --print-uris", "http://index.bailey.test/debian/dists/trixie/")
		}
	}
	out, err := admin.CLI(ctx, "class", "ls")
	if err != nil || !strings.Contains(out, "proxied: ml") || !strings.Contains(out, "proxied: mirror-only") {
		t.Errorf("classes: %s, %v", out, err)
	}
	if out, err := admin.CLI(ctx, "egress", "test", "--class", "ml", "https://pypi.org/simple/"); err != nil || !strings.Contains(out, "allowed by ml/pypi") {
		t.Errorf("test of an allowed host: %s, %v", out, err)
	}
	if _, err := admin.CLI(ctx, "egress", "test", "--class", "mirrored", "https://pypi.org/simple/"); drive.ExitCode(err) != 6 {
		t.Errorf("test of a refused host: %v, want exit code 6", err)
	}
}

// TestWhatIsAllowedToOneIsNotAllowedToAnother: two people in the same class.
// Neither sees the other's requests, and a day of one is no day of the other.
func TestWhatIsAllowedToOneIsNotAllowedToAnother(t *testing.T) {
	o := newOutside(t)
	o.put(t, "file.txt", "downloaded\n")
	s, _ := egressServer(t, egressConfig)
	admin := start(t, s)
	ctx := deadline(t, 5*time.Minute)
	join := func(name string) *drive.Person {
		file := filepath.Join(t.TempDir(), name)
		write(t, file, drive.Password()+"\n")
		if _, err := admin.CLI(ctx, "admin", "user", "add", name, "--password-file", file); err != nil {
			t.Fatal(err)
		}
		p := s.Person(name, file)
		if err := p.Login(ctx); err != nil {
			t.Fatal(err)
		}
		return p
	}
	alice, bob := join("alice"), join("bob")
	a, b := enter(t, ctx, alice, "ml", "lab", o), enter(t, ctx, bob, "ml", "lab", o)
	a.sh("curl -sS https://denied.bailey.test/file.txt")
	var asked []request
	until(t, ctx, "alice's request", func() bool { asked = requests(t, ctx, alice); return len(asked) == 1 })
	if got := requests(t, ctx, bob); len(got) != 0 {
		t.Errorf("bob sees %+v", got)
	}
	for _, p := range []*drive.Person{alice, bob} {
		for _, args := range [][]string{{"allow", asked[0].ID}, {"deny", asked[0].ID}, {"requests", "--all"}, {"grants", "--all"}, {"allow", "denied.bailey.test", "--class", "ml"}} {
			if out, err := p.CLI(ctx, append([]string{"egress"}, args...)...); drive.ExitCode(err) != 6 {
				t.Errorf("%s: egress %v: %s, %v; want a refusal", p.Name, args, out, err)
			}
		}
	}
	if _, err := admin.CLI(ctx, "egress", "allow", asked[0].ID, "--for", "day"); err != nil {
		t.Fatal(err)
	}
	a.works("curl -sS --fail https://denied.bailey.test/file.txt", "downloaded")
	if out := b.sh("curl -sS --fail https://denied.bailey.test/file.txt"); strings.HasSuffix(out, "exit 0") {
		t.Errorf("bob got through on alice's grant: %s", out)
	}
	if _, err := admin.CLI(ctx, "egress", "allow", asked[0].ID, "--for", "class"); err != nil {
		t.Fatal(err)
	}
	b.works("curl -sS --fail https://denied.bailey.test/file.txt", "downloaded")
}

// TestNothingElseIsReached: somebody runs what they like inside, knows the
// socket and speaks to it as they please.
func TestNothingElseIsReached(t *testing.T) {
	o := newOutside(t)
	o.put(t, "file.txt", "downloaded\n")
	s, _ := egressServer(t, egressConfig)
	admin := start(t, s)
	ctx := deadline(t, 8*time.Minute)
	in := enter(t, ctx, admin, "ml", "attacker", o)
	plain := enter(t, ctx, admin, "plain", "walled", o)

	for what, in := range map[string]*inside{"ml": in, "plain": plain} {
		if out := in.sh("ls /sys/class/net; cat /proc/net/route | wc -l; grep -c nameserver /etc/resolv.conf; env | grep -c -i _proxy"); !strings.HasPrefix(out, "lo\n1\n0\n") {
			t.Errorf("%s: interfaces, routes, name servers: %q", what, out)
		}
		for _, to := range []string{"127.0.0.81:443", "169.254.169.254:80", "10.0.0.1:443", "172.17.0.1:22", "8.8.8.8:53"} {
			host, port, _ := net.SplitHostPort(to)
			if out := in.must(fmt.Sprintf("s = socket.socket(); s.settimeout(3); print(s.connect_ex((%q, %s)))", host, port)); out == "0" {
				t.Errorf("%s: %s was reached without the proxy", what, to)
			}
		}
		_ = in.raises("socket.getaddrinfo('index.bailey.test', 443)")
	}

	in.must(`import os
SOCK = '/opt/bailey/egress/egress.sock'
def ask(data, path=SOCK, wait=5):
    s = socket.socket(socket.AF_UNIX); s.settimeout(wait); s.connect(path)
    try:
        s.sendall(data); s.shutdown(socket.SHUT_WR)
        out = b''
        while True:
            b = s.recv(65536)
            if not b: break
            out += b
        return out
    except OSError as e:
        return out if 'out' in dir() and out else repr(e).encode()
    finally: s.close()
`)
	for _, target := range []string{
		"127.0.0.81:443", "127.0.0.1:443", "localhost:443", "169.254.169.254:80", "metadata.bailey.test:80", "private.bailey.test:443",
		"2130706433:443", "0x7f000001:443", "0177.0.0.1:443", "[::1]:443", "[::ffff:127.0.0.81]:443", "index.bailey.test:22", "index.bailey.test:8443",
		"index.bailey.test.evil.test:443", "INDEX.bailey.test\x00.x:443", "denied.bailey.test:443",
	} {
		out := in.must(fmt.Sprintf("print(ask(b'CONNECT ' + %q.encode() + b' HTTP/1.1\\r\\nHost: index.bailey.test\\r\\n\\r\\n')[:200])", target))
		if strings.Contains(out, "HTTP/1.1 200") {
			t.Errorf("CONNECT %q was accepted: %s", target, out)
		}
	}
	// To an allowed name, but with another name in TLS: domain fronting.
	if out := in.sh("curl -sS --fail --connect-to denied.bailey.test:443:index.bailey.test:443 https://denied.bailey.test/file.txt"); strings.Contains(out, "downloaded") {
		t.Errorf("another name in TLS than in CONNECT: %s", out)
	}
	// Anything but TLS on 443.
	if out := in.must(`print(ask(b'CONNECT index.bailey.test:443 HTTP/1.1\r\nHost: index.bailey.test:443\r\n\r\nGET / HTTP/1.1\r\nHost: denied.bailey.test\r\n\r\n')[-300:])`); strings.Contains(out, "400 Bad Request") && strings.Contains(out, "HTTPS server") {
		t.Errorf("plain text reached a TLS server: %s", out)
	}
	// Garbage, silence, huge headers, thousands of connections at once: the
	// server goes on and stays small, and others are served.
	in.must(`import random
for n in (1, 100, 100000): ask(random.randbytes(n), wait=3)
ask(b'GET http://index.bailey.test/ HTTP/1.1\r\n' + b'X: ' + b'a'*(1<<20) + b'\r\n\r\n', wait=3)
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (65536, 65536)) if resource.getrlimit(resource.RLIMIT_NOFILE)[1] >= 65536 else None
held = []
for i in range(3000):
    s = socket.socket(socket.AF_UNIX); s.settimeout(1)
    try: s.connect(SOCK); s.send(b'C'); held.append(s)
    except OSError: s.close()
print(len(held))`)
	other := enter(t, ctx, admin, "ml", "neighbour", o)
	other.works("curl -sS --fail https://index.bailey.test/file.txt", "downloaded")
	if rss := rssMiB(t, s.Pid()); rss > 300 {
		t.Errorf("the server has grown to %d MiB", rss)
	}
	in.must("for s in held: s.close()\nheld = []")
	// The socket cannot be exchanged, and other workspaces' are not there.
	for _, line := range []string{"rm -f /opt/bailey/egress/egress.sock", "ln -sf /tmp/x /opt/bailey/egress/egress.sock", "mount -t tmpfs x /opt/bailey/egress", "chmod 0 /opt/bailey/egress/egress.sock", "echo x > /etc/resolv.conf"} {
		if out := in.sh(line); strings.HasSuffix(out, "exit 0") {
			t.Errorf("%s: %s", line, out)
		}
	}
	if out := in.sh("find / -xdev -name '*.sock' 2>/dev/null; ls /opt/bailey/egress"); strings.Count(out, "egress.sock") > 2 || strings.Contains(out, "docker.sock") {
		t.Errorf("sockets in sight: %s", out)
	}
	in.works("curl -sS --fail https://index.bailey.test/file.txt", "downloaded")
	if out := plain.sh("ls /opt/bailey"); strings.Contains(out, "egress") {
		t.Errorf("a workspace without network has a socket: %s", out)
	}
}

// rssMiB returns the resident memory of a process.
func rssMiB(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if kb, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			var n int
			if _, err := fmt.Sscan(kb, &n); err != nil {
				t.Fatal(err)
			}
			return n >> 10
		}
	}
	t.Fatal(errors.New("no VmRSS"))
	return 0
}
