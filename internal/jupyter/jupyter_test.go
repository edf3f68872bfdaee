package jupyter_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/baileyhq/bailey/internal/jupyter"
)

// same leaves every text as it is.
func same(_ jupyter.Place, text []byte) ([]byte, error) { return text, nil }

func message() jupyter.Message {
	return jupyter.Message{
		Channel: "iopub", Header: []byte(`{"msg_id":"m1","msg_type":"stream"}`), Parent: []byte(`{"msg_id":"p1"}`),
		Metadata: []byte(`{}`), Content: []byte(`{"name":"stdout","text":"hello"}`),
	}
}

func TestKernelMessagesSurviveTheRoundTrip(t *testing.T) {
	plain := message()
	buffered := message()
	buffered.Buffers = [][]byte{[]byte("abc"), {}, {0, 255}}
	for _, m := range []jupyter.Message{plain, buffered} {
		got, err := jupyter.ParseV1(jupyter.AppendV1(nil, m))
		if err != nil || !cmp.Equal(got, m, equateEmpty) {
			t.Errorf("v1: %v\n%s", err, cmp.Diff(m, got, equateEmpty))
		}
		wire, isText := jupyter.AppendLegacy(nil, m)
		if isText != (len(m.Buffers) == 0) {
			t.Errorf("legacy with %d buffers is text = %v", len(m.Buffers), isText)
		}
		got, err = jupyter.ParseLegacy(wire, isText)
		if err != nil || !cmp.Equal(got, m, equateEmpty) {
			t.Errorf("legacy: %v\n%s", err, cmp.Diff(m, got, equateEmpty))
		}
	}
}

var equateEmpty = cmpopts.EquateEmpty()

// What jupyter_server 2.20 puts on the wire, byte for byte.
func TestLegacyEnvelopeAsJupyterWritesIt(t *testing.T) {
	wire := `{"header": {"msg_id": "a_1", "msg_type": "status", "username": "u", "session": "s", "date": "2026-11-20T00:00:00Z", "version": "5.4"}, "msg_id": "a_1", "msg_type": "status", "parent_header": {}, "metadata": {}, "content": {"execution_state": "idle"}, "buffers": [], "channel": "iopub"}`
	m, err := jupyter.ParseLegacy([]byte(wire), true)
	if err != nil {
		t.Fatal(err)
	}
	if m.Channel != "iopub" || len(m.Extra) != 2 {
		t.Errorf("channel %q, %d extra members", m.Channel, len(m.Extra))
	}
	out, _ := jupyter.AppendLegacy(nil, m)
	var want, got any
	if json.Unmarshal([]byte(wire), &want) != nil || json.Unmarshal(out, &got) != nil || !cmp.Equal(want, got) {
		t.Errorf("changed on the way:\n%s\n%s", wire, out)
	}
}

// A frame that two readers could read differently is refused: whoever wrote it
// wants us to look at one text and the browser at another.
func TestFramesWithTwoReadingsAreRefused(t *testing.T) {
	good := jupyter.AppendV1(nil, message())
	offset := func(i int, v uint64) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint64(b[8*i:], v)
		return b
	}
	at := func(i int) uint64 { return binary.LittleEndian.Uint64(good[8*i:]) }
	for name, b := range map[string][]byte{
		"empty":                 {},
		"no offsets":            make([]byte, 8),
		"2^63 offsets":          offset(0, 1<<63),
		"2^64-1 offsets":        offset(0, math.MaxUint64),
		"one offset too many":   offset(0, at(0)+1),
		"a gap before channel":  offset(1, at(1)+1),
		"overlap with offsets":  offset(1, 0),
		"offsets that go back":  offset(3, at(2)-1),
		"beyond the end":        offset(5, uint64(len(good))+1),
		"2^63 as an offset":     offset(4, 1<<63),
		"trailing bytes":        append(bytes.Clone(good), "trailing"...),
		"cut short":             good[:len(good)-1],
		"an unknown channel":    bytes.Replace(good, []byte("iopub"), []byte("IOPUB"), 1),
		"a text frame as bytes": []byte(`{"channel":"iopub"}`),
	} {
		if _, err := jupyter.ParseV1(b); !errors.Is(err, jupyter.ErrMalformed) {
			t.Errorf("v1 with %s: %v", name, err)
		}
	}
	m := message()
	m.Buffers = [][]byte{[]byte("x"), []byte("y")}
	legacy, _ := jupyter.AppendLegacy(nil, m)
	put := func(i int, v uint32) []byte {
		b := bytes.Clone(legacy)
		binary.BigEndian.PutUint32(b[4*i:], v)
		return b
	}
	for name, b := range map[string][]byte{
		"no parts":          put(0, 0),
		"2^32-1 parts":      put(0, math.MaxUint32),
		"a gap":             put(1, 20),
		"overlapping parts": put(2, 16),
		"beyond the end":    put(3, math.MaxUint32),
	} {
		if _, err := jupyter.ParseLegacy(b, false); !errors.Is(err, jupyter.ErrMalformed) {
			t.Errorf("legacy with %s: %v", name, err)
		}
	}
}

