package filter_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/inspect"
	"github.com/baileyhq/bailey/internal/jupyter"
	"github.com/baileyhq/bailey/internal/secret"
)

const known = "Zq8-Lm3v-Xt9c-Rw2k-Hs7d"

var compiled = sync.OnceValues(func() (*inspect.Set, error) { return inspect.Compile(inspect.Config{}) })

type seen struct {
	mu   sync.Mutex
	list []filter.Finding
}

func (s *seen) add(f filter.Finding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, f)
}

func newFilter(tb testing.TB, settings filter.Settings) (*filter.Filter, *filter.Scope, *seen) {
	tb.Helper()
	set, err := compiled()
	if err != nil {
		tb.Fatal(err)
	}
	found := &seen{}
	f, err := filter.New(filter.Config{
		Rules: set, Report: found.add, Settings: func(string) filter.Settings { return settings },
		Secrets: func(string) map[string]secret.Value { return map[string]secret.Value{"KEY": secret.New(known)} },
	})
	if err != nil {
		tb.Fatal(err)
	}
	return f, f.For(filter.Subject{UserID: "u1", User: "ada", WorkspaceID: "w1"}, nil), found
}

func message(channel, msgType, content string) filter.Message {
	return filter.Message{Data: jupyter.AppendV1(nil, jupyter.Message{
		Channel: channel, Header: fmt.Appendf(nil, `{"msg_id":"m","msg_type":%q}`, msgType),
		Parent: []byte(`{"msg_id":"p"}`), Metadata: []byte(`{}`), Content: []byte(content),
	})}
}

func stream(name, text string) filter.Message {
	b, _ := json.Marshal(map[string]string{"name": name, "text": text})
	return message("iopub", "stream", string(b))
}

var (
	busy = message("iopub", "status", `{"execution_state":"busy"}`)
	idle = message("iopub", "status", `{"execution_state":"idle"}`)
)

// shown adds up what a client sees of a stream.
func shown(tb testing.TB, name string, messages []filter.Message) string {
	tb.Helper()
	var b strings.Builder
	for _, m := range messages {
		parts, err := jupyter.ParseV1(m.Data)
		if err != nil {
			tb.Fatal(err)
		}
		var c struct{ Name, Text string }
		if err := json.Unmarshal(parts.Content, &c); err == nil && c.Name == name {
			b.WriteString(c.Text)
		}
	}
	return b.String()
}

// A secret that is printed half, flushed, and printed half again does not come
// out: with the other stream in between, with a status message in between, and
// with the browser gone and back in between.
func TestASecretInTwoMessages(t *testing.T) {
	a, b := "x "+known[:12], known[12:]+" y\n"
	for name, say := range map[string][]filter.Message{
		"two messages":      {stream("stdout", a), stream("stdout", b), idle},
		"stderr in between": {stream("stdout", a), stream("stderr", "warning\n"), stream("stdout", b), idle},
		"a status between":  {stream("stdout", a), busy, stream("stdout", b), idle},
		"byte by byte":      append(bytewise(a+b), idle),
	} {
		for cut := range say {
			_, scope, _ := newFilter(t, filter.Settings{})
			c := scope.Conn(filter.Kernel, "k s", true)
			var got []filter.Message
			for i, m := range say {
				if i == cut { // the browser reconnects
					c.End()
					c = scope.Conn(filter.Kernel, "k s", true)
				}
				got = append(got, c.Down(m).On...)
			}
			if text := shown(t, "stdout", got); text != "x [REDACTED:secret:KEY] y\n" {
				t.Errorf("%s, reconnected before message %d: %q", name, cut, text)
			}
		}
	}
}

func bytewise(text string) (out []filter.Message) {
	for i := range len(text) {
		out = append(out, stream("stdout", text[i:i+1]))
	}
	return out
}

// The order of what a cell shows is kept: held text goes before a display, and
// what was held when nothing follows comes with the timer.
func TestHeldTextKeepsItsPlace(t *testing.T) {
	_, scope, _ := newFilter(t, filter.Settings{})
	c := scope.Conn(filter.Kernel, "k", true)
	var got []filter.Message
	got = append(got, c.Down(stream("stdout", "value "+known[:3])).On...)
	if c.Due().IsZero() {
		t.Error("nothing waits")
	}
	got = append(got, c.Down(message("iopub", "display_data", `{"data":{"text/plain":"picture"},"metadata":{}}`)).On...)
	var kinds []string
	for _, m := range got {
		parts, _ := jupyter.ParseV1(m.Data)
		h, _ := jupyter.ParseHeader(parts.Header)
		kinds = append(kinds, h.Type)
	}
	if kinds[len(kinds)-1] != "display_data" || shown(t, "stdout", got) != "value "+known[:3] {
		t.Errorf("order %q, text %q", kinds, shown(t, "stdout", got))
	}
	c.Down(stream("stdout", "more "+known[:4]))
	if text := shown(t, "stdout", c.Flush().On); !strings.HasSuffix(text, known[:4]) {
		t.Errorf("the timer brings %q", text)
	}
	if !c.Due().IsZero() {
		t.Error("something still waits")
	}
}

