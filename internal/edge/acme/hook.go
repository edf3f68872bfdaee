package acme

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"time"

	"github.com/mholt/acmez/v3/acme"
)

// hookLimit is how long a hook may take: DNS is slow to say the same everywhere.
const hookLimit = 10 * time.Minute

// A hook is an administrator's program that sets DNS records. It is called as
// lego's exec provider calls its own, so those programs fit:
//
//	PROGRAM present _acme-challenge.example.org. VALUE
//	PROGRAM cleanup _acme-challenge.example.org. VALUE
//
// It sets, or removes, the TXT record, and ends when all name servers of the
// zone say so; anything but exit status 0 is a failure. It has no standard
// input and of our environment only PATH.
type hook struct {
	program string
	log     *slog.Logger
}

// Present sets the record for a challenge.
func (h hook) Present(ctx context.Context, c acme.Challenge) error { return h.run(ctx, "present", c) }

// CleanUp removes it.
func (h hook) CleanUp(ctx context.Context, c acme.Challenge) error { return h.run(ctx, "cleanup", c) }

func (h hook) run(ctx context.Context, doing string, c acme.Challenge) error {
	ctx, cancel := context.WithTimeout(ctx, hookLimit)
	defer cancel()
	name := strings.TrimSuffix(c.DNS01TXTRecordName(), ".") + "."
	cmd := exec.CommandContext(ctx, h.program, doing, name, c.DNS01KeyAuthorization()) //nolint:gosec // the administrator's program; the words are ours
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.WaitDelay = 5 * time.Second
	var said limited
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s %s: %w: %s", h.program, doing, name, err, said.text())
	}
	h.log.DebugContext(ctx, "dns hook", slog.String("doing", doing), slog.String("name", name), slog.String("said", said.text()))
	return nil
}

// limited keeps the first bytes of what a program says.
type limited struct{ buf bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	if room := 512 - l.buf.Len(); room > 0 {
		l.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (l *limited) text() string { return strings.ToValidUTF8(strings.TrimSpace(l.buf.String()), "?") }