func TestJSONWithTwoReadingsIsRefused(t *testing.T) {
	for _, content := range []string{
		`{"name":"stdout","text":"SECRET","text":"benign"}`,
		`{"name":"stdout","text":"SECRET","TEXT":"benign"}`,
		`{"name":"stdout","text":"SECRET","te\u0078t":"benign"}`,
		`{"name":"stdout","text":"SECRET","TeXt":null}`,
		`{"name":"stdout","text":["SECRET"]}`,
		`{"name":"stdout"}`,
		`{"name":"stdlog","text":"SECRET"}`,
		`{"name":"stdout","text":"a","x":{"k":1,"k":2}}`,
		`{"name":"stdout","text":"a"} {"text":"SECRET"}`,
		`{"name":"stdout","text":"a",}`,
		`{"name":"stdout","text":NaN}`,
		"{\"name\":\"stdout\",\"text\":\"a\nb\"}",
		`{"name":"stdout","text":"\x41"}`,
		`{"name":"stdout","text":"a","n":01}`,
		`[]`, `null`, ``, `{`,
		strings.Repeat(`{"a":`, 300) + `1` + strings.Repeat(`}`, 300),
	} {
		if out, err := jupyter.RewriteContent(nil, "stream", []byte(content), same); !errors.Is(err, jupyter.ErrMalformed) {
			t.Errorf("%s: %v, %s", content, err, out)
		}
	}
}

// Whatever is not one of the texts we know of is looked at as well.
func TestEveryStringIsVisited(t *testing.T) {
	for msgType, content := range map[string]string{
		"stream":          `{"name":"stdout","text":"S"}`,
		"display_data":    `{"data":{"text/plain":"S","application/json":{"S":["S",{"b":"S"}]}},"metadata":{"S":"S"},"transient":{"x":"S"}}`,
		"execute_result":  `{"data":{"text/html":["S","S"]},"S":1}`,
		"error":           `{"ename":"S","evalue":"S","traceback":["S","S"]}`,
		"execute_reply":   `{"payload":[{"source":"page","data":{"text/plain":"S"}}],"user_expressions":{"a":{"data":{"text/plain":"S"}}}}`,
		"history_reply":   `{"history":[[1,2,"S"],[1,3,["S","S"]]]}`,
		"complete_reply":  `{"matches":["S"],"metadata":{"_jupyter_types_experimental":[{"text":"S"}]}}`,
		"debug_reply":     `{"body":{"variables":[{"name":"x","value":"S"}]}}`,
		"comm_msg":        `{"comm_id":"c","data":{"state":{"outputs":[{"text":"S"}]}}}`,
		"input_request":   `{"prompt":"S","password":false}`,
		"something_novel": `{"S":"S"}`,
	} {
		out, err := jupyter.RewriteContent(nil, msgType, []byte(content), func(_ jupyter.Place, text []byte) ([]byte, error) {
			return bytes.ReplaceAll(text, []byte("S"), []byte("*")), nil
		})
		if err != nil {
			t.Errorf("%s: %v", msgType, err)
			continue
		}
		if !json.Valid(out) || bytes.Contains(bytes.ReplaceAll(out, []byte("source"), nil), []byte("S")) {
			t.Errorf("%s: %s", msgType, out)
		}
	}
}

