package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/baileyhq/bailey/e2e/bench/measure"
)

// launch measures from the request to a Jupyter that answers, in turns with a
// bare container of the same image.
func launch(ctx context.Context, b *bench) (r result, err error) {
	s, err := b.startBailey(ctx, "launch")
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	imgs, err := images(ctx)
	if err != nil {
		return r, err
	}
	n, fresh := pick(b, 20, 2), pick(b, 5, 1)
	for _, class := range []string{"notebook", "pytorch"} {
		img, ok := imgs[class]
		if !ok {
			return r, fmt.Errorf("the image %s is not loaded: make images", class)
		}
		l := &launches{b: b, c: s.admin, class: class, img: img}
		if err := l.measure(ctx, n, fresh); err != nil {
			return r, fmt.Errorf("%s: %w", class, err)
		}
		r.Rows = append(r.Rows, l.rows()...)
		r.Stages = append(r.Stages, l.median())
		r.Said = append(r.Said, fmt.Sprintf("Image %s (%.19s…).", img.Tag, img.ID))
	}
	half, err := halfTheCores(ctx, b, s.admin, pick(b, 10, 1))
	if err != nil {
		return r, fmt.Errorf("half the cores: %w", err)
	}
	r.Rows = append(r.Rows, half)
	r.Said = append(r.Said,
		fmt.Sprintf("From POST /api/v1/workspaces to a 200 of the workspace's own /api/status through TLS and the gateway, asked every 10 ms; then stop, and again: %d times per class, on a volume that has been used, and %d times on a new one.", n, fresh),
		"The peer is docker run --detach of the same image id with its own command on a published loopback port, from the start of the docker command to a 200 of /api/status, asked in the same way, in turns with bailey's.",
		"Both may use all cores; bailey's container has every wall of the strict profile, the bare one none.",
		"The self-check that follows a launch is over before the next measurement begins.")
	return r, nil
}

// halfTheCores measures what people get whose administrator configured no class.
func halfTheCores(ctx context.Context, b *bench, c *client, n int) (measure.Row, error) {
	l := &launches{b: b, c: c, class: "half"}
	w, _, err := l.launch(ctx, l.class)
	if err != nil {
		return measure.Row{}, err
	}
	for range n {
		_, took, err := l.launch(ctx, l.class)
		if err != nil {
			return measure.Row{}, err
		}
		l.ours = append(l.ours, took)
	}
	row := measure.Row{
		ID: "launch.half", Unit: measure.Seconds, Ours: l.ours.Median(),
		Path: fmt.Sprintf("launch notebook with half the machine's cores, as in the classes that bailey makes by itself, p50 (n = %d)", n),
	}
	return row, c.remove(ctx, w.ID, l.class)
}

// launches are the launches of one class.
type launches struct {
	b     *bench
	c     *client
	class string
	img   image

	ours, theirs, first measure.Samples
	stages              [][]stage // of ours
}

// measure does n launches in turns with the peer, after fresh ones with a new
// volume each and one of each side that does not count: the first fills the
// page cache for whoever comes second.
func (l *launches) measure(ctx context.Context, n, fresh int) error {
	if _, err := l.bare(ctx); err != nil {
		return err
	}
	for i := range fresh {
		name := fmt.Sprintf("new%d", i)
		w, took, err := l.launch(ctx, name)
		if err != nil {
			return err
		}
		l.first = append(l.first, took)
		if err := l.c.remove(ctx, w.ID, name); err != nil {
			return err
		}
	}
	l.stages = nil
	w, _, err := l.launch(ctx, l.class)
	if err != nil {
		return err
	}
	l.stages = nil
	for i := range n {
		_, ours, err := l.launch(ctx, l.class)
		if err != nil {
			return err
		}
		theirs, err := l.bare(ctx)
		if err != nil {
			return err
		}
		l.ours, l.theirs = append(l.ours, ours), append(l.theirs, theirs)
		l.b.say("%s %d/%d: bailey %s, bare %s", l.class, i+1, n, measure.Seconds.Format(ours), measure.Seconds.Format(theirs))
	}
	return l.c.remove(ctx, w.ID, l.class)
}

