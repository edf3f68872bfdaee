package sshconfig_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey/internal/sshconfig"
)

const edKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKx8d8MZPrvZXy3PZ3lM9Z4v1yYkPZ0sJrE3mQf7w1bD"

func door() sshconfig.Door {
	return sshconfig.Door{Server: "https://hub.example.org:8443", Host: "hub.example.org", Port: 2222, User: "alice", HostKeys: []string{edKey}}
}

func TestTheConfiguration(t *testing.T) {
	got, err := sshconfig.Config(door(), []string{"lab", "train-2"}, []string{"~/.ssh/id_ed25519", "~/my keys/a%b"})
	if err != nil {
		t.Fatal(err)
	}
	want := `# Written by "bailey ssh-config" for https://hub.example.org:8443.
# It is written anew by the next run; put settings of your own into ~/.ssh/config.

Host bailey
    User alice

Host lab.bailey
    User alice+lab

Host train-2.bailey
    User alice+train-2

Host bailey lab.bailey train-2.bailey
    HostName hub.example.org
    Port 2222
    UserKnownHostsFile ~/.ssh/bailey_known_hosts
    StrictHostKeyChecking yes
    UpdateHostKeys yes
    ServerAliveInterval 30
    ServerAliveCountMax 4
    IdentityFile ~/.ssh/id_ed25519
    IdentityFile "~/my keys/a%%b"
    IdentitiesOnly yes
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("configuration differs (-want +got):\n%s", diff)
	}
	known, err := door().KnownHosts()
	if err != nil || known != "[hub.example.org]:2222 "+edKey+"\n" {
		t.Errorf("KnownHosts = %q, %v", known, err)
	}
}

// TestAHostileServerWritesNoConfiguration: a server that was taken over must
// not run programs on the machines of those who use it.
func TestAHostileServerWritesNoConfiguration(t *testing.T) {
	for name, spoil := range map[string]func(*sshconfig.Door){
		"a line in the host":     func(d *sshconfig.Door) { d.Host = "x\n    ProxyCommand touch /tmp/owned" },
		"an option as host":      func(d *sshconfig.Door) { d.Host = "-oProxyCommand=id" },
		"a command in the host":  func(d *sshconfig.Door) { d.Host = "x$(id)" },
		"a space in the host":    func(d *sshconfig.Door) { d.Host = "x y" },
		"a token in the host":    func(d *sshconfig.Door) { d.Host = "%h" },
		"a zone":                 func(d *sshconfig.Door) { d.Host = "fe80::1%eth0" },
		"no host":                func(d *sshconfig.Door) { d.Host = "" },
		"a line in the user":     func(d *sshconfig.Door) { d.User = "alice\nProxyCommand id" },
		"an option as user":      func(d *sshconfig.Door) { d.User = "-oProxyCommand=id" },
		"no user":                func(d *sshconfig.Door) { d.User = "" },
		"a port":                 func(d *sshconfig.Door) { d.Port = 70000 },
		"a line in a key":        func(d *sshconfig.Door) { d.HostKeys = []string{edKey + "\n* " + edKey} },
		"a marker as key":        func(d *sshconfig.Door) { d.HostKeys = []string{"@cert-authority * " + edKey} },
		"a key for other hosts":  func(d *sshconfig.Door) { d.HostKeys = []string{"github.com " + edKey} },
		"a comment after a key":  func(d *sshconfig.Door) { d.HostKeys = []string{edKey + " x"} },
		"a line in an authority": func(d *sshconfig.Door) { d.HostCA = edKey + "\n* " + edKey },
		"no keys":                func(d *sshconfig.Door) { d.HostKeys = nil },
		"a line in the server":   func(d *sshconfig.Door) { d.Server = "https://x\nProxyCommand id" },
		"another kind of server": func(d *sshconfig.Door) { d.Server = "file:///etc" },
	} {
		d := door()
		spoil(&d)
		if text, err := sshconfig.Config(d, nil, nil); err == nil {
			t.Errorf("%s: %s", name, text)
		}
		if text, err := d.KnownHosts(); err == nil {
			t.Errorf("%s: %s", name, text)
		}
		if o, err := d.Options("lab", "/tmp/known"); err == nil {
			t.Errorf("%s: %q", name, o)
		}
	}
	for _, ws := range []string{"*", "a b", "a\nProxyCommand id", "-x", "!a", "a.b", "A", strings.Repeat("a", 65)} {
		if text, err := sshconfig.Config(door(), []string{ws}, nil); err == nil {
			t.Errorf("workspace %q: %s", ws, text)
		}
		if o, err := door().Options(ws, "/tmp/known"); err == nil {
			t.Errorf("workspace %q: %q", ws, o)
		}
	}
	for _, file := range []string{"", "a\nb", `a"b`} {
		if text, err := sshconfig.Config(door(), nil, []string{file}); err == nil {
			t.Errorf("file %q: %s", file, text)
		}
	}
}

