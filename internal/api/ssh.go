package api

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/recording"
	"github.com/baileyhq/bailey/internal/recording/screen"
	"github.com/baileyhq/bailey/internal/sshlive"
	"github.com/baileyhq/bailey/internal/witness"
)

func (a *API) sshSessionRoutes() {
	register(a, op(http.MethodGet, "/ssh/sessions", "listSSHSessions", "SSH sessions, the newest first", "ssh"), a.listSSHSessions)
	register(a, op(http.MethodGet, "/ssh/sessions/{id}", "getSSHSession", "One SSH session, and who looked at it", "ssh"), a.getSSHSession)
	register(a, withText(op(http.MethodGet, "/ssh/sessions/{id}/watch", "watchSSHSession", "What a living session shows (server-sent events)", "ssh"),
		"text/event-stream", "Events named size, output, lost and end; the data of output is JSON with base64 in it"), a.watchSSHSession)
	register(a, withText(op(http.MethodGet, "/ssh/sessions/{id}/recording", "getSSHRecording", "The recording of a session", "ssh"),
		"application/x-ndjson", "Lines of JSON: what is known of the session, records, and an end; or asciicast v2"), a.getSSHRecording)
	register(a, withStatus(op(http.MethodPost, "/ssh/sessions/{id}/kill", "killSSHSession", "End a living session; of a connection, all that is in it", "ssh"), http.StatusNoContent), a.killSSHSession)
	register(a, withStatus(op(http.MethodDelete, "/ssh/sessions/{id}/recording", "deleteSSHRecording", "Delete a recording; the session stays in the index", "ssh"), http.StatusNoContent), a.deleteSSHRecording)
}

// SSHSession is a connection over SSH, or something in it.
type SSHSession struct {
	ID            string      `json:"id"`
	Connection    string      `json:"connection" doc:"The same for all that was in one connection"`
	User          string      `json:"user"`
	Workspace     string      `json:"workspace"`
	Class         string      `json:"class"`
	Kind          string      `json:"kind" enum:"shell,exec,sftp,forward,remote,agent,connection"`
	Target        string      `json:"target,omitempty" doc:"Of a forward: host and port, or a path, as the client asked"`
	Client        string      `json:"client" doc:"Address it came from"`
	ClientVersion string      `json:"client_version,omitempty" doc:"As it named itself"`
	Key           string      `json:"key,omitempty" doc:"Fingerprint of the key that signed"`
	BeganAt       time.Time   `json:"began_at"`
	EndedAt       *time.Time  `json:"ended_at,omitempty" doc:"Missing: it lives"`
	ActiveAt      *time.Time  `json:"active_at,omitempty" doc:"Of a living one: when the last byte was carried"`
	In            int64       `json:"bytes_in" doc:"Into the workspace"`
	Out           int64       `json:"bytes_out" doc:"Out of it"`
	Exit          *int        `json:"exit,omitempty"`
	End           string      `json:"end,omitempty" doc:"Why it ended"`
	Recording     string      `json:"recording" enum:"none,open,whole,cut,deleted"`
	Size          int64       `json:"recording_bytes,omitempty"`
	Digest        string      `json:"recording_sha256,omitempty"`
	Watched       int         `json:"watched,omitempty" doc:"How many look on now"`
	Viewers       []SSHViewer `json:"viewers,omitempty" doc:"Of a single session: who watched, replayed or ended it"`
}

// SSHViewer is somebody who looked at a session.
type SSHViewer struct {
	Name string    `json:"name"`
	Did  string    `json:"did" enum:"watch,replay,kill"`
	At   time.Time `json:"at"`
}

func sshSessionOf(s witness.Session) SSHSession {
	out := SSHSession{
		ID: s.ID, Connection: s.Connection, User: s.User, Workspace: s.Workspace, Class: s.Class, Kind: string(s.Kind), Target: s.Target,
		Client: s.Client, ClientVersion: s.ClientVersion, Key: s.Key, BeganAt: s.BeganAt, EndedAt: optional(s.EndedAt), ActiveAt: optional(s.Active),
		In: s.In, Out: s.Out, End: s.End, Recording: string(s.Recording), Size: s.Size, Digest: s.Digest, Watched: s.Watched,
	}
	if s.Exit >= 0 && !s.Living() {
		out.Exit = &s.Exit
	}
	return out
}

