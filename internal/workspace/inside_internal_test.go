package workspace

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/baileyhq/bailey/internal/engine"
)

func TestParseKernels(t *testing.T) {
	late := time.Date(2026, 11, 20, 10, 0, 0, 123456000, time.UTC)
	tests := []struct {
		name, body string
		want       kernelState
		bad        bool
	}{
		{"none", `[]`, kernelState{}, false},
		{"idle", `[{"id":"a","execution_state":"idle","last_activity":"2026-11-20T10:00:00.123456Z","connections":3}]`, kernelState{last: late}, false},
		{"one of two is busy", `[{"execution_state":"idle"},{"execution_state":"busy","last_activity":"2026-11-20T10:00:00.123456Z"}]`, kernelState{busy: true, last: late}, false},
		{"the newest counts", `[{"last_activity":"2026-11-20T10:00:00.123456Z"},{"last_activity":"2020-01-01T00:00:00Z"}]`, kernelState{last: late}, false},
		{"starting is not busy", `[{"execution_state":"starting"}]`, kernelState{}, false},
		{"a time that is none", `[{"execution_state":"idle","last_activity":"yesterday"}]`, kernelState{}, false},
		{"no list", `{"message":"Forbidden"}`, kernelState{}, true},
		{"not JSON", `<html>`, kernelState{}, true},
		{"nothing", ``, kernelState{}, true},
		{"a state that is no text", `[{"execution_state":7}]`, kernelState{}, true},
		{"too many", "[" + strings.Repeat("{},", maxKernels) + "{}]", kernelState{}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseKernels([]byte(tt.body))
			if (err != nil) != tt.bad || got != tt.want {
				t.Errorf("parseKernels(%.80q) = %+v, %v; want %+v, an error: %t", tt.body, got, err, tt.want, tt.bad)
			}
		})
	}
}

func FuzzParseKernels(f *testing.F) {
	f.Add([]byte(`[{"id":"a","execution_state":"busy","last_activity":"2026-11-20T10:00:00.123456Z"}]`))
	f.Add([]byte(`[[[[[[]]]]]]`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, body []byte) {
		st, err := parseKernels(body)
		if st.busy && !bytes.Contains(bytes.ToLower(body), []byte("busy")) && !bytes.Contains(body, []byte(`\u`)) {
			t.Errorf("%q is busy", body)
		}
		if err != nil && (st.busy || !st.last.IsZero()) {
			t.Errorf("%q gives both %+v and %v", body, st, err)
		}
	})
}

// FuzzGet: whatever answers on Jupyter's port, we read a bounded part of it and
// repeat nothing of it in an error.
func FuzzGet(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"))
	f.Add([]byte("HTTP/1.0 999 canary-canary\r\ncanary-canary\r\n\r\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		client, server := net.Pipe()
		go func() {
			defer server.Close() // in memory
			go func() { _, _ = io.Copy(io.Discard, server) }()
			_, _ = server.Write(answer)
		}()
		defer client.Close() // in memory
		_, body, err := get(context.WithoutCancel(t.Context()), client, "/api/status", "token")
		if len(body) > maxAnswer+1 {
			t.Errorf("%d bytes were read", len(body))
		}
		if err != nil && (strings.Contains(err.Error(), "canary") || len(err.Error()) > 200) {
			t.Errorf("the error repeats what was said: %q", err)
		}
	})
}

func FuzzJudge(f *testing.F) {
	f.Add("cuda", 2, []byte(`{"version":"2.6.0","cuda":true,"devices":2,"sum":8}`))
	f.Add("torch", 0, []byte(`{"version":"\u001b[31m","sum":8}`))
	f.Add("python", 0, []byte(`{"version":"3.13"}`))
	f.Fuzz(func(t *testing.T, kind string, gpus int, line []byte) {
		words, err := judge(kind, gpus, line)
		if err != nil {
			words = err.Error()
		}
		if len(words) > 200 || strings.ContainsFunc(words, func(r rune) bool { return r < ' ' || r == '<' || r == 0x7f }) {
			t.Errorf("judge(%q, %d, %q) says %q", kind, gpus, line, words)
		}
		if err == nil && kind == "cuda" && !bytes.Contains(line, []byte("8")) && !bytes.ContainsAny(line, "eE") {
			t.Errorf("judge(%q, %d, %q) is content: %q", kind, gpus, line, words)
		}
	})
}

func TestException(t *testing.T) {
	tests := []struct{ stderr, want string }{
		{"", ""},
		{"Traceback (most recent call last):\n  File \"<string>\"\nModuleNotFoundError: No module named 'torch'\n", ": ModuleNotFoundError"},
		{"ImportError: a\n\nDuring handling:\nRuntimeError: b\n", ": RuntimeError"},
		{"torch.cuda.OutOfMemoryError: CUDA out of memory", ": torch.cuda.OutOfMemoryError"},
		{"secret=hunter2 Error", ""},
		{strings.Repeat("A", 1000) + "Error: x", ""},
	}
	for _, tt := range tests {
		if got := exception([]byte(tt.stderr)); got != tt.want {
			t.Errorf("exception(%.60q) = %q, want %q", tt.stderr, got, tt.want)
		}
	}
}

func TestWords(t *testing.T) {
	for d, want := range map[time.Duration]string{
		2 * time.Hour: "2 h", 90 * time.Minute: "1 h 30 min", 90 * time.Second: "1 min 30 s", time.Minute: "1 min", 1499 * time.Millisecond: "1 s",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%v) = %q, want %q", d, got, want)
		}
	}
	for n, want := range map[int64]string{2 << 30: "2 GiB", 1536 << 20: "1.5 GiB", 128 << 20: "128 MiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
	if got := controls([]engine.Finding{{Control: "uid"}, {Control: "caps"}, {Control: "uid"}}); got != "caps, uid" {
		t.Errorf("controls = %q", got)
	}
	if got := string(lastLines([]byte("a\nb\nc\n"), 2)); got != "b\nc\n" {
		t.Errorf("lastLines = %q", got)
	}
}

func TestLocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l locks
		unlock, err := l.lock(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		if other, err := l.lock(t.Context(), "b"); err != nil {
			t.Errorf("another key waits: %v", err)
		} else {
			other()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.lock(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a taken lock: %v, want the deadline", err)
		}
		got := make(chan func())
		go func() {
			next, err := l.lock(t.Context(), "a")
			if err != nil {
				t.Error(err)
			}
			got <- next
		}()
		synctest.Wait()
		unlock()
		(<-got)()
		if len(l.byKey) != 0 {
			t.Errorf("%d locks are kept for nobody", len(l.byKey))
		}
	})
}

func TestDenialsAreBounded(t *testing.T) {
	var d denials
	for i := range 3 * maxDenials {
		if !d.worth(strings.Repeat("x", i%97)+string(rune(i)), time.Duration(i), denialEach) {
			continue
		}
		if len(d.last) > maxDenials {
			t.Fatalf("%d refusals are remembered", len(d.last))
		}
	}
	if !d.worth("again", 0, denialEach) || d.worth("again", denialEach-1, denialEach) || !d.worth("again", denialEach, denialEach) {
		t.Error("a refusal is to be recorded once in ten seconds")
	}
}
