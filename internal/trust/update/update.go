// Package update fetches the newest root of Sigstore's public instance by TUF.
// It is the one place that talks to that repository, and only the command
// "bailey trust root update" asks it: no decision about an image ever waits
// for it or believes it unasked.
package update

import (
	"context"
	"fmt"
	"time"

	"github.com/sigstore/sigstore-go/pkg/tuf"
)

// limit is how long all of it may take; the library has no context.
const limit = time.Minute

// Fetch returns trusted_root.json, verified from the TUF root that the library
// carries. mirror is the repository's address; "" is Sigstore's own. Nothing
// is cached on disk.
func Fetch(ctx context.Context, mirror string) ([]byte, error) {
	opts := tuf.DefaultOptions()
	opts.DisableLocalCache = true
	if mirror != "" {
		opts.RepositoryBaseURL = mirror
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1) // the goroutine ends with its last request
	go func() {
		client, err := tuf.New(opts)
		if err != nil {
			done <- result{err: fmt.Errorf("fetch root of trust: %w", err)}
			return
		}
		data, err := client.GetTarget("trusted_root.json")
		if err != nil {
			err = fmt.Errorf("fetch root of trust: %w", err)
		}
		done <- result{data, err}
	}()
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("fetch root of trust: %w", ctx.Err())
	case r := <-done:
		return r.data, r.err
	}
}