// launch is one start to one stop.
func (l *launches) launch(ctx context.Context, name string) (workspace, float64, error) {
	if err := l.b.settle(ctx); err != nil {
		return workspace{}, 0, err
	}
	w, took, err := l.c.launch(ctx, name, l.class)
	if err != nil {
		return w, 0, err
	}
	if err := l.c.settle(ctx, w.ID); err != nil {
		return w, 0, err
	}
	var now workspace
	if err := l.c.call(ctx, http.MethodGet, "/workspaces/"+w.ID, nil, &now); err != nil {
		return w, 0, err
	}
	stages, err := l.c.stages(ctx, w.ID, now.Run)
	if err != nil {
		return w, 0, err
	}
	l.stages = append(l.stages, stages)
	return w, took.Seconds(), l.c.stop(ctx, w.ID)
}

// bare is one docker run to its removal.
func (l *launches) bare(ctx context.Context) (float64, error) {
	if err := l.b.settle(ctx); err != nil {
		return 0, err
	}
	h := &http.Client{Timeout: 10 * time.Second}
	defer h.CloseIdleConnections()
	begin := time.Now()
	c, err := runBare(ctx, l.img)
	if err != nil {
		return 0, err
	}
	err = until(ctx, 90*time.Second, "Jupyter of the bare container answers", func() (bool, error) {
		return jupyter(ctx, h, c.url, c.token)
	})
	took := time.Since(begin)
	return took.Seconds(), errors.Join(err, c.remove(context.WithoutCancel(ctx)))
}

func (l *launches) rows() []measure.Row {
	id := "launch." + l.class
	row := func(suffix, what string, q float64, budget measure.Budget) measure.Row {
		return measure.Row{
			ID: id + suffix, Path: fmt.Sprintf("launch %s to Jupyter answering, %s (n = %d)", l.class, what, len(l.ours)), Unit: measure.Seconds,
			Ours: l.ours.Quantile(q), Peer: new(l.theirs.Quantile(q)), Budget: budget, Why: l.why(),
		}
	}
	least, most := l.ours.Spread()
	bareLeast, bareMost := l.theirs.Spread()
	return []measure.Row{
		row(".p50", "p50", 0.50, measure.Budget{Kind: measure.AtMost, Limit: 1.0}),
		row(".p95", "p95", 0.95, measure.Budget{Kind: measure.AtMost, Limit: 2.0}),
		row(".over", "p50 over bare docker run", 0.50, measure.Budget{Kind: measure.Over, Limit: 0.25}),
		{ID: id + ".least", Path: "launch " + l.class + ", fastest", Unit: measure.Seconds, Ours: least, Peer: new(bareLeast)},
		{ID: id + ".most", Path: "launch " + l.class + ", slowest", Unit: measure.Seconds, Ours: most, Peer: new(bareMost)},
		{ID: id + ".first", Path: fmt.Sprintf("first launch of %s, on a new volume, p50 (n = %d); the bare container is always new", l.class, len(l.first)), Unit: measure.Seconds, Ours: l.first.Median(), Peer: new(l.theirs.Median())},
	}
}

// median returns the stages of the launch that took the median time.
func (l *launches) median() stageTable {
	m := l.ours.Median()
	i := l.ours.Nearest(m)
	return stageTable{Title: fmt.Sprintf("The %s launch that took the median time", l.class), Stages: l.stages[i], Total: l.ours[i]}
}

// why says in a sentence what takes longest in the median launch.
func (l *launches) why() string {
	t := l.median()
	var waiting float64
	for _, s := range t.Stages {
		if s.Name == "agent" || s.Name == "jupyter" {
			waiting += s.Took
		}
	}
	return fmt.Sprintf("Of the median launch, %s (%.0f %%) pass while the agent and Jupyter start inside; a bare container takes %s in all.",
		measure.Seconds.Format(waiting), 100*waiting/t.Total, measure.Seconds.Format(l.theirs.Median()))
}
