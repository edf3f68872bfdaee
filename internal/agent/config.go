package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// defaultGrace is below the 10 s that an engine waits before it kills.
const defaultGrace = 8 * time.Second

// config is /etc/bailey/agent.json, which the engine writes and mounts
// read-only.
type config struct {
	Socket  string        `json:"socket"`
	Jupyter jupyterConfig `json:"jupyter"`
	Home    string        `json:"home"`
	Venv    string        `json:"venv"` // empty: none is made or used
	User    string        `json:"user"`
	Egress  egressConfig  `json:"egress,omitzero"`
	// StopGraceSeconds is the time from SIGTERM to SIGKILL for all that runs
	// inside; 0 means 8. It must be less than what the engine waits.
	StopGraceSeconds int `json:"stop_grace_seconds"`
}

type jupyterConfig struct {
	Addr      string `json:"addr"`
	BasePath  string `json:"base_path"`
	TokenFile string `json:"token_file"`
	Root      string `json:"root"`
}

// egressConfig is the way out of a workspace that has one. The zero value is
// that it has none.
type egressConfig struct {
	Listen string `json:"listen"`           // loopback address and port
	Socket string `json:"socket"`           // the server's, made by it and remade when it comes back
	Notice string `json:"notice,omitempty"` // file in which terminals find why something was refused; empty: none
}

func (c config) grace() time.Duration {
	if c.StopGraceSeconds == 0 {
		return defaultGrace
	}
	return time.Duration(c.StopGraceSeconds) * time.Second
}

// loadConfig reads the file; every problem in it is reported at once.
func loadConfig(file string) (config, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return config{}, err
	}
	return parseConfig(data)
}

func parseConfig(data []byte) (config, error) {
	var c config
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&c); err != nil {
		return config{}, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return config{}, errors.New("there is more than one JSON value")
	}
	return c, c.check()
}

func (c config) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	for _, p := range []struct{ name, path string }{
		{"socket", c.Socket},
		{"jupyter.token_file", c.Jupyter.TokenFile},
		{"jupyter.root", c.Jupyter.Root},
		{"home", c.Home},
		{"venv", c.Venv},
	} {
		if p.name == "venv" && p.path == "" {
			continue
		}
		// A colon or newline would break PATH and pyvenv.cfg.
		if !path.IsAbs(p.path) || path.Clean(p.path) != p.path || strings.ContainsAny(p.path, ":\r\n\x00") {
			bad("%s: %q is not a plain absolute path", p.name, p.path)
		}
	}
	if len(c.Socket) > maxUnixPath {
		bad("socket: the path is longer than %d bytes", maxUnixPath)
	}
	if t, err := parseTarget("tcp", c.Jupyter.Addr); err != nil {
		bad("jupyter.addr: %w", err)
	} else if len(t.addrs) != 1 {
		bad("jupyter.addr: write 127.0.0.1 rather than localhost")
	}
	if c.Egress != (egressConfig{}) {
		if t, err := parseTarget("tcp", c.Egress.Listen); err != nil || len(t.addrs) != 1 {
			bad("egress.listen: %q is not a loopback address and a port", c.Egress.Listen)
		}
		if _, err := parseTarget("unix", c.Egress.Socket); err != nil {
			bad("egress.socket: %w", err)
		}
		if n := c.Egress.Notice; n != "" && (!path.IsAbs(n) || path.Clean(n) != n) {
			bad("egress.notice: %q is not a plain absolute path", n)
		}
	}
	if b := c.Jupyter.BasePath; !strings.HasPrefix(b, "/") || !strings.HasSuffix(b, "/") ||
		strings.ContainsFunc(b, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune(`?#%\`, r) }) {
		bad(`jupyter.base_path: %q must begin and end with "/" and need no escaping`, b)
	}
	if c.User == "" || strings.ContainsFunc(c.User, func(r rune) bool { return r <= ' ' || r == ':' || r >= 0x7f }) {
		bad("user: %q is not a user name", c.User)
	}
	if c.StopGraceSeconds < 0 || c.StopGraceSeconds > 3600 {
		bad("stop_grace_seconds: %d is not within 0 to 3600", c.StopGraceSeconds)
	}
	return errors.Join(errs...)
}

// token reads the run's token. Jupyter takes a token file to the last byte, so
// the newline that an editor or echo adds must not reach it.
func (c config) token() (string, error) {
	data, err := os.ReadFile(c.Jupyter.TokenFile)
	if err != nil {
		return "", err
	}
	tok := strings.TrimSpace(string(data))
	if len(tok) < 16 || len(tok) > 512 || strings.ContainsFunc(tok, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		return "", errors.New("the token file does not hold 16 to 512 printable characters")
	}
	return tok, nil
}

// splitAddr returns Jupyter's host and port; check has seen the address.
func (c config) splitAddr() (host, port string) {
	host, port, _ = net.SplitHostPort(c.Jupyter.Addr)
	return host, port
}

// getenv returns the last value of name, as exec would see it.
func getenv(env []string, name string) string {
	for _, e := range slices.Backward(env) {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}
