// Command gwserver is bailey without containers: the whole server, built by app
// as always (TLS, edge, gateway, identity, SQLite, audit), on an engine in
// memory whose every workspace leads to one backend on a Unix socket. It exists
// to measure the server with more workspaces than a machine has room for, and
// to look into it while it is measured (pprof).
//
//	gwserver up …      like "bailey up", with --backend SOCKET and --debug ADDR
//	gwserver signin …  signs people in as fast as it can and prints how fast
//	gwserver proxy …   Go's ReverseProxy with TLS and nothing else, to compare
//	gwserver egress …  bailey's way out of one workspace, on a Unix socket
//	gwserver connect   a CONNECT proxy in a few lines of Go, to compare
//	gwserver source …  what is downloaded through the two
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/baileyhq/bailey/internal/app"
	"github.com/baileyhq/bailey/internal/config"
	"github.com/baileyhq/bailey/internal/engine"
	"github.com/baileyhq/bailey/internal/engine/enginetest"
	"github.com/baileyhq/bailey/internal/secret"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	switch {
	case len(os.Args) > 1 && os.Args[1] == "up":
		err = up(ctx, os.Args[2:])
	case len(os.Args) > 1 && os.Args[1] == "signin":
		err = signIn(ctx, os.Args[2:])
	case len(os.Args) > 1 && os.Args[1] == "proxy":
		err = proxy(ctx, os.Args[2:])
	case len(os.Args) > 1 && os.Args[1] == "egress":
		err = serveEgress(ctx, os.Args[2:])
	case len(os.Args) > 1 && os.Args[1] == "connect":
		err = serveConnect(ctx)
	case len(os.Args) > 1 && os.Args[1] == "source":
		err = serveSource(ctx, os.Args[2:])
	default:
		err = errors.New("say up, signin, proxy, egress, connect or source")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gwserver:", err)
		os.Exit(1)
	}
}

// A piped engine is the fake one, whose workspaces all lead to one socket.
type piped struct {
	*enginetest.Fake

	socket string
}

// Dial implements engine.Engine.
func (p piped) Dial(ctx context.Context, _ string, _ int, _, _ string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", p.socket)
}

func up(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("gwserver up", flag.ContinueOnError)
	file := fs.String("config", "", "configuration file")
	backend := fs.String("backend", "", "the Unix socket that every workspace leads to")
	debugAddr := fs.String("debug", "", "address of pprof and POST /gc")
	password := fs.String("admin-password-file", "", "as of bailey up")
	cache := fs.String("images", "/var/cache/bailey/images", "where scripts/images.sh leaves what it builds")
	flags := map[string]*string{
		"state": fs.String("state", "", "as of bailey up"), "listen.https": fs.String("https", "", "as of bailey up"),
		"listen.metrics": fs.String("metrics", "", "as of bailey up"), "log.level": fs.String("log-level", "", "as of bailey up"),
	}
	if err := fs.Parse(args); err != nil {
		return err
	}
	src := config.Source{Path: *file, Required: true, Flags: map[string]string{}}
	for path, v := range flags {
		if *v != "" {
			src.Flags[path] = *v
		}
	}
	cfg, err := config.Load(ctx, src)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(*password)
	if err != nil {
		return err
	}
	images, err := built(*cache)
	if err != nil {
		return err
	}
	a, err := app.New(ctx, app.Config{
		File: cfg, Source: src, Admin: secret.New(strings.TrimSpace(string(b))),
		Log:    slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})),
		Engine: piped{enginetest.NewFake(enginetest.Config{Images: images}), *backend},
	})
	if err != nil {
		return err
	}
	if *debugAddr != "" {
		var lc net.ListenConfig
		ln, err := lc.Listen(ctx, "tcp", *debugAddr)
		if err != nil {
			return errors.Join(err, a.Close())
		}
		s := &http.Server{Handler: inside(), ReadHeaderTimeout: 5 * time.Second}
		defer s.Close()
		go func() { _ = s.Serve(ln) }()
	}
	return a.Run(ctx)
}

// built returns the images that were built and signed on this machine: an
// engine that held others would be refused by the image policy.
func built(dir string) ([]enginetest.Image, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, err
	}
	var all []enginetest.Image
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		var facts struct {
			ID string `json:"image_id"`
		}
		if err := json.Unmarshal(b, &facts); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		if facts.ID == "" {
			continue // a signature beside an image
		}
		label := strings.TrimSuffix(filepath.Base(name), ".json")
		all = append(all, enginetest.Image{Image: engine.Image{ID: facts.ID, Labels: map[string]string{engine.LabelImage: label}}})
	}
	return all, nil
}

// inside shows the process to whoever measures it.
func inside() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /gc", func(http.ResponseWriter, *http.Request) { debug.FreeOSMemory() })
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.Handle("GET /debug/pprof/heap", pprof.Handler("heap"))
	mux.Handle("GET /debug/pprof/goroutine", pprof.Handler("goroutine"))
	return mux
}
