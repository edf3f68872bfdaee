package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey/internal/engine"
)

// agentConfig is the file the agent reads inside; internal/agent has the other
// end of it.
type agentConfig struct {
	Socket  string       `json:"socket"`
	Jupyter agentJupyter `json:"jupyter"`
	Home    string       `json:"home"`
	Venv    string       `json:"venv"`
	User    string       `json:"user"`
	Egress  *agentEgress `json:"egress,omitempty"`
}

type agentEgress struct {
	Listen string `json:"listen"`
	Socket string `json:"socket"`
	Notice string `json:"notice"`
}

type agentJupyter struct {
	Addr      string `json:"addr"`
	BasePath  string `json:"base_path"`
	TokenFile string `json:"token_file"`
	Root      string `json:"root"`
}

// makeRunDir writes a run's directory: conf, which is ours and read-only
// inside, and sock, which is the tenant's. What was there before is removed.
func (e *Engine) makeRunDir(ctx context.Context, s engine.Spec) (err error) {
	if err := removeTree(ctx, e.runs, s.Run); err != nil {
		return err
	}
	run, err := makeDirAt(e.runs, s.Run, 0o700, -1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, run.Close()) }()
	sock, err := makeDirAt(run, sockDir, 0o700, s.UID)
	if err != nil {
		return err
	}
	if err := sock.Close(); err != nil {
		return err
	}
	if s.Network == engine.NetworkProxied {
		out, err := makeDirAt(run, egressDir, 0o755, -1)
		if err != nil {
			return err
		}
		if err := out.Close(); err != nil {
			return err
		}
	}
	conf, err := makeDirAt(run, confDir, 0o755, -1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conf.Close()) }()
	if err := writeFileAt(conf, "passwd", passwd(s.Name, s.UID), 0o444, 0); err != nil {
		return err
	}
	if err := writeFileAt(conf, "group", group(s.Name, s.UID), 0o444, 0); err != nil {
		return err
	}
	if err := writeFileAt(conf, "resolv.conf", []byte(resolvConf), 0o444, 0); err != nil {
		return err
	}
	return writeAgentConf(conf, s)
}

// writeAgentConf writes what becomes /etc/bailey. The token's file is the
// tenant's to read and nobody's to write; the directory it lies in is root's.
func writeAgentConf(conf *os.File, s engine.Spec) (err error) {
	dir, err := makeDirAt(conf, agentDir, 0o755, -1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	var out *agentEgress
	if s.Network == engine.NetworkProxied {
		out = &agentEgress{Listen: engine.EgressAddr, Socket: engine.EgressSocket, Notice: engine.EgressNotice}
	}
	text, err := json.MarshalIndent(agentConfig{
		Socket: engine.AgentSocket,
		Jupyter: agentJupyter{
			Addr: engine.JupyterAddr, BasePath: s.BasePath, TokenFile: engine.TokenFile, Root: engine.HomeDir,
		},
		Home: engine.HomeDir, Venv: engine.VenvDir, User: s.Name, Egress: out,
	}, "", "\t")
	if err != nil {
		return err
	}
	if err := writeFileAt(dir, filepath.Base(engine.AgentConfig), append(text, '\n'), 0o444, 0); err != nil {
		return err
	}
	if err := writeSecrets(dir, s); err != nil {
		return err
	}
	return writeFileAt(dir, filepath.Base(engine.TokenFile), []byte(s.JupyterToken.Reveal()), 0o400, s.UID)
}

// writeSecrets writes the secrets' files. They are the tenant's to read; the
// directory is root's, so they cannot be replaced from inside.
func writeSecrets(conf *os.File, s engine.Spec) (err error) {
	if len(s.Secrets) == 0 {
		return nil
	}
	dir, err := makeDirAt(conf, filepath.Base(engine.SecretsFrom), 0o755, -1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	for _, name := range slices.Sorted(maps.Keys(s.Secrets)) {
		if err := writeFileAt(dir, name, []byte(s.Secrets[name].Reveal()), 0o400, s.UID); err != nil {
			return err
		}
	}
	return nil
}

// resolvConf names no server, so that a lookup inside fails at once: it asks
// the workspace's own loopback, where nobody answers.
const resolvConf = "# There is no resolver in here. The server resolves the names of connections that it allows.\noptions timeout:1 attempts:1\n"

// passwd gives the tenant a name: PyTorch and many others fail for a uid
// without one. A tenant who is called like a system account replaces its line;
// the number is what the kernel looks at.
func passwd(name string, uid int) []byte {
	lines := []string{}
	for _, l := range []string{"root:x:0:0:root:/root:/usr/sbin/nologin", "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin"} {
		if !strings.HasPrefix(l, name+":") {
			lines = append(lines, l)
		}
	}
	lines = append(lines, fmt.Sprintf("%s:x:%d:%d:%s:%s:/bin/bash", name, uid, uid, name, engine.HomeDir))
	return []byte(strings.Join(lines, "\n") + "\n")
}

func group(name string, gid int) []byte {
	lines := []string{}
	for _, l := range []string{"root:x:0:", "tty:x:5:", "nogroup:x:65534:"} {
		if !strings.HasPrefix(l, name+":") {
			lines = append(lines, l)
		}
	}
	lines = append(lines, fmt.Sprintf("%s:x:%d:", name, gid))
	return []byte(strings.Join(lines, "\n") + "\n")
}

// noteContainer records which container a run's directory belongs to, so that
// the directory can be found when the container is already gone.
func (e *Engine) noteContainer(run, id string) error {
	dir, err := openDirAt(e.runs, run)
	if err != nil {
		return err
	}
	return errors.Join(writeFileAt(dir, idFile, []byte(id), 0o400, 0), dir.Close())
}

// noted returns the id of the container that a run's directory belongs to, or
// "" when there is no such note.
func (e *Engine) noted(run string) string {
	if engine.CheckID("run", run) != nil { // a label: it may be anybody's text
		return ""
	}
	id, err := readSmall(e.runs, run+"/"+idFile)
	if err != nil {
		return ""
	}
	return id
}

// runOf returns the run whose directory says that it belongs to container id,
// or "".
func (e *Engine) runOf(id string) (string, error) {
	dir, err := openDirAt(e.runs, ".")
	if err != nil {
		return "", err
	}
	defer dir.Close() //nolint:errcheck // a directory, read only
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return "", err
	}
	for _, name := range names {
		if id != "" && e.noted(name) == id {
			return name, nil
		}
	}
	return "", nil
}

// readSmall reads a short file of ours.
func readSmall(dir *os.File, name string) (string, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: filepath.Join(dir.Name(), name), Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close() //nolint:errcheck // read only
	text, err := io.ReadAll(io.LimitReader(f, 1<<20))
	return string(text), err
}
