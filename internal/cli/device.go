package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// A deviceGrant is the token that a person approved in a browser.
type deviceGrant struct {
	AccessToken string    `json:"access_token"`
	Scope       string    `json:"scope"`
	User        string    `json:"user"`
	ExpiresAt   time.Time `json:"expires_at"`
}

// deviceLogin signs this program in by RFC 8628: it shows a code, and waits
// until a person, signed in at the console, has typed and approved it there. No
// password passes through here. scopes empty asks for all that the person may.
// It saves nothing; the caller keeps the token, or uses it once.
func (s *streams) deviceLogin(ctx context.Context, p profile, scopes ...string) (deviceGrant, error) {
	hc, err := p.httpClient()
	if err != nil {
		return deviceGrant{}, err
	}
	base := strings.TrimSuffix(p.URL, "/")
	if u, err := url.Parse(base); err != nil || u.Scheme != "https" || u.Host == "" {
		return deviceGrant{}, usage("write it as https://HOST:8443", "%q is no server address", p.URL)
	}
	host, _ := os.Hostname()
	var begun struct {
		DeviceCode string `json:"device_code"`
		UserCode   string `json:"user_code"`
		Page       string `json:"verification_uri"`
		ExpiresIn  int    `json:"expires_in"`
		Interval   int    `json:"interval"`
	}
	status, code, words, err := oauthPost(ctx, hc, base+"/api/oauth/device_authorization", url.Values{
		"client_id": {"bailey"}, "scope": {strings.Join(scopes, " ")}, "device_name": {strings.TrimSpace("cli on " + host)},
	}, &begun)
	switch {
	case err != nil:
		return deviceGrant{}, unreachable(err)
	case status == http.StatusNotFound:
		return deviceGrant{}, &failure{code: exitFailure, msg: "the server cannot sign programs in by a code", hint: "give --user NAME to sign in with a password"}
	case code != "" || begun.DeviceCode == "":
		return deviceGrant{}, oauthRefusal(status, code, words)
	}
	fmt.Fprintf(s.err, "Open %s in a browser where you are signed in, and type this code:\n\n    %s\n\nIt is good for %d minutes. Waiting …\n",
		clean(begun.Page), clean(begun.UserCode), begun.ExpiresIn/60)
	interval := max(time.Duration(begun.Interval)*time.Second, time.Second)
	form := url.Values{
		"client_id": {"bailey"}, "grant_type": {"urn:ietf:params:oauth:grant-type:device_code"}, "device_code": {begun.DeviceCode},
	}
	for {
		select {
		case <-ctx.Done():
			return deviceGrant{}, context.Cause(ctx)
		case <-time.After(interval):
		}
		var grant deviceGrant
		status, code, words, err := oauthPost(ctx, hc, base+"/api/oauth/token", form, &grant)
		switch {
		case err != nil && ctx.Err() != nil:
			return deviceGrant{}, context.Cause(ctx)
		case err != nil: // a network that comes and goes; RFC 8628, 3.5: back off
			interval = min(2*interval, time.Minute)
		case code == "slow_down":
			interval += 5 * time.Second
		case code == "authorization_pending", status >= http.StatusInternalServerError:
		case code == "" && status == http.StatusOK && grant.AccessToken != "":
			return grant, nil
		default:
			return deviceGrant{}, oauthRefusal(status, code, words)
		}
	}
}

// oauthPost sends a form and reads the answer into out, or the code and words
// of a refusal.
func oauthPost(ctx context.Context, hc *http.Client, to string, form url.Values, out any) (status int, code, words string, err error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, to, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, "", "", err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	res, err := hc.Do(r)
	if err != nil {
		return 0, "", "", err
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return 0, "", "", err
	}
	if res.StatusCode == http.StatusOK {
		return res.StatusCode, "", "", json.Unmarshal(b, out)
	}
	var refused struct {
		Error string `json:"error"`
		Words string `json:"error_description"`
	}
	_ = json.Unmarshal(b, &refused) // then the status has to do
	return res.StatusCode, refused.Error, refused.Words, nil
}

func oauthRefusal(status int, code, words string) error {
	f := &failure{code: exitFailure, msg: clean(words), hint: "run the command again for a new code"}
	switch code {
	case "access_denied":
		f.code = exitRefused
	case "expired_token":
		f.code = exitSignIn
	case "slow_down":
		f.hint = "wait a few minutes, then run the command again"
	}
	if f.msg == "" {
		f.msg = fmt.Sprintf("the server answered %d and no more", status)
	}
	return f
}
