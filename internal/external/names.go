package external

import (
	"crypto/sha256"
	"encoding/base32"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"github.com/baileyhq/bailey"
)

// maxName is the longest user name; see [bailey.CheckName].
const maxName = 30

// reserved are names that people take for somebody with power here. No
// directory gives them to anybody: they get an ending like a name that is taken.
var reserved = []string{"admin", "administrator", "root", "bailey", "system", "operator", "security", "support", "everyone", "nobody"}

// Names returns the user names for somebody who has no account yet, the best
// first; the first that is free is theirs. The name is made of the login, up to
// the first "@" and after the last "\". The others end with letters made of
// issuer and subject: the same person gets the same ones everywhere, and nobody
// can choose them to meet somebody else's. Every name is one of ours.
func Names(p Person) []string {
	base := nameOf(p.Login)
	sum := sha256.Sum256([]byte(p.Issuer + "\x00" + p.Subject))
	ending := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:]))
	var names []string
	if base == "" {
		base = "user"
	} else if !slices.Contains(reserved, base) {
		names = append(names, base)
	}
	for _, n := range []int{5, 10, 15} {
		names = append(names, cut(base, maxName-1-n)+"-"+ending[:n])
	}
	return names
}

// nameOf makes a user name of a login, or "" when nothing is left of it.
func nameOf(login string) string {
	if i := strings.LastIndexByte(login, '\\'); i >= 0 {
		login = login[i+1:]
	}
	login, _, _ = strings.Cut(login, "@")
	login = login[:min(len(login), maxLogin)]
	var b strings.Builder
	for _, r := range norm.NFKD.String(login) {
		r = unicode.ToLower(r)
		switch {
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			b.WriteRune(r)
		case r == 'ß':
			b.WriteString("ss")
		case r == utf8.RuneError, unicode.Is(unicode.Mn, r): // an accent: its letter is there already
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
	}
	name := strings.Trim(b.String(), "-")
	if name == "" {
		return ""
	}
	if name[0] >= '0' && name[0] <= '9' {
		name = "u" + name
	}
	name = cut(name, maxName)
	if bailey.CheckName("user", name) != nil {
		return ""
	}
	return name
}

// cut shortens a name.
func cut(name string, n int) string { return strings.Trim(name[:min(len(name), n)], "-") }
