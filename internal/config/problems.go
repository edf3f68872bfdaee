package config

import (
	"cmp"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxProblems bounds what is reported of one file.
const maxProblems = 50

// Errors is every problem of one configuration. [Load] returns it as *Errors.
type Errors struct { //nolint:errname // several problems are one error, and that is their plain name
	File     string    // the file that was read
	Problems []Problem // in the order of the file; at least one
}

// A Problem is one thing that is wrong, where it is and how to mend it.
type Problem struct { //nolint:errname // it is an error only on its way out of readFile
	Where   string `json:"where"`             // file, "environment" or "command line"
	Line    int    `json:"line,omitempty"`    // from 1; 0: no place in the file
	Column  int    `json:"column,omitempty"`  // in characters, from 1
	Path    string `json:"path,omitempty"`    // "classes[0].memory"
	What    string `json:"what"`              // what is wrong
	Why     string `json:"why"`               // the rule behind it
	Fix     string `json:"fix"`               // what to write or do instead
	Excerpt string `json:"excerpt,omitempty"` // the line and a caret; secrets are blotted out
}

// Error returns all problems, each with its excerpt, as text for a person.
func (e *Errors) Error() string {
	var b strings.Builder
	shown := e.Problems[:min(len(e.Problems), maxProblems)]
	if len(e.Problems) == 1 {
		b.WriteString("the configuration has 1 problem\n")
	} else {
		fmt.Fprintf(&b, "the configuration has %d problems\n", len(e.Problems))
	}
	for _, p := range shown {
		b.WriteString("\n" + p.String() + "\n")
	}
	if n := len(e.Problems) - len(shown); n > 0 {
		fmt.Fprintf(&b, "\n… and %d more.\n", n)
	}
	return strings.TrimRight(b.String(), "\n")
}

// String returns the problem as it is shown to a person, without a final
// newline.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.Where)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.What + "\n")
	if p.Excerpt != "" {
		b.WriteString(p.Excerpt + "\n")
	}
	fmt.Fprintf(&b, "  Why:     %s.\n", p.Why)
	fmt.Fprintf(&b, "  Instead: %s", p.Fix)
	return b.String()
}

// missing is the problem of a named file that is not there.
func missing(path string) Problem {
	return Problem{
		Where: path, What: "the file does not exist",
		Why: "it was named, so its absence is not taken for \"use the defaults\"",
		Fix: "check the name, or leave it out to use " + DefaultPath + " if it exists",
	}
}

// excerptWidth is how many characters of a line are shown.
const excerptWidth = 96

// excerpt shows one line with a caret under column (from 1, in characters).
// Secrets in the line are blotted out, and characters that a terminal would
// obey, or that reorder text, become dots: the excerpt ends up in terminals
// and logs.
func excerpt(label, line string, column, width int) string {
	line, column, width = blot(line, column, width)
	runes := []rune(line)
	column = max(1, min(column, len(runes)+1))
	from := 0
	if column > excerptWidth*3/4 {
		from = column - excerptWidth/2
	}
	to := min(len(runes), from+excerptWidth)
	var text, under strings.Builder
	if from > 0 {
		text.WriteRune('…')
		under.WriteByte(' ')
	}
	for i := from; i < max(to, column); i++ {
		mark := " "
		if i >= column-1 && (i < column-1+width || i == column-1) {
			mark = "^"
		}
		if i >= to { // the caret may stand one past the end
			under.WriteString(mark)
			break
		}
		r := runes[i]
		if !unicode.IsPrint(r) || r == utf8.RuneError {
			r = '·'
		}
		if wide(r) {
			mark += mark
		}
		text.WriteRune(r)
		under.WriteString(mark)
	}
	if to < len(runes) {
		text.WriteRune('…')
	}
	gutter := strings.Repeat(" ", utf8.RuneCountInString(label))
	return fmt.Sprintf("  %s | %s\n  %s | %s", label, text.String(), gutter, strings.TrimRight(under.String(), " "))
}

// Patterns of what must not be shown: passwords inside URLs, keys in PEM, and
// the values of keys that sound like secrets.
var (
	pemBlock    = regexp.MustCompile(`()(-----BEGIN .*)()`)
	urlPassword = regexp.MustCompile(`(://[^\s/?#@:]*:)(\S*)(@)`)
	secretValue = regexp.MustCompile(`(?i)((?:pass(?:word|wd|phrase)?|pwd|secret|token|api[_-]?key|private[_-]?key|credentials?)["']?\s*[:=]\s*)([^\s&,}{][^&,}{]*)()`)
)

const blotted = "[hidden]"

// blot replaces secrets in line and moves column and width accordingly.
func blot(line string, column, width int) (blottedLine string, col, w int) {
	for _, re := range []*regexp.Regexp{pemBlock, urlPassword, secretValue} {
		for at := 0; ; {
			m := re.FindStringSubmatchIndex(line[at:])
			if m == nil {
				break
			}
			from, to := at+m[4], at+m[5]
			start := utf8.RuneCountInString(line[:from]) + 1
			length := utf8.RuneCountInString(line[from:to])
			switch {
			case column >= start+length:
				column += len(blotted) - length
			case column > start:
				column, width = start, len(blotted)
			case column+width > start:
				width += len(blotted) - length
			}
			line = line[:from] + blotted + line[to:]
			at = from + len(blotted)
		}
	}
	return line, column, max(1, width)
}

// wide reports whether a terminal shows r two columns wide.
func wide(r rune) bool {
	return r >= 0x1100 && (r <= 0x115f || r >= 0x2e80 && r <= 0xa4cf || r >= 0xac00 && r <= 0xd7a3 ||
		r >= 0xf900 && r <= 0xfaff || r >= 0xfe30 && r <= 0xfe6f || r >= 0xff00 && r <= 0xff60 ||
		r >= 0xffe0 && r <= 0xffe6 || r >= 0x1f300 && r <= 0x1faff || r >= 0x20000 && r <= 0x3fffd)
}

// nearest returns the candidate that somebody who wrote word most probably
// meant, or "" when none is near.
func nearest(word string, candidates []string) string {
	best, found := len(word)/3+2, ""
	for _, c := range candidates {
		if d := distance(strings.ToLower(word), strings.ToLower(c), best); cmp.Less(d, best) {
			best, found = d, c
		}
	}
	return found
}

// distance is the number of single-letter changes, neighbours swapped counting
// as one, between a and b; it gives up at limit.
func distance(a, b string, limit int) int {
	if len(a) > 64 || len(b) > 64 || max(len(a)-len(b), len(b)-len(a)) >= limit {
		return limit
	}
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		row, up, upup := rows[i%3], rows[(i+2)%3], rows[(i+1)%3]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			change := 1
			if a[i-1] == b[j-1] {
				change = 0
			}
			row[j] = min(up[j]+1, row[j-1]+1, up[j-1]+change)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], upup[j-2]+1)
			}
		}
	}
	return rows[len(a)%3][len(b)]
}
