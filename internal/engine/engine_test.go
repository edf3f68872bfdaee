package engine_test

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/secret"
)

func spec() engine.Spec {
	return engine.Spec{
		Run: "01k9z0000000000000000000r1", Workspace: "01k9z0000000000000000000w1", Owner: "01k9z0000000000000000000a1",
		Name: "alice", Class: "small", Image: "sha256:" + strings.Repeat("ab", 32), UID: 20001,
		VolumeID: "01k9z0000000000000000000v1", CPUMillis: 2500, MemoryBytes: 4 << 30,
		JupyterToken: secret.New("0123456789abcdef"),
	}
}

const gpu = "GPU-11111111-2222-3333-4444-555555555555"

func TestSpecCheck(t *testing.T) {
	tests := []struct {
		name   string
		change func(*engine.Spec)
		ok     bool
	}{
		{"as it is", func(*engine.Spec) {}, true},
		{"id of bailey.NewID", func(s *engine.Spec) { s.Run = bailey.NewID() }, true},
		{"id in capitals", func(s *engine.Spec) { s.Run = strings.ToUpper(s.Run) }, false},
		{"id with a letter that ULIDs lack", func(s *engine.Spec) { s.Owner = "01k9z0000000000000000000u1" }, false},
		{"id too long", func(s *engine.Spec) { s.Workspace += "0" }, false},
		{"id with a line break", func(s *engine.Spec) { s.VolumeID += "\n" }, false},
		{"image by repository digest", func(s *engine.Spec) { s.Image = "registry.example.org:5000/team/x@" + s.Image }, true},
		{"image by tag", func(s *engine.Spec) { s.Image = "x:latest" }, false},
		{"image by tag and digest", func(s *engine.Spec) { s.Image = "x:1@" + s.Image }, true},
		{"image by short digest", func(s *engine.Spec) { s.Image = "sha256:abcd" }, false},
		{"image by sha512", func(s *engine.Spec) { s.Image = "sha512:" + strings.Repeat("a", 128) }, false},
		{"image that climbs", func(s *engine.Spec) { s.Image = "a/../../b@" + s.Image }, false},
		{"image with a query", func(s *engine.Spec) { s.Image = "a?x@" + s.Image }, false},
		{"lowest uid", func(s *engine.Spec) { s.UID = 20000 }, true},
		{"highest uid", func(s *engine.Spec) { s.UID = 59999 }, true},
		{"uid too low", func(s *engine.Spec) { s.UID = 19999 }, false},
		{"uid too high", func(s *engine.Spec) { s.UID = 60000 }, false},
		{"root", func(s *engine.Spec) { s.UID = 0 }, false},
		{"negative uid", func(s *engine.Spec) { s.UID = -1 }, false},
		{"little cpu", func(s *engine.Spec) { s.CPUMillis = 99 }, false},
		{"little memory", func(s *engine.Spec) { s.MemoryBytes = engine.MinMemoryBytes - 1 }, false},
		{"endless memory", func(s *engine.Spec) { s.MemoryBytes = -1 }, false},
		{"few pids", func(s *engine.Spec) { s.Pids = 1 }, false},
		{"endless pids", func(s *engine.Spec) { s.Pids = -1 }, false},
		{"negative shm", func(s *engine.Spec) { s.ShmBytes = -1 }, false},
		{"negative tmp", func(s *engine.Spec) { s.TmpBytes = -1 }, false},
		{"endless grace", func(s *engine.Spec) { s.StopGrace = time.Hour }, false},
		{"negative grace", func(s *engine.Spec) { s.StopGrace = -1 }, false},
		{"a gpu", func(s *engine.Spec) { s.GPUs = []string{gpu} }, true},
		{"a slice", func(s *engine.Spec) { s.GPUs = []string{"MIG" + gpu[3:]} }, true},
		{"a gpu twice", func(s *engine.Spec) { s.GPUs = []string{gpu, gpu} }, false},
		{"a gpu by index", func(s *engine.Spec) { s.GPUs = []string{"0"} }, false},
		{"two gpus in one", func(s *engine.Spec) { s.GPUs = []string{gpu + "," + gpu} }, false},
		{"all gpus", func(s *engine.Spec) { s.GPUs = []string{"all"} }, false},
		{"base path", func(s *engine.Spec) { s.BasePath = "/user/alice/" }, true},
		{"base path without an end", func(s *engine.Spec) { s.BasePath = "/user" }, false},
		{"base path with a host", func(s *engine.Spec) { s.BasePath = "//evil/" }, false},
		{"base path that climbs", func(s *engine.Spec) { s.BasePath = "/a/../" }, false},
		{"short token", func(s *engine.Spec) { s.JupyterToken = secret.New("short") }, false},
		{"token with a line break", func(s *engine.Spec) { s.JupyterToken = secret.New("0123456789abcdef\nx") }, false},
		{"environment", func(s *engine.Spec) { s.Env = map[string]string{"HF_ENDPOINT": "x", "http_proxy": "y"} }, true},
		{"environment of the loader", func(s *engine.Spec) { s.Env = map[string]string{"LD_PRELOAD": "x"} }, false},
		{"environment value with NUL", func(s *engine.Spec) { s.Env = map[string]string{"A": "x\x00"} }, false},
		{"environment value too long", func(s *engine.Spec) { s.Env = map[string]string{"A": strings.Repeat("x", engine.MaxEnvValue+1)} }, false},
		{"proxied network", func(s *engine.Spec) { s.Network = engine.NetworkProxied }, true},
		{"the host's network", func(s *engine.Spec) { s.Network = "host" }, false},
		{"another container's network", func(s *engine.Spec) { s.Network = "container:x" }, false},
		{"name with HTML", func(s *engine.Spec) { s.Name = "<b>" }, false},
		{"class with a path", func(s *engine.Spec) { s.Class = "../x" }, false},
	}
	for _, tt := range tests {
		s := spec()
		tt.change(&s)
		err := s.Check()
		if (err == nil) != tt.ok || err != nil && bailey.KindOf(err) != bailey.Invalid {
			t.Errorf("%s: Check = %v, want allowed %t", tt.name, err, tt.ok)
		}
	}
}

