package match

import (
	"encoding/binary"
	"regexp/syntax"
	"slices"
	"sync"
	"sync/atomic"
	"unicode"
	"unicode/utf8"
)

// maxStates is how many states an automaton keeps; when there are more it
// starts over, which costs time only.
const maxStates = 4096

// Bytes from 0x80 on are not decoded. The automaton allows more than the
// expression does: any character class with something beyond ASCII takes any
// such byte, and a continuation byte may also change nothing. (The Kelvin sign
// and the long s, which fold to k and s, are left out.) Assertions such
// as \b and $ always hold.
type dfa struct {
	prog    *syntax.Prog
	class   [256]uint8
	example []byte // a byte of each class
	entered []bool // by instruction: reachable from within the secret
	width   int    // of a row: the number of classes

	gen atomic.Pointer[generation]
	mu  sync.Mutex // guards making states
}

// A generation is an automaton as far as it is built. Rows are only added, and
// cells only filled in, so readers need no lock.
type generation struct {
	cells  atomic.Pointer[[]uint32] // by state and class; 0 is not known yet
	states map[string]uint32        // guarded by the automaton's mu
	insts  [][]uint32               // by state; likewise
	start  uint32
}

// A cell is where a state's row begins, and what is to be known of it while running.
const (
	accepts   = 1 << iota // a match may end here
	entered               // the text may belong to the secret
	known                 // the cell is filled in
	cellShift = iota
)

// dead is the cell of the state from which nothing matches.
const dead = known

func newDFA(tree *syntax.Regexp, group int) *dfa {
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		panic(err) // a parsed expression compiles
	}
	d := &dfa{prog: prog}
	d.classify()
	d.width = len(d.example)
	d.entered = d.inside(group, tree.MaxCap())
	d.renew()
	return d
}

// renew begins a new generation.
func (d *dfa) renew() {
	g := &generation{states: map[string]uint32{}, insts: [][]uint32{nil}}
	row := make([]uint32, d.width)
	for i := range row {
		row[i] = dead
	}
	g.cells.Store(&row)
	set := newSparse(len(d.prog.Inst))
	d.follow(set, uint32(d.prog.Start)) //nolint:gosec // an index into Inst
	g.start = d.state(g, set)
	d.gen.Store(g)
}

// classify puts bytes that no instruction tells apart into one class.
func (d *dfa) classify() {
	var cut [129]bool // a class begins here
	cut[0], cut[128] = true, true
	at := func(lo, hi rune) {
		if lo < 128 {
			cut[lo], cut[min(hi+1, 128)] = true, true
		}
	}
	for i := range d.prog.Inst {
		switch in := &d.prog.Inst[i]; {
		case in.Op == syntax.InstRuneAnyNotNL:
			at('\n', '\n')
		case !isRune(in.Op):
		case len(in.Rune) == 1: // and what it folds to, if case does not count
			at(in.Rune[0], in.Rune[0])
			for r := unicode.SimpleFold(in.Rune[0]); r != in.Rune[0]; r = unicode.SimpleFold(r) {
				at(r, r)
			}
		default:
			for k := 0; k+1 < len(in.Rune); k += 2 {
				at(in.Rune[k], in.Rune[k+1])
			}
		}
	}
	n := -1
	for c := range 128 {
		if cut[c] {
			n++
			d.example = append(d.example, byte(c))
		}
		d.class[c] = uint8(n)
	}
	d.example = append(d.example, 0x80, 0xc3)
	for c := 0x80; c < 0x100; c++ {
		d.class[c] = uint8(n + 1)
		if c >= 0xc0 {
			d.class[c]++
		}
	}
}

func isRune(op syntax.InstOp) bool {
	return op == syntax.InstRune || op == syntax.InstRune1 || op == syntax.InstRuneAny || op == syntax.InstRuneAnyNotNL
}

