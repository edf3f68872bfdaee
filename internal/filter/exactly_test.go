package filter_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/inspect"
	"github.com/baileyhq/bailey/internal/jupyter"
	"github.com/baileyhq/bailey/internal/secret"
)

// A registered secret may have a mode of its own.
func TestAKnownSecretHasItsOwnMode(t *testing.T) {
	for mode, want := range map[inspect.Mode]string{
		inspect.Off: "a " + known + "\n", inspect.LogOnly: "a " + known + "\n", inspect.Alert: "a " + known + "\n",
		inspect.Mask: "a [REDACTED:secret:KEY]\n", inspect.Unset: "a [REDACTED:secret:KEY]\n", inspect.Block: "",
	} {
		_, scope, found := newFilter(t, filter.Settings{Rules: map[string]inspect.Mode{"secret:KEY": mode}})
		c := scope.Conn(filter.Kernel, "k", true)
		v := c.Down(stream("stdout", "a "+known+"\n"))
		more := c.Down(idle) // until then it might go on
		v.On, v.Stop = append(v.On, more.On...), v.Stop || more.Stop
		if mode == inspect.Block {
			if !v.Stop || strings.Contains(string(v.On[0].Data), known) {
				t.Errorf("block: %+v", v)
			}
		} else if got := shown(t, "stdout", v.On); got != want {
			t.Errorf("%v: %q, want %q", mode, got, want)
		}
		if reported := len(found.list) > 0; reported != (mode != inspect.Off) {
			t.Errorf("%v: reported is %v", mode, reported)
		}
	}
	// A ceiling holds for it too: nobody is blocked where the filter only watches.
	_, scope, _ := newFilter(t, filter.Settings{Mode: inspect.LogOnly, Rules: map[string]inspect.Mode{"secret:KEY": inspect.Block}})
	c := scope.Conn(filter.Kernel, "k", true)
	v := c.Down(stream("stdout", "a "+known+"\n"))
	if more := c.Down(idle); v.Stop || more.Stop || shown(t, "stdout", append(v.On, more.On...)) != "a "+known+"\n" {
		t.Errorf("sterner than the ceiling: %+v, %+v", v, more)
	}
}

// A mode that was registered with a secret holds in text, in pictures and in
// bytes, unless the settings name another for it.
func TestARegisteredMode(t *testing.T) {
	set, err := compiled()
	if err != nil {
		t.Fatal(err)
	}
	text, bytesOf := "a "+known+" b\n", append([]byte{0, 1, 2, 3, 0xff, 0xfe, 0}, known+"\x00\x01"...)
	for _, tt := range []struct {
		registered, configured inspect.Mode
		want                   inspect.Mode
	}{
		{inspect.Unset, inspect.Unset, inspect.Mask},
		{inspect.LogOnly, inspect.Unset, inspect.LogOnly},
		{inspect.Alert, inspect.Unset, inspect.Alert},
		{inspect.Block, inspect.Unset, inspect.Block},
		{inspect.Block, inspect.Alert, inspect.Alert},
		{inspect.Alert, inspect.Block, inspect.Block},
	} {
		found := &seen{}
		settings := filter.Settings{}
		if tt.configured != inspect.Unset {
			settings.Rules = map[string]inspect.Mode{"secret:KEY": tt.configured}
		}
		f, err := filter.New(filter.Config{
			Rules: set, Report: found.add, Settings: func(string) filter.Settings { return settings },
			Secrets:     func(string) map[string]secret.Value { return map[string]secret.Value{"KEY": secret.New(known)} },
			SecretModes: func(string) map[string]inspect.Mode { return map[string]inspect.Mode{"KEY": tt.registered} },
		})
		if err != nil {
			t.Fatal(err)
		}
		scope := f.For(filter.Subject{UserID: "u1", WorkspaceID: "w1"}, nil)
		got, err := scope.Exchange("GET", "/proxy/1/x").AnswerSmall("text/plain", []byte(text))
		if passes := string(got) == text; passes != (tt.want < inspect.Mask) || (err != nil) != (tt.want == inspect.Block) {
			t.Errorf("%+v: text becomes %q, %v", tt, got, err)
		}
		got, err = scope.Exchange("GET", "/proxy/1/x").AnswerSmall("application/octet-stream", bytesOf)
		if passes := bytes.Equal(got, bytesOf); passes != (tt.want < inspect.Mask) || (err != nil) != (tt.want >= inspect.Mask) {
			t.Errorf("%+v: bytes become %q, %v", tt, got, err)
		}
		b := scope.Exchange("GET", "/proxy/1/x").Stream("application/octet-stream", bytesOf, false)
		got, err = b.Write(nil, bytesOf)
		if err == nil {
			got, err = b.Close(got)
		}
		if passes := bytes.Equal(got, bytesOf); passes != (tt.want < inspect.Mask) || (err != nil) != (tt.want >= inspect.Mask) {
			t.Errorf("%+v: streamed bytes become %q, %v", tt, got, err)
		}
		if len(found.list) == 0 {
			t.Errorf("%+v: nothing is reported", tt)
		}
	}
}

