package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/audit"
	"github.com/baileyhq/bailey/internal/guard"
	"github.com/baileyhq/bailey/internal/identity"
	"github.com/baileyhq/bailey/internal/secret"
	"github.com/baileyhq/bailey/internal/store"
)

// A signedIn is what signin prints.
type signedIn struct {
	OK      int64   `json:"ok"`
	Busy    int64   `json:"busy"` // told to come back: the hashing queue was full
	Seconds float64 `json:"seconds"`
}

// signIn makes accounts, says "ready", and for each line on its stdin signs all
// of them in, again and again, at the same time. The limits on attempts are
// raised out of the way: what is measured is hashing, store and journal.
func signIn(ctx context.Context, args []string) (err error) {
	fs := flag.NewFlagSet("gwserver signin", flag.ContinueOnError)
	dir := fs.String("dir", "", "an empty folder for state")
	parallel := fs.Int("parallel", 64, "people who sign in at the same time")
	length := fs.Duration("length", 5*time.Second, "for how long")
	if err := fs.Parse(args); err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	journal, err := audit.Open(audit.Config{Dir: filepath.Join(*dir, "audit"), Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, journal.Close()) }()
	st, err := store.Open(ctx, store.Config{Path: filepath.Join(*dir, "bailey.db"), Key: make([]byte, 32), Log: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	const many = 1 << 30
	g, err := guard.New(guard.Config{PrefixPerMinute: many, SubjectPerMinute: many, GlobalPerSecond: many})
	if err != nil {
		return err
	}
	id, err := identity.New(identity.Config{Store: st, Guard: g, Audit: journal, Log: log, UnknownKey: make([]byte, 32)})
	if err != nil {
		return err
	}
	people := make([]identity.SignInRequest, *parallel)
	for i := range people {
		r := identity.SignInRequest{Name: fmt.Sprintf("user%d", i), Password: secret.Random(12), IP: fmt.Sprintf("192.0.2.%d", i%250), UserAgent: "bench"}
		if _, err := id.CreateUser(ctx, bailey.System(), identity.NewUser{Name: r.Name, Password: r.Password, Role: bailey.RoleUser}); err != nil {
			return err
		}
		people[i] = r
	}
	fmt.Println("ready")
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		r, err := crowd(ctx, id, people, *length)
		if err != nil {
			return err
		}
		if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
			return err
		}
	}
	return nil
}

// crowd signs everybody in until length is over.
func crowd(ctx context.Context, id *identity.Service, people []identity.SignInRequest, length time.Duration) (signedIn, error) {
	var ok, busy atomic.Int64
	var g sync.WaitGroup
	failed := make(chan error, len(people))
	begin := time.Now()
	for _, r := range people {
		g.Go(func() {
			for time.Since(begin) < length {
				_, _, err := id.SignIn(ctx, r)
				switch {
				case err == nil:
					ok.Add(1)
				case bailey.KindOf(err) == bailey.Unavailable || bailey.KindOf(err) == bailey.TooMany:
					busy.Add(1)
					time.Sleep(100 * time.Millisecond) // people do not come back within microseconds
				default:
					failed <- err
					return
				}
			}
		})
	}
	g.Wait()
	close(failed)
	return signedIn{ok.Load(), busy.Load(), time.Since(begin).Seconds()}, <-failed
}
