package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/baileyhq/bailey/internal/client"
	"github.com/baileyhq/bailey/internal/recording"
	"github.com/baileyhq/bailey/internal/recording/screen"
)

func sessionsCommand(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sessions",
		Short: "SSH sessions: who is in, what was done, recordings",
		Long: "Everybody sees, replays and ends their own SSH sessions; administrators and auditors see everybody's, and administrators end them. " +
			"Whoever watches or replays a session is in the audit log, and is named to its owner by bailey sessions show.",
	}
	cmd.AddCommand(sessionsLs(s), sessionsShow(s), sessionsWatch(s), sessionsReplay(s), sessionsExport(s), sessionsKill(s), sessionsRm(s))
	return cmd
}

func sessionsLs(s *streams) *cobra.Command {
	var p client.ListSSHSessionsParams
	var everybody, live bool
	var user, workspace, kind, before string
	var limit int64
	cmd := &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "Sessions, the newest first", Args: cobra.NoArgs,
		Example: "  bailey sessions ls\n  bailey sessions ls --all --live\n  bailey sessions ls --all --user alice --kind sftp",
	}
	format := outputFlag(cmd)
	cmd.Flags().BoolVarP(&everybody, "all", "a", false, "everybody's (administrators and auditors)")
	cmd.Flags().BoolVar(&live, "live", false, "only those that are open")
	cmd.Flags().StringVar(&user, "user", "", "with --all: only of this user")
	cmd.Flags().StringVar(&workspace, "workspace", "", "only of this workspace")
	cmd.Flags().StringVar(&kind, "kind", "", "only shell, exec, sftp, forward, remote, agent or connection")
	cmd.Flags().StringVar(&before, "before", "", "only what began before the session with this id: the next page")
	cmd.Flags().Int64Var(&limit, "limit", 100, "at most so many, 1 to 1000")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		if limit < 1 || limit > 1000 {
			return usage("give --limit 1 to 1000", "%d is no limit", limit)
		}
		p.All, p.Live, p.Limit = &everybody, &live, &limit
		for text, to := range map[*string]**string{&user: &p.User, &workspace: &p.Workspace, &before: &p.Before} {
			if *text != "" {
				*to = text
			}
		}
		switch kind {
		case "":
		case "shell", "exec", "sftp", "forward", "remote", "agent", "connection":
			p.Kind = new(client.ListSSHSessionsParamsKind(kind))
		default:
			return usage("use shell, exec, sftp, forward, remote, agent or connection", "%q is no kind of session", kind)
		}
		r, err := connect()
		if err != nil {
			return err
		}
		a, err := r.api.ListSSHSessionsWithResponse(cmd.Context(), &p)
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		l := listing{value: a.JSON200.Sessions, head: []string{"ID", "BEGAN", "TOOK", "WORKSPACE", "KIND", "FROM", "IN", "OUT", "END", "RECORDING"}}
		for _, x := range a.JSON200.Sessions {
			l.rows = append(l.rows, sessionRow(x))
		}
		if len(l.rows) == 0 && *format == "table" {
			fmt.Fprintln(s.err, "No sessions.")
			return nil
		}
		return l.print(s.out, *format)
	}
	return cmd
}

func sessionRow(x client.SSHSession) []string {
	took, end := "open", ""
	if x.EndedAt != nil {
		took, end = x.EndedAt.Sub(x.BeganAt).Round(time.Second).String(), clean(optional(x.End))
		if x.Exit != nil {
			end += " " + strconv.FormatInt(*x.Exit, 10)
		}
	} else if x.Watched != nil && *x.Watched > 0 {
		took = fmt.Sprintf("open, watched by %d", *x.Watched)
	}
	kind := string(x.Kind)
	if t := optional(x.Target); t != "" {
		kind += " " + clean(t)
	}
	return []string{
		x.Id, x.BeganAt.Local().Format(time.DateTime), took, clean(x.User + "." + x.Workspace), kind, clean(x.Client),
		units.BytesSize(float64(x.BytesIn)), units.BytesSize(float64(x.BytesOut)), dash(end), string(x.Recording),
	}
}

