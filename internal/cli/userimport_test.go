package cli

import (
	"strings"
	"testing"
)

// Whatever stands in a file of accounts, a line of it names nobody without a
// hash that can be checked, and what is wrong with it is said without it.
func FuzzParseImportLine(f *testing.F) {
	f.Add("carol:$2b$06$ffCayrBISrUhScTz6GgyneELRNVJ7KKW0ZOdSPkMG5F8mp859rk7m")
	f.Add(`{"name":"erin","hash":"sha1:0123456789ab:da39a3ee5e6b4b0d3255bfef95601890afd80709","groups":["vision"]}`)
	f.Add(`{"name":"erin","hash":"x"} {}`)
	f.Add("carol")
	f.Fuzz(func(t *testing.T, line string) {
		u, err := parseImportLine(line)
		if err == nil && (u.Name == "" || u.Hash == "") {
			t.Errorf("parseImportLine(%q) = %+v", line, u)
		}
		if _, secret, ok := strings.Cut(line, "$"); err != nil && ok && len(secret) > 40 && strings.Contains(err.Error(), secret) {
			t.Errorf("the error %q repeats what stands in the line", err)
		}
	})
}