// OpenSSH understands the file as it is meant.
func TestOpenSSHReadsIt(t *testing.T) {
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("ssh is not installed")
	}
	text, err := sshconfig.Config(door(), []string{"lab"}, []string{"/keys/with space"})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for alias, user := range map[string]string{"bailey": "alice", "lab.bailey": "alice+lab"} {
		out, err := exec.CommandContext(t.Context(), ssh, "-G", "-F", file, alias).Output()
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(out), "\n")
		for _, want := range []string{"user " + user, "hostname hub.example.org", "port 2222", "stricthostkeychecking true", "identitiesonly yes", "identityfile /keys/with space"} {
			if !slices.Contains(lines, want) {
				t.Errorf("ssh -G %s does not say %q:\n%s", alias, want, out)
			}
		}
	}
	out, err := exec.CommandContext(t.Context(), ssh, "-G", "-F", file, "other.example.org").Output()
	if err != nil || bytes.Contains(out, []byte("hub.example.org")) {
		t.Errorf("another host: %v\n%s", err, out)
	}
}

func TestInclude(t *testing.T) {
	for _, tt := range []struct{ name, old, want string }{
		{"nothing", "", "Include bailey_config\n"},
		{"hosts", "Host x\n  User y\n", "Include bailey_config\nHost x\n  User y\n"},
		{"no end", "Host x", "Include bailey_config\nHost x"},
		{"windows", "Host x\r\n", "Include bailey_config\r\nHost x\r\n"},
		{"byte order mark", "\xef\xbb\xbfHost x\n", "\xef\xbb\xbfInclude bailey_config\nHost x\n"},
		{"within a host, where it does little", "Host x\nInclude bailey_config\n", "Include bailey_config\nHost x\nInclude bailey_config\n"},
		{"another include", "Include other\n", "Include bailey_config\nInclude other\n"},
		{"a comment about it", "# Include bailey_config\n", "Include bailey_config\n# Include bailey_config\n"},
		{"there", "Include bailey_config\nHost x\n", ""},
		{"there, in other words", "# mine\n  include \t bailey_config\r\nHost x\n", ""},
		{"bytes that are no text", "# \xff\x00\nHost x\n", "Include bailey_config\n# \xff\x00\nHost x\n"},
	} {
		got, changed := sshconfig.AddInclude([]byte(tt.old))
		want := tt.want
		if want == "" {
			want = tt.old
		}
		if string(got) != want || changed != (tt.want != "") {
			t.Errorf("%s: AddInclude = %q, %v; want %q", tt.name, got, changed, want)
		}
		if again, changed := sshconfig.AddInclude(got); changed || string(again) != string(got) {
			t.Errorf("%s: a second time: %q", tt.name, again)
		}
	}
}

// Whatever a configuration holds, adding and removing the line brings back each
// byte.
func FuzzInclude(f *testing.F) {
	f.Add([]byte("Host x\r\n  User y"))
	f.Add([]byte("\xef\xbb\xbfInclude other\n"))
	f.Fuzz(func(t *testing.T, old []byte) {
		bare, _ := sshconfig.RemoveInclude(old)
		with, changed := sshconfig.AddInclude(bare)
		if !changed {
			t.Fatalf("AddInclude(%q) changed nothing", bare)
		}
		if again, changed := sshconfig.AddInclude(with); changed {
			t.Fatalf("AddInclude(%q) again gave %q", with, again)
		}
		back, changed := sshconfig.RemoveInclude(with)
		if !changed || !bytes.Equal(back, bare) {
			t.Fatalf("RemoveInclude(%q) = %q, want %q", with, back, bare)
		}
	})
}
