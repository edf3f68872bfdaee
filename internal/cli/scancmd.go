package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/gitrepo"
	"github.com/baileyhq/bailey/internal/inspect"
	"github.com/baileyhq/bailey/internal/scan"
)

// scanFormats are the outputs of scan.
var scanFormats = []string{"table", "json", "yaml", "name", "sarif"}

// scanFlags are what a person asked scan for.
type scanFlags struct {
	staged, history     bool
	baseline            string
	update, all, binary bool
	records, format     string
}

func scanCommand(s *streams) *cobra.Command {
	var f scanFlags
	cmd := &cobra.Command{
		Use: "scan PATH…|-", Short: "Find secrets and personal data in files, notebooks, archives, git; exit 3 on findings",
		Long: "Looks at files, and at everything below folders: text, notebooks by cell and output, archives and what is in them. " +
			"It says which rule matched where, never what. .git is left out, links are not followed.\n\n" +
			"A line that holds bailey:allow (or gitleaks:allow) has no findings. Rules that only log (e-mail and private addresses) count with --all.\n\n" +
			"Exit codes: 0 nothing found, 3 findings, 1 something could not be looked at and nothing was found.",
		Example: "  bailey scan .\n  bailey scan --staged\n  bailey scan --history -o sarif > findings.sarif\n  bailey scan . --baseline .bailey-baseline.json --update-baseline\n  bailey scan --records data.jsonl",
	}
	fl := cmd.Flags()
	rules := rulesFlag(cmd)
	fl.BoolVar(&f.staged, "staged", false, "what is about to be committed: the new lines of staged files")
	fl.BoolVar(&f.history, "history", false, "everything that was ever committed, on any branch, and the messages")
	fl.StringVar(&f.baseline, "baseline", "", "file of findings that are accepted: they are not told")
	fl.BoolVar(&f.update, "update-baseline", false, "accept what is found now: write it to the baseline, and exit 0")
	fl.BoolVar(&f.all, "all", false, "tell findings of rules that only log, too")
	fl.BoolVar(&f.binary, "binary", false, "look into files that are no text, too")
	fl.StringVar(&f.records, "records", "", "file (or -) of JSON objects, one a line, each with a \"text\": each is looked at by itself")
	fl.StringVarP(&f.format, "output", "o", "table", "format: "+strings.Join(scanFormats, ", "))
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(scanFormats, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := f.check(args); err != nil {
			return err
		}
		set, err := loadRules(*rules, false)
		if err != nil {
			return err
		}
		if f.records != "" {
			return s.scanRecords(cmd.Context(), &f, set)
		}
		return s.scan(cmd.Context(), &f, set, args)
	}
	return cmd
}

// check refuses flags that do not go together.
func (f *scanFlags) check(args []string) error {
	if !slices.Contains(scanFormats, f.format) {
		return usage("use one of "+strings.Join(scanFormats, ", "), "%q is no output format", f.format)
	}
	ways := 0
	for _, on := range []bool{f.staged, f.history, f.records != ""} {
		if on {
			ways++
		}
	}
	switch {
	case ways > 1:
		return usage("give one of them", "--staged, --history and --records are three ways to look")
	case f.records != "" && (len(args) > 0 || f.baseline != "" || f.format != "table" && f.format != "json"):
		return usage("bailey scan --records FILE prints one JSON object a line", "--records takes no paths, no baseline and no format")
	case ways == 1 && len(args) > 1:
		return usage("give one folder of the repository, or none for this one", "%d folders were given", len(args))
	case ways == 0 && len(args) == 0:
		return usage("bailey scan . looks at everything here, bailey scan - at standard input", "nothing to look at was named")
	case f.update && f.baseline == "":
		return usage("give --baseline FILE too", "--update-baseline needs a file to write")
	case slices.Contains(args, "-") && len(args) > 1:
		return usage("give - alone", "standard input cannot stand among files")
	}
	return nil
}

// scan looks at files or at a repository, and prints.
func (s *streams) scan(ctx context.Context, f *scanFlags, set *inspect.Set, args []string) error {
	cfg := scan.Config{Set: set, Binary: f.binary}
	if f.all {
		cfg.Least = inspect.LogOnly
	}
	if f.baseline != "" {
		b, err := scan.LoadBaseline(f.baseline, f.update)
		if errors.Is(err, os.ErrNotExist) {
			return &failure{code: exitNotFound, msg: "there is no baseline " + clean(f.baseline), hint: "--update-baseline writes one"}
		}
		if err != nil {
			return &failure{code: exitUsage, msg: err.Error(), hint: "restore the file, or remove it and run with --update-baseline"}
		}
		cfg.Baseline = b
	}
	problems := s.problems(&cfg)
	scanner, err := scan.New(cfg)
	if err != nil {
		return err
	}
	found, err := s.look(ctx, f, scanner, args)
	if err != nil {
		return err
	}
	known := len(found)
	found = slices.DeleteFunc(found, func(x scan.Finding) bool { return x.Known && !f.update })
	known -= len(found)
	if f.update {
		if err := cfg.Baseline.Save(f.baseline); err != nil {
			return &failure{code: exitFailure, msg: err.Error(), hint: "check that the folder can be written to"}
		}
		fmt.Fprintf(s.err, "%s are accepted in %s.\n", count(len(found), "finding"), clean(f.baseline))
		return nil
	}
	if err := s.printFindings(f.format, found, set); err != nil {
		return err
	}
	files, skipped := scanner.Counts()
	fmt.Fprintf(s.err, "%s in %s.", count(len(found), "finding"), count(files, "file"))
	if known > 0 {
		fmt.Fprintf(s.err, " %s known from the baseline.", count(known, "finding"))
	}
	if skipped > 0 {
		fmt.Fprintf(s.err, " %s no text and were left out (--binary looks into them).", count(skipped, "file"))
	}
	fmt.Fprintln(s.err)
	switch {
	case len(found) > 0:
		return silentError(exitFindings)
	case problems.n > 0:
		return &failure{code: exitFailure, msg: fmt.Sprintf("%s could not be looked at wholly", count(problems.n, "file")), hint: "the lines above say why"}
	}
	return nil
}

