// Package drive uses bailey as a person would, from outside and through its
// public doors alone: the command line, a browser's requests, the kernel
// WebSocket. Smoke, benchmarks and the end-to-end tests share it.
package drive

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/coder/websocket"
)

// A Server is a bailey process under test with its own state folder.
type Server struct {
	Bin     string // path of the bailey binary
	State   string
	URL     string // the console's origin
	Metrics string // host:port
	Admin   string // file with the administrator's password
	Args    []string
	Log     *bytes.Buffer // stderr and stdout of the newest process

	cmd  *exec.Cmd
	done chan error
}

// Port returns a free TCP port on loopback.
func Port() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// New makes a state folder below dir and the administrator's password; nothing
// runs yet.
func New(bin, dir string, args ...string) (*Server, error) {
	https, err := Port()
	if err != nil {
		return nil, err
	}
	metrics, err := Port()
	if err != nil {
		return nil, err
	}
	s := &Server{
		Bin: bin, State: filepath.Join(dir, "state"), URL: fmt.Sprintf("https://localhost:%d", https),
		Metrics: fmt.Sprintf("127.0.0.1:%d", metrics), Admin: filepath.Join(dir, "admin-password"), Args: args,
	}
	if err := os.WriteFile(s.Admin, []byte(Password()+"\n"), 0o600); err != nil {
		return nil, err
	}
	return s, nil
}

// Password returns a fresh random password.
func Password() string {
	b := make([]byte, 12)
	_, _ = rand.Read(b)
	return "pw-" + hex.EncodeToString(b)
}

// Start runs "bailey up" and returns when the health check answers.
func (s *Server) Start(ctx context.Context) error {
	u, err := url.Parse(s.URL)
	if err != nil {
		return err
	}
	args := append([]string{
		"up", "--state", s.State, "--https", "127.0.0.1:" + u.Port(), "--metrics", s.Metrics,
		"--admin-password-file", s.Admin,
	}, s.Args...)
	s.Log = &bytes.Buffer{}
	s.cmd = exec.Command(s.Bin, args...)
	s.cmd.Env = append(os.Environ(), "BAILEY_PROFILE=/nonexistent")
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	r, w := io.Pipe()
	s.cmd.Stdout, s.cmd.Stderr = w, w
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.done = make(chan error, 1)
	go func() { s.done <- s.cmd.Wait(); w.Close() }()
	log := s.Log
	go func() {
		sc := bufio.NewScanner(r)
		for sc.Scan() {
			if log.Len() < 1<<20 {
				log.WriteString(sc.Text() + "\n")
			}
		}
	}()
	hc := &http.Client{Timeout: time.Second}
	for {
		resp, err := hc.Get("http://" + s.Metrics + "/healthz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case err := <-s.done:
			s.done <- err
			return fmt.Errorf("the server ended while starting: %w\n%s", err, s.Log.String())
		case <-ctx.Done():
			return fmt.Errorf("the server did not become healthy: %w\n%s", ctx.Err(), s.Log.String())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Pid returns the process id of the running server.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Stop interrupts the server and waits for it.
func (s *Server) Stop() error { return s.end(syscall.SIGTERM) }

// Kill ends the server as kill -9 does.
func (s *Server) Kill() error { return s.end(syscall.SIGKILL) }

func (s *Server) end(sig syscall.Signal) error {
	if s.cmd == nil || s.cmd.Process == nil {
		return nil
	}
	_ = s.cmd.Process.Signal(sig)
	select {
	case err := <-s.done:
		s.cmd = nil
		if sig == syscall.SIGKILL {
			return nil
		}
		return err
	case <-time.After(60 * time.Second):
		_ = s.cmd.Process.Kill()
		return errors.New("the server did not stop within 60 s")
	}
}

// CA returns the path of the server's CA certificate.
func (s *Server) CA() string { return filepath.Join(s.State, "tls", "ca.crt") }

// A Person is one account with a command-line profile of their own.
type Person struct {
	Name     string
	Password string // file
	Profile  string // file
	s        *Server
}

// Person returns somebody who has not signed in yet.
func (s *Server) Person(name, passwordFile string) *Person {
	return &Person{Name: name, Password: passwordFile, Profile: filepath.Join(filepath.Dir(s.State), "profile-"+name+".json"), s: s}
}

// CLI runs the bailey command as the person and returns stdout. The error
// holds stderr and the exit code ([exec.ExitError]).
func (p *Person) CLI(ctx context.Context, args ...string) (string, error) {
	var out, errb bytes.Buffer
	cmd := exec.CommandContext(ctx, p.s.Bin, args...)
	cmd.Env = append(os.Environ(), "BAILEY_PROFILE="+p.Profile)
	cmd.Stdout, cmd.Stderr = &out, &errb
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("bailey %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errb.String()))
	}
	return out.String(), nil
}

// Login signs the command line in.
func (p *Person) Login(ctx context.Context) error {
	_, err := p.CLI(ctx, "login", p.s.URL, "--user", p.Name, "--password-file", p.Password, "--ca", p.s.CA())
	return err
}

// Token returns the stored API token.
func (p *Person) Token() (string, error) {
	b, err := os.ReadFile(p.Profile)
	if err != nil {
		return "", err
	}
	var v struct {
		Token string `json:"token"`
	}
	return v.Token, json.Unmarshal(b, &v)
}

// ExitCode returns the exit code in an error of CLI, or -1.
func ExitCode(err error) int {
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return e.ExitCode()
	}
	return -1
}

// HTTP returns a client that trusts the server's CA and sends "*.localhost" to
// this machine, with cookies when jar is set. It does not follow redirects by
// itself when follow is false.
func (s *Server) HTTP(jar, follow bool) (*http.Client, error) {
	pem, err := os.ReadFile(s.CA())
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in " + s.CA())
	}
	var d net.Dialer
	c := &http.Client{Timeout: 60 * time.Second, Transport: &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: pool},
		MaxIdleConnsPerHost: 64,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(addr)
			if err != nil {
				return nil, err
			}
			return d.DialContext(ctx, network, net.JoinHostPort("127.0.0.1", port))
		},
	}}
	if jar {
		c.Jar, _ = cookiejar.New(nil)
	}
	if !follow {
		c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	return c, nil
}

