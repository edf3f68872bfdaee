package audit

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var sampleTime = time.Date(2026, 11, 20, 12, 0, 0, 123456789, time.UTC)

// A badDisk stands between the journal and its files, and fails on command.
type badDisk struct {
	mu    sync.Mutex // guards the fields below
	write error      // of writes: half of the bytes go through
	sync  error      // of syncs with something to write
	trunc error
	hang  chan struct{} // syncs wait for it to be closed
}

func (d *badDisk) set(f func(*badDisk)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f(d)
}

func (d *badDisk) open(path string) (file, error) {
	f, err := openFile(path)
	return &badFile{d: d, file: f}, err
}

type badFile struct {
	d *badDisk
	file
	dirty bool // the writer's own
}

func (f *badFile) Write(p []byte) (int, error) {
	f.d.mu.Lock()
	err := f.d.write
	f.d.mu.Unlock()
	f.dirty = true
	if err != nil {
		n, _ := f.file.Write(p[:len(p)/2])
		return n, err
	}
	return f.file.Write(p)
}

func (f *badFile) Sync() error {
	f.d.mu.Lock()
	err, hang := f.d.sync, f.d.hang
	f.d.mu.Unlock()
	if hang != nil {
		<-hang
	}
	if err != nil && f.dirty {
		return err
	}
	f.dirty = false
	return f.file.Sync()
}

func (f *badFile) Truncate(n int64) error {
	f.d.mu.Lock()
	err := f.d.trunc
	f.d.mu.Unlock()
	if err != nil {
		return err
	}
	f.dirty = false
	return f.file.Truncate(n)
}

func openOn(t *testing.T, cfg Config) (*Journal, *badDisk) {
	t.Helper()
	d := &badDisk{}
	j, err := open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	j.openSeg, j.room = d.open, 1<<20
	j.wg.Go(j.write)
	j.wg.Go(j.keepHead)
	t.Cleanup(func() { _ = j.Close() })
	return j, d
}

// TestFullDisk: nothing that was refused is in the journal, nothing that was
// acknowledged is lost, and when there is room again it goes on by itself.
func TestFullDisk(t *testing.T) {
	for name, full := range map[string]func(*badDisk){
		"at the write": func(d *badDisk) { d.write = unix.ENOSPC },
		"by quota":     func(d *badDisk) { d.write = unix.EDQUOT },
		"at the sync":  func(d *badDisk) { d.sync = unix.ENOSPC },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			j, d := openOn(t, Config{Dir: dir})
			mustAppend(t, j, sampleEvent(1), sampleEvent(2))
			d.set(full)
			for range 3 {
				if err := j.Append(t.Context(), sampleEvent(99)); !errors.Is(err, ErrUnwritable) || !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
					t.Errorf("Append on a full disk = %v, want ErrUnwritable and why", err)
				}
			}
			if r := verified(t, dir); !r.OK || r.Events != 2 || r.Torn != 0 {
				t.Errorf("while full: Verify = %+v, want the 2 good events and nothing torn", r)
			}
			d.set(func(d *badDisk) { d.write, d.sync = nil, nil })
			mustAppend(t, j, sampleEvent(3))
			if err := j.Close(); err != nil {
				t.Fatal(err)
			}
			r := verified(t, dir)
			if !r.OK || r.Events != 3 || r.Segments != 2 {
				t.Errorf("afterwards: Verify = %+v, want 3 good events, the last in a new segment", r)
			}
			again := mustOpen(t, Config{Dir: dir})
			for i, e := range all(t, again) {
				if e.Attrs.Count != int64(i+1) {
					t.Errorf("event %d is %+v", i+1, e)
				}
			}
		})
	}
}

// TestFullDiskFromTheStart: the very first line of a segment does not fit.
func TestFullDiskFromTheStart(t *testing.T) {
	dir := t.TempDir()
	j, d := openOn(t, Config{Dir: dir})
	d.set(func(d *badDisk) { d.write = unix.ENOSPC })
	if err := j.Append(t.Context(), sampleEvent(1)); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("Append = %v, want ENOSPC", err)
	}
	d.set(func(d *badDisk) { d.write = nil })
	mustAppend(t, j, sampleEvent(1))
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if r := verified(t, dir); !r.OK || r.Events != 1 || r.Segments != 1 {
		t.Errorf("Verify = %+v, want 1 good event in 1 segment", r)
	}
}

