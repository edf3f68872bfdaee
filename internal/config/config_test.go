package config

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var update = flag.Bool("update", false, "write goldens and the generated part of docs/configuration.md")

// sameConfig compares what the file can say, not where it was said.
var sameConfig = cmpopts.IgnoreUnexported(Config{})

// write puts text into a file of its own and returns its path.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bailey.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaultsWithoutFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.yaml")
	got, err := Load(t.Context(), Source{Path: path})
	if err != nil {
		t.Fatalf("Load without a file: %v", err)
	}
	if diff := cmp.Diff(Default(), got, sameConfig); diff != "" {
		t.Errorf("Load without a file is not Default (-want +got):\n%s", diff)
	}
	if _, err := Load(t.Context(), Source{Path: path, Required: true}); !strings.Contains(fmt.Sprint(err), "does not exist") {
		t.Errorf("Load of a named file that is missing = %v, want an error that says so", err)
	}
	if _, err := Load(t.Context(), Source{Env: []string{"BAILEY_CONFIG=" + path}}); !strings.Contains(fmt.Sprint(err), "does not exist") {
		t.Errorf("Load of a missing $BAILEY_CONFIG = %v, want an error that says so", err)
	}
}

func TestPrecedence(t *testing.T) {
	path := write(t, "state: /from/file\nlog:\n  level: warn\n  format: json\nsessions: {idle: 1h}\n")
	cfg, err := Load(t.Context(), Source{
		Path:  path,
		Env:   []string{"BAILEY_STATE=/from/env", "BAILEY_LOG_LEVEL=error", "BAILEY_QUOTAS_DEFAULT_CPUS=0.5", "BAILEY_ORIGIN_PORTS=9000-9001", "HOME=/root"},
		Flags: map[string]string{"state": "/from/flag"},
	})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ path, value, origin string }{
		{"state", "/from/flag", "flag --state"},
		{"log.level", "error", "env BAILEY_LOG_LEVEL"},
		{"log.format", "json", path + ":4"},
		{"sessions.idle", "1h", path + ":5"},
		{"sessions.lifetime", "24h", "default"},
		{"quotas.default.cpus", "0.5", "env BAILEY_QUOTAS_DEFAULT_CPUS"},
		{"quotas.default.gpus", "1", "default"},
		{"origin.ports", "9000-9001", "env BAILEY_ORIGIN_PORTS"},
		{"no.such.path", "", "default"},
	}
	values := cfg.flat()
	for _, tt := range tests {
		if got := values[tt.path]; got != tt.value {
			t.Errorf("%s = %q, want %q", tt.path, got, tt.value)
		}
		if got := cfg.Origin(tt.path).String(); got != tt.origin {
			t.Errorf("Origin(%q) = %q, want %q", tt.path, got, tt.origin)
		}
	}
}

// TestEveryFieldHasAVariable keeps the overlay complete and unambiguous.
func TestEveryFieldHasAVariable(t *testing.T) {
	seen := map[string]string{}
	flags := map[string]string{}
	for _, l := range leaves(reflect.ValueOf(Default()).Elem()) {
		name := variable(l.path)
		if other, ok := seen[name]; ok {
			t.Errorf("%s and %s share the variable %s", l.path, other, name)
		}
		seen[name] = l.path
		if other, ok := flags[flagName(l)]; ok {
			t.Errorf("%s and %s share the flag %s", l.path, other, flagName(l))
		}
		flags[flagName(l)] = l.path
		for _, rule := range otherVariables() {
			if prefix, family := strings.CutSuffix(rule.name, "*"); name == rule.name || family && strings.HasPrefix(name, prefix) {
				t.Errorf("the variable of %s, %s, also means %q", l.path, name, rule.what)
			}
		}
		text := scalarString(l.value)
		if text == "" {
			continue
		}
		cfg, err := Load(t.Context(), Source{Path: filepath.Join(t.TempDir(), "none"), Env: []string{name + "=" + text}})
		if err != nil {
			t.Errorf("%s=%s: %v", name, text, err)
		} else if got := cfg.Origin(l.path).String(); got != "env "+name {
			t.Errorf("%s=%s: origin of %s = %q", name, text, l.path, got)
		}
	}
}