// Browser signs a person in through the console's own form and returns a
// client with the cookies.
func (p *Person) Browser(ctx context.Context) (*http.Client, error) {
	c, err := p.s.HTTP(true, true)
	if err != nil {
		return nil, err
	}
	password, err := os.ReadFile(p.Password)
	if err != nil {
		return nil, err
	}
	form := url.Values{"name": {p.Name}, "password": {strings.TrimSpace(string(password))}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.s.URL+"/signin", strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "same-origin")
	resp, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK || !strings.HasSuffix(resp.Request.URL.Path, "/workspaces") {
		return nil, fmt.Errorf("sign-in of %s ended at %s with %d: %.300s", p.Name, resp.Request.URL, resp.StatusCode, b)
	}
	return c, nil
}

// Navigate opens a URL as a browser navigation does and returns the final
// answer with its body.
func Navigate(ctx context.Context, c *http.Client, target string) (*http.Response, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, nil, err
	}
	r.Header.Set("Accept", "text/html,application/xhtml+xml")
	r.Header.Set("Sec-Fetch-Mode", "navigate")
	r.Header.Set("Sec-Fetch-Dest", "document")
	r.Header.Set("Sec-Fetch-Site", "none")
	resp, err := c.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	return resp, b, err
}

// A Kernel is a running Jupyter kernel reached through the gateway.
type Kernel struct {
	ID string
	ws *websocket.Conn
	s  string // session id
}

// API does one request to a workspace's Jupyter with the person's API token.
func (p *Person) API(ctx context.Context, method, target string, body any) (int, []byte, error) {
	token, err := p.Token()
	if err != nil {
		return 0, nil, err
	}
	c, err := p.s.HTTP(false, false)
	if err != nil {
		return 0, nil, err
	}
	defer c.CloseIdleConnections()
	var rd io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		rd = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, target, rd)
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Authorization", "token "+token)
	resp, err := c.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	return resp.StatusCode, b, err
}