// A list of strings in a bundle means their concatenation; so a text that is
// cut between two of them is seen whole.
func TestListsAreJoined(t *testing.T) {
	var seen []string
	out, err := jupyter.RewriteContent(nil, "display_data", []byte(`{"data":{"text/plain":["key=se","cret\n","end\n"]}}`),
		func(p jupyter.Place, text []byte) ([]byte, error) {
			if p.Kind == jupyter.Bundle {
				seen = append(seen, p.MIME+" "+string(text))
			}
			return bytes.ReplaceAll(text, []byte("secret"), []byte("[x]")), nil
		})
	if want := `{"data":{"text/plain":["key=[x]\n","end\n"]}}`; err != nil || string(out) != want {
		t.Errorf("got %s, %v, want %s", out, err, want)
	}
	if want := []string{"text/plain key=secret\nend\n"}; !cmp.Equal(seen, want) {
		t.Errorf("seen %q, want %q", seen, want)
	}
}

func TestTextsAreReadAsABrowserReadsThem(t *testing.T) {
	for in, want := range map[string]string{
		`"a\u0062\/\n"`:            "ab/\n",
		`"\ud83d\ude00"`:           "😀",
		`"\ud83dx"`:                "\ufffdx",
		`"\ude00\ud83d"`:           "\ufffd\ufffd",
		"\"a\xffb\xc3\"":           "a\ufffdb\ufffd",
		`"\u8eab\u4efd\u8bc1 身份证"`: "身份证 身份证",
	} {
		got, ok := jupyter.String([]byte(in))
		if !ok || got != want {
			t.Errorf("String(%s) = %q, %v, want %q", in, got, ok, want)
		}
	}
}

func TestNotebookPlaces(t *testing.T) {
	raw := `{"cells":[{"cell_type":"code","source":["a\n","b"],"metadata":{"m":"M"},"outputs":[{"output_type":"stream","name":"stdout","text":["x","y"]},{"output_type":"error","ename":"E","evalue":"V","traceback":["1","2"]},{"output_type":"display_data","data":{"image/png":"P"},"metadata":{}}]},{"cell_type":"markdown","source":"text"}],"metadata":{},"nbformat":4,"nbformat_minor":5}`
	var code, out []string
	got, err := jupyter.RewriteNotebook(nil, []byte(raw), func(p jupyter.Place, text []byte) ([]byte, error) {
		switch {
		case p.Kind == jupyter.Code:
			code = append(code, string(text))
		case p.Output && p.Kind != jupyter.Name:
			out = append(out, string(text))
		}
		return text, nil
	})
	if err != nil || string(got) != raw {
		t.Errorf("not left as it is: %v\n%s\n%s", err, raw, got)
	}
	if want := []string{"a\nb", "text"}; !cmp.Equal(code, want) {
		t.Errorf("code = %q", code)
	}
	if want := []string{"stream", "stdout", "xy", "error", "E", "V", "1\n2", "display_data", "P"}; !cmp.Equal(out, want) {
		t.Errorf("output = %q", out)
	}
	if _, err := jupyter.RewriteNotebook(nil, []byte(strings.Replace(raw, `"outputs"`, `"OUTPUTS":[],"outputs"`, 1)), same); err == nil {
		t.Error("outputs under two names are taken")
	}
}

func TestTerminalFrames(t *testing.T) {
	for _, wire := range []string{`["setup",{}]`, `["stdout","a\r\n"]`, `["disconnect",1]`, `["set_size",24,80,1,2]`} {
		f, err := jupyter.ParseFrame([]byte(wire))
		if err != nil || string(jupyter.AppendFrame(nil, f)) != wire {
			t.Errorf("%s: %v %+v", wire, err, f)
		}
	}
	for _, wire := range []string{``, `[]`, `{}`, `[1]`, `["stdout","a"]x`, `["stdout"`, "[\"stdout\",\"\xff\"]"} {
		if _, err := jupyter.ParseFrame([]byte(wire)); !errors.Is(err, jupyter.ErrMalformed) {
			t.Errorf("%q: %v", wire, err)
		}
	}
}