func TestEnvironmentProblems(t *testing.T) {
	tests := []struct {
		name string
		env  []string
		want string // "" means no problem
	}{
		{"mistyped", []string{"BAILEY_LISTEN_HTPS=x"}, "unknown variable BAILEY_LISTEN_HTPS"},
		{"mistyped: suggestion", []string{"BAILEY_LISTEN_HTPS=x"}, "did you mean BAILEY_LISTEN_HTTPS?"},
		{"somebody else's", []string{"BAILEY_XYZZY_PLUGH=x", "BAILEY_PROFILE=/p"}, ""},
		{"far off, but in a section of ours", []string{"BAILEY_LOG_XYZZY=x"}, "unknown variable BAILEY_LOG_XYZZY"},
		{"the value is not shown", []string{"BAILEY_DATABASE_PASSWORD=hunter2"}, "unknown variable BAILEY_DATABASE_PASSWORD"},
		{"wrong value", []string{"BAILEY_LOG_LEVEL=loud"}, "environment: BAILEY_LOG_LEVEL: \"loud\" is not one of the words"},
		{"wrong number", []string{"BAILEY_ORIGIN_PUBLIC_PORT=4x"}, "BAILEY_ORIGIN_PUBLIC_PORT: \"4x\" is not a whole number"},
		{"wrong size", []string{"BAILEY_QUOTAS_DEFAULT_MEMORY=4G"}, "Instead: BAILEY_QUOTAS_DEFAULT_MEMORY=4GiB"},
		{"literal password", []string{"BAILEY_DATABASE=postgres://u:hunter2@h/d"}, "the URL has a password in it"}, // bailey:allow
		{"literal password, not even a URL", []string{"BAILEY_DATABASE=hunter2"}, "this names no database"},
		{"last of a double holds", []string{"BAILEY_LOG_LEVEL=loud", "BAILEY_LOG_LEVEL=warn"}, ""},
		{"others", []string{"BAILEY_TEST_DOCKER=1", "BAILEY_TEST_ANYTHING=1", "BAILEY_CACHE=/c", "BAILEY_DOCKERD_DIR=/d", "BAILEY_TOKEN=t", "BAILEY_CA=/ca", "NOT_OURS=1"}, ""},
		{"the database's own", []string{"BAILEY_DATABASE=env:BAILEY_DATABASE_URL", "BAILEY_DATABASE_URL=postgres://u:p@h/d"}, ""},
		{"the database's own, unnamed", []string{"BAILEY_DATABASE_URL=postgres://u:hunter2@h/d"}, "unknown variable BAILEY_DATABASE_URL"}, // bailey:allow
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Load(t.Context(), Source{Path: write(t, ""), Env: tt.env})
			if tt.want == "" {
				if err != nil {
					t.Errorf("Load with %q = %v, want no problem", tt.env, err)
				}
				return
			}
			if got := fmt.Sprint(err); !strings.Contains(got, tt.want) || strings.Contains(got, "hunter2") {
				t.Errorf("Load with %q = %v\nwant %q in it, and no secret", tt.env, err, tt.want)
			}
		})
	}
}

func TestFlagProblems(t *testing.T) {
	_, err := Load(t.Context(), Source{Path: write(t, "log: {level: loud}\n"), Flags: map[string]string{"listen.https": "8443", "nonsense": "1"}})
	for _, want := range []string{
		`log.level: "loud"`,
		`command line: --https: "8443" is not an address to listen on`,
		`Instead: --https "127.0.0.1:8443" for this machine alone`,
		`no setting is called "nonsense"`,
	} {
		if !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("Load = %v\nwant %q in it", err, want)
		}
	}
}

