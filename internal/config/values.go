package config

import (
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A Duration is a time.Duration that is written "90s", "30m" or "8h".
type Duration time.Duration

// Bytes is a size that is written "512MiB" or "16GiB".
type Bytes int64

const (
	kib Bytes = 1 << 10
	mib Bytes = 1 << 20
	gib Bytes = 1 << 30
	tib Bytes = 1 << 40
)

// CPUs is an amount of processor in thousandths of a core, written "4" or "0.5".
type CPUs int64

// A PortRange is a first and a last port, written "8500-8599".
type PortRange struct{ First, Last int }

// A fault is what is wrong with one value, without its place.
type fault struct{ what, why, fix string }

func (f *fault) Error() string { return f.what }

// UnmarshalText reads a duration. It never accepts a negative one.
func (d *Duration) UnmarshalText(text []byte) error {
	s := string(text)
	if s == "0" {
		*d = 0
		return nil
	}
	v, err := time.ParseDuration(s)
	if err == nil && v >= 0 && !strings.HasPrefix(s, "+") {
		*d = Duration(v)
		return nil
	}
	f := &fault{
		what: quote(s) + " is not a duration",
		why:  "a duration is a number with a unit: s, m or h",
		fix:  "30m",
	}
	if err == nil {
		f.why = "a duration cannot have a sign"
	}
	if m := numberUnit.FindStringSubmatch(s); m != nil {
		switch strings.ToLower(m[2]) {
		case "":
			f.fix = fmt.Sprintf("%ss, %sm or %sh, whichever you mean", m[1], m[1], m[1])
		case "s", "sec", "secs", "second", "seconds":
			f.fix = m[1] + "s"
		case "m", "min", "mins", "minute", "minutes":
			f.fix = m[1] + "m"
		case "h", "hr", "hrs", "hour", "hours":
			f.fix = m[1] + "h"
		case "d", "day", "days":
			if n, err := strconv.Atoi(m[1]); err == nil && n < 10000 {
				f.fix = strconv.Itoa(24*n) + "h"
			}
		}
	}
	return f
}

// numberUnit is a number and letters, as people write them when they guess.
var numberUnit = regexp.MustCompile(`^([0-9]{1,12}(?:\.[0-9]{1,9})?) ?([A-Za-z]{0,8})$`)

// MarshalText writes what UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String returns the shortest usual form: "8h", not "8h0m0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if s == "0s" {
		return "0"
	}
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

var sizeRE = regexp.MustCompile(`^([0-9]{1,9})(?:\.([0-9]{1,3}))?(KiB|MiB|GiB|TiB)$`)

// UnmarshalText reads a size.
func (b *Bytes) UnmarshalText(text []byte) error {
	s := string(text)
	if s == "0" {
		*b = 0
		return nil
	}
	if m := sizeRE.FindStringSubmatch(s); m != nil {
		unit := map[string]Bytes{"KiB": kib, "MiB": mib, "GiB": gib, "TiB": tib}[m[3]]
		n, err := strconv.ParseInt(m[1], 10, 64)
		if err == nil && Bytes(n) <= math.MaxInt64/2/unit {
			thousandths, _ := strconv.ParseInt((m[2] + "000")[:3], 10, 64)   // digits by sizeRE
			*b = (Bytes(n)*unit + Bytes(thousandths)*unit/1000) &^ (kib - 1) // whole KiB, so that it can be written back
			return nil
		}
		return &fault{what: quote(s) + " is too large a size", why: "no machine has that much", fix: "16GiB"}
	}
	f := &fault{
		what: quote(s) + " is not a size",
		why:  "a size is a number with a unit: KiB, MiB, GiB or TiB (1 GiB is 1024 MiB)",
		fix:  "16GiB",
	}
	if m := numberUnit.FindStringSubmatch(s); m != nil {
		switch strings.ToLower(m[2]) {
		case "":
			f.fix = fmt.Sprintf("%sMiB or %sGiB, whichever you mean", m[1], m[1])
		case "k", "kb", "ki", "kib":
			f.fix = m[1] + "KiB"
		case "m", "mb", "mi", "mib":
			f.fix = m[1] + "MiB"
		case "g", "gb", "gi", "gib":
			f.fix = m[1] + "GiB"
		case "t", "tb", "ti", "tib":
			f.fix = m[1] + "TiB"
		}
	}
	return f
}

// MarshalText writes what UnmarshalText reads, as far as KiB reach.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// String returns the size in the largest unit that divides it, rounding down
// below a KiB.
func (b Bytes) String() string {
	switch {
	case b == 0:
		return "0"
	case b%tib == 0:
		return strconv.FormatInt(int64(b/tib), 10) + "TiB"
	case b%gib == 0:
		return strconv.FormatInt(int64(b/gib), 10) + "GiB"
	case b%mib == 0:
		return strconv.FormatInt(int64(b/mib), 10) + "MiB"
	}
	return strconv.FormatInt(int64(b/kib), 10) + "KiB"
}

var cpusRE = regexp.MustCompile(`^[0-9]{1,7}(?:\.[0-9]{1,3})?$`)

// UnmarshalText reads a number of cores with at most three decimals.
func (c *CPUs) UnmarshalText(text []byte) error {
	s := string(text)
	if cpusRE.MatchString(s) {
		whole, frac, _ := strings.Cut(s, ".")
		n, err := strconv.ParseInt(whole+(frac + "000")[:3], 10, 64)
		if err != nil {
			return fmt.Errorf("read cores: %w", err) // cannot be: cpusRE allows ten digits
		}
		*c = CPUs(n)
		return nil
	}
	f := &fault{
		what: quote(s) + " is not a number of cores",
		why:  "cores are a number with at most three decimals",
		fix:  "4",
	}
	if m := numberUnit.FindStringSubmatch(s); m != nil && m[2] == "m" {
		if n, ok := new(big.Rat).SetString(m[1]); ok {
			f.fix = strings.TrimRight(strings.TrimRight(n.Quo(n, big.NewRat(1000, 1)).FloatString(3), "0"), ".")
		}
	}
	return f
}

// MarshalText writes what UnmarshalText reads.
func (c CPUs) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// String returns the number of cores without needless zeros.
func (c CPUs) String() string {
	s := fmt.Sprintf("%d.%03d", c/1000, c%1000)
	return strings.TrimRight(strings.TrimRight(s, "0"), ".")
}

var portsRE = regexp.MustCompile(`^([0-9]{1,5}) ?- ?([0-9]{1,5})$`)

// UnmarshalText reads a range of ports.
func (p *PortRange) UnmarshalText(text []byte) error {
	s := string(text)
	m := portsRE.FindStringSubmatch(s)
	if m == nil {
		return &fault{what: quote(s) + " is not a range of ports", why: "a range is its first and its last port", fix: `"8500-8599"`}
	}
	first, _ := strconv.Atoi(m[1]) // digits by portsRE
	last, _ := strconv.Atoi(m[2])
	*p = PortRange{first, last}
	return nil
}

// MarshalText writes what UnmarshalText reads.
func (p PortRange) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// String returns the range as it is written.
func (p PortRange) String() string { return fmt.Sprintf("%d-%d", p.First, p.Last) }

// quote returns at most 60 characters of s, quoted and escaped, for a message.
func quote(s string) string {
	if r := []rune(s); len(r) > 60 {
		s = string(r[:60]) + "…"
	}
	return strconv.Quote(s)
}
