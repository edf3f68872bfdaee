package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey/internal/agent/home/hometest"
)

// TestMain lets the test binary be the agent, and the Python that the agent
// starts, in processes of their own.
func TestMain(m *testing.M) {
	switch os.Getenv("AGENT_TEST_AS") {
	case "agent":
		os.Exit(Main(Process{Args: os.Args[1:], Env: os.Environ(), Version: "1.2.3", Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}))
	case "jupyter":
		os.Exit(beJupyter(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// beJupyter stands for a Jupyter server: it answers /api to the token, leaves
// an orphan behind, and ends at SIGTERM. Its behaviour is in the file
// "behaviour" of its root directory.
func beJupyter(args []string) int {
	opt := map[string]string{}
	for _, a := range args {
		if k, v, ok := strings.Cut(a, "="); ok {
			opt[strings.TrimPrefix(k, "--ServerApp.")] = v
		}
	}
	what, _ := os.ReadFile(filepath.Join(opt["root_dir"], "behaviour"))
	switch strings.TrimSpace(string(what)) {
	case "broken":
		return 3
	case "broken in the venv":
		if os.Getenv("VIRTUAL_ENV") != "" {
			return 3
		}
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
	}
	token, err := os.ReadFile(os.Getenv("JUPYTER_TOKEN_FILE"))
	if err != nil {
		return 4
	}
	ln, err := net.Listen("tcp", net.JoinHostPort(opt["ip"], opt["port"]))
	if err != nil {
		return 5
	}
	fmt.Println("jupyter listens, args", args)
	if err := exec.Command("/bin/sh", "-c", "(true &)").Run(); err != nil { // an orphan for the agent
		return 6
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/api", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "token "+string(token) {
			http.Error(w, "no", http.StatusForbidden)
			return
		}
		_, _ = io.WriteString(w, `{"version":"test"}`)
	})
	term := make(chan os.Signal, 1)
	if !signal.Ignored(syscall.SIGTERM) {
		signal.Notify(term, syscall.SIGTERM)
	}
	srv := &http.Server{Handler: mux, ReadHeaderTimeout: time.Second}
	go func() { <-term; _ = srv.Close() }()
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return 7
	}
	fmt.Println("jupyter says goodbye")
	return 0
}

// A story is an agent running as a process of its own.
type story struct {
	cmd    *exec.Cmd
	cfg    config
	output *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func startStory(t *testing.T, behaviour string) *story {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	image := hometest.Image(t, "3.13", `AGENT_TEST_AS=jupyter exec '`+self+`' "$@"`)
	cfg, _ := testHome(t, image)
	dir, err := os.MkdirTemp("", "agent") //nolint:usetesting // t.TempDir can be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg.Jupyter = jupyterConfig{Addr: ln.Addr().String(), BasePath: "/", TokenFile: filepath.Join(dir, "token"), Root: cfg.Home}
	_ = ln.Close()
	cfg.Socket = filepath.Join(dir, "agent.sock")
	cfg.StopGraceSeconds = 1
	hometest.Write(t, cfg.Jupyter.TokenFile, "0123456789abcdef\n", 0o600)
	hometest.Write(t, filepath.Join(cfg.Home, "behaviour"), behaviour, 0o600)
	data, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	hometest.Write(t, filepath.Join(dir, "agent.json"), string(data), 0o600)

	s := &story{cfg: cfg, output: &lockedBuffer{}}
	s.cmd = agentCommand(t, "run", "--config", filepath.Join(dir, "agent.json"))
	s.cmd.Env = append(s.cmd.Env, "PATH="+image+"/bin:/usr/bin:/bin", "TMPDIR="+dir)
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if s.cmd.ProcessState == nil { // ends its Jupyter too, as a kill would not
			_ = s.cmd.Process.Signal(syscall.SIGTERM)
			s.wait(t)
		}
		if t.Failed() {
			t.Logf("the agent said:\n%s", s.output)
		}
	})
	return s
}

func agentCommand(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), self, args...)
	cmd.Env = []string{"AGENT_TEST_AS=agent"}
	return cmd
}

// get asks Jupyter for /api through the socket.
func (s *story) get(token string) (status int) {
	c, err := net.Dial("unix", s.cfg.Socket)
	if err != nil {
		return 0
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(soon))
	fmt.Fprintf(c, "DIAL tcp %s\nGET /api HTTP/1.1\r\nHost: 127.0.0.1:8888\r\nAuthorization: token %s\r\nConnection: close\r\n\r\n", s.cfg.Jupyter.Addr, token)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

func (s *story) wait(t *testing.T) (code int) {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- s.cmd.Wait() }()
	select {
	case <-done:
		return s.cmd.ProcessState.ExitCode()
	case <-time.After(soon):
		t.Fatal("the agent does not end")
		return 0
	}
}