// TestAllProblemsAtOnce proves that file, environment and command line are
// judged together, in the order of the file.
func TestAllProblemsAtOnce(t *testing.T) {
	_, err := Load(t.Context(), Source{
		Path: write(t, "gpus: {source: list}\nstate: relative\nlog: {leve: info}\n"),
		Env:  []string{"BAILEY_SESSIONS_IDLE=1s"},
	})
	e, ok := errors.AsType[*Errors](err)
	if !ok {
		t.Fatalf("Load = %v (%T), want *Errors", err, err)
	}
	var got []string
	for _, p := range e.Problems {
		got = append(got, fmt.Sprintf("%d %s", p.Line, p.Path))
	}
	want := []string{"1 gpus.source", "2 state", "3 ", "0 BAILEY_SESSIONS_IDLE"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
}

func TestShowRoundTrip(t *testing.T) {
	files := []string{"", "images: {pytorch: \"sha256:" + strings.Repeat("a1", 32) + "\"}\n", `
database: "env:DATABASE_URL"
origin: {mode: subdomain, host: hub.example.org, domain: apps.example.net, public_port: 443}
tls: {cert: /a.crt, key: "/b: c#.key"}
classes:
  - {name: a, image: b, title: "yes", description: "# no comment: \"quoted\" 笔记本 ☃ \\ '", groups: [x, "null", y1]}
  - {name: b, image: sha256:` + strings.Repeat("0", 64) + `, cpus: 0.125, memory: 1.5GiB, shm: 17MiB, tmp: 16MiB, gpus: 2, idle_stop: 0, start_limit: 1m30s}
quotas:
  default: {gpus: 0}
  users: {alice: {cpus: 2.5}, bob: {}}
  groups: {vision: {memory: 1TiB}}
gpus:
  source: list
  devices: [{uuid: GPU-5c0b3c1e-7a52-4f0f-9c57-0d1f1f6e8a11, model: "007"}]
`}
	for _, text := range files {
		for _, origin := range []bool{false, true} {
			first, err := Load(t.Context(), Source{Path: write(t, text)})
			if err != nil {
				t.Fatalf("Load %q: %v", text, err)
			}
			shown, err := first.Show(origin)
			if err != nil {
				t.Fatalf("Show(%t) of %q: %v", origin, text, err)
			}
			second, err := Load(t.Context(), Source{Path: write(t, string(shown))})
			if err != nil {
				t.Fatalf("Load of what Show(%t) wrote: %v\n%s", origin, err, shown)
			}
			if diff := cmp.Diff(first.flat(), second.flat()); diff != "" {
				t.Errorf("Show(%t) loses something (-first +second):\n%s\n%s", origin, diff, shown)
			}
		}
	}
}

func TestShowOrigin(t *testing.T) {
	path := write(t, "classes:\n  - name: a\n    image: b\n    memory: 4GiB\n")
	cfg, err := Load(t.Context(), Source{Path: path, Env: []string{"BAILEY_STATE=/s"}})
	if err != nil {
		t.Fatal(err)
	}
	shown, err := cfg.Show(true)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"state: /s # env BAILEY_STATE\n",
		"  level: info # default\n",
		"  - name: a # " + path + ":2\n",
		"    memory: 4GiB # " + path + ":4\n",
		"    shm: 2GiB # default\n",
		"users: {} # default\n",
	} {
		if !strings.Contains(string(shown), want) {
			t.Errorf("Show(true) has no line %q:\n%s", want, shown)
		}
	}
}

