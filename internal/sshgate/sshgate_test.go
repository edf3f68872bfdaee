package sshgate_test

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/baileyhq/bailey/internal/audit"
)

func TestACommandRunsInOnesOwnWorkspace(t *testing.T) {
	w := newWorld(t, nil)
	for _, name := range []string{"ada", "bob"} {
		out, errs, err := run(t, w.client(name), "echo $USER; pwd; echo to-stderr >&2; exit 7", "")
		if exitCode(err) != 7 || out != name+"\n"+w.rooms.home(name)+"\n" || errs != "to-stderr\n" {
			t.Errorf("%s: %q, %q, %v", name, out, errs, err)
		}
	}
	if got := w.journal.count(audit.SSHSession); got != 2 {
		t.Errorf("%d sessions are in the journal, want 2", got)
	}
	// Somebody else's workspace cannot be named: the name is looked for among one's own.
	c, err := w.try("ada+lab", w.people.signers["ada"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if out, _, err := run(t, c, "echo $USER", ""); err != nil || out != "ada\n" {
		t.Errorf("ada+lab: %q, %v", out, err)
	}
	c, err = w.try("ada+other", w.people.signers["ada"])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, errs, err := run(t, c, "true", ""); exitCode(err) != 255 || !strings.Contains(errs, "you have no workspace other") || !strings.Contains(errs, "lab") {
		t.Errorf("ada+other: %q, %v; want words and 255", errs, err)
	}
}

func TestExitCodesAndSignals(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client("ada")
	for _, code := range []int{0, 1, 2, 126, 127, 128, 137, 254, 255} {
		if _, _, err := run(t, c, "exit "+strconv.Itoa(code), ""); exitCode(err) != code {
			t.Errorf("exit %d came back as %v", code, err)
		}
	}
	_, _, err := run(t, c, "kill -TERM $$", "")
	e, ok := err.(*ssh.ExitError) //nolint:errorlint // the client's own
	if !ok || e.Signal() != "TERM" {
		t.Errorf("kill -TERM: %v, want exit-signal TERM", err)
	}
	s := session(t, c)
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("trap 'echo caught; exit 3' USR1; echo ready; while :; do sleep 0.05; done"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 6)
	if _, err := io.ReadFull(out, buf); err != nil || string(buf) != "ready\n" {
		t.Fatalf("%q, %v", buf, err)
	}
	if err := s.Signal(ssh.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(out)
	if err := s.Wait(); exitCode(err) != 3 || string(rest) != "caught\n" {
		t.Errorf("after USR1: %q, %v", rest, err)
	}
}

func TestHalfCloseAndLargeTransfers(t *testing.T) {
	w := newWorld(t, nil)
	c := w.client("ada")
	if out, _, err := run(t, c, "wc -c; echo after", strings.Repeat("x", 100_000)); err != nil || strings.Fields(out)[0] != "100000" || !strings.HasSuffix(out, "after\n") {
		t.Errorf("%q, %v", out, err)
	}
	data := make([]byte, 24<<20)
	_, _ = rand.Read(data)
	s := session(t, c)
	var out bytes.Buffer
	s.Stdin, s.Stdout = bytes.NewReader(data), &out
	if err := s.Run("cat"); err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(out.Bytes()) != sha256.Sum256(data) {
		t.Errorf("%d bytes came back as %d others", len(data), out.Len())
	}
	// A command that does not read its input can still be signalled, and ends.
	s = session(t, c)
	s.Stdin = bytes.NewReader(data)
	if err := s.Start("sleep 1000"); err != nil {
		t.Fatal(err)
	}
	if err := s.Signal(ssh.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := s.Wait(); err == nil {
		t.Error("a killed command ended well")
	}
}

func TestATerminal(t *testing.T) {
	w := newWorld(t, nil)
	s := session(t, w.client("ada"))
	if err := s.RequestPty("xterm-256color", 30, 100, ssh.TerminalModes{ssh.ECHO: 0}); err != nil {
		t.Fatal(err)
	}
	if err := s.Setenv("LC_TEST", "yes"); err != nil {
		t.Errorf("LC_TEST is refused: %v", err)
	}
	if err := s.Setenv("LD_PRELOAD", "/tmp/x.so"); err == nil {
		t.Error("LD_PRELOAD may be set")
	}
	in, _ := s.StdinPipe()
	out, _ := s.StdoutPipe()
	if err := s.Start("tty; echo $TERM $LC_TEST; stty size; read x; stty size; echo got $x"); err != nil {
		t.Fatal(err)
	}
	text := readUntil(t, out, "30 100\r\n")
	if !strings.Contains(text, "/dev/pts/") || !strings.Contains(text, "xterm-256color yes") {
		t.Errorf("the terminal says %q", text)
	}
	if err := s.WindowChange(40, 120); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(in, "hello\n")
	if rest := readUntil(t, out, "got hello\r\n"); !strings.HasPrefix(rest, "40 120\r\n") {
		t.Errorf("after a change of size and without echo: %q", rest)
	}
	if err := s.Wait(); err != nil {
		t.Error(err)
	}
	within(t, "typing touches the workspace", func() bool { return w.rooms.touches("ada") > 0 })
}

func readUntil(t *testing.T, r io.Reader, mark string) string {
	t.Helper()
	var text strings.Builder
	buf := make([]byte, 1)
	for !strings.HasSuffix(text.String(), mark) {
		if _, err := r.Read(buf); err != nil {
			t.Fatalf("%v after %q, want %q", err, text.String(), mark)
		}
		text.Write(buf)
	}
	return text.String()
}

func TestALoginShell(t *testing.T) {
	w := newWorld(t, nil)
	s := session(t, w.client("ada"))
	in, _ := s.StdinPipe()
	out, _ := s.StdoutPipe()
	if err := s.Shell(); err != nil {
		t.Fatal(err)
	}
	// As VS Code does: a script on standard input, no terminal, no echo.
	fmt.Fprint(in, "shopt -q login_shell && echo login\nuname -s\nexit 4\n")
	text, _ := io.ReadAll(out)
	if err := s.Wait(); exitCode(err) != 4 || string(text) != "login\nLinux\n" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestWhenTheClientVanishesWhatItRanEnds(t *testing.T) {
	w := newWorld(t, nil)
	pids := filepath.Join(w.rooms.home("ada"), "pids")
	for _, tty := range []bool{false, true} {
		_ = os.Remove(pids)
		c := w.client("ada")
		s := session(t, c)
		if tty {
			if err := s.RequestPty("xterm", 24, 80, nil); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Start("sleep 1001 & echo $! >> pids; sh -c 'echo $$ >> pids; sleep 1002'"); err != nil {
			t.Fatal(err)
		}
		within(t, "both run", func() bool { b, _ := os.ReadFile(pids); return bytes.Count(b, []byte("\n")) == 2 })
		_ = c.Close()
		list, _ := os.ReadFile(pids)
		for pid := range strings.FieldsSeq(string(list)) {
			within(t, "process "+pid+" is gone", func() bool { _, err := os.Stat("/proc/" + pid); return err != nil })
		}
	}
}

func TestRevokingAndStoppingEndWhatIsOpen(t *testing.T) {
	for name, act := range map[string]func(*world){
		"the key is revoked":       func(w *world) { w.people.end("ada") },
		"the workspace is stopped": func(w *world) { w.rooms.stop("ada") },
		"an administrator ends it": func(w *world) {
			for _, s := range w.gate.Live().List() {
				if s.User == "ada" && s.Kind == "connection" {
					w.gate.Live().Kill(s.ID, "ended by root")
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, nil)
			ada, bob := w.client("ada"), w.client("bob")
			pid := filepath.Join(w.rooms.home("ada"), "pid")
			s := session(t, ada)
			var errs bytes.Buffer
			s.Stderr = &errs
			if err := s.Start("echo $$ > pid; exec sleep 1003"); err != nil {
				t.Fatal(err)
			}
			within(t, "it runs", func() bool { b, _ := os.ReadFile(pid); return len(b) > 0 })
			act(w)
			if err := s.Wait(); err == nil {
				t.Error("the session ended well")
			}
			_ = ada.Wait()
			if !strings.Contains(errs.String(), "bailey: ") {
				t.Errorf("nobody said why: %q", errs.String())
			}
			number, _ := os.ReadFile(pid)
			within(t, "its process is gone", func() bool {
				_, err := os.Stat("/proc/" + strings.TrimSpace(string(number)))
				return err != nil
			})
			if out, _, err := run(t, bob, "echo still here", ""); err != nil || out != "still here\n" {
				t.Errorf("bob: %q, %v", out, err)
			}
		})
	}
}
