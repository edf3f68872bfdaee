package cli_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// tokens are what stands in the stories' files for secrets: no scanner, ours
// included, should take this repository for a leak.
var tokens = strings.NewReplacer(
	"@HF@", "hf_"+"QzKvTbWnRmXyLpGdHsJcFaUeYtPqZwNxMr",
	"@HF2@", "hf_"+"aBcQzKvTbWnRmXyLpGdHsJcFaUeYtPqZwN",
	"@JWT@", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."+"eyJzdWIiOiIxMjM0NTY3ODkwIn0."+"SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
)

// plantTokens puts them into the files of a story.
func plantTokens(dir string) error {
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(name, []byte(tokens.Replace(string(text))), 0o644)
	})
}
