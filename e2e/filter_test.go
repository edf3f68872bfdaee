package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
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
		"import time\nfor i in range(21): print(f'\\r{i*5:3d}%|' + '█'*i + '|', end='', flush=True); time.sleep(.03)\nprint(' done')":                                       "\r100%|████████████████████| done",
		"print(list(range(3)), 'AutoTokenizer, AutoModel', 3.14159265358979)":                                                                                               "[0, 1, 2] AutoTokenizer, AutoModel 3.14159265358979",
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
}

// A file with a token in it is opened in the editor and saved by it, by real
// Jupyter, and is the same file on disk; downloads and exports are masked.
func TestRealFilesSurviveTheEditor(t *testing.T) {
	s, _ := server(t)
	admin := start(t, s)
	base := laboratory(t, admin)
	k := kernel(t, admin, base)
	ctx := deadline(t, 3*time.Minute)
	run := func(code string) string {
		t.Helper()
		got, err := k.Run(ctx, code)
		if err != nil {
			t.Fatalf("%s: %v", code, err)
		}
		return strings.TrimSpace(got)
	}
	run(`import hashlib, json, os
os.chdir('/workspace')
token = '` + canary[:40] + `' + '` + canary[40:] + `'
open('config.py', 'w').write('# 设置\nAPI = "Bearer ' + token + '"\n\ttab\n')
nb = {'cells': [{'cell_type': 'code', 'id': 'a1', 'execution_count': 1, 'metadata': {}, 'source': 'key = "' + token + '"\nlen(key)', 'outputs': [{'output_type': 'stream', 'name': 'stdout', 'text': 'shown ' + token + '\n'}]}], 'metadata': {}, 'nbformat': 4, 'nbformat_minor': 5}
json.dump(nb, open('nb.ipynb', 'w'), indent=1)
def digest(name): return hashlib.sha256(open(name, 'rb').read()).hexdigest()`)
	was := run("print(digest('config.py'))")

	status, shown := api(t, admin, http.MethodGet, base+"api/contents/config.py?type=file&format=text&content=1", nil)
	if status != http.StatusOK || strings.Contains(shown, canary) || !strings.Contains(shown, "[REDACTED:jwt]") {
		t.Fatalf("the editor is shown %d %s", status, shown)
	}
	if status, answer := api(t, admin, http.MethodPut, base+"api/contents/config.py", json.RawMessage(shown)); status != http.StatusOK {
		t.Fatalf("saving: %d %s", status, answer)
	}
	if is := run("print(digest('config.py'))"); is != was {
		t.Errorf("the saved file is another: %s, was %s", is, was)
	}

	_, shown = api(t, admin, http.MethodGet, base+"api/contents/nb.ipynb?type=notebook&content=1", nil)
	if strings.Contains(shown, canary) || !strings.Contains(shown, "shown [REDACTED:jwt]") {
		t.Errorf("the notebook is shown as %s", shown)
	}
	if status, answer := api(t, admin, http.MethodPut, base+"api/contents/nb.ipynb", json.RawMessage(shown)); status != http.StatusOK {
		t.Fatalf("saving: %d %s", status, answer)
	}
	if got := run("c = json.load(open('nb.ipynb'))['cells'][0]; print(token in ''.join(c['source']), ''.join(c['outputs'][0]['text']))"); got != "True shown [REDACTED:jwt]" {
		t.Errorf("the saved notebook: %s", got)
	}
	// The cell as the page has it, mark and all, runs with the real text.
	var model struct {
		Content struct{ Cells []struct{ Source string } }
	}
	if err := json.Unmarshal([]byte(shown), &model); err != nil {
		t.Fatal(err)
	}
	if run(model.Content.Cells[0].Source); run("print(key == token)") != "True" {
		t.Error("a cell with a mark runs with the mark")
	}

	for _, path := range []string{"files/config.py", "files/nb.ipynb", "nbconvert/html/nb.ipynb?download=true", "nbconvert/script/nb.ipynb", "nbconvert/markdown/nb.ipynb?download=true", "api/contents/"} {
		status, body := api(t, admin, http.MethodGet, base+path, nil)
		if status != http.StatusOK || strings.Contains(body, canary) || strings.HasSuffix(path, "py") && !strings.Contains(body, "[REDACTED:jwt]") {
			t.Errorf("%s: %d %.400s", path, status, body)
		}
	}
	run("import pathlib; d = pathlib.Path.home()/'.local/share/jupyter/kernels/mine'; d.mkdir(parents=True, exist_ok=True); (d/'kernel.json').write_text(json.dumps({'argv': ['python'], 'display_name': 'x', 'language': 'python', 'env': {'T': token}})); (d/'logo.svg').write_text('<svg>' + token + '</svg>')")
	for _, path := range []string{"kernelspecs/mine/logo.svg", "api/kernelspecs"} {
		if status, body := api(t, admin, http.MethodGet, base+path, nil); status != http.StatusOK || strings.Contains(body, canary) {
			t.Errorf("%s: %d %.400s", path, status, body)
		}
	}

	// Nobody wrote the token down: not the log, the journal, the metrics, or
	// anything else in the server's folder.
	resp, err := http.Get("http://" + s.Metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	metrics, _ := io.ReadAll(resp.Body)
	if !strings.Contains(string(metrics), `bailey_dlp_findings_total{direction="out",mode="mask",route="contents",rule="jwt"`) {
		t.Errorf("the metrics do not count: %s", metrics)
	}
	if strings.Contains(string(metrics)+s.Log.String(), canary[40:]) {
		t.Error("the token is in the log or the metrics")
	}
	var recorded bool
	err = filepath.WalkDir(s.State, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.Contains(path, "/volumes/") {
			return nil //nolint:nilerr // what has gone meanwhile holds no token
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return nil //nolint:nilerr // the same
		}
		if bytes.Contains(b, []byte(canary[40:])) {
			t.Errorf("the token is in %s", path)
		}
		recorded = recorded || bytes.Contains(b, []byte(`"rule":"jwt"`))
		return nil
	})
	if err != nil || !recorded {
		t.Errorf("the journal does not tell: %v", err)
	}
}

// A rule that blocks stops a cell that would go on for ever, and says so where
// the output would be; the kernel lives.
func TestABlockStopsARealCell(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "bailey.yaml")
	write(t, conf, "filter:\n  modes:\n    - {rule: jwt, mode: block}\n")
	s, _ := server(t, "--config", conf)
	admin := start(t, s)
	k := kernel(t, admin, laboratory(t, admin))
	ctx := deadline(t, time.Minute)
	got, err := k.Run(ctx, "import time\nprint('fine'); print('Bearer ' + '"+canary[:40]+"' + '"+canary[40:]+"', flush=True)\nwhile True: time.sleep(.1)")
	if err == nil || !strings.Contains(err.Error(), "BlockedByFilter") && !strings.Contains(err.Error(), "KeyboardInterrupt") || strings.Contains(got+err.Error(), canary[40:]) {
		t.Errorf("the cell shows %q, %v", got, err)
	}
	// What was sent before the interrupt arrived is aborted with the cell.
	for ctx.Err() == nil && !strings.Contains(got, "42") {
		got, err = k.Run(ctx, "6*7")
	}
	if err != nil || !strings.Contains(got, "42") {
		t.Errorf("afterwards: %q, %v", got, err)
	}
}