func TestSpecHash(t *testing.T) {
	s := spec()
	want := s.Hash()
	if got := s.Defaulted().Hash(); got != want {
		t.Errorf("with its defaults spelled out, the hash is %s, want %s", got, want)
	}
	same := s
	same.JupyterToken = secret.New("another-token-of-some-length")
	if got := same.Hash(); got != want {
		t.Error("the hash depends on the token, so it tells something about it")
	}
	a, b := s, s
	a.GPUs, b.GPUs = []string{"GPU-1", "GPU-2"}, []string{"GPU-2", "GPU-1"}
	if a.Hash() != b.Hash() {
		t.Error("the hash depends on the order of the GPUs")
	}
	// Every field but the secrets counts: a field that somebody adds must too.
	typ := reflect.TypeFor[engine.Spec]()
	for i := range typ.NumField() {
		name := typ.Field(i).Name
		changed := s
		v := reflect.ValueOf(&changed).Elem().Field(i)
		switch field := v.Addr().Interface().(type) {
		case *string:
			*field = "changed"
		case *int:
			*field = 12345
		case *int64:
			*field = 12345
		case *time.Duration:
			*field = 12345
		case *[]string:
			*field = []string{"changed"}
		case *engine.Network:
			*field = engine.NetworkProxied
		case *map[string]string:
			*field = map[string]string{"CHANGED": "1"}
		case *secret.Value, *map[string]secret.Value:
			continue
		default:
			t.Fatalf("field %s is of a type that this test does not know", name)
		}
		if changed.Hash() == want {
			t.Errorf("the hash does not depend on %s", name)
		}
	}
}

func TestDefaults(t *testing.T) {
	s := spec().Defaulted()
	if s.ShmBytes != 2<<30 || s.TmpBytes != 2<<30 || s.Pids != 4096 || s.BasePath != "/" || s.StopGrace != 10*time.Second {
		t.Errorf("defaults of 4 GiB: %+v", s)
	}
	big := spec()
	big.MemoryBytes = 512 << 30
	if s := big.Defaulted(); s.ShmBytes != 32<<30 || s.TmpBytes != 2<<30 {
		t.Errorf("defaults of 512 GiB: shm %d, tmp %d", s.ShmBytes, s.TmpBytes)
	}
}

