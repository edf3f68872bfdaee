package oidc

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/baileyhq/bailey/internal/external"
)

// Test tries everything about a provider that can be tried without a person,
// and says for what fails what to do.
func (p *Provider) Test(ctx context.Context) []external.Step {
	m, err := p.ask(ctx)
	if err != nil {
		return []external.Step{failed("discovery", err)}
	}
	steps := []external.Step{{Name: "discovery", OK: true, Detail: p.cfg.Issuer}}
	if apart, known := p.clock.apart(); known {
		step := external.Step{Name: "clock", OK: true, Detail: "within " + max(time.Second, apart.Abs().Round(time.Second)).String()}
		if apart.Abs() > skew {
			step = external.Step{
				Name: "clock", Detail: fmt.Sprintf("the provider's clock says %s, this server's %s", p.cfg.Now().Add(apart).UTC().Format(time.DateTime), p.cfg.Now().UTC().Format(time.DateTime)),
				Fix: "set the wrong one by NTP (timedatectl set-ntp true): its answers would be too old, or from the future",
			}
		}
		steps = append(steps, step)
	}
	keys, err := m.keys.fetch(ctx)
	switch {
	case err != nil:
		steps = append(steps, failed("keys", err))
	case len(keys) == 0:
		steps = append(steps, external.Step{Name: "keys", Detail: "the provider publishes no key that can sign (RSA of 2048 bits or more, EC, Ed25519)", Fix: "look at " + m.JWKS})
	default:
		steps = append(steps, external.Step{Name: "keys", OK: true, Detail: fmt.Sprintf("%d, for %s", len(keys), strings.Join(m.algorithms, ", "))})
	}
	if len(m.Challenges) > 0 && !slices.Contains(m.Challenges, "S256") {
		steps = append(steps, external.Step{Name: "PKCE", OK: true, Warn: true, Detail: "the provider does not say that it knows S256", Fix: "turn PKCE with S256 on for the client there"})
	}
	return append(steps, p.testClient(ctx, m)...)
}

// testClient shows the token endpoint a code that is none: a provider that
// accepts the client says that the code is wrong, another that the client is.
func (p *Provider) testClient(ctx context.Context, m *metadata) []external.Step {
	ctx = oidc.ClientContext(ctx, p.client)
	steps := []external.Step{}
	_, err := p.oauth(m).Exchange(ctx, "bailey-test", oauth2.VerifierOption(oauth2.GenerateVerifier()))
	e, ok := errors.AsType[*oauth2.RetrieveError](err)
	switch {
	case ok && (e.ErrorCode == "invalid_client" || e.ErrorCode == "unauthorized_client" || e.ErrorCode == "" && e.Response.StatusCode == http.StatusUnauthorized):
		steps = append(steps, external.Step{
			Name: "client", Detail: "the provider refuses client_id " + p.cfg.ClientID + " with this secret (" + clean(e.ErrorCode) + ")",
			Fix: "copy client_id and the secret from the provider again: the secret's value, not its id, without spaces; it may have expired",
		})
		return steps
	case ok && (e.ErrorCode != "" || e.Response.StatusCode < http.StatusInternalServerError):
		steps = append(steps, external.Step{Name: "client", OK: true, Detail: "client_id and secret are accepted"})
	case err != nil:
		steps = append(steps, failed("client", err))
		return steps
	}
	to, _, err := p.Begin(ctx)
	if err == nil && p.allowed(hostOf(to)) {
		req, rerr := http.NewRequestWithContext(ctx, http.MethodGet, to, nil)
		if rerr == nil {
			if resp, err := p.client.Do(req); err == nil {
				_ = resp.Body.Close() // its status says it
				if resp.StatusCode >= http.StatusBadRequest {
					steps = append(steps, external.Step{
						Name: "redirect address", Detail: fmt.Sprintf("the provider answers %d to what a browser would ask", resp.StatusCode),
						Fix: "register exactly this redirect address for the client there: " + p.cfg.Redirect,
					})
				} else {
					steps = append(steps, external.Step{Name: "redirect address", OK: true, Detail: p.cfg.Redirect})
				}
			}
		}
	}
	logout := strings.TrimSuffix(p.cfg.Redirect, "/callback") + "/logout"
	if m.BackChannel {
		steps = append(steps, external.Step{Name: "back-channel logout", OK: true, Detail: "register " + logout + " for the client there, and a sign-out ends sessions here at once"})
	} else {
		steps = append(steps, external.Step{
			Name: "back-channel logout", OK: true, Warn: true, Detail: "the provider does not offer it",
			Fix: "sessions are checked by refresh tokens instead; some providers give one only with the scope offline_access",
		})
	}
	return steps
}

func failed(name string, err error) external.Step {
	if m, ok := errors.AsType[*mistake](err); ok {
		return external.Step{Name: name, Detail: m.what, Fix: m.fix}
	}
	return external.Step{Name: name, Detail: err.Error(), Fix: "look at the provider's log"}
}
