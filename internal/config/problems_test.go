package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// badFiles are files with something wrong; the exact message for each is in
// testdata/problems (go test -update writes them: read the difference).
var badFiles = []struct{ name, text string }{
	{"unknown-fields", "listen: {htps: \":8443\"}\nsesions: {}\nmetrics: \":9443\"\nxyzzy: 1\nclasses:\n  - name: a\n    image: b\n    idle_stopp: 2h\n"},
	{"secret-in-unknown-field", "password: hunter2\ndatabse: postgres://bailey:hunter2@db/bailey\ntls: {passphrase: 'hunter2'}\ndb_url: postgres://u:hunter2/#?@h/d\n"}, // bailey:allow
	{"wrong-types", "listen: {https: 8443}\nstate: [a]\ndatabase: {url: x}\nlog: info\nsessions: {idle: true, lifetime: [1h]}\norigin: {public_port: \"443\", host: 10, ports: 8500}\n" +
		"images: [a]\nclasses: {name: a}\nquotas: {default: {workspaces: 1.5, cpus: four, memory: 32}}\ngpus: {devices: [GPU-1]}\n"},
	{"no-values", "state:\nlog: {level: ~}\nclasses:\n  -\n  - name: a\n    image:\n"},
	{"duplicates", "state: /a\nlog: {level: info, level: loud}\nstate: /b\nquotas:\n  users:\n    alice: {gpus: -1}\n    alice: {gpus: 2}\n"},
	{"root-is-a-list", "- state: /a\n"},
	{"root-is-text", "hello\n"},
	{"syntax-bracket", "listen: {https: \":8443\"\nstate: /a\n"},
	{"syntax-quote", "state: \"/a\nlog: {level: loud}\n"},
	{"syntax-indent", "log:\n  level: info\n format: text\n"},
	{"syntax-colon", "log: level: info\n"},
	{"tabs", "log:\n\tlevel: info\n\tformat: text\n"},
	{"nul", "state: /a\x00b\n"},
	{"control-characters", "state: /a\x1b[31m\nlog: {level: \x07}\n"},
	{"not-utf8", "classes:\n  - name: a\n    title: caf\xe9\n"},
	{"bomb", "a: &a [x,x,x]\nb: &b [*a,*a,*a]\nc: [*b,*b,*b]\n<<: {a: 1}\n"},
	{"tags", "state: !!binary aGVsbG8=\nlog: !custom {level: info}\n"},
	{"complex-keys", "? [a, b]\n: c\n"},
	{"directive", "%YAML 1.1\n---\nstate: /a\n"},
	{"two-documents", "state: /a\n---\nstate: /b\n"},
	{"nested", "a: " + strings.Repeat("[", 40) + strings.Repeat("]", 40) + "\n"},
	{"list-in-list", "classes:\n  - - name: a\n"},
	{"words", "origin: {mode: subdomian}\nlog: {level: warning, format: xml}\ngpus: {source: nvml}\n"},
	{"listen-text", "listen: {https: localhost, metrics: \"hub.example.org:9443\"}\n"},
	{"listen-port", "listen: {https: \":84430\", metrics: \"127.0.0.1\"}\n"},
	{"listen-same", "listen: {https: \":8443\", metrics: \"127.0.0.1:8443\"}\n"},
	{"listen-same-v6", "listen: {https: \"[::1]:8443\", metrics: \"[::]:8443\"}\n"},
	{"listen-in-range", "listen: {https: \":8500\"}\norigin: {mode: port, host: 192.0.2.1}\n"},
	{"places", "state: data\ntls: {cert: bailey.crt, key: \"-----BEGIN PRIVATE KEY----- hunter2\"}\ndocker: {host: \"tcp://127.0.0.1:2375\"}\n"},
	{"places-2", "state: /\ntls: {cert: /a.crt}\ndocker: {host: /var/run/docker.sock}\n"},
	{"tls-key-alone", "tls: {key: /a.key}\n"},
	{"database-password", "database: \"postgres://bailey:hunter2@db.example.org/bailey\"  # hunter2\n"}, // bailey:allow
	{"database-password-query", "{database: \"postgres://db.example.org/bailey?user=u&sslpassword=hunter2\", log: {level: loud}}\n"},
	{"database-keywords", "database: host=db user=bailey password=hunter2\n"}, // bailey:allow
	{"database-env", "database: \"env:\"\n"},
	{"database-file", "database: file:database-url\n"},
	{"origin-localhost", "origin: {mode: localhost, host: hub.example.org, domain: apps.example.net}\n"},
	{"origin-subdomain-bare", "origin: {mode: subdomain, host: 192.0.2.1}\n"},
	{"origin-subdomain-same", "origin: {mode: subdomain, host: Hub.example.org, domain: hub.example.ORG}\n"},
	{"origin-subdomain-star", "origin: {mode: subdomain, host: hub.example.org, domain: \"*.example.net\"}\n"},
	{"origin-port", "origin: {mode: port, host: \"https://192.0.2.1\", ports: 9000-8000, public_port: 70000}\n"},
	{"origin-path", "origin: {mode: path, host: \"https://hub.example.org\"}\n"},
	{"origin-trust", "origin: {mode: subdomain, host: hub.example.org, domain: apps.example.net, trust: semi-trusted}\n"},
	{"origin-port-wide", "origin: {mode: port, host: 192.0.2.1, ports: 1000-2000}\n"},
	{"egress", "egress:\n  policies:\n    ml: {}\n    Vision: {title: x, preset: all}\n    vision:\n      rules:\n        - {host: 10.0.0.1}\n        - {host: \"*.org\", ports: [0, 443]}\n        - {host: \"https://example.org/\", methods: [get], hours: \"9-17\"}\n        - {ports: [443]}\n  mirrors: {pip: \"https://u:hunter2@mirror.example.org/\", apt: \"ftp://mirror.example.org\"}\n  private: [10.1.2.3/16, all]\n  upstream: {url: \"http://u:hunter2@proxy:3128\", credentials: \"u:hunter2\"}\n  limits: {connections: 0, rate: 1KiB, total: 64KiB}\n  tls: off\n"},
	{"egress-classes", "classes:\n  - {name: a, image: x, egress: ml, network: none}\n  - {name: b, image: x, egress: xyz}\n  - {name: c, image: x, egress: mirror-only}\n  - {name: d, image: x, network: host}\n"},
	{"sessions", "sessions: {idle: 1m, lifetime: 1000h}\n"},
	{"passwords", "passwords: {length: 6, memory: 1GiB, passes: 0, threads: 9, max_age: 1h}"},
	{"factors", "factors: {require_roles: [root], require_groups: [Vision], step_up: 1s}"},
	{"passwords-work", "passwords: {memory: 128MiB, passes: 12}"},
	{"sessions-order", "sessions: {idle: 25h}\n"},
	{"durations", "sessions: {idle: 8, lifetime: 1 day}\nclasses:\n  - {name: a, image: b, idle_stop: -1h, start_limit: 90 sec}\n"},
	{"images", "images:\n  PyTorch: pytorch:latest\n  other: sha256:ABCDEF\n"},
	{"class-incomplete", "classes:\n  - title: nothing else\n  - {name: a}\n"},
	{"class-names", "classes:\n  - {name: My Class, image: a}\n  - {name: b, image: a, groups: [x, x, \"<b>\"]}\n  - {name: b, image: \"nvcr.io/nvidia/pytorch:25.10-py3\"}\n"},
	{"class-text", "classes:\n  - name: a\n    image: b\n    title: " + strings.Repeat("x", 81) + "\n    description: |\n      two\n      lines\n"},
	{"class-limits", "classes:\n  - {name: a, image: b, cpus: 2000, memory: 128MiB, shm: 1MiB, tmp: 0, pids: 10, gpus: 100, idle_stop: 10s, start_limit: 2h}\n"},
	{"class-memory", "classes:\n  - {name: a, image: b, memory: 4GiB, shm: 8GiB}\n  - {name: b, image: b, memory: 4GiB, shm: 3GiB, tmp: 1GiB}\n  - {name: c, image: b, memory: 16G, shm: 8GiB}\n"},
	{"class-selfcheck", "classes:\n  - {name: a, image: b, self_check: cuda}\n  - {name: b, image: b, self_check: pytorch}\n"},
	{"quotas", "quotas:\n  default: {workspaces: -1, cpus: 4x}\n  users:\n    Alice: {gpus: 1}\n    bob: {gpu: 1}\n    carol: 3\n  groups: {vision: {gpus: 99999}}\n"},
	{"gpus", "gpus:\n  source: list\n  devices:\n    - {uuid: \"0\"}\n    - {model: H200}\n    - {uuid: GPU-5c0b3c1e-7a52-4f0f-9c57-0d1f1f6e8a11}\n    - {uuid: GPU-5c0b3c1e-7a52-4f0f-9c57-0d1f1f6e8a11}\n"},
	{"gpus-unused", "gpus: {devices: [{uuid: GPU-5c0b3c1e-7a52-4f0f-9c57-0d1f1f6e8a11}]}\n"},
	{"gpus-empty", "gpus: {source: list}\n"},
	{"wide-characters", "classes:\n  - {title: 笔记本 ☃, name: 笔记, image: b}\n"},
	{"long-line", "classes: [{name: a, image: b, description: \"" + strings.Repeat("long ", 60) + "\", pids: 3, title: \"" + strings.Repeat("long ", 10) + "\"}]\n"},
	{"bidirectional", "classes:\n  - {name: a, image: \"b\u202ec\"}\n"},
	{"windows", "\ufefflog:\r\n  level: loud\r\n"},
	{"filter", "filter:\n  mode: hide\n  scan_input: yes please\n  allow_paths: [/workspace/, trusted/, \"/workspace/../etc/\"]\n  rule_dirs: [rules]\n  rules_reload: 1s\n  sample_after: 4KiB\n  modes: [{rule: jwt, mode: quiet}, {mode: mask}, {rule: jwt, mode: \"off\"}]\n  allow: [{until: \"2027-01-31\"}, {sum: abc, path: /etc/passwd}, {rule: jwt, until: tomorrow}]\nclasses:\n  - {name: a, image: b, filter: {mode: loud, scan_input: 3, allow_paths: [/workspace/*/]}}\n"},
	{"long-name", "quotas: {users: {" + strings.Repeat("a", 300) + ": {}}}\n"},
}

