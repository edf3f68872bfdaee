package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/gitrepo"
)

// What hooks install writes, and hooks uninstall takes away again.
const (
	hookBegin      = "# >>> bailey: installed by \"bailey hooks install\" >>>"
	hookEnd        = "# <<< bailey <<<"
	filterName     = "bailey-strip"
	attributesLine = "*.ipynb filter=" + filterName
)

func hooksCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{Use: "hooks", Short: "Make git strip notebooks and refuse to commit secrets"}
	install := &cobra.Command{
		Use: "install [DIR]", Short: "Set the git filter for notebooks and the pre-commit scan", Args: cobra.MaximumNArgs(1),
		Long: "Works on the repository that holds DIR (or this folder), and on nothing else:\n\n" +
			"  - a filter strips notebooks when they are added; the files on disk keep their outputs\n" +
			"  - the pre-commit hook runs bailey scan --staged, before what the hook did so far\n\n" +
			"Installing twice changes nothing; bailey hooks uninstall takes both away.",
	}
	keep := install.Flags().StringSlice("keep", nil, "what the filter leaves in place: "+strings.Join(keeps, ", "))
	shared := install.Flags().Bool("shared", false, "name the filter in .gitattributes, which is committed, instead of in .git/info/attributes")
	install.RunE = func(cmd *cobra.Command, args []string) error {
		for _, word := range *keep {
			if !slices.Contains(keeps, word) {
				return usage("use "+strings.Join(keeps, ", "), "%q is nothing that can be kept", word)
			}
		}
		h, err := openHooks(cmd.Context(), args)
		if err != nil {
			return err
		}
		if err := h.install(cmd.Context(), *keep, *shared); err != nil {
			return err
		}
		fmt.Fprintf(s.err, "Notebooks are stripped when they are added, and %s runs bailey scan --staged.\n", clean(h.hook))
		return nil
	}
	uninstall := &cobra.Command{
		Use: "uninstall [DIR]", Short: "Take the git filter and the pre-commit scan away", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			h, err := openHooks(cmd.Context(), args)
			if err != nil {
				return err
			}
			return h.uninstall(cmd.Context())
		},
	}
	cmd.AddCommand(install, uninstall)
	return cmd
}

// hooks are the places in a repository that install changes.
type hooks struct {
	repo       *gitrepo.Repo
	hook       string // the pre-commit hook
	attributes string // this clone's attributes
	shared     string // everybody's attributes
}

func openHooks(ctx context.Context, args []string) (*hooks, error) {
	dir := "."
	if len(args) == 1 {
		dir = args[0]
	}
	repo, err := openRepo(ctx, dir)
	if err != nil {
		return nil, err
	}
	h := &hooks{repo: repo, shared: filepath.Join(repo.Root, ".gitattributes")}
	if h.hook, err = repo.Path(ctx, "hooks/pre-commit"); err != nil {
		return nil, err
	}
	h.attributes, err = repo.Path(ctx, "info/attributes")
	return h, err
}

// program is how the hooks call bailey: by its name where the shell finds this
// very program under it, so that an update is used at once.
func program() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	if found, err := exec.LookPath("bailey"); err == nil {
		a, aerr := filepath.EvalSymlinks(found)
		b, berr := filepath.EvalSymlinks(self)
		if aerr == nil && berr == nil && a == b {
			return "bailey", nil
		}
	}
	return "'" + strings.ReplaceAll(self, "'", `'\''`) + "'", nil
}

func (h *hooks) install(ctx context.Context, keep []string, shared bool) error {
	bin, err := program()
	if err != nil {
		return err
	}
	// The hook first: it is what may be refused.
	if err := h.installHook(bin); err != nil {
		return err
	}
	strip := bin + " strip"
	if len(keep) > 0 {
		strip += " --keep " + strings.Join(keep, ",")
	}
	for _, kv := range [][2]string{{"clean", strip + " -"}, {"smudge", "cat"}, {"required", "true"}} {
		if err := h.repo.Configure(ctx, "filter."+filterName+"."+kv[0], kv[1]); err != nil {
			return fmt.Errorf("set the git filter: %w", err)
		}
	}
	file := h.attributes
	if shared {
		file = h.shared
	}
	return addLine(file, attributesLine)
}

