package identity

import (
	"sync"
	"time"

	"github.com/baileyhq/bailey"
)

const (
	freshFor   = time.Second // how old an answer may be
	touchEvery = time.Minute // how exactly the last use of a session or token is kept
	maxLive    = 8192        // credentials kept in memory
	maxDead    = 1024        // endings remembered
)

// A credential is a session or token that was found good, with its user.
type credential struct {
	id, hash string
	method   string // "password", "token", or one of [MethodSSHKey] and [MethodSSHCertificate]
	auth     time.Time
	methods  []string // what was proved then
	user     bailey.User
	token    *limits   // what a token is limited to; nil for a session
	usedIP   string    // where a token was last used from
	seen     time.Time // last use, as far as known
	expires  time.Time // absolute
	loaded   time.Time // when it was read from the store
}

func (c credential) actor(ip string) bailey.Actor {
	a := bailey.Actor{
		UserID: c.user.ID, Name: c.user.Name, Role: c.user.Role, Groups: c.user.Groups, Manages: c.user.Manages,
		Method: c.method, Session: c.id, IP: ip, AuthTime: c.auth, Methods: c.methods,
	}
	if c.token != nil {
		a.Scopes, a.Workspaces, a.Networks = c.token.scopes, c.token.workspaces, c.token.networks
	}
	return a
}

// good reports whether the credential may be used at this time.
func (c credential) good(now time.Time, idle time.Duration) bool {
	if c.user.Disabled || !now.Before(c.expires) {
		return false
	}
	return !c.idles() || now.Sub(c.seen) < idle
}

// idles reports whether the credential ends after a time without use: browsers'
// sessions do.
func (c credential) idles() bool {
	return c.method != "token" && c.method != MethodSSHKey && c.method != MethodSSHCertificate
}

// live keeps the credentials in use, so that a page with a thousand requests
// is not a thousand queries. It is a cache with one promise: once something
// ended, a read of the store that began before cannot bring it back.
type live struct {
	mu     sync.RWMutex           // guards all below
	byID   map[string]*credential // by the row's id
	byHash map[string]*credential // by the hash of the secret; rows found by id are not here
	clock  uint64                 // grows with each ending
	dead   map[string]uint64      // ids of rows and users, and when they ended
	floor  uint64                 // endings up to here are forgotten
}

func newLive() *live {
	return &live{byID: map[string]*credential{}, byHash: map[string]*credential{}, dead: map[string]uint64{}}
}

// find returns the credential under the hash, if it is fresh.
func (l *live) find(hash string, now time.Time) (credential, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return fresh(l.byHash[hash], now)
}

// findID returns the credential with the row's id, if it is fresh.
func (l *live) findID(id string, now time.Time) (credential, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return fresh(l.byID[id], now)
}

func fresh(c *credential, now time.Time) (credential, bool) {
	// A clock that was set back makes everything stale, not eternal.
	if c == nil || now.Before(c.loaded) || now.Sub(c.loaded) > freshFor {
		return credential{}, false
	}
	return *c, true
}

// last returns what is known of a row, fresh or not.
func (l *live) last(id string) (credential, bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if c := l.byID[id]; c != nil {
		return *c, true
	}
	return credential{}, false
}

// begin is called before a read of the store; put takes its answer.
func (l *live) begin() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.clock
}

// put keeps the credential. It reports false, and keeps nothing, when the row
// or its user changed or ended since begin: the read must be made again.
func (l *live) put(c credential, begun uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if begun < l.floor || l.dead[c.id] > begun || l.dead[c.user.ID] > begun {
		return false
	}
	if old := l.byID[c.id]; old != nil {
		if c.hash == "" {
			c.hash = old.hash
		}
		if old.seen.After(c.seen) {
			c.seen = old.seen
		}
	} else if len(l.byID) >= maxLive {
		l.evict()
	}
	l.byID[c.id] = &c
	if c.hash != "" {
		l.byHash[c.hash] = &c
	}
	return true
}

// evict drops the stalest of a few: the map's order is random enough.
func (l *live) evict() {
	var oldest *credential
	n := 0
	for _, c := range l.byID {
		if oldest == nil || c.loaded.Before(oldest.loaded) {
			oldest = c
		}
		if n++; n == 16 {
			break
		}
	}
	l.drop(oldest)
}

func (l *live) drop(c *credential) {
	delete(l.byID, c.id)
	if l.byHash[c.hash] == c {
		delete(l.byHash, c.hash)
	}
}

// touch notes a use now and reports whether the store should be told. Of a token
// ip is where from; of a session it is empty.
func (l *live) touch(id string, now time.Time, ip string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.byID[id]
	if c == nil || now.Sub(c.seen) < touchEvery && c.usedIP == ip {
		return false
	}
	next := *c // readers may hold the old one
	next.seen, next.usedIP = now, ip
	l.byID[id] = &next
	if next.hash != "" {
		l.byHash[next.hash] = &next
	}
	return true
}

// forget drops one row.
func (l *live) forget(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bury(id)
	if c := l.byID[id]; c != nil {
		l.drop(c)
	}
}

// forgetUser drops all rows of the user. Those that are still good are read
// again.
func (l *live) forgetUser(userID string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bury(userID)
	for _, c := range l.byID {
		if c.user.ID == userID {
			l.drop(c)
		}
	}
}

// bury remembers an ending for the reads that are under way.
func (l *live) bury(id string) {
	if len(l.dead) >= maxDead {
		clear(l.dead)
		l.floor = l.clock
	}
	l.clock++
	l.dead[id] = l.clock
}
