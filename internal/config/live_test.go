package config

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey"
)

// settings is workspace.Settings, which this room may not import.
var _ interface {
	Classes() []bailey.Class
	Class(name string) (bailey.Class, bool)
	QuotaFor(user bailey.User) bailey.Quota
	GroupQuotas(user bailey.User) map[string]bailey.Quota
} = (*Live)(nil)

const (
	digestA = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	digestB = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	digestC = "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc"
)

func mustLoad(t *testing.T, text string) *Config {
	t.Helper()
	cfg, err := Load(t.Context(), Source{Path: write(t, text)})
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return cfg
}

func TestLiveClasses(t *testing.T) {
	cfg := mustLoad(t, "images: {pinned: \""+digestA+"\"}\nclasses:\n"+
		"  - {name: z, image: pinned, groups: [g]}\n  - {name: a, image: "+digestB+"}\n  - {name: m, image: found, title: Em}\n  - {name: n, image: nowhere}\n")
	l := NewLive(nil)
	if got := l.Classes(); len(got) != 0 {
		t.Errorf("a new Live has classes %v", got)
	}
	var asked []string
	l.Set(cfg, func(name string) string {
		asked = append(asked, name)
		return map[string]string{"found": digestC}[name]
	})
	var got []string
	for _, c := range l.Classes() {
		got = append(got, c.Name+" "+c.Title+" "+c.Digest)
	}
	want := []string{"z z " + digestA, "a a " + digestB, "m Em " + digestC, "n n "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("classes, in the order of the file (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"found", "nowhere"}, asked); diff != "" {
		t.Errorf("names that the resolver was asked for (-want +got):\n%s", diff)
	}
	if c, ok := l.Class("m"); !ok || c.Digest != digestC || c.StartLimit != time.Minute {
		t.Errorf("Class(m) = %+v, %t", c, ok)
	}
	if c, ok := l.Class("none"); ok {
		t.Errorf("Class(none) = %+v, want none", c)
	}
	// What a caller does to its copy must not reach the next caller: the groups
	// decide who may use the class.
	l.Classes()[0].Groups[0] = "everybody"
	if c, _ := l.Class("z"); c.Groups[0] != "g" {
		t.Errorf("a caller could change the groups of a class to %v", c.Groups)
	}
}

func TestLiveFallsBackToDefaultClasses(t *testing.T) {
	l := NewLive(DefaultClasses([]string{"notebook"}, 4, 8<<30, 0, false))
	l.Set(mustLoad(t, ""), func(string) string { return digestA })
	if c, ok := l.Class("notebook"); !ok || c.Digest != digestA {
		t.Errorf("without classes in the file: notebook = %+v, %t", c, ok)
	}
	l.Set(mustLoad(t, "classes: [{name: own, image: notebook}]\n"), nil)
	if _, ok := l.Class("notebook"); ok {
		t.Error("the fallback class is still there beside configured ones")
	}
	l.Set(mustLoad(t, "images: {notebook: \""+digestB+"\"}\n"), func(string) string { return digestA })
	if c, _ := l.Class("notebook"); c.Digest != digestB {
		t.Errorf("the pinned digest of a fallback class: got %s, want %s", c.Digest, digestB)
	}
}

func TestLiveQuotas(t *testing.T) {
	l := NewLive(nil)
	l.Set(mustLoad(t, `
quotas:
  default: {workspaces: 2, cpus: 4, memory: 8GiB, gpus: 0}
  users:
    alice: {gpus: 2, memory: 0}
    empty:
  groups:
    vision: {gpus: 4}
    ops: {workspaces: 1, cpus: 1, memory: 1GiB, gpus: 1}
`), nil)
	base := bailey.Quota{Workspaces: 2, CPUMillis: 4000, MemoryBytes: 8 << 30}
	tests := []struct {
		user   bailey.User
		want   bailey.Quota
		groups map[string]bailey.Quota
	}{
		{bailey.User{Name: "alice", Groups: []string{"vision", "unknown"}}, bailey.Quota{Workspaces: 2, CPUMillis: 4000, GPUs: 2}, map[string]bailey.Quota{"vision": {GPUs: 4}}},
		{bailey.User{Name: "bob"}, base, map[string]bailey.Quota{}},
		{bailey.User{Name: "empty"}, base, map[string]bailey.Quota{}},
		{bailey.User{Name: "root", Role: bailey.RoleAdmin, Groups: []string{"ops"}}, base, map[string]bailey.Quota{"ops": {Workspaces: 1, CPUMillis: 1000, MemoryBytes: 1 << 30, GPUs: 1}}},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, l.QuotaFor(tt.user)); diff != "" {
			t.Errorf("QuotaFor(%s) (-want +got):\n%s", tt.user.Name, diff)
		}
		if diff := cmp.Diff(tt.groups, l.GroupQuotas(tt.user)); diff != "" {
			t.Errorf("GroupQuotas(%s) (-want +got):\n%s", tt.user.Name, diff)
		}
	}
}

