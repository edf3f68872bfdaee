package edge

import (
	"net/http"
)

// ConsoleHeaders sets the headers of a console page and returns the nonce that
// its own inline scripts must carry, fresh for every answer. Nothing but the
// console's own scripts, styles and pictures may load, nobody may frame it, and
// its forms lead to itself or, through a redirect, to a workspace's origin.
func ConsoleHeaders(w http.ResponseWriter, r *http.Request) (nonce string) {
	nonce = freshID() + freshID()
	targets := "'self'"
	if e, ok := r.Context().Value(exchangeKey{}).(*exchange); ok && e.origins != nil {
		if more := e.origins.formTargets(); more != "" {
			targets += " " + more
		}
	}
	h := w.Header()
	h.Set("Content-Security-Policy", "default-src 'none'"+
		"; script-src 'self' 'nonce-"+nonce+"'"+
		"; style-src 'self'"+
		"; img-src 'self' data:"+
		"; connect-src 'self'"+
		"; form-action "+targets+
		"; base-uri 'none'"+
		"; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY")
	// same-origin, not no-referrer: with no-referrer browsers send Origin: null
	// with a form, and the console could not see that the form was its own.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Origin-Agent-Cluster", "?1")
	h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=(), payment=(), usb=()")
	return nonce
}

// setHSTS tells browsers to come back by HTTPS only. Never includeSubDomains:
// the organisation's other services on that domain are not ours to break.
func setHSTS(w http.ResponseWriter) {
	w.Header().Set("Strict-Transport-Security", "max-age=31536000")
}
