package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/e2e/bench/measure"
	"github.com/baileyhq/bailey/internal/audit"
)

// auditAppend measures durable appends to the journal, in turns with what the
// disk itself can do: one write of the same size and one fdatasync.
func auditAppend(ctx context.Context, b *bench) (r result, err error) {
	dir := filepath.Join(b.work, "audit")
	j, err := audit.Open(audit.Config{Dir: filepath.Join(dir, "journal"), Log: b.log})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	size, err := lineSize(ctx, j, filepath.Join(dir, "journal"))
	if err != nil {
		return r, err
	}
	length := pick(b, 3*time.Second, 300*time.Millisecond)
	rounds := pick(b, 5, 1)
	writers := []int{1, 64, 512}
	rate, wait := map[int]measure.Samples{}, map[int]measure.Samples{}
	var disk, diskAgain measure.Samples
	for range rounds {
		for _, n := range writers {
			if err := b.settle(ctx); err != nil {
				return r, err
			}
			took, elapsed, err := appends(ctx, j, n, length)
			if err != nil {
				return r, err
			}
			rate[n] = append(rate[n], float64(len(took))/elapsed.Seconds())
			wait[n] = append(wait[n], took...)
		}
		if err := b.settle(ctx); err != nil {
			return r, err
		}
		took, err := syncs(ctx, filepath.Join(dir, "plain"), size, length)
		if err != nil {
			return r, err
		}
		disk = append(disk, took...)
		// And with as much as 64 writers have waiting: syncing more takes longer.
		if took, err = syncs(ctx, filepath.Join(dir, "plain64"), 64*size, length); err != nil {
			return r, err
		}
		diskAgain = append(diskAgain, took...)
	}
	per := func(n int) float64 { return rate[n].Median() }
	ceiling := 64 / diskAgain.Median()
	why := fmt.Sprintf("Each of 64 writers waits for its own event, so no more than 64 can share a sync; a write and fdatasync of 64 lines takes %s on this disk, which alone bounds the rate at %s.",
		measure.Seconds.Format(diskAgain.Median()), measure.PerSecond.Format(ceiling))
	r.Rows = []measure.Row{
		{ID: "audit.many", Path: fmt.Sprintf("durable audit append, 64 writers (median of %d rounds)", rounds), Unit: measure.PerSecond, Ours: per(64), Peer: new(ceiling), Budget: measure.Budget{Kind: measure.AtLeast, Limit: 100_000}, Why: why},
		{
			ID: "audit.alone", Path: fmt.Sprintf("durable audit append, alone, p50 (n = %d)", len(wait[1])), Unit: measure.Seconds, Ours: wait[1].Median(), Peer: new(disk.Median()),
			Budget: measure.Budget{Kind: measure.AtMost, Limit: 1e-3},
			Why:    fmt.Sprintf("A bare write and fdatasync of the same %d bytes takes %s.", size, measure.Seconds.Format(disk.Median())),
		},
		{ID: "audit.alone.p99", Path: "durable audit append, alone, p99", Unit: measure.Seconds, Ours: wait[1].Quantile(0.99), Peer: new(disk.Quantile(0.99))},
		{ID: "audit.many.p50", Path: fmt.Sprintf("durable audit append, 64 writers, p50 (n = %d)", len(wait[64])), Unit: measure.Seconds, Ours: wait[64].Median()},
		{ID: "audit.crowd", Path: "durable audit append, 512 writers", Unit: measure.PerSecond, Ours: per(512)},
	}
	r.Said = []string{
		fmt.Sprintf("internal/audit on the disk that holds the repository (%s), lines of about %d bytes, every Append returning after its fdatasync.", fsType(b.work), size),
		"The peer is the disk: a write and fdatasync of the same bytes to a plain file, one line for the lone writer, 64 lines for 64.",
	}
	return r, nil
}

func event(i int) audit.Event {
	return audit.Event{
		Actor:  audit.Actor{ID: "01jd000000000000000000user", Name: "alice", Method: "password", Session: "01jd00000000000000000sess", IP: "192.0.2.7"},
		Action: audit.Opened, Target: audit.Target{Kind: "workspace", ID: bailey.NewID(), Name: "work"},
		Outcome: audit.Success, Attrs: audit.Attrs{Class: "pytorch", Count: int64(i)},
	}
}

// lineSize returns how many bytes an event takes in the journal.
func lineSize(ctx context.Context, j *audit.Journal, dir string) (int, error) {
	const n = 100
	for i := range n {
		if err := j.Append(ctx, event(i)); err != nil {
			return 0, err
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("the journal has no file in %s (%w)", dir, err)
	}
	var sum int64
	for _, f := range files {
		fi, err := os.Stat(f)
		if err != nil {
			return 0, err
		}
		sum += fi.Size()
	}
	return int(sum / n), nil
}

// appends lets n writers append one event after the other for a while and
// returns how long each waited.
func appends(ctx context.Context, j *audit.Journal, n int, length time.Duration) (measure.Samples, time.Duration, error) {
	took := make([]measure.Samples, n)
	errs := make([]error, n)
	var g sync.WaitGroup
	begin := time.Now()
	for w := range n {
		g.Go(func() {
			for i := 0; time.Since(begin) < length; i++ {
				asked := time.Now()
				if errs[w] = j.Append(ctx, event(i)); errs[w] != nil {
					return
				}
				took[w] = append(took[w], time.Since(asked).Seconds())
			}
		})
	}
	g.Wait()
	elapsed := time.Since(begin)
	var all measure.Samples
	for _, t := range took {
		all = append(all, t...)
	}
	return all, elapsed, errors.Join(errs...)
}

// syncs writes size bytes and syncs, one after the other, for a while.
func syncs(ctx context.Context, path string, size int, length time.Duration) (measure.Samples, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	line := make([]byte, size)
	var took measure.Samples
	for begin := time.Now(); time.Since(begin) < length && ctx.Err() == nil; {
		asked := time.Now()
		if _, err := f.Write(line); err != nil {
			return nil, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return nil, err
		}
		took = append(took, time.Since(asked).Seconds())
	}
	return took, ctx.Err()
}

// fsType names the file system that a folder is on.
func fsType(dir string) string {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return "unknown"
	}
	switch s.Type {
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.TMPFS_MAGIC:
		return "tmpfs, where a sync costs nothing"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs"
	}
	return fmt.Sprintf("file system %#x", s.Type)
}
