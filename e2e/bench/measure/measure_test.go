package measure_test

import (
	"math"
	"testing"

	"github.com/baileyhq/bailey/e2e/bench/measure"
)

func TestQuantileIsAMeasuredValue(t *testing.T) {
	twenty := make(measure.Samples, 0, 20)
	for i := 20; i >= 1; i-- { // unsorted input
		twenty = append(twenty, float64(i))
	}
	tests := []struct {
		name string
		in   measure.Samples
		q    float64
		want float64
	}{
		{"p50 of one", measure.Samples{7}, 0.5, 7},
		{"p95 of one", measure.Samples{7}, 0.95, 7},
		{"p50 of an even number is the lower middle", measure.Samples{4, 1, 3, 2}, 0.5, 2},
		{"p50 of an odd number", measure.Samples{9, 1, 5}, 0.5, 5},
		{"p95 of 20 is the 19th", twenty, 0.95, 19},
		{"p95 of 10 is the largest", twenty[:10], 0.95, 20},
		{"p99 of 20 is the largest", twenty, 0.99, 20},
		{"p100", twenty, 1, 20},
		{"a tiny q is the smallest", twenty, 1e-12, 1},
		{"equal values", measure.Samples{3, 3, 3}, 0.95, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			before := append(measure.Samples(nil), tt.in...)
			if got := tt.in.Quantile(tt.q); got != tt.want {
				t.Errorf("%v.Quantile(%v) = %v, want %v", tt.in, tt.q, got, tt.want)
			}
			for i := range before {
				if before[i] != tt.in[i] {
					t.Fatalf("Quantile changed its samples: %v, were %v", tt.in, before)
				}
			}
		})
	}
	var nothing measure.Samples
	if got := nothing.Quantile(0.5); !math.IsNaN(got) {
		t.Errorf("Quantile of nothing = %v, want NaN: nothing measured is not zero", got)
	}
}

func TestSpreadAndNearest(t *testing.T) {
	s := measure.Samples{4, 1, 9, 4}
	if least, most := s.Spread(); least != 1 || most != 9 {
		t.Errorf("%v.Spread() = %v, %v, want 1, 9", s, least, most)
	}
	if least, most := (measure.Samples{}).Spread(); !math.IsNaN(least) || !math.IsNaN(most) {
		t.Errorf("Spread of nothing = %v, %v, want NaN", least, most)
	}
	for v, want := range map[float64]int{4: 0, 0: 1, 100: 2, 6: 0, 7: 2} {
		if got := s.Nearest(v); got != want {
			t.Errorf("%v.Nearest(%v) = %d, want %d", s, v, got, want)
		}
	}
	if got := (measure.Samples{}).Nearest(1); got != -1 {
		t.Errorf("Nearest in nothing = %d, want -1", got)
	}
}
