//go:build !purego

package bytemask

import "golang.org/x/sys/cpu"

// fast says that the assembly can be run here.
var fast = cpu.X86.HasAVX2 && cpu.X86.HasPOPCNT

// masks sets dst[i] to the mask of text[64*i:64*i+64], for i below blocks.
//
//go:noescape
func masks(dst *uint64, text *byte, blocks int, halves *[64]byte)

// pairs is masks for two bytes in a row; it reads one byte more.
//
//go:noescape
func pairs(dst *uint64, text *byte, blocks int, halves *[128]byte)

// index returns the index of the first byte among n that is of the kind, or n,
// which is a multiple of 32 and not zero.
//
//go:noescape
func index(text *byte, n int, halves *[64]byte) int

// grams is masks for four bytes in a row; it reads eight bytes more.
//
//go:noescape
func grams(dst *uint64, text *byte, blocks int, table *[1 << gramBits]uint32)

// squeeze copies the bytes whose bits are set in blocks masks, and up to seven
// more behind.
//
//go:noescape
func squeeze(dst, text *byte, masks *uint64, blocks int, shuffles *[256]uint64)
