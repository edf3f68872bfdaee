//go:build !amd64 || purego

package bytemask

const fast = false

func masks(*uint64, *byte, int, *[64]byte)              { panic("bytemask: not here") }
func pairs(*uint64, *byte, int, *[128]byte)             { panic("bytemask: not here") }
func index(*byte, int, *[64]byte) int                   { panic("bytemask: not here") }
func grams(*uint64, *byte, int, *[1 << gramBits]uint32) { panic("bytemask: not here") }
func squeeze(_, _ *byte, _ *uint64, _ int, _ *[256]uint64) {
	panic("bytemask: not here")
}