// TestStory: the agent starts, Jupyter answers through the socket to its token
// only, SIGTERM ends both in order, and the exit code is 0.
func TestStory(t *testing.T) {
	s := startStory(t, "")
	waitFor(t, "jupyter answers", func() bool { return s.get("0123456789abcdef") == http.StatusOK })
	if got := s.get("wrong"); got != http.StatusForbidden {
		t.Errorf("a wrong token got %d, want 403", got)
	}
	waitFor(t, "no zombies", func() bool { return !hasZombie(s.cmd.Process.Pid) })
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := s.wait(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	out := s.output.String()
	if !strings.Contains(out, "jupyter says goodbye") || !strings.Contains(out, `"msg":"stopped"`) {
		t.Errorf("output = %s; want a goodbye and then stopped", out)
	}
	if strings.Contains(out, "0123456789abcdef") {
		t.Errorf("the token is in the output: %s", out)
	}
	if _, err := os.Lstat(s.cfg.Socket); err == nil {
		t.Error("the socket is still there")
	}
	for line := range strings.Lines(out) {
		if strings.HasPrefix(line, "{") && !json.Valid([]byte(line)) {
			t.Errorf("log line %q is not JSON", line)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(s.cfg.Socket), "bailey-agent-*")); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestStoryStubborn(t *testing.T) {
	s := startStory(t, "stubborn")
	waitFor(t, "jupyter answers", func() bool { return s.get("0123456789abcdef") == http.StatusOK })
	begin := time.Now()
	if err := s.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := s.wait(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("stopping took %v with a grace of 1 s", took)
	}
	c, err := net.Dial("tcp", s.cfg.Jupyter.Addr)
	if err == nil {
		_ = c.Close()
		t.Error("the stubborn Jupyter is still there")
	}
}

// TestStoryRestart: Jupyter is killed, as the OOM killer does it; the agent
// stays and starts another.
func TestStoryRestart(t *testing.T) {
	s := startStory(t, "")
	waitFor(t, "jupyter answers", func() bool { return s.get("0123456789abcdef") == http.StatusOK })
	pid := s.jupyterPID(t)
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "another jupyter answers", func() bool {
		return strings.Contains(s.output.String(), `"code":137`) && s.get("0123456789abcdef") == http.StatusOK
	})
}

// TestStorySafeMode: a package that breaks Jupyter does not lock its owner out.
func TestStorySafeMode(t *testing.T) {
	s := startStory(t, "broken in the venv")
	waitFor(t, "jupyter answers", func() bool { return s.get("0123456789abcdef") == http.StatusOK })
	out := s.output.String()
	if !strings.Contains(out, "safe mode") || strings.Count(out, `"code":3`) != 2 {
		t.Errorf("output = %s; want two ends with code 3 and a word of safe mode", out)
	}
}

// TestStoryNeverStarts: exit code and time of an image that cannot work.
func TestStoryNeverStarts(t *testing.T) {
	s := startStory(t, "broken")
	if code := s.wait(t); code != 3 {
		t.Errorf("exit code %d, want Jupyter's 3", code)
	}
}

func TestExitCodes(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "agent.json")
	hometest.Write(t, broken, "{", 0o600)
	for _, tt := range []struct {
		args string
		want int
	}{
		{"", exitUsage},
		{"dance", exitUsage},
		{"version", exitOK},
		{"help", exitOK},
		{"run --config " + broken, exitConfig},
		{"run --config /no/such/file", exitConfig},
		{"run extra", exitUsage},
		{"dial tcp 10.0.0.1:80", exitUsage},
		{"dial tcp 127.0.0.1:1", exitFailed},
		{"dial tcp", exitUsage},
		{"sftp --dir /no/such/dir", exitFailed},
	} {
		err := agentCommand(t, strings.Fields(tt.args)...).Run()
		got := 0
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			got = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if got != tt.want {
			t.Errorf("bailey-agent %s: exit code %d, want %d", tt.args, got, tt.want)
		}
	}
}

// TestDialStdio: both half-closes through a real process.
func TestDialStdio(t *testing.T) {
	addr := serveTCP(t, func(c *net.TCPConn) {
		data, _ := io.ReadAll(c)
		_, _ = fmt.Fprintf(c, "you said %s", data)
		_ = c.Close()
	})
	cmd := agentCommand(t, "dial", "tcp", addr)
	cmd.Stdin = strings.NewReader("hello")
	if out, err := cmd.CombinedOutput(); err != nil || string(out) != "you said hello" {
		t.Errorf("dial gave %q, %v; want %q", out, err, "you said hello")
	}
	// The far side ends first: the process ends although stdin stays open.
	addr = serveTCP(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, "bye"); _ = c.Close() })
	cmd = agentCommand(t, "dial", "tcp", addr)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if out, err := cmd.Output(); err != nil || string(out) != "bye" {
		t.Errorf("dial gave %q, %v; want %q", out, err, "bye")
	}
}

// TestSFTP talks to the real process with the real client.
func TestSFTP(t *testing.T) {
	dir := t.TempDir()
	cmd := agentCommand(t, "sftp", "--dir", dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	client, err := sftp.NewClientPipe(out, in)
	if err != nil {
		t.Fatal(err)
	}
	f, err := client.Create("data.csv") // relative: lands in the start directory
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("a,b\n")); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := hometest.Read(t, filepath.Join(dir, "data.csv")); got != "a,b\n" {
		t.Errorf("file = %q", got)
	}
	if wd, err := client.Getwd(); err != nil || wd != dir {
		t.Errorf("start directory = %q, %v; want %q", wd, err, dir)
	}
	// A link's target is what the client says, relative or not.
	if err := client.Mkdir("runs"); err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"latest": "runs", "runs/back": "../data.csv", "far": "/etc/hostname"} {
		if err := client.Symlink(target, link); err != nil {
			t.Errorf("Symlink(%q, %q) = %v", target, link, err)
		} else if got, err := os.Readlink(filepath.Join(dir, link)); err != nil || got != target {
			t.Errorf("the link %s leads to %q, %v; want %q", link, got, err, target)
		}
	}
	_ = client.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("sftp ended with %v, want 0", err)
	}
}

// jupyterPID reads it from the agent's log.
func (s *story) jupyterPID(t *testing.T) int {
	t.Helper()
	for line := range strings.Lines(s.output.String()) {
		var entry struct {
			Msg string
			PID int
		}
		if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg == "jupyter started" {
			return entry.PID
		}
	}
	t.Fatal("no jupyter in the log")
	return 0
}

func hasZombie(parent int) bool {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		if f := strings.Fields(rest); len(f) > 1 && f[0] == "Z" && f[1] == strconv.Itoa(parent) {
			return true
		}
	}
	return false
}
