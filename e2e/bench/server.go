package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/baileyhq/bailey/e2e/drive"
)

// A server is a bailey of the bench's own: temporary state, free ports, and
// classes that give a workspace all the machine's cores, as a bare container
// has them, or half of them.
type server struct {
	*drive.Server
	admin *client
}

// configuration is the server's file. The eight cards are made up; none is ever
// leased.
func configuration() string {
	var b strings.Builder
	fmt.Fprintf(&b, "classes:\n")
	for _, c := range []struct {
		name, image string
		cpus        int
		check       string
	}{
		{"notebook", "notebook", runtime.NumCPU(), "python"},
		{"pytorch", "pytorch", runtime.NumCPU(), "torch"},
		{"half", "notebook", max(runtime.NumCPU()/2, 1), "python"}, // as the classes that bailey makes by itself
	} {
		fmt.Fprintf(&b, "  - name: %s\n    image: %s\n    cpus: %d\n    memory: 4GiB\n    self_check: %s\n", c.name, c.image, c.cpus, c.check)
	}
	b.WriteString("quotas:\n  default:\n    workspaces: 0\n    cpus: 0\n    memory: 0\n    gpus: 0\n")
	b.WriteString("gpus:\n  source: list\n  devices:\n")
	for i := range 8 {
		fmt.Fprintf(&b, "    - uuid: GPU-00000000-0000-4000-8000-00000000000%d\n      model: none\n", i)
	}
	return b.String()
}

// startBailey starts "bailey up" and signs the administrator in.
func (b *bench) startBailey(ctx context.Context, name string) (*server, error) {
	return b.startServer(ctx, name, b.bin)
}

// startWithout starts bailey without containers, every workspace leading to the
// backend on the socket. debug is where it can be looked into.
func (b *bench) startWithout(ctx context.Context, name, socket string) (s *server, debug string, err error) {
	port, err := drive.Port()
	if err != nil {
		return nil, "", err
	}
	debug = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	s, err = b.startServer(ctx, name, filepath.Join(b.tools, "gwserver"), "--backend", socket, "--debug", debug)
	return s, debug, err
}

func (b *bench) startServer(ctx context.Context, name, bin string, more ...string) (*server, error) {
	dir := filepath.Join(b.work, name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "bailey.yaml")
	if err := os.WriteFile(file, []byte(configuration()+b.extra), 0o600); err != nil {
		return nil, err
	}
	d, err := drive.New(bin, dir, append([]string{"--config", file, "--log-level", "warn"}, more...)...)
	if err != nil {
		return nil, err
	}
	sctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	s := &server{Server: d}
	if err := d.Start(sctx); err != nil {
		return nil, errors.Join(err, d.Kill())
	}
	password, err := os.ReadFile(d.Admin)
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	c, err := s.client("")
	if err == nil {
		err = c.signIn(sctx, "admin", strings.TrimSpace(string(password)))
	}
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	s.admin = c
	return s, nil
}

// stop ends the server and, first, every workspace on it.
func (s *server) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var err error
	if s.admin != nil {
		err = s.removeAll(ctx)
	}
	if e := s.Stop(); e != nil {
		err = errors.Join(err, fmt.Errorf("stop bailey: %w\n%s", e, s.Log))
	}
	return err
}

func (s *server) removeAll(ctx context.Context) error {
	var list struct{ Workspaces []workspace }
	if err := s.admin.call(ctx, http.MethodGet, "/workspaces?all=true", nil, &list); err != nil {
		return fmt.Errorf("clean up: %w", err)
	}
	for _, w := range list.Workspaces {
		if err := s.admin.call(ctx, http.MethodDelete, "/workspaces/"+w.ID, nil, nil); err != nil {
			return fmt.Errorf("clean up: %w", err)
		}
	}
	return nil
}

// tls returns the settings of a client that trusts the server.
func (s *server) tls(protocols ...string) (*tls.Config, error) {
	c, err := s.HTTP(false, false)
	if err != nil {
		return nil, err
	}
	t, ok := c.Transport.(*http.Transport)
	if !ok {
		return nil, errors.New("drive has another transport")
	}
	cfg := t.TLSClientConfig.Clone()
	cfg.NextProtos = protocols
	return cfg, nil
}

// A client is somebody with an API token, on kept-alive connections.
type client struct {
	console string
	token   string
	http    *http.Client
}

func (s *server) client(token string) (*client, error) {
	h, err := s.HTTP(false, false)
	return &client{console: s.URL, token: token, http: h}, err
}

// signIn gets the client its token.
func (c *client) signIn(ctx context.Context, name, password string) error {
	var grant struct{ Token string }
	err := until(ctx, 30*time.Second, "sign "+name+" in", func() (bool, error) {
		err := c.call(ctx, http.MethodPost, "/tokens/signin", map[string]string{"user": name, "password": password}, &grant)
		if e, ok := errors.AsType[*apiError](err); ok && e.status == http.StatusTooManyRequests {
			return false, nil // a limit on everybody's attempts together; it passes
		}
		return err == nil, err
	})
	c.token = grant.Token
	return err
}

// An apiError is an answer that was not wished for.
type apiError struct {
	status int
	text   string
}

func (e *apiError) Error() string { return e.text }

// call does one operation of the API.
func (c *client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader = http.NoBody
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, c.console+"/api/v1"+path, body)
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return &apiError{resp.StatusCode, fmt.Sprintf("%s %s: %s: %.300s", method, path, resp.Status, b)}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}

