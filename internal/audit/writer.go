package audit

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxBatch is how many bytes are written at once.
	maxBatch = 1 << 20
	// maxQueue is how many bytes may wait. Callers whose context ends leave
	// their events behind; with a disk that hangs these must not fill memory.
	maxQueue = 64 << 20
)

// A file is a segment open for appending. Truncate is for taking back what
// could not be written whole.
type file interface {
	io.Writer
	Sync() error // data and size; fdatasync is enough
	Truncate(size int64) error
	Close() error
}

// osFile is a file on a real disk.
type osFile struct{ *os.File }

// Sync makes data and length durable; times need not be.
func (f osFile) Sync() error {
	for {
		err := unix.Fdatasync(int(f.Fd()))
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// openFile opens a segment for appending, or makes it. It never truncates.
func openFile(path string) (file, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// copyRange copies n bytes of src from an offset.
func copyRange(dst io.Writer, src io.ReaderAt, from, n int64) error {
	_, err := io.Copy(dst, io.NewSectionReader(src, from, n))
	return err
}

// An entry is an event on its way to the disk.
type entry struct {
	id  string
	mid []byte
}

// A batch is what one write and one sync make durable together.
type batch struct {
	entries []entry
	bytes   int
	done    chan struct{} // closed by the writer
	err     error         // valid after done
}

// enqueue puts an entry into the batch that is being gathered.
func (j *Journal) enqueue(e entry) (*batch, error) {
	n := len(e.mid) + envelope
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.dead != nil:
		return nil, j.dead
	case j.closed:
		return nil, errors.New("the journal is closed")
	case j.queued+n > j.room:
		return nil, errors.New("too many events are waiting for the disk")
	}
	var b *batch
	if len(j.queue) > 0 {
		b = j.queue[len(j.queue)-1]
	}
	if b == nil || b.bytes+n > maxBatch {
		b = &batch{done: make(chan struct{})}
		j.queue = append(j.queue, b)
	}
	b.entries = append(b.entries, e)
	b.bytes += n
	j.queued += n
	select {
	case j.wake <- struct{}{}:
	default:
	}
	return b, nil
}

// take removes the oldest batch from the queue, or returns nil.
func (j *Journal) take() *batch {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.queue) == 0 {
		return nil
	}
	b := j.queue[0]
	j.queue[0] = nil
	j.queue = j.queue[1:]
	j.queued -= b.bytes
	return b
}

// write is the one goroutine that writes. It ends when the journal is closed
// and everything queued before that is done.
func (j *Journal) write() {
	for {
		select {
		case <-j.wake:
		case <-j.quit:
			for b := j.take(); b != nil; b = j.take() {
				j.finish(b)
			}
			return
		}
		for {
			// Those whom the last sync woke are about to come back: let them
			// in, rather than syncing for the first of them alone.
			runtime.Gosched()
			b := j.take()
			if b == nil {
				break
			}
			j.finish(b)
		}
	}
}

// finish commits a batch and wakes everyone who waits for it.
func (j *Journal) finish(b *batch) {
	next, err := j.commit(b)
	j.mu.Lock()
	if err == nil {
		j.at, j.durable = next, position{next, j.first, j.size}
		close(j.grown)
		j.grown = make(chan struct{})
	}
	j.mu.Unlock()
	b.err = err
	close(b.done)
	if err == nil {
		select {
		case j.headUp <- struct{}{}:
		default:
		}
	}
}

// commit makes a batch durable, all of it or (as far as anyone is told)
// nothing of it. Reading j.dead needs no lock here: only this goroutine
// changes it.
func (j *Journal) commit(b *batch) (end, error) {
	if j.dead != nil {
		return end{}, j.dead
	}
	next := j.at
	j.buf = j.buf[:0]
	for _, e := range b.entries {
		j.buf, next = next.appendLine(j.buf, e.id, j.boot, time.Now().UTC(), e.mid)
	}
	if err := j.roll(int64(len(j.buf))); err != nil {
		return end{}, err
	}
	_, err := j.f.Write(j.buf)
	if err == nil {
		err = j.f.Sync()
	}
	if err != nil {
		return end{}, j.takeBack(err)
	}
	j.size += int64(len(j.buf))
	return next, nil
}

// roll sees to it that j.f is a segment with room for n bytes.
func (j *Journal) roll(n int64) error {
	if j.f != nil && (j.size == 0 || j.size+n <= j.limit) {
		return nil
	}
	if j.f != nil {
		if err := j.f.Close(); err != nil { // everything in it is synced
			j.log.Warn("closing a segment of the audit journal", slog.String("err", err.Error()))
		}
		j.f = nil
	}
	path := segmentPath(j.dir, j.at.seq+1)
	if fi, err := os.Lstat(path); err == nil && fi.Size() > 0 {
		return j.die(fmt.Errorf("%s is there already", path))
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := j.openSeg(path)
	if err != nil {
		return err
	}
	if err := syncDir(j.dir); err != nil {
		return errors.Join(err, f.Close())
	}
	j.f, j.first, j.size = f, j.at.seq+1, 0
	return nil
}

// takeBack restores the file to what is durable after a failed write or sync.
//
// A full disk is the one failure that passes. What did not fit is cut off, the
// segment is left as it is, and the next event begins a new one, as soon as
// there is room. Every other failure ends the journal: after a failed sync the
// kernel may have dropped what it could not write and call the file clean, so
// neither trying again nor reading back says what is on the disk.
func (j *Journal) takeBack(cause error) error {
	full := errors.Is(cause, unix.ENOSPC) || errors.Is(cause, unix.EDQUOT)
	if !full {
		return j.die(cause)
	}
	if err := errors.Join(j.f.Truncate(j.size), j.f.Sync()); err != nil {
		return j.die(errors.Join(cause, err))
	}
	err := j.f.Close()
	j.f = nil
	return errors.Join(cause, err)
}

// die makes this and every later Append fail until the journal is opened anew.
func (j *Journal) die(cause error) error {
	err := fmt.Errorf("stopped after an error, restart the server when it is mended: %w", cause)
	j.mu.Lock()
	j.dead = err
	j.mu.Unlock()
	j.log.Error("the audit journal cannot be written any more", slog.String("err", cause.Error()))
	return err
}

// keepHead follows the durable end with head.json.
func (j *Journal) keepHead() {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-j.quit:
			return
		case <-pause.C:
		}
		select {
		case <-j.quit:
			return
		case <-j.headUp:
		}
		j.mu.Lock()
		at := j.durable.end
		j.mu.Unlock()
		if err := writeHead(j.dir, at); err != nil {
			// The events themselves are safe; only cutting off the end would
			// go unnoticed meanwhile. The next event tries again.
			j.log.Warn("head of the audit journal not written", slog.String("err", err.Error()))
		}
		pause.Reset(headEvery)
	}
}
