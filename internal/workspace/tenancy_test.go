package workspace_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/workspace"
)

// A deed is something that somebody may try to do to a workspace.
type deed struct {
	name string
	do   func(ctx context.Context, s *workspace.Service, who bailey.Actor, ws bailey.Workspace) error
}

func deeds() []deed {
	return []deed{
		{"get by id", func(ctx context.Context, s *workspace.Service, who bailey.Actor, ws bailey.Workspace) error {
			_, err := s.Get(ctx, who, ws.ID)
			return err
		}},
		{"get by slug", func(ctx context.Context, s *workspace.Service, who bailey.Actor, ws bailey.Workspace) error {
			_, err := s.Get(ctx, who, ws.Slug)
			return err
		}},
		{"get by owner and name", func(ctx context.Context, s *workspace.Service, who bailey.Actor, ws bailey.Workspace) error {
			_, err := s.Get(ctx, who, ws.Owner+"/"+ws.Name)
			return err
		}},
		{"stages", func(ctx context.Context, s *workspace.Service, who bailey.Actor, ws bailey.Workspace) error {
			_, err := s.Stages(ctx, who, ws.ID, 0)
			return err
		}},
		{"follow", func(ctx context.Context, s *workspace.Service, who bailey.Actor, ws bailey.Workspace) error {
			ctx, cancel := context.WithCancel(ctx)
			c, err := s.Follow(ctx, who, ws.ID, 0)
			cancel()
			if err == nil {
				for range c { // until it is closed
				}
			}
			return err
		}},
		{"logs", func(ctx context.Context, s *workspace.Service, who bailey.Actor, ws bailey.Workspace) error {
			_, err := s.Logs(ctx, who, ws.ID, 10)
			return err
		}},
		{"route", func(ctx context.Context, s *workspace.Service, who bailey.Actor, ws bailey.Workspace) error {
			_, err := s.Route(ctx, who, ws.Slug)
			return err
		}},
		{"start", func(ctx context.Context, s *workspace.Service, who bailey.Actor, ws bailey.Workspace) error {
			_, err := s.Start(ctx, who, ws.ID)
			return err
		}},
		{"stop", func(ctx context.Context, s *workspace.Service, who bailey.Actor, ws bailey.Workspace) error {
			_, err := s.Stop(ctx, who, ws.ID)
			return err
		}},
		{"delete", func(ctx context.Context, s *workspace.Service, who bailey.Actor, ws bailey.Workspace) error {
			return s.Delete(ctx, who, ws.ID)
		}},
	}
}

// TestForeignWorkspaceDoesNotExist: whatever bob tries on alice's running
// workspace, he is told the same as for one that is not there, and nothing
// happens to it. Alice may do all of it.
func TestForeignWorkspaceDoesNotExist(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws := w.launch(w.alice, "one", "small")
		nothing := bailey.Workspace{ID: bailey.NewID(), Slug: "one-abcdefghjkmn", Owner: "nobody", Name: "one"}
		strangers := []bailey.Actor{
			w.bob, {}, {Name: "alice", Role: bailey.RoleUser}, {UserID: w.alice.UserID, Role: "king"}, {UserID: w.bob.UserID, Name: "alice", Role: bailey.RoleUser},
		}
		for _, d := range deeds() {
			for _, who := range strangers {
				doing := fmt.Sprintf("%s by %+v", d.name, who)
				got, none := d.do(t.Context(), w.workspaces, who, ws), d.do(t.Context(), w.workspaces, who, nothing)
				wantKind(t, doing, got, bailey.NotFound)
				if got == nil || none == nil || got.Error() != none.Error() {
					t.Errorf("%s: alice's gives %q, one that is not there %q", doing, got, none)
				}
			}
			if now := w.get(ws.ID); now.State != bailey.Running || now.RunID != ws.RunID {
				t.Errorf("after %s by others alice's workspace is %+v", d.name, now)
			}
		}
		if e := w.journal.has(audit.AccessDenied); len(e) == 0 || e[0].Actor.ID != w.bob.UserID || e[0].Target.ID != ws.ID {
			t.Errorf("journal: %+v, want bob's attempts", e)
		}
		for _, d := range deeds() {
			if err := d.do(t.Context(), w.workspaces, w.alice, ws); err != nil {
				t.Errorf("%s by alice: %v", d.name, err)
			}
		}
	})
}

// TestAdministrators see, stop and delete, but do not go in.
func TestAdministratorsStayOutside(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		auditor := w.person("eve", bailey.RoleAuditor)
		may := map[string]string{ // by deed: who may
			"get by id": "root eve", "get by slug": "root eve", "get by owner and name": "root eve",
			"stages": "root eve", "follow": "root eve", "logs": "", "route": "", "start": "", "stop": "root", "delete": "root",
		}
		for _, d := range deeds() {
			for _, who := range []bailey.Actor{w.root, auditor} {
				ws := w.launch(w.alice, "one", "small")
				err := d.do(t.Context(), w.workspaces, who, ws)
				if strings.Contains(may[d.name], who.Name) {
					if err != nil {
						t.Errorf("%s by %s: %v", d.name, who.Name, err)
					}
					continue
				}
				wantKind(t, d.name+" by "+who.Name, err, bailey.Denied, "owner")
			}
		}
	})
}

