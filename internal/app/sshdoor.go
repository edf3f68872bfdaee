package app

import (
	"fmt"
	"net"
	"net/url"
	"strconv"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/sshkey"
)

// sshDoor says where clients find the SSH door, and by which keys they
// recognise it; the zero value without one.
func (a *App) sshDoor() bailey.SSHDoor { return a.sshAt }

// sshDoorAt returns the door for clients: the place that the administrator says
// they find it at, or the console's host, which they know, and the port that is
// listened on.
func sshDoorAt(console, public string, addr net.Addr, hostKeys [][]byte) (bailey.SSHDoor, error) {
	u, err := url.Parse(console)
	if err != nil {
		return bailey.SSHDoor{}, fmt.Errorf("the console's address: %w", err)
	}
	d := bailey.SSHDoor{Host: u.Hostname()}
	if tcp, ok := addr.(*net.TCPAddr); ok {
		d.Port = tcp.Port
	}
	if public != "" {
		host, port, err := net.SplitHostPort(public)
		if err != nil {
			return bailey.SSHDoor{}, fmt.Errorf("the public address of SSH: %w", err)
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return bailey.SSHDoor{}, fmt.Errorf("the public address of SSH: %w", err)
		}
		d.Host, d.Port = host, int(n)
	}
	for _, wire := range hostKeys {
		line, err := sshkey.Line(wire, "")
		if err != nil {
			return bailey.SSHDoor{}, fmt.Errorf("host key: %w", err)
		}
		d.HostKeys = append(d.HostKeys, line)
	}
	return d, nil
}
