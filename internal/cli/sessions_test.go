package cli

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

const recorded = `{"id":"01kb0000000000000000000000","user":"alice","workspace":"lab","kind":"shell","client":"192.0.2.1\u001b]0;x","began_at":"2026-11-20T12:00:00Z","terminal":true}
[0.500000,"o","one "]
[1.000000,"i","ls\r"]
[9.000000,"o","two\u001b]52;c;AA"]
[9.100000,"o","AA\u0007 three"]
[9.100000,"r","90x20"]
[9.200000,"e",{"kind":"exit","exit":0,"detail":"\u001b[6n"}]
`

func play(t *testing.T, text string, change func(*player)) (out, errs string, pauses []time.Duration, err error) {
	t.Helper()
	var o, e bytes.Buffer
	p := &player{
		t: &terminal{w: &o}, err: &e, speed: 1, idle: 2 * time.Second,
		wait: func(_ context.Context, d time.Duration) error { pauses = append(pauses, d); return nil },
	}
	if change != nil {
		change(p)
	}
	err = p.play(t.Context(), strings.NewReader(text))
	return o.String(), e.String(), pauses, err
}

func TestReplay(t *testing.T) {
	half, second := 500*time.Millisecond, time.Second
	for _, tt := range []struct {
		name   string
		change func(*player)
		out    string
		pauses []time.Duration
	}{
		{"as it was", nil, "one two three", []time.Duration{half, half, 2 * second, 100 * time.Millisecond, 100 * time.Millisecond}},
		{"every pause", func(p *player) { p.idle = 0 }, "one two three", []time.Duration{half, half, 8 * second, 100 * time.Millisecond, 100 * time.Millisecond}},
		{"twice as fast", func(p *player) { p.speed = 2 }, "one two three", []time.Duration{half / 2, half / 2, second, 50 * time.Millisecond, 50 * time.Millisecond}},
		{"at once", func(p *player) { p.speed = 0 }, "one two three", nil},
		{"from later", func(p *player) { p.from = 9 * second }, "one two three", []time.Duration{100 * time.Millisecond, 100 * time.Millisecond}},
		{"raw", func(p *player) { p.speed, p.t.raw = 0, true }, "one two\x1b]52;c;AAAA\a three", nil},
	} {
		out, errs, pauses, err := play(t, recorded+"{\"end\":\"whole\"}\n", tt.change)
		if err != nil || out != tt.out || !slices.Equal(pauses, tt.pauses) {
			t.Errorf("%s: %q with pauses %v, %v; want %q with %v", tt.name, out, pauses, err, tt.out, tt.pauses)
		}
		if strings.ContainsAny(errs, "\x1b\a") || !strings.Contains(errs, "alice.lab") || !strings.Contains(errs, "exit 0") || strings.Contains(errs, "typed") {
			t.Errorf("%s: stderr %q", tt.name, errs)
		}
	}
	if _, errs, _, _ := play(t, recorded+"{\"end\":\"whole\"}\n", func(p *player) { p.input = true }); !strings.Contains(errs, `[typed "ls\r"]`) {
		t.Errorf("with input: %q", errs)
	}
}

func TestReplayOfWhatIsNotWhole(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		code       int // 0: no error
		says       string
	}{
		{"cut", recorded + "{\"end\":\"cut\"}\n", 0, "cut off here"},
		{"damaged", recorded + "{\"end\":\"damaged\"}\n", exitFindings, "changed or damaged"},
		{"the server went away", recorded, exitUnreachable, "in the middle"},
		{"nothing", "", exitUsage, "no recording"},
		{"something else", "hello\n", exitUsage, "no recording"},
		{"another's line", recorded + "[0,\"x\"]\n", exitFailure, "not one"},
		{"asciicast", "{\"version\":2,\"width\":80,\"height\":24}\n[0.1,\"m\",\"mark\"]\n[0.2,\"o\",\"two three\"]\n", 0, ""},
	} {
		out, errs, _, err := play(t, tt.text, nil)
		code, said := 0, errs
		if f, ok := errors.AsType[*failure](err); ok {
			code, said = f.code, f.msg
		}
		if code != tt.code || !strings.Contains(said, tt.says) {
			t.Errorf("%s: %d %q (%v), want %d %q", tt.name, code, said, err, tt.code, tt.says)
		}
		if len(tt.text) > 40 && tt.code != exitUsage && !strings.Contains(out, "three") {
			t.Errorf("%s: %q", tt.name, out)
		}
	}
}

// What a server sends to those who watch may be anything.
func FuzzPlay(f *testing.F) {
	f.Add([]byte(recorded))
	f.Add([]byte("{\"version\":2}\n[1e9,\"o\",\"x\"]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var out, errs bytes.Buffer
		p := &player{t: &terminal{w: &out}, err: &errs, speed: 1, wait: func(context.Context, time.Duration) error { return nil }}
		_ = p.play(t.Context(), bytes.NewReader(text))
		if bytes.ContainsAny(errs.Bytes(), "\x1b\a") || strings.Contains(out.String(), "\x1b]") {
			t.Errorf("%q plays %q and %q", text, out.String(), errs.String())
		}
	})
}