// StartKernel starts a python3 kernel in the workspace at base and connects to
// its channels.
func (p *Person) StartKernel(ctx context.Context, base string) (*Kernel, error) {
	status, b, err := p.API(ctx, http.MethodPost, base+"api/kernels", map[string]string{"name": "python3"})
	if err != nil {
		return nil, err
	}
	if status != http.StatusCreated {
		return nil, fmt.Errorf("start a kernel: %d %.300s", status, b)
	}
	var k struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(b, &k); err != nil {
		return nil, err
	}
	ws, err := p.Channels(ctx, base, k.ID)
	if err != nil {
		return nil, err
	}
	return &Kernel{ID: k.ID, ws: ws, s: hexID()}, nil
}

// Channels opens the kernel's WebSocket through the gateway.
func (p *Person) Channels(ctx context.Context, base, kernel string) (*websocket.Conn, error) {
	token, err := p.Token()
	if err != nil {
		return nil, err
	}
	c, err := p.s.HTTP(false, false)
	if err != nil {
		return nil, err
	}
	c.Timeout = 0
	ws, resp, err := websocket.Dial(ctx, strings.Replace(base, "https://", "wss://", 1)+"api/kernels/"+kernel+"/channels", &websocket.DialOptions{
		HTTPClient: c, HTTPHeader: http.Header{"Authorization": {"token " + token}},
	})
	if err != nil {
		if resp != nil {
			return nil, fmt.Errorf("kernel channels: %s: %w", resp.Status, err)
		}
		return nil, err
	}
	ws.SetReadLimit(64 << 20)
	return ws, nil
}

func hexID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

// Run executes code and returns what it wrote and its last value; an exception
// is an error.
func (k *Kernel) Run(ctx context.Context, code string) (string, error) {
	id := hexID()
	msg := map[string]any{
		"header":        map[string]any{"msg_id": id, "username": "smoke", "session": k.s, "msg_type": "execute_request", "version": "5.3", "date": time.Now().UTC().Format(time.RFC3339)},
		"parent_header": map[string]any{}, "metadata": map[string]any{}, "channel": "shell", "buffers": []any{},
		"content": map[string]any{"code": code, "silent": false, "store_history": true, "user_expressions": map[string]any{}, "allow_stdin": false, "stop_on_error": true},
	}
	b, err := json.Marshal(msg)
	if err != nil {
		return "", err
	}
	if err := k.ws.Write(ctx, websocket.MessageText, b); err != nil {
		return "", err
	}
	var out strings.Builder
	for {
		_, b, err := k.ws.Read(ctx)
		if err != nil {
			return out.String(), fmt.Errorf("read from the kernel: %w", err)
		}
		var m struct {
			Header struct {
				Type string `json:"msg_type"`
			} `json:"header"`
			Parent struct {
				ID string `json:"msg_id"`
			} `json:"parent_header"`
			Content struct {
				Text   string         `json:"text"`
				Data   map[string]any `json:"data"`
				EName  string         `json:"ename"`
				EValue string         `json:"evalue"`
				State  string         `json:"execution_state"`
			} `json:"content"`
		}
		if err := json.Unmarshal(b, &m); err != nil {
			return out.String(), err
		}
		if m.Parent.ID != id {
			continue
		}
		switch m.Header.Type {
		case "stream":
			out.WriteString(m.Content.Text)
		case "execute_result":
			fmt.Fprint(&out, m.Content.Data["text/plain"])
		case "error":
			return out.String(), fmt.Errorf("%s: %s", m.Content.EName, m.Content.EValue)
		case "status":
			if m.Content.State == "idle" {
				return strings.TrimSpace(out.String()), nil
			}
		}
	}
}

// Close closes the channels; the kernel goes on.
func (k *Kernel) Close() { _ = k.ws.Close(websocket.StatusNormalClosure, "") }

// Reconnect returns a kernel over a fresh connection to its channels.
func Reconnect(id string, ws *websocket.Conn) *Kernel { return &Kernel{ID: id, ws: ws, s: hexID()} }
