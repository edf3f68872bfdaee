package gateway

import (
	"context"
	"time"

	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/cells"
	"github.com/baileyhq/bailey/internal/filter"
	"github.com/baileyhq/bailey/internal/jupyter"
)

// auditLimit is how long a record of a cell may wait for the journal.
const auditLimit = 10 * time.Second

// watchesCells reports whether the code that people run in this workspace is
// to stand in the journal.
func (g *Gateway) watchesCells(class string) bool {
	return g.cfg.AuditCells != nil && g.cfg.AuditCells(class)
}

// isKernel reports whether a WebSocket at a path speaks with a kernel.
func isKernel(p string) bool { return inspectedRoute(p) == filter.Kernel }

// watchCells returns what sees the cells of a kernel's connection, or nil.
func (g *Gateway) watchCells(t *tunnel, route Route, protocol string) *cells.Watch {
	ws := route.Workspace
	if !g.watchesCells(ws.Class) {
		return nil
	}
	return cells.New(cells.Config{
		Key: g.cfg.CellKey, Who: t.actor, V1: protocol == jupyter.ProtocolV1, Now: g.cfg.Now,
		Report: func(r cells.Record) {
			e := audit.Event{
				Actor: audit.By(r.Who), Action: audit.KernelExecute,
				Target: audit.Target{Kind: "workspace", ID: ws.ID, Name: ws.Name},
				Attrs: audit.Attrs{
					Class: ws.Class, Run: ws.RunID, Owner: ws.OwnerID, Sum: r.Sum, Size: r.Bytes,
					Millis: r.Took.Milliseconds(), Silent: r.Silent, Count: r.Count,
				},
			}
			e.Outcome, e.Reason = cellOutcome(r.Outcome)
			g.wg.Go(func() { // the journal syncs a disk; the message must not wait
				ctx, cancel := context.WithTimeout(context.Background(), auditLimit) //nolint:forbidigo // it outlives the message
				defer cancel()
				if err := g.cfg.Audit.Append(ctx, e); err != nil {
					g.cfg.Log.ErrorContext(ctx, "cell not in the audit journal", logWorkspace(t.run), logError(err))
				}
			})
		},
	})
}

func cellOutcome(o cells.Outcome) (audit.Outcome, audit.Reason) {
	switch o {
	case cells.OK:
		return audit.Success, audit.NoReason
	case cells.Failed:
		return audit.Failure, audit.CellError
	case cells.Aborted:
		return audit.Failure, audit.CellAborted
	case cells.Refused:
		return audit.Refused, audit.NotAllowed
	case cells.Unanswered:
		return audit.Failure, audit.Unanswered
	}
	return audit.Failure, audit.NoReason
}
