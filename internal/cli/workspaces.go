package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/baileyhq/bailey/internal/client"
)

func runCommand(s *streams) *cobra.Command {
	var name string
	var detach, receipt bool
	cmd := &cobra.Command{
		Use:     "run [CLASS]",
		Short:   "Launch a workspace and wait until Jupyter answers",
		Long:    "Launch a workspace of a class (bailey class ls), or start it again if it is there. Progress goes to stderr; the workspace's address to stdout.",
		Example: "  bailey run\n  bailey run pytorch --name train",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			body := client.LaunchInputBody{}
			if len(args) == 1 {
				body.Class = &args[0]
			}
			if name != "" {
				body.Name = &name
			}
			a, err := r.api.LaunchWorkspaceWithResponse(cmd.Context(), body)
			if err != nil {
				return unreachable(err)
			}
			if a.JSON202 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			ws := a.JSON202
			if !detach && string(ws.State) != "running" {
				if ws, err = s.await(cmd.Context(), r, ws); err != nil {
					return err
				}
			}
			if receipt {
				return s.receipt(cmd.Context(), r, ws.Id)
			}
			fmt.Fprintln(s.out, ws.Url)
			return nil
		},
	}
	cmd.Flags().BoolVar(&receipt, "receipt", false, "print, as JSON, what it was started from and who vouches for it, instead of its address")
	cmd.Flags().StringVarP(&name, "name", "n", "", "the workspace's name; the class's name when empty")
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "do not wait until it is ready")
	cmd.ValidArgsFunction = completeClasses
	return cmd
}

// receipt prints what a workspace's run was started from.
func (s *streams) receipt(ctx context.Context, r *remote, id string) error {
	a, err := r.api.WorkspaceReceiptWithResponse(ctx, id)
	if err != nil {
		return unreachable(err)
	}
	if a.JSON200 == nil {
		return refusal(a.StatusCode(), a.Body)
	}
	return listing{value: a.JSON200}.print(s.out, "json")
}

// await follows the launch until the workspace runs or failed, printing each
// stage. An interrupt leaves the launch going.
func (s *streams) await(ctx context.Context, r *remote, ws *client.Workspace) (*client.Workspace, error) {
	run := optional(ws.Run)
	err := follow(ctx, r, ws.Id, func(st client.Stage) bool {
		if st.Run != run {
			return true
		}
		switch st.Status {
		case "begin":
		case "done":
			fmt.Fprintf(s.err, "  %-10s %6.0f ms  %s\n", st.Name, st.TookSeconds*1000, clean(optional(st.Detail)))
		case "failed":
			fmt.Fprintf(s.err, "  %-10s  FAILED    %s\n", st.Name, clean(optional(st.Detail)))
		}
		over := st.Name == "ready" || st.Name == "failed" || st.Name == "stopped"
		return !over || st.Status == "begin"
	})
	if err != nil {
		if ctx.Err() != nil {
			fmt.Fprintf(s.err, "The launch goes on; bailey stop %s ends it.\n", ws.Name)
		}
		return nil, err
	}
	a, err := r.api.GetWorkspaceWithResponse(ctx, ws.Id)
	if err != nil {
		return nil, unreachable(err)
	}
	if a.JSON200 == nil {
		return nil, refusal(a.StatusCode(), a.Body)
	}
	if a.JSON200.State != "running" {
		return nil, &failure{code: exitFailure, msg: fmt.Sprintf("workspace %s is %s: %s", ws.Name, a.JSON200.State, clean(optional(a.JSON200.Reason))), hint: "bailey logs " + ws.Name}
	}
	return a.JSON200, nil
}

// follow reads the server-sent stages until more returns false, reconnecting
// from the last one it saw.
func follow(ctx context.Context, r *remote, id string, more func(client.Stage) bool) error {
	var after int64
	for tries := 0; ; tries++ {
		resp, err := r.api.FollowWorkspace(ctx, id, &client.FollowWorkspaceParams{After: &after})
		if err != nil {
			if tries > 5 || ctx.Err() != nil {
				return unreachable(errors.Join(err, ctx.Err()))
			}
		} else {
			done, err := readStages(resp, &after, more)
			if done || err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(200*(tries+1)) * time.Millisecond):
		}
	}
}

func readStages(resp *http.Response, after *int64, more func(client.Stage) bool) (done bool, err error) {
	defer resp.Body.Close() //nolint:errcheck // read to its end or given up
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		return false, refusal(resp.StatusCode, b)
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok {
			continue
		}
		var st client.Stage
		if err := json.Unmarshal(data, &st); err != nil {
			return false, fmt.Errorf("read the launch's progress: %w", err)
		}
		*after = st.Seq
		if !more(st) {
			return true, nil
		}
	}
	return false, nil
}

