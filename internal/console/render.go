package console

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"html/template"
	"io/fs"
	"log/slog"
	"math"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/edge"
	"github.com/baileyhq/bailey/internal/identity"
)

// fail shows an error as a page of its own.
func (c *Console) fail(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, errSignIn) {
		http.Redirect(w, r, "/signin", http.StatusSeeOther)
		return
	}
	if bailey.KindOf(err) == bailey.StepUp {
		back := wayBackTo(r)
		if actor, ok := edge.ActorFrom(r.Context()); ok {
			back.Held = c.hold(r, actor.Session)
		}
		http.Redirect(w, r, "/stepup?"+back.query(), http.StatusSeeOther) //nolint:gosec // a path of ours; what the request says is a name from a list, and a code that was looked at
		return
	}
	v, p := viewOf(r.Context()), c.problem(w, r, err)
	v.Title, v.Data, v.Problem, v.Notice = p.Title, p, nil, ""
	c.write(w, r, "error", p.Status)
}

// refuse shows what was wrong with a form on top of the page that it is on;
// whoever calls it then shows that page.
func (c *Console) refuse(w http.ResponseWriter, r *http.Request, err error) {
	viewOf(r.Context()).Problem = c.problem(w, r, err)
}

// problem returns what a stranger may read of err, and logs the rest.
func (c *Console) problem(w http.ResponseWriter, r *http.Request, err error) *edge.Problem {
	p := edge.ProblemOf(r, c.cfg.Log, err)
	if p.Status != http.StatusInternalServerError {
		c.cfg.Log.DebugContext(r.Context(), "request refused", slog.String("request_id", p.RequestID), slog.String("error", err.Error()))
		p.RequestID = "" // there is nothing to look up
	}
	if wait := identity.RetryAfter(err); wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	} else if p.Status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "5")
	}
	return &p
}

func viewOf(ctx context.Context) *view {
	if v, ok := ctx.Value(viewKey{}).(*view); ok {
		return v
	}
	return &view{Version: bailey.Version}
}

// show renders a page.
func (c *Console) show(w http.ResponseWriter, r *http.Request, name, title string, data any) error {
	v := viewOf(r.Context())
	v.Title, v.Data = title, data
	if v.Section == "" {
		v.Section = name
	}
	status := http.StatusOK
	if v.Problem != nil {
		status = v.Problem.Status
	}
	c.write(w, r, name, status)
	return nil
}

// write renders into memory first, so that a failing template never leaves
// half a page.
func (c *Console) write(w http.ResponseWriter, r *http.Request, name string, status int) {
	var b bytes.Buffer
	if err := c.pages[name].ExecuteTemplate(&b, name+".html", viewOf(r.Context())); err != nil {
		c.cfg.Log.ErrorContext(r.Context(), "render page", slog.String("page", name), slog.String("error", err.Error()))
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	w.WriteHeader(status)
	_, _ = w.Write(b.Bytes()) // an error here is the client's own going away
}

// parse reads the templates: each page with the layout and the shared parts.
func (c *Console) parse() error {
	pages, err := fs.Glob(files, "templates/*.html")
	if err != nil {
		return err
	}
	c.pages = map[string]*template.Template{}
	for _, page := range pages {
		name := strings.TrimSuffix(path.Base(page), ".html")
		if name == "layout" {
			continue
		}
		t := template.New(name).Funcs(funcs())
		for _, file := range []string{"templates/layout.html", page} {
			text, err := files.ReadFile(file)
			if err != nil {
				return err
			}
			if _, err := t.New(path.Base(file)).Parse(withToken(string(text))); err != nil {
				return err
			}
		}
		c.pages[name] = t
	}
	sum := sha256.New()
	err = fs.WalkDir(files, "static", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := files.ReadFile(name)
		sum.Write(b)
		return err
	})
	c.assets = hex.EncodeToString(sum.Sum(nil)[:6])
	return err
}
