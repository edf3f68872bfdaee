package api

import (
	"context"
	"net/http"
	"time"

	"github.com/baileyhq/bailey"
)

func (a *API) banRoutes() {
	register(a, op(http.MethodGet, "/bans", "listBans", "Who is locked out, and until when", "admin"), a.listBans)
	register(a, withStatus(op(http.MethodPost, "/bans", "addBan", "Ban an address or a network from every door", "admin"), http.StatusCreated), a.addBan)
	register(a, op(http.MethodPost, "/bans/lift", "liftBan", "Let somebody in again", "admin"), a.liftBan)
}

// A Ban is a lock, a ban or a slow-down that is in force.
type Ban struct {
	ID       string    `json:"id"`
	Kind     string    `json:"kind" enum:"lock,ban,slow,admin" doc:"lock: a name from one place, after failures. ban: a place, after failures on many names. slow: a place that would be banned but may be everybody's way in. admin: an administrator's"`
	Place    string    `json:"place" doc:"A network, or device: and the id of a device"`
	User     string    `json:"user,omitempty" doc:"Of a lock on an account"`
	By       string    `json:"by,omitempty" doc:"The administrator"`
	Until    time.Time `json:"until"`
	Repeated int       `json:"repeated" doc:"How often in a row; each next one is twice as long"`
}

func banOf(b bailey.Ban) Ban {
	kind := "ban"
	switch {
	case b.By != "":
		kind = "admin"
	case b.Pair:
		kind = "lock"
	case b.Slowed:
		kind = "slow"
	}
	return Ban{ID: b.ID, Kind: kind, Place: b.Prefix, User: b.Subject, By: b.By, Until: b.Until, Repeated: max(1, b.Repeated)}
}

type bansOutput struct {
	Body struct {
		Bans []Ban `json:"bans" nullable:"false"`
	}
}

func (a *API) listBans(ctx context.Context, actor bailey.Actor, _ *none) (*bansOutput, error) {
	list, err := a.cfg.Bans.List(ctx, actor)
	if err != nil {
		return nil, err
	}
	out := &bansOutput{}
	out.Body.Bans = all(list, banOf)
	return out, nil
}

type addBanInput struct {
	Body struct {
		Network string `json:"network" maxLength:"64" doc:"An address (of IPv6, its /64), or a network: 203.0.113.9, 203.0.113.0/24, 2001:db8::/48"`
		Seconds int64  `json:"seconds,omitempty" minimum:"60" maximum:"31622400" doc:"How long; 0: a day"`
	}
}

type banOutput struct{ Body Ban }

func (a *API) addBan(ctx context.Context, actor bailey.Actor, in *addBanInput) (*banOutput, error) {
	d := 24 * time.Hour
	if in.Body.Seconds != 0 {
		d = time.Duration(in.Body.Seconds) * time.Second
	}
	b, err := a.cfg.Bans.Add(ctx, actor, in.Body.Network, d)
	if err != nil {
		return nil, err
	}
	return &banOutput{Body: banOf(b)}, nil
}

type liftBanInput struct {
	Body struct {
		What string `json:"what" minLength:"1" maxLength:"128" doc:"The id of a ban; or an address or a network, for all that are on it"`
	}
}

func (a *API) liftBan(ctx context.Context, actor bailey.Actor, in *liftBanInput) (*bansOutput, error) {
	lifted, err := a.cfg.Bans.Lift(ctx, actor, in.Body.What)
	if err != nil {
		return nil, err
	}
	out := &bansOutput{}
	out.Body.Bans = all(lifted, banOf)
	return out, nil
}
