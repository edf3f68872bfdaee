package gateway_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/gateway"
	"github.com/baileyhq/bailey/internal/inspect"
	"github.com/baileyhq/bailey/internal/jupyter"
	"github.com/baileyhq/bailey/internal/secret"
)

// Ada runs a cell in her notebook. The journal says that she did, in which
// workspace, how large the code was and how it ended; the same cell again has
// the same hash; the code itself is nowhere. It holds whatever the filter's mode
// is, and not for a class that has it switched off.
func TestWhichCodeIsRunStandsInTheJournal(t *testing.T) {
	const code = "login('hunter2')"
	for name, tt := range map[string]struct {
		mode    inspect.Mode
		audited bool
	}{
		"the filter masks":          {inspect.Mask, true},
		"the filter is off":         {inspect.Off, true},
		"the class has it off":      {inspect.Mask, false},
		"neither filter nor record": {inspect.Off, false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, v1 := range []bool{true, false} {
				found := &findings{}
				f, err := filter.New(filter.Config{
					Rules: compile(t), Report: found.report, Key: secret.New("k"), Settings: func(string) filter.Settings { return filter.Settings{Mode: tt.mode} },
				})
				if err != nil {
					t.Fatal(err)
				}
				k := &kernel{got: make(chan jupyter.Message, 4)}
				var answers *websocket.Conn
				ready := make(chan struct{})
				k.say = func(c *websocket.Conn, _ bool) { answers = c; close(ready) }
				w := newWorld(t, k, func(c *gateway.Config) {
					c.Filter, c.CellKey = f, secret.New("cells")
					c.AuditCells = func(string) bool { return tt.audited }
				})
				page := kernelSocket(t, w, v1)
				<-ready
				for i, status := range []string{"error", "ok"} {
					id := fmt.Sprintf("cell-%d", i)
					m := kernelMessage("shell", "execute_request", fmt.Sprintf(`{"code":%q,"silent":false}`, code))
					m.Header = fmt.Appendf(nil, `{"msg_id":%q,"msg_type":"execute_request","session":"s"}`, id)
					m.Parent = []byte(`{}`)
					sendMessage(page, v1, m)
					<-k.got
					answer := kernelMessage("shell", "execute_reply", fmt.Sprintf(`{"status":%q}`, status))
					answer.Parent = fmt.Appendf(nil, `{"msg_id":%q,"msg_type":"execute_request"}`, id)
					sendMessage(answers, v1, answer)
					sendMessage(answers, v1, idle)
					readUntilIdle(t, page, v1)
				}
				if !tt.audited {
					if got := w.journal.of(audit.KernelExecute); len(got) != 0 {
						t.Errorf("v1 %v: journal has %+v", v1, got)
					}
					continue
				}
				eventually(t, "both runs are recorded", func() bool { return len(w.journal.of(audit.KernelExecute)) == 2 })
				got := w.journal.of(audit.KernelExecute)
				if got[0].Outcome == audit.Success { // they are written side by side
					got[0], got[1] = got[1], got[0]
				}
				a, b := got[0], got[1]
				if a.Outcome != audit.Failure || a.Reason != audit.CellError || b.Outcome != audit.Success ||
					a.Actor.ID != "u-ada" || a.Target.Kind != "workspace" || a.Attrs.Size != int64(len(code)) || a.Attrs.Sum == "" || a.Attrs.Sum != b.Attrs.Sum {
					t.Errorf("v1 %v: journal has %+v", v1, got)
				}
				if line, _ := json.Marshal(got); strings.Contains(string(line), "hunter2") || strings.Contains(w.log.String(), "hunter2") {
					t.Error("the code is in the journal or the log")
				}
			}
		})
	}
}

// To run something and close the page at once is no way around the journal.
func TestACellOfAClosedPageStandsInTheJournal(t *testing.T) {
	k := &kernel{got: make(chan jupyter.Message, 1)}
	f, err := filter.New(filter.Config{Rules: compile(t), Report: (&findings{}).report, Key: secret.New("k"), Settings: func(string) filter.Settings { return filter.Settings{} }})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, k, func(c *gateway.Config) {
		c.Filter, c.CellKey, c.AuditCells = f, secret.New("cells"), func(string) bool { return true }
	})
	page := kernelSocket(t, w, true)
	m := kernelMessage("shell", "execute_request", `{"code":"steal()"}`)
	sendMessage(page, true, m)
	<-k.got
	_ = page.CloseNow()
	eventually(t, "the run is recorded", func() bool {
		got := w.journal.of(audit.KernelExecute)
		return len(got) == 1 && got[0].Reason == audit.Unanswered
	})
}
