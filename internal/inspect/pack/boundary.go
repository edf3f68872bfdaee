package pack

import "bytes"

// boundaries are the looks around a match that a rule may name.
var boundaries = map[string]func(text []byte, start, end int) bool{
	"token":   tokenBoundary,
	"word":    wordBoundary,
	"number":  numberBoundary,
	"address": addressBoundary,
	"phone":   phoneBoundary,
}

// Look is how many bytes before and behind a match a boundary looks at.
const Look = 32

// Boundary returns the look of that name. It gets the text and where in it the
// secret stands, and says whether what stands beside lets it be one. It is
// pure, looks no further than [Look] bytes, and may be used concurrently.
func Boundary(name string) (func(text []byte, start, end int) bool, bool) {
	f, ok := boundaries[name]
	return f, ok
}

// tokenBoundary reports whether neither neighbour is a letter or a digit. An
// escaped line end (the two characters \n) is a line end.
func tokenBoundary(text []byte, start, end int) bool {
	if start > 0 && isAlnum(text[start-1]) && !isEscape(text, start-1) {
		return false
	}
	return end >= len(text) || !isAlnum(text[end])
}

// isEscape reports whether text[i] is the letter of \n, \r or \t.
func isEscape(text []byte, i int) bool {
	return i > 0 && text[i-1] == '\\' && (text[i] == 'n' || text[i] == 'r' || text[i] == 't')
}

// wordBoundary is tokenBoundary, the underscore being a letter too.
func wordBoundary(text []byte, start, end int) bool {
	return tokenBoundary(text, start, end) &&
		(start == 0 || text[start-1] != '_') && (end >= len(text) || text[end] != '_')
}

// numberBoundary reports whether the match is a whole number: not a part of a
// word, of a longer number, of a decimal fraction, a date or a path of ids.
func numberBoundary(text []byte, start, end int) bool {
	if !wordBoundary(text, start, end) || inArithmetic(text, start, end) {
		return false
	}
	if start > 0 {
		var before byte // the byte before the neighbour
		if start > 1 {
			before = text[start-2]
		}
		switch text[start-1] {
		case '#', '%', '$':
			return false
		case '.':
			if start == 1 || isDigit(before) {
				return false
			}
		case '-', '/', '+':
			if isAlnum(before) {
				return false
			}
		case ',':
			// 1,234,567 is one number; a list has other lengths between its commas.
			if isDigit(before) && groupOfThree(text, start) {
				return false
			}
		}
	}
	if end < len(text) {
		switch text[end] {
		case '.', '-', '/', '@', '%':
			return end+1 >= len(text) || !isAlnum(text[end+1])
		case ',':
			return end+4 > len(text) || !allDigits(text[end+1:end+4]) || end+4 < len(text) && isDigit(text[end+4])
		}
	}
	return true
}

// inArithmetic reports whether a number is multiplied, divided, raised, signed
// or an argument of a call: formulas are full of long numbers.
func inArithmetic(text []byte, start, end int) bool {
	after := text[end:min(len(text), end+4)]
	if len(after) > 0 && after[0] == '.' {
		after = after[1:]
		if len(after) > 0 && (after[0] == ',' || after[0] == ')' || after[0] == ']') {
			return true // [138., 2.]
		}
	}
	after = bytes.TrimLeft(after, " ")
	if len(after) > 0 && (after[0] == '*' || after[0] == '^') {
		return true
	}
	before := text[max(0, start-Look):start]
	if n := len(before); n > 0 {
		switch before[n-1] {
		case '*', '^', '~':
			return true
		case '+':
			return true // a country's code, or a sign; +86 is part of a match
		case '-':
			// Tel-138… is one, x = -138… is none.
			return n < 2 || before[n-2] == ' ' || before[n-2] == '(' || before[n-2] == '[' || before[n-2] == ',' || before[n-2] == '='
		case '(':
			return n > 1 && (isAlnum(before[n-2]) || before[n-2] == '_') // f(138…)
		}
	}
	before = bytes.TrimRight(before, " ")
	if bytes.HasSuffix(before, []byte("==")) {
		return true
	}
	return len(before) > 0 && (before[len(before)-1] == '*' || before[len(before)-1] == '^' || before[len(before)-1] == '%')
}

// addressBoundary reports whether the match is a whole IP address: no version
// number, no part of a name.
func addressBoundary(text []byte, start, end int) bool {
	if !wordBoundary(text, start, end) || start > 0 && (text[start-1] == '.' || text[start-1] == '-') {
		return false
	}
	return end+1 >= len(text) || text[end] != '.' && text[end] != '-' || !isAlnum(text[end+1])
}

// groupOfThree reports whether the number at start is a group of a written
// number with commas: three digits and no more.
func groupOfThree(text []byte, start int) bool {
	return start+3 <= len(text) && allDigits(text[start:start+3]) && (start+3 == len(text) || !isDigit(text[start+3]))
}

// sizes are words behind or before which eleven digits are an amount or an
// identifier, not somebody's number.
var sizes = [][]byte{
	[]byte("mem"), []byte("byte"), []byte("size"), []byte("alloc"), []byte("total"), []byte("seed"), []byte("count"),
	[]byte("offset"), []byte("time"), []byte("len"), []byte("num_"), []byte("_id"), []byte("_ns"), []byte("param"), []byte("hash"),
	[]byte("addr"), []byte("flops"), []byte("sum"), []byte("step"), []byte("shape"), []byte("int64"),
}

// phoneBoundary is numberBoundary for telephone numbers: sizes, times and
// identifiers are none, and so is a number in a row of numbers.
func phoneBoundary(text []byte, start, end int) bool {
	if !numberBoundary(text, start, end) {
		return false
	}
	line := text[max(0, start-Look):start]
	if i := bytes.LastIndexByte(line, '\n'); i >= 0 {
		line = line[i+1:]
	}
	line = bytes.ToLower(line)
	for _, w := range sizes {
		if bytes.Contains(line, w) {
			return false
		}
	}
	after := bytes.ToLower(text[end:min(len(text), end+8)])
	after = bytes.TrimLeft(after, " ")
	for _, unit := range []string{"byte", "kb", "mb", "kib", "mib", "ns", "us", "ms", "flop", "param"} {
		if bytes.HasPrefix(after, []byte(unit)) {
			return false
		}
	}
	return true
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }
