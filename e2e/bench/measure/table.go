package measure

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// A Unit says what a number counts, how it is written, and whether more is
// better.
type Unit string

// The units.
const (
	Seconds        Unit = "seconds"
	Bytes          Unit = "bytes"
	PerSecond      Unit = "per second"       // more is better
	BytesPerSecond Unit = "bytes per second" // more is better
	Count          Unit = "count"
)

// Format writes v with three significant digits in a size that people read.
func (u Unit) Format(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "not measured"
	}
	sign := ""
	if v < 0 {
		sign, v = "-", -v
	}
	switch u {
	case Seconds:
		switch {
		case v == 0:
			return "0 s"
		case v < 999.5e-6:
			return sign + digits(v*1e6) + " µs"
		case v < 999.5e-3:
			return sign + digits(v*1e3) + " ms"
		}
		return sign + digits(v) + " s"
	case Bytes:
		switch {
		case v < 1<<10:
			return sign + digits(v) + " B"
		case v < 1<<20:
			return sign + digits(v/(1<<10)) + " KiB"
		case v < 1<<30:
			return sign + digits(v/(1<<20)) + " MiB"
		}
		return sign + digits(v/(1<<30)) + " GiB"
	case PerSecond:
		return sign + digits(v) + " /s"
	case BytesPerSecond: // decimal, as rates are told
		switch {
		case v < 999.5e3:
			return sign + digits(v/1e3) + " kB/s"
		case v < 999.5e6:
			return sign + digits(v/1e6) + " MB/s"
		}
		return sign + digits(v/1e9) + " GB/s"
	case Count:
		return sign + digits(v)
	}
	return fmt.Sprintf("%s%v %s", sign, v, string(u))
}

// digits writes a positive number with three significant digits, no exponent
// and a comma at the thousands.
func digits(v float64) string {
	decimals := 0
	if v < 99.95 && v != 0 {
		decimals = 1
		if v < 9.995 {
			decimals = 2
		}
	}
	whole, fraction, dotted := strings.Cut(strconv.FormatFloat(v, 'f', decimals, 64), ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if fraction = strings.TrimRight(fraction, "0"); !dotted || fraction == "" {
		return whole
	}
	return whole + "." + fraction
}

// A Kind says what a budget bounds.
type Kind string

// The kinds of budget.
const (
	None    Kind = ""         // none: the row is information
	AtMost  Kind = "at most"  // our number, in the row's unit
	AtLeast Kind = "at least" // our number, in the row's unit
	Over    Kind = "over"     // our number minus the peer's, at most, in the row's unit
	Times   Kind = "times"    // how many times better than the peer we must be
)

// A Budget is a bound from the design.
type Budget struct {
	Kind  Kind    `json:"kind"`
	Limit float64 `json:"limit"`
}

// A Row is one measured path.
type Row struct {
	ID     string   `json:"id"`   // dotted, stable; notes.md refers to it
	Path   string   `json:"path"` // what was measured, for people
	Unit   Unit     `json:"unit"`
	Ours   float64  `json:"ours"`
	Peer   *float64 `json:"peer,omitempty"` // nil: there is none
	Budget Budget   `json:"budget"`
	Why    string   `json:"why,omitempty"` // what the data say about where it goes, one sentence or two
}

// Better returns how many times better than the peer we are, below 1 when
// worse; ok is false without a peer.
func (r Row) Better() (times float64, ok bool) {
	if r.Peer == nil {
		return 0, false
	}
	if r.Unit == PerSecond || r.Unit == BytesPerSecond {
		return r.Ours / *r.Peer, true
	}
	return *r.Peer / r.Ours, true
}

// A Verdict says whether a row keeps its budget.
type Verdict string

// The verdicts.
const (
	Met         Verdict = "yes"
	Missed      Verdict = "no"
	Information Verdict = "–" // there is no budget
)

// Verdict compares the row with its budget. What was not measured, or lacks the
// peer that its budget needs, is never met.
func (r Row) Verdict() Verdict {
	met := false
	switch r.Budget.Kind {
	case None:
		return Information
	case AtMost:
		met = r.Ours <= r.Budget.Limit
	case AtLeast:
		met = r.Ours >= r.Budget.Limit
	case Over:
		met = r.Peer != nil && r.Ours-*r.Peer <= r.Budget.Limit
	case Times:
		times, ok := r.Better()
		met = ok && times >= r.Budget.Limit
	}
	if met {
		return Met
	}
	return Missed
}

// BudgetText writes the budget as it stands in the table.
func (r Row) BudgetText() string {
	switch r.Budget.Kind {
	case None:
		return ""
	case AtMost:
		return "≤ " + r.Unit.Format(r.Budget.Limit)
	case AtLeast:
		return "≥ " + r.Unit.Format(r.Budget.Limit)
	case Over:
		return "≤ " + r.Unit.Format(r.Budget.Limit) + " over the peer"
	case Times:
		return "≥ " + digits(r.Budget.Limit) + "× better than the peer"
	}
	return string(r.Budget.Kind)
}

// ratioText writes how we compare with the peer.
func (r Row) ratioText() string {
	times, ok := r.Better()
	switch {
	case !ok:
		return ""
	case math.IsNaN(times) || math.IsInf(times, 0) || times <= 0:
		return "not comparable"
	case times < 1:
		return digits(1/times) + "× worse"
	}
	return digits(times) + "× better"
}

// Shortfall says in a sentence by how much a missed budget was missed.
func (r Row) Shortfall() string {
	switch r.Budget.Kind {
	case AtMost, AtLeast:
		word := "above"
		if r.Budget.Kind == AtLeast {
			word = "below"
		}
		off := math.Abs(r.Ours - r.Budget.Limit)
		return fmt.Sprintf("%s measured, %s (%s %%) %s the budget of %s.",
			r.Unit.Format(r.Ours), r.Unit.Format(off), digits(100*off/r.Budget.Limit), word, r.Unit.Format(r.Budget.Limit))
	case Over:
		if r.Peer != nil {
			return fmt.Sprintf("%s against %s: %s over the peer, where %s are allowed.",
				r.Unit.Format(r.Ours), r.Unit.Format(*r.Peer), r.Unit.Format(r.Ours-*r.Peer), r.Unit.Format(r.Budget.Limit))
		}
	case Times:
		if times, ok := r.Better(); ok {
			return fmt.Sprintf("%s against %s: %s× better, where %s× was the goal.",
				r.Unit.Format(r.Ours), r.Unit.Format(*r.Peer), digits(times), digits(r.Budget.Limit))
		}
	case None:
	}
	return "The peer was not measured."
}

// Table writes rows as a Markdown table.
func Table(rows []Row) string {
	var b strings.Builder
	b.WriteString("| path | bailey | peer | ratio | budget | met? |\n|---|---|---|---|---|---|\n")
	for _, r := range rows {
		peer := ""
		if r.Peer != nil {
			peer = r.Unit.Format(*r.Peer)
		}
		cells := []string{r.Path, r.Unit.Format(r.Ours), peer, r.ratioText(), r.BudgetText(), string(r.Verdict())}
		for i, c := range cells {
			cells[i] = strings.ReplaceAll(strings.ReplaceAll(c, "|", `\|`), "\n", " ")
		}
		b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
	}
	return b.String()
}
