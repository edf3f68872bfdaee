package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/baileyhq/bailey/e2e/bench/measure"
)

// password measures how many people can sign in, and what memory that takes.
func password(ctx context.Context, b *bench) (r result, err error) {
	dir := filepath.Join(b.work, "password")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return r, err
	}
	const parallel = 64
	length := pick(b, 10*time.Second, time.Second)
	c, err := start(nil, filepath.Join(b.tools, "gwserver"), "signin", "--dir", dir, "--parallel", strconv.Itoa(parallel), "--length", length.String())
	if err != nil {
		return r, err
	}
	defer c.stop()
	if _, err := c.line(ctx, time.Minute); err != nil { // "ready"
		return r, err
	}
	before, err := c.usage()
	if err != nil {
		return r, err
	}
	if _, err := io.WriteString(c.in.(io.Writer), "go\n"); err != nil {
		return r, err
	}
	line, err := c.line(ctx, length+time.Minute)
	if err != nil {
		return r, err
	}
	var got struct {
		OK, Busy int64
		Seconds  float64
	}
	if err := json.Unmarshal([]byte(line), &got); err != nil {
		return r, fmt.Errorf("%q: %w", line, err)
	}
	if got.OK == 0 {
		return r, fmt.Errorf("nobody could sign in: %s", line)
	}
	after, err := c.usage()
	if err != nil {
		return r, err
	}
	r.Rows = []measure.Row{
		{ID: "password.rate", Path: fmt.Sprintf("password sign-ins (argon2id, store, journal), %d at a time, %d cores", parallel, runtime.NumCPU()), Unit: measure.PerSecond, Ours: float64(got.OK) / got.Seconds},
		{ID: "password.cpu", Path: "CPU time of one sign-in", Unit: measure.Seconds, Ours: (after.CPU - before.CPU).Seconds() / float64(got.OK)},
		{ID: "password.busy", Path: "of them told to come back, the queue being full", Unit: measure.Count, Ours: float64(got.Busy)},
		{ID: "password.rss", Path: "resident memory before the crowd", Unit: measure.Bytes, Ours: float64(before.RSS)},
		{ID: "password.peak", Path: "the most resident memory during it", Unit: measure.Bytes, Ours: float64(after.Peak)},
	}
	r.Said = []string{fmt.Sprintf("internal/identity with its real store and journal in a process of its own, the limits on attempts raised out of the way; %d people sign in again and again for %v.", parallel, length)}
	return r, nil
}
