package catalogue

import (
	"context"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
)

// change is the event of a change to the catalogue.
func (s *Service) change(by audit.Actor, action audit.Action, img bailey.Image) audit.Event {
	return audit.Event{
		Actor: by, Action: action, Outcome: audit.Success,
		Target: audit.Target{Kind: "image", ID: img.ID, Name: img.Name},
		Attrs:  audit.Attrs{Digest: img.Digest, Signer: img.Signer},
	}
}

// follow waits for a pull and tells how far it is.
func (s *Service) follow(ctx context.Context, p *pull, progress func(percent int)) error {
	const each = 500 * time.Millisecond
	tick := time.NewTicker(each)
	defer tick.Stop()
	told := -1
	for {
		select {
		case <-p.done:
			if p.err == nil && progress != nil {
				progress(100)
			}
			return p.err
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			s.mu.Lock()
			percent := p.percent
			s.mu.Unlock()
			if progress != nil && percent > told {
				told = percent
				progress(percent)
			}
		}
	}
}