// A message in which nothing is found goes on byte for byte as it came, in both
// protocols; one that can be read in two ways does not go on.
func TestAMessageWithoutFindingsIsNotRewritten(t *testing.T) {
	legacy := `{"header": {"msg_id": "m", "msg_type": "stream"}, "msg_id": "m", "msg_type": "stream", "parent_header": {"msg_id": "p"}, "metadata": {}, "content": {"name": "stdout", "text": "a\tb \u00e9 \/ \ud83d\ude00\n"}, "buffers": [], "channel": "iopub"}`
	v1 := message("iopub", "stream", `{ "name":"stdout",  "text":"a\tb \u00e9 \/ \ud83d\ude00\n"}`)
	for _, tt := range []struct {
		m  filter.Message
		v1 bool
	}{{v1, true}, {busy, true}, {idle, true}, {filter.Message{Text: true, Data: []byte(legacy)}, false}} {
		_, scope, _ := newFilter(t, filter.Settings{})
		was := bytes.Clone(tt.m.Data)
		v := scope.Conn(filter.Kernel, "k", tt.v1).Down(tt.m)
		if v.Close != "" || len(v.On) != 1 || !bytes.Equal(v.On[0].Data, was) || v.On[0].Text != tt.m.Text {
			t.Errorf("%s became %+v", was, v)
		}
	}
	for name, data := range map[string]string{
		"a name twice":                 strings.Replace(legacy, `"name"`, `"text": "`+known+`", "name"`, 1),
		"a name in another case":       strings.Replace(legacy, `"name"`, `"TEXT": "x", "name"`, 1),
		"an envelope's name twice":     strings.Replace(legacy, `"metadata": {}`, `"metadata": {}, "metadata": {}`, 1),
		"a header's name twice":        strings.Replace(legacy, `"msg_id": "m",`, `"msg_id": "m", "msg_id": "n",`, 1),
		"something behind the message": legacy + "{}",
	} {
		_, scope, _ := newFilter(t, filter.Settings{})
		if v := scope.Conn(filter.Kernel, "k", false).Down(filter.Message{Text: true, Data: []byte(data)}); v.Close == "" {
			t.Errorf("%s passes: %+v", name, v)
		}
	}
}

// What is no UTF-8, or half a character, is read differently by different
// readers: it is replaced, and the rest of the message is not touched.
func TestWhatReadersDisagreeAboutIsReplaced(t *testing.T) {
	for in, want := range map[string]string{
		`{"name":"stdout","text":"a\ud800b\n"}`:            "{\"name\":\"stdout\",\"text\":\"a\ufffdb\\n\"}",
		"{\"name\":\"stdout\",\"text\":\"a\xffb\\n\"}":     "{\"name\":\"stdout\",\"text\":\"a\ufffdb\\n\"}",
		`{"name":"stdout","text":"\n","x\ud800": [1, 2 ]}`: "{\"name\":\"stdout\",\"text\":\"\\n\",\"x\ufffd\": [1, 2 ]}",
	} {
		_, scope, _ := newFilter(t, filter.Settings{})
		v := scope.Conn(filter.Kernel, "k", true).Down(message("iopub", "stream", in))
		if len(v.On) != 1 {
			t.Errorf("%q: %+v", in, v)
			continue
		}
		m, err := jupyter.ParseV1(v.On[0].Data)
		if err != nil || string(m.Content) != want {
			t.Errorf("%q became %q, want %q", in, m.Content, want)
		}
	}
}

// Names are text as well: of an envelope's members, of what is in metadata, and
// of fields of an answer's header.
func TestNamesAreLookedAt(t *testing.T) {
	for _, data := range []string{
		`{"header":{"msg_id":"m","msg_type":"status"},"content":{"execution_state":"busy"},"channel":"iopub","` + known + `":1}`,
		`{"header":{"msg_id":"m","msg_type":"status","` + known + `":1},"content":{"execution_state":"busy"},"channel":"iopub"}`,
		`{"header":{"msg_id":"m","msg_type":"status"},"metadata":{"` + known + `":{}},"content":{"execution_state":"busy"},"channel":"iopub"}`,
		`{"header":{"msg_id":"m","msg_type":"display_data"},"content":{"data":{"text/plain":["` + known[:9] + `","` + known[9:] + `"]}},"channel":"iopub"}`,
	} {
		_, scope, found := newFilter(t, filter.Settings{})
		v := scope.Conn(filter.Kernel, "k", false).Down(filter.Message{Text: true, Data: []byte(data)})
		all := ""
		for _, m := range v.On {
			all += string(m.Data)
		}
		if strings.Contains(strings.ReplaceAll(all, `","`, ""), known) || len(found.list) == 0 {
			t.Errorf("%s passes as %s", data, all)
		}
	}
	_, scope, _ := newFilter(t, filter.Settings{})
	h := map[string][]string{"X-A": {"ok", "b " + known}, "X-" + known: {"1"}, "Date": {"Sat, 28 Nov 2026 03:46:00 GMT"}}
	if err := scope.Exchange("GET", "/x").Headers(h); err != nil {
		t.Fatal(err)
	}
	if len(h) != 2 || h["X-A"][1] != "b [REDACTED:secret:KEY]" || h["X-A"][0] != "ok" {
		t.Errorf("the header is %v", h)
	}
}
