package api

import (
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/workspace"
)

// Workspace is a workspace as the API shows it.
type Workspace struct {
	ID        string     `json:"id"`
	Owner     string     `json:"owner"`
	Name      string     `json:"name"`
	Class     string     `json:"class"`
	State     string     `json:"state" enum:"stopped,starting,running,stopping,failed"`
	Reason    string     `json:"reason,omitempty" doc:"Why it failed or was stopped"`
	URL       string     `json:"url" doc:"Where a browser opens it; empty when every port for workspaces is taken"`
	Run       string     `json:"run,omitempty" doc:"The current or last run"`
	GPUs      []string   `json:"gpus" nullable:"false" doc:"UUIDs leased to the current run"`
	SelfCheck string     `json:"self_check,omitempty"`
	CreatedAt time.Time  `json:"created_at"`
	StartedAt *time.Time `json:"started_at,omitempty"`
	ActiveAt  *time.Time `json:"active_at,omitempty" doc:"Last real activity; polling does not count"`
}

// Class is a class as the API shows it.
type Class struct {
	Name        string   `json:"name"`
	Title       string   `json:"title"`
	Description string   `json:"description,omitempty"`
	Image       string   `json:"image"`
	Digest      string   `json:"digest,omitempty" doc:"What starts; empty when the image is not on this machine"`
	CPUs        float64  `json:"cpus"`
	MemoryBytes int64    `json:"memory_bytes"`
	GPUs        int      `json:"gpus"`
	IdleStop    float64  `json:"idle_stop_seconds" doc:"0: never"`
	Groups      []string `json:"groups,omitempty" nullable:"false"`
	Network     string   `json:"network" enum:"none,proxied,bridge"`
	Egress      string   `json:"egress,omitempty" doc:"The egress policy, with network proxied"`
	Reach       string   `json:"reach" doc:"What can be reached from inside, in words"`
}

// Stage is one step of a launch.
type Stage struct {
	Seq    int64     `json:"seq"`
	Run    string    `json:"run"`
	Name   string    `json:"name"`
	Status string    `json:"status" enum:"begin,done,failed"`
	Detail string    `json:"detail,omitempty"`
	At     time.Time `json:"at"`
	Took   float64   `json:"took_seconds"`
}