// beyondASCII reports whether the instruction takes a character from U+0080 on.
func beyondASCII(in *syntax.Inst) bool {
	switch in.Op { //nolint:exhaustive // the default says the rest
	case syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
		return true
	default:
	}
	if len(in.Rune) == 1 {
		return in.Rune[0] >= utf8.RuneSelf
	}
	for i := 0; i+1 < len(in.Rune); i += 2 {
		if lo, hi := in.Rune[i], in.Rune[i+1]; hi >= utf8.RuneSelf && (lo != hi || !foldsToASCII(hi)) {
			return true
		}
	}
	return false
}

// foldsToASCII reports whether r is the Kelvin sign or the long s, which the
// letters k and s match too when case does not count. No token has them.
func foldsToASCII(r rune) bool { return r == '\u212a' || r == '\u017f' }

// inside returns the instructions that can be reached from within the secret:
// after the opening of its group. Without groups that is all of them.
func (d *dfa) inside(group, groups int) []bool {
	in := make([]bool, len(d.prog.Inst))
	if groups == 0 {
		for i := range in {
			in[i] = true
		}
		return in
	}
	var mark func(pc uint32)
	mark = func(pc uint32) {
		if in[pc] {
			return
		}
		in[pc] = true
		i := &d.prog.Inst[pc]
		switch i.Op { //nolint:exhaustive // the default says the rest
		case syntax.InstMatch, syntax.InstFail:
		case syntax.InstAlt, syntax.InstAltMatch:
			mark(i.Out)
			mark(i.Arg)
		default:
			mark(i.Out)
		}
	}
	opens := func(i *syntax.Inst) bool {
		return i.Op == syntax.InstCapture && i.Arg%2 == 0 && i.Arg >= 2 && (group == 0 || int(i.Arg) == 2*group)
	}
	for i := range d.prog.Inst {
		if c := &d.prog.Inst[i]; opens(c) {
			mark(c.Out)
		}
	}
	if group == 0 {
		d.groupless(in, opens)
	}
	return in
}

// groupless adds the instructions from which a match can be completed without
// any group: there the whole match is the secret.
func (d *dfa) groupless(in []bool, opens func(*syntax.Inst) bool) {
	free := make([]bool, len(in))
	for changed := true; changed; {
		changed = false
		for pc := len(d.prog.Inst) - 1; pc >= 0; pc-- { // what follows stands behind, mostly
			i := &d.prog.Inst[pc]
			yes := false
			switch {
			case i.Op == syntax.InstMatch:
				yes = true
			case i.Op == syntax.InstFail || opens(i):
			case i.Op == syntax.InstAlt || i.Op == syntax.InstAltMatch:
				yes = free[i.Out] || free[i.Arg]
			default:
				yes = free[i.Out]
			}
			if yes && !free[pc] {
				free[pc], changed = true, true
			}
		}
	}
	// What can only be reached through a group is no way around it.
	seen := make([]bool, len(in))
	var walk func(pc uint32)
	walk = func(pc uint32) {
		i := &d.prog.Inst[pc]
		if seen[pc] || opens(i) {
			return
		}
		seen[pc] = true
		in[pc] = in[pc] || free[pc]
		switch i.Op { //nolint:exhaustive // the default says the rest
		case syntax.InstMatch, syntax.InstFail:
		case syntax.InstAlt, syntax.InstAltMatch:
			walk(i.Out)
			walk(i.Arg)
		default:
			walk(i.Out)
		}
	}
	walk(uint32(d.prog.Start)) //nolint:gosec // an index into Inst
}

// sparse is a set of instructions that is cheap to empty.
type sparse struct {
	list []uint32
	has  []bool
}

func newSparse(n int) *sparse { return &sparse{has: make([]bool, n)} }

// add adds pc alone.
func (s *sparse) add(pc uint32) {
	if !s.has[pc] {
		s.has[pc] = true
		s.list = append(s.list, pc)
	}
}

