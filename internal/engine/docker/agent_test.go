package docker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"

	"github.com/baileyhq/bailey/internal/engine"
)

// An upgrade brings another agent; what runs keeps the one it was started with,
// and is what it should be. Nothing else passes for an agent.
func TestWhichAgentAContainerMayHave(t *testing.T) {
	dir := t.TempDir()
	put := func(path string, content string, mode os.FileMode) string {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // whatever the umask is
			t.Fatal(err)
		}
		return path
	}
	in := func(name string) string { return filepath.Join(dir, "agent", name) }
	ours := put(in(AgentName([]byte("new"))), "new", 0o755)
	old := put(in(AgentName([]byte("old"))), "old", 0o755)
	link := in(AgentName([]byte("linked")))
	if err := os.Symlink(put(filepath.Join(dir, "elsewhere"), "linked", 0o755), link); err != nil {
		t.Fatal(err)
	}
	e := &Engine{cfg: Config{AgentPath: ours}}
	for what, tt := range map[string]struct {
		path string
		kept bool
	}{
		"ours":                           {ours, true},
		"an earlier one":                 {old, true},
		"one that was changed":           {put(in(AgentName([]byte("was this"))), "is that", 0o755), false},
		"one that others write to":       {put(in(AgentName([]byte("loose"))), "loose", 0o777), false},
		"a link":                         {link, false},
		"another file of the folder":     {put(in("agent"), "old", 0o755), false},
		"the right name in another one":  {put(filepath.Join(dir, "other", AgentName([]byte("old"))), "old", 0o755), false},
		"the right name a folder deeper": {put(in("deep/"+AgentName([]byte("old"))), "old", 0o755), false},
		"the way there around a corner":  {strings.Replace(old, "/agent/", "/agent/../agent/", 1), false},
		"one that is gone":               {in(AgentName([]byte("gone"))), false},
		"a folder":                       {in("deep"), false},
	} {
		got := e.agentOf(container.InspectResponse{Mounts: []container.MountPoint{
			{Destination: "/workspace", Source: old}, {Destination: engine.AgentBinary, Source: tt.path},
		}})
		want := ours
		if tt.kept {
			want = tt.path
		}
		if got != want {
			t.Errorf("%s: the agent should be %s, got %s", what, want, got)
		}
	}
}
