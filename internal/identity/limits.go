package identity

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/policy"
)

// maxLimits is how many workspaces and networks a token can be limited to.
const maxLimits = 64

// limits are what a token may be used for, and from where.
type limits struct {
	scopes     []bailey.Scope
	workspaces []string
	networks   []string
	prefixes   []netip.Prefix // networks, parsed
	nowhere    bool           // a network could not be read
}

// limitsOf reads a token's limits. Lists are clipped: actors share them.
func limitsOf(t bailey.Token) *limits {
	l := &limits{scopes: slices.Clip(t.Scopes), workspaces: slices.Clip(t.Workspaces), networks: slices.Clip(t.Networks)}
	for _, text := range t.Networks {
		p, err := parseNetwork(text)
		if err != nil {
			l.nowhere = true // in doubt it is good nowhere
		}
		l.prefixes = append(l.prefixes, p)
	}
	return l
}

// from reports whether the token may be used from an address. A session (nil)
// may be used from everywhere.
func (l *limits) from(ip string) bool {
	if l == nil || len(l.networks) == 0 {
		return true
	}
	a, err := netip.ParseAddr(ip)
	if err != nil || l.nowhere {
		return false
	}
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(l.prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// parseNetwork reads "192.0.2.0/24", or an address for that address alone.
func parseNetwork(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err == nil && p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96) // addresses are compared unmapped
	}
	return p.Masked(), err
}

// checkLimits brings what was asked for into its one form: sorted, without
// repetitions, networks as CIDRs.
func checkLimits(t *bailey.Token) error {
	if len(t.Workspaces) > maxLimits || len(t.Networks) > maxLimits {
		return bailey.Errorf(bailey.Invalid, "a token can be limited to %d workspaces and %d networks at most", maxLimits, maxLimits)
	}
	scopes, err := checkScopes(t.Scopes)
	if err != nil {
		return err
	}
	t.Scopes = scopes
	var networks []string
	for _, text := range t.Networks {
		p, err := parseNetwork(text)
		if err != nil {
			return &bailey.Error{
				Kind: bailey.Invalid, Msg: "\"" + clean(text, 60) + "\" is not a network", Hint: "write it as 192.0.2.0/24, 2001:db8::/32 or a single address",
			}
		}
		networks = append(networks, p.String())
	}
	t.Networks = sorted(networks)
	for _, id := range t.Workspaces {
		if len(id) != idLength || bailey.CheckName("workspace", "w"+id) != nil {
			return &bailey.Error{Kind: bailey.Invalid, Msg: "\"" + clean(id, 60) + "\" is not a workspace's id", Hint: "bailey ls -o json shows the ids"}
		}
	}
	t.Workspaces = sorted(slices.Clone(t.Workspaces))
	return nil
}

// checkScopes returns the scopes sorted and without repetitions.
func checkScopes(scopes []bailey.Scope) ([]bailey.Scope, error) {
	known := bailey.Scopes()
	for _, s := range scopes {
		if !slices.Contains(known, s) {
			return nil, &bailey.Error{
				Kind: bailey.Invalid, Msg: "there is no scope \"" + clean(string(s), 40) + "\"", Hint: "the scopes are " + listed(known),
			}
		}
	}
	if slices.Contains(scopes, bailey.ScopeAll) {
		return []bailey.Scope{bailey.ScopeAll}, nil
	}
	return sorted(slices.Clone(scopes)), nil
}

func listed(scopes []bailey.Scope) string { return strings.Join(scopeNames(scopes), ", ") }

func sorted[T ~string](list []T) []T {
	slices.Sort(list)
	return slices.Compact(list)
}

// narrow takes for a token what its parent has where nothing was asked for,
// and refuses what would be wider. lifetime says that an end was asked for.
func narrow(t *bailey.Token, parent bailey.Token, lifetime bool) error {
	t.ParentID = parent.ID
	if parent.ExpiresAt.Before(t.ExpiresAt) {
		if lifetime {
			return errWider("a token made with a token cannot outlive it: this one ends "+parent.ExpiresAt.UTC().Format(time.DateTime)+" UTC", "ask for fewer days")
		}
		t.ExpiresAt = parent.ExpiresAt
	}
	if len(t.Scopes) == 0 {
		t.Scopes = slices.Clone(parent.Scopes)
	}
	for _, s := range t.Scopes {
		if !policy.Covers(parent.Scopes, s) {
			return errWider("a token made with a token has no wider scopes: this one has not "+string(s), "ask for less than "+listed(parent.Scopes))
		}
	}
	if len(parent.Workspaces) > 0 {
		if len(t.Workspaces) == 0 {
			t.Workspaces = slices.Clone(parent.Workspaces)
		}
		for _, id := range t.Workspaces {
			if !slices.Contains(parent.Workspaces, id) {
				return errWider("a token made with a token is for no more workspaces than that one", "ask for some of its workspaces")
			}
		}
	}
	return narrowNetworks(t, parent)
}

func narrowNetworks(t *bailey.Token, parent bailey.Token) error {
	if len(parent.Networks) == 0 {
		return nil
	}
	if len(t.Networks) == 0 {
		t.Networks = slices.Clone(parent.Networks)
		return nil
	}
	of := limitsOf(parent)
	for _, text := range t.Networks {
		p, err := parseNetwork(text)
		inside := func(wide netip.Prefix) bool { return wide.Bits() <= p.Bits() && wide.Contains(p.Addr()) }
		if err != nil || of.nowhere || !slices.ContainsFunc(of.prefixes, inside) {
			return errWider("a token made with a token is good from no more networks than that one", "ask for networks inside those")
		}
	}
	return nil
}

func errWider(msg, hint string) error {
	return &bailey.Error{Kind: bailey.Denied, Msg: msg, Hint: hint + ", or make the token on the account page"}
}
