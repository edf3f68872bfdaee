package identity

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/baileyhq/bailey"
	"github.com/baileyhq/bailey/internal/secret"
)

const (
	minPassword = 10   // characters
	maxPassword = 1024 // bytes
)

// common.txt holds what guessers try first.
//
//go:embed common.txt
var commonWords string

// checkPassword says whether a password may be set for the account name: long
// enough and not among the first that somebody would try. There are no rules
// about kinds of characters; they make passwords worse, not better.
func checkPassword(name string, password secret.Value) error {
	text := password.Reveal()
	switch {
	case utf8.RuneCountInString(text) < minPassword:
		return badPassword(fmt.Sprintf("the password is shorter than %d characters", minPassword))
	case len(text) > maxPassword:
		return badPassword(fmt.Sprintf("the password is longer than %d bytes", maxPassword))
	case repeats(text), counts(text):
		return badPassword("the password is a simple repetition or sequence")
	case isCommon(name, text):
		return badPassword("the password is one of the first that somebody would try: a common one, or made of words like the user name")
	}
	return nil
}

func badPassword(why string) error {
	return &bailey.Error{
		Kind: bailey.Invalid, Msg: why,
		Hint: fmt.Sprintf("use %d characters or more that nobody would guess, such as four words that do not belong together", minPassword),
	}
}

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

// isCommon reports whether the text is on the list, or nothing but words of the
// list and of the account's name with digits and signs around them.
func isCommon(name, text string) bool {
	lower := strings.ToLower(text)
	weak := weakWords(name)
	if slices.Contains(weak, lower) {
		return true
	}
	core := strings.TrimFunc(lower, func(r rune) bool { return !unicode.IsLetter(r) })
	return madeOf(lower, weak) || madeOf(unleet(core), weak)
}

// weakWords lists the words of common.txt and of the account's name.
func weakWords(name string) []string {
	var words []string
	for line := range strings.Lines(commonWords) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			words = append(words, line)
		}
	}
	for _, part := range append(strings.Split(name, "-"), name) {
		if len(part) >= 3 {
			words = append(words, strings.ToLower(part))
		}
	}
	return words
}

// madeOf reports whether all letters of the text belong to weak words. Runs of
// one or two letters do not save it.
func madeOf(text string, weak []string) bool {
	runs := strings.FieldsFunc(text, func(r rune) bool { return !unicode.IsLetter(r) })
	long := 0
	for _, run := range runs {
		if len(run) < 3 {
			continue
		}
		if long++; !composed(run, weak) {
			return false
		}
	}
	return long > 0
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
