package store

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	units "github.com/docker/go-units"

	"github.com/baileyhq/bailey"
)

// usage is what one un-ended run takes from quotas.
type usage struct {
	workspaceID, workspace string
	ownerID                string
	groups                 []string // of the owner
	state                  bailey.State
	need                   need
}

// need is what a run takes, in the units of a quota.
type need struct {
	cpuMillis, memoryBytes int64
	gpus                   int64
}

const usageColumns = `SELECT w.id, w.name, w.owner_id, u.member_of, w.state, r.cpu_millis, r.memory_bytes, r.gpu_count
	FROM runs r
	JOIN workspaces w ON w.id = r.workspace_id
	JOIN users u ON u.id = w.owner_id
	WHERE r.ended_at = 0
	ORDER BY w.name`

func scanUsage(row scanner) (u usage, err error) {
	var groups string
	err = row.Scan(&u.workspaceID, &u.workspace, &u.ownerID, &groups, (*string)(&u.state),
		&u.need.cpuMillis, &u.need.memoryBytes, &u.need.gpus)
	if err != nil {
		return u, err
	}
	u.groups, err = fromJSON[[]string](groups)
	return u, err
}

// checkQuotas refuses what the owner's quota or that of a group does not allow
// on top of everything that has not ended.
func checkQuotas(ctx context.Context, r runner, owner bailey.User, rq bailey.RunRequest, want need) error {
	open, err := list(ctx, r, scanUsage, usageColumns)
	if err != nil {
		return err
	}
	var own []usage
	for _, u := range open {
		if u.ownerID == owner.ID {
			own = append(own, u)
		}
	}
	by := func(measure measure) string { return ownWorkspaces(own, measure) }
	if err := checkQuota(rq.UserQuota, want, own, "user "+owner.Name, by); err != nil {
		return err
	}
	for _, group := range slices.Sorted(maps.Keys(rq.GroupQuotas)) {
		var members []usage
		for _, u := range open {
			if u.ownerID == owner.ID || slices.Contains(u.groups, group) {
				members = append(members, u)
			}
		}
		// What colleagues call their workspaces is theirs: only how many.
		by := func(m measure) string { return memberWorkspaces(members, m) }
		if err := checkQuota(rq.GroupQuotas[group], want, members, "group "+group, by); err != nil {
			return err
		}
	}
	return nil
}

// A measure is one thing that a quota bounds.
type measure struct {
	limit func(bailey.Quota) int64
	of    func(need) int64
	show  func(int64) string
}

func measures() []measure {
	return []measure{
		{
			limit: func(q bailey.Quota) int64 { return int64(q.Workspaces) },
			of:    func(need) int64 { return 1 },
			show:  func(n int64) string { return count(n, "running workspace") },
		},
		{
			limit: func(q bailey.Quota) int64 { return q.CPUMillis },
			of:    func(n need) int64 { return n.cpuMillis },
			show:  cores,
		},
		{
			limit: func(q bailey.Quota) int64 { return q.MemoryBytes },
			of:    func(n need) int64 { return n.memoryBytes },
			show:  func(n int64) string { return units.BytesSize(float64(n)) + " of memory" },
		},
		{
			limit: func(q bailey.Quota) int64 { return int64(q.GPUs) },
			of:    func(n need) int64 { return n.gpus },
			show:  func(n int64) string { return count(n, "GPU") },
		},
	}
}

// checkQuota refuses with OverQuota, saying which limit of whom is reached, how
// much is used and by what, and how much more was asked for.
func checkQuota(q bailey.Quota, want need, open []usage, whose string, by func(measure) string) error {
	for _, m := range measures() {
		limit, asked := m.limit(q), m.of(want)
		if limit <= 0 || asked <= 0 {
			continue
		}
		var used int64
		for _, u := range open {
			used += m.of(u.need)
		}
		if used+asked <= limit {
			continue
		}
		e := &bailey.Error{
			Kind: bailey.OverQuota,
			Msg:  fmt.Sprintf("%s may have %s at once: %s in use%s, and this start needs %s", whose, m.show(limit), m.show(used), by(m), m.show(asked)),
			Hint: "stop a workspace that is not needed, or ask an administrator for a higher limit",
		}
		switch {
		case asked > limit:
			e.Hint = "choose a smaller class, or ask an administrator for a higher limit: this one can never start under it"
		case strings.HasPrefix(whose, "group "):
			e.Hint = "wait until somebody in the group stops a workspace, or ask an administrator for a higher limit"
		}
		return e
	}
	return nil
}

// ownWorkspaces names the workspaces that use something, " by a (running) and b
// (stopping)": for their owner.
func ownWorkspaces(open []usage, m measure) string {
	var names []string
	for _, u := range open {
		if m.of(u.need) > 0 {
			names = append(names, u.workspace+" ("+string(u.state)+")")
		}
	}
	if len(names) == 0 {
		return ""
	}
	const most = 8
	if len(names) > most {
		names = append(names[:most], strconv.Itoa(len(names)-most)+" more")
	}
	last := len(names) - 1
	if last == 0 {
		return " by " + names[0]
	}
	return " by " + strings.Join(names[:last], ", ") + " and " + names[last]
}

// memberWorkspaces counts the workspaces that use something and their owners.
func memberWorkspaces(open []usage, m measure) string {
	owners := map[string]bool{}
	var n int64
	for _, u := range open {
		if m.of(u.need) > 0 {
			owners[u.ownerID] = true
			n++
		}
	}
	if n == 0 {
		return ""
	}
	return " by " + count(n, "workspace") + " of " + count(int64(len(owners)), "member")
}

// count returns "1 thing" or "2 things".
func count(n int64, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return strconv.FormatInt(n, 10) + " " + thing + "s"
}

// cores shows thousandths of a core: "1.5 CPU cores".
func cores(millis int64) string {
	n := strconv.FormatFloat(float64(millis)/1000, 'f', -1, 64)
	return n + cmp.Or(map[string]string{"1": " CPU core"}[n], " CPU cores")
}

// pickGPUs returns the first want cards of the request that no run holds.
func pickGPUs(ctx context.Context, r runner, rq bailey.RunRequest, want int) ([]string, error) {
	picked := []string{}
	if want == 0 {
		return picked, nil
	}
	held, err := list(ctx, r, scanText, `SELECT gpu FROM leases`)
	if err != nil {
		return nil, err
	}
	var known, free int
	seen := map[string]bool{}
	for _, gpu := range rq.GPUs {
		if gpu == "" || seen[gpu] {
			continue
		}
		seen[gpu] = true
		known++
		if slices.Contains(held, gpu) {
			continue
		}
		free++
		if len(picked) < want {
			picked = append(picked, gpu)
		}
	}
	if len(picked) == want {
		return picked, nil
	}
	e := &bailey.Error{
		Kind: bailey.OverQuota,
		Msg:  fmt.Sprintf("this start needs %s, and %d of %d are free", count(int64(want), "GPU"), free, known),
		Hint: "wait until another workspace stops, or choose a class with fewer GPUs",
	}
	if want > known {
		e.Msg = fmt.Sprintf("this start needs %s, and the machine has %d", count(int64(want), "GPU"), known)
		e.Hint = "choose a class with fewer GPUs; an administrator finds missing cards with: bailey doctor"
	}
	return nil, e
}
