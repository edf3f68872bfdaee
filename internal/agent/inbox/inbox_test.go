package inbox

import (
	"bytes"
	"testing"

	"github.com/baileyhq/bailey/internal/agent/wire"
)

// FuzzQueue plays what a server and a process can do to the input between them,
// in any order: nothing is lost, doubled or mixed up, no more lies there than may,
// and the server is told of exactly what it sent.
func FuzzQueue(f *testing.F) {
	f.Add([]byte{0, 200, 1, 2, 0, 7, 1, 3, 2})
	f.Add([]byte{0, 255, 0, 255, 0, 255, 1, 2, 4, 0, 1})
	f.Fuzz(func(t *testing.T, ops []byte) {
		q := New()
		var in, out []byte
		sent, told, closed, next := 0, 0, false, byte(0)
		take := func() {
			q.mu.Lock()
			empty := len(q.data) == 0
			q.mu.Unlock()
			if empty && !closed {
				return // it would wait
			}
			data, owed, ok := q.Take()
			if ok == empty {
				t.Fatalf("take: %v with an empty queue: %v", ok, empty)
			}
			out, told = append(out, data...), told+owed
			q.Done()
		}
		for len(ops) > 0 {
			op := ops[0]
			ops = ops[1:]
			switch op % 5 {
			case 0: // the server sends
				n := 1
				if len(ops) > 0 {
					n, ops = int(ops[0])*512, ops[1:]
				}
				piece := make([]byte, n)
				for i := range piece {
					next++
					piece[i] = next
				}
				if room := wire.Window - (len(in) - len(out)); q.Put(piece) != (n <= room) {
					t.Fatalf("%d bytes are taken wrongly where there is room for %d", n, room)
				} else if n <= room && !closed {
					in, sent = append(in, piece...), sent+n
				}
			case 1:
				take()
			case 2: // the end, as a terminal knows it
				q.Add(4)
				if !closed {
					in = append(in, 4)
				}
			case 3:
				q.Close()
				closed = true
			}
		}
		for len(out) < len(in) {
			take()
		}
		if !bytes.Equal(in, out) || told != sent {
			t.Fatalf("%d bytes went in, %d came out, the same: %v; %d were sent and %d told", len(in), len(out), bytes.Equal(in, out), sent, told)
		}
	})
}
