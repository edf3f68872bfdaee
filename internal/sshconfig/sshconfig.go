// Package sshconfig writes what OpenSSH's clients read: a configuration file of
// bailey's own with one host per workspace, the known_hosts file that belongs
// to it, and the one line by which the user's own configuration includes them.
// It works on texts alone; reading and writing files is its callers'.
//
// What it writes comes in part from a server, and a line too many in an SSH
// configuration runs programs. So every value is checked against the narrowest
// grammar that it can have.
package sshconfig

import (
	"bytes"
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
)

// The names of the files, in ~/.ssh.
const (
	ConfigName     = "bailey_config"
	KnownHostsName = "bailey_known_hosts"
	KeyName        = "bailey_ed25519" // the key that certificates are for
)

// Suffix ends the alias of a workspace: "lab.bailey".
const Suffix = ".bailey"

// includeLine is the one line in the user's own file.
const includeLine = "Include " + ConfigName

// A Door is where the server is, as it said.
type Door struct {
	Server   string   // the console's origin, for the comment
	Host     string   // name or address
	Port     int      // of the SSH door
	User     string   // the account
	HostKeys []string // "ssh-ed25519 AAAA…"
	HostCA   string   // the authority that certifies them, in the same form; empty: none
}

var (
	label    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?$`)
	hostName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$`)
	hostKey  = regexp.MustCompile(`^(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa) [A-Za-z0-9+/]{40,1000}={0,3}$`)
	origin   = regexp.MustCompile(`^https://[A-Za-z0-9.:\[\]-]{1,300}$`)
)

// Check refuses a door with anything in it that could be more than it should.
func (d Door) Check() error {
	_, addrErr := netip.ParseAddr(d.Host)
	switch {
	case addrErr != nil && !hostName.MatchString(d.Host), strings.Contains(d.Host, "%"):
		return fmt.Errorf("the server gave a host name that cannot be one: %q", d.Host)
	case d.Port < 1 || d.Port > 65535:
		return fmt.Errorf("the server gave a port that cannot be one: %d", d.Port)
	case !label.MatchString(d.User):
		return fmt.Errorf("the server gave a user name that cannot be one: %q", d.User)
	case !origin.MatchString(strings.TrimSuffix(d.Server, "/")):
		return fmt.Errorf("this is no server address: %q", d.Server)
	case len(d.HostKeys) == 0:
		return fmt.Errorf("the server gave no host keys")
	}
	for _, k := range d.HostKeys {
		if !hostKey.MatchString(k) {
			return fmt.Errorf("the server gave a host key that cannot be one: %.40q", k)
		}
	}
	if d.HostCA != "" && !hostKey.MatchString(d.HostCA) {
		return fmt.Errorf("the server gave an authority of host keys that cannot be one: %.40q", d.HostCA)
	}
	return nil
}

// CheckName refuses a workspace's name that cannot be one.
func CheckName(name string) error {
	if !label.MatchString(name) {
		return fmt.Errorf("this is no workspace name: %q", name)
	}
	return nil
}

// KnownHosts returns the known_hosts file for the door.
func (d Door) KnownHosts() (string, error) {
	if err := d.Check(); err != nil {
		return "", err
	}
	name := d.Host
	if d.Port != 22 {
		name = "[" + d.Host + "]:" + strconv.Itoa(d.Port)
	}
	var b strings.Builder
	if d.HostCA != "" { // for this host alone: it is no authority about others
		b.WriteString("@cert-authority " + name + " " + d.HostCA + "\n")
	}
	for _, k := range d.HostKeys {
		b.WriteString(name + " " + k + "\n")
	}
	return b.String(), nil
}

// Login returns who signs in for a workspace; for an empty name, whoever's
// running one it is.
func (d Door) Login(workspace string) string {
	if workspace == "" {
		return d.User
	}
	return d.User + "+" + workspace
}

// Options returns the settings of one connection for "ssh -o" and "scp -o",
// apart from the identities.
func (d Door) Options(workspace, knownHosts string) ([]string, error) {
	if err := d.Check(); err != nil {
		return nil, err
	}
	if workspace != "" {
		if err := CheckName(workspace); err != nil {
			return nil, err
		}
	}
	known, err := quote(knownHosts)
	if err != nil {
		return nil, err
	}
	return []string{
		"HostName=" + d.Host, "Port=" + strconv.Itoa(d.Port), "User=" + d.Login(workspace),
		"UserKnownHostsFile=" + known, "StrictHostKeyChecking=yes", "UpdateHostKeys=no",
		"ServerAliveInterval=30", "ServerAliveCountMax=4", "ControlMaster=no", "ControlPath=none",
	}, nil
}

