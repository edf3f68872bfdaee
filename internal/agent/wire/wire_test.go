package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"
)

func TestFramesComeBackWhole(t *testing.T) {
	var stream []byte
	long := bytes.Repeat([]byte("x"), MaxPayload)
	stream = Append(stream, Output, []byte("hello"))
	stream = Append(stream, Errors, nil)
	for range 5 {
		stream = Append(stream, Input, long)
	}
	stream = Append(stream, Exited, []byte{3, 0, 0})
	for name, r := range map[string]io.Reader{
		"in one":       bytes.NewReader(stream),
		"byte by byte": iotest.OneByteReader(bytes.NewReader(stream)),
		"halves":       iotest.HalfReader(bytes.NewReader(stream)),
	} {
		t.Run(name, func(t *testing.T) {
			fr := NewReader(r)
			want := func(wantType Type, wantPayload []byte) {
				t.Helper()
				got, payload, err := fr.Next()
				if err != nil || got != wantType || !bytes.Equal(payload, wantPayload) {
					t.Fatalf("Next = %q, %d bytes, %v; want %q, %d bytes", got, len(payload), err, wantType, len(wantPayload))
				}
			}
			want(Output, []byte("hello"))
			want(Errors, nil)
			for range 5 {
				want(Input, long)
			}
			want(Exited, []byte{3, 0, 0})
			if _, _, err := fr.Next(); !errors.Is(err, io.EOF) {
				t.Errorf("after the last: %v, want EOF", err)
			}
		})
	}
}

func TestAHostileFrameIsAnError(t *testing.T) {
	huge := append([]byte{byte(Output)}, binary.BigEndian.AppendUint32(nil, 1<<31)...)
	for name, stream := range map[string][]byte{
		"longer than any":  huge,
		"one too long":     append([]byte{byte(Output)}, binary.BigEndian.AppendUint32(nil, MaxPayload+1)...),
		"an unknown type":  {'?', 0, 0, 0, 0},
		"a cut header":     {byte(Output), 0, 0},
		"a cut payload":    {byte(Output), 0, 0, 0, 9, 'x'},
		"a zero byte type": {0, 0, 0, 0, 0},
	} {
		if _, _, err := NewReader(bytes.NewReader(stream)).Next(); err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: %v, want an error", name, err)
		}
	}
}

// A run is what frames of one type carry that have come one after the other; it
// ends where another type begins, where the rest has not come, and where something
// is wrong, which is said in its turn.
func TestARun(t *testing.T) {
	long := bytes.Repeat([]byte("l"), MaxPayload)
	var stream []byte
	for _, p := range [][]byte{[]byte("a"), nil, []byte("b"), long} {
		stream = Append(stream, Output, p)
	}
	stream = Append(stream, Errors, []byte("e"))
	stream = Append(stream, Errors, []byte("f"))
	stream = Append(stream, Exited, []byte{1, 0, 0})
	stream = Append(stream, Exited, []byte{2, 0, 0})
	stream = Append(stream, Output, []byte("z"))
	stream = append(stream, '?', 0, 0, 0, 0)
	carries := func(t Type) bool { return t == Output || t == Errors }
	for name, r := range map[string]io.Reader{"in one": bytes.NewReader(stream), "byte by byte": iotest.OneByteReader(bytes.NewReader(stream))} {
		fr := NewReader(r)
		var got []string
		for {
			kind, payload, err := fr.NextRun(carries)
			if err != nil {
				if !errors.Is(err, ErrFrame) {
					t.Errorf("%s: %v at the end, want ErrFrame", name, err)
				}
				break
			}
			if n := len(got); n > 0 && carries(kind) && got[n-1][0] == byte(kind) {
				got[n-1] += string(payload)
			} else {
				got = append(got, string(kind)+string(payload))
			}
		}
		want := []string{"Oab" + string(long), "Ref", "X\x01\x00\x00", "X\x02\x00\x00", "Oz"}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %.80q, want %.80q", name, got, want)
		}
	}
	// Together, not one by one, where all of it is there.
	fr := NewReader(bytes.NewReader(Append(Append(nil, Output, []byte("x")), Output, []byte("y"))))
	if _, payload, err := fr.NextRun(carries); err != nil || string(payload) != "xy" {
		t.Errorf("%q, %v; want both in one", payload, err)
	}
}

// A reader holds little while little comes, and gives back what it took when much
// came.
func TestAReaderHoldsLittle(t *testing.T) {
	var stream []byte
	for range 40 {
		stream = Append(stream, Output, bytes.Repeat([]byte("m"), MaxPayload))
	}
	bulk := len(stream)
	var pieces []io.Reader
	for range 100 {
		pieces = append(pieces, bytes.NewReader(Append(nil, Output, []byte("k"))))
	}
	fr := NewReader(io.MultiReader(append([]io.Reader{bytes.NewReader(stream)}, pieces...)...))
	most, read := 0, 0
	for {
		_, payload, err := fr.Next()
		if err != nil {
			break
		}
		read += HeaderSize + len(payload)
		most = max(most, len(fr.buf))
	}
	if read != bulk+100*(HeaderSize+1) || most != much || len(fr.buf) != little {
		t.Errorf("read %d bytes with a buffer of %d at most and %d in the end; want %d, %d and %d", read, most, len(fr.buf), bulk+600, much, little)
	}
}

func FuzzReader(f *testing.F) {
	f.Add(Append(Append(nil, Output, []byte("abc")), Exited, []byte{0, 0, 0}))
	f.Add([]byte{byte(Input), 0, 0, 0x80, 0})
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := NewReader(iotest.HalfReader(bytes.NewReader(stream)))
		var again []byte
		for {
			kind, payload, err := r.Next()
			if err != nil {
				break
			}
			again = Append(again, kind, payload)
		}
		if !bytes.HasPrefix(stream, again) {
			t.Errorf("%q was read as %q", stream, again)
		}
		// Joined or not, each stream is the same.
		whole := map[Type][]byte{}
		for r := NewReader(bytes.NewReader(stream)); ; {
			kind, payload, err := r.NextRun(func(Type) bool { return true })
			if err != nil {
				break
			}
			whole[kind] = append(whole[kind], payload...)
		}
		for r := NewReader(bytes.NewReader(again)); ; {
			kind, payload, err := r.Next()
			if err != nil {
				break
			}
			if !bytes.HasPrefix(whole[kind], payload) {
				t.Fatalf("of %q the %q joined are not those one by one", stream, byte(kind))
			}
			whole[kind] = whole[kind][len(payload):]
		}
	})
}
