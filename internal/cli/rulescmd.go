package cli

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/inspect"
)

func rulesCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "rules", Short: "The filter's rules: list, test, explain, import; and on the server: status, shadow, activate",
		Long: "list, test, explain and import work offline, on the rules that come with bailey and on files of yours. docs/filter.md describes the format: gitleaks' TOML, with a few keys more.",
	}
	cmd.AddCommand(rulesList(s), rulesTest(s), rulesExplain(s), rulesImport(s))
	cmd.AddCommand(rulesOnServer(s)...)
	return cmd
}

// A ruleView is a rule as rules list shows it.
type ruleView struct {
	ID          string   `json:"id"`
	Mode        string   `json:"mode"`
	Description string   `json:"description"`
	File        string   `json:"file"`
	Line        int      `json:"line"`
	Pattern     string   `json:"pattern"`
	Keywords    []string `json:"keywords,omitempty"`
	Context     []string `json:"context,omitempty"`
	Entropy     float64  `json:"entropy,omitempty"`
	Validator   string   `json:"validator,omitempty"`
	Boundary    string   `json:"boundary,omitempty"`
	Priority    int      `json:"priority,omitempty"`
	MaxLength   int      `json:"max_length,omitempty"`
	MinUnique   int      `json:"min_unique,omitempty"`
	Path        string   `json:"path,omitempty"`
	Examples    int      `json:"examples"`
	Negatives   int      `json:"negatives"`
}

func rulesList(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list [ID]…", Short: "All rules, or the ones named, whole with -o json or yaml",
		Example: "  bailey rules list\n  bailey rules list jwt -o yaml\n  bailey rules list --rules mine/",
	}
	rules := rulesFlag(cmd)
	format := outputFlag(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		set, err := loadRules(*rules, false)
		if err != nil {
			return err
		}
		views := []ruleView{}
		for _, r := range set.Rules() {
			if len(args) == 0 || slices.Contains(args, r.ID) {
				views = append(views, ruleView{
					r.ID, r.Mode.String(), r.Description, r.File, r.Line, r.Pattern, r.Keywords, r.Context, r.Entropy,
					r.Validator, r.Boundary, r.Priority, r.MaxLength, r.MinUnique, r.Path, len(r.Examples), len(r.Negatives),
				})
			}
		}
		for _, id := range args {
			if !slices.ContainsFunc(views, func(v ruleView) bool { return v.ID == id }) {
				return &failure{code: exitNotFound, msg: fmt.Sprintf("there is no rule %s", clean(id)), hint: "bailey rules list -o name lists them"}
			}
		}
		slices.SortStableFunc(views, func(a, b ruleView) int { return cmp.Compare(a.ID, b.ID) })
		l := listing{value: views, head: []string{"RULE", "MODE", "FILE", "DESCRIPTION"}}
		for _, v := range views {
			l.rows = append(l.rows, []string{v.ID, v.Mode, clean(v.File), clean(shorten(v.Description, 80))})
		}
		return l.print(s.out, *format)
	}
	return cmd
}

// shorten cuts a text to n characters.
func shorten(text string, n int) string {
	r := []rune(text)
	if len(r) <= n {
		return text
	}
	return string(r[:n-1]) + "…"
}

func rulesTest(s *streams) *cobra.Command {
	return &cobra.Command{
		Use: "test FILE|DIR…", Short: "Check rule files and run their own examples and negatives; exit 3 on a problem", Args: cobra.MinimumNArgs(1),
		Long: "Reads rule files as the server does: every problem is told with its file, rule and line. A server refuses a file that fails here and keeps the rules it has.",
		RunE: func(_ *cobra.Command, args []string) error {
			files, err := ruleFiles(args)
			if err != nil {
				return err
			}
			set, err := inspect.Compile(inspect.Config{Files: files, NoDefaults: true})
			if err != nil {
				fmt.Fprintln(s.err, cleanLines(err.Error()))
				return silentError(exitFindings)
			}
			if _, err := inspect.Compile(inspect.Config{Files: files}); err != nil { // beside the others, too
				fmt.Fprintln(s.err, cleanLines(err.Error()))
				return silentError(exitFindings)
			}
			examples, negatives := 0, 0
			var bare []string
			for _, r := range set.Rules() {
				examples += len(r.Examples)
				negatives += len(r.Negatives)
				if len(r.Examples) == 0 {
					bare = append(bare, r.ID)
				}
			}
			fmt.Fprintf(s.out, "%s good: %s found, %s left alone.\n", count(len(set.Rules()), "rule"), count(examples, "example"), count(negatives, "negative"))
			if len(bare) > 0 {
				fmt.Fprintf(s.err, "%s without examples: %s\n", count(len(bare), "rule"), clean(shorten(strings.Join(bare, ", "), 400)))
			}
			return nil
		},
	}
}