// TestExample proves that config/bailey.example.yaml is valid, says what it
// says about defaults, and names every field there is.
func TestExample(t *testing.T) {
	path := filepath.Join("..", "..", "config", "bailey.example.yaml")
	cfg, err := Load(t.Context(), Source{Path: path, Required: true})
	if err != nil {
		t.Fatal(err)
	}
	want := Default().flat()
	for p, value := range cfg.flat() {
		if !strings.HasPrefix(p, "classes[") && want[p] != value {
			t.Errorf("the example has %s: %s, the default is %q", p, value, want[p])
		}
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var check func(reflect.Type)
	check = func(typ reflect.Type) {
		for f := range typ.Fields() {
			name := f.Tag.Get("yaml")
			if name == "" {
				continue
			}
			if !regexp.MustCompile(`(?m)^[# ]*(- )?\{?(.*, )?(\{)?` + name + `:|[{ ]` + name + `: `).Match(text) {
				t.Errorf("the example does not show %s.%s", typ.Name(), name)
			}
			below := f.Type
			for below.Kind() == reflect.Slice || below.Kind() == reflect.Map || below.Kind() == reflect.Pointer {
				below = below.Elem()
			}
			if below.Kind() == reflect.Struct {
				check(below)
			}
		}
	}
	check(reflect.TypeFor[Config]())
	for line := range strings.Lines(string(text)) {
		if _, rule, ok := strings.Cut(line, "# default "); ok && strings.HasPrefix(line, "    cpus") && strings.TrimSpace(rule) != defaultClass().CPUs.String() {
			t.Errorf("the example says %q, the default is %s", strings.TrimSpace(line), defaultClass().CPUs)
		}
	}
}

func TestDatabaseURL(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	tests := []struct{ database, want, wantErr string }{
		{"", "", ""},
		{"postgres://u@h/d", "postgres://u@h/d", ""},
		{"env:URL", "postgres://u:p@h/d", ""},
		{"env:NOT_SET", "", "NOT_SET is not set"},
		{"env:ODD", "", "is no PostgreSQL URL"},
		{"file:" + file("good", "postgres://u:p@h/d\n", 0o600), "postgres://u:p@h/d", ""},
		{"file:" + file("open", "postgres://u:p@h/d\n", 0o644), "", "chmod 600"},
		{"file:" + file("empty", " \n", 0o600), "", "is empty"},
		{"file:" + file("large", strings.Repeat("x", maxSecret+1), 0o600), "", "larger than"},
		{"file:" + dir, "", "is not a file"},
		{"file:" + filepath.Join(dir, "none"), "", "no such file"},
	}
	for _, tt := range tests {
		cfg, err := Load(t.Context(), Source{
			Path: write(t, ""), Env: []string{"URL=postgres://u:p@h/d", "ODD=mysql://u:hunter2@h"}, Flags: map[string]string{"database": tt.database}, // bailey:allow
		})
		if err != nil {
			t.Fatalf("Load with database %q: %v", tt.database, err)
		}
		got, err := cfg.DatabaseURL()
		if tt.wantErr == "" && (err != nil || got.Reveal() != tt.want) {
			t.Errorf("DatabaseURL of %q = %q, %v; want %q", tt.database, got.Reveal(), err, tt.want)
		}
		if tt.wantErr != "" && (!strings.Contains(fmt.Sprint(err), tt.wantErr) || strings.Contains(fmt.Sprint(err), "hunter2")) {
			t.Errorf("DatabaseURL of %q = %v, want an error with %q and no secret", tt.database, err, tt.wantErr)
		}
		if text := fmt.Sprintf("%v %+v", cfg, got); strings.Contains(text, ":p@") {
			t.Errorf("printing the configuration shows the password: %s", text)
		}
	}
}

func TestUnreadableFiles(t *testing.T) {
	dir := t.TempDir()
	open := write(t, "")
	if err := os.Chmod(open, 0o666); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, path, want string }{
		{"directory", dir, "this is not a file"},
		{"writable by everybody", open, "chmod o-w"},
		{"too large", write(t, strings.Repeat("# padding\n", maxBytes/10+1)), "larger than 1 MiB"},
		{"too many lines", write(t, strings.Repeat("\n", maxLines)), "more than 10000 lines"},
		{"too many words", write(t, "a: ["+strings.Repeat("1,", maxTokens/2)+"]\n"), "more than 100000 words"},
		{"device", "/dev/zero", "this is not a file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			begin := time.Now()
			_, err := Load(t.Context(), Source{Path: tt.path})
			if !strings.Contains(fmt.Sprint(err), tt.want) || !strings.Contains(fmt.Sprint(err), "Instead:") {
				t.Errorf("Load(%s) = %v, want an error with %q and a remedy", tt.path, err, tt.want)
			}
			if took := time.Since(begin); took > 30*time.Second {
				t.Errorf("Load took %s", took)
			}
		})
	}
}