func lsCommand(s *streams) *cobra.Command {
	var everybody bool
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"ps"}, Short: "List your workspaces", Args: cobra.NoArgs,
	}
	format := outputFlag(cmd)
	cmd.Flags().BoolVarP(&everybody, "all", "a", false, "everybody's (administrators and auditors)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		r, err := connect()
		if err != nil {
			return err
		}
		a, err := r.api.ListWorkspacesWithResponse(cmd.Context(), &client.ListWorkspacesParams{All: &everybody})
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		l := listing{value: a.JSON200.Workspaces, head: []string{"NAME", "CLASS", "STATE", "GPUS", "ACTIVE", "ADDRESS"}}
		if everybody {
			l.head = append(l.head, "OWNER")
		}
		for _, w := range a.JSON200.Workspaces {
			row := []string{w.Name, w.Class, string(w.State), strconv.Itoa(len(w.Gpus)), ago(w.ActiveAt), w.Url}
			if everybody {
				row = append(row, w.Owner)
			}
			l.rows = append(l.rows, row)
		}
		if len(l.rows) == 0 && *format == "table" {
			fmt.Fprintln(s.err, "No workspace. bailey run makes one.")
			return nil
		}
		return l.print(s.out, *format)
	}
	return cmd
}

func openCommand(s *streams) *cobra.Command {
	var editor string
	cmd := &cobra.Command{
		Use: "open NAME", Short: "Print the address of a workspace for your browser or editor", Args: cobra.ExactArgs(1),
		Long:              "Print the address of a workspace for your browser, or with --editor the link by which an editor opens it over SSH\n(after bailey ssh-config). Neither carries a token.",
		ValidArgsFunction: completeWorkspaces,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.GetWorkspaceWithResponse(cmd.Context(), args[0])
			if err != nil {
				return unreachable(err)
			}
			if a.JSON200 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			if a.JSON200.State != "running" {
				return &failure{code: exitFailure, msg: fmt.Sprintf("workspace %s is %s", args[0], a.JSON200.State), hint: "start it: bailey run --name " + a.JSON200.Name + " " + a.JSON200.Class}
			}
			if editor != "" {
				link, err := editorLink(editor, a.JSON200.Name)
				if err == nil {
					fmt.Fprintln(s.out, link)
				}
				return err
			}
			fmt.Fprintln(s.out, a.JSON200.Url)
			return nil
		},
	}
	cmd.Flags().StringVar(&editor, "editor", "", "vscode, vscode-insiders, vscodium, cursor or windsurf")
	return cmd
}

func stopCommand(s *streams) *cobra.Command {
	return &cobra.Command{
		Use: "stop NAME", Short: "Stop a workspace; its files stay", Args: cobra.ExactArgs(1),
		ValidArgsFunction: completeWorkspaces,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.StopWorkspaceWithResponse(cmd.Context(), args[0])
			if err != nil {
				return unreachable(err)
			}
			if a.JSON200 == nil {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintf(s.err, "Stopped %s.\n", a.JSON200.Name)
			return nil
		},
	}
}

func rmCommand(s *streams) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "rm NAME", Short: "Delete a workspace; its volume stays", Args: cobra.ExactArgs(1),
		ValidArgsFunction: completeWorkspaces,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			if err := s.confirm(yes, "Delete workspace "+args[0]+"? Its files stay on the volume.", args[0]); err != nil {
				return err
			}
			a, err := r.api.DeleteWorkspaceWithResponse(cmd.Context(), args[0])
			if err != nil {
				return unreachable(err)
			}
			if a.StatusCode() != http.StatusNoContent {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintf(s.err, "Deleted %s. Its files are still there: bailey volume ls.\n", args[0])
			return nil
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// confirm asks a person to type name. Without a terminal, --yes is needed.
func (s *streams) confirm(yes bool, question, name string) error {
	if yes {
		return nil
	}
	f, ok := s.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return usage("give --yes to do it without asking", "there is no terminal to confirm on")
	}
	fmt.Fprintf(s.err, "%s\nType %s to confirm: ", question, name)
	line, err := bufio.NewReader(f).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != name {
		return &failure{code: exitFailure, msg: "not confirmed; nothing was changed"}
	}
	return nil
}

func logsCommand(s *streams) *cobra.Command {
	var tail int64
	cmd := &cobra.Command{
		Use: "logs NAME", Short: "Print the newest lines of a workspace's output", Args: cobra.ExactArgs(1),
		ValidArgsFunction: completeWorkspaces,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.WorkspaceLogsWithResponse(cmd.Context(), args[0], &client.WorkspaceLogsParams{Tail: &tail})
			if err != nil {
				return unreachable(err)
			}
			if a.StatusCode() != http.StatusOK {
				return refusal(a.StatusCode(), a.Body)
			}
			out := string(a.Body)
			if f, ok := s.out.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
				out = cleanLines(out) // what a workspace prints must not drive this terminal
			}
			_, err = io.WriteString(s.out, out)
			return err
		},
	}
	cmd.Flags().Int64Var(&tail, "tail", 200, "how many lines, up to 10000")
	return cmd
}

func completeWorkspaces(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	r, err := connect()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	a, err := r.api.ListWorkspacesWithResponse(cmd.Context(), nil)
	if err != nil || a.JSON200 == nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, w := range a.JSON200.Workspaces {
		names = append(names, w.Name+"\t"+w.Class+" "+string(w.State))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

func completeClasses(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	r, err := connect()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	a, err := r.api.ListClassesWithResponse(cmd.Context())
	if err != nil || a.JSON200 == nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, c := range a.JSON200.Classes {
		names = append(names, c.Name+"\t"+c.Title)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