// A workspace is what the API shows of one.
type workspace struct {
	ID, Owner, Name, State, Reason, URL, Run string
	SelfCheck                                string `json:"self_check"`
}

// jupyter asks a Jupyter server whether it answers; not yet is no error.
func jupyter(ctx context.Context, c *http.Client, base, token string) (bool, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"api/status", http.NoBody)
	if err != nil {
		return false, err
	}
	r.Header.Set("Authorization", "token "+token)
	resp, err := c.Do(r)
	if err != nil {
		return false, nil //nolint:nilerr // nobody listens yet
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK, nil
}

// launch starts a workspace, making it if need be, and waits until its Jupyter
// answers on its own origin. It returns how long that took.
func (c *client) launch(ctx context.Context, name, class string) (workspace, time.Duration, error) {
	var w workspace
	begin := time.Now()
	if err := c.call(ctx, http.MethodPost, "/workspaces", map[string]string{"name": name, "class": class}, &w); err != nil {
		return w, 0, err
	}
	looked := time.Now()
	err := until(ctx, 90*time.Second, "Jupyter of workspace "+name+" answers through the gateway", func() (bool, error) {
		if ok, err := jupyter(ctx, c.http, w.URL, c.token); ok || err != nil {
			return ok, err
		}
		// A launch that failed is not waited for. Asked rarely, so as not to be
		// part of what is measured.
		if time.Since(looked) < 3*time.Second {
			return false, nil
		}
		looked = time.Now()
		var now workspace
		if err := c.call(ctx, http.MethodGet, "/workspaces/"+w.ID, nil, &now); err != nil {
			return false, err
		}
		if now.State != "starting" && now.State != "running" {
			return false, fmt.Errorf("the workspace is %s: %s", now.State, now.Reason)
		}
		return false, nil
	})
	took := time.Since(begin)
	if err != nil {
		return w, 0, err
	}
	return w, took, nil
}

// settle waits until the self-check after a launch is over, which would
// otherwise compete with what is measured next.
func (c *client) settle(ctx context.Context, id string) error {
	return until(ctx, 2*time.Minute, "the self-check ends", func() (bool, error) {
		var w workspace
		err := c.call(ctx, http.MethodGet, "/workspaces/"+id, nil, &w)
		return w.SelfCheck != "", err
	})
}

// stop stops a workspace and waits.
func (c *client) stop(ctx context.Context, id string) error {
	if err := c.call(ctx, http.MethodPost, "/workspaces/"+id+"/stop", nil, nil); err != nil {
		return err
	}
	return until(ctx, time.Minute, "the workspace stops", func() (bool, error) {
		var w workspace
		err := c.call(ctx, http.MethodGet, "/workspaces/"+id, nil, &w)
		return w.State == "stopped" || w.State == "failed", err
	})
}

// remove deletes a workspace and its volume.
func (c *client) remove(ctx context.Context, id, name string) error {
	if err := c.call(ctx, http.MethodDelete, "/workspaces/"+id, nil, nil); err != nil {
		return err
	}
	v, err := c.volume(ctx, name)
	if err != nil {
		return err
	}
	return c.call(ctx, http.MethodDelete, "/volumes/"+v+"?confirm="+url.QueryEscape(name), nil, nil)
}

// volume returns the id of the client's volume of that name.
func (c *client) volume(ctx context.Context, name string) (string, error) {
	var list struct{ Volumes []struct{ ID, Name string } }
	if err := c.call(ctx, http.MethodGet, "/volumes", nil, &list); err != nil {
		return "", err
	}
	i := slices.IndexFunc(list.Volumes, func(v struct{ ID, Name string }) bool { return v.Name == name })
	if i < 0 {
		return "", fmt.Errorf("there is no volume %s", name)
	}
	return list.Volumes[i].ID, nil
}

// A stageLine is a stage as the API shows it.
type stageLine struct {
	Seq          int64
	Run          string
	Name, Status string
	Took         float64 `json:"took_seconds"`
}

// stages returns the finished stages of a run, in order.
func (c *client) stages(ctx context.Context, id, run string) ([]stage, error) {
	var out []stage
	err := until(ctx, 10*time.Second, "the stages are stored", func() (bool, error) {
		var list struct{ Stages []stageLine }
		if err := c.call(ctx, http.MethodGet, "/workspaces/"+id+"/stages", nil, &list); err != nil {
			return false, err
		}
		out = nil
		for _, s := range list.Stages {
			if s.Run != run || s.Status != "done" {
				continue
			}
			if s.Name == "ready" { // the sum of the others
				return true, nil
			}
			out = append(out, stage{s.Name, s.Took})
		}
		return false, nil
	})
	return out, err
}

// addUser makes an account and signs it in from a loopback address of its own,
// so that a limit per address does not mistake the bench for one guesser.
func (s *server) addUser(ctx context.Context, i int) (*client, error) {
	name, password := fmt.Sprintf("user%d", i), drive.Password()
	if err := s.admin.call(ctx, http.MethodPost, "/users", map[string]string{"name": name, "password": password}, nil); err != nil {
		return nil, err
	}
	c, err := s.client("")
	if err != nil {
		return nil, err
	}
	t, ok := c.http.Transport.(*http.Transport)
	if !ok {
		return nil, errors.New("drive has another transport")
	}
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 2, byte(1+i%250))}}
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		return from.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
	}
	return c, c.signIn(ctx, name, password)
}
