package crowd

import (
	"fmt"
	"net"
	"testing"
)

// A closer is a connection of which it matters only whether it was closed.
type closer struct {
	net.Conn
	closed bool
}

func (c *closer) Close() error { c.closed = true; return nil }

// Somebody who comes again and again gets in although the room is full of
// strangers who stay, and takes the place of the oldest; one address takes no more
// than its share.
func TestAFullRoom(t *testing.T) {
	c := New(Limits{Strangers: 40, PerPrefix: 4, Connections: 1, Channels: 2})
	var staying []*closer
	for i := range 4000 { // by chance most of them do not get in
		nc := &closer{}
		if leave, _ := c.Enter(nc, fmt.Sprintf("10.%d.%d.1", i>>8, i&255)); leave != nil {
			staying = append(staying, nc)
		}
	}
	if n := c.Stats().Strangers; n != 40 {
		t.Fatalf("%d strangers of 40 are there", n)
	}
	for i, nc := range staying {
		if oldest := i < len(staying)-40; nc.closed != oldest {
			t.Fatalf("the connection at %d of %d is closed: %v", i, len(staying), nc.closed)
		}
	}
	in := false
	for range 400 { // a quarter gets in: all of them missing is once in 10^49
		if leave, _ := c.Enter(&closer{}, "192.0.2.1"); leave != nil {
			in = true
			leave()
			leave() // counts once
			break
		}
	}
	if n := c.Stats().Strangers; !in || n != 39 {
		t.Errorf("somebody who comes often is in: %v; %d strangers stay, want 39", in, n)
	}

	c = New(Limits{Strangers: 400, PerPrefix: 4})
	for range 4 {
		if leave, why := c.Enter(&closer{}, "2001:db8::1"); leave == nil {
			t.Fatal(why)
		}
	}
	if leave, why := c.Enter(&closer{}, "2001:db8::2"); leave != nil || why != "address" {
		t.Errorf("a fifth from one /64 gets in: %q", why)
	}
	if leave, _ := c.Enter(&closer{}, "2001:db8:0:1::1"); leave == nil {
		t.Error("another /64 does not")
	}
}

// What one person has open is nothing to another.
func TestPeopleAreCountedApart(t *testing.T) {
	c := New(Limits{Connections: 2, Channels: 3})
	if c.TakeChannel("ada") {
		t.Error("a channel without a connection")
	}
	for i := range 3 {
		if ok := c.Take("ada"); ok != (i < 2) {
			t.Errorf("ada's connection %d: %v", i, ok)
		}
	}
	for i := range 4 {
		if ok := c.TakeChannel("ada"); ok != (i < 3) {
			t.Errorf("ada's channel %d: %v", i, ok)
		}
	}
	if !c.Take("bob") || !c.TakeChannel("bob") {
		t.Error("bob pays for ada")
	}
	c.ReleaseChannel("ada")
	c.Release("ada")
	if !c.TakeChannel("ada") || !c.Take("ada") {
		t.Error("what was given back is gone")
	}
	for range 2 {
		c.Release("ada")
	}
	if s := c.Stats(); s != (Stats{Open: 1, Opened: 4, Dropped: 1}) {
		t.Errorf("%+v", s)
	}
}
