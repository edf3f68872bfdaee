package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"time"
)

// maxLine is the longest request line, with its newline.
const maxLine = 512

// maxUnixPath is what sockaddr_un can hold, without the final NUL.
const maxUnixPath = 107

const connectTimeout = 5 * time.Second

// A target is an address that the agent may connect to. Only parseTarget and
// parseRequest make one, so every target is a loopback address or a path.
type target struct {
	network string   // "tcp" or "unix"
	addrs   []string // tried in order; literal addresses, so no name is ever looked up
}

// A request is what a client asked for in its first line.
type request struct {
	ping bool
	dial target

	verb string // of what the agent itself does: exec, listen, connect or accept
	call string // of accept: which call
}

// parseRequest reads a line without its newline: "PING", "DIAL tcp HOST:PORT",
// "DIAL unix PATH", "DIAL agent exec", "DIAL agent listen", "DIAL agent connect"
// or "DIAL agent accept:ID", with single spaces. Everything else is an error.
func parseRequest(line string) (request, error) {
	if line == "PING" {
		return request{ping: true}, nil
	}
	verb, rest, _ := strings.Cut(line, " ")
	network, addr, ok := strings.Cut(rest, " ")
	if verb != "DIAL" || !ok {
		return request{}, errors.New("unknown request")
	}
	if network == "agent" {
		return parseVerb(addr)
	}
	t, err := parseTarget(network, addr)
	return request{dial: t}, err
}

// parseVerb reads what the agent itself is asked to do.
func parseVerb(what string) (request, error) {
	verb, call, _ := strings.Cut(what, ":")
	switch {
	case what == "exec" || what == "listen" || what == "connect":
		return request{verb: what}, nil
	case verb == "accept" && len(call) == 32 && strings.Trim(call, "0123456789abcdef") == "":
		return request{verb: verb, call: call}, nil
	}
	return request{}, errors.New("unknown request")
}

// parseTarget allows loopback addresses only: 127.0.0.0/8 in plain dotted
// form, ::1, the word "localhost", and absolute Unix paths. It is strict on
// purpose. 127.1, 0177.0.0.1, 2130706433 and ::ffff:127.0.0.1 mean different
// things to different parsers, and 0.0.0.0 means loopback to the kernel only.
func parseTarget(network, addr string) (target, error) {
	switch network {
	case "tcp":
		host, port, err := net.SplitHostPort(addr)
		if err != nil {
			return target{}, fmt.Errorf("%.80q is not HOST:PORT", addr)
		}
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
			return target{}, fmt.Errorf("%.20q is not a port", port)
		}
		if host == "localhost" {
			return target{"tcp", []string{"127.0.0.1:" + port, "[::1]:" + port}}, nil
		}
		ip, err := netip.ParseAddr(host)
		if err != nil || !ip.IsLoopback() || ip.Is4In6() || ip.Zone() != "" {
			return target{}, fmt.Errorf("%.80q is not a loopback address", host)
		}
		return target{"tcp", []string{netip.AddrPortFrom(ip, uint16(n)).String()}}, nil
	case "unix":
		if !path.IsAbs(addr) || path.Clean(addr) != addr || len(addr) > maxUnixPath || strings.ContainsFunc(addr, control) {
			return target{}, fmt.Errorf("%.120q is not a plain absolute path", addr)
		}
		return target{"unix", []string{addr}}, nil
	}
	return target{}, fmt.Errorf("%.20q is not tcp or unix", network)
}

func control(r rune) bool { return r < 0x20 || r == 0x7f }

// connect opens the first address that answers.
func (t target) connect(ctx context.Context) (duplex, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	d := net.Dialer{KeepAlive: -1} // loopback: a dead peer is known at once
	var errs []error
	for _, addr := range t.addrs {
		c, err := d.DialContext(ctx, t.network, addr)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		return c.(duplex), nil //nolint:forcetypeassert // *net.TCPConn and *net.UnixConn both are
	}
	return nil, errors.Join(errs...)
}
