package audit

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSearchTwoUsers: what alice did and what bob did, over many segments.
func TestSearchTwoUsers(t *testing.T) {
	j := mustOpen(t, Config{Dir: t.TempDir(), SegmentBytes: 3000})
	for i := range 60 {
		e := Event{Action: Launch, Outcome: Success, Target: Target{Kind: "workspace", ID: "w" + strconv.Itoa(i%7), Name: "thesis"}, Attrs: Attrs{Count: int64(i)}}
		e.Actor = Actor{ID: "u-alice", Name: "alice", IP: "192.0.2.1"}
		if i%3 == 0 {
			e.Actor = Actor{ID: "u-bob", Name: "bob", IP: "192.0.2.11"}
			e.Action = Stop
		}
		if i%10 == 0 {
			e.Action, e.Outcome, e.Target.Name = SignIn, Failure, "alice" // bob's or alice's; the target only looks like her
		}
		mustAppend(t, j, e)
	}
	events := all(t, j)
	if len(events) != 60 {
		t.Fatalf("%d events, want 60", len(events))
	}
	mid := events[30].TS
	for name, tt := range map[string]struct {
		f    Filter
		want func(Event) bool
	}{
		"everything":    {Filter{Limit: 1000}, func(Event) bool { return true }},
		"by name":       {Filter{Actor: "alice"}, func(e Event) bool { return e.Actor.Name == "alice" }},
		"by id":         {Filter{Actor: "u-bob"}, func(e Event) bool { return e.Actor.Name == "bob" }},
		"nobody":        {Filter{Actor: "ali"}, func(Event) bool { return false }},
		"action":        {Filter{Action: string(Stop)}, func(e Event) bool { return e.Action == Stop }},
		"action prefix": {Filter{Action: "workspace."}, func(e Event) bool { return e.Action == Stop || e.Action == Launch }},
		"half a word":   {Filter{Action: "workspace"}, func(Event) bool { return false }},
		"target id":     {Filter{Target: "w3"}, func(e Event) bool { return e.Target.ID == "w3" }},
		"target name":   {Filter{Target: "alice"}, func(e Event) bool { return e.Target.Name == "alice" }},
		"address":       {Filter{IP: "192.0.2.1"}, func(e Event) bool { return e.Actor.IP == "192.0.2.1" }},
		"outcome":       {Filter{Outcome: Failure}, func(e Event) bool { return e.Outcome == Failure }},
		"since":         {Filter{Since: mid}, func(e Event) bool { return !e.TS.Before(mid) }},
		"until":         {Filter{Until: mid}, func(e Event) bool { return !e.TS.After(mid) }},
		"after":         {Filter{After: 45}, func(e Event) bool { return e.Seq > 45 }},
		"several at once": {Filter{Actor: "bob", Outcome: Failure, After: 10, Until: mid}, func(e Event) bool {
			return e.Actor.Name == "bob" && e.Outcome == Failure && e.Seq > 10 && !e.TS.After(mid)
		}},
	} {
		got, err := j.Search(t.Context(), tt.f)
		if err != nil {
			t.Fatal(err)
		}
		want := slices.DeleteFunc(slices.Clone(events), func(e Event) bool { return !tt.want(e) })
		if !slices.Equal(numbers(got), numbers(want)) {
			t.Errorf("%s: %+v found %v, want %v", name, tt.f, numbers(got), numbers(want))
		}
	}
	if got, err := j.Search(t.Context(), Filter{Actor: "alice", Limit: 3}); err != nil || len(got) != 3 || got[2].Seq != 60 {
		t.Errorf("newest 3 of alice = %v, %v; want three that end with 60", numbers(got), err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := j.Search(gone, Filter{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Search with an ended context = %v, want Canceled", err)
	}
}

func numbers(events []Event) (out []uint64) {
	for _, e := range events {
		out = append(out, e.Seq)
	}
	return out
}

// TestSearchAcrossBlocks: lines that lie across the borders of the blocks in
// which Search reads.
func TestSearchAcrossBlocks(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir, 3000, 0) // about five blocks in one segment
	j := mustOpen(t, Config{Dir: dir})
	got := all(t, j)
	if len(got) != 3000 {
		t.Fatalf("%d events, want 3000", len(got))
	}
	for i, e := range got {
		if e.Seq != uint64(i+1) || e.Attrs.Count != int64(i) {
			t.Fatalf("event %d is %+v", i+1, e)
		}
	}
	if got, err := j.Search(t.Context(), Filter{}); err != nil || len(got) != defaultLimit || got[defaultLimit-1].Seq != 3000 {
		t.Errorf("default search = %d events, %v; want the newest %d", len(got), err, defaultLimit)
	}
}

// TestTail: a follower gets what is there and what comes, once each and in
// order, over segments, also while a full disk takes lines back.
func TestTail(t *testing.T) {
	j, d := openOn(t, Config{Dir: t.TempDir(), SegmentBytes: 2000})
	for i := range 10 {
		mustAppend(t, j, sampleEvent(i+1))
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	from0, from7, from12 := j.Tail(ctx, 0), j.Tail(ctx, 7), j.Tail(ctx, 12)
	expect := func(ch <-chan Event, want int) {
		t.Helper()
		select {
		case e, ok := <-ch:
			if !ok || e.Seq != uint64(want) || e.Attrs.Count != int64(want) {
				t.Fatalf("got %+v, %v; want event %d", e, ok, want)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("event %d does not come", want)
		}
	}
	for i := range 10 {
		expect(from0, i+1)
	}
	for i := 7; i < 10; i++ {
		expect(from7, i+1)
	}
	for i := 10; i < 40; i++ {
		if i%5 == 0 { // half a line appears in the file and goes again
			d.set(func(d *badDisk) { d.write = unix.ENOSPC })
			if err := j.Append(t.Context(), sampleEvent(999)); err == nil {
				t.Fatal("Append on a full disk succeeded")
			}
			d.set(func(d *badDisk) { d.write = nil })
		}
		mustAppend(t, j, sampleEvent(i+1))
		expect(from0, i+1)
		expect(from7, i+1)
		if i >= 12 {
			expect(from12, i+1)
		}
	}
	cancel()
	for _, ch := range []<-chan Event{from0, from7, from12} {
		for e := range ch { // closed soon
			t.Errorf("after the end came %+v", e)
		}
	}
	last := j.Tail(t.Context(), 40)
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if e, ok := <-last; ok {
		t.Errorf("Close did not end the follower: %+v", e)
	}
	if e, ok := <-j.Tail(t.Context(), 0); ok {
		t.Errorf("Tail of a closed journal sent %+v", e)
	}
}

// TestNewest: with a long journal Open starts in the middle
// and still continues it.
func TestNewest(t *testing.T) {
	dir, _ := smallJournal(t)
	segs, err := segments(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, limit := range []int64{0, 1, 1500, 3000, 1 << 30} {
		from, at, err := newest(segs, limit)
		if err != nil {
			t.Fatal(err)
		}
		if limit < 3000 && from != len(segs)-1 && limit <= 1 || limit == 1<<30 && from != 0 {
			t.Errorf("newest(%d) begins with segment %d of %d", limit, from, len(segs))
		}
		for _, seg := range segs[from:] {
			w, err := walkSegment(seg, at, nil)
			if err != nil || w.brk != nil {
				t.Fatalf("newest(%d): from segment %d: %v, %v", limit, from, w.brk, err)
			}
			at = w.end
		}
		if at.seq != 9 {
			t.Errorf("newest(%d) leads to %d, want 9", limit, at.seq)
		}
	}
}
