package filter_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/inspect"
)

// Over SSH a program that draws a known secret letter by letter, at the edge of a
// screen that has scrolled, is masked before the screen holds it; with block the
// session ends. What is drawn on another row than it seems does not count.
func TestAScreenThatIsDrawnOverSSH(t *testing.T) {
	draw := func(row func(i int) int) string {
		var b strings.Builder
		b.WriteString("\x1b[?1049h\x1b[2J\x1b[24;1H" + strings.Repeat("scrolls\r\n", 30))
		for k := range len(known) {
			i := k * 7 % len(known) // of no order that is looked for by itself
			fmt.Fprintf(&b, "\x1b[%d;%dH%c", row(i), 41+i, known[i])
		}
		return b.String() + "\x1b[1;1H"
	}
	same := draw(func(int) int { return 12 })
	for name, tt := range map[string]struct {
		mode inspect.Mode
		text string
		want bool // something is found
	}{
		"one row":      {inspect.Mask, same, true},
		"one, blocked": {inspect.Block, same, true},
		"one, alerted": {inspect.Alert, same, true},
		"many rows":    {inspect.Mask, draw(func(i int) int { return 1 + i%20 }), false},
	} {
		_, scope, found := newFilter(t, filter.Settings{Rules: map[string]inspect.Mode{"secret:KEY": tt.mode}})
		p := scope.Pipe(filter.SSH, false, filter.Screen, 80, "")
		p.Resize(80, 24)
		var out []byte
		var err error
		for i := 0; i < len(tt.text) && err == nil; i += 64 {
			var more []byte
			more, err = p.Write([]byte(tt.text[i:min(i+64, len(tt.text))]))
			out = append(out, more...)
		}
		if err == nil {
			var more []byte
			more, err = p.Close()
			out = append(out, more...)
		}
		if got := len(found.list) > 0; got != tt.want {
			t.Errorf("%s: found is %v, want %v", name, got, tt.want)
		}
		if (err != nil) != (tt.mode == inspect.Block) {
			t.Errorf("%s: %v", name, err)
		}
		if passes := string(out) == tt.text; passes != (!tt.want || tt.mode == inspect.Alert) {
			t.Errorf("%s: passes as it is: %v", name, passes)
		}
	}
}
