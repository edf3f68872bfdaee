package bytemask

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// What is squeezed is what the masks say, at every density, and nothing is
// written behind the room there is.
func TestSqueeze(t *testing.T) {
	both(t, func(t *testing.T) {
		rng := rand.New(rand.NewPCG(8, 9))
		for round := range 2000 {
			masks := make([]uint64, rng.IntN(5))
			text := make([]byte, 64*len(masks)+rng.IntN(9))
			for i := range text {
				text[i] = byte(rng.Uint32())
			}
			var want []byte
			for i := range masks {
				switch round % 4 {
				case 0:
					masks[i] = rng.Uint64()
				case 1:
					masks[i] = rng.Uint64() & rng.Uint64() & rng.Uint64()
				case 2:
					masks[i] = ^(rng.Uint64() & rng.Uint64() & rng.Uint64())
				default:
					masks[i] = -uint64(rng.IntN(2))
				}
				for k := range 64 {
					if masks[i]>>k&1 != 0 {
						want = append(want, text[64*i+k])
					}
				}
			}
			dst := bytes.Repeat([]byte{0xee}, 64*len(masks)+Slack+16)
			n := Squeeze(dst[:64*len(masks)+Slack], text, masks)
			if !bytes.Equal(dst[:n], want) {
				t.Fatalf("squeezed by %x: %x, want %x", masks, dst[:n], want)
			}
			if end := dst[max(n+Slack, 64*len(masks)):]; bytes.Count(end, []byte{0xee}) != len(end) {
				t.Fatalf("something was written behind %d bytes and what may be: %x", n, end)
			}
		}
	})
}
