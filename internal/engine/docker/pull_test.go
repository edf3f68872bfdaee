package docker

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/secret"
)

const pulled = "registry.example/torch@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func TestPullTellsPercent(t *testing.T) {
	messages := []string{
		`{"status":"Pulling from torch","id":"sha256:aaaa"}`,
		`{"status":"Pulling fs layer","progressDetail":{},"id":"l1"}`,
		`{"status":"Downloading","progressDetail":{"current":40,"total":100},"id":"l1"}`,
		`{"status":"Downloading","progressDetail":{"current":10,"total":300},"id":"l2"}`, // 12 %: not told
		`{"status":"Downloading","progressDetail":{"current":300,"total":300},"id":"l2"}`,
		`{"status":"Download complete","id":"l1"}`,
		`{"status":"Already exists","id":"l3"}`,
		`{"status":"Digest: sha256:aaaa"}`,
	}
	e := withDaemon(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if auth, _ := base64.URLEncoding.DecodeString(r.Header.Get("X-Registry-Auth")); string(auth) != `{"password":"pw","serveraddress":"registry.example","username":"alice"}` {
			t.Errorf("signed in with %q", auth)
		}
		if got := r.URL.Query().Get("tag"); r.URL.Path != "/images/create" || got != strings.SplitN(pulled, "@", 2)[1] {
			t.Errorf("asked for %s with tag %q", r.URL.Path, got)
		}
		for _, m := range messages {
			_, _ = w.Write([]byte(m + "\n"))
		}
	}))
	e.cfg.Credentials = func(host string) (string, secret.Value, bool) {
		return "alice", secret.New("pw"), host == "registry.example"
	}
	var told []int
	if err := e.Pull(t.Context(), pulled, func(p int) { told = append(told, p) }); err != nil {
		t.Fatal(err)
	}
	if want := []int{40, 85, 99, 100}; !slices.Equal(told, want) {
		t.Errorf("told %v, want %v", told, want)
	}
}

// A registry, or a daemon, that breaks off must not look like a finished pull.
func TestPullAndLoadThatFailAfterTheirHeaders(t *testing.T) {
	e := withDaemon(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer(w, map[string]any{"errorDetail": map[string]string{"message": "unexpected EOF of a layer"}, "error": "unexpected EOF"})
	}))
	if err := e.Pull(t.Context(), pulled, nil); err == nil || !strings.Contains(err.Error(), "layer") {
		t.Errorf("Pull = %v, want the daemon's words", err)
	}
	if err := e.Load(t.Context(), strings.NewReader("")); err == nil || !strings.Contains(err.Error(), "layer") {
		t.Errorf("Load = %v, want the daemon's words", err)
	}
	gone := withDaemon(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNotFound)
		_ = json.NewEncoder(w).Encode(map[string]string{"message": "manifest unknown"})
	}))
	if err := gone.Pull(t.Context(), pulled, nil); !errors.Is(err, engine.ErrNoImage) {
		t.Errorf("Pull of what is not there = %v, want ErrNoImage", err)
	}
	if err := bare(t).Pull(t.Context(), pulled, nil); !errors.Is(err, engine.ErrUnavailable) {
		t.Errorf("Pull without a daemon = %v, want ErrUnavailable", err)
	}
}
