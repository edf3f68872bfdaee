package app

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/config"
	"github.com/baileyhq/bailey/internal/egress"
	"github.com/baileyhq/bailey/internal/egress/rules"
	"github.com/baileyhq/bailey/internal/workspace"
)

// outward is an egress.Proxy as a workspace.Egress.
type outward struct{ *egress.Proxy }

// Serve implements workspace.Egress.
func (o outward) Serve(ctx context.Context, conn net.Conn, from workspace.Sender) {
	o.Proxy.Serve(ctx, conn, egress.Who{
		UserID: from.UserID, User: from.User, WorkspaceID: from.Workspace, Workspace: from.Name, Run: from.Run, Class: from.Class,
	})
}

// applyEgress puts what the configuration says about egress in force. When it
// cannot, nothing may be reached rather than what an older file allowed.
func (a *App) applyEgress(ctx context.Context, f *config.Config) error {
	p, err := egressPolicy(f, a.settings.Classes())
	if err == nil {
		err = a.egress.Apply(p)
	}
	if err == nil {
		return nil
	}
	a.log.ErrorContext(ctx, "egress rules refused; workspaces reach nothing until they are corrected", slog.String("error", err.Error()))
	if shut := a.egress.Apply(egress.Policy{}); shut != nil {
		return fmt.Errorf("put no egress rules in force: %w", shut)
	}
	return err
}

// egressPolicy turns the configuration into rules for the classes there are.
func egressPolicy(f *config.Config, classes []bailey.Class) (egress.Policy, error) {
	e := f.Egress
	p := egress.Policy{
		Classes: map[string]string{}, Sets: map[string]rules.Set{},
		Limits:  egress.Limits{Connections: e.Limits.Connections, Rate: int64(e.Limits.Rate), Total: int64(e.Limits.Total)},
		Lenient: e.TLS == "relaxed",
	}
	for _, c := range classes {
		if c.Network != config.NetworkProxied {
			continue
		}
		p.Classes[c.Name] = c.Egress
		if _, done := p.Sets[c.Egress]; done {
			continue
		}
		set, err := egressSet(e, c.Egress)
		if err != nil {
			return egress.Policy{}, fmt.Errorf("class %s: %w", c.Name, err)
		}
		p.Sets[c.Egress] = set
	}
	for _, at := range e.Mirrors.Hosts() {
		host, port, _ := strings.Cut(at, ":")
		n, err := strconv.Atoi(port)
		if err != nil {
			return egress.Policy{}, fmt.Errorf("mirror %s: %w", at, err)
		}
		p.Mirrors = append(p.Mirrors, rules.Rule{ID: "mirror-" + at, Host: host, Ports: []int{n}, Note: "the organisation's mirror"})
	}
	for _, text := range e.Private {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return egress.Policy{}, fmt.Errorf("egress.private: %w", err)
		}
		p.Private = append(p.Private, prefix)
	}
	if e.Upstream.URL != "" {
		u, err := url.Parse(e.Upstream.URL)
		if err != nil {
			return egress.Policy{}, fmt.Errorf("egress.upstream: %w", err)
		}
		p.Upstream.URL = u
		if p.Upstream.User, p.Upstream.Password, err = f.UpstreamCredentials(); err != nil {
			return egress.Policy{}, err
		}
	}
	return p, nil
}

// egressSet returns a preset, or the rules that the file has under a name,
// after those of the preset they are added to.
func egressSet(e config.Egress, name string) (rules.Set, error) {
	if set, ok := rules.Preset(name); ok {
		return set, nil
	}
	own, ok := e.Policies[name]
	if !ok {
		return rules.Set{}, fmt.Errorf("there is no egress policy %q", name)
	}
	set := rules.Set{Name: name, Title: own.Title}
	if own.Preset != "" {
		base, ok := rules.Preset(own.Preset)
		if !ok {
			return rules.Set{}, fmt.Errorf("there is no preset %q", own.Preset)
		}
		set.Rules = base.Rules
	}
	for i, r := range own.Rules {
		w := r.Window()
		set.Rules = append(set.Rules, rules.Rule{
			ID: strconv.Itoa(i + 1), Host: r.Host, Ports: r.Ports, Methods: r.Methods, Users: r.Users,
			Window: rules.Window{From: w.From, To: w.To}, Limits: rules.Limits{Bytes: int64(r.Bytes), Rate: int64(r.Rate)},
		})
	}
	return set, nil
}

// egressMetrics reads the counters of an egress when it is scraped.
type egressMetrics struct {
	egress                                                *egress.Proxy
	open, connected, cut, refused, bytes, asking, unnoted *prometheus.Desc
}

func newEgressMetrics(p *egress.Proxy) *egressMetrics {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("bailey_egress_"+name, help, labels, nil)
	}
	return &egressMetrics{
		egress:    p,
		open:      d("connections", "Connections of workspaces to hosts outside that are open."),
		connected: d("connections_total", "Connections of workspaces to hosts outside that were made."),
		cut:       d("cut_total", "Connections that were cut by a change of rules, the end of a grant or a limit."),
		refused:   d("refused_total", "Connections that were refused.", "reason"),
		bytes:     d("bytes_total", "Bytes that were carried; up is out of workspaces.", "direction"),
		asking:    d("users_waiting", "Users with requests that no administrator has answered."),
		unnoted:   d("unrecorded_total", "Events that the audit journal did not take."),
	}
}

// Describe implements prometheus.Collector.
func (m *egressMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.open, m.connected, m.cut, m.refused, m.bytes, m.asking, m.unnoted} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (m *egressMetrics) Collect(ch chan<- prometheus.Metric) {
	s := m.egress.Stats()
	put := func(d *prometheus.Desc, kind prometheus.ValueType, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, kind, float64(v), labels...)
	}
	put(m.open, prometheus.GaugeValue, int64(s.Open))
	put(m.asking, prometheus.GaugeValue, int64(s.Waiting))
	put(m.connected, prometheus.CounterValue, s.Connected)
	put(m.cut, prometheus.CounterValue, s.Cut)
	put(m.unnoted, prometheus.CounterValue, s.Unrecorded)
	put(m.bytes, prometheus.CounterValue, s.Up, "up")
	put(m.bytes, prometheus.CounterValue, s.Down, "down")
	for reason, n := range s.Refused {
		put(m.refused, prometheus.CounterValue, n, reason)
	}
}
