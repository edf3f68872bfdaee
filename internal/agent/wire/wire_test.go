package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
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
	})
}