// An explanation is what the rules make of one place in a sample.
type explanation struct {
	Offset int64  `json:"offset"`
	Length int64  `json:"length"`
	Rule   string `json:"rule"`
	Result string `json:"result"` // the mode, or "no"
	Why    string `json:"why,omitempty"`
}

func rulesExplain(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "explain FILE|-", Short: "What the rules find in a sample, and why near misses are none", Args: cobra.ExactArgs(1),
		Long:    "Says for every place where a rule's pattern matches whether it is a finding, and if not, which condition says no. Places are bytes; the text itself is never printed.",
		Example: "  echo 'id 110105194912310020' | bailey rules explain -",
	}
	rules := rulesFlag(cmd)
	format := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		set, err := loadRules(*rules, false)
		if err != nil {
			return err
		}
		text, err := s.sample(cmd, args[0])
		if err != nil {
			return err
		}
		out := []explanation{}
		for _, f := range set.Scan(inspect.ScanConfig{}, text) {
			why := ""
			if f.Lane != "" {
				why = "read as " + f.Lane
			}
			out = append(out, explanation{f.Offset, f.Length, f.Rule, f.Mode.String(), why})
		}
		for _, m := range set.Explain(inspect.ScanConfig{}, text) {
			out = append(out, explanation{m.Offset, m.Length, m.Rule, "no", m.Reason})
		}
		slices.SortStableFunc(out, func(a, b explanation) int { return cmp.Compare(a.Offset, b.Offset) })
		l := listing{value: out, head: []string{"OFFSET", "LENGTH", "RULE", "RESULT", "WHY"}}
		for _, e := range out {
			l.rows = append(l.rows, []string{fmt.Sprint(e.Offset), fmt.Sprint(e.Length), e.Rule, e.Result, dash(e.Why)})
		}
		return l.print(s.out, *format)
	}
	return cmd
}

// maxSample bounds a sample: patterns run over it without any filter before
// them.
const maxSample = 1 << 20

// sample reads a file or standard input.
func (s *streams) sample(cmd *cobra.Command, name string) ([]byte, error) {
	var in bytes.Buffer
	src := s.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, missing("read the sample", err)
		}
		defer func() { _ = f.Close() }() // only read
		src = f
	}
	for p := range pieces(cmd.Context(), src) {
		in.Write(p.data)
		if in.Len() > maxSample {
			return nil, usage("cut out the lines in question", "the sample is larger than %d KiB", maxSample>>10)
		}
		if p.err != nil && !errors.Is(p.err, io.EOF) {
			return nil, missing("read the sample", p.err)
		}
	}
	return in.Bytes(), cmd.Context().Err()
}

func rulesImport(s *streams) *cobra.Command {
	return &cobra.Command{
		Use: "import FILE", Short: "Translate a gitleaks or betterleaks rule file; what has no counterpart is told", Args: cobra.ExactArgs(1),
		Long:    "Prints the file in bailey's format on standard output. gitleaks' files need no translation and are only checked; of betterleaks' files the entropy in filters is kept, and other conditions, network validations and rules that need others are told on standard error.",
		Example: "  bailey rules import betterleaks.toml > rules/betterleaks.toml",
		RunE: func(_ *cobra.Command, args []string) error {
			data, err := os.ReadFile(args[0])
			if err != nil {
				return missing("read the rules", err)
			}
			out, notes, err := inspect.Import(args[0], data)
			if err != nil {
				return &failure{code: exitFailure, msg: "import " + clean(args[0]) + ":\n" + cleanLines(err.Error()), hint: "mend or remove these rules in the file, and import it again"}
			}
			for _, n := range notes {
				fmt.Fprintf(s.err, "bailey: %s\n", clean(n))
			}
			_, err = s.out.Write(out)
			return err
		},
	}
}
