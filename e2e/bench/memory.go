package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/baileyhq/bailey/e2e/bench/measure"
)

// memory measures what the server itself holds.
func memory(ctx context.Context, b *bench) (r result, err error) {
	s, err := b.startBailey(ctx, "memory")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	users, running := pick(b, 50, 3), pick(b, 5, 1)
	settle := pick(b, 15*time.Second, time.Second)
	look := func(id, what string, limit float64) error {
		if err := pause(ctx, settle); err != nil {
			return err
		}
		u, err := measure.Of(s.Pid())
		if err != nil {
			return err
		}
		row := measure.Row{ID: "memory." + id, Path: "resident memory of bailey up, " + what, Unit: measure.Bytes, Ours: float64(u.RSS)}
		if limit > 0 {
			row.Budget = measure.Budget{Kind: measure.AtMost, Limit: limit}
			row.Why = fmt.Sprintf("Its peak was %s.", measure.Bytes.Format(float64(u.Peak)))
			r.Rows = append(r.Rows, row, measure.Row{ID: "memory.peak", Path: "the most it had in this run", Unit: measure.Bytes, Ours: float64(u.Peak)})
			return nil
		}
		r.Rows = append(r.Rows, row)
		return nil
	}
	if err := look("idle", "idle, 8 GPUs configured", 0); err != nil {
		return r, err
	}
	var people []*client
	for i := range users {
		c, err := s.addUser(ctx, i)
		if err != nil {
			return r, err
		}
		people = append(people, c)
	}
	if err := look("users", fmt.Sprintf("and %d users who have signed in", users), 0); err != nil {
		return r, err
	}
	for i := range running {
		w, _, err := people[i].launch(ctx, "nb", "notebook")
		if err != nil {
			return r, err
		}
		if err := people[i].settle(ctx, w.ID); err != nil {
			return r, err
		}
	}
	err = look("busy", fmt.Sprintf("%d users, 8 GPUs configured, %d notebooks running", users, running), 300<<20)
	r.Said = []string{fmt.Sprintf("VmRSS of the process, %v after the last step. The GPUs are entries in the configuration that nobody leases; the machine has room for %d notebooks at a time, not for 8 people with a card each.", settle, running)}
	return r, err
}
