// Package allow decides from where somebody may come: for everybody, for the
// members of a group, for one person. A list belongs to the person and not to a
// door, so it holds on each: pages, API, workspaces, SSH.
package allow

import (
	"net/netip"
	"slices"
)

// Lists are networks. Where there is no list, there is no restriction. Of the
// lists that concern somebody each must hold the address: to join a group never
// widens what was narrow.
type Lists struct {
	Everyone []netip.Prefix
	Groups   map[string][]netip.Prefix
	Users    map[string][]netip.Prefix
}

// Anybody reports whether anybody at all may come from a. An address that is
// none may not, where there is a list.
func (l *Lists) Anybody(a netip.Addr) bool {
	return l == nil || len(l.Everyone) == 0 || holds(l.Everyone, a)
}

// Permits reports whether the person may come from a.
func (l *Lists) Permits(name string, groups []string, a netip.Addr) bool {
	if l == nil {
		return true
	}
	if !l.Anybody(a) {
		return false
	}
	if list, ok := l.Users[name]; ok && !holds(list, a) {
		return false
	}
	for _, g := range groups {
		if list, ok := l.Groups[g]; ok && !holds(list, a) {
			return false
		}
	}
	return true
}

func holds(list []netip.Prefix, a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
}
