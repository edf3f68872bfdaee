package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/inspect"
)

// rulesFlag adds --rules to a command that looks at text.
func rulesFlag(cmd *cobra.Command) *[]string {
	return cmd.Flags().StringArray("rules", nil, "folder or file of further rules (gitleaks' TOML format); may be given again")
}

// loadRules compiles the rules that come with bailey and those of the folders
// and files, by name within a folder.
func loadRules(places []string, noDefaults bool) (*inspect.Set, error) {
	files, err := ruleFiles(places)
	if err != nil {
		return nil, err
	}
	set, err := inspect.Compile(inspect.Config{Files: files, NoDefaults: noDefaults})
	if err != nil {
		return nil, &failure{code: exitUsage, msg: "the rules cannot be used:\n" + err.Error(), hint: "bailey rules test FILE checks them again"}
	}
	return set, nil
}

// ruleFiles reads the .toml files of folders, and files as they are.
func ruleFiles(places []string) ([]inspect.File, error) {
	var files []inspect.File
	for _, place := range places {
		info, err := os.Stat(place)
		if err != nil {
			return nil, missing("read the rules", err)
		}
		names := []string{place}
		if info.IsDir() {
			if names, err = filepath.Glob(filepath.Join(escapeGlob(place), "*.toml")); err != nil || len(names) == 0 {
				return nil, usage("rule files end in .toml; bailey rules list shows the rules there are", "there are no rule files in %s", clean(place))
			}
			slices.Sort(names)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				return nil, missing("read the rules", err)
			}
			files = append(files, inspect.File{Name: name, Data: data})
		}
	}
	return files, nil
}

// escapeGlob returns a path that a pattern takes literally.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// missing is a file that cannot be read: not found, or not readable.
func missing(doing string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return &failure{code: exitNotFound, msg: doing, hint: "check the spelling; paths are relative to where you are", err: err}
	}
	if errors.Is(err, os.ErrPermission) {
		return &failure{code: exitFailure, msg: doing, hint: "ls -l shows who may read it", err: err}
	}
	return &failure{code: exitFailure, msg: doing, err: err}
}

func redactCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "redact", Short: "Mask secrets and personal data in a stream: stdin to stdout", GroupID: "",
		Long: "Copies standard input to standard output and replaces what the rules find by [REDACTED:rule]. " +
			"Text passes as soon as no rule can object to it any more; what might still become a secret waits for the next bytes, never for a timer. " +
			"It works offline and in bounded memory, on streams that never end.\n\n" +
			"With --mode block nothing of a finding passes, the stream ends there, and the exit code is 3.",
		Example: "  python train.py 2>&1 | bailey redact | tee train.log\n  bailey redact --mode block < dump.sql > clean.sql",
		Args:    cobra.NoArgs,
	}
	rules := rulesFlag(cmd)
	mode := cmd.Flags().String("mode", "", "mask or block, whatever a rule's own mode is (rules that only log still do)")
	report := cmd.Flags().String("report", "", "write one JSON object a line for each finding: rule, mode, offset, length, stream")
	_ = cmd.RegisterFlagCompletionFunc("mode", cobra.FixedCompletions([]string{"mask", "block"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		set, err := loadRules(*rules, false)
		if err != nil {
			return err
		}
		if set, err = withMode(set, *mode); err != nil {
			return err
		}
		r := &redactor{in: s.in, out: s.out}
		if *report != "" {
			f, err := os.OpenFile(*report, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
			if err != nil {
				return missing("write the report", err)
			}
			defer func() { err = errors.Join(err, f.Close()) }()
			r.report = json.NewEncoder(f)
		}
		err = r.run(cmd.Context(), set)
		if blocked, ok := errors.AsType[*inspect.BlockedError](err); ok {
			return &failure{code: exitFindings, msg: fmt.Sprintf("blocked: rule %s matches at byte %d; what came before it has passed", blocked.Rule, blocked.Offset), hint: "bailey rules list " + blocked.Rule + " says what the rule looks for"}
		}
		return err
	}
	return cmd
}

// withMode makes every rule that masks or blocks do what the person asked for.
func withMode(set *inspect.Set, mode string) (*inspect.Set, error) {
	if mode == "" {
		return set, nil
	}
	var want inspect.Mode
	if err := want.UnmarshalText([]byte(mode)); err != nil || want != inspect.Mask && want != inspect.Block {
		return nil, usage("write --mode mask or --mode block", "%q is no mode", mode)
	}
	modes := map[string]inspect.Mode{}
	for _, r := range set.Rules() {
		if r.Mode >= inspect.Mask {
			modes[r.ID] = want
		}
	}
	return set.With(inspect.Overrides{Modes: modes, Exact: want}), nil
}

// A redactor copies one stream.
type redactor struct {
	in     io.Reader
	out    io.Writer
	report *json.Encoder // nil: none
}

// redactReport is one line of a report.
type redactReport struct {
	Rule   string       `json:"rule"`
	Mode   inspect.Mode `json:"mode"`
	Offset int64        `json:"offset"` // of the input, in bytes
	Length int64        `json:"length"`
	Stream string       `json:"stream"`
	Lane   string       `json:"lane,omitempty"`
}

// run copies until the input ends, a rule blocks, or ctx ends; then too, what
// waits is decided and written.
func (r *redactor) run(ctx context.Context, set *inspect.Set) error {
	var reportErr error
	cfg := inspect.StreamConfig{Set: set, ScanConfig: inspect.ScanConfig{Kind: inspect.Batch}}
	if r.report != nil {
		cfg.Report = func(f inspect.Finding) {
			reportErr = errors.Join(reportErr, r.report.Encode(redactReport{f.Rule, f.Mode, f.Offset, f.Length, "stdin", f.Lane}))
		}
	}
	stream := inspect.NewStream(cfg)
	var out []byte
	write := func(err error) error {
		if len(out) > 0 {
			if _, werr := r.out.Write(out); werr != nil {
				return &failure{code: exitFailure, msg: "write the output", err: werr}
			}
			out = out[:0]
		}
		if reportErr != nil {
			return &failure{code: exitFailure, msg: "write the report", err: reportErr}
		}
		return err
	}
	var end error
	for piece := range pieces(ctx, r.in) {
		var err error
		if len(piece.data) > 0 {
			out, err = stream.Write(out, piece.data)
		}
		if err := write(err); err != nil {
			return err
		}
		if end = piece.err; end != nil {
			break
		}
	}
	var err error
	out, err = stream.Close(out)
	if err := write(err); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if end != nil && !errors.Is(end, io.EOF) {
		return &failure{code: exitFailure, msg: "read the input", err: end}
	}
	return nil
}

// A piece is what one read gave.
type piece struct {
	data []byte
	err  error
}

// pieces reads in until it ends or ctx does. The goroutine that reads outlives
// ctx only as long as its last read blocks: nothing can interrupt a read from a
// terminal, and the process is about to end.
func pieces(ctx context.Context, in io.Reader) func(yield func(piece) bool) {
	return func(yield func(piece) bool) {
		full := make(chan piece)              // the reader closes it
		empty := make(chan []byte, 2)         // never closed
		done, stop := context.WithCancel(ctx) // ends the reader
		defer stop()
		empty <- make([]byte, 64<<10)
		empty <- make([]byte, 64<<10)
		go func() {
			defer close(full)
			for {
				var buf []byte
				select {
				case buf = <-empty:
				case <-done.Done():
					return
				}
				n, err := in.Read(buf[:cap(buf)])
				select {
				case full <- piece{buf[:n], err}:
				case <-done.Done():
					return
				}
				if err != nil {
					return
				}
			}
		}()
		for {
			select {
			case p, ok := <-full:
				if !ok || !yield(p) {
					return
				}
				empty <- p.data
			case <-ctx.Done():
				return
			}
		}
	}
}