// installHook puts our lines behind the first line of the hook, so that an
// early exit of what stands there does not skip them.
func (h *hooks) installHook(bin string) error {
	old, err := os.ReadFile(h.hook)
	if errors.Is(err, os.ErrNotExist) {
		old, err = []byte("#!/bin/sh\n"), nil
	}
	if err != nil {
		return missing("read the pre-commit hook", err)
	}
	text, err := cutBlock(old)
	if err != nil {
		return &failure{code: exitFailure, msg: fmt.Sprintf("%s: %v", clean(h.hook), err), hint: "remove our lines by hand and run this again"}
	}
	first, rest, _ := bytes.Cut(text, []byte("\n"))
	if !isShell(string(first)) {
		return &failure{
			code: exitFailure, msg: fmt.Sprintf("the pre-commit hook %s is no shell script", clean(h.hook)),
			hint: "add this to it by hand: " + bin + " scan --staged",
		}
	}
	block := hookBegin + "\n" + bin + " scan --staged || exit 1\n" + hookEnd + "\n"
	text = slices.Concat(first, []byte("\n"), []byte(block), rest)
	if bytes.Equal(text, old) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(h.hook), 0o750); err != nil {
		return missing("write the pre-commit hook", err)
	}
	if err := replaceFile(h.hook, text, 0o750); err != nil {
		return missing("write the pre-commit hook", err)
	}
	return nil
}

// isShell reports whether a script's first line names a shell.
func isShell(line string) bool {
	line, ok := strings.CutPrefix(strings.TrimRight(line, "\r"), "#!")
	f := strings.Fields(line)
	if !ok || len(f) == 0 {
		return false
	}
	name := filepath.Base(f[0])
	if name == "env" && len(f) > 1 {
		name = f[len(f)-1]
	}
	return slices.Contains([]string{"sh", "bash", "dash", "zsh", "ksh", "ash"}, name)
}

// cutBlock returns a hook without our lines.
func cutBlock(text []byte) ([]byte, error) {
	before, rest, ok := bytes.Cut(text, []byte(hookBegin+"\n"))
	if !ok {
		return text, nil
	}
	_, after, ok := bytes.Cut(rest, []byte(hookEnd+"\n"))
	if !ok {
		return nil, fmt.Errorf("the line %q is gone", hookEnd)
	}
	return slices.Concat(before, after), nil
}

func (h *hooks) uninstall(ctx context.Context) error {
	if old, err := os.ReadFile(h.hook); err == nil {
		text, err := cutBlock(old)
		if err != nil {
			return &failure{code: exitFailure, msg: fmt.Sprintf("%s: %v", clean(h.hook), err), hint: "remove our lines by hand"}
		}
		switch {
		case bytes.Equal(text, old):
		case strings.TrimSpace(string(text)) == "#!/bin/sh": // nobody else wrote in it
			err = os.Remove(h.hook)
		default:
			err = replaceFile(h.hook, text, 0o755)
		}
		if err != nil {
			return missing("change the pre-commit hook", err)
		}
	}
	for _, file := range []string{h.attributes, h.shared} {
		if err := removeLine(file, attributesLine); err != nil {
			return err
		}
	}
	for _, key := range []string{"clean", "smudge", "required"} {
		if err := h.repo.Configure(ctx, "filter."+filterName+"."+key, ""); err != nil {
			return fmt.Errorf("remove the git filter: %w", err)
		}
	}
	return nil
}

// addLine adds a line to a file that has it not yet.
func addLine(file, line string) error {
	old, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return missing("change the attributes", err)
	}
	if slices.Contains(strings.Split(strings.ReplaceAll(string(old), "\r\n", "\n"), "\n"), line) {
		return nil
	}
	if len(old) > 0 && old[len(old)-1] != '\n' {
		old = append(old, '\n')
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return missing("change the attributes", err)
	}
	if err := replaceFile(file, append(old, line+"\n"...), 0o644); err != nil {
		return missing("change the attributes", err)
	}
	return nil
}

// removeLine removes a line; a file that has nothing left goes, too.
func removeLine(file, line string) error {
	old, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return missing("change the attributes", err)
	}
	var left []byte
	for l := range bytes.Lines(old) {
		if strings.TrimRight(string(l), "\r\n") != line {
			left = append(left, l...)
		}
	}
	switch {
	case len(left) == len(old):
		return nil
	case len(left) == 0:
		err = os.Remove(file)
	default:
		err = replaceFile(file, left, 0o644)
	}
	if err != nil {
		return missing("change the attributes", err)
	}
	return nil
}