// follow adds pc and what it leads to without taking a byte.
func (d *dfa) follow(set *sparse, pc uint32) {
	if set.has[pc] {
		return
	}
	set.has[pc] = true
	in := &d.prog.Inst[pc]
	switch in.Op { //nolint:exhaustive // the default says the rest
	case syntax.InstFail:
	case syntax.InstAlt, syntax.InstAltMatch:
		d.follow(set, in.Out)
		d.follow(set, in.Arg)
	case syntax.InstCapture, syntax.InstEmptyWidth, syntax.InstNop:
		d.follow(set, in.Out)
	default:
		set.list = append(set.list, pc)
	}
}

// state returns the cell of a set of instructions.
func (d *dfa) state(g *generation, set *sparse) uint32 {
	if len(set.list) == 0 {
		return dead
	}
	slices.Sort(set.list)
	key := make([]byte, 0, 4*len(set.list))
	for _, pc := range set.list {
		key = binary.LittleEndian.AppendUint32(key, pc)
	}
	if cell, ok := g.states[string(key)]; ok {
		return cell
	}
	cell := uint32(len(g.insts)*d.width)<<cellShift | known //nolint:gosec // at most maxStates rows
	for _, pc := range set.list {
		if d.prog.Inst[pc].Op == syntax.InstMatch {
			cell |= accepts
		}
		if d.entered[pc] {
			cell |= entered
		}
	}
	g.insts = append(g.insts, slices.Clone(set.list))
	old := *g.cells.Load()
	grown := append(old, make([]uint32, d.width)...) //nolint:gocritic // readers of the old one see no row that it lacks
	g.cells.Store(&grown)
	g.states[string(key)] = cell
	return cell
}

// takes reports whether the instruction takes a byte.
func (d *dfa) takes(in *syntax.Inst, c byte) bool {
	if c < utf8.RuneSelf {
		return in.MatchRune(rune(c))
	}
	return beyondASCII(in)
}

// takesOrdinary reports whether the instruction takes some ordinary byte.
func (d *dfa) takesOrdinary(in *syntax.Inst) bool {
	for c, yes := range ordinary {
		if yes && in.MatchRune(rune(c)) {
			return true
		}
	}
	return false
}

// hopeless reports whether no match can go on from a state with text, nor with
// text and whatever may follow it.
func (d *dfa) hopeless(s State, text []byte) bool {
	g, cell := s.gen, s.cell
	cells := *g.cells.Load()
	for _, c := range text {
		class := d.class[c]
		k := int(cell>>cellShift) + int(class)
		next := uint32(0)
		if k < len(cells) {
			next = atomic.LoadUint32(&cells[k])
		}
		if next == 0 {
			next = d.step(g, cell, class)
			cells = *g.cells.Load()
		}
		if next&accepts != 0 {
			return false
		}
		if next == dead {
			return true
		}
		cell = next
	}
	return false
}

// step returns the cell after a byte of the given class.
func (d *dfa) step(g *generation, from uint32, class uint8) uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.example[class]
	set := newSparse(len(d.prog.Inst))
	for _, pc := range g.insts[int(from>>cellShift)/d.width] {
		in := &d.prog.Inst[pc]
		switch {
		case in.Op == syntax.InstMatch:
			if c >= utf8.RuneSelf && c < 0xc0 {
				d.follow(set, pc)
			}
		case c < utf8.RuneSelf:
			if in.MatchRune(rune(c)) {
				d.follow(set, in.Out)
			}
		default:
			if beyondASCII(in) {
				d.follow(set, in.Out)
			}
			if c < 0xc0 {
				d.follow(set, pc)
			}
		}
	}
	cell := d.state(g, set)
	atomic.StoreUint32(&(*g.cells.Load())[int(from>>cellShift)+int(class)], cell)
	if len(g.insts) > maxStates && d.gen.Load() == g {
		d.renew()
	}
	return cell
}