func TestValues(t *testing.T) {
	durations := []struct{ in, out string }{
		{"0", "0"},
		{"90s", "1m30s"},
		{"60s", "1m"},
		{"2h", "2h"},
		{"1h30m", "1h30m"},
		{"1.5h", "1h30m"},
		{"100ms", "100ms"},
		{"2h0m0s", "2h"},
		{"10m", "10m"},
		{"20h", "20h"},
		{"-1h", ""},
		{"+1h", ""},
		{"1d", ""},
		{"1", ""},
		{"", ""},
		{" 1h", ""},
		{"9999999h", ""},
	}
	for _, tt := range durations {
		var d Duration
		if err := d.UnmarshalText([]byte(tt.in)); (err == nil) != (tt.out != "") || err == nil && d.String() != tt.out {
			t.Errorf("duration %q = %s, %v; want %q", tt.in, d, err, tt.out)
		}
	}
	sizes := []struct{ in, out string }{
		{"0", "0"},
		{"1KiB", "1KiB"},
		{"1024KiB", "1MiB"},
		{"1.5GiB", "1536MiB"},
		{"16GiB", "16GiB"},
		{"0.5TiB", "512GiB"},
		{"1.333GiB", "1397751KiB"},
		{"16G", ""},
		{"16", ""},
		{"-1GiB", ""},
		{"999999999TiB", ""},
		{"1 GiB", ""},
		{"1gib", ""},
		{"", ""},
		{"1e3GiB", ""},
	}
	for _, tt := range sizes {
		var b Bytes
		if err := b.UnmarshalText([]byte(tt.in)); (err == nil) != (tt.out != "") || err == nil && b.String() != tt.out {
			t.Errorf("size %q = %s, %v; want %q", tt.in, b, err, tt.out)
		}
	}
	cores := []struct{ in, out string }{
		{"4", "4"},
		{"0.5", "0.5"},
		{"10", "10"},
		{"100.25", "100.25"},
		{"0", "0"},
		{"1.000", "1"},
		{"500m", ""},
		{"1.2345", ""},
		{"-1", ""},
		{".5", ""},
		{"1e3", ""},
		{"0x4", ""},
		{"", ""},
	}
	for _, tt := range cores {
		var c CPUs
		if err := c.UnmarshalText([]byte(tt.in)); (err == nil) != (tt.out != "") || err == nil && c.String() != tt.out {
			t.Errorf("cores %q = %s, %v; want %q", tt.in, c, err, tt.out)
		}
	}
}

func TestFilterOfAClass(t *testing.T) {
	path := write(t, `
filter: {mode: mask, modes: [{rule: email, mode: "off"}, {rule: jwt, mode: block}]}
classes:
  - {name: open, image: b}
  - {name: exam, image: b, filter: {mode: block, scan_input: false, allow_paths: [/workspace/task/], modes: [{rule: email, mode: mask}]}}
`)
	cfg, err := Load(t.Context(), Source{Path: path, Env: []string{"BAILEY_FILTER_SCAN_INPUT=true"}})
	if err != nil {
		t.Fatal(err)
	}
	open, exam, gone := cfg.FilterFor("open"), cfg.FilterFor("exam"), cfg.FilterFor("gone")
	if diff := cmp.Diff(cfg.Filter, open); diff != "" {
		t.Errorf("a class that says nothing (-filter +class):\n%s", diff)
	}
	if diff := cmp.Diff(cfg.Filter, gone); diff != "" {
		t.Errorf("a class that is gone (-filter +class):\n%s", diff)
	}
	want := cfg.Filter
	want.Mode, want.ScanInput = "block", false
	want.AllowPaths = []string{"/workspace/trusted/", "/workspace/task/"}
	want.Modes = []RuleMode{{"jwt", "block"}, {"email", "mask"}}
	if diff := cmp.Diff(want, exam); diff != "" {
		t.Errorf("a class of its own (-want +got):\n%s", diff)
	}
	if len(cfg.Filter.Modes) != 2 || cfg.Filter.Modes[0].Mode != "off" {
		t.Errorf("the class changed the filter: %v", cfg.Filter.Modes)
	}
}