// Config returns bailey's own configuration file: the door under "bailey", and
// each workspace under its alias. identities are the files of keys to offer; with
// none, ssh offers what it offers everywhere.
func Config(d Door, workspaces, identities []string) (string, error) {
	if err := d.Check(); err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "# Written by \"bailey ssh-config\" for %s.\n# It is written anew by the next run; put settings of your own into ~/.ssh/config.\n", strings.TrimSuffix(d.Server, "/"))
	host := func(alias, login string) {
		fmt.Fprintf(&b, "\nHost %s\n    User %s\n", alias, login)
	}
	host("bailey", d.User)
	all := []string{"bailey"}
	for _, name := range workspaces {
		if err := CheckName(name); err != nil {
			return "", err
		}
		host(name+Suffix, d.Login(name))
		all = append(all, name+Suffix)
	}
	fmt.Fprintf(&b, "\nHost %s\n    HostName %s\n    Port %d\n    UserKnownHostsFile ~/.ssh/%s\n", strings.Join(all, " "), d.Host, d.Port, KnownHostsName)
	b.WriteString("    StrictHostKeyChecking yes\n    UpdateHostKeys yes\n    ServerAliveInterval 30\n    ServerAliveCountMax 4\n")
	for _, file := range identities {
		q, err := quote(file)
		if err != nil {
			return "", err
		}
		b.WriteString("    IdentityFile " + q + "\n")
	}
	if len(identities) > 0 {
		b.WriteString("    IdentitiesOnly yes\n")
	}
	return b.String(), nil
}

// quote returns a path as ssh reads it back.
func quote(path string) (string, error) {
	if path == "" || strings.ContainsAny(path, "\"\r\n\x00") {
		return "", fmt.Errorf("this path cannot stand in an SSH configuration: %q", path)
	}
	path = strings.ReplaceAll(path, "%", "%%")
	if strings.ContainsAny(path, " \t'#\\") {
		return `"` + strings.ReplaceAll(path, `\`, `\\`) + `"`, nil
	}
	return path, nil
}

// AddInclude returns the user's configuration with the line that includes
// bailey's file at its top, and whether that changed it. Everything else stays
// byte for byte. A line further down does not count: within a Host block it
// would hold for that host alone.
func AddInclude(old []byte) (text []byte, changed bool) {
	mark, rest := cutMark(old)
	for line := range bytes.Lines(rest) {
		if isInclude(line) {
			return old, false
		}
		if begins(line, "host") || begins(line, "match") {
			break
		}
	}
	end := "\n"
	if i := bytes.IndexByte(rest, '\n'); i > 0 && rest[i-1] == '\r' {
		end = "\r\n"
	}
	text = make([]byte, 0, len(old)+len(includeLine)+2)
	text = append(text, mark...)
	text = append(text, includeLine+end...)
	return append(text, rest...), true
}

// RemoveInclude returns the user's configuration without the lines that
// AddInclude wrote, and whether that changed it.
func RemoveInclude(old []byte) (text []byte, changed bool) {
	mark, rest := cutMark(old)
	text = append(make([]byte, 0, len(old)), mark...)
	for line := range bytes.Lines(rest) {
		if isInclude(line) {
			changed = true
			continue
		}
		text = append(text, line...)
	}
	if !changed {
		return old, false
	}
	return text, true
}

// cutMark takes the byte order mark off that some editors write.
func cutMark(text []byte) (mark, rest []byte) {
	if rest, ok := bytes.CutPrefix(text, []byte("\xef\xbb\xbf")); ok {
		return text[:3], rest
	}
	return nil, text
}

// isInclude reports whether the line is ours.
func isInclude(line []byte) bool {
	f := bytes.Fields(line)
	return len(f) == 2 && bytes.EqualFold(f[0], []byte("include")) && string(f[1]) == ConfigName
}

// begins reports whether the line's keyword is the one.
func begins(line []byte, keyword string) bool {
	line = bytes.TrimLeft(line, " \t")
	i := bytes.IndexAny(line, " \t=\r\n")
	if i < 0 {
		i = len(line)
	}
	return bytes.EqualFold(line[:i], []byte(keyword))
}