// look chooses the way to look.
func (s *streams) look(ctx context.Context, f *scanFlags, scanner *scan.Scanner, args []string) ([]scan.Finding, error) {
	if f.staged || f.history {
		dir := "."
		if len(args) == 1 {
			dir = args[0]
		}
		repo, err := openRepo(ctx, dir)
		if err != nil {
			return nil, err
		}
		if f.staged {
			return scanner.Staged(ctx, repo)
		}
		return scanner.History(ctx, repo)
	}
	if args[0] == "-" {
		r, w := io.Pipe()
		go func() { // ends with the input, or when r is closed
			for p := range pieces(ctx, s.in) {
				if _, err := w.Write(p.data); err != nil {
					return
				}
				if p.err != nil {
					_ = w.CloseWithError(p.err) // never fails
					return
				}
			}
			_ = w.CloseWithError(ctx.Err()) // never fails
		}()
		defer func() { _ = r.Close() }() // never fails
		return scanner.Reader(ctx, "(stdin)", r)
	}
	found, err := scanner.Paths(ctx, args)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return nil, missing("look at the files", err)
	}
	return found, err
}

// openRepo opens the repository of a folder, or says what is missing.
func openRepo(ctx context.Context, dir string) (*gitrepo.Repo, error) {
	repo, err := gitrepo.Open(ctx, dir)
	switch {
	case errors.Is(err, gitrepo.ErrNoGit):
		return nil, &failure{code: exitFailure, msg: "git is not installed", hint: "install git, or scan the files: bailey scan ."}
	case errors.Is(err, gitrepo.ErrNone):
		return nil, &failure{code: exitNotFound, msg: fmt.Sprintf("%s is in no git repository that git can read", clean(dir)), hint: "go into the repository, or scan the files: bailey scan .", err: err}
	}
	return repo, err
}

// problems counts and prints what could not be looked at.
type problems struct {
	mu sync.Mutex // guards n, and lines on stderr
	n  int
}

func (s *streams) problems(cfg *scan.Config) *problems {
	p := &problems{}
	cfg.Problem = func(name string, err error) {
		if errors.Is(err, context.Canceled) {
			return
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.n++
		fmt.Fprintf(s.err, "bailey: %s: %s\n", clean(name), clean(err.Error()))
	}
	return p
}

// count writes a number and its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// printFindings writes findings in a format.
func (s *streams) printFindings(format string, found []scan.Finding, set *inspect.Set) error {
	if format == "sarif" {
		return writeSARIF(s.out, found, set)
	}
	if found == nil {
		found = []scan.Finding{}
	}
	if format == "name" {
		paths := map[string]bool{}
		for _, f := range found {
			if !paths[f.Path] {
				paths[f.Path] = true
				fmt.Fprintln(s.out, clean(f.Path))
			}
		}
		return nil
	}
	if format == "table" && len(found) == 0 {
		return nil
	}
	l := listing{value: found, head: []string{"PLACE", "RULE", "MODE", "WHERE"}}
	for _, f := range found {
		place := clean(f.Path)
		if f.Line > 0 {
			place += fmt.Sprintf(":%d", f.Line)
		}
		if f.Column > 0 {
			place += fmt.Sprintf(":%d", f.Column)
		}
		var where []string
		if f.Cell > 0 {
			where = append(where, fmt.Sprintf("cell %d", f.Cell))
		}
		for _, w := range []string{f.Part, f.Commit[:min(len(f.Commit), 12)], f.Lane} {
			if w != "" {
				where = append(where, clean(w))
			}
		}
		l.rows = append(l.rows, []string{place, f.Rule, f.Mode.String(), dash(strings.Join(where, ", "))})
	}
	return l.print(s.out, format)
}

// scanRecords looks at records and prints one JSON object a line.
func (s *streams) scanRecords(ctx context.Context, f *scanFlags, set *inspect.Set) error {
	cfg := scan.Config{Set: set}
	if f.all {
		cfg.Least = inspect.LogOnly
	}
	scanner, err := scan.New(cfg)
	if err != nil {
		return err
	}
	in := s.in
	if f.records != "-" {
		file, err := os.Open(f.records)
		if err != nil {
			return missing("read the records", err)
		}
		defer func() { _ = file.Close() }() // only read
		in = file
	}
	enc := json.NewEncoder(s.out)
	found, bad := 0, 0
	err = scanner.Records(ctx, in, func(r scan.RecordFinding) error {
		found++
		return enc.Encode(r)
	}, func(e *scan.RecordError) {
		bad++
		fmt.Fprintf(s.err, "bailey: %s: %s\n", clean(f.records), clean(e.Error()))
	})
	switch {
	case err != nil:
		return err
	case found > 0:
		return silentError(exitFindings)
	case bad > 0:
		return &failure{code: exitFailure, msg: count(bad, "line") + " could not be read as a record", hint: `each line is a JSON object with a "text"`}
	}
	return nil
}