func sessionsShow(s *streams) *cobra.Command {
	cmd := &cobra.Command{Use: "show ID", Short: "One session: from where, with which key, and who looked at it", Args: cobra.ExactArgs(1)}
	format := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := checkFormat(*format); err != nil {
			return err
		}
		r, err := connect()
		if err != nil {
			return err
		}
		a, err := r.api.GetSSHSessionWithResponse(cmd.Context(), args[0])
		if err != nil {
			return unreachable(err)
		}
		if a.JSON200 == nil {
			return refusal(a.StatusCode(), a.Body)
		}
		x := *a.JSON200
		if *format != "table" {
			return listing{value: x, rows: [][]string{{x.Id}}}.print(s.out, *format)
		}
		row := sessionRow(x)
		for i, name := range []string{"id", "began", "took", "workspace", "kind", "from", "in", "out", "end", "recording"} {
			fmt.Fprintf(s.out, "%-11s %s\n", name, row[i])
		}
		fmt.Fprintf(s.out, "%-11s %s\n%-11s %s\n%-11s %s\n%-11s %s\n", "class", clean(x.Class), "key", dash(optional(x.Key)),
			"client", dash(optional(x.ClientVersion)), "connection", clean(x.Connection))
		if sum := optional(x.RecordingSha256); sum != "" {
			fmt.Fprintf(s.out, "%-11s %s\n", "sha256", clean(sum))
		}
		if x.Viewers != nil {
			for _, v := range *x.Viewers {
				did := map[client.SSHViewerDid]string{"watch": "watched", "replay": "replayed", "kill": "ended"}[v.Did]
				fmt.Fprintf(s.out, "%-11s by %s, %s\n", did, clean(v.Name), v.At.Local().Format(time.DateTime))
			}
		}
		return nil
	}
	return cmd
}

func sessionsKill(s *streams) *cobra.Command {
	return &cobra.Command{
		Use: "kill ID", Short: "End a session; of a connection, all that is in it (your own; administrators: everybody's)", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.KillSSHSessionWithResponse(cmd.Context(), args[0])
			if err != nil {
				return unreachable(err)
			}
			if a.StatusCode() != http.StatusNoContent {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintln(s.err, "Ended.")
			return nil
		},
	}
}

func sessionsRm(s *streams) *cobra.Command {
	return &cobra.Command{
		Use: "rm-recording ID", Short: "Delete a recording; the session stays listed (administrators)", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := connect()
			if err != nil {
				return err
			}
			a, err := r.api.DeleteSSHRecordingWithResponse(cmd.Context(), args[0])
			if err != nil {
				return unreachable(err)
			}
			if a.StatusCode() != http.StatusNoContent {
				return refusal(a.StatusCode(), a.Body)
			}
			fmt.Fprintln(s.err, "Deleted.")
			return nil
		},
	}
}

