package cli_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/api"
	"github.com/baileyhq/bailey/internal/app/apptest"
	"github.com/baileyhq/bailey/internal/cli"
	"github.com/baileyhq/bailey/internal/sshkey"
)

// A desk is a machine of somebody's: a home folder of its own, signed in to a
// server that really answers.
type desk struct {
	t    *testing.T
	home string
}

// serveSSH is a server with an SSH door on paper: its API answers, nobody
// connects.
func serveSSH(t *testing.T) *apptest.World {
	t.Helper()
	w := apptest.New(t)
	_, host, err := sshkey.NewPair("host")
	if err != nil {
		t.Fatal(err)
	}
	host = strings.Join(strings.Fields(host)[:2], " ")
	w.Serve(api.New(api.Config{
		Identity: w.Identity, Workspaces: w.Workspaces, Vault: w.Vault, Rules: w.Rules, Egress: w.Egress, Images: w.Images, SSH: w.SSH,
		Origins: w.Origins, Audit: w.Journal, Log: w.Logger(),
		SSHDoor: func() bailey.SSHDoor {
			return bailey.SSHDoor{Host: "hub.example.org", Port: 2222, HostKeys: []string{host}, HostCA: host}
		},
	}))
	return w
}

func deskOf(t *testing.T, w *apptest.World, name string) *desk {
	t.Helper()
	d := &desk{t: t, home: t.TempDir()}
	token, _ := w.Token(name)
	profile := map[string]string{"url": w.URL, "user": name, "token": token, "fingerprint": certificateOf(t, w)}
	b, err := json.Marshal(profile)
	if err != nil {
		t.Fatal(err)
	}
	d.write("profile.json", string(b))
	return d
}

// certificateOf returns the fingerprint of the certificate that the server
// shows.
func certificateOf(t *testing.T, w *apptest.World) string {
	t.Helper()
	u, err := url.Parse(w.URL)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := w.Client().Get(u.String() + "/api/v1/info") //nolint:noctx // a test
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() //nolint:errcheck // only read
	sum := sha256.Sum256(resp.TLS.PeerCertificates[0].Raw)
	return hex.EncodeToString(sum[:])
}

func (d *desk) path(name string) string { return filepath.Join(d.home, name) }

func (d *desk) write(name, text string) {
	d.t.Helper()
	if err := os.MkdirAll(filepath.Dir(d.path(name)), 0o700); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(d.path(name), []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) read(name string) string {
	d.t.Helper()
	b, err := os.ReadFile(d.path(name))
	if err != nil && !os.IsNotExist(err) {
		d.t.Fatal(err)
	}
	return string(b)
}

// bailey runs a command line at the desk.
func (d *desk) bailey(want int, args ...string) (out, errs string) {
	d.t.Helper()
	return d.piped("", want, args...)
}

func (d *desk) piped(in string, want int, args ...string) (out, errs string) {
	d.t.Helper()
	d.t.Setenv("HOME", d.home)
	d.t.Setenv("BAILEY_PROFILE", d.path("profile.json"))
	var o, e bytes.Buffer
	if got := cli.Run(d.t.Context(), args, io.Reader(strings.NewReader(in)), &o, &e); got != want {
		d.t.Fatalf("bailey %s exited %d, want %d\nstdout: %s\nstderr: %s", strings.Join(args, " "), got, want, o.String(), e.String())
	}
	return o.String(), e.String()
}

func says(t *testing.T, what, text string, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(text, w) {
			t.Errorf("%s does not say %q:\n%s", what, w, text)
		}
	}
}