func TestListsAreOnesOwn(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		w.cards.n.Store(2)
		w.launch(w.alice, "one", "gpu")
		w.launch(w.bob, "two", "small")
		s, ctx := w.workspaces, t.Context()
		names := func(all []bailey.Workspace, err error) []string {
			if err != nil {
				return []string{bailey.KindOf(err).String()}
			}
			out := []string{}
			for _, ws := range all {
				out = append(out, ws.Owner+"/"+ws.Name)
			}
			return out
		}
		volumes := func(all []bailey.Volume, err error) []string {
			if err != nil {
				return []string{bailey.KindOf(err).String()}
			}
			out := []string{}
			for _, v := range all {
				out = append(out, v.Owner+"/"+v.Name)
			}
			return out
		}
		tests := []struct {
			what string
			got  []string
			want []string
		}{
			{"alice's", names(s.List(ctx, w.alice, false)), []string{"alice/one"}},
			{"bob's", names(s.List(ctx, w.bob, false)), []string{"bob/two"}},
			{"all, for bob", names(s.List(ctx, w.bob, true)), []string{"denied"}},
			{"all, for root", names(s.List(ctx, w.root, true)), []string{"alice/one", "bob/two"}},
			{"root's own", names(s.List(ctx, w.root, false)), []string{}},
			{"nobody's", names(s.List(ctx, bailey.Actor{}, false)), []string{}},
			{"the system's", names(s.List(ctx, bailey.System(), false)), []string{}},
			{"alice's volumes", volumes(s.Volumes(ctx, w.alice, false)), []string{"alice/one"}},
			{"bob's volumes", volumes(s.Volumes(ctx, w.bob, false)), []string{"bob/two"}},
			{"all volumes, for bob", volumes(s.Volumes(ctx, w.bob, true)), []string{"denied"}},
			{"all volumes, for root", volumes(s.Volumes(ctx, w.root, true)), []string{"alice/one", "bob/two"}},
			{"nobody's volumes", volumes(s.Volumes(ctx, bailey.Actor{}, false)), []string{}},
		}
		for _, tt := range tests {
			if diff := cmp.Diff(tt.want, tt.got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.what, diff)
			}
		}
		gpus, leases, err := s.GPUs(ctx, w.root)
		if len(gpus) != 2 || len(leases) != 1 || err != nil || leases[0].OwnerID == "" {
			t.Fatalf("GPUs for root: %v, %v, %v; want 2 cards and whose the 1 lease is", gpus, leases, err)
		}
		for _, who := range []bailey.Actor{w.alice, w.bob} {
			want := []bailey.Lease{{GPU: leases[0].GPU, Since: leases[0].Since}}
			if who.UserID == leases[0].OwnerID {
				want = leases
			}
			if _, got, err := s.GPUs(ctx, who); !cmp.Equal(got, want) || err != nil {
				t.Errorf("GPUs for %s: %+v, %v; want %+v", who.Name, got, err, want)
			}
		}
		if _, _, err := s.GPUs(ctx, bailey.Actor{}); bailey.KindOf(err) != bailey.Denied {
			t.Errorf("GPUs for nobody: %v, want Denied", err)
		}
		if _, err := s.Orphans(ctx, w.bob); bailey.KindOf(err) != bailey.Denied {
			t.Errorf("orphans for bob: %v, want Denied", err)
		}
	})
}

// TestSameNamesDoNotMeet: two people's workspaces of one name are two.
func TestSameNamesDoNotMeet(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		hers, his := w.launch(w.alice, "one", "small"), w.launch(w.bob, "one", "small")
		if hers.ID == his.ID || hers.VolumeID == his.VolumeID || hers.Slug == his.Slug {
			t.Fatalf("alice has %+v, bob has %+v", hers, his)
		}
		for _, tt := range []struct {
			who  bailey.Actor
			ref  string
			want string
		}{
			{w.alice, "one", hers.ID},
			{w.bob, "one", his.ID},
			{w.alice, "alice/one", hers.ID},
			{w.root, "bob.one", his.ID},
			{w.root, "alice/one", hers.ID},
			{w.root, hers.Slug, hers.ID},
		} {
			if ws, err := w.workspaces.Get(t.Context(), tt.who, tt.ref); ws.ID != tt.want || err != nil {
				t.Errorf("Get(%s, %q) = %s, %v; want %s", tt.who.Name, tt.ref, ws.ID, err, tt.want)
			}
		}
		// A name that is somebody's slug leads to one's own.
		slug := hers.Slug
		if bailey.CheckName("workspace", slug) == nil {
			mine, err := w.workspaces.Create(t.Context(), w.bob, slug, "small")
			if err != nil {
				t.Fatal(err)
			}
			if ws, err := w.workspaces.Get(t.Context(), w.bob, slug); ws.ID != mine.ID || err != nil {
				t.Errorf("Get(bob, %q) = %+v, %v; want his own", slug, ws, err)
			}
		}
		for who, run := range map[*bailey.Actor]bailey.Workspace{&w.alice: hers, &w.bob: his} {
			route, err := w.workspaces.Route(t.Context(), *who, run.Slug)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := w.ask(route, "/whoami"); got != "200 "+who.Name+" in run "+run.RunID {
				t.Errorf("%s reaches %q, %v", who.Name, got, err)
			}
		}
	})
}

// TestKnockingDoesNotFillTheJournal: hundreds of refusals at one door are one
// event in ten seconds.
func TestKnockingDoesNotFillTheJournal(t *testing.T) {
	inAWorld(t, func(w *world) {
		t := w.t
		ws, err := w.workspaces.Create(t.Context(), w.alice, "one", "small")
		if err != nil {
			t.Fatal(err)
		}
		for range 200 {
			_, err := w.workspaces.Route(t.Context(), w.bob, ws.Slug)
			wantKind(t, "Route", err, bailey.NotFound)
		}
		if n := len(w.journal.has(audit.AccessDenied)); n != 1 {
			t.Errorf("%d events, want 1", n)
		}
	})
}
