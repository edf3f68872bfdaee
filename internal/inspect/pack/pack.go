// Package pack holds the rules that come with bailey, and the checks that tell
// a number that looks like something from one that is it.
//
// The rules are TOML files in gitleaks' format with a few keys more (see
// docs/filter.md). They are written from the formats that the providers
// publish. Package inspect compiles and runs them; nothing here looks at text
// by itself.
//
// No token stands in the files, not even an invented one: examples are
// templates like `hf_<<alnum:34>>`, which [Files] fills in, always the same way.
// So no scanner, ours included, takes this repository for a leak.
package pack

import (
	"embed"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"path"
	"strconv"
	"strings"
	"sync"
)

//go:embed rules/*.toml
var sources embed.FS

// A File is a rule file: its name as findings and errors quote it, and its
// TOML text.
type File struct {
	Name string
	Data []byte
}

// Files returns the rule files in a fixed order, with the examples' templates
// filled in. Callers must not change the data.
var Files = sync.OnceValue(func() []File {
	entries, err := sources.ReadDir("rules")
	if err != nil {
		panic(err) // the files are part of the program
	}
	files := make([]File, 0, len(entries))
	for _, e := range entries { // sorted by name
		src, err := sources.ReadFile(path.Join("rules", e.Name()))
		if err != nil {
			panic(err)
		}
		text, err := expand(e.Name(), string(src))
		if err != nil {
			panic(err) // TestFiles
		}
		files = append(files, File{Name: e.Name(), Data: []byte(text)})
	}
	return files
})

// alphabets are the letters of the random templates.
var alphabets = map[string]string{
	"alpha":  "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz",
	"alnum":  "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
	"lower":  "abcdefghijklmnopqrstuvwxyz0123456789",
	"upper":  "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789",
	"hex":    "0123456789abcdef",
	"digits": "0123456789",
	"b32":    "abcdefghijklmnopqrstuvwxyz234567",
	"url":    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
	"b64":    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
}

// isRegexp is what may stand between the name of a service and its secret:
// the rest of the variable's name, an operator or an opening bracket, quotes.
const isRegexp = `[\w .\-\[\]'"\x60\\()]{0,32}(?:[:?]{1,3}=|=>|\|\||[=:>,( ])[=\s'"\x60\\(]{0,8}`

// expand fills in the templates of one file:
//
//	<<>>            nothing: it splits what must not stand there in one piece
//	<<is>>          the regular expression between a name and its value
//	<<hex:40>>      40 random letters of an alphabet, also alpha, alnum, lower,
//	                upper, digits, b32, b64 and url
//	<<lines:8>>     8 lines of 64 letters of b64
//	<<uuid>>        a random UUID
//	<<jwt>>         a JSON Web Token with a random signature
//	<<check:F:D>>   D and the check digits that make F accept it: luhn, gb11643,
//	                uscc, iban
func expand(name, src string) (string, error) {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	rng := rand.New(rand.NewPCG(h.Sum64(), 1)) //nolint:gosec // examples must come out the same every time
	var out strings.Builder
	for {
		before, rest, ok := strings.Cut(src, "<<")
		out.WriteString(before)
		if !ok {
			return out.String(), nil
		}
		tmpl, after, ok := strings.Cut(rest, ">>")
		if !ok {
			return "", fmt.Errorf("%s: a template is not closed: <<%.20s", name, rest)
		}
		text, err := fill(rng, tmpl)
		if err != nil {
			return "", fmt.Errorf("%s: template <<%s>>: %w", name, tmpl, err)
		}
		out.WriteString(text)
		src = after
	}
}

// fill returns the text of one template.
func fill(rng *rand.Rand, tmpl string) (string, error) {
	kind, arg, _ := strings.Cut(tmpl, ":")
	switch kind {
	case "":
		return "", nil
	case "is":
		return isRegexp, nil
	case "uuid":
		h := letters(rng, alphabets["hex"], 30)
		return h[:8] + "-" + h[8:12] + "-4" + h[12:15] + "-a" + h[15:18] + "-" + h[18:30], nil
	case "jwt":
		return exampleJWT(rng), nil
	case "check":
		f, digits, _ := strings.Cut(arg, ":")
		return withCheck(f, digits)
	}
	n, err := strconv.Atoi(arg)
	if err != nil || n < 1 || n > 4096 {
		return "", fmt.Errorf("%q is no length", arg)
	}
	if kind == "lines" {
		lines := make([]string, n)
		for i := range lines {
			lines[i] = letters(rng, alphabets["b64"], 64)
		}
		return strings.Join(lines, "\n"), nil
	}
	alphabet, ok := alphabets[kind]
	if !ok {
		return "", fmt.Errorf("%q is no alphabet", kind)
	}
	return letters(rng, alphabet, n), nil
}

// letters returns n letters. The first and the last are letters or digits, so
// that what stands beside a token is what the file says.
func letters(rng *rand.Rand, alphabet string, n int) string {
	b := make([]byte, n)
	for i := range b {
		for {
			b[i] = alphabet[rng.IntN(len(alphabet))]
			if i > 0 && i < n-1 || isAlnum(b[i]) {
				break
			}
		}
	}
	return string(b)
}
