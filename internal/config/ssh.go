package config

import (
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// SSH says what people may do over SSH. A class has its own word in
// [ClassSSH].
type SSH struct {
	Public           string   `yaml:"public" example:"ssh.example.org:22" doc:"Host and port by which clients reach the SSH port, where it is not the console's host and the port of listen.ssh: behind a load balancer or a port mapping. It is what ssh-config, links and pages name. A change needs a restart."`
	HostKeys         []string `yaml:"host_keys" example:"[ed25519, ecdsa]" doc:"Kinds of host keys that are offered: ed25519, ecdsa. Those that are listed are made in the state directory; none listed: ed25519. Clients that know no ed25519 need ecdsa. A change needs a restart."`
	Access           string   `yaml:"access" enum:"full,sftp-only,off" doc:"full: shells, commands and sftp. sftp-only: sftp and, as far as the lines below go, forwarding. off: nothing."`
	ForceCommand     string   `yaml:"force_command" example:"/usr/local/bin/menu" doc:"Runs in place of every shell, command and subsystem, which it finds in SSH_ORIGINAL_COMMAND. internal-sftp: sftp, whatever was asked for. Empty: none."`
	StartOnConnect   Flag     `yaml:"start_on_connect" doc:"A workspace that is stopped is started when its owner connects."`
	Forwarding       string   `yaml:"forwarding" enum:"all,ports,none" doc:"Forwarding from clients (-L, -D, -W, editors) to the workspace's own loopback. What is forwarded cannot be inspected. ports: to forward_ports alone. none: VS Code and other editors do not work."`
	ForwardPorts     []int    `yaml:"forward_ports" example:"[8888, 6006]" doc:"With forwarding ports: the ports inside that can be reached."`
	RemoteForwarding Flag     `yaml:"remote_forwarding" doc:"The workspace may listen on its loopback for clients (-R)."`
	AgentForwarding  Flag     `yaml:"agent_forwarding" doc:"Clients may lend their agent to the workspace (-A). Whatever runs there can use the lent keys as long as the session lasts."`
	ExecOutput       string   `yaml:"exec_output" enum:"auto,watch" doc:"What the filter does with commands that have no terminal. auto: text is masked; rsync, scp, git and binary output pass unchanged, and findings in them are reported. watch: nothing is changed. A rule with mode block ends the session in both."`
	Files            string   `yaml:"files" enum:"watch,block" doc:"What the filter does with files that sftp carries. watch: findings are reported. block: a finding that elsewhere is masked ends the transfer."`
	Recording        string   `yaml:"recording" enum:"off,best_effort,strict" doc:"Sessions are recorded. best_effort: a session goes on when its recording fails, and that is audited. strict: it ends, and none begins without."`
}

// ClassSSH is what a class has of its own. What is left out is the ssh section's.
type ClassSSH struct {
	Access           string  `yaml:"access" default:"the ssh section's" example:"sftp-only" doc:"As ssh.access."`
	ForceCommand     *string `yaml:"force_command" default:"the ssh section's" example:"internal-sftp" doc:"As ssh.force_command."`
	StartOnConnect   *Flag   `yaml:"start_on_connect" default:"the ssh section's" doc:"As ssh.start_on_connect."`
	Forwarding       string  `yaml:"forwarding" default:"the ssh section's" example:"ports" doc:"As ssh.forwarding."`
	ForwardPorts     []int   `yaml:"forward_ports" default:"the ssh section's" example:"[8888]" doc:"As ssh.forward_ports."`
	RemoteForwarding *Flag   `yaml:"remote_forwarding" default:"the ssh section's" doc:"As ssh.remote_forwarding."`
	AgentForwarding  *Flag   `yaml:"agent_forwarding" default:"the ssh section's" doc:"As ssh.agent_forwarding."`
	ExecOutput       string  `yaml:"exec_output" default:"the ssh section's" example:"watch" doc:"As ssh.exec_output."`
	Files            string  `yaml:"files" default:"the ssh section's" example:"block" doc:"As ssh.files."`
	Recording        string  `yaml:"recording" default:"the ssh section's" example:"strict" doc:"As ssh.recording."`
}

// defaultSSH is what holds before the file speaks.
func defaultSSH() SSH {
	return SSH{
		HostKeys: []string{"ed25519"}, Access: "full", Forwarding: "all", ExecOutput: "auto", Files: "watch", Recording: "off",
	}
}

// SSHFor returns what holds for a class: what the class says, and the ssh section
// where it says nothing.
func (c *Config) SSHFor(class string) SSH {
	s := c.SSH
	i := slices.IndexFunc(c.Classes, func(k Class) bool { return k.Name == class })
	if i < 0 {
		return s
	}
	own := c.Classes[i].SSH
	for _, f := range []struct {
		to  *string
		own string
	}{
		{&s.Access, own.Access},
		{&s.Forwarding, own.Forwarding},
		{&s.ExecOutput, own.ExecOutput},
		{&s.Files, own.Files},
		{&s.Recording, own.Recording},
	} {
		if f.own != "" {
			*f.to = f.own
		}
	}
	for _, f := range []struct{ to, own *Flag }{
		{&s.StartOnConnect, own.StartOnConnect}, {&s.RemoteForwarding, own.RemoteForwarding}, {&s.AgentForwarding, own.AgentForwarding},
	} {
		if f.own != nil {
			*f.to = *f.own
		}
	}
	if own.ForceCommand != nil {
		s.ForceCommand = *own.ForceCommand
	}
	if own.ForwardPorts != nil {
		s.ForwardPorts = own.ForwardPorts
	}
	return s
}

// checkSSH checks the ssh section and what classes say about it.
func (d *decoder) checkSSH() {
	s := d.cfg.SSH
	if len(s.HostKeys) == 0 {
		d.wrong([]string{"ssh.host_keys"}, "there is no host key", "clients know a server by its keys", "host_keys: [ed25519]")
	}
	for i, k := range s.HostKeys {
		if k != "ed25519" && k != "ecdsa" || slices.Index(s.HostKeys, k) != i {
			d.wrong([]string{fmt.Sprintf("ssh.host_keys[%d]", i), "ssh.host_keys"}, quote(k)+" is no kind of host key, or is there twice", "the kinds are ed25519 and ecdsa", "host_keys: [ed25519]")
		}
	}
	if s.Public != "" && !publicSSH(s.Public) {
		d.wrong([]string{"ssh.public"}, quote(s.Public)+" is not HOST:PORT", "clients are told to connect there", "public: ssh.example.org:22")
	}
	d.checkForward("ssh", s.ForwardPorts, s.ForceCommand)
	for i, c := range d.cfg.Classes {
		at := fmt.Sprintf("classes[%d].ssh", i)
		for _, f := range []struct {
			field, value string
			words        []string
		}{
			{"access", c.SSH.Access, []string{"full", "sftp-only", "off"}},
			{"forwarding", c.SSH.Forwarding, []string{"all", "ports", "none"}},
			{"exec_output", c.SSH.ExecOutput, []string{"auto", "watch"}},
			{"files", c.SSH.Files, []string{"watch", "block"}},
			{"recording", c.SSH.Recording, []string{"off", "best_effort", "strict"}},
		} {
			if f.value != "" && !slices.Contains(f.words, f.value) {
				d.wrong([]string{at + "." + f.field}, quote(f.value)+" is not one of them", "it is "+strings.Join(f.words, ", "), f.field+": "+f.words[0])
			}
		}
		force := ""
		if c.SSH.ForceCommand != nil {
			force = *c.SSH.ForceCommand
		}
		d.checkForward(at, c.SSH.ForwardPorts, force)
	}
}

// publicSSH reports whether text can stand in a client's configuration as the
// place of the server: a host's name or address, and a port.
func publicSSH(text string) bool {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0 && strconv.FormatUint(n, 10) == port && sshHost.MatchString(host)
}

// sshHost is a name or an address as ssh reads it: it is written into files of
// people's machines, where a space or a line break would be a setting.
var sshHost = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9.-]{0,252}$|^[0-9a-fA-F:.]{2,45}$`)

func (d *decoder) checkForward(at string, ports []int, force string) {
	for i, p := range ports {
		if p < 1 || p > 65535 {
			d.wrong([]string{fmt.Sprintf("%s.forward_ports[%d]", at, i), at + ".forward_ports"}, fmt.Sprintf("%d is not a port", p), "ports are 1 to 65535", "forward_ports: [8888]")
		}
	}
	if len(force) > 4096 || strings.ContainsAny(force, "\x00\n\r") {
		d.wrong([]string{at + ".force_command"}, "the command is longer than 4096 bytes, or more than one line", "it is given to the shell as one line", "force_command: internal-sftp")
	}
}
