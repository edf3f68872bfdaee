// Command bench measures bailey against the budgets of its design, on loopback,
// in turns with a peer where there is one, and writes docs/benchmarks.md. A
// missed budget is a result, not a failure; what cannot be measured is.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/baileyhq/bailey/e2e/bench/measure"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "\nbench FAILED: %v\n", err)
		os.Exit(1)
	}
}

// A part is one measurement, which may fill several rows.
type part struct {
	name string
	do   func(context.Context, *bench) (result, error)
}

// parts are all measurements, in the order of the tables.
func parts() []part {
	return []part{
		{"launch", launch},
		{"get", get},
		{"ws", sockets},
		{"audit", auditAppend},
		{"password", password},
		{"guessing", guessing},
		{"memory", memory},
		{"filter", filterBench},
		{"trust", trustDecisions},
		{"egress", egressDownload},
		{"ssh", sshDoor},
	}
}

// A result is what a part found.
type result struct {
	Rows   []measure.Row `json:"rows"`
	Stages []stageTable  `json:"stages,omitempty"`
	Said   []string      `json:"said,omitempty"` // how it was measured, one sentence each
}

// A bench is what the parts share.
type bench struct {
	bin   string // the bailey binary
	tools string // folder of our own helpers and of the npm peers
	work  string // scratch folder on a real disk, removed at the end
	quick bool
	log   *slog.Logger

	extra   string // more of the configuration of the servers started next
	profile string // folder for profiles of bailey under load; empty: none
	debug   string // where the running bailey without containers can be looked into
}

// pick is full normally, and little for a smoke of the bench itself.
func pick[T any](b *bench, full, little T) T {
	if b.quick {
		return little
	}
	return full
}

// settle waits for a moment in which nothing else happens: what was measured
// before is torn down, and others on the machine rest. It waits a few seconds at
// most; on a busy machine the measurement goes on regardless.
func (b *bench) settle(ctx context.Context) error {
	_, err := calm(ctx, 500*time.Millisecond, pick(b, 10*time.Second, 0))
	return err
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s  %s\n", time.Now().Format("15:04:05"), fmt.Sprintf(format, args...))
}

func run(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	bin := fs.String("bin", "bin/bailey", "the bailey binary")
	tools := fs.String("tools", "build/bench", "folder with the bench's helpers and npm peers, made by scripts/bench.sh")
	only := fs.String("only", "", "parts to measure, with commas: launch,get,ws,audit,password,guessing,memory,filter,trust,egress,ssh; the others stay as they were")
	quick := fs.Bool("quick", false, "a smoke of the bench: few samples, nothing is written")
	out := fs.String("out", "docs/benchmarks.md", "the file to write")
	notes := fs.String("notes", "e2e/bench/notes.md", "hand-written reasons, by row")
	profile := fs.String("profile", "", "folder to write profiles of bailey under load to (get: CPU, ws: heap)")
	render := fs.Bool("render", false, "measure nothing; write the file again from the stored results")
	if err := fs.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(*only)
	if err != nil {
		return err
	}
	b := &bench{quick: *quick, profile: *profile, log: slog.New(slog.DiscardHandler)}
	if b.bin, err = filepath.Abs(*bin); err != nil {
		return err
	}
	if b.tools, err = filepath.Abs(*tools); err != nil {
		return err
	}
	store := filepath.Join(b.tools, "results.json")
	if *render {
		return publish(store, *notes, *out)
	}
	// Beside the repository, not in /tmp: where that is a tmpfs, syncing a
	// journal costs nothing and says nothing.
	if b.work, err = os.MkdirTemp(b.tools, "run-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.work)

	for _, p := range chosen {
		if err := b.measure(ctx, p, store); err != nil {
			return fmt.Errorf("%s could not be measured: %w", p.name, err)
		}
	}
	if *quick {
		b.say("quick: nothing was written")
		return nil
	}
	if missing, err := unmeasured(store); err != nil || len(missing) > 0 {
		b.say("%s is written when %s have been measured too", *out, strings.Join(missing, ", "))
		return err
	}
	return publish(store, *notes, *out)
}

// measure does one part, prints it, and keeps it unless this is a quick run.
func (b *bench) measure(ctx context.Context, p part, store string) error {
	m, err := describe(ctx)
	if err != nil {
		return err
	}
	if m.Busy, err = calm(ctx, 2*time.Second, pick(b, 3*time.Minute, 0)); err != nil {
		return err
	}
	// A folder of its own: two parts may call a server or a socket the same.
	all := b.work
	b.work = filepath.Join(all, p.name)
	defer func() { b.work = all }()
	if err := os.Mkdir(b.work, 0o755); err != nil { //nolint:gosec // workspaces' users pass through it
		return err
	}
	b.say("%s … (others use %.0f %% of the CPUs)", p.name, 100*m.Busy)
	begin := time.Now()
	r, err := p.do(ctx, b)
	if err != nil {
		return err
	}
	if len(r.Rows) == 0 {
		return errors.New("no row was measured")
	}
	b.say("%s took %.0f s", p.name, time.Since(begin).Seconds())
	fmt.Println(measure.Table(r.Rows))
	for _, t := range r.Stages {
		fmt.Println(t)
	}
	for _, row := range r.Rows {
		if row.Verdict() == measure.Missed {
			fmt.Printf("%s: %s %s\n", row.ID, row.Shortfall(), row.Why)
		}
	}
	if b.quick {
		return nil
	}
	after, err := calm(ctx, 2*time.Second, 15*time.Second) // containers take a while to go
	if err != nil {
		return err
	}
	return remember(store, p.name, record{Machine: m, BusyAfter: after, Took: time.Since(begin).Round(time.Second).String(), Result: r})
}

// choose returns the parts named, all for an empty list.
func choose(list string) ([]part, error) {
	all := parts()
	if list == "" {
		return all, nil
	}
	var out []part
	for name := range strings.SplitSeq(list, ",") {
		i := slices.IndexFunc(all, func(p part) bool { return p.name == strings.TrimSpace(name) })
		if i < 0 {
			var names []string
			for _, p := range all {
				names = append(names, p.name)
			}
			return nil, fmt.Errorf("there is no part %q; there are %s", name, strings.Join(names, ", "))
		}
		out = append(out, all[i])
	}
	return out, nil
}
