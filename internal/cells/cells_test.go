package cells_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/cells"
	"github.com/baileyhq/bailey/internal/jupyter"
	"github.com/baileyhq/bailey/internal/secret"
)

type room struct {
	*cells.Watch

	now  time.Time
	seen []cells.Record
}

func watch(v1 bool) *room {
	r := &room{now: time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)}
	r.Watch = cells.New(cells.Config{
		Key: secret.New("key"), Who: bailey.Actor{UserID: "u-ada", Name: "ada"}, V1: v1,
		Report: func(c cells.Record) { r.seen = append(r.seen, c) }, Now: func() time.Time { return r.now },
	})
	return r
}

func message(v1 bool, typ, id, parent, content string) []byte {
	m := jupyter.Message{
		Channel: "shell", Header: fmt.Appendf(nil, `{"msg_id":%q,"msg_type":%q}`, id, typ),
		Parent: []byte(`{}`), Metadata: []byte(`{}`), Content: []byte(content),
	}
	if parent != "" {
		m.Parent = fmt.Appendf(nil, `{"msg_id":%q,"msg_type":"execute_request"}`, parent)
	}
	if v1 {
		return jupyter.AppendV1(nil, m)
	}
	b, _ := jupyter.AppendLegacy(nil, m)
	return b
}

// Ada runs a cell, it fails, she mends it and runs it again. The journal knows
// that, how long it took, and not a letter of the code.
func TestACellIsRun(t *testing.T) {
	for _, v1 := range []bool{false, true} {
		r := watch(v1)
		run := func(id, code, status string, took time.Duration) {
			r.Up(message(v1, "execute_request", id, "", fmt.Sprintf(`{"code":%q,"silent":false}`, code)), !v1, true)
			r.now = r.now.Add(took)
			r.Down(message(v1, "status", "s", id, `{"execution_state":"busy"}`), !v1)
			r.Down(message(v1, "execute_reply", "r"+id, id, fmt.Sprintf(`{"status":%q}`, status)), !v1)
		}
		run("1", "login('hunter2')", "error", time.Second)
		run("2", "login('hunter2')", "ok", 3*time.Second)
		run("3", "x = 1", "aborted", 0)
		if len(r.seen) != 3 {
			t.Fatalf("v1 %v: %+v", v1, r.seen)
		}
		a, b, c := r.seen[0], r.seen[1], r.seen[2]
		if a.Outcome != cells.Failed || b.Outcome != cells.OK || c.Outcome != cells.Aborted || a.Took != time.Second || b.Took != 3*time.Second {
			t.Errorf("outcomes and times: %+v", r.seen)
		}
		if a.Sum != b.Sum || a.Sum == c.Sum || len(a.Sum) != 32 || a.Bytes != 16 || a.Who.Name != "ada" || a.Count != 1 {
			t.Errorf("records: %+v", r.seen)
		}
		if strings.Contains(fmt.Sprintf("%+v", r.seen), "hunter2") {
			t.Error("the code is in a record")
		}
	}
}

// Another key gives another hash: who reads the journal cannot try codes.
func TestTheHashIsKeyed(t *testing.T) {
	sums := map[string]bool{}
	for _, key := range []string{"one", "two"} {
		w := cells.New(cells.Config{Key: secret.New(key), Report: func(c cells.Record) { sums[c.Sum] = true }})
		w.Up(message(false, "execute_request", "1", "", `{"code":"1+1"}`), true, true)
		w.End()
	}
	if len(sums) != 2 {
		t.Errorf("sums: %v", sums)
	}
}

// What is refused by the filter, and what is not answered before the page is
// closed, stands in the journal too: to run something and go is not to have
// run nothing.
func TestWhatDoesNotEndWell(t *testing.T) {
	r := watch(true)
	r.Up(message(true, "execute_request", "1", "", `{"code":"a"}`), false, false)
	r.Up(message(true, "execute_request", "2", "", `{"code":"b","silent":true}`), false, true)
	r.Up(message(true, "execute_request", "2", "", `{"code":"c"}`), false, true) // the same id again
	r.End()
	r.Up(message(true, "execute_request", "3", "", `{"code":"d"}`), false, true) // after the end
	if len(r.seen) != 3 || r.seen[0].Outcome != cells.Refused || r.seen[1].Outcome != cells.Unanswered || !r.seen[1].Silent || r.seen[2].Outcome != cells.Unanswered {
		t.Errorf("%+v", r.seen)
	}
}

// A kernel, or another page of it, cannot make up runs, nor end Ada's twice.
func TestOnlyWhatWasAskedIsAnswered(t *testing.T) {
	r := watch(false)
	r.Down(message(false, "execute_reply", "r", "never-asked", `{"status":"ok"}`), true)
	r.Up(message(false, "execute_request", "1", "", `{"code":"a"}`), true, true)
	r.Down(message(false, "execute_reply", "r", "1", `{"status":"ok"}`), true)
	r.Down(message(false, "execute_reply", "r", "1", `{"status":"error"}`), true)
	r.Up(message(false, "execute_reply", "x", "1", `{"status":"ok"}`), true, true)
	r.Up([]byte(`{"not":"a message","execute_request":1}`), true, true)
	r.End()
	if len(r.seen) != 1 || r.seen[0].Outcome != cells.OK {
		t.Errorf("%+v", r.seen)
	}
}

// A loop that runs a cell ten thousand times makes some hundred records that
// together count them all, and the memory is bounded when nothing is answered.
func TestAFlood(t *testing.T) {
	for _, answered := range []bool{true, false} {
		r := watch(false)
		for i := range 10_000 {
			id := fmt.Sprint(i)
			r.Up(message(false, "execute_request", id, "", `{"code":"ab"}`), true, true)
			if answered {
				r.Down(message(false, "execute_reply", "r", id, `{"status":"ok"}`), true)
			}
			r.now = r.now.Add(time.Millisecond)
		}
		r.End()
		var count, size int64
		for _, c := range r.seen {
			count += c.Count
			size += c.Bytes
		}
		if count != 10_000 || size != 20_000 || len(r.seen) > 300 {
			t.Errorf("answered %v: %d records count %d cells of %d bytes", answered, len(r.seen), count, size)
		}
	}
}

func FuzzWatch(f *testing.F) {
	f.Add(message(true, "execute_request", "1", "", `{"code":"a"}`), message(true, "execute_reply", "r", "1", `{"status":"ok"}`), true)
	f.Add(message(false, "execute_request", "1", "", `{"code":"a"}`), message(false, "execute_reply", "r", "1", `{"status":"ok"}`), false)
	f.Fuzz(func(t *testing.T, up, down []byte, v1 bool) {
		r := watch(v1)
		for _, text := range []bool{true, false} {
			r.Up(up, text, true)
			r.Down(down, text)
			r.Up(down, text, false)
			r.Down(up, text)
		}
		r.End()
		for _, c := range r.seen {
			if c.Count < 1 || c.Outcome == "" {
				t.Errorf("%+v", c)
			}
		}
	})
}
