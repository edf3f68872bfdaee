package console

import (
	"net/http"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/edge"
)

// deviceData is what the pages of a device authorization show. Device is nil
// until a code was typed that means something.
type deviceData struct {
	Code      string
	Device    *bailey.Device
	Elsewhere bool   // it asked from another address than this browser's
	Done      string // "approved" or "denied"
}

// devicePage asks for the code that a program shows. A code in the address only
// fills the field in: nothing is looked up, let alone approved, by a link that
// somebody sent.
func (c *Console) devicePage(w http.ResponseWriter, r *http.Request) error {
	code := r.URL.Query().Get("user_code")
	if len(code) > 9 {
		code = ""
	}
	actor, err := c.signedIn(r)
	if err == nil {
		err = c.cfg.Identity.Fresh(actor) // before they type anything
	}
	if err != nil {
		return err
	}
	return c.show(w, r, "device", "Sign a program in", deviceData{Code: edge.Printable(code, 9)})
}

// device shows who asks for what.
func (c *Console) device(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	f, err := formOf(r)
	if err != nil {
		return err
	}
	d, err := c.cfg.Identity.Device(r.Context(), actor, f.Get("user_code"))
	if err != nil {
		c.refuse(w, r, err)
		return c.show(w, r, "device", "Sign a program in", deviceData{})
	}
	return c.show(w, r, "device", "Sign a program in", deviceData{Code: f.Get("user_code"), Device: &d, Elsewhere: d.IP != actor.IP})
}

// answerDevice approves or denies. Anything but "approve" is a no.
func (c *Console) answerDevice(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	f, err := formOf(r)
	if err != nil {
		return err
	}
	approve := f.Get("answer") == "approve"
	if _, err = c.cfg.Identity.AnswerDevice(r.Context(), actor, f.Get("user_code"), approve); asksAgain(err) {
		return err
	} else if err != nil {
		c.refuse(w, r, err)
		return c.show(w, r, "device", "Sign a program in", deviceData{})
	}
	done := "denied"
	if approve {
		done = "approved"
	}
	return c.show(w, r, "device", "Sign a program in", deviceData{Done: done})
}
