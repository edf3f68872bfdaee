package ssh

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A session is one of bailey sessions ls.
type session struct {
	ID, User, Workspace, Kind, Recording, End string
	EndedAt                                   *time.Time `json:"ended_at"`
	Exit                                      *int
	BytesIn                                   int64 `json:"bytes_in"`
	BytesOut                                  int64 `json:"bytes_out"`
	Viewers                                   []struct{ Name, Did string }
}

func (w *world) sessions(t *testing.T, p *person, args ...string) []session {
	t.Helper()
	out, err := p.CLI(deadline(t, time.Minute), append([]string{"sessions", "ls", "-o", "json"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	var all []session
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return all
}

// rss returns the server's resident memory in bytes.
func (w *world) rss(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", w.s.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(b))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// A client that vanishes in the middle of a transfer leaves nothing running
// inside, and its session ends in the index.
func TestAClientThatVanishes(t *testing.T) {
	w := open(t)
	p := w.admin
	for name, command := range map[string]string{"down": "exec -a vanished-down cat /dev/zero", "up": "exec -a vanished-up cat > /dev/null"} {
		cmd := exec.Command("ssh", append(w.options(p), "-p", strconv.Itoa(w.port), "-T", w.to(p), "bash -c '"+command+"'")...)
		cmd.Stdin, _ = os.Open("/dev/zero")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if name == "down" {
			if _, err := io.CopyN(io.Discard, out, 4<<20); err != nil {
				t.Fatal(err)
			}
		} else {
			until(t, "the transfer runs", func() bool { return w.inside(t, p, "pgrep -f vanished-[u]p || true") != "" })
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		until(t, "nothing of "+name+" runs inside", func() bool { return w.inside(t, p, "pgrep -f vanished-["+name[:1]+"]"+name[1:]+" || true") == "" })
	}
	until(t, "no session lives", func() bool { return len(w.sessions(t, p, "--live", "--kind", "exec")) == 0 })
}

// A container that is killed under a session: the client is told, with an exit
// code that is no success, and the next connection starts the workspace again.
func TestAContainerThatIsKilled(t *testing.T) {
	w := open(t)
	p := w.bob
	done := make(chan outcome, 1)
	ctx := deadline(t, 3*time.Minute)
	go func() { done <- w.ssh(ctx, p, nil, []string{"-T"}, "echo > /workspace/here; sleep 600") }()
	until(t, "the session runs", func() bool { return w.ssh(ctx, p, nil, nil, "test -e /workspace/here").code == 0 })
	ids := run(ctx, nil, "docker", "ps", "-q", "--filter", "label=dev.bailey.owner="+p.Name)
	if strings.TrimSpace(ids.out) == "" {
		// The labels' names are the engine's own business: find it by its process.
		ids = run(ctx, nil, "sh", "-c", `for c in $(docker ps -q --filter label=dev.bailey.instance); do docker top $c | grep -q "sleep 600" && echo $c; done`)
	}
	id := strings.Fields(ids.out)
	if len(id) != 1 {
		t.Fatalf("bob's container: %s", ids)
	}
	if o := run(ctx, nil, "docker", "kill", id[0]); o.code != 0 {
		t.Fatal(o)
	}
	if o := <-done; o.code == 0 || o.code == -1 {
		t.Errorf("the session ended with %s", o)
	}
	until(t, "the workspace is there again", func() bool { return w.ssh(ctx, p, nil, nil, "true").code == 0 })
	w.inside(t, p, "rm -f /workspace/here")
}

// A crowd: many sessions at once of two people, over a few connections each.
// All get their own answer.
func TestACrowd(t *testing.T) {
	w := open(t)
	n := sized(200, 60)
	var wg sync.WaitGroup
	for _, p := range []*person{w.admin, w.bob} {
		var masters []*master
		for range 2 {
			masters = append(masters, w.master(t, p))
		}
		ctx := deadline(t, 5*time.Minute)
		for i := range n / 2 {
			wg.Go(func() {
				want := fmt.Sprintf("%s %d", p.Name, i)
				if o := masters[i%2].ssh(ctx, strings.NewReader(want), "cat; sleep 2"); o.code != 0 || o.out != want {
					t.Errorf("session %s: %s", want, o)
				}
			})
		}
	}
	wg.Wait()
}

// Strangers who connect and never sign in take little memory and keep nobody
// out.
func TestStrangersWhoNeverSignIn(t *testing.T) {
	w := open(t)
	before := w.rss(t)
	var mu sync.Mutex
	var open []net.Conn
	defer func() {
		for _, c := range open {
			c.Close()
		}
	}()
	n := sized(10_000, 1_000)
	var wg sync.WaitGroup
	gate := make(chan struct{}, 64)
	for i := range n {
		wg.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			// From many addresses, as a botnet would.
			d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 1, byte(i>>8), byte(i))}}
			c, err := d.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", w.port))
			if err != nil {
				return // refused is fine
			}
			switch i % 3 {
			case 0:
				_, _ = io.WriteString(c, "SSH-2.0-slow\r\n")
			case 1:
				_, _ = c.Write(bytes.Repeat([]byte("x"), 4096))
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
		})
	}
	// Somebody from elsewhere signs in meanwhile. Early drop is by chance: a
	// client tries again, as people do.
	o := outcome{code: -1}
	for range 20 {
		if o = w.ssh(deadline(t, time.Minute), w.admin, nil, []string{"-b", "127.0.0.99"}, "echo in"); o.code == 0 {
			break
		}
	}
	if o.code != 0 || o.out != "in\n" {
		t.Errorf("somebody who signs in among %d who do not: %s", n, o)
	}
	wg.Wait()
	if grown := w.rss(t) - before; grown > 128<<20 {
		t.Errorf("%d strangers took %d MiB", n, grown>>20)
	}
}

// ssh-audit finds nothing to fail and nothing to warn of.
func TestSSHAudit(t *testing.T) {
	w := open(t)
	o := run(deadline(t, 2*time.Minute), nil, "ssh-audit", "-n", "--skip-rate-test", "-p", strconv.Itoa(w.port), "127.0.0.1")
	if strings.Contains(o.errs, "unrecognized") || strings.Contains(o.out, "usage:") {
		o = run(deadline(t, 2*time.Minute), nil, "ssh-audit", "-n", "-p", strconv.Itoa(w.port), "127.0.0.1")
	}
	if !strings.Contains(o.out, "(key)") {
		t.Fatalf("ssh-audit did not look: %s", o)
	}
	for line := range strings.Lines(o.out) {
		// What an older ssh-audit does not know it says is unknown; that is no finding.
		if (strings.Contains(line, "[fail]") || strings.Contains(line, "[warn]")) && !strings.Contains(line, "unknown algorithm") {
			t.Errorf("ssh-audit: %s", strings.TrimSpace(line))
		}
	}
}

// A terminal's session is recorded as it looked, masked; an administrator sees
// it, watches it, ends it, replays it; a colleague does not; its owner learns
// who looked.
func TestRecordWatchReplayKill(t *testing.T) {
	w := open(t)
	p := w.bob
	cmd := exec.Command("ssh", append(w.options(p), "-p", strconv.Itoa(w.port), "-tt", w.to(p))...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var shown bytes.Buffer
	cmd.Stdout, cmd.Stderr = &shown, &shown
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var one session
	until(t, "the session is listed", func() bool {
		for _, s := range w.sessions(t, w.admin, "--all", "--live", "--kind", "shell", "--user", "bob") {
			one = s
		}
		return one.ID != ""
	})
	if mine := w.sessions(t, w.admin, "--live", "--kind", "shell"); len(mine) != 0 {
		t.Errorf("the administrator's own sessions: %+v", mine)
	}

	watch := exec.Command(w.s.Bin, "sessions", "watch", one.ID)
	watch.Env = append(os.Environ(), "BAILEY_PROFILE="+w.admin.Profile)
	watching, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	until(t, "the journal has the watching", func() bool {
		out, err := w.admin.CLI(t.Context(), "audit", "search", "--action", "ssh.watch", "-o", "json")
		return err == nil && strings.Contains(out, one.ID)
	})
	if _, err := io.WriteString(in, "printf 'a token: %s%s \\033]52;c;AAAA\\007\\n' "+canaryA+" "+canaryB+"; echo mark-$((40+2))\n"); err != nil {
		t.Fatal(err)
	}
	seen, buf := "", make([]byte, 4096)
	for !strings.Contains(seen, "mark-42") {
		n, err := watching.Read(buf)
		seen += string(buf[:n])
		if err != nil {
			t.Fatalf("watching ended: %v after %q", err, seen)
		}
	}
	if strings.Contains(seen, "\x1b]52") || strings.Contains(seen, canaryA+canaryB) {
		t.Errorf("the watcher was shown %q", seen)
	}

	ctx := deadline(t, time.Minute)
	if _, err := w.admin.CLI(ctx, "sessions", "kill", one.ID); err != nil {
		t.Error(err)
	}
	begin := time.Now()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("a session that was ended exits as if all were well")
		}
		t.Logf("ended after %v: %.300s", time.Since(begin), shown.String())
	case <-time.After(30 * time.Second):
		t.Error("the session goes on after it was ended")
		_ = cmd.Process.Kill()
	}
	_ = watch.Wait()
	until(t, "the session has ended in the index", func() bool {
		return len(w.sessions(t, w.admin, "--all", "--live", "--kind", "shell", "--user", "bob")) == 0
	})
	replay, err := w.admin.CLI(ctx, "sessions", "replay", one.ID, "--speed", "0")
	if err != nil || !strings.Contains(replay, "mark-42") || strings.Contains(replay, canaryA+canaryB) || strings.Contains(replay, "\x1b]52") {
		t.Errorf("the replay shows %q, %v", replay, err)
	}
	out, err := p.CLI(ctx, "sessions", "show", one.ID)
	if err != nil || !strings.Contains(out, "watched") || !strings.Contains(out, "by admin") {
		t.Errorf("bob is told %q, %v", out, err)
	}
	own := w.ssh(ctx, w.admin, nil, nil, "true")
	if own.code != 0 {
		t.Fatal(own)
	}
	for _, s := range w.sessions(t, w.admin) {
		if _, err := p.CLI(ctx, "sessions", "show", s.ID); err == nil {
			t.Errorf("bob sees the administrator's session %s", s.ID)
		}
		break
	}
}

