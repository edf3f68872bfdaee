package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/baileyhq/bailey/internal/engine"
)

// maxLogLines is the most that is ever asked of the daemon.
const maxLogLines = 100_000

// Logs implements [engine.Engine]. Standard output and error come in the order
// they were written.
func (e *Engine) Logs(ctx context.Context, id string, tail int, maxBytes int64) ([]byte, error) {
	if tail <= 0 || maxBytes <= 0 {
		return nil, nil
	}
	c, err := e.own(ctx, id)
	if err != nil {
		return nil, err
	}
	stream, err := e.api.ContainerLogs(ctx, c.ID, client.ContainerLogsOptions{
		ShowStdout: true, ShowStderr: true, Tail: strconv.Itoa(min(tail, maxLogLines)),
	})
	if err != nil {
		return nil, wrap("read logs of container "+c.ID, err)
	}
	defer stream.Close() //nolint:errcheck // read only
	newest := &tailBuffer{max: int(min(maxBytes, 64<<20))}
	if _, err := stdcopy.StdCopy(newest, newest, stream); err != nil {
		return nil, wrap("read logs of container "+c.ID, err)
	}
	return newest.lines(), nil
}

// A tailBuffer keeps the newest max bytes written to it.
type tailBuffer struct {
	max int
	buf []byte
	cut bool // something was dropped
}

// Write implements [io.Writer]; it never fails.
func (t *tailBuffer) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*t.max {
		t.trim()
	}
	return len(p), nil
}

func (t *tailBuffer) trim() {
	if over := len(t.buf) - t.max; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
		t.cut = true
	}
}

// lines returns what was kept, without a first line that was cut in two unless
// it is the only one.
func (t *tailBuffer) lines() []byte {
	t.trim()
	if t.cut {
		if i := bytes.IndexByte(t.buf, '\n'); i >= 0 && i+1 < len(t.buf) {
			return t.buf[i+1:]
		}
	}
	return t.buf
}

// Stats implements [engine.Engine]. Memory is what cannot be taken back without
// harm: page cache that the kernel would drop first is not counted.
func (e *Engine) Stats(ctx context.Context, id string) (engine.Usage, error) {
	c, err := e.own(ctx, id)
	if err != nil {
		return engine.Usage{}, err
	}
	if !c.State.Running {
		return engine.Usage{}, fmt.Errorf("stats of container %s: it is not running: %w", c.ID, engine.ErrConflict)
	}
	got, err := e.api.ContainerStats(ctx, c.ID, client.ContainerStatsOptions{})
	if err != nil {
		return engine.Usage{}, wrap("stats of container "+c.ID, err)
	}
	defer got.Body.Close() //nolint:errcheck // read only
	var st container.StatsResponse
	if err := json.NewDecoder(io.LimitReader(got.Body, 1<<20)).Decode(&st); err != nil {
		return engine.Usage{}, wrap("stats of container "+c.ID, err)
	}
	u := engine.Usage{
		CPUNanos:    st.CPUStats.CPUUsage.TotalUsage,
		MemoryBytes: workingSet(st.MemoryStats),
		MemoryLimit: st.MemoryStats.Limit,
		Pids:        st.PidsStats.Current,
	}
	// The daemon does not count OOM kills; the control group does.
	if groups, err := readCgroups(c.State.Pid, c.ID); err == nil {
		u.OOMKills = groups.oomKills()
	}
	return u, nil
}

// workingSet is memory in use without the page cache that was not touched
// lately, as `docker stats` shows it: cgroup v1 and v2 spell it differently.
func workingSet(m container.MemoryStats) uint64 {
	for _, name := range []string{"total_inactive_file", "inactive_file"} {
		if v, ok := m.Stats[name]; ok {
			return m.Usage - min(v, m.Usage)
		}
	}
	return m.Usage
}
