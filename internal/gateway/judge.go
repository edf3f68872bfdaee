package gateway

import "github.com/baileyhq/bailey/internal/filter"

// idleJudges is how many goroutines wait for a message to look at.
const idleJudges = 8

// A judging is a message that somebody else looks at. A goroutine's stack grows
// to what looking at text takes, and shrinks only when memory is collected; so
// it is few goroutines that do it, and not the two of every WebSocket.
type judging struct {
	conn    *filter.Conn
	up      bool
	message filter.Message
	verdict filter.Verdict
	done    chan struct{} // has room for one
}

// judge has a message looked at. The caller waits, so that the message stays
// what it is.
func (g *Gateway) judge(j *judging, m filter.Message) filter.Verdict {
	j.message = m
	select {
	case g.judgings <- j:
	default: // nobody is free
		g.wg.Go(func() { g.judgeOn(j) })
	}
	<-j.done
	v := j.verdict
	j.message, j.verdict = filter.Message{}, filter.Verdict{}
	return v
}

// judgeOn looks at a message, and at those that come while it is needed.
func (g *Gateway) judgeOn(j *judging) {
	for {
		if j.up {
			j.verdict = j.conn.Up(j.message)
		} else {
			j.verdict = j.conn.Down(j.message)
		}
		j.done <- struct{}{}
		if g.judges.Add(1) > idleJudges {
			g.judges.Add(-1)
			return
		}
		select {
		case j = <-g.judgings:
			g.judges.Add(-1)
		case <-g.stop:
			g.judges.Add(-1)
			return
		}
	}
}
