package inspect

import (
	"math/rand/v2"
	"regexp/syntax"
	"strings"
)

// generate returns a text that the expression matches.
func generate(rng *rand.Rand, re *syntax.Regexp) string {
	var b strings.Builder
	write(rng, re, &b)
	return b.String()
}

func write(rng *rand.Rand, re *syntax.Regexp, b *strings.Builder) {
	times := func(lo, hi int) {
		for range lo + rng.IntN(hi-lo+1) {
			write(rng, re.Sub[0], b)
		}
	}
	switch re.Op {
	case syntax.OpLiteral:
		b.WriteString(string(re.Rune))
	case syntax.OpCharClass:
		var all []rune
		for i := 0; i < len(re.Rune); i += 2 {
			for r := re.Rune[i]; r <= re.Rune[i+1] && r < 0x7f; r++ {
				if r > ' ' || r == '\t' && len(re.Rune) < 12 || r == ' ' {
					all = append(all, r)
				}
			}
		}
		if len(all) > 0 {
			b.WriteRune(all[rng.IntN(len(all))])
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte(byte('a' + rng.IntN(26)))
	case syntax.OpCapture:
		write(rng, re.Sub[0], b)
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			write(rng, sub, b)
		}
	case syntax.OpAlternate:
		write(rng, re.Sub[rng.IntN(len(re.Sub))], b)
	case syntax.OpQuest:
		times(0, 1)
	case syntax.OpStar:
		times(0, 3)
	case syntax.OpPlus:
		times(1, 3)
	case syntax.OpRepeat:
		hi := re.Max
		if hi < 0 || hi > re.Min+8 {
			hi = re.Min + 8
		}
		times(re.Min, hi)
	default:
	}
}