func TestEnvAllowed(t *testing.T) {
	allowed := []string{"TERM", "LANG", "LC_ALL", "TZ", "HF_ENDPOINT", "HF_TOKEN", "PIP_INDEX_URL", "HTTP_PROXY", "https_proxy", "JUPYTERHUB_USER", "WANDB_MODE", "COLUMNS", "PYTHONUNBUFFERED", "PYTHONPATH", "MALLOC_ARENA_MAX", "NCCL_DEBUG"}
	denied := []string{
		"", "a", "A-B", "A B", "A=B", "A\n", "A\x00", "1A", "_", "PATH", "HOME", "USER", "SHELL", "TMPDIR", "path",
		"NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_X", "CUDA_VISIBLE_DEVICES", "CUDA_MPS_PIPE_DIRECTORY", "ROCR_VISIBLE_DEVICES",
		"LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "GCONV_PATH", "GLIBC_TUNABLES", "DOCKER_HOST", "BAILEY_SOCKET", "BASH_ENV", "ENV", "PYTHONSTARTUP", "PYTHONHOME",
		"NODE_OPTIONS", "JUPYTER_TOKEN", "OMP_NUM_THREADS", "XDG_CACHE_HOME", "TRITON_CACHE_DIR", "HTTPS_proxy", "ld_preload", strings.Repeat("A", 65),
		"BASH_FUNC_X", "ÄÖÜ",
	}
	for _, name := range allowed {
		if !engine.EnvAllowed(name) {
			t.Errorf("EnvAllowed(%q) = false, want true", name)
		}
	}
	for _, name := range denied {
		if engine.EnvAllowed(name) {
			t.Errorf("EnvAllowed(%q) = true, want false", name)
		}
	}
	// What the profile sets can never be set by a Spec.
	for _, kv := range spec().ProfileEnv(false) {
		if name, _, _ := strings.Cut(kv, "="); engine.EnvAllowed(name) {
			t.Errorf("EnvAllowed(%q) = true, but the profile sets it", name)
		}
	}
}

func TestProfileEnvGPUs(t *testing.T) {
	s := spec()
	other := "GPU-00000000-2222-3333-4444-555555555555"
	tests := []struct {
		gpus     []string
		injected bool
		want     string
	}{
		{nil, false, "void"},
		{nil, true, "void"},
		{[]string{gpu, other}, true, "void"},
		{[]string{gpu, other}, false, other + "," + gpu},
	}
	for _, tt := range tests {
		s.GPUs = tt.gpus
		if env := s.ProfileEnv(tt.injected); !slices.Contains(env, "NVIDIA_VISIBLE_DEVICES="+tt.want) {
			t.Errorf("GPUs %v, injected %t: %q, want devices %q", tt.gpus, tt.injected, env, tt.want)
		}
	}
}

func TestCheckDial(t *testing.T) {
	good := [][2]string{
		{"tcp", "127.0.0.1:8888"}, {"tcp", "127.9.9.9:1"}, {"tcp", "[::1]:65535"}, {"tcp", "localhost:6006"}, {"unix", "/tmp/x.sock"}, {"unix", "/workspace/a b"},
	}
	bad := [][2]string{
		{"tcp", ""},
		{"tcp", "127.0.0.1"},
		{"tcp", "127.0.0.1:"},
		{"tcp", "127.0.0.1:0"},
		{"tcp", "127.0.0.1:65536"},
		{"tcp", "127.0.0.1:08"},
		{"tcp", "127.0.0.1:+80"},
		{"tcp", "127.0.0.1:http"},
		{"tcp", ":8888"},
		{"tcp", "0.0.0.0:1"},
		{"tcp", "[::]:1"},
		{"tcp", "10.0.0.1:1"},
		{"tcp", "169.254.169.254:80"},
		{"tcp", "[fe80::1%lo]:1"},
		{"tcp", "[::1%lo]:1"},
		{"tcp", "[::ffff:10.0.0.1]:1"},
		{"tcp", "example.org:1"},
		{"tcp", "localhost.example.org:1"},
		{"tcp", "127.0.0.1:1\nDIAL tcp 10.0.0.1:1"},
		{"tcp", "127.1:80"},
		{"tcp", "2130706433:80"},
		{"tcp4", "127.0.0.1:1"},
		{"udp", "127.0.0.1:1"},
		{"", "127.0.0.1:1"},
		{"unix", ""},
		{"unix", "x"},
		{"unix", "/"},
		{"unix", "//x"},
		{"unix", "/a/../b"},
		{"unix", "/a/"},
		{"unix", "/a\nb"},
		{"unix", "/a\x00b"},
		{"unix", "@x"},
		{"unix", "/" + strings.Repeat("x", 5000)},
	}
	for _, a := range good {
		if err := engine.CheckDial(a[0], a[1]); err != nil {
			t.Errorf("CheckDial(%q, %q) = %v", a[0], a[1], err)
		}
	}
	for _, a := range bad {
		if err := engine.CheckDial(a[0], a[1]); bailey.KindOf(err) != bailey.Invalid {
			t.Errorf("CheckDial(%q, %q) = %v, want a refusal", a[0], a[1], err)
		}
	}
}

