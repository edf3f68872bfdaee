package inspect

import (
	"runtime"
	"testing"
)

// A stream that waits keeps little: there are many of them, one for each
// terminal and for each output of each cell.
func TestIdleStreamIsSmall(t *testing.T) {
	s := rulesOf(t)
	text := logText(8 << 10)
	const n = 500
	streams := make([]*Stream, n)
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	begin := heap()
	for i := range streams {
		streams[i] = NewStream(StreamConfig{Set: s, ScanConfig: ScanConfig{Kind: Batch}})
		if _, err := streams[i].Write(nil, text); err != nil {
			t.Fatal(err)
		}
	}
	each := int64(heap()-begin) / n //nolint:gosec // far below the largest
	t.Logf("%d bytes each", each)
	if each > 4<<10 { // on a quiet heap it is less than 3 KiB
		t.Errorf("an idle stream keeps %d bytes", each)
	}
	runtime.KeepAlive(streams)
}