func TestProblems(t *testing.T) {
	used := map[string]bool{}
	for _, tt := range badFiles {
		t.Run(tt.name, func(t *testing.T) {
			path := write(t, tt.text)
			_, err := Load(t.Context(), Source{Path: path})
			if err == nil {
				t.Fatalf("Load accepts %q", tt.text)
			}
			got := strings.ReplaceAll(err.Error(), path, "bailey.yaml") + "\n"
			if strings.Contains(got, "hunter2") {
				t.Errorf("the message shows a secret:\n%s", got)
			}
			golden(t, filepath.Join("testdata", "problems", tt.name+".txt"), got)
		})
		used[tt.name+".txt"] = true
	}
	entries, err := os.ReadDir(filepath.Join("testdata", "problems"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !used[e.Name()] {
			t.Errorf("testdata/problems/%s belongs to no test", e.Name())
		}
	}
}

// golden compares got with a file, or writes it with -update.
func golden(t *testing.T, path, got string) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; go test -update writes it", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", path, diff)
	}
}

func TestManyProblems(t *testing.T) {
	_, err := Load(t.Context(), Source{Path: write(t, manyUnknown(300))})
	got := fmt.Sprint(err)
	if !strings.Contains(got, "has 300 problems") || !strings.Contains(got, "and 250 more") || strings.Count(got, "unknown field") != maxProblems {
		t.Errorf("300 unknown fields: %.200s … %s", got, got[max(0, len(got)-200):])
	}
}

