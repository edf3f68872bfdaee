package console_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/baileyhq/bailey"
	. "github.com/baileyhq/bailey/internal/app/apptest" //nolint:revive // the names of people
)

// An administrator adds an image that nobody signed, vouches for it and approves
// it; alice sees who vouched for what, and can change nothing.
func TestTheCatalogueOfImages(t *testing.T) {
	s := open(t)
	root, alice := s.browse(Admin), s.browse(Alice)
	root.get("/images").wantStatus(t, http.StatusOK, "There is no image yet", "Add an image")
	root.post("/images", "name", "torch", "reference", "no reference at all").
		wantStatus(t, http.StatusUnprocessableEntity, "That is not the name of an image in a registry.")
	root.post("/images", "name", "torch", "reference", "registry.example/team/torch:v1").wantRedirect(t, "/images")
	root.get("/images").wantStatus(t, http.StatusOK, "candidate", "nobody that the policy trusts", "Nobody signed the image", "Approve", "Countersign")
	all, err := s.Store.Images(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("catalogue = %+v, %v", all, err)
	}
	one := "/images/" + all[0].ID
	root.post(one+"/approve").wantStatus(t, http.StatusForbidden, "cannot be approved", "bailey image countersign torch")
	root.post(one+"/countersign").wantRedirect(t, "/images")
	root.post(one+"/approve").wantRedirect(t, "/images")

	page := alice.get("/images")
	page.wantStatus(t, http.StatusOK, "approved", "local (key sha256:", all[0].Digest, "registry.example/team/torch, added as v1", "Signed by local")
	if len(page.forms()) != 1 { // signing out
		t.Errorf("alice has forms that are not hers: %+v", page.forms())
	}
	for _, what := range []string{"approve", "countersign", "fetch", "retire"} {
		alice.post(one+"/"+what).wantStatus(t, http.StatusForbidden, "Only administrators may change the catalogue")
	}
	alice.post("/images", "name", "evil", "reference", "registry.example/team/evil:v1").wantStatus(t, http.StatusForbidden)
	root.post(one+"/retire", "message", `<b>old</b>`).wantRedirect(t, "/images")
	page = alice.get("/images")
	page.wantStatus(t, http.StatusOK, "retired", "<b>old</b>")
	if strings.Contains(page.body, "<b>old") {
		t.Errorf("a message is markup: %s", page.body)
	}
	if img, err := s.Store.Images(t.Context()); err != nil || img[0].State != bailey.ImageRetired {
		t.Errorf("after that the image is %+v, %v", img, err)
	}
}
