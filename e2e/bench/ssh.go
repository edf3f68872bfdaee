package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/baileyhq/bailey/e2e/bench/measure"
	"github.com/baileyhq/bailey/e2e/drive"
)

// sshCipher is what both sides speak: the fastest that both have.
const sshCipher = "aes128-gcm@openssh.com"

// A remote is an SSH server that OpenSSH's client is measured against.
type remote struct {
	to   []string // arguments of ssh that lead there
	dir  string
	took map[string]measure.Samples // by kind
}

// sshDoor measures OpenSSH's client on bailey's SSH door into a workspace, and
// on OpenSSH's own sshd on this machine, in turns.
func sshDoor(ctx context.Context, b *bench) (r result, err error) {
	port, err := drive.Port()
	if err != nil {
		return r, err
	}
	b.extra = fmt.Sprintf("listen: {ssh: \"127.0.0.1:%d\"}\n", port)
	defer func() { b.extra = "" }()
	s, err := b.startBailey(ctx, "ssh")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	dir := filepath.Join(b.work, "ssh")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return r, err
	}
	key := filepath.Join(dir, "key")
	for _, name := range []string{key, filepath.Join(dir, "host")} {
		if out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", name).CombinedOutput(); err != nil {
			return r, fmt.Errorf("make a key: %w: %s", err, out)
		}
	}
	pub, err := os.ReadFile(key + ".pub")
	if err != nil {
		return r, err
	}
	admin := s.Person("admin", s.Admin)
	if err := admin.Login(ctx); err != nil {
		return r, err
	}
	status, answer, err := admin.API(ctx, http.MethodPost, s.URL+"/api/v1/me/ssh-keys", map[string]string{"name": "bench", "key": strings.TrimSpace(string(pub))})
	if err != nil || status != http.StatusCreated {
		return r, fmt.Errorf("add a key: %d %s: %w", status, answer, err)
	}
	if _, err := admin.CLI(ctx, "run", "notebook", "--name", "bench"); err != nil {
		return r, err
	}
	theirs, err := drive.Port()
	if err != nil {
		return r, err
	}
	stop, err := startSSHD(ctx, dir, theirs)
	if err != nil {
		return r, err
	}
	defer stop()
	at := func(user string, port int) *remote {
		return &remote{dir: dir, took: map[string]measure.Samples{}, to: []string{
			"-F", "none", "-i", key, "-c", sshCipher, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no",
			"-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-p", strconv.Itoa(port), "-T", user + "@127.0.0.1",
		}}
	}
	ours, peer := at("admin+bench", port), at("root", theirs)
	size, rounds, small := pick(b, int64(256<<20), 32<<20), pick(b, 5, 1), pick(b, 40, 2)
	for i := range rounds {
		pair := []*remote{ours, peer}
		if i%2 == 1 {
			pair[0], pair[1] = pair[1], pair[0]
		}
		for _, w := range pair {
			if err := w.measure(ctx, size, small); err != nil {
				return r, fmt.Errorf("%v: %w", w.to[len(w.to)-1], err)
			}
		}
	}
	bulk := func(id, path string) {
		rate := func(w *remote) float64 { return float64(size) / (1 << 20) / w.took[id].Median() }
		r.Rows = append(r.Rows, measure.Row{
			ID: "ssh." + id, Path: path, Unit: measure.PerSecond, Ours: rate(ours), Peer: new(rate(peer)),
			Budget: measure.Budget{Kind: measure.Times, Limit: 0.9},
		})
	}
	bulk("up", "256 MiB into a workspace over ssh, "+sshCipher+", MiB")
	bulk("down", "the same out of it, MiB")
	for _, row := range [][2]string{
		{"handshake", "a connection with its sign-in, and the command true"},
		{"exec", "the command true in a connection that is there"},
	} {
		r.Rows = append(r.Rows, measure.Row{
			ID: "ssh." + row[0], Path: row[1], Unit: measure.Seconds, Ours: ours.took[row[0]].Median(), Peer: new(peer.took[row[0]].Median()),
		})
	}
	r.Said = []string{fmt.Sprintf("OpenSSH's client on bailey up, whose door carries the bytes through the filter and the agent into a container, and on OpenSSH's sshd on the same machine, which starts the command on the host: %d rounds of %s each way, and %d connections and commands a round, in turns. The client shares the cores.", rounds, measure.Bytes.Format(float64(size)), small)}
	return r, nil
}

// startSSHD starts OpenSSH's server with a configuration of its own.
func startSSHD(ctx context.Context, dir string, port int) (stop func(), err error) {
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil { //nolint:gosec // where sshd separates its privileges
		return nil, err
	}
	conf := filepath.Join(dir, "sshd_config")
	text := fmt.Sprintf("Port %d\nListenAddress 127.0.0.1\nHostKey %s\nAuthorizedKeysFile %s\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nPidFile none\nMaxStartups 100\n",
		port, filepath.Join(dir, "host"), filepath.Join(dir, "key.pub"))
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "/usr/sbin/sshd", "-D", "-e", "-f", conf)
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start sshd (scripts/deps.sh --test installs it): %w", err)
	}
	return func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }, nil
}

// ssh runs a command there.
func (w *remote) ssh(ctx context.Context, in io.Reader, command string, flags ...string) error {
	cmd := exec.CommandContext(ctx, "ssh", append(append(flags, w.to...), command)...)
	var said strings.Builder
	cmd.Stdin, cmd.Stderr = in, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("ssh %s: %w: %s", command, err, said.String())
	}
	return nil
}

// timed adds how long do takes.
func (w *remote) timed(kind string, do func() error) error {
	begin := time.Now()
	err := do()
	w.took[kind] = append(w.took[kind], time.Since(begin).Seconds())
	return err
}

// measure is one round.
func (w *remote) measure(ctx context.Context, size int64, small int) error {
	var err error
	for deadline := time.Now().Add(10 * time.Second); ; { // a server that just begins
		if err = w.ssh(ctx, nil, "true"); err == nil || time.Now().After(deadline) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err != nil {
		return err
	}
	zero, err := os.Open("/dev/zero")
	if err != nil {
		return err
	}
	defer zero.Close()
	if err := w.timed("up", func() error { return w.ssh(ctx, io.LimitReader(zero, size), "cat > /dev/null") }); err != nil {
		return err
	}
	if err := w.timed("down", func() error { return w.ssh(ctx, nil, fmt.Sprintf("head -c %d /dev/zero", size)) }); err != nil {
		return err
	}
	for range small {
		if err := w.timed("handshake", func() error { return w.ssh(ctx, nil, "true") }); err != nil {
			return err
		}
	}
	socket := filepath.Join(w.dir, "m")
	if err := w.ssh(ctx, nil, "true", "-M", "-S", socket, "-o", "ControlPersist=60"); err != nil {
		return err
	}
	for range small {
		if err := w.timed("exec", func() error { return w.ssh(ctx, nil, "true", "-S", socket) }); err != nil {
			return err
		}
	}
	return exec.CommandContext(ctx, "ssh", "-F", "none", "-S", socket, "-O", "exit", "x").Run()
}
