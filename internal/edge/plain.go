package edge

import (
	"fmt"
	"log" //nolint:depguard // http.Server.ErrorLog is one
	"net/http"
	"time"
)

// The plain HTTP listener has nothing to say that takes long.
const (
	plainTimeout   = 10 * time.Second
	maxPlainHeader = 8 << 10
)

// newPlain makes the server of the plain HTTP listener. It serves nothing: it
// answers an authority's challenge, sends people on to HTTPS, and refuses
// programs, whose token or password has then already crossed the network in the
// clear; a redirect would let that go on unseen.
func newPlain(cfg ServerConfig) *http.Server {
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if cfg.Certs.cfg.Issuer != nil && cfg.Certs.cfg.Issuer.HandleHTTP(w, r) {
				return
			}
			sendToHTTPS(w, r, cfg.Origins)
		}),
		ReadTimeout:    plainTimeout,
		WriteTimeout:   plainTimeout,
		IdleTimeout:    plainTimeout,
		MaxHeaderBytes: maxPlainHeader,
		ErrorLog:       log.New(quietLog{cfg.Log}, "", 0),
	}
}

func sendToHTTPS(w http.ResponseWriter, r *http.Request, o *Origins) {
	w.Header().Set("Connection", "close")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	target := o.secure(r.Host)
	switch {
	case target == "":
		w.WriteHeader(http.StatusMisdirectedRequest)
		_, _ = fmt.Fprintln(w, "nothing of this name is served here")
	case (r.Method != http.MethodGet && r.Method != http.MethodHead) || r.Header.Get("Authorization") != "" || apiPath(r):
		w.WriteHeader(http.StatusForbidden)
		_, _ = fmt.Fprintf(w, "this is plain HTTP: use %s. If a password or a token was sent here, it was readable on the way: change it.\n", target) //nolint:gosec // an origin of ours, in plain text
	default:
		w.Header().Set("Location", target+r.URL.RequestURI())
		w.WriteHeader(http.StatusPermanentRedirect)
	}
}
