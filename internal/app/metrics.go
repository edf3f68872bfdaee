package app

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/baileyhq/bailey"
)

// listenMetrics opens the listener for metrics and health: its own address,
// plain HTTP, no credentials, hence never public by default.
func (a *App) listenMetrics(ctx context.Context, addr string) error {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return &bailey.Error{Kind: bailey.Unavailable, Msg: "cannot listen on " + addr + " for metrics", Hint: "is the port taken? choose another with --metrics ADDR", Cause: err}
	}
	a.metricsLn = ln
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newFleet(a), a.filtering.meters.findings, a.filtering.meters.refused, a.filtering.meters.sampled,
		newEgressMetrics(a.egress),
	)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", a.ready)
	a.metrics = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(a.log.Handler(), slog.LevelDebug)}
	return nil
}

// ready answers 200 when the store and the engine answer, 503 and why otherwise.
func (a *App) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 3*time.Second)
	defer cancel()
	for _, part := range []struct {
		name string
		ask  func(context.Context) error
	}{
		{"store", a.store.Ping},
		{"engine", func(ctx context.Context) error { _, err := a.engine.Probe(ctx); return err }},
	} {
		if err := part.ask(ctx); err != nil {
			a.log.WarnContext(ctx, "not ready", slog.String("part", part.name), slog.String("error", err.Error()))
			http.Error(w, part.name+" does not answer", http.StatusServiceUnavailable)
			return
		}
	}
	fmt.Fprintln(w, "ready")
}

// A fleet reads the gauges when it is scraped.
type fleet struct {
	a                                       *App
	info, workspaces, gpus, leased, tunnels *prometheus.Desc
}

func newFleet(a *App) *fleet {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("bailey_"+name, help, labels, nil)
	}
	return &fleet{
		a:          a,
		info:       d("build_info", "The running version.", "version"),
		workspaces: d("workspaces", "Workspaces by state.", "state"),
		gpus:       d("gpus", "GPUs that can be leased."),
		leased:     d("gpus_leased", "GPUs that a run holds."),
		tunnels:    d("tunnels", "Open WebSocket tunnels."),
	}
}

// Describe implements prometheus.Collector.
func (f *fleet) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{f.info, f.workspaces, f.gpus, f.leased, f.tunnels} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (f *fleet) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second) //nolint:forbidigo // a scrape has no context
	defer cancel()
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	gauge(f.info, 1, bailey.Version)
	gauge(f.tunnels, f.a.gateway.Tunnels().Open)
	if list, err := f.a.store.Workspaces(ctx, ""); err == nil {
		count := map[bailey.State]int{bailey.Stopped: 0, bailey.Starting: 0, bailey.Running: 0, bailey.Stopping: 0, bailey.Failed: 0}
		for _, w := range list {
			count[w.State]++
		}
		for state, n := range count {
			gauge(f.workspaces, n, string(state))
		}
	}
	if leases, err := f.a.store.Leases(ctx); err == nil {
		gauge(f.leased, len(leases))
	}
	if gpus, err := f.a.settings.gpus.Inventory(ctx); err == nil {
		gauge(f.gpus, len(gpus))
	}
}
