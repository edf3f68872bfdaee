package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/notebook"
)

// maxNotebook is the largest notebook that strip reads, in bytes.
const maxNotebook = 1 << 30

// keeps are the words of --keep.
var keeps = []string{"outputs", "counts", "metadata"}

func stripCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "strip FILE…|-", Short: "Take outputs, execution counts and transient metadata out of notebooks",
		Long: "Changes notebooks in place, or copies standard input to standard output for -. All other bytes stay as they are, so that a diff shows what a person changed; " +
			"stripping twice changes nothing. Outputs of cells with the tag keep_output stay.\n\n" +
			"bailey hooks install makes git do this for every notebook that is added.",
		Example: "  bailey strip analysis.ipynb\n  bailey strip - < a.ipynb > b.ipynb\n  bailey strip --check *.ipynb",
		Args:    cobra.MinimumNArgs(1),
	}
	keep := cmd.Flags().StringSlice("keep", nil, "what to leave in place: "+strings.Join(keeps, ", ")+"; may be given again")
	check := cmd.Flags().Bool("check", false, "change nothing; name the files that would change, and exit 3 if there are any")
	_ = cmd.RegisterFlagCompletionFunc("keep", cobra.FixedCompletions(keeps, cobra.ShellCompDirectiveNoFileComp))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var k notebook.Keep
		for _, word := range *keep {
			switch word {
			case "outputs":
				k.Outputs = true
			case "counts":
				k.Counts = true
			case "metadata":
				k.Metadata = true
			default:
				return usage("use "+strings.Join(keeps, ", "), "%q is nothing that can be kept", word)
			}
		}
		if slices.Contains(args, "-") {
			if len(args) > 1 || *check {
				return usage("give - alone", "standard input cannot stand among files, nor be checked")
			}
			return s.stripInput(cmd, k)
		}
		failed, changed := 0, 0
		for _, name := range args {
			if err := cmd.Context().Err(); err != nil {
				return err
			}
			differs, err := stripFile(name, k, *check)
			if err != nil {
				fmt.Fprintf(s.err, "bailey: %s: %s\n", clean(name), clean(err.Error()))
				failed++
			}
			if differs {
				changed++
				if *check {
					fmt.Fprintln(s.out, clean(name))
				}
			}
		}
		switch {
		case failed > 0:
			return &failure{code: exitFailure, msg: count(failed, "file") + " could not be stripped", hint: "the lines above say why; files that failed are unchanged"}
		case *check && changed > 0:
			return silentError(exitFindings)
		}
		return nil
	}
	return cmd
}

// stripInput copies standard input.
func (s *streams) stripInput(cmd *cobra.Command, keep notebook.Keep) error {
	var in bytes.Buffer
	for p := range pieces(cmd.Context(), s.in) {
		in.Write(p.data)
		if p.err != nil && !errors.Is(p.err, io.EOF) {
			return &failure{code: exitFailure, msg: "read the notebook", err: p.err}
		}
		if in.Len() > maxNotebook {
			return &failure{code: exitFailure, msg: fmt.Sprintf("the notebook is larger than %d MiB", maxNotebook>>20)}
		}
		if p.err != nil {
			break
		}
	}
	if err := cmd.Context().Err(); err != nil {
		return err
	}
	if len(bytes.TrimSpace(in.Bytes())) == 0 { // git adds empty files, too
		_, err := s.out.Write(in.Bytes())
		return err
	}
	out, err := notebook.Strip(in.Bytes(), keep)
	if err != nil {
		return &failure{code: exitFailure, msg: "strip the notebook", hint: "open it in Jupyter and save it again", err: err}
	}
	_, err = s.out.Write(out)
	return err
}

// stripFile changes a file in place, all of it or nothing, and says whether it
// differed. A link stays one: the file behind it is changed.
func stripFile(name string, keep notebook.Keep, check bool) (bool, error) {
	target, err := filepath.EvalSymlinks(name)
	if err != nil {
		return false, err
	}
	info, err := os.Stat(target)
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() {
		return false, errors.New("is no regular file")
	}
	if info.Size() > maxNotebook {
		return false, fmt.Errorf("is larger than %d MiB", maxNotebook>>20)
	}
	data, err := os.ReadFile(target)
	if err != nil {
		return false, err
	}
	out, err := notebook.Strip(data, keep)
	if err != nil || bytes.Equal(out, data) {
		return false, err
	}
	if check {
		return true, nil
	}
	return true, replaceFile(target, out, info.Mode().Perm())
}

// replaceFile puts new contents in place of a file's in one step.
func replaceFile(name string, data []byte, mode os.FileMode) error {
	tmp, err := os.CreateTemp(filepath.Dir(name), ".bailey-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }() // gone already when all went well
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), name)
}
