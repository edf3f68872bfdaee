package config

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/edge/peer"
)

// Access says from where people may come.
type Access struct {
	Everyone []string            `yaml:"everyone" example:"[10.0.0.0/8]" doc:"Networks from which people may come at all. Empty: from everywhere. Remember the machine's own loopback (127.0.0.0/8, ::1) if commands on it are to work."`
	Groups   map[string][]string `yaml:"groups" doc:"By group name, for its members, on top. Somebody in several groups must be in a network of each that is listed."`
	Users    map[string][]string `yaml:"users" doc:"By user name, on top."`
}

// checkAccess refuses what is no network. It does so strictly: a list with a
// mistake in it must not leave a door open or shut.
func (d *decoder) checkAccess() {
	a := d.cfg.Access
	d.checkNets("access.everyone", a.Everyone)
	for name, list := range a.Groups {
		d.checkNetsOf("group", join("access.groups", name), name, list)
	}
	for name, list := range a.Users {
		d.checkNetsOf("user", join("access.users", name), name, list)
	}
}

func (d *decoder) checkNetsOf(kind, at, name string, list []string) {
	if bailey.CheckName(kind, name) != nil {
		d.wrong([]string{at}, quote(name)+" cannot be the name of a "+kind, nameRule, "the name as `bailey admin user ls` shows it")
	}
	if len(list) == 0 {
		d.wrong([]string{at}, "the list is empty", "nobody on it could come from anywhere, and a slip looks the same", "networks, or no such entry; to lock an account, disable it")
	}
	d.checkNets(at, list)
}

func (d *decoder) checkNets(at string, list []string) {
	for i, text := range list {
		if _, err := peer.ParseNet(text); err != nil {
			d.wrong([]string{fmt.Sprintf("%s[%d]", at, i)}, err.Error(), "an allow-list has addresses and networks", "10.20.0.0/16")
		}
	}
}

// Nets returns the lists as networks.
func (a Access) Nets() (everyone []netip.Prefix, groups, users map[string][]netip.Prefix) {
	return netsOf(a.Everyone), netsOfEach(a.Groups), netsOfEach(a.Users)
}

func netsOfEach(lists map[string][]string) map[string][]netip.Prefix {
	out := map[string][]netip.Prefix{}
	for name, list := range lists {
		out[name] = netsOf(list)
	}
	return out
}

// netsOf expects what was checked.
func netsOf(list []string) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(list))
	for _, text := range list {
		if p, err := peer.ParseNet(text); err == nil {
			out = append(out, p)
		}
	}
	return slices.Clip(out)
}