// A progress bar's line is never cut after its carriage return: pages forget
// where the cursor was between two messages.
func TestProgressBarsStayWhole(t *testing.T) {
	_, scope, _ := newFilter(t, filter.Settings{})
	c := scope.Conn(filter.Kernel, "k", true)
	var got []filter.Message
	var want string
	for i := range 21 {
		text := fmt.Sprintf("\r%3d%%|%-20s| %s", i*5, strings.Repeat("█", i), known[:i%5])
		want += text
		got = append(got, c.Down(stream("stdout", text)).On...)
		if i%7 == 6 {
			got = append(got, c.Flush().On...)
		}
	}
	got = append(got, c.Down(idle).On...)
	for _, m := range got {
		text := shown(t, "stdout", []filter.Message{m})
		if text != "" && (text[0] != '\r' || strings.Count(text, "\r") != strings.Count(text, "%|")) {
			t.Errorf("a message with part of a line: %q", text)
		}
	}
	if text := shown(t, "stdout", got); text != want {
		t.Errorf("all of it: %q", text)
	}
}

// New rules hold for the next message, without a connection ending; what is on
// trial is reported and does nothing.
func TestRulesChangeUnderAnOpenConnection(t *testing.T) {
	f, scope, found := newFilter(t, filter.Settings{})
	c := scope.Conn(filter.Kernel, "k", true)
	own := `[[rules]]
id = "acme"
regex = '''\b(acme_[a-z0-9]{16})\b'''
keywords = ["acme_"]
examples = ["acme_0123456789abcdef"]
`
	set, err := inspect.Compile(inspect.Config{Files: []inspect.File{{Name: "own.toml", Data: []byte(own)}}})
	if err != nil {
		t.Fatal(err)
	}
	text := "see acme_fedcba9876543210 end\n"
	show := func() string {
		return shown(t, "stdout", append(c.Down(stream("stdout", text)).On, c.Down(idle).On...))
	}
	if got := show(); got != text {
		t.Errorf("without the rule: %q", got)
	}
	f.Shadow(set)
	if got := show(); got != text {
		t.Errorf("on trial: %q", got)
	}
	if !slices.ContainsFunc(found.list, func(x filter.Finding) bool { return x.Shadow && x.Rule == "acme" }) {
		t.Errorf("the trial reports %+v", found.list)
	}
	f.Activate(set)
	if got := show(); got != "see [REDACTED:acme] end\n" {
		t.Errorf("in force: %q", got)
	}
}

// What cannot be read lets nothing pass, and is reported.
func TestInDoubtNothingPasses(t *testing.T) {
	_, scope, found := newFilter(t, filter.Settings{})
	c := scope.Conn(filter.Kernel, "k", true)
	v := c.Down(filter.Message{Data: []byte("\x01\x02 no kernel message " + known)})
	if len(v.On) != 0 || v.Close == "" || strings.Contains(v.Close, known) {
		t.Errorf("verdict %+v", v)
	}
	if len(found.list) != 1 || found.list[0].Failed != "malformed" {
		t.Errorf("findings %+v", found.list)
	}
}

// A cell that prints a token in a loop is two events a minute, not a flood.
func TestTheLedgerCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got []int64
		l := filter.NewLedger(func(e filter.Entry) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, e.Count)
		})
		f := filter.Finding{Subject: filter.Subject{WorkspaceID: "w"}, Rule: "jwt", Mode: inspect.Mask, Sum: "s"}
		for range 1000 {
			l.Add(f)
		}
		other := f
		other.Sum = "t"
		l.Add(other)
		time.Sleep(2 * time.Minute)
		l.Add(f)
		l.Add(f)
		l.Close()
		slices.Sort(got)
		if want := []int64{1, 1, 1, 1, 999}; !cmp.Equal(got, want) {
			t.Errorf("counts %v, want %v", got, want)
		}
	})
}

// FuzzConn: whatever a workspace sends, the known secret is in nothing that
// comes out, and nothing panics.
func FuzzConn(f *testing.F) {
	f.Add(stream("stdout", known).Data, false)
	f.Add(message("iopub", "comm_msg", `{"data":{"`+known+`":["`+known+`"]}}`).Data, false)
	f.Add([]byte(`{"header":{"msg_type":"error"},"content":{"traceback":["`+known[:9]+`","`+known[9:]+`"]},"channel":"iopub"}`), true)
	f.Add([]byte(`["stdout","`+known+`"]`), true)
	_, scope, _ := newFilter(f, filter.Settings{})
	f.Fuzz(func(t *testing.T, data []byte, text bool) {
		for _, kind := range []filter.Route{filter.Kernel, filter.Terminal, filter.Socket} {
			for _, v1 := range []bool{true, false} {
				c := scope.Conn(kind, t.Name(), v1)
				out := c.Down(filter.Message{Text: text, Data: slices.Clone(data)}).On
				out = append(out, c.Flush().On...)
				for _, m := range out {
					if strings.Contains(string(m.Data), known) {
						t.Errorf("%s: the secret leaves in %q", kind, m.Data)
					}
				}
			}
		}
	})
}

// BenchmarkKernelMessage is the added time for one message of 4 KiB on its way
// to the browser.
func BenchmarkKernelMessage(b *testing.B) {
	_, scope, _ := newFilter(b, filter.Settings{})
	line := "epoch 12 step 3400 loss 0.7312 lr 3.0e-04 tokens/s 18234 /workspace/run/checkpoints\n"
	for _, size := range []int{80, 4 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			c := scope.Conn(filter.Kernel, "bench", true)
			m := stream("stdout", strings.Repeat(line, size/len(line)+1)[:size])
			b.SetBytes(int64(len(m.Data)))
			b.ReportAllocs()
			for b.Loop() {
				if v := c.Down(m); v.Close != "" {
					b.Fatal(v.Close)
				}
			}
		})
	}
}
