package filter_test

import (
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/filter"
)

// A program that draws in a terminal breaks what is too long at its edge. When
// the edge moves, what is broken at the new one is found like what was broken at
// the old.
func TestAScreenThatBecomesWider(t *testing.T) {
	const was, is = 91, 117 // of no width at which programs break by themselves
	token := "ghp_" + "q8Zk3Wn5Vb1Xc7Rt" + "9Ym2Lp4Hs6Jd0FgNxTuA"
	// broken draws the token across the edge of a screen of that width.
	broken := func(width int) string {
		line := strings.Repeat(".", width-20-1) + " " + token
		return line[:width] + "\r\n" + line[width:] + "\r\n$ "
	}
	for _, tt := range []struct {
		name  string
		drawn int // at this width
		moved int // the edge, before; 0: it is not
		want  bool
	}{
		{"at the edge", was, 0, true},
		{"at no edge", is, 0, false},
		{"at the edge that moved", is, is, true},
		{"a size that is none", was, -1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, scope, _ := newFilter(t, filter.Settings{})
			p := scope.Pipe(filter.SSH, false, filter.Screen, was, "")
			out, err := p.Write([]byte("$ cat notes\r\n"))
			if err != nil {
				t.Fatal(err)
			}
			if tt.moved != 0 {
				p.Resize(tt.moved, 0)
			}
			for _, step := range []func() ([]byte, error){func() ([]byte, error) { return p.Write([]byte(broken(tt.drawn))) }, p.Close} {
				more, err := step()
				if err != nil {
					t.Fatal(err)
				}
				out = append(out, more...)
			}
			if hidden := !strings.Contains(string(out), token[20:]); hidden != tt.want {
				t.Errorf("the token is hidden: %v, want %v; shown is %q", hidden, tt.want, out)
			}
		})
	}
}
