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
// such byte, and a continuation byte may also change nothing. Assertions such
// as \b and $ always hold.
type dfa struct {
	prog    *syntax.Prog
	class   [256]uint8
	example []byte // a byte of each class
	entered []bool // by instruction: reachable from within the secret
	start   *State
	dead    *State

	mu     sync.Mutex // guards states and their making
	states map[string]*State
}

func newDFA(tree *syntax.Regexp, group int) *dfa {
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		panic(err) // a parsed expression compiles
	}
	d := &dfa{prog: prog, states: map[string]*State{}}
	d.classify()
	d.entered = d.inside(group, tree.MaxCap())
	d.dead = &State{}
	set := newSparse(len(prog.Inst))
	d.follow(set, uint32(prog.Start)) //nolint:gosec // an index into Inst
	d.start = d.state(set)
	return d
}

// classify puts bytes that no instruction tells apart into one class.
func (d *dfa) classify() {
	var cut [129]bool // a class begins here
	cut[0], cut[128] = true, true
	for i := range d.prog.Inst {
		in := &d.prog.Inst[i]
		if !isRune(in.Op) {
			continue
		}
		last := false
		for c := range rune(128) {
			if m := in.MatchRune(c); m != last {
				cut[c], last = true, m
			}
		}
	}
	n := -1
	for c := range 128 {
		if cut[c] {
			n++
			d.example = append(d.example, byte(c))
		}
		d.class[c] = uint8(n) //nolint:gosec // at most 128
	}
	d.example = append(d.example, 0x80, 0xc3)
	for c := 0x80; c < 0x100; c++ {
		d.class[c] = uint8(n + 1) //nolint:gosec // at most 129
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
	switch in.Op {
	case syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
		return true
	default:
	}
	if len(in.Rune) == 1 {
		r := in.Rune[0]
		if r >= utf8.RuneSelf {
			return true
		}
		if syntax.Flags(in.Arg)&syntax.FoldCase != 0 {
			for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
				if f >= utf8.RuneSelf {
					return true
				}
			}
		}
		return false
	}
	return len(in.Rune) > 0 && in.Rune[len(in.Rune)-1] >= utf8.RuneSelf
}

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
		switch i.Op {
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
		for pc := range d.prog.Inst {
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
		switch i.Op {
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

// follow adds pc and what it leads to without taking a byte.
func (d *dfa) follow(set *sparse, pc uint32) {
	if set.has[pc] {
		return
	}
	set.has[pc] = true
	in := &d.prog.Inst[pc]
	switch in.Op {
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

// state returns the State of a set of instructions.
func (d *dfa) state(set *sparse) *State {
	if len(set.list) == 0 {
		return d.dead
	}
	slices.Sort(set.list)
	key := make([]byte, 0, 4*len(set.list))
	for _, pc := range set.list {
		key = binary.LittleEndian.AppendUint32(key, pc)
	}
	if s, ok := d.states[string(key)]; ok {
		return s
	}
	s := &State{insts: slices.Clone(set.list)}
	for _, pc := range set.list {
		s.accept = s.accept || d.prog.Inst[pc].Op == syntax.InstMatch
		s.entered = s.entered || d.entered[pc]
	}
	s.next = make([]atomic.Pointer[State], len(d.example))
	if len(d.states) >= maxStates {
		clear(d.states)
	}
	d.states[string(key)] = s
	return s
}

// step returns the State after a byte of the given class.
func (d *dfa) step(s *State, class uint8) *State {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.example[class]
	set := newSparse(len(d.prog.Inst))
	for _, pc := range s.insts {
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
	n := d.state(set)
	s.next[class].Store(n)
	return n
}
