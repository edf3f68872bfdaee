package workspace_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/engine/enginetest"
)

// An image that the policy does not allow starts for nobody, and nothing is
// left of the attempt.
func TestAnUnverifiedImageStaysDown(t *testing.T) {
	inAWorld(t, func(w *world) {
		refusal := &bailey.Error{Kind: bailey.Denied, Msg: "image small may not start: it is not signed", Hint: "sign it"}
		w.trust.set(func(v *verifier) { v.refuse = refusal })
		for _, who := range []bailey.Actor{w.alice, w.root} {
			_, err := w.workspaces.Launch(w.t.Context(), who, "", "small")
			wantKind(w.t, who.Name+" launches", err, bailey.Denied, "it is not signed")
		}
		if all, err := w.store.Workspaces(w.t.Context(), ""); err != nil || len(all) != 0 {
			w.t.Errorf("workspaces = %+v, %v; want none made for a launch that cannot work", all, err)
		}
		w.wantClean()

		// Somebody whose workspace is there already.
		w.trust.set(func(v *verifier) { v.refuse = nil })
		ws := w.launch(w.bob, "", "small")
		if _, err := w.workspaces.Stop(w.t.Context(), w.bob, ws.ID); err != nil {
			w.t.Fatal(err)
		}
		w.awaitState(ws.ID, bailey.Stopped)
		w.trust.set(func(v *verifier) { v.refuse = refusal })
		_, err := w.workspaces.Start(w.t.Context(), w.bob, ws.ID)
		wantKind(w.t, "bob starts again", err, bailey.Denied, "it is not signed")
		if got, want := w.journal.last(audit.Launch), "refused untrusted_image by bob"; got != want {
			w.t.Errorf("journal has %q, want %q", got, want)
		}
		w.wantClean()
	})
}

// A key that is taken out of the policy between the decision and the start
// counts: the image is asked about again just before its container is made.
func TestAnImageRefusedBetweenLaunchAndCreate(t *testing.T) {
	inAWorld(t, func(w *world) {
		w.engine.SetDown(false)
		w.wrap = nil
		w.stop() // nobody takes the run up yet
		w.workspaces = w.make()
		ws, err := w.workspaces.Launch(w.t.Context(), w.alice, "", "small")
		if err != nil {
			w.t.Fatal(err)
		}
		w.trust.set(func(v *verifier) {
			v.refuse = &bailey.Error{Kind: bailey.Denied, Msg: "image small may not start: its key is not trusted any more"}
		})
		w.serve()
		ws = w.awaitState(ws.ID, bailey.Failed)
		if !strings.Contains(ws.Reason, "its key is not trusted any more") {
			w.t.Errorf("reason = %q", ws.Reason)
		}
		if got, want := w.journal.last(audit.LaunchFailed), "failure untrusted_image by bailey"; got != want {
			w.t.Errorf("journal has %q, want %q", got, want)
		}
		w.wantClean()
	})
}

// What may start by now is not what this run was begun with.
func TestAnImageSwappedBetweenLaunchAndCreate(t *testing.T) {
	inAWorld(t, func(w *world) {
		other := "sha256:" + strings.Repeat("b", 64)
		w.engine.SetImages(enginetest.Image{Image: engine.Image{ID: enginetest.FakeImage}}, enginetest.Image{Image: engine.Image{ID: other}})
		w.stop()
		w.workspaces = w.make()
		ws, err := w.workspaces.Launch(w.t.Context(), w.alice, "", "small")
		if err != nil {
			w.t.Fatal(err)
		}
		w.trust.set(func(v *verifier) { v.other = other })
		w.serve()
		ws = w.awaitState(ws.ID, bailey.Failed)
		if !strings.Contains(ws.Reason, "is not the one that this run was begun with") {
			w.t.Errorf("reason = %q", ws.Reason)
		}
		w.wantClean()
	})
}

func TestAnImageIsFetchedAndItsRunHasAReceipt(t *testing.T) {
	inAWorld(t, func(w *world) {
		w.engine.SetImages()
		w.trust.set(func(v *verifier) { v.source = bailey.FromRegistry })
		ws := w.launch(w.alice, "", "small")
		all, err := w.store.Stages(w.t.Context(), ws.ID, 0)
		if err != nil {
			w.t.Fatal(err)
		}
		var details []string
		for _, st := range all {
			if st.Name == "policy" || st.Name == "image" {
				details = append(details, st.Name+" "+st.Status+": "+st.Detail)
			}
		}
		want := []string{
			"policy done: signed by key build", "image begin: ",
			"image begin: small sha256:aaaaaaaaaaaa: 40 % fetched", "image done: small sha256:aaaaaaaaaaaa",
		}
		if !slices.Equal(details, want) {
			w.t.Errorf("stages differ (-want +got):\n%s", cmp.Diff(want, details))
		}
		receipt, err := w.workspaces.Receipt(w.t.Context(), w.alice, ws.ID)
		if err != nil || receipt.Image.Signer != "key build" || receipt.Run != ws.RunID || receipt.Image.Digest != enginetest.FakeImage {
			w.t.Errorf("receipt = %+v, %v", receipt, err)
		}
		_, err = w.workspaces.Receipt(w.t.Context(), w.bob, ws.ID)
		wantKind(w.t, "bob asks for alice's receipt", err, bailey.NotFound)
	})
}
