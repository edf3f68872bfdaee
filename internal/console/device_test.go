package console_test

import (
	"errors"
	"net/http"
	"testing"

	"github.com/baileyhq/bailey"
	. "github.com/baileyhq/bailey/internal/app/apptest" //nolint:revive // the names of people
	"github.com/baileyhq/bailey/internal/identity"
)

// A person sees who asks for what, and from where; a link alone does nothing,
// and another page cannot answer for them.
func TestAProgramIsApprovedOnAPage(t *testing.T) {
	s := open(t)
	d, err := s.Identity.BeginDevice(t.Context(), "cli on <b>laptop</b>", "198.51.100.9", []bailey.Scope{bailey.ScopeWorkspacesOpen})
	if err != nil {
		t.Fatal(err)
	}
	poll := func() error {
		_, _, err := s.Identity.PollDevice(t.Context(), d.Device, "198.51.100.9")
		return err
	}
	b := s.browse(Alice)
	b.get("/device?user_code="+d.User).wantStatus(t, http.StatusOK, "Continue")
	form := map[string][]string{"user_code": {d.User}}
	b.send(http.MethodPost, "/device", form, "Sec-Fetch-Site", "same-origin").
		wantStatus(t, http.StatusOK, "198.51.100.9", "not where you are", "cli on <b>laptop</b>", "reach what runs inside your workspaces", "Approve as alice")
	form["answer"] = []string{"approve"}
	b.send(http.MethodPost, "/device/answer", form, "Sec-Fetch-Site", "same-site").wantStatus(t, http.StatusForbidden)
	if code, _ := errors.AsType[identity.DeviceError](poll()); code != identity.DevicePending {
		t.Errorf("after a link and a foreign page it is %q", code)
	}
	b.send(http.MethodPost, "/device", map[string][]string{"user_code": {"BBBB-BBBB"}}, "Sec-Fetch-Site", "same-origin").wantStatus(t, http.StatusNotFound, "wrong")
	b.send(http.MethodPost, "/device/answer", form, "Sec-Fetch-Site", "same-origin").wantStatus(t, http.StatusOK, "Approved")
	b.send(http.MethodPost, "/device/answer", form, "Sec-Fetch-Site", "same-origin").wantStatus(t, http.StatusNotFound)
}
