package workspace

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/engine"
)

// An Egress answers what workspaces of network mode proxied send out. It
// decides what they reach; this package only says who is asking.
type Egress interface {
	// Serve answers one connection until it has ended, which is at the latest
	// when ctx does, and closes it. What it reads is hostile.
	Serve(ctx context.Context, conn net.Conn, from Sender)
}

// A Sender is who is at the inner end of a connection. It is known from the
// socket the connection came in by; nothing of it is the workspace's word.
type Sender struct {
	UserID, User    string
	Workspace, Name string // the workspace's id, and its owner's name for it
	Class           string
	Run             string
}

// maxSenders bounds the connections of one workspace that are answered at
// once, whatever an Egress allows.
const maxSenders = 4096

// network returns the mode of a class; runs of before there was a choice have
// none.
func network(c bailey.Class) engine.Network {
	if c.Network == "" {
		return engine.NetworkNone
	}
	return engine.Network(c.Network)
}

// checkNetwork returns nil if workspaces of the class can be given what it says.
func (s *Service) checkNetwork(class bailey.Class) error {
	if network(class) == engine.NetworkProxied && s.cfg.Egress == nil {
		return &bailey.Error{
			Kind: bailey.Unavailable, Msg: "class " + class.Name + " reaches out through the server, and this server does not do that",
			Hint: "choose a class without network, or ask an administrator",
		}
	}
	return nil
}

// A wayOut listens for what one run sends out, until it is shut.
type wayOut struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	over   chan struct{} // closed when nobody accepts any more
}

// openWay makes sure that somebody listens for what the run sends out. Only a
// container that has been verified gets that far.
func (k *keeper) openWay(ctx context.Context, ws bailey.Workspace) error {
	if network(k.run.Class) != engine.NetworkProxied || k.s.cfg.Egress == nil {
		return nil
	}
	if k.way != nil {
		select {
		case <-k.way.over: // somebody took the listener away
			k.shutWay()
		default:
			return nil
		}
	}
	l, err := k.s.cfg.Engine.Egress(ctx, k.id, k.run.UID)
	if err != nil {
		return fmt.Errorf("listen for what the workspace sends out: %w", err)
	}
	// It lives as long as the keeper says, not as long as a step of a launch.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	way := &wayOut{cancel: cancel, over: make(chan struct{})}
	from := Sender{
		UserID: ws.OwnerID, User: ws.Owner, Workspace: ws.ID, Name: ws.Name, Class: k.run.Class.Name, Run: k.id,
	}
	way.wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-way.over:
		}
		_ = l.Close() // whatever it says, nobody accepts from it any more
	})
	way.wg.Go(func() {
		defer close(way.over)
		k.s.carry(ctx, l, from)
	})
	k.way = way
	return nil
}

// wayLost reports whether nobody listens for the run although somebody should;
// over is closed when that becomes so, and nil where it cannot.
func (k *keeper) wayLost() (lost bool, over <-chan struct{}) {
	switch {
	case network(k.run.Class) != engine.NetworkProxied || k.s.cfg.Egress == nil:
		return false, nil
	case k.way == nil:
		return true, nil
	}
	return false, k.way.over
}

// shutWay cuts what the run has open and waits until all of it has ended.
func (k *keeper) shutWay() {
	if k.way == nil {
		return
	}
	k.way.cancel()
	k.way.wg.Wait()
	k.way = nil
}

// carry hands connections to the Egress until the listener is closed.
func (s *Service) carry(ctx context.Context, l net.Listener, from Sender) {
	var open sync.WaitGroup
	defer open.Wait()
	slots := make(chan struct{}, maxSenders)
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors, most likely: wait for some to come back.
			s.log.WarnContext(ctx, "a workspace's connection could not be accepted", slog.String("workspace", from.Workspace), slog.Any("error", err))
			select {
			case <-ctx.Done():
				return
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			_ = conn.Close() // one that sees its end knows, one that waits does not
			continue
		}
		open.Go(func() {
			defer func() { <-slots }()
			s.cfg.Egress.Serve(ctx, conn, from)
		})
	}
}
