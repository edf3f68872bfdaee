package audit

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// The budget: at least 100,000 events a second from 64 writers, half of all
// appends of one writer within a millisecond. The directory is the test's
// temporary one; TMPDIR chooses the disk.
func BenchmarkAppend1(b *testing.B)  { benchmarkAppend(b, 1) }
func BenchmarkAppend64(b *testing.B) { benchmarkAppend(b, 64) }

func benchmarkAppend(b *testing.B, writers int) {
	b.Helper()
	j, err := Open(Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	took := make([][]time.Duration, writers)
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				begin := time.Now()
				if err := j.Append(b.Context(), sampleEvent(w)); err != nil {
					b.Error(err)
					return
				}
				took[w] = append(took[w], time.Since(begin))
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
}

func sampleEvent(n int) Event {
	return Event{
		Actor:   Actor{ID: "01jd3k8q9m4s7v2x5z8b1c4f6h", Name: "alice", Method: "password", Session: "01jd3k8q9m4s7v2x5z8b1c4f6j", IP: "192.0.2.7"},
		Action:  Launch,
		Target:  Target{Kind: "workspace", ID: "01jd3k8q9m4s7v2x5z8b1c4f6k", Name: "thesis"},
		Outcome: Success,
		Attrs:   Attrs{Class: "cpu-small", Run: "01jd3k8q9m4s7v2x5z8b1c4f6m", Count: int64(n)},
	}
}

func BenchmarkVerify(b *testing.B) {
	dir := b.TempDir()
	fill(b, dir, 20_000, 0)
	b.ResetTimer()
	for b.Loop() {
		if r, err := Verify(dir); err != nil || !r.OK {
			b.Fatalf("Verify = %+v, %v", r, err)
		}
	}
	b.ReportMetric(20_000*float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