// FuzzMessages: what is accepted is put together again such that it reads the
// same, for us and for encoding/json.
func FuzzMessages(f *testing.F) {
	m := message()
	f.Add(jupyter.AppendV1(nil, m))
	m.Buffers = [][]byte{{1}, nil}
	f.Add(jupyter.AppendV1(nil, m))
	binaryForm, _ := jupyter.AppendLegacy(nil, m)
	f.Add(binaryForm)
	textForm, _ := jupyter.AppendLegacy(nil, message())
	f.Add(textForm)
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := jupyter.ParseV1(b); err == nil {
			if again := jupyter.AppendV1(nil, m); !bytes.Equal(again, b) {
				t.Errorf("v1 is not canonical:\n%q\n%q", b, again)
			}
		}
		for _, isText := range []bool{true, false} {
			m, err := jupyter.ParseLegacy(b, isText)
			if err != nil {
				continue
			}
			again, nowText := jupyter.AppendLegacy(nil, m)
			m2, err := jupyter.ParseLegacy(again, nowText)
			if err != nil || !cmp.Equal(m, m2, equateEmpty) {
				t.Errorf("legacy reads differently: %v\n%q\n%q", err, b, again)
			}
		}
	})
}

// FuzzCopy: JSON that we accept is JSON for encoding/json too, with the same
// meaning, and its copy is a fixed point.
func FuzzCopy(f *testing.F) {
	for _, s := range []string{`{"a":["b",1,-0.5e+3,true,null,"\u00e9\ud83d\ude00"],"c":{}}`, `"\ud800"`, `[[],{}]`, `{"a":1,"a":2}`, "\"\xff\""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := jupyter.Copy(nil, b, same)
		if err != nil {
			if !errors.Is(err, jupyter.ErrMalformed) {
				t.Errorf("error %v", err)
			}
			return
		}
		if err := jupyter.Valid(b); err != nil {
			t.Errorf("Copy takes what Valid does not: %v", err)
		}
		again, err := jupyter.Copy(nil, out, same)
		if err != nil || !bytes.Equal(again, out) {
			t.Errorf("no fixed point: %v\n%q\n%q", err, out, again)
		}
		var want, got any
		wantErr := decode(b, &want)
		if gotErr := decode(out, &got); wantErr != nil || gotErr != nil {
			t.Fatalf("encoding/json: %v, %v\n%q\n%q", wantErr, gotErr, b, out)
		}
		if utf8.Valid(b) && !cmp.Equal(want, got) {
			t.Errorf("another meaning:\n%q\n%q", b, out)
		}
	})
}

func decode(b []byte, v *any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return d.Decode(v)
}

// FuzzNotebook: nothing breaks, and what is accepted is stable.
func FuzzNotebook(f *testing.F) {
	f.Add([]byte(`{"cells":[{"cell_type":"code","source":["a"],"outputs":[{"output_type":"stream","text":["x"]}]}],"nbformat":4}`))
	f.Add([]byte(`{"worksheets":[{"cells":[{"input":"x"}]}],"nbformat":3}`))
	f.Add([]byte(`["stdout","x"]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := jupyter.RewriteNotebook(nil, b, same)
		if err == nil {
			if again, err := jupyter.RewriteNotebook(nil, out, same); err != nil || !bytes.Equal(again, out) {
				t.Errorf("no fixed point: %v\n%q\n%q", err, out, again)
			}
		}
		if fr, err := jupyter.ParseFrame(b); err == nil {
			if again, err := jupyter.ParseFrame(jupyter.AppendFrame(nil, fr)); err != nil || !cmp.Equal(fr, again, equateEmpty) {
				t.Errorf("terminal frame reads differently: %v", err)
			}
		}
	})
}