func FuzzCheckDial(f *testing.F) {
	for _, addr := range []string{"127.0.0.1:8888", "[::1]:1", "localhost:80", "10.0.0.1:1", "/tmp/x", "/a\nb", "[::ffff:127.0.0.1]:1"} {
		f.Add("tcp", addr)
		f.Add("unix", addr)
	}
	f.Fuzz(func(t *testing.T, network, addr string) {
		if engine.CheckDial(network, addr) != nil {
			return
		}
		if strings.ContainsAny(addr, "\n\r\x00") {
			t.Errorf("CheckDial(%q, %q) lets a line break through", network, addr)
		}
		if network == "tcp" && !strings.HasPrefix(addr, "127.") && !strings.HasPrefix(addr, "localhost:") && !strings.HasPrefix(addr, "[") {
			t.Errorf("CheckDial(%q, %q) lets a stranger through", network, addr)
		}
		if network != "tcp" && (network != "unix" || !strings.HasPrefix(addr, "/") || strings.Contains(addr, "..") && strings.Contains(addr, "/../")) {
			t.Errorf("CheckDial(%q, %q) lets this through", network, addr)
		}
	})
}

func FuzzSpecCheck(f *testing.F) {
	s := spec()
	f.Add(s.Run, s.Name, s.Image, "/", "A", "x", gpu)
	f.Add("../..", "a:b", "x@y", "//", "LD_PRELOAD", "\x00", "all")
	f.Fuzz(func(t *testing.T, id, name, image, base, env, value, card string) {
		s := spec()
		s.Run, s.Name, s.Image, s.BasePath, s.Env, s.GPUs = id, name, image, base, map[string]string{env: value}, []string{card}
		if s.Check() != nil {
			return
		}
		all := strings.Join([]string{id, name, image, s.BasePath, env, card}, "")
		if strings.ContainsAny(all, "\n\r\x00 ,") || strings.Contains(all, "..") && (strings.Contains(id, "..") || strings.Contains(s.BasePath, "/../")) || strings.Contains(name, ":") {
			t.Errorf("Check lets %q through", all)
		}
	})
}

func TestExecSpecCheck(t *testing.T) {
	good := engine.ExecSpec{Cmd: []string{"sh", "-c", "", "a\nb"}, Dir: "/tmp", Env: []string{"TERM=xterm=256"}}
	if err := good.Check(); err != nil {
		t.Errorf("Check(%+v) = %v", good, err)
	}
	many := make([]string, engine.MaxEnv+1)
	for i := range many {
		many[i] = fmt.Sprintf("A%d=", i)
	}
	for _, bad := range []engine.ExecSpec{
		{},
		{Cmd: []string{}},
		{Cmd: []string{""}},
		{Cmd: []string{"x", "a\x00"}},
		{Cmd: []string{"x"}, Dir: "relative"},
		{Cmd: []string{"x"}, Dir: "/a\x00"},
		{Cmd: []string{"x"}, Env: []string{"A"}},
		{Cmd: []string{"x"}, Env: []string{"=x"}},
		{Cmd: []string{"x"}, Env: []string{"HOME=/"}},
		{Cmd: []string{"x"}, Env: many},
	} {
		if err := bad.Check(); bailey.KindOf(err) != bailey.Invalid {
			t.Errorf("Check(%+v) = %v, want a refusal", bad, err)
		}
	}
}

// The numbers that field notes measured; a change of any is a new profile.
func TestStrictIsWhatItSays(t *testing.T) {
	p := engine.Strict()
	if p.Version != engine.ProfileVersion || !p.ReadOnlyRoot || !p.NoNewPrivileges || p.Network != "none" || p.IPC != "private" || p.CgroupNS != "private" || !slices.Equal(p.DropCaps, []string{"ALL"}) {
		t.Errorf("the profile is not strict: %+v", p)
	}
	tmpfs := map[string]engine.Tmpfs{}
	for _, m := range p.Tmpfs {
		tmpfs[m.Path] = m
	}
	if len(tmpfs) != 3 || !tmpfs["/tmp"].Exec || tmpfs["/run"].Exec || tmpfs["/run"].Bytes != 16<<20 || tmpfs["/var/tmp"].Bytes != 64<<20 {
		t.Errorf("tmpfs: %+v", tmpfs)
	}
	for _, path := range []string{"/proc/interrupts", "/proc/kcore", "/sys/devices/virtual/powercap", "/sys/firmware"} {
		if !slices.Contains(p.MaskedPaths, path) {
			t.Errorf("%s is not masked", path)
		}
	}
	names := map[string]bool{}
	for _, kv := range spec().ProfileEnv(false) {
		name, _, _ := strings.Cut(kv, "=")
		names[name] = true
	}
	for _, name := range []string{"USER", "LOGNAME", "HOME", "SHELL", "TMPDIR", "XDG_CACHE_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "PIP_CACHE_DIR", "HF_HOME", "MPLCONFIGDIR", "OMP_NUM_THREADS", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES"} {
		if !names[name] {
			t.Errorf("the profile does not set %s: %v", name, slices.Sorted(maps.Keys(names)))
		}
	}
}
