package e2e

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/baileyhq/bailey/e2e/drive"
)

// canary is a token in form, and nobody's.
var canary = strings.Join([]string{
	"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
	"eyJzdWIiOiI4ODIxMzQ1NTAxIiwibmFtZSI6IkFkYSIsImlhdCI6MTc2MzYxMTIwMH0",
	"Qm9Zf3kT7xw1Lr8uVb2nYc5hJd0sGq4eAa6iMpRtXzU",
}, ".")

// laboratory starts a workspace and returns the address of its Jupyter.
func laboratory(t *testing.T, p *drive.Person) string {
	t.Helper()
	ctx := deadline(t, 2*time.Minute)
	if _, err := p.CLI(ctx, "run", "notebook", "--name", "lab"); err != nil {
		t.Fatal(err)
	}
	remove(t, p, "lab")
	out, err := p.CLI(ctx, "ls", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Workspaces []struct{ Name, URL string }
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		var bare []struct{ Name, URL string }
		if err := json.Unmarshal([]byte(out), &bare); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		list.Workspaces = bare
	}
	for _, w := range list.Workspaces {
		if w.Name == "lab" {
			return strings.TrimSuffix(w.URL, "/") + "/"
		}
	}
	t.Fatalf("no lab in %s", out)
	return ""
}

func kernel(t *testing.T, p *drive.Person, base string) *drive.Kernel {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	t.Cleanup(cancel)
	k, err := p.StartKernel(ctx, base)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

func api(t *testing.T, p *drive.Person, method, target string, body any) (int, string) {
	t.Helper()
	status, b, err := p.API(deadline(t, time.Minute), method, target, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	return status, string(b)
}

// What a real kernel prints, shows and fails with comes out masked, and what
// is about tokens without being one comes out as it is.
func TestARealKernelLeaksNoToken(t *testing.T) {
	s, _ := server(t)
	admin := start(t, s)
	base := laboratory(t, admin)
	k := kernel(t, admin, base)
	ctx := deadline(t, 2*time.Minute)
	a, b := canary[:40], canary[40:]
	for code, want := range map[string]string{
		"print('Bearer " + canary + "')": "Bearer [REDACTED:jwt]",
		"import sys,time\nsys.stdout.write('" + a + "'); sys.stdout.flush(); time.sleep(.02); sys.stdout.write('" + b + " end\\n'); sys.stdout.flush()": "[REDACTED:jwt] end",
		"'" + a + "' + '" + b + "'": "'[REDACTED:jwt]'",
		"import os; print(open('/run/bailey/token').read() if os.path.exists('/run/bailey/token') else os.environ.get('JUPYTER_TOKEN', '[REDACTED:secret:jupyter-token]'))": "[REDACTED",
		"print(list(range(3)), 'AutoTokenizer, AutoModel', 3.14159265358979)": "[0, 1, 2] AutoTokenizer, AutoModel 3.14159265358979",
	} {
		got, err := k.Run(ctx, code)
		if err != nil || !strings.Contains(got, want) || strings.Contains(got, canary) || strings.Contains(got, b) {
			t.Errorf("%s\nshows %q, %v; want %q", code, got, err, want)
		}
	}
	_, err := k.Run(ctx, "raise ValueError('"+canary+"')")
	if err == nil || strings.Contains(err.Error(), b) || !strings.Contains(err.Error(), "ValueError") {
		t.Errorf("an exception shows %v", err)
	}
	_ = os.Stdout
	_ = http.MethodGet
}
