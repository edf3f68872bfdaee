package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/baileyhq/bailey/e2e/bench/measure"
)

// A record is one part's result with its circumstances, as it is stored between
// runs, so that one part can be measured again without the others.
type record struct {
	Machine   machine `json:"machine"`
	BusyAfter float64 `json:"busy_after"` // share of the CPUs that others used right after
	Took      string  `json:"took"`
	Result    result  `json:"result"`
}

func recall(store string) (map[string]record, error) {
	all := map[string]record{}
	b, err := os.ReadFile(store)
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, fmt.Errorf("%s: %w", store, err)
	}
	return all, nil
}

// remember stores one part's result beside the others'.
func remember(store, part string, r record) error {
	all, err := recall(store)
	if err != nil {
		return err
	}
	all[part] = r
	b, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(store, append(b, '\n'), 0o644)
}

// unmeasured returns the parts that have no stored result.
func unmeasured(store string) (missing []string, err error) {
	all, err := recall(store)
	for _, p := range parts() {
		if _, ok := all[p.name]; !ok {
			missing = append(missing, p.name)
		}
	}
	return missing, err
}

// publish writes the document from the stored results and the notes.
func publish(store, notesFile, out string) error {
	all, err := recall(store)
	if err != nil {
		return err
	}
	notes, err := readNotes(notesFile)
	if err != nil {
		return err
	}
	var names []string
	for _, p := range parts() {
		names = append(names, p.name)
	}
	doc, unused, err := document(names, all, notes)
	if err != nil {
		return err
	}
	for _, id := range unused {
		fmt.Fprintf(os.Stderr, "%s: the note %q belongs to no row that is missed; is it out of date?\n", notesFile, id)
	}
	return os.WriteFile(out, []byte(doc), 0o644)
}

func readNotes(file string) (map[string]string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	notes, err := parseNotes(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return notes, nil
}

// parseNotes reads "## row.id" headings, each with the text below it. A heading
// may also name a group of rows by the first words of their ids.
func parseNotes(text string) (map[string]string, error) {
	notes := map[string]string{}
	id := ""
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, "## "); ok {
			id = strings.TrimSpace(rest)
			if _, twice := notes[id]; twice || id == "" {
				return nil, fmt.Errorf("the heading %q is there twice or empty", strings.TrimSpace(line))
			}
			notes[id] = ""
			continue
		}
		if id != "" {
			notes[id] += line
		}
	}
	for id, text := range notes {
		notes[id] = strings.Join(strings.Fields(text), " ")
		if notes[id] == "" {
			return nil, fmt.Errorf("the note %q is empty", id)
		}
	}
	return notes, nil
}

// noteFor returns the note for a row: the one with the longest heading that is
// its id or the beginning of it, up to a dot.
func noteFor(id string, notes map[string]string) (heading string) {
	for h := range notes {
		if (h == id || strings.HasPrefix(id, h+".")) && len(h) > len(heading) {
			heading = h
		}
	}
	return heading
}

// document writes docs/benchmarks.md. unused are the notes that no missed row
// asked for.
func document(names []string, all map[string]record, notes map[string]string) (doc string, unused []string, err error) {
	var budgeted, rest []measure.Row
	var b, missed, stages, how strings.Builder
	var disturbed []string
	used := map[string]bool{}
	for _, name := range names {
		r, ok := all[name]
		if !ok {
			return "", nil, fmt.Errorf("part %s has never been measured: run make bench without -only first", name)
		}
		for _, row := range r.Result.Rows {
			switch row.Verdict() {
			case measure.Information:
				rest = append(rest, row)
				continue
			case measure.Missed:
				note := noteFor(row.ID, notes)
				used[note] = true
				fmt.Fprintf(&missed, "- **%s.** %s\n", row.Path, strings.Join(slices.DeleteFunc([]string{row.Shortfall(), row.Why, notes[note]}, func(s string) bool { return s == "" }), " "))
			case measure.Met:
			}
			budgeted = append(budgeted, row)
		}
		for _, s := range r.Result.Stages {
			stages.WriteString(s.String() + "\n")
		}
		fmt.Fprintf(&how, "- **%s** (%s, commit %s, %s; others used %.0f %% of the CPUs right before, %.0f %% right after).", name,
			r.Machine.When.Format("2006-01-02 15:04 UTC"), r.Machine.Commit, r.Took, 100*r.Machine.Busy, 100*r.BusyAfter)
		if r.Machine.Busy > quiet || r.BusyAfter > quiet {
			disturbed = append(disturbed, name)
		}
		for _, s := range r.Result.Said {
			how.WriteString(" " + s)
		}
		how.WriteString("\n")
	}
	b.WriteString("# Benchmarks\n\n" +
		"Written by `make bench`; do not edit. Measured on loopback, in turns with the peer, in the same run. " +
		"“3× better” means a third of the peer's time or memory, or three times its rate. " +
		"Budgets are the design's; the numbers are this machine's.\n\n")
	for _, m := range machines(names, all) {
		b.WriteString("Machine: " + m + ".\n\n")
	}
	if len(disturbed) > 0 {
		b.WriteString("**The machine was not quiet** around these parts: " + strings.Join(disturbed, ", ") +
			". Times there are too long on both sides; ratios are what to look at.\n\n")
	}
	b.WriteString("## Against the budgets\n\n" + measure.Table(budgeted))
	b.WriteString("\n## What was not reached, and why\n\n" + orNothing(missed.String()))
	if stages.Len() > 0 {
		b.WriteString("\n## Where the time of a launch goes\n\n" + stages.String())
	}
	b.WriteString("\n## Also measured\n\nThese rows have no budget; they explain the others.\n\n" + measure.Table(rest))
	b.WriteString("\n## How each was measured\n\n" + how.String())
	for id := range notes {
		if !used[id] {
			unused = append(unused, id)
		}
	}
	slices.Sort(unused)
	return b.String(), unused, nil
}

func orNothing(s string) string {
	if s == "" {
		return "Every budget was met in this run.\n"
	}
	return s
}

// machines describes where the parts were measured: one line, unless a part was
// measured elsewhere than the others.
func machines(names []string, all map[string]record) []string {
	var out []string
	for _, name := range names {
		if text := all[name].Machine.String(); !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out
}

// A stageTable says where the time of one launch went.
type stageTable struct {
	Title  string  `json:"title"`
	Stages []stage `json:"stages"`
	Total  float64 `json:"total"` // seconds, as the client saw it
}

type stage struct {
	Name string  `json:"name"`
	Took float64 `json:"took"` // seconds
}

func (s stageTable) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:\n\n| stage | time | share |\n|---|---|---|\n", s.Title)
	left := s.Total
	line := func(name string, took float64) {
		fmt.Fprintf(&b, "| %s | %s | %.0f %% |\n", name, measure.Seconds.Format(took), 100*took/s.Total)
	}
	for _, st := range s.Stages {
		line(st.Name, st.Took)
		left -= st.Took
	}
	line("the rest: the API's answer, hand-over between stages, the client's next poll", left)
	line("**all, as the client saw it**", s.Total)
	return b.String()
}
