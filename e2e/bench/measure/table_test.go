package measure_test

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/baileyhq/bailey/e2e/bench/measure"
)

func TestFormat(t *testing.T) {
	tests := []struct {
		unit measure.Unit
		v    float64
		want string
	}{
		{measure.Seconds, 0, "0 s"},
		{measure.Seconds, 43.71e-6, "43.7 µs"},
		{measure.Seconds, 999.4e-6, "999 µs"},
		{measure.Seconds, 999.6e-6, "1 ms"},
		{measure.Seconds, 0.2501, "250 ms"},
		{measure.Seconds, 1.304, "1.3 s"},
		{measure.Seconds, -0.02, "-20 ms"},
		{measure.Bytes, 512, "512 B"},
		{measure.Bytes, 24 << 10, "24 KiB"},
		{measure.Bytes, 22.13 * 1024, "22.1 KiB"},
		{measure.Bytes, 300 << 20, "300 MiB"},
		{measure.Bytes, 23.54 * (1 << 30), "23.5 GiB"},
		{measure.PerSecond, 123456.7, "123,457 /s"},
		{measure.PerSecond, 1000, "1,000 /s"},
		{measure.PerSecond, 999.6, "1,000 /s"},
		{measure.PerSecond, 8.333, "8.33 /s"},
		{measure.BytesPerSecond, 2_070_000, "2.07 MB/s"},
		{measure.BytesPerSecond, 17.9e9, "17.9 GB/s"},
		{measure.BytesPerSecond, 500, "0.5 kB/s"},
		{measure.Count, 3, "3"},
		{measure.Count, 99.96, "100"},
		{measure.Seconds, math.NaN(), "not measured"},
		{measure.Seconds, math.Inf(1), "not measured"},
	}
	for _, tt := range tests {
		if got := tt.unit.Format(tt.v); got != tt.want {
			t.Errorf("%s.Format(%v) = %q, want %q", tt.unit, tt.v, got, tt.want)
		}
	}
}

func budget(kind measure.Kind, limit float64) measure.Budget {
	return measure.Budget{Kind: kind, Limit: limit}
}

func TestVerdict(t *testing.T) {
	tests := []struct {
		name string
		row  measure.Row
		want measure.Verdict
	}{
		{"no budget", measure.Row{Ours: 1}, measure.Information},
		{"at most, exactly", measure.Row{Ours: 50, Budget: budget(measure.AtMost, 50)}, measure.Met},
		{"at most, above", measure.Row{Ours: 50.1, Budget: budget(measure.AtMost, 50)}, measure.Missed},
		{"at most, not measured", measure.Row{Ours: math.NaN(), Budget: budget(measure.AtMost, 50)}, measure.Missed},
		{"at least, exactly", measure.Row{Ours: 100, Budget: budget(measure.AtLeast, 100)}, measure.Met},
		{"at least, below", measure.Row{Ours: 99, Budget: budget(measure.AtLeast, 100)}, measure.Missed},
		{"at least, not measured", measure.Row{Ours: math.NaN(), Budget: budget(measure.AtLeast, 100)}, measure.Missed},
		{"over, within", measure.Row{Ours: 1.2, Peer: new(1.0), Budget: budget(measure.Over, 0.25)}, measure.Met},
		{"over, beyond", measure.Row{Ours: 1.3, Peer: new(1.0), Budget: budget(measure.Over, 0.25)}, measure.Missed},
		{"over, without a peer", measure.Row{Ours: 0.1, Budget: budget(measure.Over, 0.25)}, measure.Missed},
		{"times, less is better", measure.Row{Unit: measure.Seconds, Ours: 1, Peer: new(10.0), Budget: budget(measure.Times, 10)}, measure.Met},
		{"times, not enough", measure.Row{Unit: measure.Seconds, Ours: 1.1, Peer: new(10.0), Budget: budget(measure.Times, 10)}, measure.Missed},
		{"times, more is better", measure.Row{Unit: measure.PerSecond, Ours: 100, Peer: new(10.0), Budget: budget(measure.Times, 10)}, measure.Met},
		{"times, without a peer", measure.Row{Ours: 1, Budget: budget(measure.Times, 10)}, measure.Missed},
		{"an unknown kind is not met", measure.Row{Ours: 1, Budget: budget("perhaps", 1)}, measure.Missed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.row.Verdict(); got != tt.want {
				t.Errorf("%+v.Verdict() = %q, want %q", tt.row, got, tt.want)
			}
		})
	}
}

func TestTable(t *testing.T) {
	rows := []measure.Row{
		{Path: "small GET", Unit: measure.Seconds, Ours: 60e-6, Peer: new(120e-6), Budget: budget(measure.AtMost, 50e-6)},
		{Path: "launch", Unit: measure.Seconds, Ours: 1.2, Peer: new(1.0), Budget: budget(measure.Over, 0.25)},
		{Path: "appends | 64\nwriters", Unit: measure.PerSecond, Ours: 120000, Budget: budget(measure.AtLeast, 100000)},
		{Path: "requests", Unit: measure.PerSecond, Ours: 5000, Peer: new(10000.0)},
		{Path: "nothing", Unit: measure.Bytes, Ours: math.NaN(), Peer: new(1.0), Budget: budget(measure.Times, 10)},
	}
	want := `| path | bailey | peer | ratio | budget | met? |
|---|---|---|---|---|---|
| small GET | 60 µs | 120 µs | 2× better | ≤ 50 µs | no |
| launch | 1.2 s | 1 s | 1.2× worse | ≤ 250 ms over the peer | yes |
| appends \| 64 writers | 120,000 /s |  |  | ≥ 100,000 /s | yes |
| requests | 5,000 /s | 10,000 /s | 2× worse |  | – |
| nothing | not measured | 1 B | not comparable | ≥ 10× better than the peer | no |
`
	if diff := cmp.Diff(want, measure.Table(rows)); diff != "" {
		t.Errorf("Table (-want +got):\n%s", diff)
	}
}

func TestShortfall(t *testing.T) {
	tests := []struct {
		row  measure.Row
		want string
	}{
		{measure.Row{Unit: measure.Seconds, Ours: 60e-6, Budget: budget(measure.AtMost, 50e-6)}, "60 µs measured, 10 µs (20 %) above the budget of 50 µs."},
		{measure.Row{Unit: measure.PerSecond, Ours: 75000, Budget: budget(measure.AtLeast, 100000)}, "75,000 /s measured, 25,000 /s (25 %) below the budget of 100,000 /s."},
		{measure.Row{Unit: measure.Seconds, Ours: 1.5, Peer: new(1.0), Budget: budget(measure.Over, 0.25)}, "1.5 s against 1 s: 500 ms over the peer, where 250 ms are allowed."},
		{measure.Row{Unit: measure.Seconds, Ours: 50e-6, Peer: new(125e-6), Budget: budget(measure.Times, 10)}, "50 µs against 125 µs: 2.5× better, where 10× was the goal."},
		{measure.Row{Unit: measure.Seconds, Ours: 1, Budget: budget(measure.Times, 10)}, "The peer was not measured."},
	}
	for _, tt := range tests {
		if got := tt.row.Shortfall(); got != tt.want {
			t.Errorf("%+v.Shortfall() = %q, want %q", tt.row, got, tt.want)
		}
		if strings.Contains(tt.row.BudgetText(), "%!") {
			t.Errorf("BudgetText = %q", tt.row.BudgetText())
		}
	}
}
