package agent

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const goodConfig = `{"socket":"/run/bailey/agent.sock","jupyter":{"addr":"127.0.0.1:8888","base_path":"/","token_file":"/etc/bailey/jupyter-token","root":"/workspace"},"home":"/workspace","venv":"/workspace/.venv","user":"alice"}`

func TestParseConfig(t *testing.T) {
	c, err := parseConfig([]byte(goodConfig))
	if err != nil {
		t.Fatalf("the documented file is refused: %v", err)
	}
	if host, port := c.splitAddr(); host != "127.0.0.1" || port != "8888" || c.grace() != 8*time.Second {
		t.Errorf("got %s:%s with grace %v, want 127.0.0.1:8888 with 8s", host, port, c.grace())
	}
	bad := func(old, text string) string {
		out := strings.Replace(goodConfig, old, text, 1)
		if out == goodConfig {
			t.Fatalf("%q is not in the good file", old)
		}
		return out
	}
	for want, text := range map[string]string{
		"EOF":                     goodConfig[:40],
		"unknown field":           bad(`"user"`, `"usr"`),
		"more than one":           goodConfig + "{}",
		"socket: \"agent.sock\"":  bad("/run/bailey/agent.sock", "agent.sock"),
		"longer than 107":         bad("/run/bailey/agent.sock", "/"+strings.Repeat("a", 120)),
		"venv: \"/a:/b\"":         bad("/workspace/.venv", "/a:/b"),
		"home: \"/workspace/..\"": bad(`"home":"/workspace"`, `"home":"/workspace/.."`),
		"not a loopback address":  bad("127.0.0.1:8888", "0.0.0.0:8888"),
		"rather than localhost":   bad("127.0.0.1:8888", "localhost:8888"),
		"base_path: \"/x\"":       bad(`"base_path":"/"`, `"base_path":"/x"`),
		"base_path: \"/a?b/\"":    bad(`"base_path":"/"`, `"base_path":"/a?b/"`),
		"user: \"al ice\"":        bad("alice", "al ice"),
		"stop_grace_seconds: -1":  bad(`"user"`, `"stop_grace_seconds":-1,"user"`),
	} {
		if _, err := parseConfig([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("parseConfig(%.200s) = %v, want %q in it", text, err, want)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(goodConfig))
	f.Add([]byte(`{"jupyter":{"addr":"[::1]:1"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := parseConfig(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := parseConfig(again); err != nil || back != c {
			t.Errorf("%s was accepted, but %s gives %+v, %v", data, again, back, err)
		}
	})
}

func TestToken(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	for text, want := range map[string]string{
		"0123456789abcdef":     "0123456789abcdef",
		"0123456789abcdef\n":   "0123456789abcdef", // Jupyter itself would keep the newline
		"":                     "",
		"short":                "",
		"0123456789 abcdef01":  "",
		"0123456789\nabcdef01": "",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := config{Jupyter: jupyterConfig{TokenFile: file}}.token()
		if got != want || (err == nil) != (want != "") {
			t.Errorf("token of %q = %q, %v; want %q", text, got, err, want)
		}
	}
}