// TestUnwritableJournalStopsTheAction: after a failed sync nobody knows what
// is on the disk. All who wait and all who come later are refused, even when
// the disk would work again, until the journal is opened anew.
func TestUnwritableJournalStopsTheAction(t *testing.T) {
	for name, fail := range map[string]func(*badDisk){
		"sync":  func(d *badDisk) { d.sync = unix.EIO },
		"write": func(d *badDisk) { d.write = unix.EIO },
		"full, and what is half written cannot be cut off": func(d *badDisk) { d.write, d.trunc = unix.ENOSPC, unix.EIO },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			j, d := openOn(t, Config{Dir: dir})
			mustAppend(t, j, sampleEvent(1))
			d.set(fail)
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if err := j.Append(t.Context(), sampleEvent(2)); !errors.Is(err, ErrUnwritable) {
						t.Errorf("Append = %v, want ErrUnwritable", err)
					}
				})
			}
			wg.Wait()
			d.set(func(d *badDisk) { d.sync, d.write, d.trunc = nil, nil, nil })
			if err := j.Append(t.Context(), sampleEvent(3)); !errors.Is(err, ErrUnwritable) {
				t.Errorf("Append on the mended disk = %v, want ErrUnwritable until reopened", err)
			}
			_ = j.Close()
			again := mustOpen(t, Config{Dir: dir})
			mustAppend(t, again, sampleEvent(4))
			events := all(t, again)
			if events[0].Attrs.Count != 1 || events[len(events)-1].Attrs.Count != 4 {
				t.Errorf("reopened: %+v, want the first and the new event", events)
			}
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}
			if r := verified(t, dir); !r.OK {
				t.Errorf("Verify = %+v", r)
			}
		})
	}
}

// TestHangingDisk: callers leave when their context ends, and the memory of
// what they leave behind is bounded.
func TestHangingDisk(t *testing.T) {
	j, d := openOn(t, Config{Dir: t.TempDir()})
	hang := make(chan struct{})
	d.set(func(d *badDisk) { d.hang = hang })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := j.Append(ctx, sampleEvent(1)); !errors.Is(err, ErrUnwritable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Append on a hanging disk = %v, want ErrUnwritable and DeadlineExceeded", err)
	}
	gone, leave := context.WithCancel(t.Context())
	leave()
	big := sampleEvent(2)
	for range 200 {
		big.Attrs.GPUs = append(big.Attrs.GPUs, "GPU-00000000-0000-0000-0000-000000000000")
	}
	refused := false
	for range 2 * j.room / 8000 {
		err := j.Append(gone, big)
		refused = refused || err != nil && strings.Contains(err.Error(), "waiting for the disk")
	}
	j.mu.Lock()
	queued := j.queued
	j.mu.Unlock()
	if !refused || queued > j.room {
		t.Errorf("%d bytes are waiting, refused: %v; want at most %d and a refusal", queued, refused, j.room)
	}
	d.set(func(d *badDisk) { d.hang = nil })
	close(hang)
	mustAppend(t, j, sampleEvent(3)) // it has recovered
}

// TestHeadFollows: head.json says within a second or so what is durable, and a
// head that cannot be written does not stop the journal.
func TestHeadFollows(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, Config{Dir: dir})
	mustAppend(t, j, sampleEvent(1))
	waitFor(t, "head.json to say 1", func() bool {
		at, err := readHead(dir)
		return err == nil && at.seq == 1
	})
	mustAppend(t, j, sampleEvent(2))
	waitFor(t, "head.json to say 2", func() bool {
		at, err := readHead(dir)
		return err == nil && at.seq == 2
	})
	if err := os.Mkdir(filepath.Join(dir, headFile+".new"), 0o700); err != nil { // in the way
		t.Fatal(err)
	}
	mustAppend(t, j, sampleEvent(3), sampleEvent(4))
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// TestForeignFileInTheWay: the next segment's name is taken. Nothing is
// overwritten.
func TestForeignFileInTheWay(t *testing.T) {
	dir := t.TempDir()
	j := mustOpen(t, Config{Dir: dir, SegmentBytes: 1})
	mustAppend(t, j, sampleEvent(1))
	foreign := segmentPath(dir, 2)
	writeFile(t, foreign, []byte("mine"))
	if err := j.Append(t.Context(), sampleEvent(2)); !errors.Is(err, ErrUnwritable) {
		t.Errorf("Append = %v, want ErrUnwritable", err)
	}
	if got := readFile(t, foreign); !bytes.Equal(got, []byte("mine")) {
		t.Errorf("the file in the way is now %q", got)
	}
}
