package recording

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"github.com/baileyhq/bailey"
)

const (
	maxPiece  = 8 << 10 // of text in one record: escaped it still fits a chunk
	overhead  = 128     // what a record takes in memory besides its text
	lookEvery = 4 << 20 // bytes written between two looks at the free space
)

// A Session is a recording being written. Its methods may be called
// concurrently. They return nil, or why the recording has ended before its
// time; whether the session goes on without one is for the caller. A call
// waits when the disk is slower than the session.
type Session struct {
	r        *Recorder
	id       string
	begin    time.Time
	terminal bool
	file     *os.File
	room     *semaphore.Weighted
	wake     chan struct{} // holds a token when queue has something, or the end came
	done     chan struct{} // closed when the writer has ended

	mu      sync.Mutex // guards what follows
	queue   []queued
	kept    map[Code]int64 // bytes of output and input that were recorded, of an exec
	ended   bool
	failure error

	// Of the writer alone.
	seal    *sealer
	plain   []byte
	first   time.Duration // of the first record in plain
	texts   map[Code]*Text
	sum     hash.Hash
	size    int64
	looked  int64
	stopped bool
}

type queued struct {
	at    time.Duration
	code  Code
	data  []byte
	event *Event
	cost  int64
}

// Begin makes the file and writes what is known of the session. It fails when
// the disk has no room ([ErrFull]) or cannot be written, and with Conflict when
// there is such a recording already.
func (r *Recorder) Begin(m Meta) (*Session, error) {
	path, err := r.path(m.ID)
	if err != nil {
		return nil, err
	}
	if err := r.room(); err != nil {
		return nil, fmt.Errorf("begin recording: %w", err)
	}
	m = m.short()
	head, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("begin recording: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, bailey.Errorf(bailey.Conflict, "there is a recording of this session already")
	}
	if err != nil {
		return nil, fmt.Errorf("begin recording: %w", full(err))
	}
	s := &Session{
		r: r, id: m.ID, terminal: m.Terminal, begin: time.Now(), file: f, room: semaphore.NewWeighted(r.cfg.Queue),
		wake: make(chan struct{}, 1), done: make(chan struct{}), kept: map[Code]int64{}, texts: map[Code]*Text{Output: {}, Input: {}}, sum: sha256.New(),
	}
	var first []byte
	s.seal, first = newSealer(r.cfg.Key, m.ID)
	if err := s.write(append(first, s.seal.seal(0, append(head, '\n'), false)...)); err != nil {
		return nil, errors.Join(fmt.Errorf("begin recording: %w", err), f.Close(), os.Remove(path))
	}
	go s.run()
	return s, nil
}

// Output records what the session showed: of a terminal all of it, of a command
// without one as much as the recorder keeps. p may be used again at once.
func (s *Session) Output(p []byte) error { return s.text(Output, p) }

// Input records what the person typed or sent.
func (s *Session) Input(p []byte) error { return s.text(Input, p) }

// Resize records the terminal's new size.
func (s *Session) Resize(cols, rows int) error {
	return s.push(queued{code: Resize, data: []byte(sizeText(cols, rows))})
}

// Event records something that is not text.
func (s *Session) Event(e Event) error {
	e = e.short()
	return s.push(queued{code: Noted, event: &e, cost: 2 * maxText})
}

// Err returns why the recording ended before its time, or nil.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

