package docker

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/secret"
)

var update = flag.Bool("update", false, "write golden files anew")

const testToken = "t0ken-that-must-not-show-up-anywhere"

func testSpec() engine.Spec {
	return engine.Spec{
		Run: "01k9z0000000000000000000r1", Workspace: "01k9z0000000000000000000w1", Owner: "01k9z0000000000000000000a1",
		Name: "alice", Class: "small", Image: "sha256:" + strings.Repeat("ab", 32), UID: 20001,
		VolumeID: "01k9z0000000000000000000v1", CPUMillis: 2500, MemoryBytes: 4 << 30, Pids: 2048,
		JupyterToken: secret.New(testToken), StopGrace: 5 * time.Second,
		Env: map[string]string{"HF_ENDPOINT": "https://hub.example.org"},
	}
}

func testFacts() facts {
	return facts{
		Instance: "01k9z0000000000000000000h1", AgentPath: "/usr/lib/bailey/bailey-agent",
		RunDir: "/var/lib/bailey/run/01k9z0000000000000000000r1", VolumeDir: "/var/lib/bailey/volumes/01k9z0000000000000000000v1",
		ImageID: "sha256:" + strings.Repeat("cd", 32), CPUs: 8, SwapLimit: true,
		ImageEnv: []string{
			"PATH=/opt/conda/bin:/usr/bin:/bin", "LANG=C.UTF-8", "HOME=/root", "CUDA_VERSION=12.8.0",
			"NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=all", "NVIDIA_REQUIRE_CUDA=cuda>=12.8",
			"LD_PRELOAD=/opt/evil.so", "LD_LIBRARY_PATH=/usr/local/cuda/lib64", "BAILEY_TOKEN=x", "PYTHONSTARTUP=/opt/evil.py", "_X=1",
		},
	}
}

func TestCompileGolden(t *testing.T) {
	gpu1, gpu2 := "GPU-22222222-2222-2222-2222-222222222222", "GPU-11111111-1111-1111-1111-111111111111"
	tests := []struct {
		name  string
		spec  func(*engine.Spec)
		facts func(*facts)
	}{
		{"strict", nil, nil},
		{"apparmor", nil, func(f *facts) { f.AppArmor = "bailey-workspace"; f.ThrottleCPUs = []int{0, 1} }},
		{"few-cpus", nil, func(f *facts) { f.CPUs = 2 }},
		{"few-files", nil, func(f *facts) { f.MaxFiles = 20000 }},
		{"nvidia-default-runtime", nil, func(f *facts) { f.Runtime = "runc" }},
		{"gpu-cdi", func(s *engine.Spec) { s.GPUs = []string{gpu1, gpu2} }, func(f *facts) { f.CDI = []string{"nvidia.com/gpu=all", cdiKind + gpu1, cdiKind + gpu2} }},
		{"gpu-driver", func(s *engine.Spec) { s.GPUs = []string{gpu1, gpu2} }, func(f *facts) { f.CDI = []string{cdiKind + gpu1} }},
		{"proxied", func(s *engine.Spec) { s.Network = engine.NetworkProxied }, nil},
		{"bridge", func(s *engine.Spec) { s.Network = engine.NetworkBridge }, func(f *facts) { f.Bridge = "bailey-01k9z0000000000000000000h1" }},
		{"defaults", func(s *engine.Spec) { s.Pids, s.StopGrace, s.Env = 0, 0, nil }, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, f := testSpec(), testFacts()
			if tt.spec != nil {
				tt.spec(&s)
			}
			if tt.facts != nil {
				tt.facts(&f)
			}
			if err := s.Check(); err != nil {
				t.Fatal(err)
			}
			got := compileDocker(s, f)
			if again := compileDocker(s, f); !cmp.Equal(got, again) {
				t.Errorf("compiled twice, two results (-first +second):\n%s", cmp.Diff(got, again))
			}
			seccomp := slices.Index(got.Host.SecurityOpt, "seccomp="+engine.Seccomp())
			if seccomp < 0 {
				t.Fatalf("security options have no inline filter: %q", got.Host.SecurityOpt)
			}
			got.Host.SecurityOpt[seccomp] = "seccomp=(strict.json)" // it has a test of its own
			compareGolden(t, filepath.Join("testdata", "golden", tt.name+".json"), got)
		})
	}
}

