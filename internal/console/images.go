package console

import (
	"context"
	"net/http"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/catalogue"
)

type imagesData struct {
	Images          []catalogue.Entry
	Name, Reference string // as typed in a form that was refused
}

func (c *Console) images(w http.ResponseWriter, r *http.Request) error {
	return c.imagesWith(w, r, "", "")
}

// imagesWith shows the catalogue and, to administrators, the form to add one.
func (c *Console) imagesWith(w http.ResponseWriter, r *http.Request, name, reference string) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	d := imagesData{Name: name, Reference: reference}
	if d.Images, err = c.cfg.Images.List(r.Context(), actor); err != nil {
		return err
	}
	for _, img := range d.Images {
		if img.Fetched >= 0 {
			viewOf(r.Context()).Refresh = 2
		}
	}
	return c.show(w, r, "images", "Images", d)
}

func (c *Console) addImage(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	f, err := formOf(r)
	if err != nil {
		return err
	}
	_, err = c.cfg.Images.Add(r.Context(), actor, f.Get("name"), f.Get("reference"))
	return c.changedImage(w, r, err, f.Get("name"), f.Get("reference"))
}

// changeImage does one thing to an entry of the catalogue.
func (c *Console) changeImage(do func(*catalogue.Service, context.Context, bailey.Actor, string) (catalogue.Entry, error)) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		actor, err := c.signedIn(r)
		if err != nil {
			return err
		}
		_, err = do(c.cfg.Images, r.Context(), actor, r.PathValue("id"))
		return c.changedImage(w, r, err, "", "")
	}
}

func (c *Console) retireImage(w http.ResponseWriter, r *http.Request) error {
	actor, err := c.signedIn(r)
	if err != nil {
		return err
	}
	f, err := formOf(r)
	if err != nil {
		return err
	}
	_, err = c.cfg.Images.Retire(r.Context(), actor, r.PathValue("id"), f.Get("message"), f.Get("redirect"))
	return c.changedImage(w, r, err, "", "")
}

// changedImage shows the catalogue as it is now, with what was wrong on top.
func (c *Console) changedImage(w http.ResponseWriter, r *http.Request, err error, name, reference string) error {
	if asksAgain(err) {
		return err
	}
	if err != nil {
		c.refuse(w, r, err)
		return c.imagesWith(w, r, name, reference)
	}
	http.Redirect(w, r, "/images", http.StatusSeeOther)
	return nil
}
