//go:build !purego

#include "textflag.h"

// Each byte is taken apart into two halves of four bits. VPSHUFB looks both up in
// tables of sixteen; where the two answers share a bit, the byte is of the kind.

DATA half<>+0(SB)/1, $0x0f
GLOBL half<>(SB), RODATA|NOPTR, $1

// CLASSIFY leaves zero in the bytes of x that are not of the kind. Y2 is 0x0f
// everywhere; lo and hi are the tables; t is overwritten.
#define CLASSIFY(x, lo, hi, t) \
	VPAND   x, Y2, t   \
	VPSRLW  $4, x, x   \
	VPAND   x, Y2, x   \
	VPSHUFB t, lo, t   \
	VPSHUFB x, hi, x   \
	VPAND   t, x, x

// func masks(dst *uint64, text *byte, blocks int, halves *[64]byte)
TEXT ·masks(SB), NOSPLIT, $0-32
	MOVQ         dst+0(FP), DI
	MOVQ         text+8(FP), SI
	MOVQ         blocks+16(FP), CX
	MOVQ         halves+24(FP), DX
	VMOVDQU      (DX), Y0
	VMOVDQU      32(DX), Y1
	VPBROADCASTB half<>(SB), Y2
	VPXOR        Y3, Y3, Y3

block:
	VMOVDQU   (SI), Y4
	VMOVDQU   32(SI), Y5
	CLASSIFY(Y4, Y0, Y1, Y6)
	CLASSIFY(Y5, Y0, Y1, Y7)
	VPCMPEQB  Y3, Y4, Y4
	VPCMPEQB  Y3, Y5, Y5
	VPMOVMSKB Y4, AX
	VPMOVMSKB Y5, BX
	SHLQ      $32, BX
	ORQ       BX, AX
	NOTQ      AX
	MOVQ      AX, (DI)
	ADDQ      $64, SI
	ADDQ      $8, DI
	DECQ      CX
	JNZ       block
	VZEROUPPER
	RET

// func pairs(dst *uint64, text *byte, blocks int, halves *[128]byte)
TEXT ·pairs(SB), NOSPLIT, $0-32
	MOVQ         dst+0(FP), DI
	MOVQ         text+8(FP), SI
	MOVQ         blocks+16(FP), CX
	MOVQ         halves+24(FP), DX
	VMOVDQU      (DX), Y0
	VMOVDQU      32(DX), Y1
	VMOVDQU      64(DX), Y8
	VMOVDQU      96(DX), Y9
	VPBROADCASTB half<>(SB), Y2
	VPXOR        Y3, Y3, Y3

block:
	VMOVDQU   (SI), Y4
	VMOVDQU   1(SI), Y10
	VMOVDQU   32(SI), Y5
	VMOVDQU   33(SI), Y11
	CLASSIFY(Y4, Y0, Y1, Y6)
	CLASSIFY(Y10, Y8, Y9, Y7)
	VPAND     Y10, Y4, Y4
	CLASSIFY(Y5, Y0, Y1, Y6)
	CLASSIFY(Y11, Y8, Y9, Y7)
	VPAND     Y11, Y5, Y5
	VPCMPEQB  Y3, Y4, Y4
	VPCMPEQB  Y3, Y5, Y5
	VPMOVMSKB Y4, AX
	VPMOVMSKB Y5, BX
	SHLQ      $32, BX
	ORQ       BX, AX
	NOTQ      AX
	MOVQ      AX, (DI)
	ADDQ      $64, SI
	ADDQ      $8, DI
	DECQ      CX
	JNZ       block
	VZEROUPPER
	RET

// func index(text *byte, n int, halves *[64]byte) int
TEXT ·index(SB), NOSPLIT, $0-32
	MOVQ         text+0(FP), SI
	MOVQ         n+8(FP), CX
	MOVQ         halves+16(FP), DX
	VMOVDQU      (DX), Y0
	VMOVDQU      32(DX), Y1
	VPBROADCASTB half<>(SB), Y2
	VPXOR        Y3, Y3, Y3
	XORQ         DI, DI