// What sftp carried is in the recording, by name, size and direction.
func TestFilesAreInTheRecording(t *testing.T) {
	w := open(t)
	p := w.admin
	local := filepath.Join(t.TempDir(), "named.bin")
	file(t, local, 123_456)
	if o := run(deadline(t, time.Minute), nil, "scp", append(w.options(p), "-P", strconv.Itoa(w.port), local, w.to(p)+":/workspace/named.bin")...); o.code != 0 {
		t.Fatal(o)
	}
	var one session
	until(t, "the sftp session has ended", func() bool {
		for _, s := range w.sessions(t, p, "--kind", "sftp", "--limit", "1") {
			one = s
		}
		return one.EndedAt != nil
	})
	cast := filepath.Join(t.TempDir(), "x.cast")
	if _, err := p.CLI(deadline(t, time.Minute), "sessions", "export", one.ID, "--output", cast); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(cast)
	if err != nil || !bytes.Contains(b, []byte("sftp.write up /workspace/named.bin bytes 123456")) {
		t.Errorf("the recording: %s, %v", b, err)
	}
	w.inside(t, p, "rm /workspace/named.bin")
}

// Somebody fills the disk of the recordings: what is open of a class that must
// be recorded ends, nothing new begins, and when there is room again all is
// well.
func TestAFullDiskOfRecordings(t *testing.T) {
	w := open(t)
	p := w.admin
	ctx := deadline(t, 5*time.Minute)
	// Noise in a terminal, so that the recording grows until it sees the disk.
	// Its input stays open, as a keyboard's does.
	keyboard, typing, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer keyboard.Close()
	defer typing.Close()
	done := make(chan outcome, 1)
	go func() {
		done <- w.ssh(ctx, p, keyboard, []string{"-tt"}, "while :; do head -c 65536 /dev/urandom | base64; done")
	}()
	until(t, "it is recorded", func() bool {
		select {
		case o := <-done:
			t.Fatalf("the session ended before the disk was full: exit %d, %.300q … %q", o.code, o.errs, o.out[max(0, len(o.out)-300):])
		default:
		}
		return len(w.sessions(t, p, "--live", "--kind", "exec")) > 0
	})
	full := filepath.Join(w.recordings(), "ballast")
	defer os.Remove(full)
	if o := run(ctx, nil, "dd", "if=/dev/zero", "of="+full, "bs=1M", "count=200"); o.code != 0 {
		t.Logf("ballast: %s", o) // the disk may be full before
	}
	select {
	case o := <-done:
		if o.code == 0 || !strings.Contains(o.out+o.errs, "record") {
			t.Errorf("the session ended with exit %d, last words %q", o.code, (o.out + o.errs)[max(0, len(o.out+o.errs)-200):])
		}
	case <-ctx.Done():
		t.Fatal("the session goes on, unrecorded")
	}
	if o := w.ssh(ctx, p, nil, nil, "echo unseen"); o.code == 0 || strings.Contains(o.out, "unseen") || !strings.Contains(o.errs, "record") {
		t.Errorf("an unrecorded session: %s", o)
	}
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	if out, err := w.admin.CLI(ctx, "audit", "search", "--action", "recording.cut", "-o", "json"); err != nil || !strings.Contains(out, "disk_full") {
		t.Errorf("the journal has %s, %v", out, err)
	}
	if o := w.ssh(ctx, p, nil, nil, "echo seen"); o.code != 0 || o.out != "seen\n" {
		t.Errorf("with room again: %s", o)
	}
}
