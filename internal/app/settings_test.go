package app

import (
	"slices"
	"testing"

	"github.com/baileyhq/bailey/internal/engine"
)

// An image that was built again with the same package set has the same date;
// the one that lost its tag to the new build must not be what starts.
func TestTheCatalogueTakesTheNewestBuild(t *testing.T) {
	image := func(id, name, created string, tags ...string) engine.Image {
		return engine.Image{ID: id, Labels: map[string]string{imageLabel: name, "org.opencontainers.image.created": created}, Tags: tags}
	}
	tests := []struct {
		name   string
		images []engine.Image
		want   string // ID under the name "notebook"; empty: none
	}{
		{"one", []engine.Image{image("a", "notebook", "2026-11-04")}, "a"},
		{"superseded by a build of the same packages", []engine.Image{image("z", "notebook", "2026-11-04"), image("a", "notebook", "2026-11-04", "bailey/notebook:x")}, "a"},
		{"superseded, though it says it is newer", []engine.Image{image("z", "notebook", "2030-01-01"), image("a", "notebook", "2026-11-04", "bailey/notebook:x")}, "a"},
		{"two tags, the newer packages", []engine.Image{image("z", "notebook", "2026-11-04", "t:1"), image("a", "notebook", "2026-11-05", "t:2")}, "a"},
		{"a tie", []engine.Image{image("a", "notebook", "d", "t:1"), image("b", "notebook", "d", "t:2")}, "b"},
		{"a name that is no name", []engine.Image{image("a", "../notebook", "d", "t:1")}, ""},
		{"another image", []engine.Image{image("a", "pytorch", "d", "t:1")}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			reversed := slices.Clone(tt.images)
			slices.Reverse(reversed)
			for _, images := range [][]engine.Image{tt.images, reversed} {
				if got := labelled(images)["notebook"]; got != tt.want {
					t.Errorf("labelled(%v)[notebook] = %q, want %q", images, got, tt.want)
				}
			}
		})
	}
}