// stream begins a request whose answer is read as it comes.
func stream(resp *http.Response, err error) (*http.Response, error) {
	if err != nil {
		return nil, unreachable(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what there is of it says enough
	return nil, errors.Join(refusal(resp.StatusCode, b), resp.Body.Close())
}

// terminal is a screen that foreign output is drawn on.
type terminal struct {
	w      io.Writer
	raw    bool
	filter screen.Filter
	drawn  bool
}

// rawFlag adds --raw.
func rawFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("raw", false, "pass terminal sequences on as they were: a session can then write your clipboard, type answers into your shell and more")
}

func (t *terminal) draw(text string) error {
	if !t.raw {
		text = t.filter.String(text)
	}
	t.drawn = t.drawn || text != ""
	_, err := io.WriteString(t.w, text)
	return err
}

// leave puts the terminal back in order.
func (t *terminal) leave() {
	if t.drawn && isTerminal(t.w) {
		_, _ = io.WriteString(t.w, screen.Reset) // the terminal itself has gone
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func sessionsWatch(s *streams) *cobra.Command {
	cmd := &cobra.Command{
		Use: "watch ID", Short: "Look on at an open session, until it ends or you press Ctrl-C", Args: cobra.ExactArgs(1),
		Long: "Shows what the session's terminal shows, after the filter, and nothing of it can act on your terminal but by drawing. " +
			"That you watch is in the audit log first. Ctrl-C stops watching; the session goes on.",
	}
	raw := rawFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		r, err := connect()
		if err != nil {
			return err
		}
		resp, err := stream(r.api.WatchSSHSession(cmd.Context(), args[0]))
		if err != nil {
			return err
		}
		defer resp.Body.Close() //nolint:errcheck // only read
		t := &terminal{w: s.out, raw: *raw}
		ended, err := s.watch(resp.Body, t)
		t.leave()
		switch {
		case cmd.Context().Err() != nil:
			fmt.Fprintln(s.err, "Stopped watching; the session goes on.")
			return nil
		case err != nil:
			return err
		case !ended:
			return &failure{code: exitUnreachable, msg: "the server stopped telling", hint: "did your sign-in end? bailey sessions show " + args[0]}
		}
		fmt.Fprintln(s.err, "The session has ended.")
		return nil
	}
	return cmd
}

// watch draws server-sent events until there are no more, and reports whether
// the session's end was among them.
func (s *streams) watch(body io.Reader, t *terminal) (ended bool, err error) {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	name := ""
	for lines.Scan() {
		line := lines.Text()
		if n, ok := strings.CutPrefix(line, "event: "); ok {
			name = n
			continue
		}
		data, ok := strings.CutPrefix(line, "data: ")
		if !ok {
			continue
		}
		switch name {
		case "output":
			var out struct{ Data []byte }
			if json.Unmarshal([]byte(data), &out) != nil {
				return false, &failure{code: exitFailure, msg: "the server sent something that is no output", hint: "are client and server of one version?"}
			}
			if err := t.draw(string(out.Data)); err != nil {
				return false, err
			}
		case "lost":
			fmt.Fprintln(s.err, "\r\n[some output was too fast to follow]\r")
		case "end":
			return true, nil
		}
	}
	if cmdErr := lines.Err(); cmdErr != nil && !errors.Is(cmdErr, context.Canceled) {
		return false, unreachable(cmdErr)
	}
	return false, nil
}

func sessionsReplay(s *streams) *cobra.Command {
	var speed float64
	var idle, from time.Duration
	var input bool
	cmd := &cobra.Command{
		Use: "replay ID|FILE", Short: "Play a session's recording, or a file that export wrote", Args: cobra.ExactArgs(1),
		Long: "Plays a recording as it was, at --speed, with no pause longer than --idle-limit. Of a session without a terminal it prints the events. " +
			"Nothing of it can act on your terminal but by drawing, unless --raw is given. That you replay is in the audit log first.",
		Example: "  bailey sessions replay 01kb…\n  bailey sessions replay 01kb… --speed 4 --idle-limit 1s\n  bailey sessions replay 01kb… --speed 0 | less -R",
	}
	raw := rawFlag(cmd)
	cmd.Flags().Float64Var(&speed, "speed", 1, "how many times as fast; 0: without any pause")
	cmd.Flags().DurationVar(&idle, "idle-limit", 2*time.Second, "no pause longer than this; 0: as long as it was")
	cmd.Flags().DurationVar(&from, "from", 0, "draw what was before this time without pauses")
	cmd.Flags().BoolVar(&input, "input", false, "show what was typed too, where it was kept")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if speed < 0 || speed > 1000 || idle < 0 || from < 0 {
			return usage("give --speed 0 to 1000 and times like 2s", "the speed or a time is out of range")
		}
		body, err := s.openRecording(cmd.Context(), args[0], *raw)
		if err != nil {
			return err
		}
		defer body.Close() //nolint:errcheck // only read
		p := &player{t: &terminal{w: s.out, raw: *raw}, err: s.err, speed: speed, idle: idle, from: from, input: input, wait: sleep}
		err = p.play(cmd.Context(), body)
		p.t.leave()
		return err
	}
	return cmd
}

// openRecording opens a recording of the server, or a file.
func (s *streams) openRecording(ctx context.Context, name string, raw bool) (io.ReadCloser, error) {
	if strings.ContainsAny(name, "./") || name == "-" {
		if name == "-" {
			return io.NopCloser(s.in), nil
		}
		f, err := os.Open(filepath.Clean(name))
		if err != nil {
			return nil, &failure{code: exitNotFound, msg: "open the recording", hint: "bailey sessions ls lists the ids", err: err}
		}
		return f, nil
	}
	r, err := connect()
	if err != nil {
		return nil, err
	}
	resp, err := stream(r.api.GetSSHRecording(ctx, name, &client.GetSSHRecordingParams{Raw: &raw}))
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// sleep waits, or fails when ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A player plays the lines of a recording, or an asciicast v2.
type player struct {
	t          *terminal
	err        io.Writer
	speed      float64
	idle, from time.Duration
	input      bool
	wait       func(ctx context.Context, d time.Duration) error

	at time.Duration // of the last record
}

// maxLine bounds a line of a recording: more than any record has.
const maxLine = 4 << 20

func (p *player) play(ctx context.Context, r io.Reader) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	var head struct {
		recording.Meta

		Version int `json:"version"` // of an asciicast
	}
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &head) != nil || head.ID == "" && head.Version != 2 {
		return &failure{code: exitUsage, msg: "this is no recording", hint: "give a session's id, or a file that bailey sessions export wrote"}
	}
	if head.ID != "" {
		fmt.Fprintf(p.err, "%s.%s, %s from %s, %s\n", clean(head.User), clean(head.Workspace), head.Kind, clean(head.Client), head.BeganAt.Local().Format(time.DateTime))
		if head.Command != "" {
			fmt.Fprintf(p.err, "command: %s\n", clean(head.Command))
		}
	}
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		var end recording.Ending
		if json.Unmarshal(lines.Bytes(), &end) == nil && end.End != "" {
			return p.ending(end.End)
		}
		rec, err := recording.ParseLine(lines.Bytes())
		if err != nil {
			if head.Version == 2 { // players skip what they do not know, such as markers
				continue
			}
			return &failure{code: exitFailure, msg: "the recording has something in it that is not one", hint: "are client and server of one version?"}
		}
		if err := p.pause(ctx, rec.At); err != nil {
			return err
		}
		if err := p.show(rec); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return unreachable(err)
	}
	if head.Version == 2 {
		return nil
	}
	return &failure{code: exitUnreachable, msg: "the server stopped in the middle of the recording", hint: "try again"}
}