next:
	VMOVDQU   (SI)(DI*1), Y4
	CLASSIFY(Y4, Y0, Y1, Y6)
	VPCMPEQB  Y3, Y4, Y4
	VPMOVMSKB Y4, AX
	XORL      $0xffffffff, AX
	JNZ       found
	ADDQ      $32, DI
	CMPQ      DI, CX
	JLT       next
	MOVQ      CX, ret+24(FP)
	VZEROUPPER
	RET

found:
	BSFL AX, AX
	ADDQ AX, DI
	MOVQ DI, ret+24(FP)
	VZEROUPPER
	RET

// Eight places at a time: their four bytes each, spread by spread; the bits that
// tell a byte's case; the factor of the hash; the lowest five bits.
DATA spread<>+0(SB)/8, $0x0403020103020100
DATA spread<>+8(SB)/8, $0x0605040305040302
DATA spread<>+16(SB)/8, $0x0807060507060504
DATA spread<>+24(SB)/8, $0x0a09080709080706
GLOBL spread<>(SB), RODATA|NOPTR, $32
DATA folds<>+0(SB)/4, $0x20202020
GLOBL folds<>(SB), RODATA|NOPTR, $4
DATA factor<>+0(SB)/4, $0x9e3779b1
GLOBL factor<>(SB), RODATA|NOPTR, $4
DATA five<>+0(SB)/4, $31
GLOBL five<>(SB), RODATA|NOPTR, $4

// func grams(dst *uint64, text *byte, blocks int, table *[8192]uint32)
TEXT ·grams(SB), NOSPLIT, $0-32
	MOVQ         dst+0(FP), DI
	MOVQ         text+8(FP), SI
	MOVQ         blocks+16(FP), CX
	MOVQ         table+24(FP), DX
	VMOVDQU      spread<>(SB), Y0
	VPBROADCASTD folds<>(SB), Y1
	VPBROADCASTD factor<>(SB), Y2
	VPBROADCASTD five<>(SB), Y3
	SHLQ         $3, CX

eight:
	VBROADCASTI128 (SI), Y4
	VPOR           Y1, Y4, Y4
	VPSHUFB        Y0, Y4, Y4
	VPMULLD        Y2, Y4, Y4
	VPSRLD         $19, Y4, Y5
	VPCMPEQD       Y6, Y6, Y6
	VPXOR          Y7, Y7, Y7
	VPGATHERDD     Y6, (DX)(Y5*4), Y7
	VPSRLD         $14, Y4, Y8
	VPSRLD         $9, Y4, Y9
	VPAND          Y3, Y8, Y8
	VPAND          Y3, Y9, Y9
	VPSLLVD        Y8, Y7, Y8
	VPSLLVD        Y9, Y7, Y9
	VPAND          Y8, Y9, Y9
	VMOVMSKPS      Y9, AX
	MOVB           AX, (DI)
	ADDQ           $8, SI
	INCQ           DI
	DECQ           CX
	JNZ            eight
	VZEROUPPER
	RET

// func squeeze(dst, text *byte, masks *uint64, blocks int, shuffles *[256]uint64)
TEXT ·squeeze(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ text+8(FP), SI
	MOVQ masks+16(FP), R8
	MOVQ blocks+24(FP), CX
	MOVQ shuffles+32(FP), DX
	SHLQ $3, CX

eight:
	MOVBLZX (R8), AX
	VMOVQ   (SI), X0
	VMOVQ   (DX)(AX*8), X1
	VPSHUFB X1, X0, X0
	VMOVQ   X0, (DI)
	POPCNTL AX, AX
	ADDQ    AX, DI
	ADDQ    $8, SI
	INCQ    R8
	DECQ    CX
	JNZ     eight
	VZEROUPPER
	RET