// Volume is a volume as the API shows it.
type Volume struct {
	ID        string    `json:"id"`
	Owner     string    `json:"owner"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
	InUseBy   string    `json:"in_use_by,omitempty" doc:"Workspace that has it"`
}

// User is an account as the API shows it.
type User struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Role      string    `json:"role" enum:"user,auditor,admin"`
	Groups    []string  `json:"groups" nullable:"false"`
	UID       int       `json:"uid" doc:"Numeric uid inside workspaces"`
	Disabled  bool      `json:"disabled"`
	CreatedAt time.Time `json:"created_at"`
	Manages   []string  `json:"manages,omitempty" nullable:"false" doc:"Groups whose members this user may add and remove"`
	Service   bool      `json:"service,omitempty" doc:"A service account: no password, tokens only"`
	OwnerID   string    `json:"owner_id,omitempty" doc:"Who answers for a service account"`
}

// Token is an API token without its secret.
type Token struct {
	ID        string     `json:"id"`
	Note      string     `json:"note"`
	CreatedAt time.Time  `json:"created_at"`
	UsedAt    *time.Time `json:"used_at,omitempty"`
	ExpiresAt time.Time  `json:"expires_at"`

	Scopes     []string `json:"scopes" nullable:"false"`
	Workspaces []string `json:"workspaces,omitempty" nullable:"false" doc:"Ids of the only workspaces it is for"`
	Networks   []string `json:"networks,omitempty" nullable:"false" doc:"CIDRs it may be used from"`
	ParentID   string   `json:"parent_id,omitempty" doc:"The token that made it, with which it ends"`
	UsedIP     string   `json:"used_ip,omitempty" doc:"Where it was used from last"`
	Current    bool     `json:"current" doc:"It is the one that asks"`
}

// Session is a browser's sign-in without its secret.
type Session struct {
	ID        string    `json:"id"`
	IP        string    `json:"ip"`
	UserAgent string    `json:"user_agent"`
	CreatedAt time.Time `json:"created_at"`
	SeenAt    time.Time `json:"seen_at"`
	ExpiresAt time.Time `json:"expires_at"`
	Current   bool      `json:"current"`
}

// NewToken is a token with its secret, shown this once.
type NewToken struct {
	Token  string    `json:"token" doc:"bly_<id>_<secret>; it is not shown again"`
	ID     string    `json:"id"`
	Note   string    `json:"note"`
	Expiry time.Time `json:"expires_at"`
	User   string    `json:"user"`

	Scopes     []string `json:"scopes" nullable:"false"`
	Workspaces []string `json:"workspaces,omitempty" nullable:"false"`
	Networks   []string `json:"networks,omitempty" nullable:"false"`
}

// GPU is a card and who holds it, as far as the asker may know.
type GPU struct {
	UUID      string     `json:"uuid"`
	Model     string     `json:"model,omitempty"`
	Held      bool       `json:"held" doc:"Leased to a run; whose is shown to administrators, auditors and its holder"`
	Owner     string     `json:"owner,omitempty"`
	Workspace string     `json:"workspace,omitempty" doc:"As owner.name"`
	Since     *time.Time `json:"since,omitempty"`
}

// Orphan is a container of this installation that no open run accounts for.
type Orphan struct {
	Container string     `json:"container"`
	Run       string     `json:"run"`
	Workspace string     `json:"workspace"`
	Running   bool       `json:"running"`
	StartedAt *time.Time `json:"started_at,omitempty"`
}

func (a *API) workspace(w bailey.Workspace) Workspace {
	url := a.cfg.Origins.Workspace(w.Slug)
	if url != "" {
		url += "/"
	}
	return Workspace{
		ID: w.ID, Owner: w.Owner, Name: w.Name, Class: w.Class, State: string(w.State),
		Reason: w.Reason, URL: url, Run: w.RunID,
		GPUs: notNil(w.GPUs), SelfCheck: w.SelfCheck, CreatedAt: w.CreatedAt,
		StartedAt: optional(w.StartedAt), ActiveAt: optional(w.ActiveAt),
	}
}

func classOf(c bailey.Class) Class {
	return Class{
		Name: c.Name, Title: c.Title, Description: c.Description, Image: c.Image, Digest: c.Digest,
		CPUs: float64(c.CPUMillis) / 1000, MemoryBytes: c.MemoryBytes, GPUs: c.GPUs,
		IdleStop: c.IdleStop.Seconds(), Groups: c.Groups, Network: networkOf(c), Egress: c.Egress, Reach: c.Reach,
	}
}

func stageOf(s bailey.Stage) Stage {
	return Stage{Seq: s.Seq, Run: s.Run, Name: s.Name, Status: s.Status, Detail: s.Detail, At: s.At, Took: s.Took.Seconds()}
}

func volumeOf(v bailey.Volume) Volume {
	return Volume{ID: v.ID, Owner: v.Owner, Name: v.Name, CreatedAt: v.CreatedAt, InUseBy: v.InUseBy}
}

func userOf(u bailey.User) User {
	return User{ID: u.ID, Name: u.Name, Role: string(u.Role), Groups: notNil(u.Groups), UID: u.UID, Disabled: u.Disabled, CreatedAt: u.CreatedAt, Manages: u.Manages, Service: u.Service, OwnerID: u.OwnerID}
}

func tokenOf(t bailey.Token) Token {
	return Token{
		ID: t.ID, Note: t.Note, CreatedAt: t.CreatedAt, UsedAt: optional(t.UsedAt), ExpiresAt: t.ExpiresAt,
		Scopes: namesOf(t.Scopes), Workspaces: t.Workspaces, Networks: t.Networks, ParentID: t.ParentID, UsedIP: t.UsedIP,
	}
}

func namesOf(scopes []bailey.Scope) []string {
	return all(scopes, func(s bailey.Scope) string { return string(s) })
}

func sessionOf(s bailey.Session, current string) Session {
	return Session{
		ID: s.ID, IP: s.IP, UserAgent: s.UserAgent, CreatedAt: s.CreatedAt, SeenAt: s.SeenAt,
		ExpiresAt: s.ExpiresAt, Current: s.ID == current,
	}
}

func orphanOf(o workspace.Orphan) Orphan {
	return Orphan{Container: o.Container, Run: o.Run, Workspace: o.Workspace, Running: o.Running, StartedAt: optional(o.StartedAt)}
}

// all maps every element.
func all[T, U any](in []T, f func(T) U) []U {
	out := make([]U, 0, len(in))
	for _, t := range in {
		out = append(out, f(t))
	}
	return out
}

func notNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func optional(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}
