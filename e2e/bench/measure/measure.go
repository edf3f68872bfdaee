// Package measure holds what every benchmark of bailey needs to say a number
// honestly: samples and their percentiles, what a process has used, and the
// table of results with its budgets. It measures nothing by itself.
package measure

import (
	"math"
	"slices"
)

// Samples are repeated measurements of one thing, in one unit. Not safe for
// concurrent use.
type Samples []float64

// Quantile returns the q-quantile (0 < q ≤ 1) by nearest rank: a value that was
// really measured, never one in between. With few samples a high quantile is
// simply the largest; say n beside it. NaN when there are none.
func (s Samples) Quantile(q float64) float64 {
	if len(s) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s))
	rank := int(math.Ceil(q*float64(len(sorted)) - 1e-9)) // 0.95 × 20 is 19, whatever binary fractions say
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// Median returns the middle value; of an even number the lower one of the two,
// so that it, too, was really measured.
func (s Samples) Median() float64 { return s.Quantile(0.5) }

// Spread returns the smallest and the largest sample.
func (s Samples) Spread() (least, most float64) {
	if len(s) == 0 {
		return math.NaN(), math.NaN()
	}
	return slices.Min(s), slices.Max(s)
}

// Nearest returns the index of the sample closest to v, the first of equals; -1
// when there are none. It finds the run that a median was taken from.
func (s Samples) Nearest(v float64) int {
	best := -1
	for i, x := range s {
		if best < 0 || math.Abs(x-v) < math.Abs(s[best]-v) {
			best = i
		}
	}
	return best
}