type sshListInput struct {
	All       bool   `query:"all" doc:"Everybody's; for administrators and auditors"`
	User      string `query:"user" maxLength:"30" doc:"With all: of one user, by name or id"`
	Workspace string `query:"workspace" maxLength:"64" doc:"Of one workspace, by name or id"`
	Kind      string `query:"kind" enum:"shell,exec,sftp,forward,remote,agent,connection"`
	Live      bool   `query:"live" doc:"Only those that have not ended"`
	Before    string `query:"before" maxLength:"26" doc:"Only what began before the session with this id: the next page"`
	Limit     int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

type sshSessionsOutput struct {
	Body struct {
		Sessions []SSHSession `json:"sessions" nullable:"false"`
	}
}

func (a *API) listSSHSessions(ctx context.Context, actor bailey.Actor, in *sshListInput) (*sshSessionsOutput, error) {
	list, err := a.cfg.SSH.List(ctx, actor, in.All, bailey.SSHFilter{
		User: in.User, Workspace: in.Workspace, Kind: bailey.SSHKind(in.Kind), Live: in.Live, Before: in.Before, Limit: in.Limit,
	})
	if err != nil {
		return nil, a.sshRefused(ctx, actor, "", err)
	}
	out := &sshSessionsOutput{}
	out.Body.Sessions = all(list, sshSessionOf)
	return out, nil
}

// SSHSessionInput is a session in the path.
type SSHSessionInput struct {
	ID string `path:"id" maxLength:"26"`
}

type sshSessionOutput struct{ Body SSHSession }

func (a *API) getSSHSession(ctx context.Context, actor bailey.Actor, in *SSHSessionInput) (*sshSessionOutput, error) {
	s, err := a.cfg.SSH.Get(ctx, actor, in.ID)
	if err != nil {
		return nil, err
	}
	viewers, err := a.cfg.SSH.Viewers(ctx, actor, in.ID)
	if err != nil {
		return nil, err
	}
	out := &sshSessionOutput{Body: sshSessionOf(s)}
	for _, v := range viewers {
		did := map[audit.Action]string{audit.SSHWatch: "watch", audit.SSHReplay: "replay", audit.SSHKill: "kill"}[v.What]
		out.Body.Viewers = append(out.Body.Viewers, SSHViewer{Name: v.Name, Did: did, At: v.At})
	}
	return out, nil
}

func (a *API) killSSHSession(ctx context.Context, actor bailey.Actor, in *SSHSessionInput) (*none, error) {
	return nil, a.sshRefused(ctx, actor, in.ID, a.cfg.SSH.Kill(ctx, actor, in.ID))
}

func (a *API) deleteSSHRecording(ctx context.Context, actor bailey.Actor, in *SSHSessionInput) (*none, error) {
	return nil, a.sshRefused(ctx, actor, in.ID, a.cfg.SSH.Delete(ctx, actor, in.ID))
}

// sshRefused records a refusal to somebody who is signed in.
func (a *API) sshRefused(ctx context.Context, actor bailey.Actor, id string, err error) error {
	if bailey.KindOf(err) == bailey.Denied {
		a.denials.Note(ctx, audit.By(actor), audit.Target{Kind: "ssh session", ID: id}, audit.NotAllowed)
	}
	return err
}

type sshRecordingInput struct {
	SSHSessionInput
	Format string `query:"format" enum:"lines,cast" default:"lines" doc:"lines: everything, as lines of JSON. cast: asciicast v2, for players"`
	Raw    bool   `query:"raw" doc:"Terminal sequences as they were. Else those that do more than draw are left out: a recording is somebody else's text, and it may be meant for the terminal of whoever replays it"`
}

// getSSHRecording streams a recording. What can be refused is refused before
// the first byte.
func (a *API) getSSHRecording(ctx context.Context, actor bailey.Actor, in *sshRecordingInput) (*huma.StreamResponse, error) {
	leave, err := a.followers.enter(actor.UserID)
	if err != nil {
		return nil, err
	}
	r, err := a.cfg.SSH.Open(ctx, actor, in.ID)
	if err != nil {
		leave()
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer leave()
		defer r.Close() //nolint:errcheck // only read
		_, w := humago.Unwrap(hc)
		ended, release := a.over(w, actor)
		defer release()
		out := until{w: w, ended: ended}
		clean := new(screen.Filter).String
		if in.Raw {
			clean = nil
		}
		// An error is the client's own going away, or the credential's end.
		if in.Format == "cast" {
			w.Header().Set("Content-Type", "application/x-asciicast")
			w.Header().Set("Content-Disposition", `attachment; filename="`+r.Meta.ID+`.cast"`)
			_ = recording.Cast(out, r, clean)
			return
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		_ = recording.Lines(out, r, clean)
	}}, nil
}

// until writes as long as a credential is good.
type until struct {
	w     io.Writer
	ended <-chan struct{}
}

func (u until) Write(p []byte) (int, error) {
	select {
	case <-u.ended:
		return 0, io.ErrClosedPipe
	default:
		return u.w.Write(p)
	}
}

// watchSSHSession streams what a living session shows, until it ends or the
// credential does. A slow reader misses something, and is told.
func (a *API) watchSSHSession(ctx context.Context, actor bailey.Actor, in *SSHSessionInput) (*huma.StreamResponse, error) {
	leave, err := a.followers.enter(actor.UserID)
	if err != nil {
		return nil, err
	}
	_, watch, err := a.cfg.SSH.Watch(ctx, actor, in.ID)
	if err != nil {
		leave()
		return nil, err
	}
	return &huma.StreamResponse{Body: func(hc huma.Context) {
		defer leave()
		defer watch.Close()
		r, w := humago.Unwrap(hc)
		ended, release := a.over(w, actor)
		defer release()
		beat := time.NewTicker(beatEach)
		defer beat.Stop()
		show(w, r, watch.C, ended, beat.C)
	}}, nil
}

// show writes pieces until there are no more, the credential has ended, or the
// client has gone away.
func show(w http.ResponseWriter, r *http.Request, pieces <-chan sshlive.Piece, ended <-chan struct{}, beat <-chan time.Time) {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // an nginx in front must not collect
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	rc := http.NewResponseController(w)
	send := func(events string) bool {
		_, err := io.WriteString(w, events)
		return err == nil && rc.Flush() == nil
	}
	if !send(": watching\n\n") {
		return
	}
	for {
		events := ": still here\n\n"
		select {
		case p, ok := <-pieces:
			if !ok {
				_ = send("event: end\ndata: {}\n\n") // it may have gone too
				return
			}
			events = pieceEvents(p)
		case <-beat:
		case <-ended:
			return
		case <-r.Context().Done():
			return
		}
		if !send(events) {
			return
		}
	}
}

// pieceEvents returns a piece as server-sent events.
func pieceEvents(p sshlive.Piece) string {
	event := func(name string, v any) string {
		data, err := json.Marshal(v)
		if err != nil {
			panic("api: " + err.Error()) // bytes and numbers are always possible
		}
		return fmt.Sprintf("event: %s\ndata: %s\n\n", name, data)
	}
	out := ""
	if p.Lost > 0 {
		out = event("lost", struct {
			Pieces int `json:"pieces"`
		}{p.Lost})
	}
	if len(p.Data) == 0 {
		return out + event("size", struct {
			Cols int `json:"cols"`
			Rows int `json:"rows"`
		}{p.Cols, p.Rows})
	}
	return out + event("output", struct {
		At   float64 `json:"at"`
		Data []byte  `json:"data"`
	}{p.After.Seconds(), p.Data})
}