func (s *Session) text(code Code, p []byte) error {
	if !s.terminal {
		keep := s.keep(code, len(p))
		if cut := keep < len(p); cut && keep >= 0 {
			defer func() { _ = s.Event(Event{Kind: "limit", Detail: "more of this was not kept: " + string(code)}) }()
		}
		p = p[:max(keep, 0)]
	}
	if len(p) == 0 {
		return s.Err()
	}
	for len(p) > 0 {
		n := min(len(p), maxPiece)
		if err := s.push(queued{code: code, data: append([]byte(nil), p[:n]...)}); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// keep returns how much of n bytes is recorded; -1 when the limit was reached
// before, so that it is noted once.
func (s *Session) keep(code Code, n int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	left := s.r.cfg.Exec - s.kept[code]
	if left < 0 {
		return -1
	}
	if int64(n) <= left {
		s.kept[code] += int64(n)
		return n
	}
	s.kept[code] = s.r.cfg.Exec + 1
	return int(left)
}

// push queues a record, waiting for room.
func (s *Session) push(q queued) error {
	q.cost += int64(len(q.data)) + overhead
	if err := s.enter(q.cost); err != nil {
		s.fail(err)
		return s.Err()
	}
	s.mu.Lock()
	if s.failure != nil || s.ended {
		err := s.failure
		s.mu.Unlock()
		s.leave(q.cost)
		if err == nil {
			err = errors.New("the recording has ended")
		}
		return err
	}
	q.at = time.Since(s.begin)
	s.queue = append(s.queue, q)
	s.mu.Unlock()
	s.signal()
	return nil
}

func (s *Session) enter(cost int64) error {
	if s.room.TryAcquire(cost) {
		if s.r.total.TryAcquire(cost) {
			return nil
		}
		s.room.Release(cost)
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.r.cfg.Wait)
	defer cancel()
	if err := s.room.Acquire(ctx, cost); err != nil {
		return ErrTooSlow
	}
	if err := s.r.total.Acquire(ctx, cost); err != nil {
		s.room.Release(cost)
		return ErrTooSlow
	}
	return nil
}

func (s *Session) leave(cost int64) {
	s.room.Release(cost)
	s.r.total.Release(cost)
}

func (s *Session) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// fail ends the recording before its time. The first reason stands.
func (s *Session) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failure == nil && !s.ended {
		s.failure = fmt.Errorf("record session %s: %w", s.id, err)
		s.r.cfg.Log.Error("recording cut", slog.String("session", s.id), slog.String("error", err.Error()))
	}
}

// A Summary is what a recording came to.
type Summary struct {
	Whole  bool
	Size   int64  // on disk
	Digest string // SHA-256 of the file, hex; empty when it was cut
}

// Close writes what is still queued, and the end. It returns why the recording
// is not whole, if it is not. It may be called more than once.
func (s *Session) Close() (Summary, error) {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.signal()
	<-s.done
	err := s.Err()
	sum := Summary{Whole: err == nil, Size: s.size}
	if sum.Whole {
		sum.Digest = hex.EncodeToString(s.sum.Sum(nil))
	}
	return sum, err
}

// run writes what is queued until the end. After a failure it goes on taking
// what is queued, so that nobody waits for it.
func (s *Session) run() {
	defer close(s.done)
	flush := time.NewTimer(s.r.cfg.Flush)
	flush.Stop()
	waiting := false // flush is set
	for {
		select {
		case <-s.wake:
		case <-flush.C:
			waiting = false
			s.flush(false)
		}
		s.mu.Lock()
		queue, ended := s.queue, s.ended
		s.queue = nil
		s.mu.Unlock()
		for _, q := range queue {
			s.take(q)
			s.leave(q.cost)
		}
		if ended {
			break
		}
		if len(s.plain) > 0 && !waiting {
			flush.Reset(s.r.cfg.Flush)
			waiting = true
		}
	}
	for _, code := range []Code{Output, Input} {
		if rest := s.texts[code].End(); rest != "" {
			s.add(Record{At: time.Since(s.begin), Code: code, Text: rest})
		}
	}
	// After a failure that was not the disk's what came before it is evidence
	// still; the end is not written, so the recording says that it was cut.
	s.flush(s.Err() == nil)
	if err := s.file.Sync(); err != nil {
		s.lose(err)
	}
	if err := s.file.Close(); err != nil {
		s.lose(err)
	}
}

// take turns what was queued into a record.
func (s *Session) take(q queued) {
	if q.code != Output && q.code != Input {
		s.add(Record{At: q.at, Code: q.code, Text: string(q.data), Event: q.event})
		return
	}
	if text := s.texts[q.code].Add(q.data); text != "" {
		s.add(Record{At: q.at, Code: q.code, Text: text})
	}
}

func (s *Session) add(r Record) {
	if s.stopped {
		return
	}
	if len(s.plain) == 0 {
		s.first = r.At
	}
	s.plain = appendRecord(s.plain, r)
	if len(s.plain) >= sealAt {
		s.flush(false)
	}
}

// flush seals what was collected. The last chunk is written even when it is
// empty: it says that nothing is missing.
func (s *Session) flush(last bool) {
	if s.stopped || !last && len(s.plain) == 0 {
		return
	}
	if len(s.plain) == 0 {
		s.first = time.Since(s.begin)
	}
	err := s.write(s.seal.seal(s.first, s.plain, last))
	s.plain = s.plain[:0]
	if err != nil {
		s.lose(err)
	}
}

// lose ends the recording because of its disk.
func (s *Session) lose(err error) {
	s.stopped = true
	s.mu.Lock()
	if s.failure == nil {
		s.failure = fmt.Errorf("record session %s: %w", s.id, full(err))
		s.r.cfg.Log.Error("recording cut", slog.String("session", s.id), slog.String("error", err.Error()))
	}
	s.mu.Unlock()
}

// write appends to the file. What a full disk took of it is taken back, so that
// what stays can be read to its end.
func (s *Session) write(b []byte) error {
	if s.size+int64(len(b)) > s.r.cfg.Max {
		return ErrTooLong
	}
	if s.size-s.looked >= lookEvery {
		s.looked = s.size
		if err := s.r.room(); err != nil {
			return err
		}
	}
	n, err := s.file.Write(b)
	if err != nil {
		if n > 0 {
			err = errors.Join(full(err), s.file.Truncate(s.size))
		}
		return full(err)
	}
	s.sum.Write(b)
	s.size += int64(n)
	return nil
}

// full gives a full disk its name.
func full(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}
