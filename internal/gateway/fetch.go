package gateway

import (
	"net/http"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/mutant"
)

// checkFetch decides whether a request with a cookie comes from where the
// person is: browsers send cookies along whoever asks them to. Other
// workspaces and the console are the same site (SameSite is no border between
// them), so only this very origin counts.
//
//   - An upgrade must say exactly this origin. Upgrades are GETs, which no
//     other rule stops (cross-site WebSocket hijacking); not saying is refusing.
//   - A state change must be same-origin by Sec-Fetch-Site, or where a client
//     does not send that, by Origin.
//   - A read from elsewhere may only be a person following a link to a page.
//
// Requests with a token need none of this: nothing but the client's own code
// adds it.
func (q *request) checkFetch(upgrade bool) error {
	sites, origins := q.Header["Sec-Fetch-Site"], q.Header["Origin"]
	if len(sites) > 1 || len(origins) > 1 {
		return errForeign
	}
	exact := len(origins) == 1 && origins[0] == q.origin
	if upgrade {
		if !exact && !mutant.SocketOrigin {
			return errForeign
		}
		return nil
	}
	reads := q.Method == http.MethodGet || q.Method == http.MethodHead
	if reads && mutant.Reads || !reads && mutant.CSRF {
		return nil
	}
	if len(origins) == 1 && !exact {
		return errForeign
	}
	same := len(sites) == 1 && (sites[0] == "same-origin" || sites[0] == "none")
	switch q.Method {
	case http.MethodGet, http.MethodHead:
		if len(sites) == 0 || same || q.Header.Get("Sec-Fetch-Mode") == "navigate" && q.Header.Get("Sec-Fetch-Dest") == "document" {
			return nil
		}
	default:
		if same || len(sites) == 0 && exact {
			return nil
		}
	}
	return errForeign
}

var errForeign = &bailey.Error{
	Kind: bailey.Denied, Msg: "this request did not come from a page of this workspace",
	Hint: "programs send an API token instead of a cookie",
}