// TestLiveIsOneSnapshot reads while another goroutine swaps: a class and the
// quota beside it always come from one configuration.
func TestLiveIsOneSnapshot(t *testing.T) {
	var both []*Config
	for i := 1; i <= 2; i++ {
		both = append(both, mustLoad(t, fmt.Sprintf("classes: [{name: a, image: x, pids: %d}, {name: b, image: x, pids: %d}]\n", 1000*i, 1000*i)))
	}
	l := NewLive(nil)
	l.Set(both[0], nil)
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 500 {
			l.Set(both[i%2], nil)
		}
	})
	for range 500 {
		if c := l.Classes(); c[0].Pids != c[1].Pids {
			t.Fatalf("classes of two configurations at once: %d and %d", c[0].Pids, c[1].Pids)
		}
	}
	wg.Wait()
}

func TestClassDefaults(t *testing.T) {
	tests := []struct {
		text                 string
		shm, tmp, title, chk string
	}{
		{"memory: 4GiB", "2GiB", "512MiB", "a", "python"},
		{"memory: 512GiB, gpus: 1", "32GiB", "2GiB", "a", "cuda"},
		{"memory: 256MiB, title: A B", "128MiB", "32MiB", "A B", "python"},
		{"shm: 1GiB, tmp: 17MiB, self_check: none, gpus: 2", "1GiB", "17MiB", "a", "none"},
	}
	for _, tt := range tests {
		c := mustLoad(t, "classes: [{name: a, image: b, "+tt.text+"}]\n").Classes[0]
		if c.Shm.String() != tt.shm || c.Tmp.String() != tt.tmp || c.Title != tt.title || c.SelfCheck != tt.chk {
			t.Errorf("%s: shm %s, tmp %s, title %s, self_check %s; want %s, %s, %s, %s", tt.text, c.Shm, c.Tmp, c.Title, c.SelfCheck, tt.shm, tt.tmp, tt.title, tt.chk)
		}
	}
}

func TestDefaultClasses(t *testing.T) {
	const gb = int64(1) << 30
	tests := []struct {
		name   string
		images []string
		cpus   int
		memory int64
		gpus   int
		demo   bool
		want   []string
	}{
		{"nothing", nil, 8, 32 * gb, 8, false, nil},
		{"laptop demo", []string{"pytorch", "notebook"}, 4, 16 * gb, 0, true, []string{"notebook notebook 2000m 2GiB python 0", "pytorch pytorch 2000m 4GiB torch 0"}},
		{"tiny", []string{"notebook"}, 1, gb, 0, true, []string{"notebook notebook 1000m 512MiB python 0"}},
		{"absurdly tiny", []string{"notebook"}, 0, 0, 0, false, []string{"notebook notebook 1000m 256MiB python 0"}},
		{"server", []string{"notebook", "pytorch"}, 64, 512 * gb, 0, false, []string{"notebook notebook 8000m 16GiB python 0", "pytorch pytorch 8000m 16GiB torch 0"}},
		{"GPU server with CUDA", []string{"pytorch", "cuda"}, 96, 1024 * gb, 8, false, []string{"pytorch pytorch 8000m 16GiB torch 0", "pytorch-gpu cuda 8000m 96GiB cuda 1"}},
		{"GPU server without CUDA", []string{"pytorch"}, 16, 64 * gb, 1, false, []string{"pytorch pytorch 8000m 16GiB torch 0", "pytorch-gpu pytorch 8000m 32GiB cuda 1"}},
		{"CUDA image without a GPU", []string{"cuda"}, 16, 64 * gb, 0, false, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, c := range DefaultClasses(tt.images, tt.cpus, tt.memory, tt.gpus, tt.demo) {
				got = append(got, fmt.Sprintf("%s %s %dm %s %s %d", c.Name, c.Image, c.CPUMillis, Bytes(c.MemoryBytes), c.SelfCheck, c.GPUs))
				if c.ShmBytes+c.TmpBytes >= c.MemoryBytes || c.ShmBytes < int64(16*mib) || c.TmpBytes < int64(16*mib) || c.Title == "" || c.Pids < 256 || c.StartLimit == 0 {
					t.Errorf("class %s would not pass as configuration: %+v", c.Name, c)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("classes (-want +got):\n%s", diff)
			}
		})
	}
}

// TestQuotaNames proves that a user cannot take another's quota by a name that
// merely looks alike.
func TestQuotaNames(t *testing.T) {
	l := NewLive(nil)
	l.Set(mustLoad(t, "quotas: {users: {alice: {gpus: 8}}}\n"), nil)
	for _, name := range []string{"Alice", "alice ", "аlice", "alic", strings.Repeat("alice", 2), ""} {
		if got := l.QuotaFor(bailey.User{Name: name}).GPUs; got != 1 {
			t.Errorf("QuotaFor(%q) has %d GPUs, want the default's 1", name, got)
		}
	}
}