// Two people with a machine each add their keys, see their own, and remove
// them.
func TestStorySSHKeys(t *testing.T) {
	w := serveSSH(t)
	alice, bob := deskOf(t, w, apptest.Alice), deskOf(t, w, apptest.Bob)

	_, errs := alice.bailey(5, "ssh-key", "add")
	says(t, "an empty ~/.ssh", errs, "no public key", "ssh-keygen -t ed25519")
	private, line, err := sshkey.NewPair("alice@laptop")
	if err != nil {
		t.Fatal(err)
	}
	alice.write(".ssh/id_ed25519", string(private))
	alice.write(".ssh/id_ed25519.pub", line+"\n")
	before := len(w.Events(""))
	_, errs = alice.bailey(2, "ssh-key", "add", alice.path(".ssh/id_ed25519"))
	says(t, "a private key", errs, "private key", ".pub")
	if len(w.Events("")) != before {
		t.Error("the private key reached the server")
	}
	out, errs := alice.bailey(0, "ssh-key", "add")
	says(t, "add", errs, "Added alice@laptop from ~/.ssh/id_ed25519.pub")
	fingerprint := strings.TrimSpace(out)
	if k, err := sshkey.ParseLine(line); err != nil || k.Fingerprint != fingerprint {
		t.Errorf("add printed %q, want %s", fingerprint, k.Fingerprint)
	}
	_, errs = alice.bailey(1, "ssh-key", "add")
	says(t, "a second time", errs, "you have this key already")
	_, errs = bob.piped(line, 1, "ssh-key", "add", "-")
	says(t, "bob with alice's key", errs, "in use already")
	if strings.Contains(errs, "alice") {
		t.Errorf("bob is told whose it is: %s", errs)
	}
	_, other, err := sshkey.NewPair("bob@desk")
	if err != nil {
		t.Fatal(err)
	}
	bob.piped(other, 0, "ssh-key", "add", "-", "--name", "desk")

	if out, _ = alice.bailey(0, "ssh-key", "ls", "-o", "name"); out != "alice@laptop\n" {
		t.Errorf("alice's keys: %q", out)
	}
	if out, _ = bob.bailey(0, "ssh-key", "ls", "-o", "name"); out != "desk\n" {
		t.Errorf("bob's keys: %q", out)
	}
	out, _ = alice.bailey(0, "ssh-key", "ls", "-o", "json")
	says(t, "json", out, fingerprint, `"expires_at"`)
	bob.bailey(5, "ssh-key", "rm", fingerprint)
	bob.bailey(6, "ssh-key", "ls", "--user", apptest.Alice)
	bob.bailey(6, "ssh-key", "rm", "--user", apptest.Alice, "alice@laptop")
	alice.bailey(0, "ssh-key", "rename", "alice@laptop", "laptop")
	alice.bailey(0, "ssh-key", "rm", "laptop")
	if out, _ = alice.bailey(0, "ssh-key", "ls", "-o", "name"); out != "" {
		t.Errorf("alice's keys afterwards: %q", out)
	}
}

// The user's own file keeps each byte, whatever is done.
func TestStorySSHConfig(t *testing.T) {
	w := serveSSH(t)
	w.Launch(apptest.Alice, "lab")
	alice := deskOf(t, w, apptest.Alice)
	const mine = "# mine\r\nHost other\r\n  User x\r\n"
	alice.write(".ssh/real", mine)
	if err := os.Chmod(alice.path(".ssh/real"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("real", alice.path(".ssh/config")); err != nil {
		t.Fatal(err)
	}
	_, line, err := sshkey.NewPair("alice@laptop")
	if err != nil {
		t.Fatal(err)
	}
	alice.write(".ssh/work.pub", line)
	alice.bailey(0, "ssh-key", "add", alice.path(".ssh/work.pub"))

	out, _ := alice.bailey(0, "ssh-config", "--dry-run")
	says(t, "dry run", out, "+Include bailey_config", "+Host lab.bailey", "+    User alice+lab")
	if alice.read(".ssh/config") != mine || alice.read(".ssh/bailey_config") != "" {
		t.Error("the dry run wrote something")
	}
	for range 2 {
		_, errs := alice.bailey(0, "ssh-config")
		says(t, "ssh-config", errs, "ssh lab.bailey")
		if got := alice.read(".ssh/config"); got != "Include bailey_config\r\n"+mine {
			t.Errorf("config = %q", got)
		}
	}
	if info, err := os.Lstat(alice.path(".ssh/config")); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link was replaced: %v, %v", info, err)
	}
	if info, err := os.Stat(alice.path(".ssh/real")); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("the mode changed: %v, %v", info, err)
	}
	says(t, "bailey_config", alice.read(".ssh/bailey_config"), "HostName hub.example.org", "IdentityFile ~/.ssh/work", "IdentitiesOnly yes", "StrictHostKeyChecking yes")
	says(t, "bailey_known_hosts", alice.read(".ssh/bailey_known_hosts"), "@cert-authority [hub.example.org]:2222 ssh-ed25519 ", "\n[hub.example.org]:2222 ssh-ed25519 ")
	if ssh, err := exec.LookPath("ssh"); err == nil {
		// ssh looks up the home folder by itself, so the file is named.
		out, err := exec.CommandContext(t.Context(), ssh, "-G", "-F", alice.path(".ssh/bailey_config"), "lab.bailey").CombinedOutput()
		if err != nil {
			t.Fatalf("ssh -G: %v\n%s", err, out)
		}
		says(t, "ssh -G", string(out), "user alice+lab", "hostname hub.example.org")
	}
	_, errs := alice.bailey(0, "ssh-config", "--remove")
	says(t, "remove", errs, "Removed")
	if got := alice.read(".ssh/config"); got != mine || alice.read(".ssh/bailey_config") != "" || alice.read(".ssh/bailey_known_hosts") != "" {
		t.Errorf("after --remove: %q", got)
	}
	_, errs = alice.bailey(0, "ssh-config", "--remove")
	says(t, "a second removal", errs, "Nothing to change")
	if out, _ := alice.bailey(0, "open", "lab", "--editor", "vscode"); out != "vscode://vscode-remote/ssh-remote+lab.bailey/workspace\n" {
		t.Errorf("editor link = %q", out)
	}
	alice.bailey(2, "open", "lab", "--editor", "notepad")
}

