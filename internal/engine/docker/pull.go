package docker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/engine"
)

// Pull implements [engine.Engine].
func (e *Engine) Pull(ctx context.Context, ref string, progress func(percent int)) error {
	if err := engine.CheckImage(ref); err != nil {
		return err
	}
	if !strings.Contains(ref, "@") {
		return &bailey.Error{Kind: bailey.Invalid, Msg: "an image is pulled from a repository: NAME@sha256:…"}
	}
	auth, err := e.registryAuth(ref)
	if err != nil {
		return fmt.Errorf("pull %s: %w", ref, err)
	}
	resp, err := e.api.ImagePull(ctx, ref, client.ImagePullOptions{RegistryAuth: auth})
	if cerrdefs.IsNotFound(err) {
		return fmt.Errorf("pull %s: %w: %w", ref, engine.ErrNoImage, err)
	}
	if err != nil {
		return wrap("pull "+ref, err)
	}
	meter := pullMeter{tell: progress, layers: map[string]layer{}}
	for msg, err := range resp.JSONMessages(ctx) {
		if err == nil && msg.Error != nil {
			err = msg.Error
		}
		if err != nil {
			return wrap("pull "+ref, err)
		}
		meter.note(msg)
	}
	meter.done()
	return nil
}

// registryAuth returns the sign-in to the registry of ref as Docker's API takes
// it: "" for none.
func (e *Engine) registryAuth(ref string) (string, error) {
	if e.cfg.Credentials == nil {
		return "", nil
	}
	host, rest, _ := strings.Cut(ref, "/")
	if rest == "" || !strings.ContainsAny(host, ".:") && host != "localhost" {
		host = "docker.io"
	}
	user, password, ok := e.cfg.Credentials(host)
	if !ok {
		return "", nil
	}
	text, err := json.Marshal(map[string]string{"username": user, "password": password.Reveal(), "serveraddress": host})
	return base64.URLEncoding.EncodeToString(text), err
}

// A layer is how far one of a pull's downloads is.
type layer struct{ current, total int64 }

// A pullMeter makes one number of what the daemon tells of each layer.
type pullMeter struct {
	tell   func(percent int)
	layers map[string]layer
	told   int
}

// maxLayers bounds what is remembered of a daemon's answer.
const maxLayers = 1024

// note takes a message into account. Layers appear one after the other, so the
// number may have been too high; it never goes back, and 100 is for the end.
func (m *pullMeter) note(msg jsonstream.Message) {
	if m.tell == nil || msg.ID == "" || len(m.layers) >= maxLayers {
		return
	}
	l := m.layers[msg.ID]
	switch {
	case msg.Status == "Downloading" && msg.Progress != nil && msg.Progress.Total > 0:
		l = layer{current: msg.Progress.Current, total: msg.Progress.Total}
	case msg.Status == "Download complete", msg.Status == "Pull complete", msg.Status == "Already exists":
		l.total = max(l.total, 1)
		l.current = l.total
	case msg.Status == "Pulling fs layer", msg.Status == "Waiting":
		l.total = max(l.total, 1)
	default:
		return
	}
	m.layers[msg.ID] = l
	var current, total int64
	for _, l := range m.layers {
		current, total = current+l.current, total+l.total
	}
	if percent := min(int(100*current/total), 99); percent > m.told {
		m.told = percent
		m.tell(percent)
	}
}

func (m *pullMeter) done() {
	if m.tell != nil {
		m.tell(100)
	}
}

// Load implements [engine.Engine].
func (e *Engine) Load(ctx context.Context, archive io.Reader) error {
	resp, err := e.api.ImageLoad(ctx, archive, client.ImageLoadWithQuiet(true))
	if err != nil {
		return wrap("load image", err)
	}
	defer resp.Close() //nolint:errcheck // read to its end
	// The daemon answers 200 first and tells of a bad archive afterwards.
	const most = 1 << 20
	for dec := json.NewDecoder(io.LimitReader(resp, most)); ; {
		var msg jsonstream.Message
		switch err := dec.Decode(&msg); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return wrap("load image", err)
		case msg.Error != nil:
			return fmt.Errorf("load image: %w", msg.Error)
		}
	}
}

// Save implements [engine.Engine].
func (e *Engine) Save(ctx context.Context, digest string) (io.ReadCloser, error) {
	img, err := e.resolve(ctx, digest)
	if err != nil {
		return nil, err
	}
	r, err := e.api.ImageSave(ctx, []string{img.ID})
	if err != nil {
		return nil, wrap("save image", err)
	}
	return r, nil
}