func (p *player) ending(how string) error {
	switch how {
	case "whole":
		return nil
	case "cut":
		fmt.Fprintln(p.err, "\r\nThe recording is cut off here: it is still being written, or the server or its disk could not go on.")
		return nil
	}
	return &failure{code: exitFindings, msg: "the recording was changed or damaged here", hint: "what was shown before is as it was written; bailey audit search has the digest of the whole file"}
}

func (p *player) pause(ctx context.Context, at time.Duration) error {
	d := at - p.at
	p.at = max(at, p.at)
	if p.idle > 0 {
		d = min(d, p.idle)
	}
	if d <= 0 || p.speed == 0 || at <= p.from {
		return ctx.Err()
	}
	return p.wait(ctx, time.Duration(float64(d)/p.speed))
}

func (p *player) show(rec recording.Record) error {
	switch rec.Code {
	case recording.Output:
		return p.t.draw(rec.Text)
	case recording.Input:
		if p.input {
			fmt.Fprintf(p.err, "[typed %q]", rec.Text)
		}
	case recording.Noted:
		fmt.Fprintf(p.err, "[%s] %s\r\n", rec.At.Round(time.Millisecond), clean(rec.Event.String()))
	case recording.Resize: // the size of another's window is no command to ours
	}
	return nil
}

func sessionsExport(s *streams) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "export ID", Short: "Write a recording as asciicast v2, for asciinema and other players", Args: cobra.ExactArgs(1),
		Example: "  bailey sessions export 01kb… > session.cast\n  bailey sessions export 01kb… --output session.cast",
	}
	raw := rawFlag(cmd)
	cmd.Flags().StringVar(&output, "output", "", "file to write; it is made, not replaced")
	cmd.RunE = func(cmd *cobra.Command, args []string) (err error) {
		r, err := connect()
		if err != nil {
			return err
		}
		cast := client.GetSSHRecordingParamsFormat("cast")
		resp, err := stream(r.api.GetSSHRecording(cmd.Context(), args[0], &client.GetSSHRecordingParams{Raw: raw, Format: &cast}))
		if err != nil {
			return err
		}
		defer resp.Body.Close() //nolint:errcheck // only read
		to := s.out
		if output != "" {
			f, err := os.OpenFile(filepath.Clean(output), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return &failure{code: exitUsage, msg: "make the file", hint: "name one that is not there yet", err: err}
			}
			defer func() { err = errors.Join(err, f.Close()) }()
			to = f
		}
		if _, err := io.Copy(to, resp.Body); err != nil {
			return unreachable(err)
		}
		return nil
	}
	return cmd
}
