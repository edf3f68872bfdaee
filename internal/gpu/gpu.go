// Package gpu tells which GPU cards there are to be leased: those that an
// administrator listed, or those that the NVIDIA driver shows under /proc. It
// looks and reports; who gets which card is decided elsewhere. It needs
// neither NVML nor any of NVIDIA's programs, and opens no device.
package gpu

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/baileyhq/bailey"
)

// A Mode says where the list of cards comes from.
type Mode string

// The modes.
const (
	Auto Mode = "auto" // what the driver shows; the zero Mode means the same
	List Mode = "list" // what is configured, whether or not it is there
	None Mode = "none" // no cards
)

// Config is what an Inventory needs.
type Config struct {
	Mode    Mode
	Devices []bailey.GPU // with List: the cards, in order of preference
	// ProcRoot is where procfs is; empty means /proc. Tests put a directory
	// of fixtures there.
	ProcRoot string
}

// An Inventory knows the cards. Its methods may be called concurrently.
type Inventory struct {
	cfg Config

	mu    sync.Mutex // guards what follows; held while looking, so that a crowd looks once
	cards []bailey.GPU
	until time.Time // how long cards count
}

// cacheTime is how long a look at /proc counts: cards do not come and go by
// the second, and launches may come by the hundred.
const cacheTime = 10 * time.Second

// New checks cfg and returns an Inventory. With List every device needs a
// valid UUID; one that is named twice counts once.
func New(cfg Config) (*Inventory, error) {
	cfg.Mode = cmp.Or(cfg.Mode, Auto)
	cfg.ProcRoot = cmp.Or(cfg.ProcRoot, "/proc")
	switch cfg.Mode {
	case Auto, None:
		if len(cfg.Devices) > 0 {
			return nil, fmt.Errorf("gpu: devices are listed, but the mode is %q", cfg.Mode)
		}
	case List:
		for i, d := range cfg.Devices {
			if !uuidRE.MatchString(d.UUID) {
				return nil, fmt.Errorf("gpu: device %d: %q is not the UUID of a GPU", i, shorten(d.UUID))
			}
		}
		cfg.Devices = distinct(cfg.Devices)
	default:
		return nil, fmt.Errorf("gpu: there is no mode %q", shorten(string(cfg.Mode)))
	}
	return &Inventory{cfg: cfg}, nil
}

// Inventory returns the cards: as configured, or as the driver shows them
// (by minor number, at most 10 s old). Without a driver there are none. An
// error means that there is one but it cannot be read.
func (v *Inventory) Inventory(_ context.Context) ([]bailey.GPU, error) {
	if v.cfg.Mode != Auto {
		return slices.Clone(v.cfg.Devices), nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if time.Now().Before(v.until) {
		return slices.Clone(v.cards), nil
	}
	cards, err := discover(v.cfg.ProcRoot)
	if err != nil {
		return nil, fmt.Errorf("gpu: list the driver's cards: %w", err)
	}
	v.cards, v.until = cards, time.Now().Add(cacheTime)
	return slices.Clone(cards), nil
}

// uuidRE is a UUID as the driver spells it: of a card, or of a MIG slice. It
// ends up in container requests, so nothing else may pass. A driver that has
// not initialised a card shows question marks.
var uuidRE = regexp.MustCompile(`^(?:GPU|MIG)-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)

// discover reads the driver's directory, with one sub-directory for each card.
func discover(procRoot string) ([]bailey.GPU, error) {
	root := filepath.Join(procRoot, "driver", "nvidia")
	entries, err := os.ReadDir(filepath.Join(root, "gpus"))
	if errors.Is(err, fs.ErrNotExist) {
		return []bailey.GPU{}, nil
	}
	if err != nil {
		return nil, err
	}
	found := []bailey.GPU{}
	for _, e := range entries {
		text, err := readSome(filepath.Join(root, "gpus", e.Name(), "information"))
		if errors.Is(err, fs.ErrNotExist) {
			continue // taken out between the two looks
		}
		if err != nil {
			return nil, err
		}
		card, ok := parse(text)
		if !ok {
			continue
		}
		sliced, err := isSliced(root, card.Index)
		if err != nil {
			return nil, err
		}
		if !sliced {
			found = append(found, card)
		}
	}
	slices.SortStableFunc(found, func(a, b bailey.GPU) int {
		return cmp.Or(cmp.Compare(a.Index, b.Index), cmp.Compare(a.UUID, b.UUID))
	})
	return distinct(found), nil
}

// isSliced reports whether a card is cut into MIG instances. Such a card cannot
// be leased as a whole: whoever got its UUID would get somebody's slice. Its
// slices are for the list.
func isSliced(root string, minor int) (bool, error) {
	entries, err := os.ReadDir(filepath.Join(root, "capabilities", "gpu"+strconv.Itoa(minor), "mig"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), "gi") }), err
}

// readSome reads a small file; what is longer is cut.
func readSome(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	return io.ReadAll(io.LimitReader(f, 64<<10))
}

// parse reads one card's "information" file: lines of "Name: value". It
// returns false for a card that cannot be leased: one without a valid UUID or
// minor number, or one that the administrator excluded from use.
func parse(text []byte) (bailey.GPU, bool) {
	card := bailey.GPU{Index: -1}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), ":")
		if !ok {
			continue
		}
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(name) {
		case "Model":
			card.Model = printable(value)
		case "GPU UUID":
			card.UUID = value
		case "Device Minor":
			if n, err := strconv.ParseUint(value, 10, 16); err == nil {
				card.Index = int(n)
			}
		case "GPU Excluded", "GPU Blacklisted":
			if !strings.EqualFold(value, "no") {
				return bailey.GPU{}, false
			}
		}
	}
	if card.Index < 0 || !uuidRE.MatchString(card.UUID) {
		return bailey.GPU{}, false
	}
	return card, true
}

// printable keeps what can be shown of a model's name, at most 64 characters.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if runes := []rune(s); len(runes) > 64 {
		s = string(runes[:64])
	}
	return s
}

// distinct drops cards whose UUID came before. Twice in the list would be
// twice in the sum of free cards.
func distinct(cards []bailey.GPU) []bailey.GPU {
	seen := map[string]bool{}
	out := make([]bailey.GPU, 0, len(cards))
	for _, c := range cards {
		if !seen[c.UUID] {
			seen[c.UUID] = true
			out = append(out, c)
		}
	}
	return out
}

func shorten(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