func compareGolden(t *testing.T, path string, v any) {
	t.Helper()
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "\t")
	if err := enc.Encode(v); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("%s (go test -update writes it anew) (-want +got):\n%s", path, diff)
	}
}

// No Spec that passes Check leads to a container with any privilege. The
// strings of the Spec are hostile on purpose; most of them must not even pass.
func TestNoSpecGivesPrivilege(t *testing.T) {
	hostile := []string{
		"", "--privileged", "../../../etc", "/", "a\nb", "x,exec", "x=y", "root", "0:0", "\x00", "GPU-all", "all", "-1",
		"sha256:" + strings.Repeat("a", 64) + "\n", "latest", "alpine:3", "a/../b@sha256:" + strings.Repeat("a", 64),
	}
	for field := range 10 {
		for _, bad := range hostile {
			s := testSpec()
			switch field {
			case 0:
				s.Run = bad
			case 1:
				s.Workspace = bad
			case 2:
				s.Owner = bad
			case 3:
				s.VolumeID = bad
			case 4:
				s.Image = bad
			case 5:
				s.GPUs = []string{bad}
			case 6:
				s.Env = map[string]string{bad: "x"}
			case 7:
				s.Name = bad
			case 8:
				s.Class = bad
			case 9:
				s.BasePath = bad
			}
			err := s.Check()
			allowed := bad == "root" && (field == 7 || field == 8) || (bad == "" || bad == "/") && field == 9 || bad == "all" && (field == 7 || field == 8) ||
				bad == "latest" && (field == 7 || field == 8)
			if allowed != (err == nil) {
				t.Errorf("field %d = %q: Check says %v, want allowed %t", field, bad, err, allowed)
			}
			if err != nil {
				continue
			}
			h := compileDocker(s, testFacts()).Host
			if h.Privileged || len(h.CapAdd) > 0 || !h.ReadonlyRootfs || h.NetworkMode != "none" || len(h.Binds) > 0 || len(h.PortBindings) > 0 || len(h.Devices) > 0 {
				t.Errorf("field %d = %q opens the container: %+v", field, bad, h)
			}
		}
	}
}

// The token must reach the agent by its file only: what the daemon knows,
// everybody in the docker group can read.
func TestTokenIsNotInTheContainersConfiguration(t *testing.T) {
	text, err := json.Marshal(compileDocker(testSpec(), testFacts()))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(text, []byte(testToken)) {
		t.Errorf("the Jupyter token stands in the container's configuration: %s", text)
	}
}

func TestHostileImageEnvironment(t *testing.T) {
	c := compileDocker(testSpec(), testFacts())
	for _, want := range []string{
		"NVIDIA_VISIBLE_DEVICES=void", "NVIDIA_DRIVER_CAPABILITIES=compute,utility", "HOME=/workspace",
		// A bare name takes the image's variable out.
		"LD_PRELOAD", "NVIDIA_REQUIRE_CUDA", "BAILEY_TOKEN", "PYTHONSTARTUP", "_X",
	} {
		if !slices.Contains(c.Config.Env, want) {
			t.Errorf("environment has no %q: %q", want, c.Config.Env)
		}
	}
	for _, kept := range []string{"PATH", "LANG", "LD_LIBRARY_PATH", "CUDA_VERSION"} {
		if slices.ContainsFunc(c.Config.Env, func(kv string) bool { return kv == kept || strings.HasPrefix(kv, kept+"=") }) {
			t.Errorf("the image's own %s is touched: %q", kept, c.Config.Env)
		}
	}
}

// The archive calls have been a way from a container to root on the host
// (CVE-2026-41567): nothing here may use them, or ask for privilege.
func TestNoDangerousCalls(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no source files: %v", err)
	}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{
			"CopyTo" + "Container", "CopyFrom" + "Container", "ContainerStat" + "Path", "/archive", "ContainerCommit", "ContainerExport",
			"Privileged:", "CapAdd:", "PortBindings:", "UsernsMode:", "PidMode:", "Binds:", "Count:", "ImagePull", "ImageBuild",
		} {
			if bad == "ImagePull" && file == "pull.go" {
				continue // by digest alone: the case "pulling is by digest" of the conformance suite
			}
			if bytes.Contains(text, []byte(bad)) {
				t.Errorf("%s has %q in it", file, bad)
			}
		}
	}
}