func TestStorySSHLogin(t *testing.T) {
	w := serveSSH(t)
	alice, bob := deskOf(t, w, apptest.Alice), deskOf(t, w, apptest.Bob)
	_, errs := alice.bailey(0, "ssh", "login")
	says(t, "login", errs, "Certificate", "valid until", "bailey ssh-config")
	if info, err := os.Stat(alice.path(".ssh/bailey_ed25519")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key: %v, %v; want 0600", info, err)
	}
	if keygen, err := exec.LookPath("ssh-keygen"); err == nil {
		out, err := exec.CommandContext(t.Context(), keygen, "-L", "-f", alice.path(".ssh/bailey_ed25519-cert.pub")).CombinedOutput()
		if err != nil {
			t.Fatalf("ssh-keygen -L: %v\n%s", err, out)
		}
		says(t, "ssh-keygen -L", string(out), "user certificate", "alice", "permit-pty")
		if out, err := exec.CommandContext(t.Context(), keygen, "-y", "-f", alice.path(".ssh/bailey_ed25519")).CombinedOutput(); err != nil {
			t.Errorf("OpenSSH cannot read the key: %v\n%s", err, out)
		}
	}
	key := alice.read(".ssh/bailey_ed25519")
	alice.bailey(0, "ssh", "login", "--hours", "1", "--source", "192.0.2.0/24")
	if alice.read(".ssh/bailey_ed25519") != key {
		t.Error("the second login made another key")
	}
	alice.bailey(2, "ssh", "login", "--hours", "25")
	alice.bailey(2, "ssh", "login", "--source", "everywhere")
	alice.bailey(0, "ssh-config")
	says(t, "bailey_config", alice.read(".ssh/bailey_config"), "IdentityFile ~/.ssh/bailey_ed25519")

	out, _ := alice.bailey(0, "ssh-cert", "ls", "-o", "name")
	serials := strings.Fields(out)
	if len(serials) != 2 {
		t.Fatalf("certificates: %q, want two", out)
	}
	bob.bailey(5, "ssh-cert", "revoke", serials[0])
	alice.bailey(2, "ssh-cert", "revoke")
	alice.bailey(0, "ssh-cert", "revoke", serials[0])
	alice.bailey(5, "ssh-cert", "revoke", serials[0])
	alice.bailey(0, "ssh-cert", "revoke", "--all")
	out, _ = alice.bailey(0, "ssh-cert", "ls")
	if strings.Count(out, "revoked") != 2 {
		t.Errorf("afterwards:\n%s", out)
	}
}

// What would reach ssh and scp is looked at first.
func TestCopiesThatCannotBe(t *testing.T) {
	w := serveSSH(t)
	alice := deskOf(t, w, apptest.Alice)
	for _, args := range [][]string{
		{"cp", "a", "b"}, {"cp", "lab:a", "lab:b"}, {"cp", "lab:a", "train:b"}, {"cp", "lab:a", "here", "there"}, {"cp", "a"},
	} {
		alice.bailey(2, args...)
	}
	alice.bailey(5, "cp", "a", "missing:b")
	alice.bailey(5, "ssh", "missing", "--", "id")
}