func manyUnknown(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "unknown%d: 1\n", i)
	}
	return b.String()
}

func TestBlot(t *testing.T) {
	tests := []struct{ in, want string }{
		{"database: postgres://u:hunter2@h/d", "database: postgres://u:[hidden]@h/d"}, // bailey:allow
		{"postgres://u:p@ss@h postgres://v:q@h", "postgres://u:[hidden]@h postgres://v:[hidden]@h"},
		{"dsn: host=h password=hunter2 user=u", "dsn: host=h password=[hidden]"}, // bailey:allow
		{"api_key: abc", "api_key: [hidden]"},
		{"{token: 'a b', level: x}", "{token: [hidden], level: x}"},
		{"listen: {https: \":8443\"}", "listen: {https: \":8443\"}"},
		{"key: /etc/bailey/tls.key", "key: /etc/bailey/tls.key"},
		{"https://192.0.2.1:8443/", "https://192.0.2.1:8443/"},
	}
	for _, tt := range tests {
		if got, _, _ := blot(tt.in, 1, 1); got != tt.want {
			t.Errorf("blot(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestNearest(t *testing.T) {
	words := []string{"listen", "state", "sessions", "classes", "memory"}
	tests := []struct{ in, want string }{
		{"lisetn", "listen"},
		{"sesion", "sessions"},
		{"class", "classes"},
		{"MEMORY", "memory"},
		{"ram", ""},
		{"", ""},
		{"unrelated", ""},
		{strings.Repeat("state", 100), ""},
	}
	for _, tt := range tests {
		if got := nearest(tt.in, words); got != tt.want {
			t.Errorf("nearest(%.20q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}
