package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey/e2e/bench/measure"
)

func TestParseNotes(t *testing.T) {
	got, err := parseNotes("# Notes\n\nwords for the reader\n\n## get.times\n\nTwo\nlines.\n\n## launch.pytorch.p50\nOne.\n")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"get.times": "Two lines.", "launch.pytorch.p50": "One."}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("notes (-want +got):\n%s", diff)
	}
	for _, bad := range []string{"## a\nx\n## a\ny\n", "## a\n\n## b\nx\n", "## \nx\n"} {
		if got, err := parseNotes(bad); err == nil {
			t.Errorf("parseNotes(%q) = %v, want an error", bad, got)
		}
	}
}

func TestTheCommittedNotesParse(t *testing.T) {
	if _, err := readNotes("notes.md"); err != nil {
		t.Error(err)
	}
}

func TestNoteFor(t *testing.T) {
	notes := map[string]string{"get": "a", "get.times": "b", "get.times.16": "c", "": "never"}
	for id, want := range map[string]string{
		"get.times.16": "get.times.16", "get.times.64": "get.times", "get.cpu.16": "get", "getter.x": "", "ws.idle": "",
	} {
		if got := noteFor(id, notes); got != want {
			t.Errorf("noteFor(%q) = %q, want %q", id, got, want)
		}
	}
}

func row(id string, ours float64, limit float64) measure.Row {
	r := measure.Row{ID: id, Path: "path " + id, Unit: measure.Seconds, Ours: ours, Why: "Data say so."}
	if limit > 0 {
		r.Budget = measure.Budget{Kind: measure.AtMost, Limit: limit}
	}
	return r
}

func TestDocument(t *testing.T) {
	m := machine{When: time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC), Commit: "abc", CPU: "X", Cores: 2, Memory: 8 << 30, Kernel: "6.1", Go: "go1.26", Docker: "20.10", Node: "v20"}
	all := map[string]record{
		"a": {Machine: m, BusyAfter: 0.4, Took: "3s", Result: result{
			Rows:   []measure.Row{row("a.met", 1, 2), row("a.missed", 3, 2), row("a.info", 5, 0)},
			Stages: []stageTable{{Title: "Launch", Stages: []stage{{"create", 0.25}, {"jupyter", 0.5}}, Total: 1}},
			Said:   []string{"Like this."},
		}},
		"b": {Machine: m, Took: "1s", Result: result{Rows: []measure.Row{row("b.missed", 3, 2)}}},
	}
	notes := map[string]string{"a": "Because of the moon.", "c": "Nobody asks."}
	doc, unused, err := document([]string{"a", "b"}, all, notes)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"c"}, unused); diff != "" {
		t.Errorf("unused notes (-want +got):\n%s", diff)
	}
	for _, want := range []string{
		"| path a.met | 1 s |  |  | ≤ 2 s | yes |\n",
		"| path a.missed | 3 s |  |  | ≤ 2 s | no |\n",
		"- **path a.missed.** 3 s measured, 1 s (50 %) above the budget of 2 s. Data say so. Because of the moon.\n",
		"- **path b.missed.** 3 s measured, 1 s (50 %) above the budget of 2 s. Data say so.\n",
		"| path a.info | 5 s |  |  |  | – |\n",
		"| create | 250 ms | 25 % |\n",
		"| the rest: the API's answer, hand-over between stages, the client's next poll | 250 ms | 25 % |\n",
		"- **a** (2026-11-20 10:00 UTC, commit abc, 3s; others used 0 % of the CPUs right before, 40 % right after). Like this.\n",
		"**The machine was not quiet** around these parts: a. Times",
		"Machine: 2 cores (X), 8 GiB memory, Linux 6.1, Docker Engine 20.10, go1.26, Node.js v20.\n",
	} {
		if !strings.Contains(doc, want) {
			t.Errorf("the document lacks %q:\n%s", want, doc)
		}
	}
	if strings.Count(doc, "Machine: ") != 1 {
		t.Errorf("one machine is described more than once:\n%s", doc)
	}
	if _, _, err := document([]string{"a", "b", "never"}, all, notes); err == nil {
		t.Error("a part that was never measured is left out without a word")
	}
}

func TestResultsAreKeptByPart(t *testing.T) {
	store := filepath.Join(t.TempDir(), "results.json")
	for part, ours := range map[string]float64{"a": 1, "b": 2} {
		if err := remember(store, part, record{Result: result{Rows: []measure.Row{row(part, ours, 0)}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := remember(store, "a", record{Result: result{Rows: []measure.Row{row("a", 9, 0)}}}); err != nil {
		t.Fatal(err)
	}
	got, err := recall(store)
	if err != nil {
		t.Fatal(err)
	}
	if a, b := got["a"].Result.Rows[0].Ours, got["b"].Result.Rows[0].Ours; a != 9 || b != 2 {
		t.Errorf("after measuring a again: a = %v, b = %v, want 9 and 2", a, b)
	}
}

func TestChoose(t *testing.T) {
	all, err := choose("")
	if err != nil || len(all) != len(parts()) {
		t.Errorf(`choose("") = %d parts, %v, want all %d`, len(all), err, len(parts()))
	}
	some, err := choose("ws, get")
	if err != nil || len(some) != 2 || some[0].name != "ws" || some[1].name != "get" {
		t.Errorf(`choose("ws, get") = %v, %v`, some, err)
	}
	if _, err := choose("ws,nonsense"); err == nil || !strings.Contains(err.Error(), "password") {
		t.Errorf("choose of nonsense: %v, want an error that names what there is", err)
	}
}
