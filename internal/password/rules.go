package password

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/trustelem/zxcvbn/frequency"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/secret"
)

// MinLength is the fewest characters that any installation may ask for, and
// DefaultLength what it asks for when nobody says otherwise.
const (
	MinLength     = 8
	DefaultLength = 10
)

// common.txt holds the words that guessers try first.
//
//go:embed common.txt
var commonWords string

// Rules say which passwords may be set. The zero value is the default.
type Rules struct {
	Length int      // characters at least; 0 means [DefaultLength]
	Words  []string // that guessers would try here: the company, the project, the host
}

// Check says whether a password may be set: long enough and not among the first
// that somebody would try. context is what those would know of the account: its
// name, the host. There are no rules about kinds of characters; they make
// passwords worse, not better. The error is of kind Invalid.
func (r Rules) Check(password secret.Value, context ...string) error {
	text, least := password.Reveal(), r.Length
	if least == 0 {
		least = DefaultLength
	}
	least = max(least, MinLength)
	words := append(slices.Clone(r.Words), context...)
	switch {
	case utf8.RuneCountInString(text) < least:
		return bad(least, fmt.Sprintf("the password is shorter than %d characters", least))
	case len(text) > MaxBytes:
		return bad(least, fmt.Sprintf("the password is longer than %d bytes", MaxBytes))
	case repeats(text), counts(text):
		return bad(least, "the password is a simple repetition or sequence")
	case isCommon(words, text):
		return bad(least, "the password is one of the first that somebody would try: a common one, or made of words like the user name")
	}
	return nil
}

func bad(least int, why string) error {
	return &bailey.Error{
		Kind: bailey.Invalid, Msg: why,
		Hint: fmt.Sprintf("use %d characters or more that nobody would guess, such as four words that do not belong together", least),
	}
}

// leaked holds the passwords that are found most often in what was stolen
// elsewhere, those that are long enough to be set at all.
var leaked = sync.OnceValue(func() map[string]bool {
	set := map[string]bool{}
	for _, p := range frequency.FrequencyLists["passwords"] {
		if len(p) >= MinLength {
			set[p] = true
		}
	}
	return set
})

// repeats reports whether the text is one short piece, over and over.
func repeats(text string) bool {
	for n := 1; n <= len(text)/3 && n <= 8; n++ {
		if strings.HasPrefix(strings.Repeat(text[:n], len(text)/n+1), text) {
			return true
		}
	}
	return false
}

// counts reports whether each character follows from the one before, as in
// "abcdefghij" or "9876543210".
func counts(text string) bool {
	runes := []rune(text)
	for _, step := range []rune{1, -1} {
		follows := func(i int) bool {
			wrapped := runes[i-1] == '9' && runes[i] == '0' || runes[i-1] == '0' && runes[i] == '9'
			return runes[i]-runes[i-1] == step || wrapped
		}
		all := true
		for i := 1; i < len(runes) && all; i++ {
			all = follows(i)
		}
		if all {
			return true
		}
	}
	return false
}

// isCommon reports whether the text is on a list, or nothing but words of ours
// and of the account's with digits and signs around them.
func isCommon(context []string, text string) bool {
	lower := strings.ToLower(text)
	weak := weakWords(context)
	if slices.Contains(weak, lower) || leaked()[lower] {
		return true
	}
	core := strings.TrimFunc(lower, func(r rune) bool { return !unicode.IsLetter(r) })
	return madeOf(lower, weak) || madeOf(unleet(core), weak)
}

// weakWords lists the words of common.txt and of the context, whole and in
// their parts.
func weakWords(context []string) []string {
	var words []string
	for line := range strings.Lines(commonWords) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			words = append(words, line)
		}
	}
	for _, text := range context {
		text = strings.ToLower(text)
		parts := strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
		for _, part := range append(parts, text) {
			if len(part) >= 3 && len(part) <= 64 {
				words = append(words, part)
			}
		}
	}
	return words
}

// madeOf reports whether all letters of the text belong to weak words. Runs of
// one or two letters do not save it; that a long random text happens to have
// such a word in it, "abc" among digits, does not spoil it.
func madeOf(text string, weak []string) bool {
	runs := strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) })
	long, letters := 0, 0
	for _, run := range runs {
		if len(run) < 3 {
			continue
		}
		letters += len(run)
		if long++; !composed(run, weak) {
			return false
		}
	}
	return long > 0 && 4*letters >= len(text)
}

// composed reports whether run is a chain of weak words.
func composed(run string, weak []string) bool {
	reached := make([]bool, len(run)+1)
	reached[0] = true
	for i := range run {
		if !reached[i] {
			continue
		}
		for _, w := range weak {
			if strings.HasPrefix(run[i:], w) {
				reached[i+len(w)] = true
			}
		}
	}
	return reached[len(run)]
}

// unleet undoes the disguises that guessers know too.
func unleet(text string) string {
	return strings.NewReplacer("@", "a", "4", "a", "3", "e", "1", "i", "!", "i", "0", "o", "$", "s", "5", "s", "7", "t").Replace(text)
}
