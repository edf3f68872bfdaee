package inspect

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/baileyhq/bailey/internal/inspect/exact"
	"github.com/baileyhq/bailey/internal/secret"
)

// logText is what ordinary programs print: access logs, training progress,
// JSON lines, stack traces, shell output.
func logText(size int) []byte {
	rng := rand.New(rand.NewPCG(3, 4))
	words := []string{
		"connection", "accepted", "from", "worker", "request", "completed", "in", "loading", "checkpoint", "epoch", "the", "shards",
		"cache", "miss", "scheduler", "retrying", "after", "timeout", "GET", "POST", "user", "session", "started", "model", "weights",
		"saved", "to", "disk", "node", "ready", "healthy", "queue", "depth", "batch", "tokens", "keys", "author", "rapid", "tasks", "make",
	}
	var b bytes.Buffer
	for b.Len() < size {
		ts := fmt.Sprintf("2026-11-%02d %02d:%02d:%02d,%03d", 1+rng.IntN(28), rng.IntN(24), rng.IntN(60), rng.IntN(60), rng.IntN(1000))
		switch rng.IntN(6) {
		case 0:
			fmt.Fprintf(&b, "10.0.%d.%d - - [%s] \"GET /api/v1/items/%d?page=%d HTTP/1.1\" 200 %d \"-\" \"Mozilla/5.0 (X11; Linux x86_64)\"\n", rng.IntN(255), rng.IntN(255), ts, rng.IntN(100000), rng.IntN(50), rng.IntN(9000))
		case 1:
			fmt.Fprintf(&b, "Epoch %d/%d [%d/%d] loss=%.4f acc=%.4f lr=%.2e eta %d:%02d\n", rng.IntN(90), 90, rng.IntN(1000), 1000, rng.Float64(), rng.Float64(), rng.Float64()/1000, rng.IntN(9), rng.IntN(60))
		case 2:
			fmt.Fprintf(&b, "{\"ts\":\"%s\",\"level\":\"info\",\"msg\":\"%s %s %s\",\"took_ms\":%d,\"trace\":\"%016x\"}\n", ts, words[rng.IntN(len(words))], words[rng.IntN(len(words))], words[rng.IntN(len(words))], rng.IntN(500), rng.Uint64())
		default:
			fmt.Fprintf(&b, "%s INFO  [worker-%d] service.module.Handler:", ts, rng.IntN(16))
			for range 6 + rng.IntN(12) {
				b.WriteString(" " + words[rng.IntN(len(words))])
			}
			b.WriteByte('\n')
		}
	}
	return b.Bytes()[:size]
}

// sourceText is source code of the Go distribution.
func sourceText(tb testing.TB, size int) []byte {
	var b bytes.Buffer
	files, err := filepath.Glob(filepath.Join(runtime.GOROOT(), "src", "net", "http", "*.go")) //nolint:staticcheck // where the sources of this Go are
	if err != nil || len(files) == 0 {
		tb.Skip("the Go sources are not there")
	}
	for b.Len() < size {
		for _, f := range files {
			src, err := os.ReadFile(f)
			if err != nil {
				tb.Fatal(err)
			}
			b.Write(src)
		}
	}
	return b.Bytes()[:size]
}

// benchSize is so little that a pass is over before another program gets the
// core: the best pass says what the code costs, whatever else runs.
const benchSize = 64 << 10

func BenchmarkMemcpy(b *testing.B) {
	src, dst := logText(benchSize), make([]byte, benchSize)
	m := newMeter(b)
	for b.Loop() {
		m.pass(func() { copy(dst, src) })
	}
	m.report(benchSize)
}

// cpu returns the processor time this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A meter reports MB per second of processor time, and of the best pass: that
// one other programs on the machine disturb least.
type meter struct {
	b     *testing.B
	begin time.Duration
	best  time.Duration
}

func newMeter(b *testing.B) *meter {
	b.Helper()
	b.ReportAllocs()
	return &meter{b: b, begin: cpu()}
}

// pass times one pass.
func (m *meter) pass(f func()) {
	begin := time.Now()
	f()
	if d := time.Since(begin); m.best == 0 || d < m.best {
		m.best = d
	}
}

func (m *meter) report(size int) {
	m.b.ReportMetric(float64(size)*float64(m.b.N)/1e6/(cpu()-m.begin).Seconds(), "MB/cpu-s")
	m.b.ReportMetric(float64(size)/1e6/m.best.Seconds(), "best-MB/s")
}

func benchStream(b *testing.B, text []byte) { benchLanes(b, text, true) }

// benchLanes measures with or without the lanes beside the text itself.
func benchLanes(b *testing.B, text []byte, sides bool) {
	b.Helper()
	s := rulesOf(b)
	out := make([]byte, 0, 2*len(text))
	_ = s.Scan(ScanConfig{}, text) // builds the automata
	m := newMeter(b)
	for b.Loop() {
		m.pass(func() {
			st := NewStream(StreamConfig{Set: s, ScanConfig: ScanConfig{Kind: Batch}})
			if !sides {
				st.sides = nil
			}
			out, _ = st.Write(out[:0], text)
			out, _ = st.Close(out)
		})
	}
	m.report(len(text))
	if b.N > 0 && len(out) == 0 {
		b.Fatal("nothing came out")
	}
}

func BenchmarkStreamLog(b *testing.B)    { benchStream(b, logText(benchSize)) }
func BenchmarkRawLog(b *testing.B)       { benchLanes(b, logText(benchSize), false) }
func BenchmarkRawSource(b *testing.B)    { benchLanes(b, sourceText(b, benchSize), false) }
func BenchmarkStreamSource(b *testing.B) { benchStream(b, sourceText(b, benchSize)) }

// BenchmarkStreamProse is what people write: the documentation of this project.
func BenchmarkStreamProse(b *testing.B) {
	var text []byte
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil || len(files) == 0 {
		b.Skip("the documentation is not there")
	}
	for len(text) < benchSize {
		for _, f := range files {
			more, err := os.ReadFile(f)
			if err != nil {
				b.Fatal(err)
			}
			text = append(text, more...)
		}
	}
	benchStream(b, text[:benchSize])
}

// BenchmarkMessage is one small message of a kernel, through a stream of its own.
func BenchmarkMessage(b *testing.B) {
	s := rulesOf(b)
	text := logText(4096)
	var out []byte
	m := newMeter(b)
	for b.Loop() {
		m.pass(func() {
			st := NewStream(StreamConfig{Set: s, ScanConfig: ScanConfig{Kind: Batch}})
			out, _ = st.Write(out[:0], text)
			out, _ = st.Close(out)
		})
	}
	m.report(len(text))
}

// BenchmarkKeystroke is one byte typed in a terminal.
func BenchmarkKeystroke(b *testing.B) {
	s := rulesOf(b)
	text := logText(1 << 16)
	st := NewStream(StreamConfig{Set: s, ScanConfig: ScanConfig{Kind: Terminal}})
	var out []byte
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		out, _ = st.Write(out[:0], text[i:i+1])
		i = (i + 1) % len(text)
	}
}

func BenchmarkCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile(Config{}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRedact is whole texts: an answer's header field, a small answer.
func BenchmarkRedact(b *testing.B) {
	s := rulesOf(b)
	known, _ := exact.New([]exact.Secret{{Name: "a", Value: secret.New(token(5))}, {Name: "b", Value: secret.New(token(6))}})
	for name, text := range map[string][]byte{
		"field": []byte("Sat, 28 Nov 2026 03:46:00 GMT"), "type": []byte("application/json"), "kib": logText(1024), "4kib": logText(4096),
		"x": bytes.Repeat([]byte("x"), 1024), "uuid": []byte("3f2504e0-4f89-11d3-9a0c-0305e82c3301"),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				_, _, _ = s.Redact(ScanConfig{Exact: known}, text)
			}
		})
	}
}
