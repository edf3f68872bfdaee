package bytemask

import "math/bits"

// Slack is how many bytes behind what it returns Squeeze may write.
const Slack = 8

// Squeeze copies to dst the bytes of text whose bits are set in masks, which are
// about its first 64*len(masks) bytes, and returns how many they are. dst has room
// for them and Slack more, or for as many as masks are about.
func Squeeze(dst, text []byte, masks []uint64) int {
	if len(masks) == 0 {
		return 0
	}
	text = text[:64*len(masks)]
	n := 0
	if fast {
		for _, m := range masks {
			n += bits.OnesCount64(m)
		}
		dst = dst[:n+Slack]
		squeeze(&dst[0], &text[0], &masks[0], len(masks), &shuffles)
		return n
	}
	for i, m := range masks {
		for _, c := range text[64*i : 64*i+64] {
			dst[n] = c
			n += int(m & 1)
			m >>= 1
		}
	}
	return n
}

// shuffles say for each mask of eight bytes which of them stand where when the
// others are left out.
var shuffles = func() (table [256]uint64) {
	for m := range table {
		n := 0
		for i := range uint64(8) {
			if m>>i&1 != 0 {
				table[m] |= i << (8 * n)
				n++
			}
		}
	}
	return table
}()
