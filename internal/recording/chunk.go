package recording

import (
	"bytes"
	"compress/flate"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"time"
)

// The form of a file:
//
//	"baileyR1" · 8 bytes that name the key · 32 bytes salt
//	chunk, chunk, …, chunk marked as the last
//
// and of a chunk:
//
//	flags (1: last, 2: compressed) · length of the sealed part · time of its
//	first record in microseconds · what is sealed: AES-256-GCM, the nonce being
//	the chunk's number, the head authenticated with it
//
// The file's key is derived from the salt and from the recording's id, so that
// one file cannot stand in for another. A chunk that is changed, missing,
// doubled or in another place does not open; a file without a last chunk says
// that it was cut.
const (
	magic      = "baileyR1"
	keyIDSize  = 8
	saltSize   = 32
	headSize   = len(magic) + keyIDSize + saltSize
	chunkHead  = 1 + 4 + 8
	tagSize    = 16
	maxPlain   = 512 << 10 // of a chunk, before compression: sealAt and the longest record fit
	sealAt     = 32 << 10  // a chunk is sealed when it holds so much
	flagLast   = 1
	flagPacked = 2
)

// Errors of reading. What was read before them is as it was written.
var (
	// ErrCut is given where a recording ends without having been ended: the
	// server or its disk went away, or it is still being written.
	ErrCut = errors.New("the recording is cut off here")
	// ErrDamaged is given where a recording is not what was written.
	ErrDamaged = errors.New("the recording was changed or damaged here")
	// ErrWrongKey is given for a recording that another key sealed.
	ErrWrongKey = errors.New("the recording was sealed with another key")
	// ErrForeign is given for a file that is no recording.
	ErrForeign = errors.New("this is no recording")
)

// keyID names a key without telling it.
func keyID(key []byte) []byte { return derive(key, nil, "bailey recording key id", keyIDSize) }

func derive(key, salt []byte, purpose string, size int) []byte {
	k, err := hkdf.Key(sha256.New, key, salt, purpose, size)
	if err != nil {
		panic("recording: " + err.Error()) // so few bytes are always possible
	}
	return k
}

func aeadOf(key, salt []byte, id string) cipher.AEAD {
	block, err := aes.NewCipher(derive(key, salt, "bailey recording v1 "+id, 32))
	if err != nil {
		panic("recording: " + err.Error()) // the size is right
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic("recording: " + err.Error()) // AES has the block size
	}
	return aead
}

func nonce(n uint64) []byte {
	return binary.BigEndian.AppendUint64(make([]byte, 4, 12), n)
}

// A sealer makes chunks.
type sealer struct {
	aead cipher.AEAD
	n    uint64
	pack *flate.Writer
	buf  bytes.Buffer
}

// newSealer returns a sealer and the head of its file.
func newSealer(key []byte, id string) (*sealer, []byte) {
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails since Go 1.24
	head := append([]byte(magic), keyID(key)...)
	return &sealer{aead: aeadOf(key, salt, id)}, append(head, salt...)
}

// seal returns the next chunk.
func (s *sealer) seal(at time.Duration, plain []byte, last bool) []byte {
	var flags byte
	if last {
		flags |= flagLast
	}
	if packed, ok := s.packed(plain); ok {
		plain, flags = packed, flags|flagPacked
	}
	out := make([]byte, chunkHead, chunkHead+len(plain)+tagSize)
	out[0] = flags
	binary.BigEndian.PutUint32(out[1:], uint32(len(plain)+tagSize)) //nolint:gosec // at most maxPlain
	binary.BigEndian.PutUint64(out[5:], uint64(max(at.Microseconds(), 0)))
	out = s.aead.Seal(out, nonce(s.n), plain, out[:chunkHead])
	s.n++
	return out
}

// packed compresses, if that is worth it. What is in a recording is of one
// person's session: its size tells nobody what they do not know.
func (s *sealer) packed(plain []byte) ([]byte, bool) {
	if len(plain) < 256 {
		return nil, false
	}
	s.buf.Reset()
	if s.pack == nil {
		s.pack, _ = flate.NewWriter(nil, flate.BestSpeed) // the level exists
	}
	s.pack.Reset(&s.buf)
	_, _ = s.pack.Write(plain) // a buffer takes all
	_ = s.pack.Close()
	return s.buf.Bytes(), s.buf.Len() < len(plain)*7/8
}

// An opener reads chunks.
type opener struct {
	aead  cipher.AEAD
	r     io.Reader
	n     uint64
	head  [chunkHead]byte
	ended bool
}

// newOpener reads a file's head.
func newOpener(r io.Reader, key []byte, id string) (*opener, error) {
	head := make([]byte, headSize)
	n, err := io.ReadFull(r, head)
	begin := head[:min(n, len(magic))]
	switch {
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return nil, err
	case !bytes.HasPrefix([]byte(magic), begin):
		return nil, ErrForeign
	case err != nil:
		return nil, ErrCut
	}
	if !bytes.Equal(head[len(magic):len(magic)+keyIDSize], keyID(key)) {
		return nil, ErrWrongKey
	}
	return &opener{aead: aeadOf(key, head[len(magic)+keyIDSize:], id), r: r}, nil
}

// next reads the head of the next chunk: io.EOF after the last one.
func (o *opener) next() (at time.Duration, size int, err error) {
	_, err = io.ReadFull(o.r, o.head[:])
	switch {
	case o.ended && errors.Is(err, io.EOF):
		return 0, 0, io.EOF
	case o.ended && (err == nil || errors.Is(err, io.ErrUnexpectedEOF)):
		return 0, 0, fmt.Errorf("%w: something follows its end", ErrDamaged)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return 0, 0, ErrCut
	case err != nil:
		return 0, 0, err
	}
	length := binary.BigEndian.Uint32(o.head[1:])
	micros := binary.BigEndian.Uint64(o.head[5:])
	if o.head[0]&^(flagLast|flagPacked) != 0 || length < tagSize || length > maxPlain+tagSize || micros > 1<<52 {
		return 0, 0, ErrDamaged
	}
	return time.Duration(micros) * time.Microsecond, int(length), nil //nolint:gosec // bounded above
}

// open reads and opens the chunk whose head was read.
func (o *opener) open(size int) ([]byte, error) {
	sealed := make([]byte, size)
	if _, err := io.ReadFull(o.r, sealed); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, ErrCut
		}
		return nil, err
	}
	plain, err := o.aead.Open(sealed[:0], nonce(o.n), sealed, o.head[:])
	if err != nil {
		return nil, ErrDamaged
	}
	o.n++
	o.ended = o.head[0]&flagLast != 0
	if o.head[0]&flagPacked == 0 {
		return plain, nil
	}
	plain, err = io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(plain)), maxPlain+1))
	if err != nil || len(plain) > maxPlain {
		return nil, ErrDamaged
	}
	return plain, nil
}
