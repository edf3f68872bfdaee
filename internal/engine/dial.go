package engine

import (
	"fmt"
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"
)

// What the agent itself does for whoever dials [AgentNetwork]: run a process,
// listen inside, or hand over somebody who called at a listener. No door passes
// a network or an address of this kind on from a stranger.
const (
	AgentNetwork = "agent"
	AgentExec    = "exec"
	AgentListen  = "listen"
	AgentConnect = "connect"
	AgentAccept  = "accept:" // and the 32 hex digits of the call
)

// CheckDial returns nil when network and addr name something on a workspace's
// own loopback: "tcp" with a loopback address (or "localhost") and a port,
// "unix" with a clean absolute path, or "agent" with what it is to do. The agent inside refuses everything else
// too, but it is not ours to trust: a line break in addr would be a second
// command to it.
func CheckDial(network, addr string) error {
	if len(addr) > 4096 || strings.ContainsFunc(addr, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
		return invalid("the address to dial has characters that no address has", "")
	}
	switch network {
	case "tcp":
		return checkLoopback(addr)
	case AgentNetwork:
		id, accept := strings.CutPrefix(addr, AgentAccept)
		if addr == AgentExec || addr == AgentListen || addr == AgentConnect || accept && len(id) == 32 && strings.Trim(id, "0123456789abcdef") == "" {
			return nil
		}
		return invalid(fmt.Sprintf("%q is nothing that the agent does", shorten(addr)), "")
	case "unix":
		if strings.HasPrefix(addr, "/") && path.Clean(addr) == addr && addr != "/" {
			return nil
		}
		return invalid(fmt.Sprintf("%q is not a clean absolute path", shorten(addr)), "")
	}
	return invalid(fmt.Sprintf("network %q is not tcp or unix", shorten(network)), "")
}

func checkLoopback(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return invalid(fmt.Sprintf("%q is not HOST:PORT", shorten(addr)), "")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return invalid(fmt.Sprintf("%q is not a port", shorten(port)), "use 1 to 65535")
	}
	if host == "localhost" {
		return nil
	}
	ip, err := netip.ParseAddr(host)
	if err != nil || !ip.IsLoopback() || ip.Zone() != "" {
		return invalid(fmt.Sprintf("%q is not a loopback address", shorten(host)), "only 127.0.0.1, ::1 and localhost inside the workspace can be reached")
	}
	return nil
}
